"""The losses against their equations, written out plainly, and the errors they raise."""

import math

import pytest
import torch
from torch.nn import functional as F

from lib.errors import StudyError
from lib.models import losses

N, CLASSES = 12, 3


@pytest.fixture
def batch():
    """Student logits, teacher logits and labels of 12 rows."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(N, CLASSES, generator=generator)
    teacher = 3 * torch.randn(N, CLASSES, generator=generator)
    return logits, teacher, torch.randint(CLASSES, (N,), generator=generator)


def call(loss, logits, labels, **inputs):
    return losses.objective(loss, labels, **inputs)(logits, torch.arange(len(labels)))


def test_soft_targets_are_normalised_powers_of_the_teacher(batch):
    _, teacher, _ = batch
    d = torch.linspace(0, 1, N)
    p = teacher.softmax(-1)
    powers = p ** d[:, None]
    torch.testing.assert_close(losses.soft_targets(teacher, d), powers / powers.sum(-1, keepdim=True))
    torch.testing.assert_close(losses.soft_targets(teacher, 1.0), p)
    torch.testing.assert_close(losses.soft_targets(teacher, 0.0), torch.full_like(p, 1 / CLASSES))


def test_a_row_strength_is_a_temperature(batch):
    _, teacher, _ = batch
    torch.testing.assert_close(losses.soft_targets(teacher, 0.25), (teacher / 4).softmax(-1))


def test_a_lower_strength_keeps_the_teacher_s_order_and_raises_entropy(batch):
    _, teacher, _ = batch
    sharp, soft = losses.soft_targets(teacher, 0.9), losses.soft_targets(teacher, 0.3)
    entropy = lambda s: -torch.xlogy(s, s).sum(-1)
    assert (sharp.argsort(-1) == soft.argsort(-1)).all()
    assert (entropy(soft) > entropy(sharp)).all()


def test_kl_is_zero_at_the_target_and_takes_the_target_first():
    s = torch.tensor([[0.9, 0.1]])
    q = torch.tensor([[0.6, 0.4]])
    assert losses.kl(s, s.log()).item() == pytest.approx(0, abs=1e-7)
    expected = 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4)
    assert losses.kl(s, q.log()).item() == pytest.approx(expected, rel=1e-5)
    assert losses.kl(q, s.log()).item() != pytest.approx(expected, rel=1e-2)


def test_extreme_logits_stay_finite():
    teacher = torch.tensor([[2000.0, -2000.0], [0.0, 80.0]])
    logits = torch.tensor([[-300.0, 300.0], [300.0, -300.0]], requires_grad=True)
    labels = torch.tensor([0, 1])
    for loss, inputs in {
        "rmc": {"teacher_logits": teacher, "strength": torch.tensor([1.0, 0.2])},
        "distil": {"teacher_logits": teacher},
        "focal": {},
        "jtt": {"weights": torch.tensor([1.0, 2.0])},
    }.items():
        value = call(loss, logits, labels, **inputs)
        gradient, = torch.autograd.grad(value, logits)
        assert value.isfinite() and gradient.isfinite().all(), loss


def test_focal_does_not_divide_zero_by_zero_on_rows_that_are_right_and_sure():
    logits = torch.tensor([[500.0, -500.0], [-400.0, 400.0]], requires_grad=True)
    value = losses.focal(logits, torch.tensor([0, 1]), 2.0)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_focal_is_its_equation_and_gamma_zero_is_cross_entropy(batch):
    logits, _, labels = batch
    p_y = logits.softmax(-1)[torch.arange(N), labels]
    w = (1 - p_y) ** 2
    torch.testing.assert_close(losses.focal(logits, labels, 2.0), (w * -p_y.log()).sum() / w.sum())
    torch.testing.assert_close(losses.focal(logits, labels, 0.0), F.cross_entropy(logits, labels))


def test_focal_never_makes_a_row_less_sure(batch):
    logits, _, labels = batch
    logits = logits.clone().requires_grad_()
    gradient, = torch.autograd.grad(losses.focal(logits, labels, 2.0), logits)
    assert (gradient[torch.arange(N), labels] <= 0).all()


def test_jtt_upweights_the_rows_the_first_model_missed(batch):
    logits, first, labels = batch
    weights = losses.jtt_weights(first, labels)
    wrong = first.argmax(-1) != labels
    assert wrong.any() and not wrong.all()
    assert (weights[wrong] == 2).all() and (weights[~wrong] == 1).all()
    each = F.cross_entropy(logits, labels, reduction="none")
    expected = (2 * each[wrong].sum() + each[~wrong].sum()) / (2 * wrong.sum() + (~wrong).sum())
    torch.testing.assert_close(call("jtt", logits, labels, weights=weights), expected)


@pytest.mark.parametrize(("loss", "d", "share", "inputs"), [
    ("distil", 1.0, 0.9, {}),
    ("smooth", 0.9, 0.9, {}),
    ("smooth", 0.7, 0.9, {"strength": 0.7}),
    ("smooth_matched", 0.6, 0.9, {"strength": 0.6}),
    ("smooth_entropy", 0.5, 0.4, {"strength": 0.5, "kd_weight": 0.4}),
    ("rmc", "rows", 0.9, {}),
    ("rmc_shuffled", "rows", 0.9, {}),
    ("confidence_regularisation", "rows", 1.0, {"kd_weight": 0.4}),
])
def test_distillation_losses_are_one_formula(batch, loss, d, share, inputs):
    logits, teacher, labels = batch
    if d == "rows":
        d = torch.linspace(0.2, 1, N)
        inputs = inputs | {"strength": d.numpy()}
    s = teacher.softmax(-1) ** torch.as_tensor(d).reshape(-1, 1)
    s = s / s.sum(-1, keepdim=True)
    log_q = logits.log_softmax(-1)
    expected = (1 - share) * F.nll_loss(log_q, labels) + share * (s * (s.log() - log_q)).sum(-1).mean()
    torch.testing.assert_close(call(loss, logits, labels, teacher_logits=teacher, **inputs), expected)


def test_rmc_at_strength_one_is_distil(batch):
    logits, teacher, labels = batch
    torch.testing.assert_close(
        call("rmc", logits, labels, teacher_logits=teacher, strength=torch.ones(N)),
        call("distil", logits, labels, teacher_logits=teacher), rtol=0, atol=0)


@pytest.mark.parametrize("loss", losses.NAMES)
def test_rows_choose_the_training_rows(batch, loss):
    logits, teacher, labels = batch
    inputs = {"teacher_logits": teacher, "strength": torch.linspace(0.2, 1, N), "weights": torch.linspace(1, 2, N)}
    rows = torch.tensor([7, 2, 11])
    part = {name: value[rows] for name, value in inputs.items()}
    torch.testing.assert_close(losses.objective(loss, labels, **inputs)(logits[rows], rows),
                               call(loss, logits[rows], labels[rows], **part))


@pytest.mark.parametrize("loss", losses.NAMES)
def test_every_loss_falls_when_it_is_followed(batch, loss):
    logits, teacher, labels = batch
    objective = losses.objective(loss, labels, teacher_logits=teacher, strength=torch.full((N,), 0.5),
                                 weights=losses.jtt_weights(teacher, labels))
    rows = torch.arange(N)
    logits = logits.clone().requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=0.5)
    first = objective(logits, rows)
    for _ in range(20):
        optimizer.zero_grad()
        objective(logits, rows).backward()
        optimizer.step()
    assert objective(logits, rows) < first


@pytest.mark.parametrize(("loss", "inputs", "says"), [
    ("rmcc", {}, "did you mean 'rmc'"),
    ("nonsense", {}, "choose from vanilla"),
    ("jtt", {}, "needs weights"),
    ("distil", {}, "needs teacher_logits"),
    ("rmc", {"teacher_logits": torch.zeros(N, CLASSES)}, "needs strength"),
    ("smooth_matched", {"teacher_logits": torch.zeros(N, CLASSES)}, "needs strength"),
    ("distil", {"teacher_logits": torch.zeros(N - 1, CLASSES)}, "teacher_logits has 11 rows, labels have 12"),
    ("distil", {"teacher_logits": torch.full((N, CLASSES), torch.nan)}, "teacher_logits holds a value that is not finite"),
    ("rmc", {"teacher_logits": torch.zeros(N, CLASSES), "strength": torch.full((N,), 1.5)}, "strength must lie in"),
    ("distil", {"teacher_logits": torch.zeros(N, CLASSES), "kd_weight": 1.2}, "kd_weight is 1.2"),
    ("jtt", {"weights": torch.zeros(N)}, "weights must all be above 0"),
    ("focal", {"gamma": -1.0}, "gamma is -1.0"),
])
def test_errors_name_what_is_missing(loss, inputs, says):
    with pytest.raises(StudyError, match=says):
        losses.objective(loss, torch.zeros(N, dtype=torch.long), **inputs)
