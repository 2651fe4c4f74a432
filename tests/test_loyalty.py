"""Loyalty against values worked out by hand; a swapped axis or a natural logarithm fails here."""

import numpy as np
import pandas as pd
import pytest

from lib.analysis import loyalty
from lib.errors import StudyError
from lib.tasks.task import Ood, Task

TASK = Task(name="toy", labels=("entailment", "neutral", "contradiction"), text_a="premise", text_b="hypothesis",
            ood={"hans": Ood(("entailment", "non-entailment"), (0, 1, 1))}, shortcut="b_only", licence="", source="", caveats="")
ONE_HOT = np.array([[1e4, -1e4, -1e4], [-1e4, -1e4, 1e4]])


def predictions(logits, split="test", label=0) -> pd.DataFrame:
    n = len(logits)
    return pd.DataFrame({"guid": [f"{split}{i}" for i in range(n)], "split": split, "label": label, "logits": list(logits)})


def items_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[["guid", "split", "label"]].assign(text_a="", text_b="", heuristic="", subcase="", group="",
                                                    is_shortcut=pd.array([pd.NA] * len(table), dtype="boolean"))


def noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (n, 3)).astype(np.float32)


def test_the_teacher_is_exactly_loyal_to_itself():
    for logits in (noise(50, 0), ONE_HOT):
        assert loyalty.label_loyalty(logits, logits).all()
        assert (loyalty.probability_loyalty(logits, logits) == 1).all()
        assert (loyalty.kl(logits, logits) == 0).all()


def test_opposite_one_hot_predictions_are_exactly_disloyal():
    opposite = np.roll(ONE_HOT, 1, axis=1)
    assert not loyalty.label_loyalty(ONE_HOT, opposite).any()
    assert (loyalty.probability_loyalty(ONE_HOT, opposite) == 0).all()  # natural logarithms: 0.167
    assert np.isfinite(loyalty.kl(ONE_HOT, opposite)).all()


def test_probability_loyalty_by_hand_along_the_classes_in_base_two():
    teacher, model = np.log([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]), np.log([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]])
    # first row: middle 0.375 0.375 0.25; both halves of D_JS are 0.5 log2(0.5/0.375) + 0.25 log2(0.25/0.375)
    divergence = [0.5 * np.log2(4 / 3) + 0.25 * np.log2(2 / 3), 0.8 * np.log2(0.8 / 0.45) + 0.1 * np.log2(0.1 / 0.45)]
    got = loyalty.probability_loyalty(model, teacher)
    assert got == pytest.approx(1 - np.sqrt(divergence))
    assert got.shape == (2,) and (loyalty.probability_loyalty(teacher, model) == got).all()


def test_square_logits_are_compared_row_by_row():
    teacher = np.diag([5.0, 5.0, 5.0])
    model = teacher[[0, 2, 1]]
    assert loyalty.label_loyalty(model, teacher).tolist() == [True, False, False]
    got = loyalty.probability_loyalty(model, teacher)
    assert got[0] == 1 and got[1] == got[2] < 0.1


def test_a_shift_of_all_logits_or_rounding_costs_no_loyalty():
    logits = noise(2000, 1).astype(np.float64)
    nearly = logits * (1 + 1e-9)
    for other in (logits + 7, nearly):
        got = loyalty.probability_loyalty(other, logits)
        assert np.isfinite(got).all() and (got <= 1).all() and (got > 1 - 1e-6).all()
        assert (loyalty.kl(other, logits) >= 0).all() and (loyalty.kl(other, logits) < 1e-12).all()


def test_kl_is_from_teacher_to_model_in_nats():
    teacher, model = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    assert loyalty.kl(model, teacher) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
    assert loyalty.kl(teacher, model) != pytest.approx(loyalty.kl(model, teacher))


def test_logits_that_do_not_match_are_refused():
    with pytest.raises(StudyError, match=r"the model's logits are \[4, 3\], the teacher's \[4, 2\]"):
        loyalty.label_loyalty(np.zeros((4, 3)), np.zeros((4, 2)))
    with pytest.raises(StudyError, match=r"rows, classes"):
        loyalty.probability_loyalty(np.zeros(3), np.zeros(3))


def test_table_pairs_rows_by_guid_and_leaves_train_out():
    teacher = pd.concat([predictions(noise(40, 2), "train"), predictions(noise(40, 3)), predictions(noise(30, 4), "hans")])
    other = teacher.assign(logits=[-x if split == "hans" else x for x, split in zip(teacher["logits"], teacher["split"])])
    model = other[other["split"] != "train"].sample(frac=1, random_state=0)
    got = loyalty.by_split(model, teacher, items_of(teacher), TASK, 200, 0)
    assert list(got.columns) == ["split", "measure", "value", "low", "high", "n"]
    assert set(got["split"]) == {"test", "hans"}
    test, hans = (got[got["split"] == s].set_index("measure") for s in ("test", "hans"))
    assert list(hans.index) == ["label_loyalty", "probability_loyalty", "kl"] and (hans["n"] == 30).all()
    assert test["value"].tolist() == test["low"].tolist() == test["high"].tolist() == [1, 1, 0]
    logits = np.stack(teacher.loc[teacher["split"] == "hans", "logits"])
    assert hans.loc["label_loyalty", "value"] == 0
    assert hans.loc["probability_loyalty", "value"] == pytest.approx(loyalty.probability_loyalty(-logits, logits).mean())
    assert hans.loc["kl", "value"] == pytest.approx(loyalty.kl(-logits, logits).mean())
    assert (hans["low"] <= hans["value"]).all() and (hans["value"] <= hans["high"]).all()
    assert hans.loc["kl", "low"] < hans.loc["kl", "value"] < hans.loc["kl", "high"]


def test_table_compares_the_task_classes_before_hans_collapses_them():
    teacher, model = predictions([[0, 9, 0]] * 4, "hans", 1), predictions([[0, 0, 9]] * 4, "hans", 1)
    got = loyalty.by_split(model, teacher, items_of(teacher), TASK, 20).set_index("measure")
    assert got.loc["label_loyalty", "value"] == 0  # both say non-entailment


def test_table_gives_each_seed_its_own_teacher():
    runs = [predictions(noise(20, 5 + seed)).assign(seed=seed) for seed in (0, 1)]
    both, items = pd.concat(runs), items_of(runs[0])
    assert loyalty.by_split(both, both, items, TASK, 20)["value"].tolist() == [1, 1, 0]
    null = loyalty.by_split(runs[1], runs[0], items, TASK, 20)
    logits = [np.stack(run["logits"]) for run in runs]
    assert null["value"].iloc[0] == pytest.approx((logits[0].argmax(1) == logits[1].argmax(1)).mean())


def test_table_names_a_row_that_is_missing_or_not_the_tasks():
    teacher = predictions(noise(5, 9))
    with pytest.raises(StudyError, match="'test4' is on one only"):
        loyalty.by_split(teacher[:4], teacher, items_of(teacher), TASK, 0)
    with pytest.raises(StudyError, match="'test0'"):
        loyalty.by_split(teacher, teacher, items_of(teacher).assign(label=1), TASK, 0)
