"""What notebook 09 makes of several seeds: means with their intervals, and the points of the mitigation plane."""

import numpy as np
import pandas as pd
import pytest

from lib.analysis import seeds, tables


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
