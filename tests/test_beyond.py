"""What notebook 09 shows beside the ledger."""
import numpy as np
import pandas as pd
import pytest

from lib.analysis import populations, seeds, tables
from lib.figures import sentences


def test_seeds_are_put_together_and_one_seed_keeps_its_own_interval():
    table = pd.DataFrame({"task": ["a", "a", "a", "b"], "seed": [0, 1, 2, 0], "value": [1.0, 2.0, np.nan, 5.0],
                          "low": [0.0, 1.0, 0.0, 4.0], "high": [2.0, 3.0, 0.0, 6.0], "cost": [1.0, 3.0, 9.0, 7.0]})
    found = tables.over_seeds(table, ["task"], ("cost",)).set_index("task")
    assert found.loc["a", ["value", "seeds", "cost"]].tolist() == [1.5, 2, 2.0]
    assert found.loc["a", "high"] - 1.5 == pytest.approx(12.706 * 0.5, rel=1e-3)
    assert found.loc["b", ["value", "low", "high", "seeds", "cost"]].tolist() == [5.0, 4.0, 6.0, 1, 7.0]
    empty = tables.over_seeds(pd.DataFrame(columns=["task", "seed"]), ["task", "base"])
    assert empty.empty and list(empty) == ["task", "base", "value", "low", "high", "seeds"]


def test_a_plane_has_a_point_a_model():
    table = pd.DataFrame([("x", model, measure, value, value - 0.1, value + 0.1)
                          for model, test, ood in (("dense", 0.9, 0.8), ("imp-70 + rmc", 0.7, 0.6))
                          for measure, value in (("test", test), ("ood", ood), ("after_attack", 0.1))],
                         columns=["task", "model", "measure", "value", "low", "high"])
    plane = seeds.mitigation_points(pd.concat([table, table.assign(task="y", value=0.0)]), "x")
    assert plane["model"].tolist() == ["dense", "imp-70 + rmc"] and plane["loss"].tolist() == ["vanilla", "rmc"]
    assert plane[["dev", "ood"]].values.tolist() == [[0.9, 0.8], [0.7, 0.6]]
    assert plane["ood_high"].tolist() == pytest.approx([0.9, 0.7])


def test_a_plane_leaves_out_what_no_mitigation_was_tried_on():
    models = ["dense", "truncated-3", "truncated-3 + distil", "truncated-3 + pkd", "truncated-3 + rmc", "truncated-3 + rmc-50",
              "truncated-3 + distil + ptq8", "imp-70"]
    table = pd.DataFrame([("x", model, measure, 0.8, 0.7, 0.9) for model in models for measure in ("test", "ood")],
                         columns=["task", "model", "measure", "value", "low", "high"])
    assert seeds.mitigation_points(table, "x")["model"].tolist() == ["dense", "truncated-3", "truncated-3 + distil", "truncated-3 + rmc"]
    alone = table[~table["model"].str.contains("rmc")]
    assert len(seeds.mitigation_points(alone, "x")) == 6


def rows(pred, seed):
    n = len(pred)
    return pd.DataFrame({"guid": [f"g{i}" for i in range(n)], "split": "ood", "label": 1, "pred": pred, "seed": seed,
                         "subcase": "a", "is_shortcut": [True, False] * (n // 2), "group": [f"k{i % 4}" for i in range(n)]})


def test_pies_need_a_second_population_of_dense_models():
    own, other = np.ones(8, int), np.array([0, 1, 1, 1, 1, 1, 1, 1])
    runs = {("micro_nli", 0): {"dense": rows(own, 0), "imp-70": rows(1 - other, 0)}}
    assert all(table.empty for table in populations.pies(runs))
    runs["micro_nli", 1] = {"dense": rows(other, 1)}
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


def test_what_one_run_serves_for_is_said_by_task():
    price = pd.DataFrame([("x", "v_one_run", "train", "rank", 0.85, 0.8, 0.9), ("y", "v_one_run", "train", "rank", 0.4, 0.3, 0.5),
                          ("x", "el2n", "train", "rank", 0.1, 0.0, 0.2)],
                         columns=["task", "score", "on", "measure", "value", "low", "high"])
    one_run = pd.DataFrame([("x", "imp-70", 0.001, -0.005, 0.007), ("y", "imp-70", 0.0, -0.001, 0.001)],
                           columns=["task", "base", "value", "low", "high"])
    first, second = sentences.one_run(one_run, price).split("\n")
    assert "x: rank agreement 0.85 [0.80, 0.90]" in first and "imp-70: 0.1 [-0.5, 0.7]" in first and "**serves**" in first
    assert "**does not serve**" in second
    wider = one_run.assign(high=0.02)
    assert sentences.one_run(wider, price).count("**does not serve**") == 2
    assert "not trained" in sentences.one_run(one_run.iloc[:0], price)


def test_regret_is_said_with_its_seeds():
    table = pd.DataFrame([("x", "imp-70", "by_hard", 0.01, -0.002, 0.022, 5)],
                         columns=["task", "base", "rule", "value", "low", "high", "seeds"])
    assert "1.0 [-0.2, 2.2] OOD points" in sentences.regret(table) and "5 seeds" in sentences.regret(table)
    assert "nothing to choose" in sentences.regret(table.iloc[:0])
