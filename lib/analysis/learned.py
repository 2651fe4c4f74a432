"""Last learned, first lost: when the dense run learned a row, and which rows another model then loses.

`learned_at` of a row is the share of the dense run's steps done at the first of its checkpoints from which the row
stays right to the end of the run. Asked only of rows that the dense model ends up getting right: those that a
compressed model of the same seed gets wrong are lost. The null is what a dense model of another seed loses.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

FEWEST = 10  # lost, or kept, rows below which an AUC is not told


def learned_at(along: pd.DataFrame) -> pd.Series:
    """Share of the steps in (0, 1] by guid; NaN where the run ends wrong. along: `measures.rows` with a column step."""
    right = along.pivot(index="guid", columns="step", values="correct").sort_index(axis="columns")
    stays = np.minimum.accumulate(right.to_numpy(bool)[:, ::-1], axis=1)[:, ::-1]
    steps = right.columns.to_numpy(float)
    return pd.Series(np.where(stays[:, -1], steps[stays.argmax(axis=1)] / steps[-1], np.nan), index=right.index)


def lost_of(at: pd.Series, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which of the rows the dense model gets right at its end [rows], and which of those a model loses [of them]."""
    known = at.reindex(rows["guid"]).notna().to_numpy()
    return known, ~rows["correct"].to_numpy(bool)[known]


def auc(at: pd.Series, rows: pd.DataFrame) -> float:
    """The share of pairs of a lost and a kept row in which the lost one was learned later (ties count half); NaN below
    FEWEST of either. rows: guid and correct of the model that may have lost them."""
    known, lost = lost_of(at, rows)
    if min(lost.sum(), (~lost).sum()) < FEWEST:
        return np.nan
    ranks = rankdata(at.reindex(rows["guid"]).to_numpy()[known])
    return float((ranks[lost].mean() - (lost.sum() + 1) / 2) / (~lost).sum())


def alike(at: pd.Series, rows: pd.DataFrame, others: pd.DataFrame) -> float:
    """Phi of the rows that two models lose, as a share of the largest that their rates of loss allow (Cureton 1959), so
    that a model which loses much can be compared with one which loses little; NaN where one of them loses, or keeps,
    fewer than FEWEST."""
    both = [lost_of(at, one)[1] for one in (rows, others)]
    if any(min(lost.sum(), (~lost).sum()) < FEWEST for lost in both):
        return np.nan
    less, more = sorted(lost.mean() for lost in both)
    return float(np.corrcoef(*both)[0, 1] / np.sqrt(less * (1 - more) / (more * (1 - less))))


def within_times(at: pd.Series, rows: pd.DataFrame, by: np.ndarray) -> float:
    """The share of pairs of a lost and a kept row *learned at one time* in which the lost one has the higher `by`
    [rows] (ties count half): the AUCs of the times, weighted by their pairs. Rows without `by` are left out; NaN below
    FEWEST lost or kept rows in the times that have both."""
    known, lost = lost_of(at, rows)
    when, by = at.reindex(rows["guid"]).to_numpy()[known], by[known]
    above, counts = 0.0, []
    for time in np.unique(when):
        here = (when == time) & ~np.isnan(by)
        n_lost, n_kept = int(lost[here].sum()), int((~lost[here]).sum())
        if n_lost and n_kept:
            above += rankdata(by[here])[lost[here]].sum() - n_lost * (n_lost + 1) / 2
            counts.append((n_lost, n_kept))
    if not counts or np.min(np.sum(counts, axis=0)) < FEWEST:
        return np.nan
    return float(above / sum(n_lost * n_kept for n_lost, n_kept in counts))


def lost_by_time(at: pd.Series, rows: pd.DataFrame) -> pd.DataFrame:
    """What a model loses of the rows that were learned at each time: learned_at | n (rows) | value (share lost). rows:
    guid and correct of the model, or of another dense one for the null."""
    frame = pd.DataFrame({"learned_at": at.reindex(rows["guid"]).to_numpy(), "lost": ~rows["correct"].to_numpy(bool)})
    return frame.dropna().groupby("learned_at").agg(n=("lost", "size"), value=("lost", "mean")).reset_index()
