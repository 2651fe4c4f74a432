"""Transfer losses: numbers worked out by hand, 0 for a teacher's copy, and training through `fit`."""

import copy
import dataclasses

import numpy as np
import pytest
import tiny as tiny_models
import torch
from torch.nn import functional as F

from lib import names
from lib.errors import StudyError
from lib.models import batches, encoders, families, loop, transfer

LAYERS = 4
PLAN = loop.Plan(steps=30, batch_size=8, learning_rate=2e-3, warmup=0.0, weight_decay=0.0, dtype="fp32",
                     device="cpu", seed=0)


def tiny(family="bert", layers=LAYERS, **sizes):
    return tiny_models.classifier(family, layers=layers, **sizes)


def student_of(teacher, layers=2):
    return encoders.keep_layers(copy.deepcopy(teacher), list(range(layers)))


@pytest.fixture(params=tiny_models.FAMILIES)
def teacher(request):
    return tiny(request.param)


@pytest.fixture
def encoded():
    return tiny_models.rows()


def nothing(logits, rows):
    return 0 * logits.sum()


def cross_entropy(encoded):
    labels = torch.as_tensor(encoded.labels)
    return lambda logits, rows: F.cross_entropy(logits, labels[rows])


def loss_of(student, teacher, encoded, kind, weight=1.0, base=nothing):
    rows = np.arange(len(encoded.labels))
    with transfer.objective(base, student, teacher, kind, weight) as total:
        logits = student.train()(**batches.collate(encoded, rows, "cpu")).logits
        return total(logits, torch.as_tensor(rows))


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# --- the formulas

def test_patient_compares_directions_of_the_first_token():
    student = torch.tensor([[[3.0, 4.0], [9.0, 9.0]], [[0.0, 2.0], [1.0, 0.0]]])
    teacher = torch.tensor([[[6.0, 8.0], [0.0, 1.0]], [[5.0, 0.0], [1.0, 7.0]]])
    assert transfer.patient(student, teacher).item() == pytest.approx((0 + 2) / 2)  # same direction; at a right angle
    assert transfer.patient(student, -student).item() == pytest.approx(4)


def test_hidden_mse_is_over_real_tokens_and_width():
    student = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 4.0], [50.0, 50.0]]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert transfer.hidden_mse(student, torch.zeros_like(student), mask).item() == pytest.approx((1 + 4 + 9 + 16) / 6)


def test_attention_scores_are_those_of_each_head_before_the_softmax():
    query = torch.tensor([[[1.0, 2.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]])  # two heads of size 2
    key = torch.tensor([[[2.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 2.0]]])
    expected = torch.tensor([[[[2.0, 3.0], [0.0, 1.0]], [[1.0, 0.0], [6.0, 6.0]]]]) / 2**0.5
    assert torch.allclose(families.attention_scores(query, key, 2), expected)


def test_attention_mse_is_over_heads_and_pairs_of_real_tokens():
    student = torch.tensor([[[[1.0, 9.0], [9.0, 9.0]], [[3.0, 9.0], [9.0, 9.0]]],
                            [[[1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 1.0]]]])  # [2 rows, 2 heads, 2, 2]
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    expected = ((1 + 9) / 2 + (1 + 4 + 4 + 1) / 2) / 5  # one pair of the first row, four of the second
    assert transfer.attention_mse(student, torch.zeros_like(student), mask).item() == pytest.approx(expected)


# --- what of the models is compared

def test_the_losses_are_those_of_the_models_own_states(teacher, encoded):
    student = student_of(teacher)
    with torch.no_grad():
        inputs = batches.collate(encoded, np.arange(32), "cpu")
        if teacher.config.model_type != "bert":
            inputs.pop("token_type_ids", None)
        states = [model(**inputs, output_hidden_states=True).hidden_states for model in (student, teacher)]
    mask = inputs["attention_mask"].float()
    s, t = states  # number 0 is the embeddings
    assert loss_of(student, teacher, encoded, "pkd").item() == pytest.approx(transfer.patient(s[1], t[2]).item())

    def scores(model, layer, states):
        parts = encoders.layer_parts(model)[layer]
        with torch.no_grad():
            return families.attention_scores(parts["query"](states[layer]), parts["key"](states[layer]), 2)
    expected = sum(transfer.hidden_mse(s[m], t[g], mask)
                   + transfer.attention_mse(scores(student, m - 1, s), scores(teacher, g - 1, t), mask)
                   for m, g in ((1, 2), (2, 4)))
    assert loss_of(student, teacher, encoded, "tinybert").item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("layers, pkd, tinybert", [(2, {1}, {1, 3}), (3, {0, 1}, {0, 1, 3}), (4, {0, 1, 2}, {0, 1, 2, 3})])
def test_every_nth_layer_of_the_teacher_is_matched(encoded, layers, pkd, tinybert):
    """Shown by what changes the loss: the output of a matched layer, and nothing of a layer that is not."""
    shift = torch.arange(16) % 3
    for kind, matched in (("pkd", pkd), ("tinybert", tinybert)):
        teacher = tiny()
        student = student_of(teacher, layers)
        usual = loss_of(student, teacher, encoded, kind)
        for place in range(LAYERS):
            changed = copy.deepcopy(teacher)
            layers_of = encoders.encoder_layers(changed)
            layers_of[place].register_forward_hook(lambda _, args, output: output + shift)
            for following in layers_of[place + 1:place + 2]:  # reads what it read before
                following.register_forward_pre_hook(lambda _, args: (args[0] - shift, *args[1:]))
            same = torch.isclose(loss_of(student, changed, encoded, kind), usual, rtol=1e-4)
            assert same.item() is (place not in matched), (kind, place)


@pytest.mark.parametrize("kind", names.TRANSFERS)
def test_a_copy_of_the_teacher_has_nothing_to_learn(teacher, encoded, kind):
    assert loss_of(copy.deepcopy(teacher), teacher, encoded, kind).item() == 0
    assert loss_of(student_of(teacher), teacher, encoded, kind).item() > 0


def test_the_loss_is_added_with_its_weight(encoded):
    teacher = tiny()
    student = student_of(teacher)
    plain = loss_of(student, teacher, encoded, "pkd")
    total = loss_of(student, teacher, encoded, "pkd", weight=2.5, base=lambda logits, rows: logits.sum() * 0 + 7)
    assert total.item() == pytest.approx(7 + 2.5 * plain.item())


@pytest.mark.parametrize("kind", names.TRANSFERS)
def test_padding_changes_nothing(encoded, kind):
    teacher = tiny()
    student = student_of(teacher)
    inputs = batches.collate(encoded, np.arange(32), "cpu")
    longer = {name: F.pad(values, (0, 5)) for name, values in inputs.items()}
    losses = []
    for batch in (inputs, longer):
        with transfer.objective(nothing, student.train(), teacher, kind, 1.0) as total:
            losses.append(total(student(**batch).logits, torch.arange(32)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_predictions_between_forward_and_loss_do_not_count(encoded):
    teacher = tiny()
    student = student_of(teacher)
    usual = loss_of(student, teacher, encoded, "tinybert")
    rows = np.arange(32)
    with transfer.objective(nothing, student.train(), teacher, "tinybert", 1.0) as total:
        logits = student(**batches.collate(encoded, rows, "cpu")).logits
        loop.predict(student, encoded, dtype="fp32", device="cpu", batch_size=1)
        assert total(logits, torch.as_tensor(rows)).item() == usual.item()


# --- in training

@pytest.mark.parametrize("kind", names.TRANSFERS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_students_come_nearer_to_their_teacher(teacher, encoded, kind, dtype):
    student, before = student_of(teacher), copy.deepcopy(teacher)
    with transfer.objective(nothing, student, teacher, kind, 1.0) as total:
        log, _ = loop.fit(student, encoded, total, dataclasses.replace(PLAN, dtype=dtype))
    assert log["loss"].tail(4).mean() < 0.8 * log["loss"].head(4).mean()
    assert same_weights(teacher, before) and all(p.grad is None for p in teacher.parameters())


def test_looking_changes_nothing(encoded):
    """With weight 0, dropout and checkpoints, the run is the plain one byte by byte."""
    runs = []
    for kind in (None, *names.TRANSFERS):
        teacher = tiny(dropout=0.1).train()
        student = student_of(teacher)
        plan = dataclasses.replace(PLAN, steps=6)
        for_all = {"checkpoints": {3: lambda: loop.predict(student, encoded, dtype="bf16", device="cpu")}}
        if kind is None:
            loop.fit(student, encoded, cross_entropy(encoded), plan, **for_all)
        else:
            with transfer.objective(cross_entropy(encoded), student, teacher, kind, 0.0) as total:
                loop.fit(student, encoded, total, plan, **for_all)
        runs.append(student)
    assert same_weights(runs[0], runs[1]) and same_weights(runs[0], runs[2])


def test_the_teacher_runs_for_training_alone_and_hooks_go(encoded):
    teacher, calls = tiny(), []
    student = student_of(teacher)
    counter = teacher.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(RuntimeError), transfer.objective(cross_entropy(encoded), student, teacher, "tinybert", 1.0) as total:
        loop.fit(student, encoded, total, dataclasses.replace(PLAN, steps=5), checkpoints={
            2: lambda: [loop.predict(student, encoded, dtype=d, device="cpu") for d in ("fp32", "bf16")]})
        raise RuntimeError
    counter.remove()
    assert len(calls) == 5
    assert not any(m._forward_hooks or m._forward_pre_hooks for model in (student, teacher) for m in model.modules())


def test_what_cannot_be_is_refused():
    teacher = tiny()
    for student, kind, weight, match in (
            (student_of(teacher), "tinybrt", 1.0, "unknown transfer 'tinybrt'; did you mean 'tinybert'"),
            (student_of(teacher), "pkd", -1.0, "weight is -1.0"),
            (tiny(layers=5), "tinybert", 1.0, "student has 5 layers, its teacher 4"),
            (student_of(teacher, 1), "pkd", 1.0, "one layer"),
            (tiny(width=32), "pkd", 1.0, "width is 32, its teacher's 16"),
            (tiny(heads=4), "tinybert", 1.0, "number of heads is 4, its teacher's 2")):
        with pytest.raises(StudyError, match=match), transfer.objective(nothing, student, teacher, kind, weight):
            pass
