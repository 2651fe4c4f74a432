"""Progressive module replacing (BERT-of-Theseus; Xu et al., EMNLP 2020): a shallow successor grows in its teacher."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lib.errors import StudyError
from lib.models import families
from lib.models.encoders import encoder_layers, keep_layers


def check(successors: int, n_layers: int) -> None:
    """StudyError unless there are fewer successors than layers, and at least one."""
    if not 1 <= successors < n_layers:
        raise StudyError(f"theseus-{successors}: the dense model has {n_layers} layers, so give 1 to {n_layers - 1} "
                         "successors")


class Replacer:
    """Replaces, batch by batch and at random, groups of a finished model's layers by one new layer each.

    `model`, changed in place: its n layers become `successors` = k modules. Module i holds the i-th of k groups of
    predecessor layers (n / k each; np.array_split where that is no whole number) and one successor layer, which
    starts as a copy of layer i of the model: the first k layers, as in the paper. In train mode each module draws
    anew for every batch,
        y = r successor(x) + (1 - r) predecessors(x),   r ~ Bernoulli(p);
    in eval mode there are successors only. Only they train: predecessors, embeddings, pooler and classifier are
    frozen. Of a batch that draws no successor nothing is learnt.

    With T = share * steps, p after step t is
        linear:   p(t) = min(1, start + (1 - start) t / T)   (the paper's curriculum, min(1, k t + b))
        constant: p(t) = rate for t < T, then 1
    and the steps with p = 1 are the paper's successor fine-tuning. `start` in [0, 1] is used by linear, `rate` in
    (0, 1] by constant; `share` in (0, 1]; `seed` of the draws. T is set, never left out: the published code jumps
    from its constant rate to 1 after one step unless a flag says when. StudyError: no fewer successors than layers.
    """

    def __init__(self, model: PreTrainedModel, successors: int, *, schedule: str, start: float, rate: float,
                 share: float, steps: int, seed: int):
        layers = list(encoder_layers(model))
        check(successors, len(layers))
        self.schedule, self.start, self.rate = schedule, start, rate
        self.replacing_steps = max(1, round(share * steps))
        self.p = self.rate_at(0)
        generator = torch.Generator().manual_seed(seed)

        def draw() -> bool:
            return torch.rand((), generator=generator).item() < self.p

        self._model = model
        self._frozen_before = {p: p.requires_grad for p in model.parameters()}
        model.requires_grad_(False)
        self._successors = [_copy(layer, model) for layer in layers[:successors]]
        output, slots = families.of(model.config).output, []
        for group, successor in zip(np.array_split(np.arange(len(layers)), successors), self._successors):
            turn = _Turn(draw)
            slots += [_Slot("predecessor", layers[i], turn, output) for i in group]
            slots[-len(group)].is_first = True
            slots.append(_Slot("successor", successor, turn, output))
        slots[-1].is_last = True
        _fill(model, slots)

    def rate_at(self, step: int) -> float:
        """Probability of the successors after `step` optimizer steps, so of batch `step` + 1."""
        if step >= self.replacing_steps:
            return 1.0
        if self.schedule == "constant":
            return self.rate
        return self.start + (1 - self.start) * step / self.replacing_steps

    def after_step(self, step: int) -> None:
        """Call after optimizer step `step` (1, 2, ...): sets p of the next one."""
        self.p = self.rate_at(step)

    def successor(self) -> PreTrainedModel:
        """The model given, now a plain one of k layers that saves and loads as any other, in eval mode.

        Predecessors are gone; what was trainable before is so again. To look at a successor before the end, use the
        model in eval mode.
        """
        _fill(self._model, self._successors)
        for parameter, trainable in self._frozen_before.items():
            parameter.requires_grad_(trainable)
        return keep_layers(self._model, range(len(self._successors))).eval()


class _Turn:
    """Who runs in one module of predecessors and successor."""

    def __init__(self, draw: Callable[[], bool]):
        self.draw = draw  # a function, which a deep copy of the model shares: generators cannot be copied
        self.role = "successor"


class _Slot(nn.Module):
    """A layer that runs if it is its turn and else hands on what it is given. Each stands in the encoder's own list of
    layers, for a ModernBERT tells each layer by its kind what to attend to."""

    is_first = is_last = False  # of its module, of all

    def __init__(self, role: str, layer: nn.Module, turn: _Turn, output: Callable[[Tensor], Tensor | tuple]):
        super().__init__()
        setattr(self, role, layer)
        self.role, self.turn, self.output = role, turn, output
        self.attention_type = getattr(layer, "attention_type", None)

    def forward(self, hidden: Tensor, *args, **kwargs) -> Tensor | tuple:
        if self.is_first:
            self.turn.role = "successor" if not self.training or self.turn.draw() else "predecessor"
        if self.turn.role == self.role:
            return getattr(self, self.role)(hidden, *args, **kwargs)
        if self.is_last and torch.is_grad_enabled() and not hidden.requires_grad:
            hidden.requires_grad_()  # a batch without any successor: its loss must still have a backward pass
        return self.output(hidden)


def _copy(layer: nn.Module, model: PreTrainedModel) -> nn.Module:
    """A trainable copy of a layer that reads the model's own config: `set_attn_implementation` must reach it."""
    return copy.deepcopy(layer, {id(model.config): model.config}).requires_grad_(True)


def _fill(model: PreTrainedModel, modules: list[nn.Module]) -> None:
    layers = encoder_layers(model)
    del layers[:]
    layers.extend(modules)
