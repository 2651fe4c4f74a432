"""The gates of a claim, which come before its word: is there skill to lose, did the models learn, can the measure reach
d?

Read from the dense models and from dev, before any contrast is: skill for each OOD set, learning for each task. A set
without skill is left out of the OOD score of a task's claims; where none has any there is nothing to read. Below five
seeds a gate's word is an indication.
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
NOT_ALIKE = "apart where the shortcut holds, and without shorter dense runs to match"
POOLED = "all sets"
Rows = Mapping[int, pd.DataFrame]  # of one model, by seed


def skill(task: Task, dense: Rows) -> pd.DataFrame:
    """A row for each OOD set, those of the panel too, and one for several sets of the task's OOD score together, which
    closes nothing by itself: the dense models' score in the set's own measure beside chance."""
    some = next(iter(dense.values()))
    sets = [name for name in (*task.scored, *task.panel) if (some["split"] == name).any()]
    scores = {name: [measures.score(rows[rows["split"] == name], measures.kind_of(task, name))
                     for rows in dense.values()] for name in sets}
    chance = {name: task.chance(name) for name in sets}
    pooled = [name for name in tables.ood_splits(task) if name in sets]
    if len(pooled) > 1:
        for of, put in ((scores, list), (chance, float)):
            of[POOLED] = put(measures.ood_score({name: np.array(of[name]) for name in pooled}))
    return pd.DataFrame([
        _gate(task.name, "skill", name, values, chance[name], _has_skill(values, chance[name]), NO_SKILL)
        for name, values in scores.items()], columns=COLUMNS)


def without_skill(task: Task, table: pd.DataFrame) -> dict[str, str]:
    """OOD set -> word, of the sets of a task's OOD score that its skill gate closed. table: `skill` of the task."""
    closed = table[~table["passed"].astype(bool)].set_index("of")["word"]
    return {name: closed[name] for name in tables.ood_splits(task) if name in closed}


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
