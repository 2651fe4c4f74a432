"""A model by its name alone: what it builds on is found or made, once, and handed what the name asks for."""
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lib import store
from lib.errors import StudyError
from lib.models import loop, make, recipes


@pytest.fixture(scope="module")
def dense(tiny_run, micro):
    return make.model(tiny_run, micro, "dense", make.Extras(predict_train=True))


@pytest.fixture
def wanted(monkeypatch):
    """The keys of the models that would be made, in order, without making any."""
    keys = []
    monkeypatch.setattr(store, "add", lambda place, key, fill: keys.append(key))
    return keys


@pytest.fixture
def steps(monkeypatch):
    """The length of every training run, in order."""
    fit, found = loop.fit, []

    def counted(model, encoded, objective, plan, **kwargs):
        found.append(plan.steps)
        return fit(model, encoded, objective, plan, **kwargs)
    monkeypatch.setattr(loop, "fit", counted)
    return found


def test_what_is_finished_is_not_made(tiny_run, micro, dense, wanted):
    finished = {"dense": dense, "imp-50": store.Model(dense.folder)}
    assert recipes.follow(tiny_run, micro, "imp-50", finished) is finished["imp-50"]
    assert recipes.follow_all(tiny_run, micro, ["dense", "imp-50"], finished) == {} and wanted == []


def test_a_combination_is_made_step_by_step(tiny_run, micro, dense, steps):
    made = recipes.follow_all(tiny_run, micro, ["theseus-1 + distil + ptq8", "theseus-1 + distil + qat8", "theseus-1 + distil",
                                              "dense + ptq8"], {"dense": dense})
    assert list(made) == ["theseus-1 + distil", "theseus-1 + distil + ptq8", "theseus-1 + distil + qat8", "dense + ptq8"]
    assert steps == [12, 4], "the successor once, then half an epoch of qat"
    records = {name: model.record for name, model in made.items()}
    assert [r["model"] for r in records.values()] == list(made)
    parent, of_dense = records["theseus-1 + distil"]["key"], dense.record["key"]
    assert [(r["start"], r["teacher"]) for r in records.values()] == [
        (of_dense, of_dense), (parent, None), (parent, of_dense), (of_dense, None)]
    assert [r["kd_weight"] for r in records.values()] == [0.9, None, 0.9, None]
    folder = made["theseus-1 + distil + ptq8"].path
    (layer,) = AutoModelForSequenceClassification.from_pretrained(folder).bert.encoder.layer
    assert layer.output.dense.weight.qdata.dtype == torch.int8


def test_a_quantised_model_is_made_of_the_finished_one_of_its_name(tiny_run, micro, dense):
    level = make.model(tiny_run, micro, "imp-50", make.Extras(run_levels=(0.5,), checkpoint_splits=("dev",)))
    (made,) = recipes.follow_all(tiny_run, micro, ["imp-50 + ptq8"], {"dense": dense, "imp-50": level}).values()
    assert made.record["start"] == level.record["key"]


def test_a_student_learns_from_the_dense_model_as_its_loss_says(tiny_run, micro, dense):
    run = tiny_run.model_copy(update={"epochs": 0.2, "kd_weight": 0.7, "pkd_weight": 0.3, "tinybert_weight": 0.4})
    records = [recipes.follow(run, micro, name, {"dense": dense}).record
               for name in ("truncated-1", "truncated-1 + distil", "truncated-1 + tinybert", "scratch-2 + pkd")]
    key = dense.record["key"]
    assert [(r["teacher"], r["kd_weight"], r["transfer_weight"]) for r in records] == [
        (None, None, None), (key, 0.7, None), (key, 0.7, 0.4), (key, 0.7, 0.3)]
    assert [r["start"] for r in records] == [None] * 4


@pytest.mark.parametrize("name, counting", [
    ("truncated-1", {"epochs"}), ("truncated-1 + distil", {"epochs", "kd_weight"}),
    ("truncated-1 + tinybert", {"epochs", "kd_weight", "tinybert_weight"}),
    ("scratch-2 + pkd", {"epochs", "kd_weight", "pkd_weight"}),
    ("theseus-1", {"epochs", "replace_start", "replace_rate", "replace_share"}),
    ("dense + qat8", {"qat_epochs"}), ("dense + ptq8", set())])
def test_a_parameter_counts_for_the_models_that_it_is_about(tiny_run, micro, dense, wanted, name, counting):
    empty = tiny_run.model_copy(update={"profile": "nothing made"})
    changes = {"epochs": 3.0, "kd_weight": 0.5, "pkd_weight": 0.5, "tinybert_weight": 0.5, "qat_epochs": 1.0,
               "replace_start": 0.1, "replace_rate": 0.4, "replace_share": 0.9}
    for change in ({}, *({field: value} for field, value in changes.items())):
        recipes.follow(empty.model_copy(update=change), micro, name, {"dense": dense})
    assert {field for field, key in zip(changes, wanted[1:]) if key != wanted[0]} == counting


def test_what_is_no_recipe_or_cannot_be_made_is_told(tiny_run, micro, dense, wanted):
    with pytest.raises(StudyError, match="did you mean 'ptq8'"):
        recipes.follow(tiny_run, micro, "dense + ptq9", {"dense": dense})
    assert wanted == []


def test_a_structure_that_only_pruning_makes_is_told_with_the_parameter_that_makes_it(tiny_run, micro, dense, wanted):
    with pytest.raises(StudyError, match="heads-25.*pruning.head_fractions"):
        recipes.follow(tiny_run, micro, "heads-25 + ptq8", {"dense": dense})
    with pytest.raises(StudyError, match="ffn-25.*pruning.ffn_fractions"):
        recipes.follow(tiny_run, micro, "ffn-25 + ptq8", {"dense": dense})


def test_more_steps_start_where_the_name_says(tiny_run, micro, dense, steps):
    names = ["dense-after", "imp-50-after", "dense-2x", "truncated-1-2x", "imp-50-2x"]
    made = recipes.follow_all(tiny_run, micro, names, {"dense": dense})
    key = dense.record["key"]
    assert {name: m.record["start"] for name, m in made.items()} == {
        "dense-after": key, "imp-50-after": key, "dense-2x": None, "truncated-1-2x": None, "imp-50-2x": None}
    assert steps == [12, 12, 24, 24, 24]
    sparsity = {name: round(m.record["sparsity_encoder"], 2) for name, m in made.items()}
    assert sparsity["imp-50-after"] == sparsity["imp-50-2x"] == 0.5 and sparsity["dense-after"] == 0
