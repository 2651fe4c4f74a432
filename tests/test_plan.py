"""The plan against what notebooks made: the smoke run in the committed notebooks, the runs of the reference."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny

from lib import code, store
from lib.errors import StudyError
from lib.models import encoders, make, pretrained
from lib.params.profile import load_profile
from lib.params.stages import CHAIN, MODELS, STAGES
from lib.tasks import registry
from lib.tools import plan, requests, speeds

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "outputs" / "reference"


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch):
    monkeypatch.delenv("STUDY_DATA", raising=False)


@pytest.fixture(scope="module")
def smoke():
    return requests.wanted(load_profile("smoke"))


def shown(stage, column):
    """Name -> that column, of the longest table in a committed, executed notebook that has it."""
    found = []
    for cell in json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text())["cells"]:
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            head = re.findall(r"<th>(.*?)</th>", html.partition("</thead>")[0])
            if column in head:
                lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)
                         for line in html.partition("</thead>")[2].split("</tr>")]
                found.append({line[0]: line[head.index(column)] for line in lines if len(line) == len(head)})
    assert found, f"{stage} shows no {column}"
    return max(found, key=len)


@pytest.mark.parametrize("section, besides", [
    ("distillation", {"dense"}), ("pruning", {"dense", "dense-after", "imp-70-after", "truncated-2-2x"}),
    ("quantization", {"dense", "imp-70", "truncated-2", "truncated-2 + distil"}), ("mitigation", {"truncated-2", "truncated-2 + distil"})])
def test_the_smoke_run_made_these_models_with_these_steps(smoke, section, besides):
    made = {name: int(steps) for name, steps in shown(STAGES[section], "steps").items()}
    part = smoke[smoke["section"] == section]
    planned = dict(zip(part["model"], part["steps"]))
    assert {n: s for n, s in planned.items() if n not in besides} == {n: s for n, s in made.items() if n not in besides}
    assert list(planned)[:3] == [name for name in made if name in planned][:3]


def test_controls_doses_and_mends_of_the_smoke_run(smoke):
    part = smoke[smoke["section"] == "pruning"].set_index("model")["steps"]
    assert dict(part[-3:]) == {"dense-after": 16, "imp-70-after": 16, "truncated-2-2x": 32}
    text = (ROOT / "notebooks" / "06b_dose_and_response.ipynb").read_text()
    doses = smoke[smoke["section"] == "doses"]
    told = re.findall(r"shortcut_rate +(0\.\d{3}) +256", text)
    assert {round(rate, 3) for _, rate in doses["dose"]} == set(map(float, told)) and len(doses) == 8
    assert list(doses["model"])[:4] == ["dense", "truncated-2", "imp-70", "truncated-2 + rmc_one_run"]
    rows = shown("07b_what_mends_it", "kind")
    mends = smoke[smoke["section"] == "mends"]
    assert list(mends["n_train"] - 256) == [1, 5] and len(mends) == sum(kind == "rows" for kind in rows.values())


def mirror(folder, names, monkeypatch):
    """STUDY_DATA with the files of these tasks, empty."""
    for table in (table for name in names for table in registry.get(name).tables.values()):
        (folder / table.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / table.path).touch()
    monkeypatch.setenv("STUDY_DATA", str(folder))


def recorded(profile):
    """(task, seed, section, record, cost) of every model of the committed reference, of the first section listing it."""
    seen = set()
    for path in sorted((REFERENCE / profile).glob(f"*/seed*/*/{MODELS}")):
        costs = json.loads((path.parents[1] / "costs.json").read_text())
        section = next(section for section, stage in STAGES.items() if stage == path.parent.name)
        for record in json.loads(path.read_text()):
            if (place := (path.parents[1], record["model"])) in seen:
                continue
            seen.add(place)
            yield record["task"], record["seed"], section, record, costs[record["model"]]


def panel_beyond(again, profile, task, seed):
    """Rows of the panel that a run collected before there was one does not hold."""
    held = pd.read_parquet(REFERENCE / profile / task / f"seed{seed}" / "items.parquet", columns=["split"])["split"].unique()
    sizes = requests.sizes(again.run("data", task, seed))
    return sum(sizes[split][0] for split in registry.get(task).panel if split not in held)


@pytest.mark.parametrize("profile", ["mini", "real"])
def test_the_reference_holds_exactly_the_models_planned_by_its_parameters(profile, tmp_path, monkeypatch):
    again = load_profile(shutil.copy(REFERENCE / profile / "params.yaml", tmp_path / f"{profile}.yaml"))
    mirror(tmp_path, again.grid.tasks, monkeypatch)
    every = requests.wanted(again)
    every = every[every["model"] != "untrained"]
    planned = {(r.task, r.seed, r.section, r.model): r for r in every.itertuples()}
    made = {(task, seed, section, record["model"]): (record, cost)
            for task, seed, section, record, cost in recorded(profile)}
    assert planned.keys() == made.keys()
    later = {place: panel_beyond(again, profile, *place) for place in {key[:2] for key in made}}
    for key, (record, cost) in made.items():
        row = planned[key]
        recorded_rows = record["steps"], record["n_train"], cost["predicted_rows"] + later[key[:2]]
        assert (row.steps, row.n_train, row.predicted) == recorded_rows, key
        assert row.bytes == pytest.approx(record["bytes"], rel=0.03), key
        stops = len({round(f * row.steps) for f in record["checkpoints"]} | set(record["checkpoint_sparsity"]))
        assert (row.along > 0) == (stops > 0) and row.along % max(1, stops) == 0
        if row.steps and not key[3].startswith("theseus"):
            sizes = requests.sizes(again.run("data", key[0], key[1]))
            longer = sizes["train"][1] / sizes["test"][1]  # the record counts a row of test
            assert row.train == pytest.approx(3 * row.rows * longer * record["flops_per_example"], rel=0.06), key


def test_what_the_reference_of_micro_has_is_planned():
    every = requests.wanted(load_profile("micro_wide"))
    planned = {(r.task, r.seed, r.model): r.steps for r in every[every["dose"] == ()].itertuples()}
    found = list(recorded("micro_wide"))
    assert found
    for task, seed, _, record, _ in found:
        if (task, seed, record["model"]) in planned:
            assert planned[task, seed, record["model"]] == record["steps"]
    known = {record["model"] for *_, record, _ in found}
    assert known - {model for _, _, model in planned} == set()


def test_weights_that_are_not_kept_are_told_apart():
    kept, lean = (plan.tell(load_profile("micro", [f"common.keep_weights={value}", "grid.seeds=[0]", "grid.dense_seeds=[0]"]),
                            speeds.machine("cpu-1-thread"), 2) for value in ("true", "false"))
    assert "until their seed is done" in lean and "until their seed is done" not in kept
    new = [float(re.search(r"New on disk: ([\d.]+) GB", text)[1]) for text in (kept, lean)]
    assert new[1] < 0.2 < 2 < new[0]


def test_the_own_dose_stands_on_both_axes_and_is_trained_once():
    every = requests.wanted(load_profile("micro_wide"))
    doses = every[(every["section"] == "doses") & (every["seed"] == 0)]
    assert doses["dose"].nunique() == (5 + 1) + (3 + 1) - 1 and len(doses) == 9 * 5
    assert set(doses["steps"]) == {384}, "every dose takes the profile's own steps"


def test_a_model_that_two_notebooks_ask_for_is_made_once(smoke):
    of = smoke[smoke["model"] == "truncated-2 + distil"]
    assert list(of["section"]) == ["distillation"]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_shapes_count_as_the_models_do(family, tmp_path):
    model = tiny.classifier(family, layers=3, labels=3)
    model.save_pretrained(tmp_path)
    shape = speeds.shape(str(tmp_path))
    assert shape.flops(17, 3) == encoders.flops(model, 17)
    assert shape.parameters(3) == encoders.sizes(model)["parameters"]


def test_structures_have_the_layers_that_they_keep():
    dense = speeds.shape("bert-base-uncased")
    named = ("imp-70 + rmc", "truncated-3-alternate", "theseus-6-constant", "ffn-50", "distilbert-base-uncased")
    widths = {name: (s.layers, s.ffn) for name in named for s in [speeds.shape_of(name, dense)]}
    assert widths == {"imp-70 + rmc": (12, 3072), "truncated-3-alternate": (3, 3072), "theseus-6-constant": (6, 3072),
                      "ffn-50": (12, 1536), "distilbert-base-uncased": (6, 3072)}
    with pytest.raises(StudyError, match="theseus-12.*12 layers"):
        speeds.shape_of("theseus-12", dense)


def test_notebooks_wait_for_what_the_table_of_stages_says_they_read():
    chain = {}
    for section, stage in CHAIN.items():
        chain[section] = 1 + max((chain[before] for before in stage.reads), default=0)
    at = [("t", 0, section, 1.0) for section in CHAIN if section != "claims"] + [("", -1, "claims", 1.0)]
    runs = pd.DataFrame(at, columns=["task", "seed", "section", "seconds"])
    assert plan.wall(runs, len(runs)) == chain["claims"] == 7


def test_jobs_run_side_by_side_where_nothing_has_to_be_awaited():
    runs = pd.DataFrame([("t", 0, "data", 1.0), ("t", 0, "teacher", 10.0), ("t", 0, "distillation", 5.0),
                         ("t", 0, "pruning", 7.0), ("t", 1, "data", 1.0), ("t", 1, "teacher", 10.0),
                         ("", -1, "claims", 2.0)],
                        columns=["task", "seed", "section", "seconds"])
    assert plan.wall(runs, 1) == runs["seconds"].sum()
    assert plan.wall(runs, 2) == plan.wall(runs, 9) == 1 + 10 + 7 + 2
    slow = pd.concat([runs.assign(seconds=runs["seconds"].where(runs["seed"] != 1, 30.0)),
                      runs[:1].assign(section="shortcut_samples", seconds=3.0)], ignore_index=True)
    assert plan.wall(slow, 9) == 30 + 30 + 3 + 2, "06 waits for the dense model of every seed"


def test_the_estimate_of_mini_is_within_30_percent_of_what_its_models_took():
    profile = load_profile("mini")
    every, on = requests.wanted(profile), speeds.machine(threads=2)
    every = every[every["model"] != "untrained"]
    at_end = every["predict"] * every["predicted"] / (every["predicted"] + every["along"])
    planned = every["train"] / on.train + at_end / on.predict + every["quantized"] / on.quantized
    took = [cost.get("seconds", 0) + cost["predict_seconds"] for *_, cost in recorded("mini")]
    assert planned.sum() / 1e9 == pytest.approx(sum(took), rel=0.3)


def test_rows_are_counted_upstream_or_in_the_mirror(tmp_path, monkeypatch):
    run = load_profile("paper").run("data", "mnli", 0)
    whole = {split: n for split, (n, _) in requests.sizes(run).items()}
    assert whole == {"train": 390702, "dev": 2000, "test": 9815, "hans": 30000, "cad_nli": 2400, "cad_nli_original": 600, "monli": 2678,
                     "anli_r1": 1000, "anli_r2": 1000, "anli_r3": 1198}
    small = requests.sizes(run.model_copy(update={"n_train": 500, "n_eval": 300, "n_ood": 20}))
    assert (small["hans"][0], small["monli"][0]) == (600, 2678)
    mirror(tmp_path, ["mnli"], monkeypatch)
    assert requests.sizes(run)["train"][0] == 30880 and requests.origin("mnli") == " (a local file)"


def test_a_task_of_the_readers_own_is_counted_in_its_files(tmp_path):
    for split, n in (("train", 40), ("test", 10), ("other", 8)):
        lines = [f"one {split} {i},two words,{'yes' if i % 2 else 'no'}" for i in range(n)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")
    (tmp_path / "own.yaml").write_text(OWN)
    run = load_profile("smoke").run("data", "micro_nli", 0).model_copy(update={"task": str(tmp_path / "own.yaml")})
    found = requests.sizes(run)
    assert {split: n for split, (n, _) in found.items()} == {"train": 36, "dev": 4, "test": 10, "other": 8}
    assert 5 < found["train"][1] < 15


def test_the_papers_grid_needs_no_hub(monkeypatch):
    monkeypatch.setattr(pretrained, "config_of", lambda *_: pytest.fail("asked for a config"))
    profile = load_profile("paper")
    eight = plan.tell(profile, speeds.machine(on_accelerator=True), jobs=8, devices=8)
    assert "on 8 devices" in eight and "an assumption" in eight and "390,702 train" in eight
    every = requests.wanted(profile)
    sizes = every.groupby("seed")["model"].agg(len)
    assert set(sizes[:5]) == {3 * 50} and set(sizes[5:]) == {3 * 2}, "five full seeds, five of a dense model alone"


def test_an_encoder_of_unknown_shape_says_what_to_give(monkeypatch):
    def absent(*_):
        raise StudyError("no hub here")
    monkeypatch.setattr(pretrained, "config_of", absent)
    with pytest.raises(StudyError, match="some/encoder.*params/speeds.yaml"):
        requests.wanted(load_profile("paper", ["common.encoder=some/encoder"]))


def test_what_the_notebooks_would_refuse_is_told_first(tmp_path):
    tiny.classifier("albert", layers=3).save_pretrained(tmp_path)
    with pytest.raises(StudyError, match="ALBERT shares its layers, so there is no truncated-2 of it"):
        requests.wanted(load_profile("smoke", [f"common.encoder={tmp_path}", "common.encoder_layers=0"]))
    with pytest.raises(StudyError, match="heads-30.*pruning.head_fractions"):
        requests.wanted(load_profile("smoke", ["quantization.recipes=[heads-30 + ptq8]"]))
    with pytest.raises(StudyError, match="imp-55"):
        requests.wanted(load_profile("smoke", ["mitigation.bases=[imp-55]"]))


def test_finished_models_are_those_of_these_settings_and_this_code(tiny_run, micro, monkeypatch):
    settings = [f"common.{key}={getattr(tiny_run, key)}" for key in (
        "encoder", "encoder_layers", "epochs", "batch_size", "learning_rate", "dropout", "max_length", "dtype", "device",
        "threads")]
    settings += ["data.n_train=64", "data.n_eval=20", "data.n_ood=4",
                 "distillation.students=[truncated-1, truncated-1 + distil]", "grid.dose_tasks=[]", "grid.mend_tasks=[]", "pruning.controls=[]", "quantization.recipes=[dense + ptq8]", "mitigation.bases=[imp-70]"]
    profile = load_profile("smoke", settings)
    run = profile.run("teacher", "micro_nli", 0)
    extras = make.Extras(checkpoints=(0.5,), checkpoint_splits=("test",), predict_train=True)
    dense = make.model(run, micro, "dense", extras)
    made = make.model(run, micro, "truncated-1 + distil", make.Extras(teacher=dense, kd_weight=0.9))
    monkeypatch.setattr(requests, "ROOT", tiny_run.outputs.parents[1])

    def done(*more):
        changed = load_profile("smoke", [*settings, *more])
        every = requests.wanted(changed)
        return set(every.loc[requests.finished(changed, every), "model"])
    assert done() == {"dense", "truncated-1 + distil"}
    store.let_go([made])
    assert done() == {"dense"} and done("common.keep_weights=false") == {"dense", "truncated-1 + distil"}
    assert done("common.learning_rate=0.02") == set() and done("data.n_train=72") == set()
    monkeypatch.setattr(code, "source_hash", lambda *_: "another")
    assert done() == set()


def test_a_finished_model_counts_for_one_dose(tiny_run, micro, monkeypatch):
    settings = [f"common.{key}={getattr(tiny_run, key)}" for key in (
        "encoder", "encoder_layers", "epochs", "batch_size", "learning_rate", "dropout", "max_length", "dtype", "device",
        "threads")]
    settings += ["data.n_train=64", "grid.dose_tasks=[micro_nli]", "grid.dose_seeds=[0]", "doses.shortcut_rates=[0.7, 0.8]",
                 "doses.models=[truncated-1]", "distillation.students=[truncated-1]", "pruning.controls=[]",
                 "quantization.recipes=[dense + ptq8]", "mitigation.bases=[imp-70]", "mends.bases=[imp-70]"]
    profile = load_profile("smoke", settings)
    run = profile.run("doses", "micro_nli", 0).model_copy(update={"profile": "smoke"})
    make.model(run, micro.iloc[:-1], "dense", make.Extras(predict_train=True))
    monkeypatch.setattr(requests, "ROOT", tiny_run.outputs.parents[1])
    every = requests.wanted(profile)
    done = every[requests.finished(profile, every) & (every["section"] == "doses")]
    assert done["model"].tolist() == ["dense"], "one of three doses that take as many rows"


def test_this_machine_is_measured_with_the_runs_settings(tiny_run):
    found = speeds.calibrate(tiny_run, tokens=8, seconds=0.05)
    assert (found.kind, found.dtype, found.threads) == ("cpu", "fp32", 1)
    assert min(found.train, found.predict, found.quantized) > 0 and "batches of 8" in found.origin


def test_machines_are_chosen_by_threads_or_name():
    assert speeds.machine(threads=1).threads == 1 and speeds.machine(threads=2).threads == 2
    assert speeds.machine(threads=64).threads == 2 and speeds.machine(on_accelerator=True).kind == "accelerator"
    with pytest.raises(StudyError, match="did you mean 'h200'"):
        speeds.machine("h20")
    half = speeds.machine("h200").slowed(2)
    assert half.train == speeds.machine("h200").train / 2 and speeds.machine("h200").at(100).train == pytest.approx(100)


@pytest.mark.parametrize("arguments, told", [
    (["mini", "--jobs", "0"], "--jobs is 0"), (["mimi"], "did you mean 'mini'"),
    (["mini", "--machine", "abacus"], "no machine 'abacus'"),
    (["mini", "--set", "common.epoch=2"], "did you mean 'epochs'"),
    (["paper", "--set", "quantization.recipes=[theseus-12]"], "theseus-12.*1 to 11")])
def test_a_mistake_is_one_line(capsys, arguments, told):
    with pytest.raises(SystemExit) as stop:
        plan.print_plan(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and re.search(told, error)


def test_the_command_line_prints_the_plan():
    line = [sys.executable, "-m", "lib.tools.plan", "mini", "--set", "grid.dense_seeds=[0, 1, 2]", "--jobs", "2",
            "--rows-per-second", "235"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "micro_nli, seed 2" in done.stdout and "04_pruning" in done.stdout and "as given" in done.stdout
    assert "want more than 2 cores" in done.stdout


OWN = """name: own
labels: ["yes", "no"]
columns: {text_a: a, text_b: b, label: label}
files: {train: train.csv, test: test.csv}
ood: {other: {file: other.csv}}
shortcut: overlap
licence: none
"""
