"""What a student copies of its teacher besides logits: [CLS] states (PKD), hidden states and attention (TinyBERT)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from lib.errors import StudyError, nearest
from lib.models import families
from lib.models.encoders import encoder_layers, layer_parts
from lib.names import TRANSFERS

# ("hidden", "query", "key", "qkv" or "given", number of the pair of layers) -> output, or what attention is called with
Seen = dict[tuple[str, int], Tensor | dict]


def patient(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_i || s_i / ||s_i|| - t_i / ||t_i|| ||^2 over the [CLS] states of one pair of layers (Sun et al. 2019, PKD).

    Both hidden states [batch, length, width], [CLS] first; a scalar from 0 to 4.
    """
    difference = F.normalize(student[:, 0].float(), dim=-1) - F.normalize(teacher[:, 0].float(), dim=-1)
    return difference.square().sum(-1).mean()


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """MSE(H^S, H^T) over the real tokens of one pair of layers (Jiao et al. 2020, TinyBERT, L_hidn).

    Hidden states [batch, length, width] of one width, so the paper's map W_h is the identity; `mask` [batch, length]
    is 1 for real tokens. The mean is over real tokens and width.
    """
    return _masked_mean((student.float() - teacher.float()).square().mean(-1), mask)


def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """1/h sum_i MSE(A_i^S, A_i^T) over pairs of real tokens, A the scores before the softmax (Jiao et al., L_attn).

    Scores [batch, heads, length, length], `mask` [batch, length].
    """
    return _masked_mean((student - teacher).square().mean(1), mask[:, :, None] * mask[:, None, :])


@contextmanager
def objective(base: Callable[[Tensor, Tensor], Tensor], student: PreTrainedModel, teacher: PreTrainedModel, kind: str,
              weight: float) -> Iterator[Callable[[Tensor, Tensor], Tensor]]:
    """A callable (logits, rows) -> base(logits, rows) + weight * L for `loop.fit`, L of the batch just run.

    Student layer m = 1..k is matched with teacher layer floor(m n / k) of n.
        pkd:      L = sum over m = 1..k-1 of `patient` (PKD-Skip; the last layer is not matched)
        tinybert: L = sum over m = 1..k of `hidden_mse` + `attention_mse`, of scores with positions as the family has
                  them (`families.Family.scores`)
    TinyBERT's embedding loss is left out: the study's students have their teacher's embeddings, frozen. Teacher and
    student read the same inputs: whenever the student runs in train mode the teacher runs first, in eval mode,
    without gradient and under the student's autocast. It must stand on the student's device. What has been hooked
    into both is removed on leaving.
    StudyError: an unknown kind, a student that is deeper than its teacher or of another width or number of heads,
    one layer for pkd, a negative weight.
    """
    _check(kind, student, teacher, weight)
    pairs = _pairs(len(encoder_layers(student)), len(encoder_layers(teacher)), kind)
    seen: Seen = {}
    copied: Seen = {}
    masks: list[Tensor] = []

    def run_teacher(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module.training:  # of the model that is run: it may be a copy for predictions
            mask = kwargs.get("attention_mask")
            masks[:] = [torch.ones_like(kwargs["input_ids"]) if mask is None else mask]
            seen.clear()
            copied.clear()
            with torch.no_grad():
                teacher(*args, **kwargs)

    def total(logits: Tensor, rows: Tensor) -> Tensor:
        mask, loss = masks.pop().float(), base(logits, rows)
        for i, (m, g) in enumerate(pairs):
            s, t = seen["hidden", i], copied["hidden", i]
            if kind == "pkd":
                loss = loss + weight * patient(s, t)
            else:
                scores = _scores(student, m, seen, i), _scores(teacher, g, copied, i)
                loss = loss + weight * (hidden_mse(s, t, mask) + attention_mse(*scores, mask))
        return loss

    teacher.eval()
    hooks = [*_watch(student, [m for m, _ in pairs], kind, seen, training=True),
             *_watch(teacher, [g for _, g in pairs], kind, copied, training=False),
             student.register_forward_pre_hook(run_teacher, with_kwargs=True)]
    try:
        yield total
    finally:
        for hook in hooks:
            hook.remove()


def _pairs(k: int, n: int, kind: str) -> list[tuple[int, int]]:
    """Indices, from 0, of the matched layers of a student of k and a teacher of n."""
    last = k - 1 if kind == "pkd" else k
    return [(m - 1, m * n // k - 1) for m in range(1, last + 1)]


def _scores(model: PreTrainedModel, layer: int, seen: Seen, i: int) -> Tensor:
    """Attention scores of a layer, positions included as its family has them, of what was seen of pair i."""
    family, attention = families.of(model.config), encoder_layers(model)[layer]
    if family.attention:
        attention = attention.get_submodule(family.attention)
    query, key = seen["qkv", i].chunk(3, dim=-1)[:2] if ("qkv", i) in seen else (seen["query", i], seen["key", i])
    return family.scores(attention, query, key, seen.get(("given", i), {}), model.config.num_attention_heads)


def _watch(model: PreTrainedModel, places: list[int], kind: str, seen: Seen, training: bool) -> list[RemovableHandle]:
    """Write what is compared of these layers into `seen`, if they run in train mode, or if they do not."""
    family, layers, parts, hooks = families.of(model.config), encoder_layers(model), layer_parts(model), []

    def keep(place: tuple[str, int]) -> Callable:
        def hook(module: nn.Module, _, output: Tensor | tuple) -> None:
            if module.training is training:  # a map may run again, on positions
                seen.setdefault(place, output[0] if isinstance(output, tuple) else output)
        return hook

    def keep_given(i: int) -> Callable:
        def hook(module: nn.Module, _, kwargs: dict) -> None:
            if module.training is training:
                seen["given", i] = kwargs
        return hook

    for i, place in enumerate(places):
        hooks.append(layers[place].register_forward_hook(keep(("hidden", i))))
        if kind == "tinybert":
            hooks += [part.register_forward_hook(keep((name, i))) for name, part in parts[place].items()
                      if name in ("query", "key", "qkv")]
            if family.attention:
                attention = layers[place].get_submodule(family.attention)
                hooks.append(attention.register_forward_pre_hook(keep_given(i), with_kwargs=True))
    return hooks


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


def _check(kind: str, student: PreTrainedModel, teacher: PreTrainedModel, weight: float) -> None:
    if kind not in TRANSFERS:
        raise StudyError(f"unknown transfer {kind!r}{nearest(kind, TRANSFERS)}")
    if weight is None or not weight >= 0:
        raise StudyError(f"{kind}: its weight is {weight}; give a number of 0 or more")
    k, n = len(encoder_layers(student)), len(encoder_layers(teacher))
    if k > n:
        raise StudyError(f"{kind}: the student has {k} layers, its teacher {n}; give it at most {n}")
    if kind == "pkd" and k < 2:
        raise StudyError("pkd: a student of one layer has none to match, as its last is left out; give it 2 or more")
    for what, name in (("width", "hidden_size"), ("number of heads", "num_attention_heads")):
        own, other = getattr(student.config, name), getattr(teacher.config, name)
        if own != other:
            raise StudyError(f"{kind}: the student's {what} is {own}, its teacher's {other}; take a student of the "
                             "teacher's encoder")
