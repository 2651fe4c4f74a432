"""Iterative magnitude pruning (IMP): single weights go while the model trains; and the sparsity of any model."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lib.errors import StudyError
from lib.models.encoders import layer_parts


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
    the norm that `loop.fit` clips by.

    `sparsity` s_f in [0, 1); `steps` of the whole run; `warmup`, `cooldown` fractions of them; hand in the model on
    the device it is trained on. `history` maps each mask step done to the sparsity reached there. StudyError: a run too
    short for a ramp.
    """

    def __init__(self, model: PreTrainedModel, sparsity: float, *, steps: int, warmup: float, cooldown: float,
                 interval: int):
        self.begin, self.end = round(warmup * steps), round((1 - cooldown) * steps)
        if self.end <= self.begin:
            raise StudyError(f"no step is left to prune in: {steps} steps with prune_warmup {warmup} and "
                             f"prune_cooldown {cooldown}; lower these or take more steps")
        self.sparsity_target = sparsity
        self.mask_steps = [*range(self.begin + interval, self.end, interval), self.end]
        self.history: dict[int, float] = {}
        self._places, self._weights = _weights(model)
        sizes = [w.numel() for w in self._weights]
        # 1 kept, 0 pruned, in the weights' dtype (a boolean mask multiplies four times slower): flat, seen per weight
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
        reached: dict[int, float] = {}
        for s in sparsities:
            if not 0 < s <= self.sparsity_target:
                raise StudyError(f"sparsity {s} is not on the way of this run: give one above 0 and up to its "
                                 f"{self.sparsity_target}")
            step = next(t for t in self.mask_steps if self.target(t) >= s)
            if step in reached:
                raise StudyError(f"sparsities {reached[step]} and {s} fall on the same mask step {step}: lower "
                                 "mask_interval or take more steps")
            reached[step] = s
        return reached

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
        counts = pd.DataFrame(self._places, columns=["layer", "part"]).assign(
            weights=[mask.numel() for mask in self._masks], pruned=[_count_zeros(mask) for mask in self._masks])
        table = counts.groupby(["layer", "part"], as_index=False).sum()
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


class ZeroHolder:
    """Holds the zeros of a finished model's encoder weights while it trains on, such as under fake quantisation."""

    def __init__(self, model: PreTrainedModel):
        self._zeros = [(w, w == 0) for w in _weights(model)[1]]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Call after each optimizer step."""
        for weight, zero in self._zeros:
            weight.masked_fill_(zero, 0)


def measured_sparsity(model: PreTrainedModel) -> dict[str, float]:
    """sparsity_encoder and sparsity_model of any model: the zeros among the encoder layers' attention and feed-forward
    weights, over these weights and over all parameters of the model."""
    _, weights = _weights(model)
    zeros = sum(map(_count_zeros, weights))
    return {"sparsity_encoder": zeros / sum(w.numel() for w in weights),
            "sparsity_model": zeros / sum(p.numel() for p in model.parameters())}


def _weights(model: PreTrainedModel) -> tuple[list[tuple[int, str]], list[nn.Parameter]]:
    """The prunable weights, and the (layer, part) each stands in."""
    parts = [(i, name, linear.weight) for i, layer in enumerate(layer_parts(model)) for name, linear in layer.items()]
    places = [(i, "feed_forward" if name.startswith("ffn") else "attention") for i, name, _ in parts]
    return places, [weight for *_, weight in parts]


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
    # under a bound that a sample tells; should the sample mislead, all values decide
    sample = np.sort(values[::61])
    sample = sample[sample > 0]
    rank = int(1.2 * k / n_positive * len(sample)) + 50
    bound = sample[rank] if rank < len(sample) else np.inf
    few = values[(values > 0) & (values <= bound)]
    if len(few) < k:
        few = values[values > 0]
    return float(np.partition(few, k - 1)[k - 1])
