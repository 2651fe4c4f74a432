"""Quantisation: the encoder's linear maps in int8, after training or in view of it, or their weights in int4.

Only the linear maps of the encoder layers are quantised (`encoders.layer_parts`); embeddings, norms, pooler and
classifier stay in fp32. Per torchao (int8: Jacob et al. 2018, with dynamic activations):
- ptq8, qat8: weights int8, symmetric, one scale per output row; activations int8, asymmetric, one scale and zero
  point per token, found anew at each call. qat8 trains first with the very same rounding (straight-through gradient).
- ptq4: weights int4, symmetric, one scale per 32 inputs of a row; activations stay in fp32.
In eager mode torchao multiplies the integers back to floats, so a quantised model's eager time is not its speed.
"""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.errors import StudyError, nearest
from lib.models import pretrained
from lib.models.encoders import layer_parts

KINDS = ("ptq8", "qat8", "ptq4")
GROUP = 32  # weights that share a scale in ptq4
WIDTH = {torch.int4: 4, torch.int8: 8}  # bits


def quantize(model: PreTrainedModel, kind: str) -> PreTrainedModel:
    """Quantise the encoder's linear maps in place and give the model back, in eval mode; it can be trained no more.

    kind: ptq8 and ptq4 take a finished fp32 model, qat8 one that `prepare` made ready, trained since (see `convert`).
    StudyError: an unknown kind, a model in another state, a map whose width ptq4 cannot split into groups.
    """
    if kind not in KINDS:
        raise StudyError(f"quantisation {kind!r} is not known{nearest(kind, KINDS)}")
    if kind == "qat8":
        return convert(model)
    _check(model, prepared=False)
    if kind == "ptq4":
        for part in _parts(model):
            if part.in_features % GROUP:
                raise StudyError(f"quantisation ptq4: a linear map of the encoder has {part.in_features} inputs, which "
                                 f"groups of {GROUP} do not divide: take ptq8, or another fraction for ffn-*")
    return _apply(model, _config(kind))


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Make a model ready for quantisation-aware training, in place, and give it back.

    Its linear maps go on as linear maps with the same parameters under the same names, whose inputs and weights are
    rounded as in ptq8 on the way forward, the gradient passing straight through. Hooks on the old maps are lost.
    StudyError: a model that is quantised or ready already.
    """
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    _check(model, prepared=False)
    training, chosen = model.training, set(_parts(model))
    quantize_(model, QATConfig(_config("qat8"), step="prepare"), lambda module, name: module in chosen)
    return model.train(training)


def convert(model: PreTrainedModel) -> PreTrainedModel:
    """The int8 model of one that `prepare` made ready, in place, in eval mode; without training in between, ptq8.

    StudyError: a model that is not ready.
    """
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    _check(model, prepared=True)
    quantize_(model, QATConfig(step="convert"))
    return _apply(model, _config("qat8"))


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a folder that `load` and, where torchao is installed, plain `from_pretrained` load: a quantised weight
    takes a byte, in ptq4 too, all else is fp32. StudyError: a model that is not quantised."""
    if not _is_quantized(model):
        raise StudyError("the model is not quantised: quantise it first, or write it with pretrained.save")
    pretrained.save(model, tokenizer, folder)
    _sort_header(Path(folder) / "model.safetensors")


def load(folder: Path) -> PreTrainedModel:
    """The quantised classifier that `save` wrote, in eval mode on the CPU; its logits are those before, bit by bit.

    StudyError: a folder that is missing, damaged or holds a model that is not quantised.
    """
    folder = Path(folder).resolve()
    if not is_quantized(folder):
        raise StudyError(f"{folder} holds no quantised model: make it again, or load it with "
                         "pretrained.load_classifier")
    config = json.loads((folder / "config.json").read_text())
    n_labels = len(config.get("id2label", range(2)))  # transformers writes no names that are its own default
    model = pretrained.load_classifier(str(folder), n_labels, seed=0)
    if not _is_quantized(model):
        raise StudyError(f"{folder}: config.json tells of a quantised model, model.safetensors holds none: make it "
                         "again")
    model._weight_conversions = None  # torchao's has no way back, and `save_pretrained` would ask for it
    return model.eval()


def is_quantized(folder: Path) -> bool:
    """Whether the folder holds a quantised model, from its config.json alone. StudyError: there is none to read."""
    path = Path(folder) / "config.json"
    try:
        return "quantization_config" in json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error}): give a folder written by quantization.save") from error


def sizes(model: PreTrainedModel) -> dict[str, int]:
    """`encoders.sizes` for a quantised model: the same keys.

    nonzero_*: weights that rounding to the grid left different from 0. bytes: integer weights at their own width
    (half a byte in ptq4, where the file takes a whole one) and their scales in fp32, every other parameter in fp32.
    """
    counts = dict.fromkeys(("parameters", "encoder_parameters", "nonzero_parameters", "nonzero_encoder_parameters"), 0)
    bits = 0
    for p in model.parameters():
        whole = hasattr(p, "qdata")
        number, filled = p.numel(), int((p.qdata if whole else p).count_nonzero())
        counts["parameters"] += number
        counts["nonzero_parameters"] += filled
        bits += number * WIDTH[p.target_dtype] + 32 * p.scale.numel() if whole else 32 * number
        if whole:
            counts["encoder_parameters"] += number
            counts["nonzero_encoder_parameters"] += filled
    return counts | {"bytes": bits // 8}


def _sort_header(path: Path) -> None:
    """Put the header of a safetensors file in order: its metadata come at random, and equal models are equal files."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors begin at a multiple of 8
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[start:])


def _config(kind: str):
    """torchao's own description of a kind, one and the same for ptq8 and qat8."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, PerAxis, PerGroup

    if kind == "ptq4":
        return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))
    return Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0))


def _apply(model: PreTrainedModel, config) -> PreTrainedModel:
    """Quantise, and note how in the model, so that `save_pretrained` writes what `from_pretrained` needs."""
    from torchao.quantization import quantize_
    from transformers import TorchAoConfig
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    chosen = set(_parts(model))
    kept = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module not in chosen]
    quantize_(model, config, lambda module, name: module in chosen)
    note = TorchAoConfig(config, modules_to_not_convert=kept)
    model.config.quantization_config = note
    model.hf_quantizer = TorchAoHfQuantizer(note, pre_quantized=True)
    return model.eval()


def _parts(model: PreTrainedModel) -> list[nn.Linear]:
    return [part for parts in layer_parts(model) for part in parts.values()]


def _is_quantized(model: PreTrainedModel) -> bool:
    return all(hasattr(part.weight, "qdata") for part in _parts(model))


def _check(model: PreTrainedModel, *, prepared: bool) -> None:
    """StudyError: a model that is quantised, or is ready for training where it should not be, or the reverse."""
    if any(hasattr(part.weight, "qdata") for part in _parts(model)):
        raise StudyError("the model is quantised already: quantise its fp32 parent")
    if any(hasattr(part, "weight_fake_quantizer") for part in _parts(model)) != prepared:
        raise StudyError("the model is not ready for qat8: call prepare before training it" if prepared else
                         "the model is made ready for qat8: convert it, or take its fp32 parent")
