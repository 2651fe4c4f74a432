"""The committed reference: as much as notebook 09 needs, no texts, the same bytes each time."""

import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from test_analysis import MADE, attacks_of, fake, grid, items, plane_of, table_of, wrong_on

from lib import store
from lib.claims import evidence, runs
from lib.errors import StudyError
from lib.tools import reference

PLACE = "micro_nli/seed0"


@pytest.fixture
def root(grid, items):
    """The finished profile of the evidence's tests, its models with predictions along the way; `outputs` lies in it."""
    model = fake(grid.outputs / "store" / "along", "imp-70", table_of(items, wrong_on(items, "ood", 1, 3, 5, 7)),
                 {4: table_of(items[items["split"] == "train"], True), 8: table_of(items[items["split"] == "test"], True)})
    store.write_stage(grid.folder("04_pruning", "micro_nli", 0), [model])
    for name in grid.outputs.glob("store/*"):
        store.write_json(name / "cost.json", {"seconds": 1.5})
    place = grid.folder("06_shortcut_samples", "micro_nli", 0)
    place.mkdir(parents=True)
    guids = items.loc[items["split"] == "train", "guid"]
    store.write_items(place / "difficulty.parquet", pd.DataFrame({"guid": guids[::-1], "v_levels": np.linspace(0, 1, len(guids))}))
    nbformat.write(nbformat.v4.new_notebook(), grid.outputs / PLACE / "02_teacher.ipynb")
    (grid.outputs / "params.yaml").write_text("grid: {}\n")
    return grid.root


@pytest.fixture
def kept(root):
    reference.collect("smoke", root)
    return runs.ReferenceRun(root / "outputs" / "reference" / "smoke" / PLACE)


def state(folder):
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file()}


def test_the_reference_answers_as_the_run_does(grid, kept):
    made, read = evidence.gather(grid), evidence.gather(grid, "reference")
    assert [(m.name, m.record) for m in made.models] == [(m.name, m.record) for m in read.models]
    assert [m.cost for m in read.models] == [{"seconds": 1.5}] * 6
    both = [[found.rows_of("micro_nli", 0, model) for found in (read, made)] for model in [*MADE, "dense, other seed"]]
    for rows in [*both, [found.along("micro_nli", 0) for found in (read, made)]]:
        pd.testing.assert_frame_equal(*(frame.sort_values("guid", ignore_index=True) for frame in rows))
    for table in (evidence.GatheredRuns.final_table, evidence.GatheredRuns.over_seeds, evidence.GatheredRuns.dense_churn):
        pd.testing.assert_frame_equal(table(read), table(made))
    pd.testing.assert_frame_equal(read.items("micro_nli", 0), made.items("micro_nli", 0))
    pd.testing.assert_frame_equal(read.train("micro_nli", 0), made.train("micro_nli", 0))


def test_logits_of_a_kept_model_come_in_the_order_of_the_rows(kept, items):
    model, test = kept.models()["imp-70"], items[items["split"] == "test"]
    assert np.array_equal(model.logits(items, "test"), [[0, 2 if label else -2] for label in test["label"]]), "less the first"
    with pytest.raises(StudyError, match="'train0'"):
        model.logits(items, "train")


def test_the_dense_models_answers_in_fp32_stand_beside_those_in_bf16(grid, root, kept, items):
    dense = store.read_stage(grid.folder("02_teacher", "micro_nli", 0))["dense"]
    table = table_of(items, False)
    store.write_predictions(dense.folder / store.FP32, table)
    reference.collect("smoke", root)
    again = runs.ReferenceRun(kept.folder)
    assert list(again.fp32) == ["dense"] and list(again.predictions) == list(kept.predictions)
    expected = np.diff(np.stack(table.loc[table["split"] == "test", "logits"]))
    in_fp32 = again.models()["dense"].in_fp32()
    assert np.array_equal(np.diff(np.stack(in_fp32.loc[in_fp32["split"] == "test", "logits"])), expected)


def test_predictions_along_a_run_are_of_the_rows_that_have_them(kept):
    assert list(kept.checkpoints) == ["dense@5", "imp-70@8"], "step 4 was predicted on train alone"
    assert {split: len(part) for split, part in kept.checkpoints["imp-70@8"].groupby("split")} == {"test": 4}
    assert kept.models()["imp-70"].checkpoints()["step"].unique().tolist() == [8]
    with pytest.raises(StudyError, match="nothing along the run of 'truncated-1'"):
        kept.models()["truncated-1"].checkpoints()


def test_train_rows_have_their_scores_and_each_loss_there_is(kept, items):
    train = kept.train
    assert train["guid"].tolist() == [f"train{i}" for i in range(8)] and train["v_levels"].iloc[0] == 1
    assert train["is_shortcut"].tolist() == [True, True, True, False] * 2 and set(train["split"]) == {"train"}
    predicted = ["dense", "truncated-1", "imp-70", "imp-70@4", "dense + ptq8", "imp-70 + rmc"]
    assert train.filter(like="loss:").columns.tolist() == [f"loss:{name}" for name in predicted]
    assert train["loss:imp-70"].dtype == np.float16
    assert np.allclose(train["loss:imp-70"], np.log1p(np.exp(-2)), rtol=1e-3)


def test_no_text_is_kept(kept, items):
    place = kept.folder.parents[1]
    assert not any(b"a premise" in path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert list(kept.items) == ["guid", "split", "label", "heuristic", "subcase", "is_shortcut", "group", "easy"]
    assert "train" not in set(kept.items["split"]) and {p.name for p in place.iterdir()} == {"micro_nli", "params.yaml"}
    assert (kept.folder / "02_teacher.ipynb").exists() and (kept.folder / "08_loyalty_and_attacks" / "plane.csv").exists()


def test_a_reader_gets_rows_and_predictions_by_name(root, kept):
    rows, tables = runs.load("smoke", "micro_nli", 0, root)
    assert list(tables) == [*MADE, "dense@checkpoints", "imp-70@checkpoints"] and "easy" in rows
    store.check_predictions(tables["imp-70 + rmc"], rows)
    assert sorted(tables["dense@checkpoints"]["step"].unique()) == [5]
    with pytest.raises(StudyError, match="it has smoke/micro_nli/seed0, smoke/micro_nli/seed1"):
        runs.load("mini", "micro_nli", 0, root)


def test_collecting_again_changes_nothing_and_a_new_model_only_what_it_is_in(grid, root, kept, items):
    before = state(kept.folder)
    reference.collect("smoke", root)
    assert state(kept.folder) == before
    model = fake(grid.outputs / "store" / "new", "truncated-1", table_of(items, True)[8:])
    store.write_json(model.folder / "cost.json", {"seconds": 1.5})
    store.write_stage(grid.folder("03_distillation", "micro_nli", 0), [model])
    reference.collect("smoke", root)
    changed = {str(name) for name, file in state(kept.folder).items() if file != before.get(name)}
    assert changed == {"predictions.parquet", "train.parquet", "03_distillation/models.json"}


def test_an_interrupted_collection_leaves_what_was_there_and_the_next_goes_on(grid, root, kept, items, monkeypatch):
    before = {name: file[0] for name, file in state(kept.folder).items()}
    store.write_items(grid.folder("01_data", "micro_nli", 0) / "data.parquet", items.assign(heuristic="another"))

    def stops(path, guids, tables):
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(reference, "_write_wide", stops)
        with pytest.raises(KeyboardInterrupt):
            reference.collect("smoke", root)
    after = {name: file[0] for name, file in state(kept.folder).items()}
    assert set(after) == set(before) and after[next(n for n in after if n.name == "predictions.parquet")] in before.values()
    reference.collect("smoke", root)
    assert set(runs.ReferenceRun(kept.folder).items["heuristic"]) == {"another"}


def test_what_a_run_no_longer_has_goes_and_runs_that_are_not_there_stay(grid, root, kept):
    old = kept.folder / "predictions"
    old.mkdir()
    (old / "dense.parquet").write_bytes(b"of an older layout")
    (grid.folder("05_quantization_and_replacing", "micro_nli", 0) / "models.json").unlink()
    (grid.folder("02_teacher", "micro_nli", 1) / "models.json").unlink()
    reference.collect("smoke", root)
    read = runs.ReferenceRun(kept.folder)
    assert not old.exists() and not (kept.folder / "05_quantization_and_replacing").exists()
    assert list(read.models()) == list(read.predictions) == [name for name in MADE if "ptq8" not in name]
    assert (kept.folder.parent / "seed1" / "predictions.parquet").exists()


@pytest.mark.parametrize("marks, comes", [
    ({"end_time": None, "exception": None}, False), ({"end_time": "2026-11-22T00:00:00", "exception": True}, False),
    ({"end_time": "2026-11-22T00:00:00", "exception": None}, True), (None, True)])
def test_of_a_notebook_that_did_not_come_to_its_end_the_earlier_copy_stays(grid, root, kept, marks, comes):
    cells = [nbformat.v4.new_markdown_cell("anew")]
    anew = nbformat.v4.new_notebook(cells=cells, metadata={"papermill": marks} if marks else {})
    nbformat.write(anew, grid.outputs / PLACE / "02_teacher.ipynb")
    reference.collect("smoke", root)
    assert ("anew" in (kept.folder / "02_teacher.ipynb").read_text()) is comes


def test_of_one_seed_a_task_notebooks_and_figures_are_kept_and_the_tables_of_all(grid, root):
    figures = grid.folder("04_pruning", "micro_nli", 0) / "figures"
    figures.mkdir()
    (figures / "curve.svg").write_text("<svg/>")
    for other in ("seed2", "seed3"):
        shutil.copytree(grid.outputs / PLACE, grid.outputs / "micro_nli" / other)
    nbformat.write(nbformat.v4.new_notebook(), grid.outputs / "micro_nli" / "seed1" / "02_teacher.ipynb")
    reference.collect("smoke", root)
    kept = root / "outputs" / "reference" / "smoke" / "micro_nli"
    assert {path.relative_to(kept).parts[0] for pattern in ("*.ipynb", "*.svg") for path in kept.rglob(pattern)} == {"seed0"}
    assert len(list(kept.glob("seed*/predictions.parquet"))) == 4 == 1 + len(list(kept.glob("seed*/*/plane.csv")))
    shutil.rmtree(grid.outputs / PLACE)
    reference.collect("smoke", root)
    assert (kept / "seed0" / "02_teacher.ipynb").exists() and not list(kept.glob("seed2/*.ipynb")), "what is kept is not kept twice"


def test_a_run_that_is_half_done_counts_as_far_as_it_is_there(grid, root):
    for stage, name in (("07_mitigation", "models.json"), ("08_loyalty_and_attacks", "attacks.parquet"),
                        ("08_loyalty_and_attacks", "plane.csv")):
        (grid.folder(stage, "micro_nli", 0) / name).unlink()
    reference.collect("smoke", root)
    found = evidence.gather(grid.model_copy(update={"tasks": ["micro_nli", "micro_facts"], "seeds": [0, 3]}), "reference")
    assert [(m.record["seed"], m.name) for m in found.models] == [*[(0, name) for name in MADE[:4]], (1, "dense")]
    final = found.final_table()
    assert final["model"].tolist() == MADE[:4] and final[["after_attack", "bytes", "latency_ms"]].isna().all(axis=None)
    assert len(found.dense_churn())


def test_a_profile_without_a_run_says_what_to_do(grid, tmp_path):
    with pytest.raises(StudyError, match="make study PROFILE=mini"):
        reference.collect("mini", tmp_path)
    with pytest.raises(StudyError, match="python -m lib.tools.reference smoke"):
        evidence.gather(grid, "reference")
    with pytest.raises(StudyError, match="params.yaml is not there"):
        reference.rebuild(["mini"], tmp_path)


def test_files_that_do_not_belong_together_are_named(root, kept):
    store.write_items(kept.folder / "items.parquet", kept.items[kept.items["guid"] != "test1"])
    with pytest.raises(StudyError, match="predictions.parquet: guid 'test1' is not among the rows"):
        runs.load("smoke", "micro_nli", 0, root)
    store.write_items(kept.folder / "predictions.parquet", kept.items)
    with pytest.raises(StudyError, match="schema is 'none'"):
        runs.load("smoke", "micro_nli", 0, root)


def test_predictions_of_other_rows_are_named(grid, items):
    stale = fake(grid.outputs / "store" / "stale", "imp-70", table_of(items.assign(label=1 - items["label"]), True))
    store.write_stage(grid.folder("04_pruning", "micro_nli", 0), [stale])
    with pytest.raises(StudyError, match="'imp-70' has no prediction of guid 'dev0' with the split and label"):
        evidence.gather(grid).rows_of("micro_nli", 0, "imp-70")


# --- the tables of notebook 09

LEDGER = pd.DataFrame({"id": ["A1", "A2"], "word": ["holds", "open"], "ours": [1.5, np.nan]})


@pytest.fixture
def both(tmp_path):
    """The tables as committed and as rebuilt, equal."""
    for folder in ("committed", "rebuilt"):
        store.write_csv(tmp_path / folder / "ledger.csv", LEDGER)
        store.write_csv(tmp_path / folder / "figures" / "plane.csv", LEDGER[["ours"]])
    return tmp_path / "committed", tmp_path / "rebuilt"


def test_equal_tables_do_not_differ(both):
    assert reference.difference(*both) == ""


@pytest.mark.parametrize("name, table, expected", [
    ("ledger.csv", LEDGER.assign(word=["holds", "holds"]),
     "ledger.csv, row 2, column word: committed 'open', rebuilt 'holds'"),
    ("ledger.csv", LEDGER.assign(ours=[1.50001, np.nan]), "ledger.csv, row 1, column ours: committed '1.5', rebuilt '1.50001'"),
    ("ledger.csv", LEDGER[:1], "ledger.csv: 2 rows are committed, 1 were rebuilt"),
    ("ledger.csv", LEDGER[["id", "ours"]], "ledger.csv: the committed columns are id, word, ours, the rebuilt id, ours"),
    ("figures/plane.csv", LEDGER, "figures/plane.csv: the committed columns are ours"),
    ("new.csv", LEDGER, "new.csv was not committed")])
def test_the_first_difference_is_named(both, name, table, expected):
    store.write_csv(both[1] / name, table)
    assert reference.difference(*both).startswith(expected)


def test_a_table_that_was_not_rebuilt_is_named(both):
    (both[1] / "ledger.csv").unlink()
    assert reference.difference(*both) == "ledger.csv was not rebuilt"
    (both[0] / "ledger.csv").unlink()
    assert reference.difference(both[0] / "figures" / "none", both[1] / "none").endswith("holds no table")


@pytest.mark.parametrize("changed", [False, True])
def test_the_check_says_so_and_tells_by_its_exit_status(root, kept, monkeypatch, capsys, changed):
    monkeypatch.setattr(reference, "ROOT", root)
    target = root / "outputs" / "reference" / "smoke"
    store.write_csv(target / "09_claims" / "ledger.csv", LEDGER)

    def rebuilds(profiles, root):
        table = LEDGER.assign(id=["A1", "A3"]) if changed else LEDGER
        store.write_csv(root / "outputs" / "rebuilt" / profiles[0] / "09_claims" / "ledger.csv", table)
    monkeypatch.setattr(reference, "rebuild", rebuilds)
    with pytest.raises(SystemExit) as stopped:
        reference.collect_or_check(["--check"])
    assert bool(stopped.value.code) == changed
    said = capsys.readouterr().out
    assert said == ("smoke: ledger.csv, row 2, column id: committed 'A2', rebuilt 'A3'\n" if changed else
                    "smoke: 1 tables of 09 rebuilt, identical to the committed ones\n")


def test_what_was_rebuilt_is_kept_and_then_identical(root, kept):
    rebuilt, target = root / "outputs" / "rebuilt" / "smoke", root / "outputs" / "reference" / "smoke"
    store.write_csv(target / "09_claims" / "gone.csv", LEDGER)
    store.write_csv(rebuilt / "09_claims" / "ledger.csv", LEDGER)
    nbformat.write(nbformat.v4.new_notebook(), rebuilt / "09_claims.ipynb")
    reference.keep("smoke", root)
    assert reference.difference(target / "09_claims", rebuilt / "09_claims") == ""
    assert (target / "09_claims.ipynb").exists() and (kept.folder / "predictions.parquet").exists()


def test_a_notebook_that_fails_is_told_with_its_last_line(root, kept, monkeypatch):
    (root / "outputs" / "rebuilt").mkdir()
    with pytest.raises(StudyError, match="notebook 09 failed on the reference of smoke: .*09_claims"):
        reference.rebuild(["smoke"], root)
