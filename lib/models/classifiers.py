"""Finished classifiers of any kind, loaded as others left them, or refused in one line that names what made them.

Nothing here trains: what transformers can build for sequence classification is run as it is, decoders included. What
runs elsewhere only (GGUF, ONNX, GPTQ, ...) is judged by its predictions.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
import torch
import transformers
from huggingface_hub import list_repo_files
from huggingface_hub.utils import httpx
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.utils.quantization_config import QuantizationMethod

from lib.errors import StudyError
from lib.files import ROOT
from lib.models import batches, loop, pretrained

INSTEAD = "judge its predictions: python -m lib.tools.judge --task TASK --parent P.csv --model M.csv"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
FOREIGN = {".gguf": "llama.cpp (GGUF)", ".onnx": "ONNX", ".engine": "TensorRT", ".plan": "TensorRT",
           ".tflite": "LiteRT (TFLite)", ".mlmodel": "Core ML", ".mlpackage": "Core ML", ".xml": "OpenVINO",
           ".pte": "ExecuTorch", ".h5": "TensorFlow", ".msgpack": "Flax"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
WRAPPERS = {"module.": "torch's data-parallel wrapper", "_orig_mod.": "torch.compile"}
UNWRAP = {r"(^|(?<=\.))_orig_mod\.": "", r"^module\.": ""}
DRIFT = 0.01  # of the largest logit: from here on a row's answer depends on the padding beside it


@dataclass(frozen=True)
class Finished:
    """A classifier in eval mode on the CPU, fp32 or as torchao quantised it, and its tokenizer, ready to pad.

    stored: dtype of most numbers in its file, by safetensors' name ("F32", "BF16", "I8"). notes: a sentence for each
    thing that was decided on the way.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stored: str
    notes: tuple[str, ...]


def load(place: str, revision: str = "") -> Finished:
    """A finished classifier of any architecture from a folder or a hub id.

    Padded so that a row's answer is the one it gets alone: with the token that the model knows as padding, on the side
    on which that holds. A quantisation that nobody knows, over plain floats, is loaded and called fp32. StudyError:
    made for another runtime or by a quantiser that is not run here, pickled, an adapter alone, weights that are
    missing or of other shapes than the config's, no token to pad with.
    """
    here = ROOT / Path(place).expanduser()
    if here.is_file():
        raise _stranger(place, [here.name])
    with _told(place):
        if here.is_dir():  # before its config.json is asked for, which files of other runtimes lack
            _check(place, here, _names(here))
        held = pretrained.load(place, revision, partial(_look, place, revision), weights=True)
        config = pretrained.config_of(place, revision)
        notes = [_plain(place, config, held), _unwrapped(held)]
        config.get_text_config().use_cache = False  # a classifier reads a decoder's keys and values once
        tokenizer = pretrained.load_tokenizer(place, revision)
        notes.append(_choose_padding(place, config, tokenizer))
        model, strange = _weights(place, revision, config, bool(notes[1]))
        notes += [strange, _choose_side(model, tokenizer)]
    numbers = Counter()
    for dtype, count in held.values():
        numbers[dtype] += count
    return Finished(model, tokenizer, numbers.most_common(1)[0][0], tuple(filter(None, notes)))


@contextmanager
def _told(place: str) -> Iterator[None]:
    """A library's error as one line: every architecture and tokenizer has ways of its own to fail."""
    try:
        yield
    except StudyError:
        raise
    except (ImportError, RuntimeError, AttributeError, AssertionError, LookupError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise StudyError(f"{place} cannot be run here ({told}): {INSTEAD}") from error


def _names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern))]


def _check(place: str, folder: Path, names: list[str]) -> None:
    """StudyError where a folder's config.json is of another kind, or its files are no weights that can be loaded."""
    if (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        _check_kind(place, config.get("model_type"))
        _check_quantiser(place, config.get("quantization_config"))
    if "adapter_config.json" in names:
        raise StudyError(f"{place} is an adapter (PEFT), not a whole model: merge it into its base with "
                         f"merge_and_unload() and save that, or {INSTEAD}")
    if not set(WEIGHTS) & set(names):
        raise _stranger(place, names)


def _stranger(place: str, names: list[str]) -> StudyError:
    """What to say of a file, or of a folder without model.safetensors."""
    paths = [PurePath(name) for name in names]
    made = [(FOREIGN[path.suffix], path.name) for path in paths if path.suffix in FOREIGN]
    if made:
        return StudyError(f"{place}: {made[0][1]} was made for {made[0][0]}, which is not run here: {INSTEAD}")
    if pickled := [path.name for path in paths if path.suffix in PICKLES]:
        return StudyError(f"{place} keeps its weights in {pickled[0]}, a pickle, which can run code and is not opened: "
                          "where you trust it, load it with AutoModelForSequenceClassification.from_pretrained and "
                          "write it with save_pretrained (model.safetensors)")
    return StudyError(f"{place} holds no model.safetensors: give a folder written by save_pretrained, or {INSTEAD}")


def _check_kind(place: str, kind: str | None) -> None:
    """StudyError: a kind of model that transformers does not know or has no classifier of."""
    here = f"transformers {transformers.__version__}"
    if kind and kind not in CONFIG_MAPPING_NAMES:
        raise StudyError(f"{place} is a model of type '{kind}', which {here} does not know, and code that comes with a "
                         f"model is not run: {INSTEAD}")
    if kind and kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise StudyError(f"{place} is a model of type '{kind}', of which {here} has no classifier: {INSTEAD}")


def _check_quantiser(place: str, told: dict | None) -> None:
    """StudyError: a known quantiser whose models are not run here."""
    method = _quantiser(told)
    if method != "torchao" and method in [known.value for known in QuantizationMethod]:
        raise StudyError(f"{place} was made by {method}, which is not run here: {INSTEAD}")


def _quantiser(told: dict | None) -> str:
    """The name of what quantised a model, from `quantization_config` of its config.json; "" where that has none."""
    if told is None:
        return ""
    old = told.get("load_in_8bit") or told.get("load_in_4bit")  # bitsandbytes did not name itself
    return "bitsandbytes" if old else str(told.get("quant_method") or "a quantiser without a name")


def _look(place: str, revision: str, folder: str, **_) -> dict[str, tuple[str, int]]:
    """Dtype and count of numbers of each weight in a folder's files. StudyError: there are no weights."""
    names = _names(Path(folder))
    if not set(WEIGHTS) & set(names) and not (ROOT / Path(place).expanduser()).is_dir():  # what else is on the hub?
        try:
            names = list_repo_files(place, revision=revision or None)
        except (OSError, httpx.HTTPError):
            pass  # the names at hand tell that there are no weights
    _check(place, Path(folder), names)
    held = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():
                weight = file.get_slice(key)
                held[key] = weight.get_dtype(), math.prod(weight.get_shape())
    if not held:
        raise StudyError(f"{place}: its model.safetensors holds no weights: write it anew, or {INSTEAD}")
    return held


def _plain(place: str, config: PretrainedConfig, held: dict[str, tuple[str, int]]) -> str:
    """Take a quantisation that nobody knows out of a config, and say so. StudyError: integers that it stands for."""
    method = _quantiser(getattr(config, "quantization_config", None))
    if method == "torchao":
        return ""
    if integers := [key for key, (dtype, _) in held.items() if dtype in ("I8", "U8")]:
        raise StudyError(f"{place} holds integers ({integers[0]}) that {method or 'a quantiser it does not name'} "
                         f"made, which is not run here: {INSTEAD}")
    if not method:
        return ""
    del config.quantization_config
    return (f"Its config.json tells of a quantisation that is not known here ('{method}'); its file holds plain "
            "floats, so it is run, and called, fp32.")


def _unwrapped(names: Iterable[str]) -> str:
    """A note where weights bear the name of a wrapper."""
    found = [why for mark, why in WRAPPERS.items()
             if any(name.startswith(mark) or mark == "_orig_mod." and f".{mark}" in name for name in names)]
    return f"The names of its weights bear a wrapper's ({', '.join(found)}), which was taken off." if found else ""


def _choose_padding(place: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> str:
    """Let model and tokenizer agree on the token that pads: decoders answer at the last token that is another."""
    text = config.get_text_config()
    number, own = getattr(text, "pad_token_id", None), tokenizer.pad_token
    known = isinstance(number, int) and 0 <= number < min(len(tokenizer), text.vocab_size)
    if known and number == tokenizer.pad_token_id:
        return ""
    if known:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(number)
        return f"It pads with '{tokenizer.pad_token}', as its config.json says; its tokenizer says {own or 'nothing'}."
    if own is None and tokenizer.eos_token is None:
        raise StudyError(f"{place}: its config.json names no pad_token_id, its tokenizer neither a padding nor an end "
                         "token: write a pad_token_id into config.json and a pad_token into tokenizer_config.json")
    if own is None:
        tokenizer.pad_token = tokenizer.eos_token
    config.pad_token_id = text.pad_token_id = tokenizer.pad_token_id
    return (f"Its config.json names no pad_token_id: it pads with its tokenizer's "
            f"{'end token' if own is None else 'padding'}, '{tokenizer.pad_token}'.")


def _weights(place: str, revision: str, config: PretrainedConfig, wrapped: bool) -> tuple[PreTrainedModel, str]:
    """The model, and a note on weights that it has no place for. StudyError: missing ones, or of another shape."""
    model, told = pretrained.load(place, revision, AutoModelForSequenceClassification.from_pretrained, weights=True,
                                  config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                                  ignore_mismatched_sizes=True, **({"key_mapping": UNWRAP} if wrapped else {}))
    if other := sorted(told["mismatched_keys"], key=lambda found: (len(found[1]) < 2, found[0])):
        name, in_file, wanted = other[0]
        why = ("its heads were pruned (pruned_heads), a shape that transformers 5 does not build"
               if getattr(config, "pruned_heads", None) else "put the shapes that it has into config.json")
        raise StudyError(f"{place}: {name} is {_shape(in_file)} in its file, {_shape(wanted)} by its config.json: "
                         f"{why}, or {INSTEAD}")
    absent, strange = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    inside = [name for name in absent if name.startswith(f"{model.base_model_prefix}.")]
    if inside:
        instead = f" (it holds {strange[0]!r})" if strange else ""
        raise StudyError(f"{place}: its file lacks {inside[0]!r} and {len(absent) - 1} more that its config.json asks "
                         f"for{instead}: put config.json and model.safetensors of the same model there, or {INSTEAD}")
    if absent:
        raise StudyError(f"{place} is no finished classifier: its file lacks {absent[0]!r}; fine-tune it first, or "
                         "give the folder of the fine-tuned one")
    return model.eval(), (f"Its file holds {len(strange)} weights that the model of its config.json has no place for, "
                          f"such as {strange[0]}." if strange else "")


def _shape(size: torch.Size) -> str:
    return " x ".join(map(str, size))


def _choose_side(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Pad on the tokenizer's side unless a row is then answered otherwise than alone and on the other side is not."""
    own = tokenizer.padding_side
    drift = {own: padding_drift(model, tokenizer)}
    if drift[own] <= DRIFT:
        return ""
    tokenizer.padding_side = other = {"left": "right", "right": "left"}[own]
    drift[other] = padding_drift(model, tokenizer)
    if drift[other] <= DRIFT:
        return f"It pads on the {other}, not the {own} as its tokenizer has it: only so is each row answered as alone."
    tokenizer.padding_side = min(drift, key=drift.get)
    return (f"What it answers depends on the padding beside a row: on either side a logit moves by "
            f"{min(drift.values()):.0%} or more of the largest.")


def padding_drift(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """How far the logits of a short row move when it is padded to a long one, as a share of the largest logit."""
    rows = pd.DataFrame({"text_a": ["a man sleeps", "a man sleeps and " * 6], "text_b": ["he rests", "he rests " * 4],
                         "label": 0})
    encoded = batches.encode(tokenizer, rows, min(tokenizer.model_max_length, 48))
    with torch.inference_mode():
        alone, padded = (model(**loop.inputs(model, encoded, np.array(of), "cpu")).logits[0].float()
                         for of in ([0], [0, 1]))
    return float((alone - padded).abs().max() / alone.abs().max().clamp(min=1e-12))
