"""Pruning: single weights while training (IMP), whole attention heads, feed-forward width.

Everything works on the layers of BERT-, RoBERTa- and DistilBERT-type classifiers of transformers 5.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from lib import batches, losses
from lib.encoders import encoder_layers
from lib.errors import StudyError


class MagnitudePruner:
    """Iterative magnitude pruning while fine-tuning (Zhu & Gupta 2017; the cubic wording of Du et al.).

    The smallest |w| over all attention and feed-forward weights of the encoder layers together are set to zero; not
    embeddings, norms, biases, pooler or classifier. The share pruned after step t is
        s(t) = s_f (1 - (1 - tau)^3),   tau = (t - begin) / (end - begin), held in [0, 1],
    begin = warmup * steps, end = (1 - cooldown) * steps. The mask is recomputed every `interval` steps of the ramp
    and at its end, and applied after every optimizer step. A pruned weight never returns.

    A pruned weight's optimizer state stays and goes on: it still receives its gradient, so its AdamW moments are
    updated as before, and the weight is set back to zero after each step. As it never returns, the moments have no
    effect on it; no forward or backward pass sees it other than zero. What remains of it is its gradient's part in
    the norm that `training.fit` clips by.

    `sparsity` s_f in [0, 1); `steps` of the whole run; `warmup`, `cooldown` fractions of them; hand in the model on
    the device it is trained on. `history` maps each mask step done to the sparsity reached there.
    StudyError: a number out of its range or a run too short for a ramp.
    """

    def __init__(self, model: PreTrainedModel, sparsity: float, *, steps: int, warmup: float, cooldown: float,
                 interval: int):
        _check_fraction("sparsity", sparsity)
        _check_fraction("prune_warmup", warmup)
        _check_fraction("prune_cooldown", cooldown)
        if interval < 1:
            raise StudyError(f"mask_interval is {interval}; give a number of steps of 1 or more")
        self.begin, self.end = round(warmup * steps), round((1 - cooldown) * steps)
        if self.end <= self.begin:
            raise StudyError(f"no step is left to prune in: {steps} steps with prune_warmup {warmup} and prune_cooldown "
                             f"{cooldown}; lower these or take more steps")
        self.sparsity_target = sparsity
        self.mask_steps = [*range(self.begin + interval, self.end, interval), self.end]
        self.history: dict[int, float] = {}
        self._places, self._weights = _weights(model)
        sizes = [w.numel() for w in self._weights]
        # 1 kept, 0 pruned, in the weights' dtype (a boolean mask multiplies four times slower): flat, and seen per weight
        self._keep = torch.ones(sum(sizes), device=self._weights[0].device, dtype=self._weights[0].dtype)
        self._masks = [mask.view_as(w) for mask, w in zip(self._keep.split(sizes), self._weights)]

    def target(self, step: int) -> float:
        """The cubic schedule's sparsity after `step` optimizer steps."""
        tau = min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return self.sparsity_target * (1 - (1 - tau) ** 3)

    def steps_at(self, sparsities: Iterable[float]) -> dict[int, float]:
        """First mask step at which the schedule reaches each sparsity: {step: the sparsity asked for}.

        The mask of that step holds a little more, see `history`. StudyError: a sparsity outside (0, s_f], or two
        that fall on one step.
        """
        found: dict[int, float] = {}
        for s in sparsities:
            if not 0 < s <= self.sparsity_target:
                raise StudyError(f"sparsity {s} is not on the way of this run: give one above 0 and up to its "
                                 f"{self.sparsity_target}")
            step = next(t for t in self.mask_steps if self.target(t) >= s)
            if step in found:
                raise StudyError(f"sparsities {found[step]} and {s} fall on the same mask step {step}: lower "
                                 "mask_interval or take more steps")
            found[step] = s
        return found

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Call after optimizer step `step` (1, 2, ...): recompute the mask if it is its turn, zero what is pruned."""
        self._apply()
        if step in self.mask_steps:
            self._update(round(self.target(step) * len(self._keep)))
            self._apply()
            self.history[step] = self.sparsity()

    def sparsity(self) -> float:
        """Share of the encoder's weights that the mask holds at zero now."""
        return _count_zeros(self._keep) / len(self._keep)

    def per_layer(self) -> pd.DataFrame:
        """layer | part (attention, feed_forward) | weights | pruned | sparsity, as the mask stands now."""
        table = pd.DataFrame(self._places, columns=["layer", "part"]).assign(
            weights=[mask.numel() for mask in self._masks],
            pruned=[_count_zeros(mask) for mask in self._masks],
        ).groupby(["layer", "part"], as_index=False).sum()
        return table.assign(sparsity=table["pruned"] / table["weights"])

    def _apply(self) -> None:
        for weight, mask in zip(self._weights, self._masks):
            weight.mul_(mask)

    def _update(self, k: int) -> None:
        """Let the mask hold exactly the k smallest |w|; weights pruned before are zero and so stay among them."""
        if k == 0:
            return
        magnitude = torch.cat([w.abs().flatten() for w in self._weights])
        threshold = _kth_smallest(magnitude, k)
        keep = magnitude > threshold
        surplus = len(keep) - int(keep.count_nonzero()) - k
        if surplus:  # ties at the threshold: let the last of those not yet pruned stand
            tied = ((magnitude == threshold) & (self._keep != 0)).nonzero().squeeze(1)
            keep[tied[-surplus:]] = True
        self._keep.copy_(keep)


def measured_sparsity(model: PreTrainedModel) -> dict[str, float]:
    """Sparsity of any model, counted in its weights: sparsity_encoder and sparsity_model.

    The zeros among the encoder layers' attention and feed-forward weights, over these weights and over all
    parameters of the model.
    """
    _, weights = _weights(model)
    zeros = sum(map(_count_zeros, weights))
    return {"sparsity_encoder": zeros / sum(w.numel() for w in weights),
            "sparsity_model": zeros / sum(p.numel() for p in model.parameters())}


def head_importance(model: PreTrainedModel, encoded: batches.Encoded, objective: Callable | np.ndarray | Tensor,
                    device: str) -> np.ndarray:
    """Importance of each attention head, [layers, heads] (Michel et al. 2019, eq. 2 and section 4).

    I_h = E_x |dL(x) / d xi_h|, xi_h = 1 a factor on the head's output before the output projection; E over rows,
    each row with a factor of its own. As there, each layer's scores are divided by their L2 norm, so that layers
    can be ranked together. `objective`: (logits, rows) -> mean loss, or the labels [n] for cross-entropy. The
    model runs without dropout and comes back unchanged.
    """
    if not callable(objective):
        objective = losses.objective("vanilla", objective)
    model.to(device)
    heads, total, training = model.config.num_attention_heads, 0.0, model.training
    gates: list[Tensor] = []

    def gate(module: nn.Module, inputs: tuple) -> tuple:
        x = inputs[0]  # [batch, length, heads * head size]
        xi = torch.ones(len(x), 1, heads, 1, device=x.device, dtype=x.dtype, requires_grad=True)
        gates.append(xi)
        return ((x.unflatten(-1, (heads, -1)) * xi).flatten(-2),)

    hooks = [parts.attention_out.register_forward_pre_hook(gate) for parts in map(_parts, encoder_layers(model))]
    model.eval()
    try:
        for rows in batches.eval_batches(encoded.lengths, 64):
            gates.clear()
            inputs = batches.collate(encoded, rows, device)
            if getattr(model.config, "type_vocab_size", 1) < 2:
                inputs.pop("token_type_ids", None)
            with sdpa_kernel(SDPBackend.MATH):  # fused attention's backward pass is not repeatable on CUDA
                loss = objective(model(**inputs).logits.float(), torch.as_tensor(rows))
                gradients = torch.autograd.grad(loss * len(rows), gates)  # of the sum: a row's gradient is its own
            total = total + torch.stack([g.abs().sum(0).flatten() for g in gradients]).cpu().double().numpy()
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    importance = total / len(encoded.lengths)
    norm = np.linalg.norm(importance, axis=1, keepdims=True)
    return importance / np.where(norm > 0, norm, 1.0)


class HeadPruner:
    """Zeroes the least important attention heads of all layers together; every layer keeps one head or more.

    `importance` [layers, heads]; `fraction` in [0, 1) of all heads. The heads' query, key and value rows, their
    biases and their columns of the output projection become zero in the dense shape, so plain `from_pretrained`
    loads the saved model with the same function; `config.zeroed_heads` lists them, one list of heads per layer.
    `cut_heads` makes them cost nothing. StudyError: a fraction that would empty a layer, a wrong shape.
    """

    def __init__(self, model: PreTrainedModel, importance: np.ndarray, fraction: float):
        self._layers = [_parts(layer) for layer in encoder_layers(model)]
        _check_fraction("fraction of heads", fraction)
        n_layers, n_heads = _check_shape(importance, len(self._layers), model.config.num_attention_heads, "heads")
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
            units = _units(heads, parts.query.out_features, self._n_heads)
            for projection in (parts.query, parts.key, parts.value):
                projection.weight[units] = 0
                projection.bias[units] = 0
            parts.attention_out.weight[:, units] = 0


def cut_heads(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model without the heads in `config.zeroed_heads`: the same function in smaller matrices.

    For use and for measuring cost; the given model is the one to save, as layers of unequal width have no place in
    a config. StudyError if a listed head is not zero, for then the function would change.
    """
    model = copy.deepcopy(model)
    zeroed = getattr(model.config, "zeroed_heads", None) or []
    layers = encoder_layers(model) if zeroed else []
    if len(zeroed) != len(layers):
        raise StudyError(f"config.zeroed_heads lists {len(zeroed)} layers, the model has {len(layers)}: prune heads anew")
    for i, (layer, heads) in enumerate(zip(layers, zeroed)):
        parts = _parts(layer)
        units = _units(heads, parts.query.out_features, model.config.num_attention_heads)
        if parts.attention_out.weight[:, units].any():
            raise StudyError(f"layer {i}: heads {heads} of config.zeroed_heads are not zero: call HeadPruner.after_step "
                             "after each training step")
        kept = torch.ones(parts.query.out_features, dtype=torch.bool).index_fill(0, units, False).nonzero().squeeze(1)
        for projection in (parts.query, parts.key, parts.value):
            _cut(projection, kept, dim=0)
        _cut(parts.attention_out, kept, dim=1)
    model.config.zeroed_heads = None
    return model


def ffn_importance(model: PreTrainedModel) -> np.ndarray:
    """Importance of each feed-forward neuron by the size of its weights, [layers, width].

    I_n = ||w_in,n||_2 ||w_out,n||_2, the norm of the rank-one map that neuron n adds: the magnitude criterion of
    Li et al. (ICLR 2017) for whole units, in a form that scaling w_in up and w_out down does not change.
    """
    parts = [_parts(layer) for layer in encoder_layers(model)]
    return np.stack([(p.ffn_in.weight.detach().norm(dim=1) * p.ffn_out.weight.detach().norm(dim=0)).float().cpu().numpy()
                     for p in parts])


def cut_ffn(model: PreTrainedModel, importance: np.ndarray, fraction: float) -> PreTrainedModel:
    """Cut, in place, the least important `fraction` in [0, 1) of each layer's feed-forward neurons.

    `importance` [layers, width]. All layers keep the same width, at least 1, written to the config's
    intermediate size, so the model saves and loads plainly. Gives the model back.
    """
    parts = [_parts(layer) for layer in encoder_layers(model)]
    _check_fraction("fraction of feed-forward width", fraction)
    _, width = _check_shape(importance, len(parts), parts[0].ffn_in.out_features, "neurons")
    n_kept = max(1, width - round(fraction * width))
    for p, scores in zip(parts, np.asarray(importance)):
        kept = torch.as_tensor(np.sort(np.argsort(-scores, kind="stable")[:n_kept]))
        _cut(p.ffn_in, kept, dim=0)
        _cut(p.ffn_out, kept, dim=1)
    setattr(model.config, "hidden_dim" if hasattr(model.config, "hidden_dim") else "intermediate_size", n_kept)
    return model


class _Parts(NamedTuple):
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_out: nn.Linear
    ffn_in: nn.Linear
    ffn_out: nn.Linear


def _parts(layer: nn.Module) -> _Parts:
    """The six linear maps of one encoder layer, under the names its model family gives them."""
    if hasattr(layer, "ffn") and hasattr(layer.attention, "q_lin"):  # DistilBERT
        a = layer.attention
        return _Parts(a.q_lin, a.k_lin, a.v_lin, a.out_lin, layer.ffn.lin1, layer.ffn.lin2)
    if hasattr(layer, "intermediate") and hasattr(layer.attention, "self"):  # BERT, RoBERTa
        a = layer.attention.self
        return _Parts(a.query, a.key, a.value, layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)
    raise StudyError(f"layers of type {type(layer).__name__} are not known: take a BERT, RoBERTa or DistilBERT encoder")


def _weights(model: PreTrainedModel) -> tuple[list[tuple[int, str]], list[nn.Parameter]]:
    """The prunable weights, and the (layer, part) each stands in."""
    found = [((i, "feed_forward" if name.startswith("ffn") else "attention"), linear.weight)
             for i, layer in enumerate(encoder_layers(model)) for name, linear in _parts(layer)._asdict().items()]
    return [place for place, _ in found], [weight for _, weight in found]


def _count_zeros(values: Tensor) -> int:
    return int((values == 0).count_nonzero())  # five times as fast as counting floats


def _kth_smallest(magnitude: Tensor, k: int) -> Tensor | float:
    """The k-th smallest of values of 0 or more, k from 1; exact."""
    if magnitude.is_cuda:  # kthvalue refuses to run there under deterministic algorithms
        return magnitude.sort().values[k - 1]
    values = magnitude.float().cpu().numpy()
    n_positive = np.count_nonzero(values)
    k -= len(values) - n_positive
    if k <= 0:
        return 0.0
    # np.partition takes seconds where half the values are one and the same zero, and the few weights to go are
    # under a bound that a sample tells; should the sample mislead, all values decide.
    sample = np.sort(values[::61])
    sample = sample[sample > 0]
    rank = int(1.2 * k / n_positive * len(sample)) + 50
    bound = sample[rank] if rank < len(sample) else np.inf
    few = values[(values > 0) & (values <= bound)]
    if len(few) < k:
        few = values[values > 0]
    return float(np.partition(few, k - 1)[k - 1])


def _units(heads: list[int], width: int, n_heads: int) -> Tensor:
    """Rows of the query, key and value weights that belong to these heads."""
    return torch.arange(width).view(n_heads, -1)[heads].flatten()


def _cut(linear: nn.Linear, kept: Tensor, dim: int) -> None:
    """Keep these output rows (dim 0) or input columns (dim 1) of a linear map, in place."""
    kept = kept.to(linear.weight.device)
    trainable = linear.weight.requires_grad
    linear.weight = nn.Parameter(linear.weight.detach().index_select(dim, kept), requires_grad=trainable)
    if dim == 0:
        linear.bias = nn.Parameter(linear.bias.detach()[kept], requires_grad=trainable)
    linear.out_features, linear.in_features = linear.weight.shape


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise StudyError(f"{name} is {value}; give a number from 0 up to but without 1")


def _check_shape(importance: np.ndarray, n_layers: int, n_units: int, what: str) -> tuple[int, int]:
    if np.shape(importance) != (n_layers, n_units) or not np.isfinite(importance).all():
        raise StudyError(f"importance must be finite and of shape [{n_layers} layers, {n_units} {what}], "
                         f"it has {list(np.shape(importance))}")
    return n_layers, n_units
