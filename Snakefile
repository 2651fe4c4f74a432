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
from contextlib import ExitStack
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
    return code.notebook_hash(Path(f"notebooks/{stage}.ipynb"))


def contents(*paths):
    """Hash of files that a stage reads besides its inputs."""
    digest = hashlib.sha256()
    for path in sorted(map(Path, paths)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def settings(section):
    """This notebook's flat parameters for the job's task and seed, one "key=value" each, so that a change is named."""
    def of(key):
        def value(wildcards):
            return f"{key}={PROFILE.flat(section, TASKS[wildcards.task], int(wildcards.seed))[key]!r}"
        return value
    return {f"set_{key}": of(key) for key in RUNS[section].model_fields}


def texts(value):
    """Every text in a YAML file's values."""
    if isinstance(value, (dict, list)):
        return [text for one in (value.values() if isinstance(value, dict) else value) for text in texts(one)]
    return [value] if isinstance(value, str) else []


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
    """Take the profile's lock, wait for what an earlier run left at work, write the parameters that papermill is handed."""
    try:
        HELD.enter_context(lock(Path(OUT)))
    except StudyError as error:
        raise WorkflowError(str(error))
    while (left := left_at_work()) is not None:
        print(f"a notebook of an earlier run is still at work here: waiting for process {left} to end", file=sys.stderr)
        time.sleep(5)
    text = yaml.safe_dump(PROFILE.as_dict(), sort_keys=False)
    text = "# Every parameter of this profile as it was last run; papermill reads this file.\n" + text
    path = Path(RESOLVED)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        if told := otherwise(path):
            print(f"{OUT} was last run with {told}; this run has other values there. Stages that read them run again, "
                  "finished models stay in the store. If you meant to go on with that run, stop here (Ctrl-C) and give its values.",
                  file=sys.stderr)
        path.with_suffix(".tmp").write_text(text, encoding="utf-8")
        path.with_suffix(".tmp").replace(path)


def otherwise(path):
    """What the last run was given otherwise than this one, as it is typed; "" where it left no readable record."""
    try:
        found = changes(safe_yaml.read(path), PROFILE.as_dict()) if path.exists() else []
    except StudyError:
        return ""
    everywhere = " ".join(value for task, value in found if not task)
    return ", ".join([f"SET={shlex.quote(everywhere)}"] * bool(everywhere) + [f"{value} for {task}" for task, value in found if task])


def left_at_work():
    """A papermill of this profile whose Snakemake is gone, or None."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = process.info["cmdline"] or []
        try:
            if RESOLVED in line and any("papermill" in word for word in line) and Path(process.cwd()) == Path(workflow.basedir):
                return process.pid
        except psutil.Error:
            continue
    return None


onstart:
    begin()


# ---------------------------------------------------------------- the graph
wildcard_constraints:
    task="|".join(map(re.escape, TASKS)),
    seed=r"\d+",

# What a notebook prints (bars, what it reads and refuses), not its tables and not papermill's word on each parameter and cell.
PROFILE_NOTEBOOK = (f"papermill {{input.notebook}} {{log}} -f {RESOLVED} "
                    "--log-level ERROR --no-progress-bar --stdout-file - --stderr-file -")
SEED_NOTEBOOK = PROFILE_NOTEBOOK + " -p task {params.task:q} -p seed {wildcards.seed}"
COMMON = PROFILE.sections["common"]


def of_task(wildcards):
    return TASKS[wildcards.task]


rule all:
    input:
        f"{OUT}/09_claims/ledger.csv",
    default_target: True


rule data:
    input:
        notebook=ancient("notebooks/01_data.ipynb"),
    output:
        f"{RUN}/01_data/data.parquet",
    log:
        f"{RUN}/01_data.ipynb",
    params:
        task=of_task, code=code_of("01_data"), task_file=task_file, **settings("data"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule teacher:
    input:
        f"{RUN}/01_data/data.parquet",
        notebook=ancient("notebooks/02_teacher.ipynb"),
    output:
        f"{RUN}/02_teacher/models.json",
    log:
        f"{RUN}/02_teacher.ipynb",
    params:
        task=of_task, code=code_of("02_teacher"), **settings("teacher"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule distillation:
    input:
        f"{RUN}/01_data/data.parquet",
        f"{RUN}/02_teacher/models.json",
        notebook=ancient("notebooks/03_distillation.ipynb"),
    output:
        f"{RUN}/03_distillation/models.json",
    log:
        f"{RUN}/03_distillation.ipynb",
    params:
        task=of_task, code=code_of("03_distillation"), **settings("distillation"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule pruning:
    input:
        f"{RUN}/01_data/data.parquet",
        f"{RUN}/02_teacher/models.json",
        notebook=ancient("notebooks/04_pruning.ipynb"),
    output:
        f"{RUN}/04_pruning/models.json",
    log:
        f"{RUN}/04_pruning.ipynb",
    params:
        task=of_task, code=code_of("04_pruning"), **settings("pruning"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule quantization:
    input:
        f"{RUN}/01_data/data.parquet",
        f"{RUN}/02_teacher/models.json",
        f"{RUN}/03_distillation/models.json",
        f"{RUN}/04_pruning/models.json",
        notebook=ancient("notebooks/05_quantization_and_replacing.ipynb"),
    output:
        f"{RUN}/05_quantization_and_replacing/models.json",
    log:
        f"{RUN}/05_quantization_and_replacing.ipynb",
    params:
        task=of_task, code=code_of("05_quantization_and_replacing"), **settings("quantization"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule shortcut_samples:
    input:
        f"{RUN}/01_data/data.parquet",
        expand(f"{OUT}/{{{{task}}}}/seed{{seed}}/02_teacher/models.json", seed=sorted({*GRID.seeds, *GRID.dense_seeds})),
        f"{RUN}/04_pruning/models.json",
        notebook=ancient("notebooks/06_shortcut_samples.ipynb"),
    output:
        f"{RUN}/06_shortcut_samples/difficulty.parquet",
    log:
        f"{RUN}/06_shortcut_samples.ipynb",
    params:
        task=of_task, code=code_of("06_shortcut_samples"), **settings("shortcut_samples"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule doses:
    input:
        f"{RUN}/01_data/data.parquet",
        notebook=ancient("notebooks/06b_dose_and_response.ipynb"),
    output:
        f"{RUN}/06b_dose_and_response/responses.csv",
    log:
        f"{RUN}/06b_dose_and_response.ipynb",
    params:
        task=of_task, code=code_of("06b_dose_and_response"), **settings("doses"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule mitigation:
    input:
        f"{RUN}/01_data/data.parquet",
        f"{RUN}/02_teacher/models.json",
        f"{RUN}/03_distillation/models.json",
        f"{RUN}/04_pruning/models.json",
        f"{RUN}/06_shortcut_samples/difficulty.parquet",
        notebook=ancient("notebooks/07_mitigation.ipynb"),
    output:
        f"{RUN}/07_mitigation/models.json",
    log:
        f"{RUN}/07_mitigation.ipynb",
    params:
        task=of_task, code=code_of("07_mitigation"), **settings("mitigation"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule mends:
    input:
        f"{RUN}/01_data/data.parquet",
        f"{RUN}/02_teacher/models.json",
        f"{RUN}/03_distillation/models.json",
        f"{RUN}/04_pruning/models.json",
        f"{RUN}/07_mitigation/models.json",
        notebook=ancient("notebooks/07b_what_mends_it.ipynb"),
    output:
        f"{RUN}/07b_what_mends_it/mends.csv",
    log:
        f"{RUN}/07b_what_mends_it.ipynb",
    params:
        task=of_task, code=code_of("07b_what_mends_it"), **settings("mends"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule loyalty:
    input:
        f"{RUN}/01_data/data.parquet",
        expand(f"{OUT}/{{{{task}}}}/seed{{seed}}/02_teacher/models.json", seed=sorted({*GRID.seeds, *GRID.dense_seeds})),
        f"{RUN}/03_distillation/models.json",
        f"{RUN}/04_pruning/models.json",
        f"{RUN}/05_quantization_and_replacing/models.json",
        f"{RUN}/07_mitigation/models.json",
        notebook=ancient("notebooks/08_loyalty_and_attacks.ipynb"),
    output:
        f"{RUN}/08_loyalty_and_attacks/attacks.parquet",
    log:
        f"{RUN}/08_loyalty_and_attacks.ipynb",
    params:
        task=of_task, code=code_of("08_loyalty_and_attacks"), **settings("loyalty"),
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        SEED_NOTEBOOK


rule claims:
    input:
        expand(f"{RUN}/02_teacher/models.json", task=TASKS, seed=sorted({*GRID.seeds, *GRID.dense_seeds})),
        expand(f"{RUN}/03_distillation/models.json", task=TASKS, seed=GRID.seeds),
        expand(f"{RUN}/04_pruning/models.json", task=TASKS, seed=GRID.seeds),
        expand(f"{RUN}/05_quantization_and_replacing/models.json", task=TASKS, seed=GRID.seeds),
        expand(f"{RUN}/06_shortcut_samples/difficulty.parquet", task=TASKS, seed=GRID.seeds),
        expand(f"{RUN}/06b_dose_and_response/responses.csv", task=GRID.dose_tasks, seed=GRID.dose_seeds),
        expand(f"{RUN}/07_mitigation/models.json", task=TASKS, seed=GRID.seeds),
        expand(f"{RUN}/07b_what_mends_it/mends.csv", task=GRID.dose_tasks, seed=GRID.dose_seeds),
        expand(f"{RUN}/08_loyalty_and_attacks/attacks.parquet", task=TASKS, seed=GRID.seeds),
        notebook=ancient("notebooks/09_claims.ipynb"),
    output:
        f"{OUT}/09_claims/ledger.csv",
    log:
        f"{OUT}/09_claims.ipynb",
    params:
        code=code_of("09_claims"),
        published=contents(*Path("params/published").glob("*"), *Path("params").glob("claims.yaml")),
        **{f"set_{key}": f"{key}={value!r}" for key, value in
           PROFILE.flat("claims", GRID.tasks[0], (GRID.seeds or GRID.dense_seeds or [0])[0]).items()},
    threads: COMMON["threads"]
    resources:
        training=1,
    shell:
        PROFILE_NOTEBOOK
