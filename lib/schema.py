"""The types of every parameter: one model per notebook, over the common ones, and where a notebook's files go.

The section names are those of the profiles in params/; lib.params reads, merges and checks them.
"""
from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from lib import names
from lib.errors import StudyError, nearest

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"data": "01_data", "teacher": "02_teacher", "distillation": "03_distillation", "pruning": "04_pruning",
          "quantization": "05_quantization_and_replacing", "shortcut_samples": "06_shortcut_samples",
          "doses": "06b_dose_and_response", "mitigation": "07_mitigation", "mends": "07b_what_mends_it",
          "loyalty": "08_loyalty_and_attacks", "claims": "09_claims"}
OWN_STAGES = {"your_model": "10_your_model", "your_task": "11_your_task"}
EXAMPLE_TASK = "shop_reviews"  # what notebook 11 takes where no task is given
MICRO_TASKS = ("micro_nli", "micro_facts", "micro_paraphrase")
TASKS = (*MICRO_TASKS, "mnli", "fever", "qqp")

Source = Literal["synonyms", "wordnet", "vectors", "characters"]
Runtime = Literal["eager", "compiled", "onnx_fp32", "onnx_int8"]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy's older generators, in scikit-learn, take
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
OFFLINE_LAYERS, OFFLINE_TOKENS = 6, 512  # of the encoder `offline`


def _once(value: list) -> list:
    for place, one in enumerate(value):
        if one in value[:place]:
            raise ValueError(f"{one!r} stands there twice; name it once")
    return value


Once = AfterValidator(_once)
Levels = Annotated[list[Inside], Once]
Seeds = Annotated[list[Seed], Once]
Names = Annotated[list[str], Once]


def _known_task(name: str) -> str:
    if name not in TASKS and not name.endswith((".yaml", ".yml")):
        raise ValueError(f"'{name}' is no task and no task file (*.yaml){nearest(name, TASKS)}")
    return name


def _recipe(name: str, info: ValidationInfo) -> names.Name:
    """A model's name taken apart. Raises ValueError for one whose layers the dense model lacks, as far as that is known."""
    found = names.parse(name)
    layers = info.data.get("encoder_layers") or (OFFLINE_LAYERS if info.data.get("encoder") == "offline" else None)
    if layers and found.family in ("truncated", "scratch", "theseus"):
        most = layers if found.family == "scratch" else layers - 1
        if int(found.structure.split("-")[1]) > most:
            raise ValueError(f"'{name}': the dense model has {layers} layers, so {found.family}-K takes K from 1 to {most}")
    return found


def task_folder(task: str) -> str:
    """Folder name of a task: its own name, or a task file's name without its suffix."""
    return Path(task).stem if task.endswith((".yaml", ".yml")) else task


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Grid(Strict):
    """Which tasks and seeds Snakemake runs; `dense_seeds` run notebooks 01 and 02 only, `dose_tasks` and `dose_seeds`,
    parts of the two, notebooks 06b and 07b too."""

    tasks: list[str] = Field(min_length=1)
    seeds: Seeds
    dense_seeds: Seeds
    dose_tasks: Annotated[list[Literal[MICRO_TASKS]], Once]
    dose_seeds: Seeds

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, value: list[str]) -> list[str]:
        folders = [task_folder(_known_task(name)) for name in value]
        if len(set(folders)) < len(folders):
            raise ValueError(f"two of {folders} would share a folder under outputs")
        return value

    @field_validator("dense_seeds")
    @classmethod
    def _any_seed(cls, value: list[int], info: ValidationInfo) -> list[int]:
        if not value and not info.data.get("seeds", value):
            raise ValueError("no seed is named; give one here or in grid.seeds")
        return value

    @field_validator("dose_tasks", "dose_seeds")
    @classmethod
    def _part(cls, value: list, info: ValidationInfo) -> list:
        whole = info.field_name.removeprefix("dose_")
        if outside := [one for one in value if one not in info.data.get(whole, value)]:
            raise ValueError(f"{outside[0]!r} is not among grid.{whole}, whose models notebooks 06b and 07b build on")
        return value


class Placed(Strict):
    """What every notebook is handed: whose outputs it reads and writes, and of which task and seed."""

    section: ClassVar[str]
    profile: str
    task: str
    seed: Seed

    @field_validator("profile")
    @classmethod
    def _profile(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value) or value in ("reference", "rebuilt"):
            raise ValueError("must begin with a letter or digit and hold letters, digits, _, . or -, for it names a folder "
                             "under outputs; reference and rebuilt are taken there")
        return value

    @field_validator("task")
    @classmethod
    def _task(cls, value: str) -> str:
        return _known_task(value)

    @property
    def stage(self) -> str:
        """The notebook's name, such as '04_pruning'."""
        return (STAGES | OWN_STAGES)[self.section]

    @property
    def root(self) -> Path:
        """The project's root, found from this file and not from the working directory."""
        return ROOT

    @property
    def outputs(self) -> Path:
        return ROOT / "outputs" / self.profile

    def folder(self, stage: str, task: str | None = None, seed: int | None = None) -> Path:
        """outputs/<profile>/<task>/seed<k>/<stage>, of this run's task and seed unless told; 09 has one per profile."""
        if stage not in (known := [*STAGES.values(), *OWN_STAGES.values()]):
            raise StudyError(f"no stage '{stage}'{nearest(stage, known)}")
        if stage == STAGES["claims"]:
            return self.outputs / stage
        task, seed = task or self.task, self.seed if seed is None else seed
        return self.outputs / task_folder(task) / f"seed{seed}" / stage


class Run(Placed):
    """What a notebook of the chain runs with: the common parameters and its own (subclasses)."""

    encoder: str
    encoder_revision: str
    encoder_layers: Count
    epochs: Positive
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Positive
    warmup: Share
    weight_decay: Annotated[float, Field(ge=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    freeze_embeddings: bool
    max_length: Annotated[int, Field(ge=8)]
    dtype: Literal["auto", "fp32", "bf16"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: Annotated[int, Field(ge=1)]
    processes: Annotated[int, Field(ge=1)] = 1
    prune_warmup: Share
    prune_cooldown: Share
    mask_interval: Annotated[int, Field(ge=1)]
    kd_weight: Share
    pkd_weight: Positive
    tinybert_weight: Positive

    @field_validator("encoder")
    @classmethod
    def _encoder(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; give 'offline', a hub id or a folder")
        return value

    @field_validator("encoder_layers")
    @classmethod
    def _encoder_layers(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("encoder") == "offline" and value > OFFLINE_LAYERS:
            raise ValueError(f"encoder 'offline' has {OFFLINE_LAYERS} layers; give 0 (all) to {OFFLINE_LAYERS}")
        return value

    @field_validator("max_length")
    @classmethod
    def _max_length(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("encoder") == "offline" and value > OFFLINE_TOKENS:
            raise ValueError(f"encoder 'offline' reads {OFFLINE_TOKENS} tokens; give 8 to {OFFLINE_TOKENS}")
        return value

    @field_validator("processes")
    @classmethod
    def _processes(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("batch_size", value) % value:
            raise ValueError(f"a batch of {info.data['batch_size']} rows cannot be shared by {value} processes; change batch_size "
                             "or give one of its divisors")
        return value

    @field_validator("prune_cooldown")
    @classmethod
    def _cooldown(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("prune_warmup", 0) >= 1:
            raise ValueError(f"with prune_warmup = {info.data['prune_warmup']} no step is left to prune in; their sum must be "
                             "below 1")
        return value


class Data(Run):
    section = "data"
    n_train: Count
    n_eval: Count
    n_ood: Count
    shortcut_rate: Annotated[float, Field(ge=0.5, le=1)]
    subcase_counts: dict[str, Count]


class Teacher(Run):
    section = "teacher"
    checkpoints: Levels


class Distillation(Run):
    section = "distillation"
    students: Names

    @field_validator("students")
    @classmethod
    def _students(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for name in value:
            found = _recipe(name, info)
            if found.family in ("dense", "untrained", "theseus", "imp", "heads", "ffn") or found.quantization:
                raise ValueError(f"'{name}': a student is truncated-*, scratch-* or a hub id; pruned models are made in "
                                 "pruning, replaced and quantised ones in quantization.recipes")
            if found.variant:
                raise ValueError(f"'{name}': runs with more steps are pruning.controls")
            if found.loss not in ("vanilla", *names.STUDENT_LOSSES):
                raise ValueError(f"'{name}': a student is fine-tuned alone or with + {', + '.join(names.STUDENT_LOSSES)}; "
                                 "other losses are mitigation's")
        return value


class Pruning(Run):
    section = "pruning"
    sparsity_levels: Annotated[Levels, Field(min_length=1)]
    run_levels: Levels
    head_fractions: Levels
    ffn_fractions: Levels
    recovery_epochs: Positive
    controls: Names

    @field_validator("controls")
    @classmethod
    def _controls(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for name in value:
            found = _recipe(name, info)
            if not found.variant or found.loss != "vanilla" or found.quantization:
                raise ValueError(f"'{name}': a control is a structure with one of -{', -'.join(names.VARIANTS)}, such as "
                                 "imp-70-after")
            if found.family not in ("dense", "imp", "truncated", "scratch") or \
                    found.variant == "after" and found.family not in ("dense", "imp"):
                raise ValueError(f"'{name}': controls are dense-after, imp-*-after, dense-2x, imp-*-2x, truncated-*-2x, "
                                 "scratch-*-2x")
        return value


class Quantization(Run):
    section = "quantization"
    recipes: Names
    qat_epochs: Positive
    replace_start: Share
    replace_rate: Inside
    replace_share: Inside

    @field_validator("recipes")
    @classmethod
    def _recipes(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for name in value:
            found = _recipe(name, info)
            if found.family == "untrained" or name == "dense":
                raise ValueError(f"'{name}' is made in 02_teacher: name a compression of it, such as dense + ptq8")
            if found.loss not in ("vanilla", *names.STUDENT_LOSSES):
                raise ValueError(f"'{name}': recipes take + {', + '.join(names.STUDENT_LOSSES)}; other losses are mitigation's")
            if found.family in ("heads", "ffn") and found.loss != "vanilla":
                raise ValueError(f"'{name}': heads and width are cut from the finished dense model without a loss; write "
                                 f"{found.base} + {found.quantization or 'ptq8'}")
            if found.family == "theseus" and found.loss in names.TRANSFERS:
                raise ValueError(f"'{name}': while layers are replaced there are none to compare with the teacher's; take "
                                 "+ distil")
        return value


class ShortcutSamples(Run):
    section = "shortcut_samples"
    seeds: Seeds
    dense_seeds: Seeds
    folds: Annotated[int, Field(ge=2)]


class Doses(Run):
    section = "doses"
    shortcut_rates: Annotated[list[Annotated[float, Field(ge=0.5, lt=1)]], Once]
    train_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Once]
    models: Names
    run_levels: Annotated[Levels, Field(min_length=2)]
    alpha: Share
    n_boot: Annotated[int, Field(ge=100)]

    @field_validator("models")
    @classmethod
    def _models(cls, value: list[str], info: ValidationInfo) -> list[str]:
        pruned = [name for name in value if names.parse(name).family == "imp" and " + " not in name]
        for name in value:
            found = _recipe(name, info)
            if found.family not in ("truncated", "scratch", "imp") or found.variant or found.quantization or \
                    found.loss not in ("vanilla", "distil", "rmc") or (found.loss == "rmc" and found.setting != "one_run"):
                raise ValueError(f"'{name}' must be truncated-*, scratch-* or imp-*, alone or with + distil or + rmc_one_run")
            if found.loss == "rmc" and not pruned:
                raise ValueError(f"'{name}' takes its difficulty from a pruning run: add one, such as imp-70")
        return value

    @field_validator("run_levels")
    @classmethod
    def _run_levels(cls, value: list[float], info: ValidationInfo) -> list[float]:
        models = [names.parse(name) for name in info.data.get("models", ())]
        last = max((float(found.structure.split("-")[1]) for found in models if found.family == "imp"), default=100)
        if "rmc" in {found.loss for found in models} and sum(level * 100 <= last for level in value) < 2:
            raise ValueError(f"rmc_one_run needs two or more up to {last / 100:g}, where the run of imp-{last:g} ends")
        return value


class Mends(Run):
    section = "mends"
    bases: Names
    more_rows: Annotated[list[Annotated[int, Field(ge=1)]], Once]
    structures: Names
    n_boot: Annotated[int, Field(ge=100)]

    @field_validator("bases", "structures")
    @classmethod
    def _structures(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for name in value:
            found = _recipe(name, info)
            if " + " in name or found.family not in ("truncated", "imp"):
                raise ValueError(f"'{name}' must be truncated-* or imp-*, without a loss")
        return value


class Mitigation(Run):
    section = "mitigation"
    bases: Names
    losses: Names
    alpha: Share
    smooth: Share
    gamma: Annotated[float, Field(ge=0)]
    jtt_weight: Positive
    jtt_checkpoint: Inside
    difficulty: Literal["levels", "one_run"]

    @field_validator("bases")
    @classmethod
    def _bases(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for name in value:
            found = _recipe(name, info)
            if " + " in name or found.family in ("dense", "untrained", "theseus", "heads", "ffn"):
                raise ValueError(f"'{name}' must be imp-*, truncated-*, scratch-* or a hub id, without a loss, such as imp-70")
        return value

    @field_validator("losses")
    @classmethod
    def _losses(cls, value: list[str]) -> list[str]:
        known = ("distil", *names.MITIGATIONS, "rmc_one_run")
        for name in value:
            if name not in known and not (name.startswith("rmc-") and names.parse(f"dense + {name}").setting):
                raise ValueError(f"no choice is called '{name}'{nearest(name, known)}")
        return value


class Loyalty(Run):
    section = "loyalty"
    seeds: Seeds
    dense_seeds: Seeds
    n_attack: Annotated[int, Field(ge=1)]
    attack_source: Source
    attack_changed: Annotated[float, Field(gt=0, le=1)]
    attack_candidates: Annotated[int, Field(ge=1)]
    attack_stop_words: bool
    attack_pos: bool
    attack_cosine: Share
    wordnet: str
    vectors: str
    cost_paths: Annotated[list[Runtime], Field(min_length=1), Once]
    cost_runs: Annotated[int, Field(ge=1)]
    max_bytes: Count
    max_latency: Annotated[float, Field(ge=0)]
    min_dev: Share
    n_boot: Annotated[int, Field(ge=100)]

    @field_validator("vectors")
    @classmethod
    def _vectors(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("attack_source") == "vectors" and not value:
            raise ValueError("attack_source 'vectors' needs a file of word vectors: set loyalty.vectors to its path")
        return value


class Claims(Run, Grid):
    section = "claims"
    source: Literal["outputs", "reference"]
    n_boot: Annotated[int, Field(ge=100)]

    @property
    def outputs(self) -> Path:
        """Tables rebuilt from the reference stand apart: nothing that a run wrote is replaced."""
        return super().outputs if self.source == "outputs" else ROOT / "outputs" / "rebuilt" / self.profile


RUNS: dict[str, type[Run]] = {
    run.section: run for run in (Data, Teacher, Distillation, Pruning, Quantization, ShortcutSamples, Doses,
                                 Mitigation, Mends, Loyalty, Claims)}


class YourModel(Placed):
    """Notebook 10: a model of the reader's own beside its parent."""

    section = "your_model"
    model: str
    parent: str
    revision: str
    labels: list[str]
    parent_labels: list[str]
    predictions: str
    n_train: Annotated[int, Field(ge=2)]
    n_eval: Annotated[int, Field(ge=1)]
    n_ood: Annotated[int, Field(ge=1)]
    max_length: Annotated[int, Field(ge=8)]
    n_attack: Annotated[int, Field(ge=1)]
    n_boot: Annotated[int, Field(ge=100)]
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: Annotated[int, Field(ge=1)]

    @field_validator("parent")
    @classmethod
    def _parent(cls, value: str, info: ValidationInfo) -> str:
        if bool(value) != bool(info.data.get("model")):
            raise ValueError("model and parent are two of a pair: give a folder or hub id of each, or neither for the example")
        return value


class YourTask(Data, Teacher):
    """Notebook 11: a task of the reader's own, one dense and one compressed model of it."""

    section = "your_task"
    compressed: str
    n_boot: Annotated[int, Field(ge=100)]

    @field_validator("task")
    @classmethod
    def _task(cls, value: str, info: ValidationInfo) -> str:
        if value and not value.endswith((".yaml", ".yml")):
            raise ValueError("is no task file; give the path of one (*.yaml), or '' for the example")
        return value or _example_task(info.data.get("profile"))

    @field_validator("compressed")
    @classmethod
    def _compressed(cls, value: str, info: ValidationInfo) -> str:
        found = _recipe(value, info)
        if value == "dense" or found.family in ("untrained", "theseus", "heads", "ffn") or found.variant \
                or found.quantization == "qat8" or found.loss not in ("vanilla", *names.STUDENT_LOSSES):
            raise ValueError(f"'{value}' is not made here; give truncated-*, scratch-*, imp-* or a hub id, alone or with + "
                             f"{', '.join(names.STUDENT_LOSSES)}, or one of these or dense with + ptq8, ptq4")
        return value

    @property
    def is_example(self) -> bool:
        """Whether the task is the study's own example, which the notebook writes first."""
        return self.task == _example_task(self.profile)


def _example_task(profile: str) -> str:
    return f"outputs/{profile}/{OWN_STAGES['your_task']}/{EXAMPLE_TASK}.yaml"


OWN: dict[str, type[Placed]] = {run.section: run for run in (YourModel, YourTask)}  # notebooks outside the chain
