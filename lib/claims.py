"""The papers' claims, written before the runs, and the ledger that sets each beside what the study found.

Every claim is about one number: a measure of a model minus the same measure of a baseline, 0 where there is
nothing to see (`lib.contrasts` names the measures). `contrasts` lists the pairs that a profile's models allow,
`lib.contrasts.scores` computes them, `evidence` puts the seeds together and `ledger` gives the verdicts. The rule:

- above (below): *replicated* if the 95 % interval lies wholly above (below) 0 and the estimate reaches the smallest
  effect of interest; *not replicated* if the whole interval falls short of the smallest effect; else *inconclusive*.
- same: *replicated* if the interval lies inside plus or minus the smallest effect; *not replicated* if wholly outside.
- not_below: *replicated* if the interval lies wholly above minus the smallest effect; *not replicated* if wholly below.
- same and not_below call a missing difference a finding, so they need five seeds; with fewer they are at best inconclusive.
- a claim that names several models holds only if it holds for each: one contrast not replicated decides, then one
  inconclusive. The ledger shows the contrast that decides, the weakest of those with that verdict.
- *not measured* where a profile lacks the models.
"""

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from scipy import stats

from lib.contrasts import OF_ROWS, OF_SPLIT, UNITS, pairs
from lib.errors import StudyError, nearest
from lib.published import COUNTERPART, PRINTED, printed, published, strength

CLAIMS = Path(__file__).resolve().parents[1] / "params" / "claims.yaml"
TASKS = (*COUNTERPART.values(), *COUNTERPART)
SEEDS_FOR_SAME = 5
CONTRAST = ["claim", "task", "seed", "measure", "split", "model", "baseline"]
EVIDENCE = ["claim", "measure", "task", "split", "model", "baseline", "estimate", "low", "high", "n_seeds", "n_rows", "unit"]
LEDGER = ["id", "task", "claim", "where", "paper", "ours", "interval", "n", "difference", "verdict", "sentence"]

Direction = Literal["above", "below", "same", "not_below"]
Measure = Literal[tuple(UNITS)]


class Claim(BaseModel):
    """One row of params/claims.yaml; that file's head says what each field means."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    id: str
    claim: str
    where: str
    tasks: list[Literal[TASKS]]
    measure: Measure
    split: Literal["test", "ood", ""] = ""
    models: list[str]
    baselines: list[str]
    direction: Direction
    smallest_effect: float
    published: list[str]
    beside: list[Measure] = []

    @model_validator(mode="after")
    def _whole(self):
        if (self.split != "") != (self.measure in OF_SPLIT):
            raise ValueError(f"split belongs to the measures {', '.join(OF_SPLIT)}, and these need it")
        if (not self.baselines) != (self.measure in OF_ROWS):
            raise ValueError(f"baselines must be named, and left empty for {' and '.join(OF_ROWS)}")
        if self.published and self.measure not in PRINTED:
            raise ValueError(f"published must be [] for {self.measure}, which the papers do not print")
        if self.smallest_effect <= 0:
            raise ValueError("smallest_effect must be above 0")
        return self


def load(path: Path | str = CLAIMS) -> list[Claim]:
    """The claims of a YAML file. Raises StudyError naming file, claim and key at the first fault."""
    try:
        rows = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StudyError(f"{path}: must be a list of claims, each beginning with '- id:'")
    claims = []
    for number, row in enumerate(rows, 1):
        name = f"{path}: claim {row.get('id', f'number {number}')}"
        try:
            claim = Claim(**row)
        except ValidationError as error:
            raise StudyError(f"{name}: {_fault(error.errors()[0])}") from None
        if claim.id in {other.id for other in claims}:
            raise StudyError(f"{name}: the id stands there twice; give each claim its own")
        for table in claim.published:
            published(table)
        claims.append(claim)
    return claims


def _fault(error: dict) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, Claim.model_fields)}"
    if error["type"] == "literal_error":
        known = [part.strip(" '") for part in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"{key} is {error['input']!r}{nearest(str(error['input']), known)}"
    return f"{key}: {error['msg']}" if key else error["msg"].removeprefix("Value error, ")


def contrasts(claims: list[Claim], records: pd.DataFrame | list[dict]) -> pd.DataFrame:
    """What the claims ask of the models there are: columns claim, task, seed, measure, split, model, baseline.

    records: the models' records, or a frame with their `model`, `task` and `seed`. A claim on a paper's task also
    asks it of the micro-world task that stands for it. Each claim has its measure and the ones it names beside it.
    """
    records = pd.DataFrame(records, columns=["model", "task", "seed"])
    rows = []
    for (task, seed), group in records.groupby(["task", "seed"], sort=True):
        names = list(dict.fromkeys(group["model"]))
        for claim in claims:
            found = pairs(claim.models, claim.baselines, names) if _applies(claim, task) else []
            rows += [(claim.id, task, seed, measure, claim.split if measure in OF_SPLIT else "", model, baseline)
                     for (model, baseline), measure in itertools.product(found, [claim.measure, *claim.beside])]
    return pd.DataFrame(rows, columns=CONTRAST)


def _applies(claim: Claim, task: str) -> bool:
    return task in claim.tasks or COUNTERPART.get(task) in claim.tasks


def evidence(claims: list[Claim], scores: pd.DataFrame) -> pd.DataFrame:
    """One row per claim, measure, task, model and baseline, the seeds put together.

    scores: the frame of `contrasts` with the columns value, low, high, n, as `lib.contrasts.scores` gives it.
    Several seeds: mean and t interval over seeds (which holds the draw of train, the order and the new weights, not
    the draw of the test rows). One seed: its interval over rows. A value undefined on any seed stays undefined.
    Columns: claim, measure, task, split, model, baseline, estimate, low, high, n_seeds, n_rows (of one seed), unit.
    """
    missing = [c for c in [*CONTRAST, "value", "low", "high", "n"] if c not in scores.columns]
    if missing:
        raise StudyError(f"scores: columns {missing} are missing; make them with lib.contrasts.scores")
    unknown = set(scores["claim"]) - {claim.id for claim in claims}
    if unknown:
        name = sorted(unknown)[0]
        raise StudyError(f"scores: no claim is called {name!r}{nearest(name, [c.id for c in claims])}")
    rows = []
    for keys, group in scores.groupby([c for c in CONTRAST if c != "seed"], sort=False):
        place = dict(zip([c for c in CONTRAST if c != "seed"], keys))
        if group["seed"].duplicated().any():
            raise StudyError(f"scores: {place['claim']}, {place['task']}, {place['model']}: a seed stands there twice")
        low, high, values = group["low"].iloc[0], group["high"].iloc[0], group["value"].to_numpy(float)
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
            low, high = values.mean() - half, values.mean() + half
        rows.append(place | {"estimate": values.mean(), "low": low, "high": high, "n_seeds": len(values),
                             "n_rows": int(group["n"].min()), "unit": UNITS[place["measure"]]})
    return pd.DataFrame(rows, columns=EVIDENCE)


def verdict(estimate: float, low: float, high: float, direction: Direction, smallest_effect: float) -> str:
    """`replicated`, `not replicated` or `inconclusive` by the rule at the head of this module.

    An undefined estimate or interval is inconclusive. Raises StudyError on an unknown direction.
    """
    if direction not in ("above", "below", "same", "not_below"):
        raise StudyError(f"direction {direction!r} is not one of above, below, same, not_below")
    if not np.isfinite([estimate, low, high]).all():
        return "inconclusive"
    if direction == "below":
        estimate, low, high = -estimate, -high, -low
    yes, no = {
        "same": (-smallest_effect < low and high < smallest_effect, low > smallest_effect or high < -smallest_effect),
        "not_below": (low > -smallest_effect, high < -smallest_effect),
    }.get(direction, (low > 0 and estimate >= smallest_effect, high < smallest_effect))
    return "replicated" if yes else "not replicated" if no else "inconclusive"


def rule(claim: Claim) -> str:
    """The claim's rule in words, to stand beside it before any result does."""
    size = f"{claim.smallest_effect:g} {UNITS[claim.measure]}"
    return {"above": f"interval above 0 and mean at least {size}",
            "below": f"interval below 0 and mean at most -{size}",
            "same": f"interval inside +-{size}, {SEEDS_FOR_SAME} seeds or more",
            "not_below": f"interval above -{size}, {SEEDS_FOR_SAME} seeds or more"}[claim.direction]


def ledger(claims: list[Claim], evidence: pd.DataFrame) -> pd.DataFrame:
    """One row per claim and task of the evidence, plus one for each claim that could not be measured.

    Columns: id, task, claim, where, paper, ours, interval, n, difference, verdict, sentence. `paper` is of the task
    the paper used; `difference` (ours minus paper) is left empty for the micro-world, whose size of effect is its own.
    """
    tasks = list(dict.fromkeys(evidence["task"]))
    rows = []
    for claim in claims:
        mine = evidence[(evidence["claim"] == claim.id) & (evidence["measure"] == claim.measure)]
        for task in [t for t in tasks if _applies(claim, t)] or [""]:
            rows.append(_entry(claim, task, mine[mine["task"] == task]))
    return pd.DataFrame(rows, columns=LEDGER)


def _entry(claim: Claim, task: str, found: pd.DataFrame) -> dict:
    paper = printed(claim, task or claim.tasks[0])
    row = {"id": claim.id, "task": task, "claim": claim.claim, "where": claim.where,
           "paper": paper[0] if paper else np.nan, "ours": np.nan, "interval": "", "n": "", "difference": np.nan}
    if found.empty:
        why = f"none of its tasks ({', '.join(claim.tasks)})"
        if task:
            why = f"no {' or '.join(claim.models)}"
            beside = " or ".join(claim.baselines).replace("{base}", "the same compression")
            why += f" beside {beside}" if beside else ""
        return row | {"verdict": "not measured", "sentence": f"Not measured: this profile has {why}."}
    verdicts = [_of_evidence(claim, line) for line in found.itertuples()]
    worst = next(v for v in ("not replicated", "inconclusive", "replicated") if v in verdicts)
    line = min((e for e, v in zip(found.itertuples(), verdicts) if v == worst),
               key=lambda e: strength(e.estimate, claim.direction))
    if paper and task not in COUNTERPART:
        row["difference"] = line.estimate - paper[0]
    digits = 1 if line.unit == "points" else 3
    undefined = np.isnan(line.estimate)
    interval = "no interval" if np.isnan(line.low) else f"[{line.low:.{digits}f}, {line.high:.{digits}f}]"
    n = f"{line.n_seeds} seeds" if line.n_seeds > 1 else f"1 seed, {line.n_rows} rows"
    pair = f"{line.model} against {line.baseline}" if line.baseline else line.model
    what = f"{claim.measure} on {claim.split}" if claim.split else claim.measure
    unit = " points" if line.unit == "points" else ""
    ours = "undefined" if undefined else f"{line.estimate:+.{digits}f}{unit} {interval}"
    sentence = f"{worst.capitalize()}: {pair}, {what} {ours} over {n}"
    if line.n_seeds == 1 and not np.isnan(line.low):
        sentence += " (the interval is over rows: another seed may differ)"
    if len(found) > 1:
        sentence += f"; it decides among {len(found)} contrasts, {verdicts.count('replicated')} of them replicated"
    if paper:
        against = f"{paper[1]} against {paper[2]}"
        sentence += f"; the paper has {paper[0]:+.{digits}f} ({COUNTERPART.get(task, task)}, {against})"
    return row | {"ours": line.estimate, "interval": interval, "n": n, "verdict": worst, "sentence": sentence + "."}


def _of_evidence(claim: Claim, line) -> str:
    found = verdict(line.estimate, line.low, line.high, claim.direction, claim.smallest_effect)
    few = claim.direction in ("same", "not_below") and line.n_seeds < SEEDS_FOR_SAME
    return "inconclusive" if few and found == "replicated" else found
