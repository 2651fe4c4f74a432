"""Structured pruning: whole attention heads, feed-forward width; cut for real when the model is used.

Everything works on the families of `lib.models.families` whose layers do not share their weights.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from lib.errors import StudyError
from lib.models import batches, families, loop
from lib.models.encoders import encoder_layers, layer_parts


def head_importance(model: PreTrainedModel, encoded: batches.Encoded, device: str) -> np.ndarray:
    """Importance of each attention head, [layers, heads] (Michel et al. 2019, eq. 2 and section 4).

    I_h = E_x |dL(x) / d xi_h|, L the cross-entropy, xi_h = 1 a factor on the head's output before the output
    projection; E over rows, each row with a factor of its own. As there, each layer's scores are divided by their L2
    norm, so that layers can be ranked together. The model runs without dropout and comes back unchanged.
    """
    model.to(device)
    heads, total, was_training = model.config.num_attention_heads, 0.0, model.training
    gates: list[Tensor] = []

    def gate(module: nn.Module, inputs: tuple) -> tuple:
        x = inputs[0]  # [batch, length, heads * head size]
        xi = torch.ones(len(x), 1, heads, 1, device=x.device, dtype=x.dtype, requires_grad=True)
        gates.append(xi)
        return ((x.unflatten(-1, (heads, -1)) * xi).flatten(-2),)

    hooks = [parts["attention_out"].register_forward_pre_hook(gate) for parts in layer_parts(model)]
    model.eval()
    try:
        for rows in batches.eval_batches(encoded.lengths, 64):
            gates.clear()
            inputs = loop.inputs(model, encoded, rows, device)
            with sdpa_kernel(SDPBackend.MATH):  # fused attention's backward pass is not repeatable on CUDA
                labels = torch.tensor(encoded.labels[rows], device=device)
                loss = F.cross_entropy(model(**inputs).logits.float(), labels)
                gradients = torch.autograd.grad(loss * len(rows), gates)  # of the sum: a row's gradient is its own
            total = total + torch.stack([g.abs().sum(0).flatten() for g in gradients]).cpu().double().numpy()
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    importance = total / len(encoded.lengths)
    norm = np.linalg.norm(importance, axis=1, keepdims=True)
    return importance / np.where(norm > 0, norm, 1.0)


class HeadPruner:
    """Zeroes the least important attention heads of all layers together; every layer keeps one head or more.

    `importance` [layers, heads]; `fraction` in [0, 1) of all heads. The heads' query, key and value rows, their
    biases and their columns of the output projection become zero in the dense shape, so plain `from_pretrained`
    loads the saved model with the same function; `config.zeroed_heads` lists them, one list of heads per layer.
    `cut_heads` makes them cost nothing. StudyError: a fraction that would empty a layer.
    """

    def __init__(self, model: PreTrainedModel, importance: np.ndarray, fraction: float):
        self._layers = layer_parts(model)
        n_layers, n_heads = importance.shape
        n_cut = round(fraction * n_layers * n_heads)
        if n_cut > n_layers * (n_heads - 1):
            raise StudyError(f"fraction of heads {fraction} would leave a layer without a head: give at most "
                             f"{(n_heads - 1) / n_heads:.3f}")
        chosen: list[list[int]] = [[] for _ in range(n_layers)]
        for flat in np.argsort(importance, axis=None, kind="stable"):
            layer, head = divmod(int(flat), n_heads)
            if sum(map(len, chosen)) < n_cut and len(chosen[layer]) < n_heads - 1:
                chosen[layer].append(head)
        self.zeroed = [sorted(heads) for heads in chosen]
        self._n_heads = n_heads
        model.config.zeroed_heads = self.zeroed
        self.after_step(0)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Call after each optimizer step of further training: the heads stay zero."""
        for parts, heads in zip(self._layers, self.zeroed):
            units = _units(heads, parts["attention_out"].in_features, self._n_heads)
            for projection in _to_heads(parts):
                rows = _rows(projection, units, parts["attention_out"].in_features)
                projection.weight[rows] = 0
                if projection.bias is not None:
                    projection.bias[rows] = 0
            parts["attention_out"].weight[:, units] = 0


def cut_heads(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model without the heads in `config.zeroed_heads`: the same function in smaller matrices.

    For use and for measuring cost; the given model is the one to save, as layers of unequal width have no place in
    a config. StudyError if a listed head is not zero, for then the function would change.
    """
    model = copy.deepcopy(model)
    zeroed = getattr(model.config, "zeroed_heads", None) or []
    layers, n_heads = layer_parts(model) if zeroed else [], model.config.num_attention_heads
    if len(zeroed) != len(layers):
        raise StudyError(f"config.zeroed_heads lists {len(zeroed)} layers, the model has {len(layers)}: prune heads "
                         "anew")
    for i, (parts, heads) in enumerate(zip(layers, zeroed)):
        width = parts["attention_out"].in_features
        if parts["attention_out"].weight[:, _units(heads, width, n_heads)].any():
            raise StudyError(f"layer {i}: heads {heads} of config.zeroed_heads are not zero: call "
                             "HeadPruner.after_step after each training step")
        heads = [head for head in range(n_heads) if head not in heads]
        kept = _units(heads, width, n_heads)
        for projection in _to_heads(parts):
            _cut(projection, _rows(projection, kept, width), dim=0)
        _cut(parts["attention_out"], kept, dim=1)
        families.of(model.config).narrow(encoder_layers(model)[i], heads)
    model.config.zeroed_heads = None
    return model


def ffn_importance(model: PreTrainedModel) -> np.ndarray:
    """Importance of each feed-forward neuron by the size of its weights, [layers, width].

    I_n = ||w_in,n||_2 ||w_out,n||_2, the norm of the rank-one map that neuron n adds: the magnitude criterion of
    Li et al. (ICLR 2017) for whole units, in a form that scaling w_in up and w_out down does not change. Where a gate
    multiplies the neuron (ModernBERT), the norm of its weights is a third factor.
    """
    norms = []
    for parts in layer_parts(model):
        inner = parts["ffn_in"].weight.detach().norm(dim=1).view(-1, parts["ffn_out"].in_features)
        norms.append(inner.prod(dim=0) * parts["ffn_out"].weight.detach().norm(dim=0))
    return torch.stack(norms).float().cpu().numpy()


def cut_ffn(model: PreTrainedModel, importance: np.ndarray, fraction: float) -> PreTrainedModel:
    """Cut, in place, the least important `fraction` in [0, 1) of each layer's feed-forward neurons.

    `importance` [layers, width]. All layers keep the same width, at least 1, written to the config's
    intermediate size, so the model saves and loads plainly. Gives the model back.
    """
    width = importance.shape[1]
    n_kept = max(1, width - round(fraction * width))
    for parts, scores in zip(layer_parts(model), importance):
        kept = torch.as_tensor(np.sort(np.argsort(-scores, kind="stable")[:n_kept]))
        _cut(parts["ffn_in"], _rows(parts["ffn_in"], kept, width), dim=0)
        _cut(parts["ffn_out"], kept, dim=1)
    setattr(model.config, families.of(model.config).width, n_kept)
    return model


def _to_heads(parts: dict[str, nn.Linear]) -> list[nn.Linear]:
    """The maps of a layer whose rows belong to heads."""
    return [part for name, part in parts.items() if name not in ("attention_out", "ffn_in", "ffn_out")]


def _units(heads: list[int], width: int, n_heads: int) -> Tensor:
    """Columns of the attention's output map that belong to these heads."""
    return torch.arange(width).view(n_heads, -1)[heads].flatten()


def _rows(linear: nn.Linear, units: Tensor, width: int) -> Tensor:
    """Rows of a map that belong to these of `width` units: ModernBERT stacks query, key and value, neuron and gate."""
    return torch.cat([units + start for start in range(0, linear.out_features, width)])


def _cut(linear: nn.Linear, kept: Tensor, dim: int) -> None:
    """Keep these output rows (dim 0) or input columns (dim 1) of a linear map, in place."""
    kept = kept.to(linear.weight.device)
    trainable = linear.weight.requires_grad
    linear.weight = nn.Parameter(linear.weight.detach().index_select(dim, kept), requires_grad=trainable)
    if dim == 0 and linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[kept], requires_grad=trainable)
    linear.out_features, linear.in_features = linear.weight.shape
