"""The runtimes in which a model is timed: torch eager and compiled, onnxruntime in fp32 and int8."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lib.models import batches, encoders, families, structured

ONNX = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3  # largest difference of a logit between torch and onnxruntime, both fp32
Inputs = dict[str, Tensor]
Forward = Callable[[Inputs], np.ndarray]  # to logits [batch, classes]


def random_inputs(model: PreTrainedModel, batch: int, length: int) -> Inputs:
    """Inputs of one batch, int64 [batch, length]: token ids drawn at random, no padding."""
    ids = torch.randint(2, model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if families.takes_types(model):
        inputs["token_type_ids"] = torch.zeros_like(ids)
    return inputs


def torch_forward(model: PreTrainedModel, path: str) -> Forward:
    if path == "compiled":
        model = copy.deepcopy(model)
        layers = encoders.encoder_layers(model) if families.is_known(model.config) else ()
        for part in layers if len({shapes_of(layer) for layer in layers}) == 1 else [model.base_model]:
            part.compile(dynamic=False)

    @torch.inference_mode()
    def forward(inputs: Inputs) -> np.ndarray:
        return model(**inputs).logits.numpy()

    return forward


def as_used(model: PreTrainedModel) -> tuple[PreTrainedModel, str]:
    """The model as one would run it, its zeroed heads cut, and a note where they cannot be."""
    if not any(getattr(model.config, "zeroed_heads", None) or []):
        return model, ""
    if kind_of(model) != "float":
        return model, "its zeroed heads are not cut: cut them before quantising"
    return structured.cut_heads(model), ""


def kind_of(model: PreTrainedModel) -> str:
    """float, weights (only those are quantised) or int8 (activations too)."""
    whole = [p for p in model.parameters() if hasattr(p, "qdata")]
    return "float" if not whole else "int8" if whole[0].activation_quantization else "weights"


def as_float(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or of a quantised one a copy with its rounded weights in fp32."""
    if kind_of(model) == "float":
        return model
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(getattr(module, "weight", None), "qdata"):
            module.weight = nn.Parameter(module.weight.dequantize().float(), requires_grad=False)
    return model


def graph_of(model: PreTrainedModel) -> tuple:
    """What two models have in common if one's time is the other's."""
    config = model.config
    heads, activation = getattr(config, "num_attention_heads", 0), str(getattr(config, "hidden_act", ""))
    return type(model).__name__, heads, activation, shapes_of(model)


def shapes_of(module: nn.Module) -> tuple:
    return tuple((name, type(p).__name__, str(getattr(p, "target_dtype", p.dtype)), tuple(p.shape))
                 for name, p in module.named_parameters())


def export(model: PreTrainedModel, file: Path) -> None:
    """Write the float graph with free batch size and length."""
    inputs = random_inputs(model, 2, 16)
    free = {name: {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")} for name in inputs}
    torch.onnx.export(model, (), str(file), kwargs=inputs, dynamo=True, dynamic_shapes=free, input_names=list(inputs),
                      output_names=["logits"], external_data=False, verbose=False)


def to_int8(file: Path) -> Path:
    """The graph with int8 weights in the encoder layers' linear maps, its only matrix products with a fixed side."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = file.with_suffix(".int8.onnx")
    model = onnx.load(file)
    del model.graph.value_info[:]  # torch leaves shapes from before its own rewriting
    quantize_dynamic(model, target, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    return target


def open_session(file: Path, threads: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # waiting threads would slow the next
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["logits"], {name: x.numpy() for name, x in inputs.items()})[0]


def agreement_of(model: PreTrainedModel, session: Forward, encoded: batches.Encoded) -> float:
    """Share of rows that both give the same label."""
    names, same = random_inputs(model, 1, 2), 0
    for rows in batches.eval_batches(encoded.lengths, 64):
        inputs = {name: x for name, x in batches.collate(encoded, rows, "cpu").items() if name in names}
        same += int((session(inputs).argmax(1) == model(**inputs).logits.numpy().argmax(1)).sum())
    return same / len(encoded.lengths) if len(encoded.lengths) else np.nan
