"""Tables made of results for a reader, and the echo of a run."""

import numpy as np
import pandas as pd
import pytest

from lib.analysis import tables
from lib.figures import report
from lib.params.profile import load_profile
from lib.tasks import registry


def test_intervals_as_text():
    assert tables.with_interval(0.842, 0.831, 0.853) == "84.2 [83.1, 85.3]"
    assert tables.with_interval(0.842, np.nan, np.nan) == "84.2" and tables.with_interval(np.nan, 0, 1) == "undefined"
    assert tables.with_interval(1.234, 1.2, 1.3, digits=2, scale=1) == "1.23 [1.20, 1.30]"


def test_wide_keeps_the_order_of_appearance_and_leaves_gaps_blank():
    table = pd.DataFrame({"model": ["z", "z", "a", "a"], "split": ["test", "ood", "test", "more"],
                          "value": [0.9, 0.5, 0.8, np.nan], "low": np.nan, "high": np.nan})
    wide = report.wide(table, "model", "split")
    assert list(wide.index) == ["z", "a"] and list(wide.columns) == ["test", "ood", "more"]
    assert wide.to_numpy().tolist() == [["90.0", "50.0", ""], ["80.0", "", "undefined"]]
    two = report.wide(table.assign(baseline="b"), ["model", "baseline"], "split", digits=0)
    assert two.index.tolist() == [("z", "b"), ("a", "b")] and two.loc[("z", "b"), "test"] == "90"


def relative_table():
    def entry(model, measure, value, flag=""):
        return {"model": model, "measure": measure, "value": value, "low": value - 0.01, "high": value + 0.01, "flag": flag}
    return pd.DataFrame([entry("truncated-3", "id_difference", -0.05), entry("truncated-3", "ood_difference", -0.2),
                         entry("truncated-3", "f_bias", 1.5), entry("truncated-3", "skill_kept", np.nan, "undefined"),
                         entry("imp-70", "id_difference", 0.01), entry("imp-70", "ood_difference", 0.0)])


def test_differences_read_in_points_and_ratios_as_they_are():
    table = report.relative(relative_table())
    assert table.loc["truncated-3"].tolist() == ["-5.0 [-6.0, -4.0]", "-20.0 [-21.0, -19.0]", "1.50 [1.49, 1.51]", "undefined"]
    assert list(table.columns) == ["id_difference", "ood_difference", "f_bias", "skill_kept"]
    assert list(table.index) == ["truncated-3", "imp-70"]


@pytest.mark.parametrize("profile, warned", [("smoke", True), ("mini", False)])
def test_a_smoke_run_says_that_it_is_no_result_and_what_a_run_changed_is_shown(monkeypatch, profile, warned):
    said = []
    monkeypatch.setattr(report, "display", said.append)
    run = load_profile("smoke").run("pruning", "micro_nli", 0)
    changed = report.echo(run.model_copy(update={"profile": profile, "learning_rate": 1e-5}))
    assert changed.loc["learning_rate", "here"] == "1e-05" and changed.loc["learning_rate", "profile"] != "1e-05"
    assert ["not a result" in text.data for text in said] == [True] * warned
    assert report.versions().loc["torch", "version"]
    assert report.echo(run) is None and "as in `params/smoke.yaml`" in said[-1].data


@pytest.mark.parametrize("encoder, seen", [("offline", "all-MiniLM-L6-v2"), ("offline-base", "all-mpnet-base-v2"), ("org/other", "")])
def test_what_an_offline_encoder_saw_is_said(monkeypatch, encoder, seen):
    said = []
    monkeypatch.setattr(report, "display", said.append)
    run = load_profile("smoke", [f"common.encoder={encoder}"]).run("data", "micro_nli", 0)
    report.caveats(run, registry.get("micro_nli"))
    assert seen in said[0].data and ("Quora" in said[0].data) == bool(seen)
