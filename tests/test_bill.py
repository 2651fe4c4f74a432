"""The bill of a study, added up from records and cost tables."""

import json
from pathlib import Path

import pytest

from lib import store
from lib.claims import bill, evidence, runs
from lib.models import batches, encoders, make, pretrained
from lib.params.profile import load_profile

REFERENCE = Path(__file__).resolve().parents[1] / "outputs" / "reference" / "mini" / "micro_nli"


def test_the_bill_of_the_reference_adds_up():
    run = load_profile("mini").run("claims", "micro_nli", 0)
    found = bill.by_stage(evidence.gather(run, "reference"))
    made = {(path.parts[-3], record["model"]): record for path in sorted(REFERENCE.glob("seed*/*/models.json"))
            for record in json.loads(path.read_text())}
    costs = {(path.parts[-2], name): cost for path in REFERENCE.glob("seed*/costs.json")
             for name, cost in json.loads(path.read_text()).items()}
    total = found.loc[bill.TOTAL]
    assert total["models"] == len(made) == found.drop(bill.TOTAL)["models"].sum()
    assert total["rows"] == sum(r["steps"] * r["batch_size"] for r in made.values())
    assert total["minutes"] == pytest.approx(sum(costs[k]["wall_seconds"] for k in made) / 60)
    assert total["disk_gb"] == pytest.approx(sum(r["bytes"] for r in made.values()) / 1e9)
    assert total["memory_gb"] == max(cost.get("peak_memory_bytes", 0) for cost in costs.values()) / 1e9
    assert found.loc["02_teacher", "models"] == 2 + 3 and list(found.columns) == bill.COLUMNS  # and the shorter ones
    teacher = [(path.parts[-3], record["model"]) for path in sorted(REFERENCE.glob("seed*/02_teacher/models.json"))
               for record in json.loads(path.read_text())]
    rows, seconds = (sum(of(k) for k in teacher) for of in (
        lambda k: made[k]["steps"] * made[k]["batch_size"], lambda k: costs[k]["seconds"]))
    assert found.loc["02_teacher", "rows_per_s"] == pytest.approx(rows / seconds, rel=0.1)
    assert f"**{len(made)} models**" in bill.sentence(found)


@pytest.fixture(scope="module")
def made(tiny_run, micro):
    """One model that two stages list, and one that is not trained; train rows are longer than the others."""
    run = tiny_run.model_copy(update={"task": "micro_nli", "epochs": 0.5})
    twice = micro["text_a"] + " " + micro["text_a"]
    items = micro.assign(text_a=twice.where(micro["split"] == "train", micro["text_a"]))
    dense = make.model(run, items, "dense")
    rounded = make.model(run, items, "dense + ptq8", make.Extras(start=dense))
    store.write_stage(run.folder("02_teacher"), [dense])
    store.write_stage(run.folder("05_quantization_and_replacing"), [dense, rounded])
    place = runs.OutputRun(run.folder("02_teacher").parent, "micro_nli", 0)
    return evidence.GatheredRuns(run, {("micro_nli", 0): place}, {}), dense, items


def test_a_model_of_two_stages_is_paid_once_and_rounding_trains_nothing(made):
    found, dense, items = made
    table = bill.by_stage(found)
    assert dict(table["models"]) == {"02_teacher": 1, "05_quantization_and_replacing": 1, bill.TOTAL: 2}
    assert table.loc["05_quantization_and_replacing", "steps"] == 0 and table["rows_per_s"].isna().sum() == 1
    assert table.loc[bill.TOTAL, "rows"] == dense.record["steps"] * 8
    tokenizer, model = pretrained.load_tokenizer(found.run.encoder), make.load(dense)
    length = {split: batches.encode(tokenizer, part, found.run.max_length).lengths.mean() for split, part in items.groupby("split")}
    trained, tested = (encoders.flops(model, round(length[split])) for split in ("train", "test"))
    assert trained > 1.3 * tested == 1.3 * dense.record["flops_per_example"]
    assert table.loc["02_teacher", "tflop"] * 1e12 == pytest.approx(
        3 * dense.record["steps"] * 8 * trained + dense.cost["predicted_rows"] * tested)


def test_what_a_cost_table_says_itself_counts(made, monkeypatch):
    found, dense, _ = made
    monkeypatch.setattr(store.Model, "cost", property(lambda model: {
        "seconds": 10.0, "predict_seconds": 2.0, "predicted_rows": 5, "wall_seconds": 60.0, "flops": 3e12, "peak_memory_bytes": 2e9}))
    first = bill.by_stage(found).loc["02_teacher"]
    assert (first["minutes"], first["tflop"], first["memory_gb"]) == (1.0, 3.0, 2.0)


def test_a_study_without_models_costs_nothing(made):
    found, *_ = made
    empty = bill.by_stage(evidence.GatheredRuns(found.run, {}, {}))
    assert empty.empty and list(empty.columns) == bill.COLUMNS
