"""The numbers of notebook 09 that come from what other notebooks wrote."""
from types import SimpleNamespace

import pandas as pd
import pytest

from lib import files
from lib.claims import contrasts, evidence, runs
from lib.params.profile import load_profile

TASK = "micro_nli"


@pytest.fixture
def found(tmp_path):
    rivals = [("v_one_run", "train", "rank", 0.4), ("v_one_run", "train", "auc", 0.9), ("el2n", "train", "rank", 0.7)]
    tables = {
        ("06_shortcut_samples", "rivals.csv"): pd.DataFrame(rivals, columns=["score", "on", "measure", "value"]),
        ("07_mitigation", "regret.csv"): pd.DataFrame({"base": ["imp-70", "imp-70", "truncated-3"], "value": [0.02, 0.5, 0.03],
                                                       "rule": ["by_hard", "by_gap", "by_hard"]}),
        ("06b_dose_and_response", "slopes.csv"): pd.DataFrame({"model": ["imp-70", "truncated-3"], "slope": [1.5, 2.5]})}
    for (stage, name), table in tables.items():
        (tmp_path / "seed0" / stage).mkdir(parents=True)
        table.to_csv(tmp_path / "seed0" / stage / name, index=False)
    places = {(TASK, seed): runs.ReferenceRun(tmp_path / f"seed{seed}") for seed in (0, 1)}
    return evidence.GatheredRuns(SimpleNamespace(tasks=[TASK], seeds_of=lambda task: [0, 1]), places, {place: {} for place in places})


@pytest.mark.parametrize("measure, model, value", [
    ("rank_agreement", "imp-20, imp-70", 0.4), ("alpha_regret", "imp-70 + rmc", -2.0), ("alpha_regret", "truncated-3 + rmc", -3.0),
    ("bias_slope", "truncated-3", 2.5)])
def test_a_number_is_read_where_its_notebook_wrote_it(found, measure, model, value):
    assert found.number_of(TASK, 0, measure, model, ("ood",)) == pytest.approx(value)
    assert found.number_of(TASK, 1, measure, model, ("ood",)) is None, "seed 1 wrote no such table"
    assert found.number_of("micro_facts", 0, measure, model, ("ood",)) is None


def test_a_model_that_no_table_holds_has_no_number(found):
    assert found.number_of(TASK, 0, "bias_slope", "imp-40", ("ood",)) is None
    assert found.number_of(TASK, 0, "alpha_regret", "imp-40 + rmc", ("ood",)) is None
    assert found.number_of(TASK, 0, "foretold", "imp-70", ("ood",)) is None and found.foretold().empty


def test_every_measure_of_tables_is_known(found):
    for measure in contrasts.OF_TABLES:
        found.number_of(TASK, 0, measure, "imp-70 + rmc", ("ood",))


def test_what_is_foretold_is_beyond_what_another_dense_model_loses(found, monkeypatch):
    rows = [("imp-70", "ood", "combined", 0.8), ("dense, other seed", "ood", "combined", 0.75), ("imp-40", "ood", "combined", 0.7),
            ("imp-70", "test", "combined", 0.6), ("imp-70", "ood", "loss", 0.99)]
    table = pd.DataFrame(rows, columns=["model", "split", "predictor", "value"]).assign(task=TASK, seed=0)
    monkeypatch.setattr(found, "foretold", lambda: table)
    assert found.number_of(TASK, 0, "foretold", "imp-70", ("ood",)) == pytest.approx(0.05)
    assert found.number_of(TASK, 0, "foretold", "imp-40", ("ood",)) == pytest.approx(-0.05)
    assert found.number_of(TASK, 0, "foretold", "imp-70", ("sym2",)) is None, "a set without skill is left out"
    monkeypatch.setattr(found, "foretold", lambda: table[table["model"] != "dense, other seed"])
    assert found.number_of(TASK, 0, "foretold", "imp-70", ("ood",)) is None, "without the null it says nothing"


def test_tables_of_the_reference_are_rebuilt_beside_what_a_run_wrote():
    run = load_profile("smoke").run("claims", TASK, 0)
    assert run.outputs == files.ROOT / "outputs" / "smoke"
    rebuilt = run.model_copy(update={"source": "reference"})
    assert rebuilt.folder("09_claims") == files.ROOT / "outputs" / "rebuilt" / "smoke" / "09_claims"
