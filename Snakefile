# The study as a graph of notebooks. Each rule is the papermill line a person would type.
#   snakemake --cores 2 --config study_profile=mini overrides="mitigation.alpha=0.3"
# What reruns: a changed parameter, code cell or lib module reruns the notebooks that read it and what follows them;
# prose, comments and docstrings rerun nothing. Finished models lie in the store and are not trained again.
import hashlib
import os
import re
import shlex
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import yaml
from snakemake.exceptions import WorkflowError

workdir: workflow.basedir
sys.path.insert(0, workflow.basedir)

from lib import code, safe_yaml
from lib.errors import StudyError
from lib.files import lock
from lib.params.profile import changes, load_profile, split_overrides
from lib.params.schema import task_folder
from lib.params.sections import RUNS
from lib.params.stages import CHAIN

os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_TELEMETRY="1", JUPYTER_PREFER_ENV_PATH="1")
os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)   # papermill, where no venv is activated

OVERRIDES = config.get("overrides") or ""
if isinstance(OVERRIDES, dict):   # Snakemake reads the text key={a: 3} as YAML
    OVERRIDES = ": ".join(*OVERRIDES.items())
try:
    PROFILE = load_profile(str(config.get("study_profile", "mini")), split_overrides(str(OVERRIDES)))
except StudyError as error:
    sys.exit(str(error))

OUT = f"outputs/{PROFILE.name}"
RESOLVED = f"{OUT}/params.yaml"
GRID = PROFILE.grid
TASKS = {task_folder(task): task for task in GRID.tasks}
RUN = f"{OUT}/{{task}}/seed{{seed}}"


# ---------------------------------------------------------------- what makes a stage stale
def code_of(stage):
    """Hash of a notebook's code cells (not its parameters cell) and of every lib module they lead to."""
    return code.notebook_hash(Path(f"notebooks/{stage.notebook}.ipynb"))


def settings(stage):
    """A notebook's flat parameters for the job's task and seed, one "key=value" each, so that a change is named."""
    def of(key):
        def value(wildcards):
            return f"{key}={PROFILE.flat(stage.section, TASKS[wildcards.task], int(wildcards.seed))[key]!r}"
        return value
    return {f"set_{key}": of(key) for key in RUNS[stage.section].model_fields}


def texts(value):
    """Every text in a YAML file's values."""
    if isinstance(value, (dict, list)):
        return [text for one in (value.values() if isinstance(value, dict) else value) for text in texts(one)]
    return [value] if isinstance(value, str) else []


def contents(*paths):
    """Hash of files that a stage reads besides its inputs."""
    digest = hashlib.sha256()
    for path in sorted(map(Path, paths)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def task_file(wildcards):
    """Hash of a task file and of the files that it names."""
    task = Path(TASKS[wildcards.task])
    if not task.is_file():
        return ""
    try:
        named = [task.parent / text for text in texts(safe_yaml.read(task))]
    except StudyError as error:
        raise WorkflowError(str(error))
    return contents(task, *filter(os.path.isfile, named))   # Path.is_file raises on a text too long for a name


# ---------------------------------------------------------------- one run of a profile at a time
HELD = ExitStack()


def begin():
    """Take the profile's lock, wait for what an earlier run left at work, write the parameters for papermill."""
    try:
        HELD.enter_context(lock(Path(OUT)))
    except StudyError as error:
        raise WorkflowError(str(error))
    told = None
    while (left := left_at_work()) is not None:
        if left != told:
            print(f"a notebook of an earlier run is still at work here: waiting for process {left} to end",
                  file=sys.stderr)
        told = left
        time.sleep(1)
    text = yaml.safe_dump(PROFILE.as_dict(), sort_keys=False)
    text = "# Every parameter of this profile as it was last run; papermill reads this file.\n" + text
    path = Path(RESOLVED)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        if values := otherwise(path):
            print(f"{OUT} was last run with {values}; this run has other values there. Stages that read them run "
                  "again, finished models stay in the store. If you meant to go on with that run, stop here (Ctrl-C) "
                  "and give its values.", file=sys.stderr)
        path.with_suffix(".tmp").write_text(text, encoding="utf-8")
        path.with_suffix(".tmp").replace(path)


def otherwise(path):
    """What the last run was given otherwise than this one, as it is typed; "" where it left no readable record."""
    try:
        changed = changes(safe_yaml.read(path), PROFILE.as_dict()) if path.exists() else []
    except StudyError:
        return ""
    everywhere = " ".join(value for task, value in changed if not task)
    return ", ".join([f"SET={shlex.quote(everywhere)}"] * bool(everywhere)
                     + [f"{value} for {task}" for task, value in changed if task])


def left_at_work():
    """A papermill of this profile whose Snakemake is gone, or None."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = process.info["cmdline"] or []
        if RESOLVED in line and any("papermill" in word for word in line):
            with suppress(psutil.Error):
                if Path(process.cwd()) == Path(workflow.basedir):
                    return process.pid
    return None


onstart:
    begin()


# ---------------------------------------------------------------- the graph
wildcard_constraints:
    task="|".join(map(re.escape, TASKS)),
    seed=r"\d+",

# Of a notebook stands here what it prints (bars, what it reads and refuses), not its tables nor papermill's own words.
PROFILE_NOTEBOOK = (f"papermill {{input.notebook}} {{log}} -f {RESOLVED} "
                    "--log-level ERROR --no-progress-bar --stdout-file - --stderr-file -")
SEED_NOTEBOOK = PROFILE_NOTEBOOK + " -p task {params.task:q} -p seed {wildcards.seed}"
COMMON = PROFILE.sections["common"]
CLAIMS = CHAIN["claims"]


def done(section, task="{task}", seed="{seed}"):
    """The file by which others tell that a stage of a task and seed has run."""
    return f"{OUT}/{task_folder(task)}/seed{seed}/{CHAIN[section].notebook}/{CHAIN[section].done}"


def waits_for(stage):
    """What a stage of a task and seed reads of earlier ones."""
    def of(wildcards):
        dense = GRID.dense_of(TASKS[wildcards.task])
        return [done(section, wildcards.task, seed) for section in stage.reads
                for seed in stage.seeds_read(section, wildcards.seed, dense)]
    return of


def of_task(wildcards):
    return TASKS[wildcards.task]


rule all:
    input:
        f"{OUT}/{CLAIMS.notebook}/{CLAIMS.done}",
    default_target: True


for stage in (one for one in CHAIN.values() if one is not CLAIMS):
    rule:
        name: stage.section
        input:
            waits_for(stage),
            notebook=ancient(f"notebooks/{stage.notebook}.ipynb"),
        output:
            done(stage.section),
        log:
            f"{RUN}/{stage.notebook}.ipynb",
        params:
            task=of_task, code=code_of(stage), **({} if stage.reads else {"task_file": task_file}), **settings(stage),
        threads: COMMON["threads"]
        resources:
            training=1,
        shell:
            SEED_NOTEBOOK   # read when the job runs: no loop variable may stand here


rule claims:
    input:
        *(done(section, *place) for section in CLAIMS.reads for place in GRID.places(CHAIN[section])),
        notebook=ancient(f"notebooks/{CLAIMS.notebook}.ipynb"),
    output:
        f"{OUT}/{CLAIMS.notebook}/{CLAIMS.done}",
    log:
        f"{OUT}/{CLAIMS.notebook}.ipynb",
    params:
        code=code_of(CLAIMS),
        published=contents(*Path("params/published").glob("*"), *Path("params").glob("claims.yaml")),
        **{f"set_{key}": f"{key}={value!r}" for key, value in
           PROFILE.flat(CLAIMS.section, *GRID.places(CHAIN["teacher"])[0]).items()},
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        PROFILE_NOTEBOOK
