"""What every notebook is handed: the grid, the common parameters, and where a notebook's files go.

lib.params.sections has the parameters of each notebook over these; lib.params.profile reads, merges and checks them.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator

from lib import names
from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.offline import NAMES, OFFLINE
from lib.params.stages import OWN_STAGES, STAGES, Stage

EXAMPLE_TASK = "shop_reviews"  # what notebook 11 takes where no task is given
MICRO_TASKS = ("micro_nli", "micro_facts", "micro_paraphrase")
TASKS = (*MICRO_TASKS, "mnli", "fever", "qqp")

Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy's older generators, in scikit-learn, take
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]


def _once(value: list) -> list:
    for place, one in enumerate(value):
        if one in value[:place]:
            raise ValueError(f"{one!r} stands there twice; name it once")
    return value


Once = AfterValidator(_once)
Seeds = Annotated[list[Seed], Once]
SeedsByTask = Annotated[Annotated[Seeds, Tag("all")] | Annotated[dict[str, Seeds], Tag("by task")],
                        Discriminator(lambda value: "by task" if isinstance(value, dict) else "all")]


def _known_task(name: str) -> str:
    if name not in TASKS and not name.endswith((".yaml", ".yml")):
        raise ValueError(f"'{name}' is no task and no task file (*.yaml){nearest(name, TASKS)}")
    return name


def task_folder(task: str) -> str:
    """Folder name of a task: its own name, or a task file's name without its suffix."""
    return Path(task).stem if task.endswith((".yaml", ".yml")) else task


def recipe_of(name: str, info: ValidationInfo) -> names.Name:
    """A model's name taken apart. ValueError for one whose layers the dense model lacks, as far as that is known."""
    recipe = names.parse(name)
    encoder, layers = info.data.get("encoder"), info.data.get("encoder_layers")
    if not layers and encoder in OFFLINE:
        layers = OFFLINE[encoder].layers
    if layers and recipe.family in ("truncated", "scratch", "theseus"):
        most = layers if recipe.family == "scratch" else layers - 1
        if int(recipe.structure.split("-")[1]) > most:
            raise ValueError(f"'{name}': the dense model has {layers} layers, so {recipe.family}-K takes K from 1 to "
                             f"{most}")
    return recipe


def of_names(*fields: str) -> Callable:
    """Makes a check of a name and its recipe, which raises ValueError, the validator of lists of names."""
    def validator(check: Callable[[str, names.Name], None]) -> Any:
        def validate(cls, value: list[str], info: ValidationInfo) -> list[str]:
            for name in value:
                check(name, recipe_of(name, info))
            return value
        return field_validator(*fields)(classmethod(validate))
    return validator


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Grid(Strict):
    """Which tasks and seeds Snakemake runs; `dense_seeds` run notebooks 01 and 02 only, `dose_tasks` and `dose_seeds`,
    parts of the two, notebook 06b too, `mend_tasks` and `mend_seeds` 07b. Seeds are one list for all tasks, or a list
    for each. `pilot`: seeds whose results were seen before the claims and the number of seeds were fixed, of which 09
    makes no verdict."""

    tasks: list[str] = Field(min_length=1)
    seeds: SeedsByTask
    dense_seeds: SeedsByTask
    dose_tasks: Annotated[list[Literal[MICRO_TASKS]], Once]
    dose_seeds: Seeds
    mend_tasks: Annotated[list[Literal[MICRO_TASKS]], Once]
    mend_seeds: Seeds
    pilot: Seeds

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, value: list[str]) -> list[str]:
        folders = [task_folder(_known_task(name)) for name in value]
        if len(set(folders)) < len(folders):
            raise ValueError(f"two of {folders} would share a folder under outputs")
        return value

    @field_validator("seeds", "dense_seeds")
    @classmethod
    def _of_tasks(cls, value: list[int] | dict[str, list[int]], info: ValidationInfo) -> list[int] | dict:
        if isinstance(value, dict):
            for task in value:
                _known_task(task)
            if missing := [task for task in info.data.get("tasks", ()) if task not in value]:
                raise ValueError(f"names no seeds of {missing[0]}; give it a list too, or one list for all tasks")
        return value

    @field_validator("dense_seeds")
    @classmethod
    def _any_seed(cls, value: list[int] | dict[str, list[int]], info: ValidationInfo) -> list[int] | dict:
        for task in info.data.get("tasks", ()) if "seeds" in info.data else ():
            if not seeds_for(task, value) and not seeds_for(task, info.data["seeds"]):
                raise ValueError(f"no seed of {task} is named; give one here or in grid.seeds")
        return value

    @field_validator("dose_tasks", "mend_tasks")
    @classmethod
    def _some_tasks(cls, value: list[str], info: ValidationInfo) -> list[str]:
        return _part_of(value, info.data.get("tasks", value), "grid.tasks")

    @field_validator("dose_seeds", "mend_seeds")
    @classmethod
    def _some_seeds(cls, value: list[int], info: ValidationInfo) -> list[int]:
        some = info.data.get(info.field_name.replace("seeds", "tasks"))
        for task in some or info.data.get("tasks", ()) if "seeds" in info.data else ():
            _part_of(value, seeds_for(task, info.data["seeds"]), "grid.seeds")
        return value

    def seeds_of(self, task: str) -> list[int]:
        """The seeds of a task that run every notebook."""
        return seeds_for(task, self.seeds)

    def dense_of(self, task: str) -> list[int]:
        """All seeds of a task that have a dense model, in rising order."""
        return sorted({*self.seeds_of(task), *seeds_for(task, self.dense_seeds)})

    def places(self, stage: Stage) -> list[tuple[str, int]]:
        """(task, seed) of each run of a stage's notebook; none of one that runs once a profile."""
        tasks, seeds = {"dense": (self.tasks, self.dense_of), "profile": ([], self.seeds_of),
                        "seeds": (self.tasks, self.seeds_of),
                        "doses": (self.dose_tasks, lambda _: self.dose_seeds),
                        "mends": (self.mend_tasks, lambda _: self.mend_seeds)}[stage.runs]
        return [(task, seed) for task in tasks for seed in seeds(task)]


def seeds_for(task: str, seeds: list[int] | dict[str, list[int]]) -> list[int]:
    """The list of one task in `grid.seeds` or `grid.dense_seeds`; none of a task that these do not name."""
    return seeds.get(task, []) if isinstance(seeds, dict) else seeds


def _part_of(value: list, whole: list, named: str) -> list:
    if outside := [one for one in value if one not in whole]:
        raise ValueError(f"{outside[0]!r} is not among {named}, whose models notebooks 06b and 07b build on")
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
            raise ValueError("must begin with a letter or digit and hold letters, digits, _, . or -, for it names a "
                             "folder under outputs; reference and rebuilt are taken there")
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
    keep_weights: bool
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
            raise ValueError(f"is empty; give {NAMES}, a hub id or a folder")
        return value

    @field_validator("encoder_layers", "max_length")
    @classmethod
    def _of_offline(cls, value: int, info: ValidationInfo) -> int:
        if (encoder := info.data.get("encoder")) in OFFLINE:
            layers, tokens = OFFLINE[encoder].layers, OFFLINE[encoder].tokens
            most, told = {"encoder_layers": (layers, f"has {layers} layers; give 0 (all)"),
                          "max_length": (tokens, f"reads {tokens} tokens; give 8")}[info.field_name]
            if value > most:
                raise ValueError(f"encoder '{encoder}' {told} to {most}")
        return value

    @field_validator("prune_cooldown")
    @classmethod
    def _cooldown(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("prune_warmup", 0) >= 1:
            raise ValueError(f"with prune_warmup = {info.data['prune_warmup']} no step is left to prune in; their sum "
                             "must be below 1")
        return value
