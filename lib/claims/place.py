"""One task and seed as a contrast sees it, the number that it gives there, and how the rows weigh in a score."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.analysis import measures
from lib.tasks.task import Task


class Number(NamedTuple):
    """One contrast on one seed, in the measure's unit. parts [rows] sum to the value where it is linear in the rows.
    bottom: the denominator of a ratio. flagged: a match beyond the range of the short runs. reason: why it is
    undefined. apart: points by which model and baseline differ on the rows that should be alike, matched: the Number
    by the shorter dense runs to take where they differ too much, None without them."""

    value: float
    parts: np.ndarray | None = None
    bottom: float = np.nan
    flagged: bool = False
    reason: str = ""
    apart: float = np.nan
    matched: "Number | None" = None


@dataclass(frozen=True)
class Place:
    """One task and seed: rows(model) of `measures.rows` on all evaluation rows, in one order for all models and seeds;
    sets: the OOD sets of the task's OOD score, those with skill to lose; other: the rows of the dense model of the
    pair's other seed, None without one; population: the seeds, and the other seeds, of the population of which this
    seed is the first; rows_at(seed, model); learned_at: of each row, by guid; rarity: minus log of the failing train
    rows of each subcase; table(measure, model): the number of one of OF_TABLES, None where it was not measured;
    has(model)."""

    task: Task
    sets: tuple[str, ...]
    rows: Callable[[str], pd.DataFrame]
    has: Callable[[str], bool]
    other: Callable[[], pd.DataFrame | None]
    population: tuple[list[int], list[int]] | None
    rows_at: Callable[[int, str], pd.DataFrame | None]
    learned_at: Callable[[], pd.Series]
    rarity: Callable[[], pd.Series]
    table: Callable[[str, str], float | None]

    def score_weights(self, rows: pd.DataFrame, split: str) -> np.ndarray:
        """Weight of each row in a score: of `test`, of a set of the panel, or of the OOD score (`measures.ood_score`),
        each set by its own score."""
        if split != "ood":
            return self._set_weights(rows, split)
        return measures.ood_score({name: self._set_weights(rows, name) for name in self.sets})

    def score(self, rows: pd.DataFrame, split: str) -> float:
        """A model's score on test, on a set of the panel, or the OOD score. rows: its rows."""
        return float((self.score_weights(rows, split) * rows["correct"].to_numpy(float)).sum())

    def split_weights(self, rows: pd.DataFrame, split: str) -> np.ndarray:
        """Weight of each row in a mean over test, or over all rows of the OOD sets together."""
        return even(self.here(rows, split))

    def here(self, rows: pd.DataFrame, split: str) -> np.ndarray:
        """Which rows are those of a split, or of the OOD sets together."""
        return rows["split"].isin(self.sets if split == "ood" else [split]).to_numpy()

    def chance(self) -> float:
        """Chance of the OOD score."""
        return float(measures.ood_score({name: self.task.chance(name) for name in self.sets}))

    def _set_weights(self, rows: pd.DataFrame, name: str) -> np.ndarray:
        here = (rows["split"] == name).to_numpy()
        if measures.kind_of(self.task, name) == "accuracy":
            return even(here)
        cells = rows[here].groupby(["subcase", "label"])["guid"].transform("size").to_numpy(float)
        labels = rows[here].groupby("subcase")["label"].transform("nunique").to_numpy(float)
        weights = np.zeros(len(rows))
        weights[here] = 1 / (cells * labels * rows.loc[here, "subcase"].nunique())
        return weights


def even(here) -> np.ndarray:
    """The same weight for each of some rows; NaN where there is none."""
    here = np.asarray(here, dtype=float)
    return here / here.sum() if here.any() else np.full(len(here), np.nan)
