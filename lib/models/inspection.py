"""What is in a finished model: how sparse its weights are, in how many bits they lie, whether its classifier is whole.

Told from the weights alone, whatever was claimed of them; None where they do not tell.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

ROWS = 64  # of a map that are looked at for its bits
GROUPS = (None, 128, 64, 32)  # weights that share a scale: a row's, or so many of it
LOW = (2, 3, 4, 8)  # bits
REPEATED = 1.5  # non-zero weights per distinct value of a rounded row; of float weights about 1
UNEVEN = 0.05  # how far from the whole's sparsity a kind of map is named
STORED = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found. stored: dtype of most numbers in the file. sparsity: exact zeros among the weights of the
    linear maps in the layers, in all and by kind of map. bits: of those weights, None where they do not tell or differ
    by kind. faults: what makes a model useless, such as a classifier of zeros; empty where it is whole."""

    stored: str
    parameters: int
    layers: int | None
    sparsity: float | None
    sparsity_of: dict[str, float]
    bits: int | None
    bits_of: dict[str, int | None]
    faults: tuple[str, ...]

    def lines(self) -> list[str]:
        """The same as short sentences."""
        share = "not known" if self.sparsity is None else f"{self.sparsity:.1%}"
        uneven = [f"{kind} {one:.0%}" for kind, one in self.sparsity_of.items() if abs(one - self.sparsity) > UNEVEN]
        apart = f" ({', '.join(uneven)})" if uneven else ""
        width = f"{self.bits} bits" if self.bits else "not known" if not any(self.bits_of.values()) else ", ".join(
            f"{kind} {bits or 'not known'}" for kind, bits in self.bits_of.items())
        return [f"{self.parameters:,} parameters, most saved as {self.stored}; layers: {self.layers or 'not known'}.",
                f"Zeros among the layers' linear weights: {share}{apart}.",
                f"Width of these weights: {width}.", *(self.faults or ("Its classifier is whole.",))]


def inspect(model: PreTrainedModel, stored: str) -> Inspection:
    """Look through a model's weights. stored: dtype of most numbers in its file, by safetensors' name.

    Bits b: every row, or group of a row, of up to 64 rows of a map has at most 2^b distinct values other than 0, each
    there 1.5 times or more on average. Narrow rows repeat too little to tell 8 bits from floats: None.
    """
    kinds = maps(model)
    zeros = {kind: sum(map(_zeros, weights)) for kind, weights in kinds.items()}
    numbers = {kind: sum(weight.numel() for weight in weights) for kind, weights in kinds.items()}
    bits = {kind: _bits(weights, STORED.get(stored)) for kind, weights in kinds.items()}
    return Inspection(
        stored=stored, parameters=sum(p.numel() for p in model.parameters()),
        layers=getattr(model.config.get_text_config(), "num_hidden_layers", None),
        sparsity=sum(zeros.values()) / sum(numbers.values()) if kinds else None,
        sparsity_of={kind: zeros[kind] / numbers[kind] for kind in kinds},
        bits=next(iter(bits.values())) if len(set(bits.values())) == 1 else None, bits_of=bits,
        faults=tuple(_faults(model)))


def maps(model: PreTrainedModel) -> dict[str, list[Tensor]]:
    """Weights [out, in] of the linear maps inside numbered layers, by their names below the layer."""
    found = defaultdict(list)
    for name, module in model.base_model.named_modules():
        layer = re.search(r"(^|\.)\d+\.", name)
        if layer and isinstance(module, (nn.Linear, Conv1D)):
            kind = re.sub(r"(?<=\.)\d+\.", "", name[layer.end():])
            found[kind].append(module.weight.detach().T if isinstance(module, Conv1D) else module.weight.detach())
    return dict(found)


def _plain(weight: Tensor) -> Tensor:
    """Numbers of a weight, of a quantised one those that it stands for."""
    return weight.dequantize() if type(weight) not in (Tensor, nn.Parameter) else weight


def _zeros(weight: Tensor) -> int:
    return weight.numel() - int(_plain(weight).count_nonzero())


def _bits(weights: list[Tensor], stored: int | None) -> int | None:
    """Bits of the weights of one kind of map. stored: those of a number in the file, None where it is no float."""
    widths = {str(getattr(w, "target_dtype", getattr(getattr(w, "qdata", None), "dtype", ""))) for w in weights}
    if widths <= {"torch.int8", "torch.int4"}:  # stored as integers, by torchao
        return max(int(width.removeprefix("torch.int")) for width in widths)
    rows = [_some(_plain(weight)) for weight in weights]
    low = [_low(rows, group) for group in GROUPS if all(group is None or w.shape[1] % group == 0 for w in rows)]
    if any(low):
        return min(filter(None, low))
    distinct, filled = map(torch.cat, zip(*(_distinct(w) for w in rows)))
    has_all = distinct.max() > 2 ** 8 or (stored or 0) >= 32 and filled.sum() <= 1.01 * distinct.sum()
    return stored if has_all and filled.any() else None


def _some(weight: Tensor) -> Tensor:
    """Up to 64 rows, spread evenly."""
    at = torch.linspace(0, len(weight) - 1, min(ROWS, len(weight)), device=weight.device).round().long()
    return weight[at].float()


def _low(rows: list[Tensor], group: int | None) -> int | None:
    """The fewest bits of LOW that hold every group's values; None where they do not repeat as rounded ones do."""
    distinct, filled = map(torch.cat, zip(*(_distinct(w.reshape(-1, group or w.shape[1])) for w in rows)))
    if filled.sum() < REPEATED * distinct.sum() or not filled.any():
        return None
    return next((bits for bits in LOW if distinct.max() <= 2**bits), None)


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row how many distinct values other than 0 it has, and how many entries other than 0, [rows] both."""
    rows = rows.sort(dim=1).values
    new = torch.ones_like(rows, dtype=torch.bool)
    new[:, 1:] = rows[:, 1:] != rows[:, :-1]
    return (new & (rows != 0)).sum(1), (rows != 0).sum(1)


def _faults(model: PreTrainedModel) -> list[str]:
    """What makes a model useless: numbers that are none; a classifier of zeros, or whose classes are all one."""
    broken = [name for name, p in model.named_parameters() if not _plain(p.detach()).isfinite().all()]
    faults = [f"{broken[0]} and {len(broken) - 1} more hold numbers that are not finite."] if broken else []
    inside = {id(p) for p in model.base_model.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in inside or parameter.ndim < 2 or name in broken:
            continue
        weight = _plain(parameter.detach())
        if not weight.any():
            faults.append(f"{name} of the classifier is all zero.")
        elif len(weight) == model.config.num_labels and (weight == weight[:1]).all():
            faults.append(f"{name} of the classifier is the same for every class.")
        elif (weight == weight[:, :1]).all():
            faults.append(f"{name} of the classifier has rows of one number each.")
    return faults
