import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from lib.errors import StudyError
from lib.params import notebook
from lib.params.profile import IDENTITY, PARTS, load_profile
from lib.params.schema import Grid, Run, task_folder
from lib.params.sections import RUNS
from lib.params.stages import CHAIN, MODEL_STAGES, STAGES

ROOT = Path(__file__).resolve().parents[1]
SMOKE = load_profile("smoke")
PROFILES = ["smoke", "mini", "micro", "micro_wide", "real_small", "real_core", "real", "base", "base_core", "paper"]


def cell(section):
    """The text of a parameters cell with the smoke values."""
    return "\n".join(f"{key} = {value!r}  # why" for key, value in SMOKE.flat(section, "micro_nli", 0).items())


def session(section, injected="", own=None):
    """The namespace of a notebook's kernel after its parameters cell and, where there is one, papermill's cell."""
    cells = ["", cell(section) if own is None else own]
    cells += [f"# Parameters\n{injected}"] if injected else []
    namespace = {}
    for source in cells:
        exec(source, namespace)
    return {**namespace, "In": cells}


def injection(profile, **flat):
    """What `papermill -f params/NAME.yaml -p key value` injects."""
    values = yaml.safe_load((ROOT / "params" / f"{profile}.yaml").read_text()) | flat
    return "\n".join(f"{name} = {value!r}" for name, value in values.items())


# ---------------------------------------------------------------- profiles
@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_gives_every_notebook_its_parameters(name):
    profile = load_profile(name)
    assert profile.name == name
    for section in RUNS:
        for task in profile.grid.tasks:
            run = profile.run(section, task, 3)
            assert (run.profile, run.task, run.seed, run.stage) == (name, task, 3, STAGES[section])


def test_smoke_names_every_key_with_a_comment():
    text = (ROOT / "params" / "smoke.yaml").read_text()
    raw = yaml.safe_load(text)
    for section, model in RUNS.items():
        own = set(model.model_fields) - set(Run.model_fields) - set(Grid.model_fields)
        assert set(raw[section]) == own
    assert set(raw["common"]) == set(Run.model_fields)
    silent = [line for line in text.splitlines() if re.match(r"  \w+:", line) and "#" not in line]
    assert silent == []


def test_per_task_values_and_overrides():
    real = load_profile("real")
    assert real.flat("mitigation", "mnli", 0)["alpha"] == 0.5
    assert real.flat("mitigation", "fever", 0)["alpha"] == 0.3
    assert real.flat("data", "fever", 0)["n_train"] == 30000 and real.flat("data", "mnli", 0)["n_train"] == 0
    changed = load_profile("real", ["mitigation.alpha=0.7", "common.learning_rate=2e-5",
                                    "pruning.sparsity_levels=[0.4, 0.7]"])
    assert {changed.flat("mitigation", task, 0)["alpha"] for task in changed.grid.tasks} == {0.7}
    assert changed.flat("teacher", "qqp", 1)["learning_rate"] == 0.00002
    assert changed.flat("pruning", "qqp", 1)["sparsity_levels"] == [0.4, 0.7]
    assert load_profile("real").flat("mitigation", "mnli", 0)["alpha"] == 0.5


def test_a_section_may_set_a_common_key_for_its_own_notebook():
    profile = load_profile("mini", ["pruning.epochs=2"])
    assert profile.flat("pruning", "micro_nli", 0)["epochs"] == 2.0
    assert profile.flat("teacher", "micro_nli", 0)["epochs"] == 6.0


def test_loyalty_is_handed_the_seeds_of_the_grid():
    run = load_profile("mini").run("loyalty", "micro_nli", 0)
    assert (run.seeds, run.dense_seeds) == ([0], [0, 1]) and not hasattr(run, "tasks")


def test_claims_is_handed_the_grid():
    run = load_profile("mini").run("claims", "micro_nli", 0)
    assert (run.tasks, run.seeds, run.dense_seeds) == (["micro_nli"], [0], [0, 1])


@pytest.mark.parametrize("override, says", [
    ("mitigation.alhpa=0.3", "'mitigation.alhpa'; did you mean 'alpha'"),
    ("mitigaton.alpha=0.3", "'mitigaton'; did you mean 'mitigation'"),
    ("mitigation.n_train=5", "'n_train' belongs to section 'data'"),
    ("claims.seeds=[0]", "'seeds' belongs to section 'grid'"),
    ("mitigation.alpha", "section.key=value"),
    ("mitigation.alpha=[0.3", "not readable as YAML"),
    ("mitigation.alpha=1.5", "mitigation.alpha = 1.5"),
    ("common.epochs=many", "common.epochs = 'many'"),
    ("common.epochs=true", "common.epochs = True"),
    ("common.epochs=.inf", "common.epochs = inf"),
    ("data.n_train=10.5", "data.n_train = 10.5"),
    ("common.freeze_embeddings=1", "common.freeze_embeddings = 1"),
    ("common.dtype=fp16", "common.dtype = 'fp16': no choice is called 'fp16'; did you mean 'bf16'?"),
    ("common.device=quantum", "no choice is called 'quantum'; choose from auto, cpu, cuda, mps"),
    ("mitigation.losses=[rcm]", "did you mean 'rmc'"),
    ("mitigation.bases=[imp-70 + rmc]", "without a loss"),
    ("distillation.students=[truncated-3 + rmc]", "other losses are mitigation's"),
    ("distillation.students=[truncated-3 + ptq8]", "quantised ones in quantization.recipes"),
    ("quantization.recipes=[dense + ptq9]", "did you mean 'ptq8'"),
    ("quantization.recipes=[dense]", "made in 02_teacher"),
    ("quantization.recipes=[imp-70 + rmc + ptq8]", "other losses are mitigation's"),
    ("loyalty.attack_source=vectors", "set loyalty.vectors to its path"),
    ("loyalty.attack_source=wordnt", "did you mean 'wordnet'"),
    ("quantization.recipes=[untrained + ptq8]", "made in 02_teacher"),
    ("quantization.recipes=[theseus-2 + tinybert]", "theseus-2 + tinybert"),
    ("quantization.recipes=[truncated-3 + ptq8 + distil]", "must read STRUCTURE"),
    ("quantization.replace_share=1.0", "quantization.replace_share = 1.0"),
    ("quantization.replace_start=1.5", "quantization.replace_start = 1.5"),
    ("quantization.qat_epochs=0.0", "quantization.qat_epochs = 0.0"),
    ("common.pkd_weight=0.0", "common.pkd_weight = 0.0"),
    ("distillation.students=[theseus-3]", "replaced and quantised ones in quantization.recipes"),
    ("mitigation.bases=[theseus-3]", "must be imp-*"),
    ("loyalty.attack_changed=0.0", "loyalty.attack_changed = 0.0"),
    ("loyalty.n_attack=0", "loyalty.n_attack = 0"),
    ("loyalty.min_dev=90.0", "loyalty.min_dev = 90.0"),
    ("loyalty.cost_paths=[onnx_int4]", "did you mean 'onnx_int8'"),
    ("loyalty.cost_paths=[]", "loyalty.cost_paths = []"),
    ("loyalty.seeds=[1]", "'seeds' belongs to section 'grid'"),
    ("distillation.students=[truncated3]", "did you mean 'truncated'"),
    ("distillation.students=[truncated-3 + distill]", "did you mean 'distil'"),
    ("pruning.sparsity_levels=[70]", "pruning.sparsity_levels = [70]"),
    ("grid.tasks=[micro_nil]", "did you mean 'micro_nli'"),
    ("grid.tasks=[mine/a.yaml, yours/a.yaml]", "share a folder"),
])
def test_a_wrong_override_names_the_key_and_the_nearest(override, says):
    with pytest.raises(StudyError) as error:
        load_profile("mini", [override])
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change, says", [
    (lambda raw: raw["common"].update(lerning_rate=0.1),
     "unknown key 'common.lerning_rate'; did you mean 'learning_rate'"),
    (lambda raw: raw.update(prunning={}), "unknown section 'prunning'; did you mean 'pruning'"),
    (lambda raw: raw["data"].update(n_train="many"), "data.n_train = 'many'"),
    (lambda raw: raw["common"].update(profile="mini"), "should be 'mine'"),
    (lambda raw: raw["common"].pop("profile"), "common.profile is missing"),
    (lambda raw: raw.update(teacher=[0.5]), "section 'teacher' must be a mapping"),
    (lambda raw: raw.update(per_task={"fever": {"mitigation.alhpa": 0.3}}), "did you mean 'alpha'"),
    (lambda raw: raw.update(per_task={"fever": 0.3}), "per_task must be"),
    (lambda raw: raw.update(per_task={"fevr": {"mitigation.alpha": 0.3}}), "did you mean 'fever'"),
])
def test_a_wrong_profile_file_is_named(tmp_path, change, says):
    raw = yaml.safe_load((ROOT / "params" / "mini.yaml").read_text())
    raw["common"]["profile"] = "mine"
    change(raw)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(StudyError) as error:
        load_profile(path)
    assert says in str(error.value) and str(path) in str(error.value)


def test_a_key_that_stands_twice_and_a_missing_profile(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("common:\n  profile: mine\n  epochs: 1.0\n  epochs: 2.0\n")
    with pytest.raises(StudyError, match="'epochs' stands twice"):
        load_profile(path)
    with pytest.raises(StudyError, match="did you mean 'micro'"):
        load_profile("mircro")


# ---------------------------------------------------------------- the second cell of every notebook
@pytest.mark.parametrize("section", RUNS)
def test_without_papermill_the_cell_itself_counts(section):
    assert notebook.parameters(section, session(section)) == SMOKE.run(section, "micro_nli", 0)


@pytest.mark.parametrize("section", RUNS)
@pytest.mark.parametrize("name", PROFILES)
def test_an_injected_profile_gives_what_load_gives(section, name):
    profile = load_profile(name)
    task = profile.grid.tasks[-1]
    run = notebook.parameters(section, session(section, injection(name, task=task, seed=4)))
    assert run == profile.run(section, task, 4)


def test_flat_names_win_over_sections_and_text_is_read_as_yaml():
    injected = injection("mini", sparsity_levels="[0.5]", learning_rate="2e-5", epochs=2)
    run = notebook.parameters("pruning", session("pruning", injected))
    assert (run.sparsity_levels, run.learning_rate, run.epochs) == ([0.5], 2e-5, 2.0)
    assert (run.batch_size, run.profile) == (32, "mini")
    alone = notebook.parameters("pruning", session("pruning", "sparsity_levels = '[0.5]'"))
    assert (alone.sparsity_levels, alone.profile, alone.encoder_layers) == ([0.5], "smoke", 3)


@pytest.mark.parametrize("injected, says", [
    ("sparsity_levles = '[0.5]'", "unknown parameter 'sparsity_levles'; did you mean 'sparsity_levels'"),
    ("alpha = 0.3", "unknown parameter 'alpha'"),
    ("epochs = 'many'", "common.epochs = 'many'"),
    ("prunning = {'sparsity_levels': [0.5]}", "unknown parameter 'prunning'; did you mean 'pruning'"),
    (injection("mini", mitigation={"alhpa": 0.3}), "unknown key 'mitigation.alhpa'; did you mean 'alpha'"),
    (injection("mini", mitigation={"alpha": "x"}), "mitigation.alpha = 'x'"),
    (injection("mini", common={"epochs": 2.0}), "common.profile is missing"),
])
def test_injected_mistakes_stop_the_notebook(injected, says):
    with pytest.raises(StudyError) as error:
        notebook.parameters("pruning", session("pruning", injected))
    assert says in str(error.value) and "04_pruning.ipynb" in str(error.value)


def test_a_misspelt_name_in_the_notebooks_own_cell_stops_it_and_what_the_cell_leaves_out_is_as_in_smoke():
    with pytest.raises(StudyError, match="'dropuot'; did you mean 'dropout'"):
        notebook.parameters("data", session("data", own=cell("data") + "\ndropuot = 0.1"))
    short = "profile = 'smoke'\ntask = 'micro_nli'\nseed = 0\nn_train = 64"
    expected = SMOKE.run("data", "micro_nli", 0).model_copy(update={"n_train": 64})
    assert notebook.parameters("data", session("data", own=short)) == expected
    assert notebook.parameters("data", session("data", "dropout = 0.1", short)).dropout == 0.1
    assert notebook.parameters("data", session("data", injection("mini"), short)) == load_profile("mini").run("data", "micro_nli", 0)


def test_an_edited_cell_that_runs_again_beats_an_earlier_injection():
    namespace = session("data", "n_train = 64")
    namespace["In"].append(cell("data"))
    namespace["n_train"] = 128
    assert notebook.parameters("data", namespace).n_train == 128


def test_folders():
    run = load_profile("mini").run("pruning", "micro_nli", 2)
    assert run.root == ROOT and run.outputs == ROOT / "outputs" / "mini"
    assert run.folder("04_pruning") == run.outputs / "micro_nli" / "seed2" / "04_pruning"
    assert run.folder("02_teacher", "fever", 0) == run.outputs / "fever" / "seed0" / "02_teacher"
    assert run.folder("09_claims") == run.outputs / "09_claims"
    assert task_folder("tasks/my_task.yaml") == "my_task"
    with pytest.raises(StudyError, match="02_teacher"):
        run.folder("02_teachers")
    with pytest.raises(Exception, match="frozen"):
        run.epochs = 3.0


def test_a_stage_reads_earlier_ones_and_its_notebook_no_others():
    assert list(CHAIN) == list(RUNS)
    for place, (section, stage) in enumerate(CHAIN.items()):
        assert set(stage.reads) <= set(list(CHAIN)[:place])
        cells = json.loads((ROOT / "notebooks" / f"{stage.notebook}.ipynb").read_text())["cells"]
        source = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        named = {other for other, notebook in STAGES.items() if f'"{notebook}"' in source}
        named |= {other for other, notebook in STAGES.items() if "MODEL_STAGES" in source and notebook in MODEL_STAGES}
        assert named <= {section, *stage.reads}, section


def test_the_grid_places_each_stage():
    grid = load_profile("micro", ["grid.tasks=[micro_facts, micro_nli]", "grid.seeds=[0, 1]", "grid.dense_seeds=[3, 0]",
                                  "grid.dose_tasks=[micro_nli]", "grid.dose_seeds=[1]", "grid.mend_seeds=[0]"]).grid
    both = [(task, seed) for task in ("micro_facts", "micro_nli") for seed in (0, 1)]
    assert grid.places(CHAIN["teacher"]) == [("micro_facts", 0), ("micro_facts", 1), ("micro_facts", 3), *(
        ("micro_nli", seed) for seed in (0, 1, 3))]
    assert grid.places(CHAIN["pruning"]) == both and grid.places(CHAIN["doses"]) == [("micro_nli", 1)]
    assert grid.places(CHAIN["mends"]) == [("micro_nli", 0)]
    assert grid.places(CHAIN["claims"]) == []


def test_each_task_may_have_seeds_of_its_own():
    profile = load_profile("mini", ["grid.tasks=[micro_nli, micro_facts]", "grid.dense_seeds=[7]",
                                    "grid.seeds={micro_nli: [0, 1], micro_facts: [3], micro_paraphrase: [9]}"])
    assert profile.grid.places(CHAIN["pruning"]) == [("micro_nli", 0), ("micro_nli", 1), ("micro_facts", 3)]
    assert [profile.grid.dense_of(task) for task in profile.grid.tasks] == [[0, 1, 7], [3, 7]]
    handed = profile.run("loyalty", "micro_facts", 3)
    assert (handed.seeds, handed.dense_seeds) == ([3], [7]), "a notebook of one task is handed its own seeds"
    assert profile.run("claims", "micro_nli", 0).seeds_of("micro_facts") == [3], "09 is handed those of all tasks"
    injected = profile.as_dict() | {"task": "micro_facts", "seed": 3}
    cells = ["# Parameters\n" + "\n".join(f"{name} = 0" for name in injected)]
    assert notebook.parameters("teacher", {"In": cells, **injected}).seeds == [3], "as papermill hands it over"


@pytest.mark.parametrize("seeds, says", [
    ("{micro_nli: [0]}", "names no seeds of micro_facts"), ("{micro_nli: [0], micro_fact: [0]}", "did you mean 'micro_facts'"),
    ("{micro_nli: [0, 0], micro_facts: [1]}", "stands there twice"), ("{micro_nli: 0, micro_facts: [1]}", "valid list"),
    ("{micro_nli: [], micro_facts: [1]}", "no seed of micro_nli"),
])
def test_wrong_seeds_of_a_task(seeds, says):
    with pytest.raises(StudyError, match=says):
        load_profile("mini", ["grid.tasks=[micro_nli, micro_facts]", "grid.dense_seeds=[]", f"grid.seeds={seeds}"])


# ---------------------------------------------------------------- for real
def test_papermill_runs_a_right_notebook_and_stops_a_misspelt_one(tmp_path):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    written = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    written.cells = [nbformat.v4.new_code_cell(cell("pruning"), metadata={"tags": ["parameters"]}),
                     nbformat.v4.new_code_cell(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
                                               "from lib.params import notebook\n"
                                               "run = notebook.parameters('pruning', globals())\n"
                                               "print(run.sparsity_levels, run.root)")]
    path = tmp_path / "04_pruning.ipynb"
    nbformat.write(written, path)
    done = papermill.execute_notebook(path, tmp_path / "out.ipynb", {"sparsity_levels": "[0.5]"}, progress_bar=False)
    assert done["cells"][-1]["outputs"][0]["text"] == f"[0.5] {ROOT}\n"
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'sparsity_levels'"):
        papermill.execute_notebook(path, tmp_path / "out.ipynb", {"sparsity_levles": "[0.5]"}, progress_bar=False)


def test_the_command_line_prints_a_notebooks_parameters():
    command = [sys.executable, "-m", "lib.params.profile", "mini", "mitigation", "--seed", "7", "--set",
               "mitigation.alpha=0.4"]
    right = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    profile = load_profile("mini", ["mitigation.alpha=0.4"])
    assert yaml.safe_load(right.stdout) == profile.flat("mitigation", "micro_nli", 7)
    wrong = subprocess.run(command[:-1] + ["mitigation.alhpa=0.4"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "did you mean 'alpha'" in wrong.stderr


NOTEBOOKS = [(section, ROOT / "notebooks" / f"{stage}.ipynb") for section, stage in STAGES.items()
             if (ROOT / "notebooks" / f"{stage}.ipynb").exists()]


@pytest.mark.parametrize("section, path", NOTEBOOKS)
def test_nothing_imported_before_the_parameters_hides_an_injected_section(section, path):
    """papermill hands a whole profile over as variables called like its sections: `doses`, `mitigation`, ..."""
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    before = "\n".join(sources[:next(n for n, s in enumerate(sources) if "notebook.parameters(" in s) + 1])
    tree = ast.parse(before[:before.index("notebook.parameters(")].rpartition("\n")[0])
    names = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))
             for alias in node.names}
    assert not names & set(PARTS)


@pytest.mark.parametrize("section, path", NOTEBOOKS, ids=[path.stem for _, path in NOTEBOOKS])
def test_a_notebooks_parameters_cell_is_smoke(section, path):
    cells = [c for c in json.loads(path.read_text())["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(cells) == 1, "one cell tagged parameters, and none that papermill injected"
    source = "".join(cells[0]["source"])
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    assert values.items() <= SMOKE.flat(section, "micro_nli", 0).items() and list(values)[:3] == list(IDENTITY)
    assert len(values) <= 15, "a reader meets the first result soon: leave the others to the profile"
    for line in source.splitlines():
        assert re.fullmatch(r"\w+ = [^=#]+  # \S.*|#.*|", line), f"papermill cannot show: {line}"
