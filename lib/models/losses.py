"""The training objectives: small pure functions on logits [batch, classes].

Letters follow the paper (Du et al., EACL 2023): p is the teacher's softmax, q the student's, y the label,
d a row's strength, s its softened target, lambda the weight of the distillation term (`kd_weight`).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.errors import StudyError, nearest

DISTILLED = ("distil", "smooth", "rmc", "smooth_matched", "smooth_entropy", "rmc_shuffled", "confidence_regularisation")
NAMES = ("vanilla", "focal", "jtt", *DISTILLED)
FIXED_STRENGTH = {"distil": 1.0, "smooth": 0.9}


def soft_targets(teacher_logits: Tensor, strength: Tensor | float) -> Tensor:
    """The softened teacher: s_ij = p_ij^{d_i} / sum_k p_ik^{d_i} (Du et al., RMC; Utama et al., ACL 2020).

    `teacher_logits` [b, c], `strength` d [b] or one float; gives s [b, c]. For one row this is a temperature of
    1/d on the teacher: d = 1 leaves p as it is, d = 0 gives the uniform distribution. Computed as softmax(d log p),
    so that no power of a tiny probability is taken.
    """
    d = torch.as_tensor(strength, dtype=teacher_logits.dtype, device=teacher_logits.device)
    return F.softmax(d.reshape(-1, 1) * F.log_softmax(teacher_logits, dim=-1), dim=-1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """CE(y, q) = -mean_i log q_{i, y_i}; `logits` [b, c], `labels` [b]; a scalar in nats."""
    return F.cross_entropy(logits, labels)


def kl(s: Tensor, logits: Tensor) -> Tensor:
    """KL(s || q) = mean_i sum_j s_ij (log s_ij - log q_ij); `s` [b, c] probabilities, `logits` [b, c]; in nats.

    The target stands first: a student that gives no mass to a class of the target is punished without bound.
    """
    return (torch.xlogy(s, s) - s * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def combined(logits: Tensor, labels: Tensor, s: Tensor, kd_weight: float) -> Tensor:
    """L = (1 - lambda) CE(y, q) + lambda KL(s || q), lambda = `kd_weight` (Du et al.; 0.9 there)."""
    return (1 - kd_weight) * cross_entropy(logits, labels) + kd_weight * kl(s, logits)


def weighted(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i CE_i / sum_i w_i: `weights` [b], at least one above 0, normalised over the batch."""
    return (weights * F.cross_entropy(logits, labels, reduction="none")).sum() / weights.sum()


def focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) with weights normalised over the batch, as Du et al. use it.

    w_i = (1 - q_{i, y_i})^gamma / sum_k (1 - q_{k, y_k})^gamma. The weights are constants of the step: through
    *normalised* weights a gradient would pay the student for getting its easy rows less sure. They are taken in log
    space, so a batch of rows that are all right and sure does not divide 0 by 0.
    """
    log_q = F.log_softmax(logits.detach(), dim=-1)
    own = F.one_hot(labels, logits.shape[-1]).bool()
    log_rest = log_q.masked_fill(own, -torch.inf).logsumexp(-1)  # log(1 - q_y), [b]
    return (F.softmax(gamma * log_rest, dim=0) * F.cross_entropy(logits, labels, reduction="none")).sum()


def jtt_weights(first_logits: Tensor, labels: Tensor, weight: float = 2.0) -> Tensor:
    """JTT's weights [n] (Liu et al., ICML 2021): `weight` where the first model's argmax is wrong, else 1.

    `first_logits` [n, c] of a first model stopped early, `labels` [n].
    """
    wrong = _tensor(first_logits, torch.float32).argmax(-1) != _tensor(labels, torch.long)
    return torch.where(wrong, float(weight), 1.0)


def objective(loss: str, labels: Tensor, *, teacher_logits: Tensor | None = None,
              strength: Tensor | float | None = None, weights: Tensor | None = None, kd_weight: float = 0.9,
              gamma: float = 2.0) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name as a function of (logits [b, c], rows [b]) -> scalar; rows index the training set.

    `labels` [n]; `teacher_logits` [n, c] (confidence_regularisation: those of a first model of the student's own
    kind); `strength` d [n] or a float in [0, 1]; `weights` [n] for jtt. All distillation losses are `combined` on
    `soft_targets` and differ in d alone: 1 for distil, 0.9 for smooth unless `strength` says otherwise, the given
    d for rmc, rmc_shuffled, smooth_matched, smooth_entropy and confidence_regularisation (d = 1 - beta there, and
    lambda = 1 whatever `kd_weight`). What a loss has no use for is not read.
    StudyError: an unknown loss, a missing input, a number out of its range, arrays of unequal rows.
    """
    if loss not in NAMES:
        raise StudyError(f"unknown loss {loss!r}{nearest(loss, NAMES)}")
    labels = _tensor(labels, torch.long)
    if loss == "vanilla":
        return lambda logits, rows: cross_entropy(logits, _pick(labels, rows, logits))
    if loss == "focal":
        if not gamma >= 0:
            raise StudyError(f"loss 'focal': gamma is {gamma}; give a number of 0 or more")
        return lambda logits, rows: focal(logits, _pick(labels, rows, logits), gamma)
    if loss == "jtt":
        w = _column(loss, "weights", weights, len(labels))
        if not (w > 0).all():
            raise StudyError("loss 'jtt': weights must all be above 0")
        return lambda logits, rows: weighted(logits, _pick(labels, rows, logits), _pick(w, rows, logits))
    teacher = _column(loss, "teacher_logits", teacher_logits, len(labels))
    d = 1.0 if loss == "distil" else FIXED_STRENGTH.get(loss) if strength is None else strength
    d = _column(loss, "strength", d, len(labels))
    if not ((d >= 0) & (d <= 1)).all():
        raise StudyError(f"loss {loss!r}: strength must lie in [0, 1], it spans {d.min():g} to {d.max():g}")
    share = 1.0 if loss == "confidence_regularisation" else kd_weight
    if not 0 <= share <= 1:
        raise StudyError(f"loss {loss!r}: kd_weight is {share}; give a number from 0 to 1")
    s = soft_targets(teacher, d)
    return lambda logits, rows: combined(logits, _pick(labels, rows, logits), _pick(s, rows, logits), share)


def row_weights(loss: str, n: int, weights: Tensor | None = None) -> Tensor | None:
    """Weights [n] by which the objective of that name averages the losses of a batch's rows: `weights` for jtt, ones
    for a plain mean; None where it is no such mean, as for focal, whose weights stand on the whole batch's logits."""
    if loss not in NAMES or loss == "focal":
        return None
    return weights if loss == "jtt" else torch.ones(n)


def _tensor(values, dtype: torch.dtype) -> Tensor:
    """A tensor of an array, tensor or number; a column of a frame is read-only, so arrays are copied."""
    return values.to(dtype) if isinstance(values, Tensor) else torch.tensor(values, dtype=dtype)


def _column(loss: str, name: str, values: Tensor | float | None, n: int) -> Tensor:
    """`values` as fp32 with n rows (a single float stays one number), or the StudyError that names it."""
    if values is None:
        raise StudyError(f"loss {loss!r} needs {name}: hand objective(..., {name}=...)")
    values = _tensor(values, torch.float32)
    if values.ndim and len(values) != n:
        raise StudyError(f"loss {loss!r}: {name} has {len(values)} rows, labels have {n}; they must be the same rows")
    if not values.isfinite().all():
        raise StudyError(f"loss {loss!r}: {name} holds a value that is not finite; look at where it was computed")
    return values


def _pick(values: Tensor, rows: Tensor, logits: Tensor) -> Tensor:
    """The batch's rows of a training-set table, on the device of the logits."""
    return values[rows.to(values.device)].to(logits.device)
