"""The gates of a claim, which come before its word: is there skill to lose, did the models learn, can the measure reach
d?

Read from the dense models and from dev, per task, before any contrast is. Below five seeds a gate's word is an
indication.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.analysis import measures, tables
from lib.claims import rule
from lib.tasks.task import Task

COLUMNS = ["task", "gate", "of", "value", "low", "high", "bound", "seeds", "passed", "word"]
NO_SKILL, NOT_LEARNED = "no skill to lose", "did not learn"
CEILING, NOT_KEPT = "bounded by the dense error", "ID score not kept"
Rows = Mapping[int, pd.DataFrame]  # of one model, by seed


def skill(task: Task, dense: Rows) -> pd.DataFrame:
    """A row for each OOD set, those of the panel too, and one for the task's OOD score ("ood"): the dense models' score
    in the set's own measure beside chance."""
    some = next(iter(dense.values()))
    sets = [name for name in (*task.scored, *task.panel) if (some["split"] == name).any()]
    scores = {name: [measures.score(rows[rows["split"] == name], measures.kind_of(task, name))
                     for rows in dense.values()] for name in sets}
    of_score = {name: np.array(values) for name, values in scores.items() if name in task.scored}
    scores["ood"] = list(measures.ood_score(of_score))
    chance = {name: task.chance(name) for name in sets} | {"ood": tables.ood_chance(task)}
    return pd.DataFrame([
        _gate(task.name, "skill", name, values, chance[name], _has_skill(values, chance[name]), NO_SKILL)
        for name, values in scores.items()], columns=COLUMNS)


def floor(task: Task, models: Mapping[str, Rows]) -> pd.DataFrame:
    """A row for each model: its score on dev beside the better of the majority class and the shortcut-only model."""
    result = []
    for name, by_seed in models.items():
        values, floors = [], []
        for rows in by_seed.values():
            dev = rows[rows["split"] == "dev"]
            values.append(dev["correct"].mean())
            floors.append(max(dev["label"].value_counts(normalize=True).max(), dev["easy"].mean()))
        passed = rule.has_learned(np.array(values), float(np.mean(floors)))
        result.append(_gate(task.name, "floor", name, values, float(np.mean(floors)), passed, NOT_LEARNED))
    return pd.DataFrame(result, columns=COLUMNS)


def _has_skill(values: list[float], chance: float) -> bool:
    """`rule.has_skill`; of one seed, whose interval is not known, by its mean alone."""
    return rule.has_skill(np.array(values), chance) if len(values) > 1 else values[0] >= chance + rule.SKILL


def _gate(task: str, gate: str, of: str, values: list[float], bound: float, passed: bool, word: str) -> dict:
    mean, low, high = map(float, rule.over_seeds(np.array(values)))
    said = "" if passed else word if len(values) >= rule.SEEDS else f"{word} ({rule.INDICATION})"
    return dict(zip(COLUMNS, (task, gate, of, mean, low, high, bound, len(values), bool(passed), said), strict=True))
