"""The parameters of each notebook, over those that all are handed (lib.params.schema); the profiles' sections are named so."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lib import names
from lib.errors import nearest
from lib.files import ROOT
from lib.params.schema import (
    EXAMPLE_TASK,
    OFFLINE_LAYERS,
    Count,
    Grid,
    Inside,
    Once,
    Placed,
    Positive,
    Run,
    Seeds,
    Share,
)
from lib.params.stages import OWN_STAGES

Source = Literal["synonyms", "wordnet", "vectors", "characters"]
Runtime = Literal["eager", "compiled", "onnx_fp32", "onnx_int8"]
Levels = Annotated[list[Inside], Once]
Names = Annotated[list[str], Once]


def _recipe(name: str, info: ValidationInfo) -> names.Name:
    """A model's name taken apart. Raises ValueError for one whose layers the dense model lacks, as far as that is known."""
    found = names.parse(name)
    layers = info.data.get("encoder_layers") or (OFFLINE_LAYERS if info.data.get("encoder") == "offline" else None)
    if layers and found.family in ("truncated", "scratch", "theseus"):
        most = layers if found.family == "scratch" else layers - 1
        if int(found.structure.split("-")[1]) > most:
            raise ValueError(f"'{name}': the dense model has {layers} layers, so {found.family}-K takes K from 1 to {most}")
    return found


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
