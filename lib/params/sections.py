"""The parameters of each notebook over those that all are handed (lib.params.schema), by the sections of a profile."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lib import names
from lib.errors import nearest
from lib.files import ROOT
from lib.params.schema import (
    EXAMPLE_TASK,
    Count,
    Grid,
    Inside,
    Once,
    Placed,
    Positive,
    Run,
    Seeds,
    Share,
    of_names,
    recipe_of,
)
from lib.params.stages import OWN_STAGES

Source = Literal["synonyms", "wordnet", "vectors", "characters"]
Runtime = Literal["eager", "compiled", "onnx_fp32", "onnx_int8"]
Levels = Annotated[list[Inside], Once]
Names = Annotated[list[str], Once]


class Data(Run):
    section = "data"
    n_train: Count
    n_eval: Count
    n_ood: Count
    shortcut_rate: Annotated[float, Field(ge=0.5, le=1)]
    subcase_counts: dict[str, Count]


class Teacher(Run):
    section = "teacher"
    seeds: Seeds
    checkpoints: Levels
    shorter: Levels


class Distillation(Run):
    section = "distillation"
    students: Names

    @of_names("students")
    def _students(name: str, recipe: names.Name) -> None:
        if recipe.family in ("dense", "untrained", "theseus", "imp", "heads", "ffn") or recipe.quantization:
            raise ValueError(f"'{name}': a student is truncated-*, scratch-* or a hub id; pruned models are made in "
                             "pruning, replaced and quantised ones in quantization.recipes")
        if recipe.variant:
            raise ValueError(f"'{name}': runs with more steps are pruning.controls")
        if recipe.loss not in ("vanilla", *names.STUDENT_LOSSES):
            raise ValueError(f"'{name}': a student is fine-tuned alone or with + {', + '.join(names.STUDENT_LOSSES)}; "
                             "other losses are mitigation's")


class Pruning(Run):
    section = "pruning"
    sparsity_levels: Annotated[Levels, Field(min_length=1)]
    run_levels: Levels
    head_fractions: Levels
    ffn_fractions: Levels
    recovery_epochs: Positive
    controls: Names

    @of_names("controls")
    def _controls(name: str, recipe: names.Name) -> None:
        if not recipe.variant or recipe.loss != "vanilla" or recipe.quantization:
            raise ValueError(f"'{name}': a control is a structure with -after or -2x, such as "
                             "imp-70-after")
        families = {"after": ("dense", "imp"), "2x": ("dense", "imp", "truncated", "scratch")}
        if recipe.family not in families.get(recipe.variant, ()):
            raise ValueError(f"'{name}': controls are dense-after, imp-*-after, dense-2x, imp-*-2x, truncated-*-2x, "
                             "scratch-*-2x")


class Quantization(Run):
    section = "quantization"
    recipes: Names
    qat_epochs: Positive
    replace_start: Share
    replace_rate: Inside
    replace_share: Inside

    @of_names("recipes")
    def _recipes(name: str, recipe: names.Name) -> None:
        if recipe.is_shorter:
            raise ValueError(f"'{name}' is made in 02_teacher: add its share to teacher.shorter")
        if recipe.family == "untrained" or name == "dense":
            raise ValueError(f"'{name}' is made in 02_teacher: name a compression of it, such as dense + ptq8")
        if recipe.loss not in ("vanilla", *names.STUDENT_LOSSES):
            raise ValueError(f"'{name}': recipes take + {', + '.join(names.STUDENT_LOSSES)}; other losses are "
                             "mitigation's")
        if recipe.family in ("heads", "ffn") and recipe.loss != "vanilla":
            raise ValueError(f"'{name}': heads and width are cut from the finished dense model without a loss; write "
                             f"{recipe.base} + {recipe.quantization or 'ptq8'}")
        if recipe.family == "theseus" and recipe.loss in names.TRANSFERS:
            raise ValueError(f"'{name}': while layers are replaced there are none to compare with the teacher's; take "
                             "+ distil")


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
            recipe = recipe_of(name, info)
            if recipe.family not in ("truncated", "scratch", "imp") or recipe.variant or recipe.quantization or \
                    (recipe.loss, recipe.setting) not in (("vanilla", ""), ("distil", ""), ("rmc", "one_run")):
                raise ValueError(f"'{name}' must be truncated-*, scratch-* or imp-*, alone or with + distil or "
                                 "+ rmc_one_run")
            if recipe.loss == "rmc" and not pruned:
                raise ValueError(f"'{name}' takes its difficulty from a pruning run: add one, such as imp-70")
        return value

    @field_validator("run_levels")
    @classmethod
    def _run_levels(cls, value: list[float], info: ValidationInfo) -> list[float]:
        models = [names.parse(name) for name in info.data.get("models", ())]
        last = max((float(recipe.structure.split("-")[1]) for recipe in models if recipe.family == "imp"), default=100)
        if "rmc" in {recipe.loss for recipe in models} and sum(level * 100 <= last for level in value) < 2:
            raise ValueError(f"rmc_one_run needs two or more up to {last / 100:g}, where the run of imp-{last:g} ends")
        return value


class Mends(Run):
    section = "mends"
    bases: Names
    more_rows: Annotated[list[Annotated[int, Field(ge=1)]], Once]
    structures: Names
    n_boot: Annotated[int, Field(ge=100)]

    @of_names("bases", "structures")
    def _structures(name: str, recipe: names.Name) -> None:
        if " + " in name or recipe.family not in ("truncated", "imp"):
            raise ValueError(f"'{name}' must be truncated-* or imp-*, without a loss")


class Mitigation(Run):
    section = "mitigation"
    bases: Annotated[Names, Field(min_length=1)]
    losses: Annotated[Names, Field(min_length=1)]
    alpha: Share
    smooth: Share
    gamma: Annotated[float, Field(ge=0)]
    jtt_weight: Positive
    jtt_checkpoint: Inside
    difficulty: Literal["levels", "one_run"]

    @of_names("bases")
    def _bases(name: str, recipe: names.Name) -> None:
        if " + " in name or recipe.family in ("dense", "untrained", "theseus", "heads", "ffn"):
            raise ValueError(f"'{name}' must be imp-*, truncated-*, scratch-* or a hub id, without a loss, such as "
                             "imp-70")

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
    """Notebook 10: models of the reader's own beside the one they were made from."""

    section = "your_model"
    models: Names
    parent: str
    null: str
    revision: str
    labels: list[str]
    parent_labels: list[str]
    dtype: Literal["fp32", "bf16"]
    n_train: Count
    n_eval: Count
    n_ood: Count
    max_length: Annotated[int, Field(ge=8)] = 128
    n_attack: Annotated[int, Field(ge=1)]
    n_boot: Annotated[int, Field(ge=100)]
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: Annotated[int, Field(ge=1)] = 2

    @field_validator("parent")
    @classmethod
    def _parent(cls, value: str, info: ValidationInfo) -> str:
        models = info.data.get("models", ())
        if bool(value) != bool(models):
            raise ValueError("models and parent belong together: give both, or neither for the example")
        if value in filter(None, models):
            raise ValueError(f"'{value}' is among models too; a model is judged beside another one")
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
        recipe = recipe_of(value, info)
        if value == "dense" or recipe.family in ("untrained", "theseus", "heads", "ffn") or recipe.variant \
                or recipe.quantization == "qat8" or recipe.loss not in ("vanilla", *names.STUDENT_LOSSES):
            raise ValueError(f"'{value}' is not made here; give truncated-*, scratch-*, imp-* or a hub id, alone or "
                             f"with + {', '.join(names.STUDENT_LOSSES)}, or one of these or dense with + ptq8, ptq4")
        return value

    @property
    def is_example(self) -> bool:
        """Whether the task is the study's own example, which the notebook writes first."""
        return self.task == _example_task(self.profile)


def _example_task(profile: str) -> str:
    return f"outputs/{profile}/{OWN_STAGES['your_task']}/{EXAMPLE_TASK}.yaml"


OWN: dict[str, type[Placed]] = {run.section: run for run in (YourModel, YourTask)}  # notebooks outside the chain
