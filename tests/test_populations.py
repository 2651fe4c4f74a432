"""PIEs worked out by hand, and their null, odds and intervals against what sampling theory says of them."""

import numpy as np
import pandas as pd
import pytest

from lib.analysis import populations
from lib.errors import StudyError
from lib.tasks.task import Ood, Task

TASK = Task(name="toy", labels=("yes", "no"), text_a="a", text_b="b", shortcut="overlap", licence="", source="", caveats="",
            ood={"ood": Ood(("yes", "no")), "unseen": Ood(("yes", "no"), role="unseen")})


def rows(pred, **columns) -> pd.DataFrame:
    """A frame as `measures.rows` makes it, label 0 throughout."""
    n = len(pred)
    frame = pd.DataFrame({"guid": [f"r{i}" for i in range(n)], "split": "test", "label": 0, "pred": pred, "subcase": "",
                          "group": "", "is_shortcut": pd.array([True] * n, dtype="boolean")}).assign(**columns)
    return frame.assign(correct=frame["pred"] == frame["label"])


def runs_of(compressed, dense, other, **columns) -> dict:
    """Populations from predictions [seeds, rows] each; the other dense one has the seeds 10, 11..."""
    full = {s: {"dense": rows(d, **columns), "imp-70": rows(c, **columns)}
            for s, (c, d) in enumerate(zip(compressed, dense))}
    return full | {10 + s: {"dense": rows(o, **columns)} for s, o in enumerate(other)}


def measured(runs, n_boot=200) -> pd.DataFrame:
    table = populations.shares(populations.exemplars(runs, ["imp-70"], TASK), n_boot)
    return table[table["split"] == "test"].set_index("measure")


def test_modal_is_the_majority_and_a_tie_the_lowest_label():
    votes = np.array([[1, 2, 0, 2], [1, 2, 1, 0], [0, 1, 2, 1], [0, 1, 2, 2], [2, 0, 1, 0]])
    assert populations.modal(votes).tolist() == [0, 1, 1, 0]


def test_a_pie_is_a_row_that_the_population_not_one_model_answers_otherwise():
    compressed = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    dense = [[0, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0]]
    other = [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    found = populations.exemplars(runs_of(compressed, dense, other), ["imp-70"], TASK)
    assert found["compressed"].tolist() == [1, 1, 0, 0] and found["dense"].tolist() == [0, 1, 0, 0]
    assert found["pie"].tolist() == [True, False, False, False]
    assert found["churn"].tolist() == [False, True, True, False]
    assert found["pie_other"].tolist() == [True, True, True, False]


def test_rows_are_matched_by_guid_and_unseen_ones_left_out():
    runs = runs_of([[1, 0, 1]], [[0, 0, 0]], [[0, 0, 0]], split=["test", "ood", "unseen"])
    runs[0]["imp-70"] = runs[0]["imp-70"].iloc[::-1]
    found = populations.exemplars(runs, ["imp-70"], TASK)
    assert found[["guid", "split", "pie"]].values.tolist() == [["r0", "test", True], ["r1", "ood", False]]
    runs[10]["dense"] = runs[10]["dense"].iloc[1:]
    with pytest.raises(StudyError, match="seed 10 .*'r0'"):
        populations.exemplars(runs, ["imp-70"], TASK)


def test_populations_are_odd_and_of_one_size():
    runs = {s: {"dense": None, "imp-70": None} for s in range(5)} | {s: {"dense": None} for s in range(5, 9)}
    assert populations.paired_seeds(runs, ["imp-70"]) == ([0, 1, 2], [5, 6, 7])
    runs[4]["rare"] = None
    assert populations.paired_seeds(runs, ["imp-70", "rare"]) == ([4], [5])
    assert populations.compressions(runs) == ["imp-70"]
    with pytest.raises(StudyError, match="dense, imp-40"):
        populations.paired_seeds(runs, ["imp-40"])
    with pytest.raises(StudyError, match="dense_seeds"):
        populations.paired_seeds({0: runs[0]}, ["imp-70"])


def test_the_table_counts_as_a_hand_does():
    fails = np.arange(20) < 8
    pie, churn = np.isin(np.arange(20), [0, 1, 2, 8]), np.isin(np.arange(20), [3, 9])
    dense = np.where(np.arange(20) == 0, 1, 0)
    runs = runs_of([dense ^ pie], [dense], [dense ^ churn], is_shortcut=pd.array(~fails, dtype="boolean"))
    got = measured(runs)
    counts = got["count"].drop("fails_base").to_dict()
    assert counts == {"pies": 4, "null": 2, "excess": 2, "pies_other": 6, "excess_other": 4, "dense_right": 3, "fails": 3,
                      "lift": 3, "odds_ratio": 3, "odds_ratio_null": 1, "odds_ratio_excess": 3}
    value = got["value"]
    assert value[["pies", "null", "excess", "excess_other"]].tolist() == pytest.approx([0.2, 0.1, 0.1, 0.2])
    assert value["dense_right"] == 0.75
    assert value["lift"] == pytest.approx((3 / 4) / (8 / 20))
    assert value["odds_ratio"] == pytest.approx(3.5 * 11.5 / (1.5 * 5.5))
    assert value["odds_ratio_excess"] == pytest.approx(value["odds_ratio"] / (1.5 * 11.5 / (1.5 * 7.5)))
    assert (got.loc[["dense_right", "fails"], "n"] == 4).all() and got.loc["pies", "n"] == 20


def test_what_is_not_known_stays_unknown():
    none = measured(runs_of([[0] * 12], [[0] * 12], [[0] * 12], is_shortcut=pd.array([True, False] * 6, dtype="boolean")))
    assert none.loc["pies", "value"] == 0
    assert none.loc[["dense_right", "fails", "lift", "odds_ratio"], ["value", "low", "high"]].isna().all(axis=None)
    real = measured(runs_of([[1] * 12], [[0] * 12], [[0] * 12], is_shortcut=pd.array([pd.NA] * 12, dtype="boolean")))
    assert real.loc["dense_right", "value"] == 1
    assert real.loc[["fails", "fails_base", "lift", "odds_ratio"], ["count", "value", "low"]].isna().all(axis=None)


def test_the_excess_is_paired_over_rows():
    rng = np.random.default_rng(0)
    dense, changed = np.zeros(600, dtype=int), (rng.random(600) < 0.2).astype(int)
    same = measured(runs_of([dense ^ changed], [dense], [dense ^ changed]))
    assert same.loc["excess", ["value", "low", "high"]].tolist() == [0, 0, 0]
    other = dense ^ (rng.random(600) < 0.2)
    apart = measured(runs_of([dense ^ changed], [dense], [other]), n_boot=2000).loc["excess"]
    assert apart["low"] < 0 < apart["high"]
    assert apart["high"] - apart["low"] == pytest.approx(2 * 1.96 * np.sqrt(2 * 0.2 * 0.8 / 600), rel=0.15)


def test_rows_of_one_template_count_as_one():
    changed = np.repeat(np.arange(40) % 4 == 0, 15).astype(int)
    templates = np.repeat([f"t{i}" for i in range(40)], 15)
    runs = [runs_of([changed], [changed * 0], [changed * 0], group=group) for group in ("", templates)]
    free, grouped = (measured(r, n_boot=1000).loc["pies"] for r in runs)
    assert grouped["high"] - grouped["low"] > 3 * (free["high"] - free["low"])


def test_subcases_add_up_to_the_table():
    rng = np.random.default_rng(1)
    runs = runs_of(rng.integers(0, 2, (3, 60)), rng.integers(0, 2, (3, 60)), rng.integers(0, 2, (3, 60)),
                   subcase=np.repeat(["swap", "", "passive"], 20), split=np.repeat(["test", "ood"], 30))
    found = populations.exemplars(runs, ["imp-70"], TASK)
    cases, table = populations.by_subcase(found, 50), populations.shares(found, 50)
    for measure in ("pies", "null", "excess"):
        sums = cases[cases["measure"] == measure].groupby("split")["count"].sum()
        assert sums.to_dict() == table[table["measure"] == measure].set_index("split")["count"].to_dict()
    case = cases[(cases["split"] == "ood") & (cases["subcase"] == "") & (cases["measure"] == "pies")].iloc[0]
    own = found[(found["split"] == "ood") & (found["subcase"] == "")]
    assert (case["count"], case["n"], case["value"]) == (own["pie"].sum(), 10, own["pie"].mean())


def test_the_null_is_spread_over_all_pairs_of_populations():
    runs = runs_of([[0, 0, 0, 0]], [[0, 0, 0, 0]], [[0, 0, 0, 1], [0, 1, 1, 1]])
    got = populations.spread(runs, ["imp-70"], TASK).iloc[0]
    assert got["pairs"] == 3 and got["value"] == pytest.approx(np.mean([1 / 4, 3 / 4, 2 / 4]))
    rng = np.random.default_rng(2)
    noise = (rng.random((10, 400)) < 0.3).astype(int)
    many = populations.spread(runs_of(noise[:5], noise[:5], noise[5:]), ["imp-70"], TASK).iloc[0]
    p = 1 - 0.16308  # binomial: three or more of five at 0.3 each
    assert many["pairs"] == 126 and many["value"] == pytest.approx(2 * p * (1 - p), abs=0.05)
    assert many["low"] <= many["value"] <= many["high"]


def of_seed(pred, seed):
    return rows(pred, split="ood", label=1, subcase="a", seed=seed, is_shortcut=[True, False] * 4,
                group=[f"k{i % 4}" for i in range(8)])


def test_pies_need_a_second_population_of_dense_models():
    own, other = np.ones(8, int), np.array([0, 1, 1, 1, 1, 1, 1, 1])
    runs = {("micro_nli", 0): {"dense": of_seed(own, 0), "imp-70": of_seed(1 - other, 0)}}
    assert all(table.empty for table in populations.pies(runs))
    runs["micro_nli", 1] = {"dense": of_seed(other, 1)}
    pies = populations.pies(runs)
    table = pies.table.set_index(["task", "measure"])["value"]
    assert table["micro_nli", "pies"] == 7 / 8 and table["micro_nli", "null"] == 1 / 8
    assert pies.subcases.set_index(["task", "subcase", "measure"])["value"]["micro_nli", "a", "pies"] == 7 / 8
    assert pies.spread["pairs"].tolist() == [1] and pies.spread["value"].tolist() == [1 / 8]


def test_the_compression_that_changes_most_is_by_its_ood_answers():
    table = pd.DataFrame([("imp-70", "test", "pies", 0.9), ("imp-70", "ood", "pies", 0.1), ("imp-40", "test", "pies", 0.0),
                          ("imp-40", "ood", "pies", 0.2), ("imp-70", "ood", "null", 0.5)],
                         columns=["model", "split", "measure", "value"])
    assert populations.most_changed(table) == "imp-40"
    scratch = pd.DataFrame([("scratch-3", "ood", "pies", 0.9)], columns=table.columns)
    assert populations.most_changed(pd.concat([scratch, table])) == "imp-40" and populations.most_changed(scratch) == "scratch-3"
