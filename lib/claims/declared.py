"""The papers' claims, written before the runs (params/claims.yaml), and the contrasts that they ask for."""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lib import safe_yaml
from lib.claims.contrasts import ALONE, OF_PANEL, OF_SPLIT, UNITS
from lib.claims.printed import COUNTERPART, PRINTED, rows_of
from lib.errors import StudyError, fault
from lib.files import ROOT
from lib.tasks import registry

CLAIMS = ROOT / "params" / "claims.yaml"
ANY = "any"  # a claim about every task, a reader's own too
TASKS = (*COUNTERPART.values(), *COUNTERPART, ANY)
PANEL = tuple(split for task in COUNTERPART.values() for split in registry.get(task).panel)
Direction = Literal["above", "below", "same", "not_below"]
Measure = Literal[tuple(UNITS)]


def _one_word(value: str) -> str:
    if value.split() != [value]:
        raise ValueError(f"{value!r} must be one word, such as A1")
    return value


class Micro(BaseModel):
    """What decides a claim in the micro-world, where the gap that decides it elsewhere is algebra."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    measure: Measure
    smallest_effect: Annotated[float, Field(gt=0)]


class Claim(BaseModel):
    """One row of params/claims.yaml; that file's head says what each field means."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    id: Annotated[str, AfterValidator(_one_word)]
    claim: str
    where: str
    tasks: Annotated[list[Literal[TASKS]], Field(min_length=1)]
    measure: Measure
    split: Literal["test", "ood", "", *PANEL] = ""
    models: Annotated[list[str], Field(min_length=1)]
    baselines: list[str]
    direction: Direction
    smallest_effect: Annotated[float, Field(ge=0)]
    threshold: float = 0.0
    kept_score: bool = False
    published: list[str]
    beside: list[Measure] = []
    micro: Micro | None = None
    written: date
    changed: date | None = None

    @model_validator(mode="after")
    def _whole(self):
        if self.is_of_panel:
            if not {self.measure, *self.beside} <= set(OF_PANEL):
                raise ValueError(f"the split {self.split} of the panel belongs to the measures {', '.join(OF_PANEL)}")
            if strange := [task for task in self.tasks if self.split not in registry.get(task).panel]:
                raise ValueError(f"task {strange[0]} has no set {self.split} in its panel")
            if self.published:
                raise ValueError(f"published must be [] for {self.split}, which is of the panel")
        elif (self.split != "") != (self.measure in OF_SPLIT):
            raise ValueError(f"split belongs to the measures {', '.join(OF_SPLIT)}, and these need it")
        if (not self.baselines) != (self.measure in ALONE):
            raise ValueError(f"baselines must be named, and left empty for {', '.join(ALONE)}")
        if self.published and self.measure not in PRINTED:
            raise ValueError(f"published must be [] for {self.measure}, which the papers do not print")
        if self.micro and self.measure != "gap":
            raise ValueError("micro belongs to claims of the gap, which is algebra there")
        if self.micro and self.micro.measure in (*OF_SPLIT, *ALONE):
            raise ValueError(f"micro.measure must need no split and have a baseline, not be {self.micro.measure}")
        if (self.smallest_effect == 0) != (self.threshold != 0):
            raise ValueError("smallest_effect must be above 0, and 0 beside a threshold")
        return self

    @property
    def is_of_panel(self) -> bool:
        """Whether the claim is about a set of the panel in place of the OOD score."""
        return self.split in PANEL

    def on(self, task: str) -> "Claim":
        """The claim as a task decides it: in the micro-world by its own measure there, with the other one beside."""
        if self.micro is None or task not in COUNTERPART:
            return self
        beside = [self.measure, *(f"{self.micro.measure}_odds",) * (f"{self.micro.measure}_odds" in UNITS),
                  *self.beside]
        return self.model_copy(update={"measure": self.micro.measure, "beside": beside,
                                       "smallest_effect": self.micro.smallest_effect})

    def beside_as(self, measure: str) -> "Claim":
        """The same claim asked by a measure that it names beside its own."""
        split = self.split if measure in OF_SPLIT or self.is_of_panel else ""
        return self.model_copy(update={"measure": measure, "split": split})


def load(path: Path | str = CLAIMS) -> list[Claim]:
    """The claims of a YAML file. Raises StudyError naming file, claim and key at the first fault."""
    rows = safe_yaml.read(Path(path))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StudyError(f"{path}: must be a list of claims, each beginning with '- id:'")
    claims = []
    for number, row in enumerate(rows, 1):
        name = f"{path}: claim {row.get('id', f'number {number}')}"
        try:
            claim = Claim.model_validate(row)
        except ValidationError as error:
            raise StudyError(f"{name}: {fault(error.errors()[0], Claim.model_fields)}") from None
        if claim.id in {other.id for other in claims}:
            raise StudyError(f"{name}: the id stands there twice; give each claim its own")
        for table in claim.published:
            rows_of(table)
        claims.append(claim)
    return claims


def applies(claim: Claim, task: str) -> bool:
    """Whether a claim is about a task, about any, or, unless it is of its own task's panel, about the one that this
    task stands for."""
    stands_for = set() if claim.is_of_panel else {COUNTERPART.get(task)}
    return bool(({task, ANY} | stands_for) & set(claim.tasks))
