"""Contrasts at a matched score: what a model scores out of distribution beside one that scores alike in distribution.

Matched is the score on dev. Where the task knows on which rows of dev its shortcut holds, the measures of the rows on
which it fails, and of the others, are matched on those rows instead: ID and OOD mix the same two kinds of rows there
(10 and 50 % break the rule in the micro-world), so that a gap between them is algebra.

- matched: the OOD score less that of annealed dense runs of 1/8, 1/4 and 1/2 of the steps and the full one
  (`rule.matched`); matched_fails, matched_rest: the same on the OOD rows on which the shortcut fails, on the others.
- lost_fails: what the model loses beside its baseline on the OOD rows on which the shortcut fails. Two models whose
  mean scores on the rows of dev on which it holds are a point apart at most (`rule.CALIPER`) are compared as they are;
  others by what each of them scores beyond the dense runs, or not at all where there are none.

In points; with `_odds` in log-odds on both axes, of scores with half a right and half a wrong row added (Haldane 1956),
which keeps 0 and 1 finite.
"""

import numpy as np
import pandas as pd

from lib.claims import rule
from lib.claims.place import Number, Place, even

SHORT = ("dense-0.125x", "dense-0.25x", "dense-0.5x", "dense")
UNKNOWN = "it is not known where the shortcut fails"


def against_short(measure: str, place: Place, rows: pd.DataFrame) -> Number | None:
    """matched, matched_fails, matched_rest and their `_odds`; None without the shorter dense runs."""
    if not all(map(place.has, SHORT)):
        return None
    kind, scored = _kind(measure)
    ood = place.score_weights(rows, "ood") if kind == "matched" else _side(place, rows, fails=kind == "matched_fails")
    if ood is None:
        return Number(np.nan, reason=UNKNOWN)
    beyond, flagged = _beyond(place, rows, _matched_on(rows, kind), ood, scored)
    return Number(beyond, flagged=flagged)


def lost_fails(measure: str, place: Place, a: pd.DataFrame, b: pd.DataFrame) -> Number:
    """lost_fails and lost_fails_odds of a model (a) beside its baseline (b)."""
    kind, scored = _kind(measure)
    ood = _side(place, a, fails=True)
    if ood is None:
        return Number(np.nan, reason=UNKNOWN)
    at = _matched_on(a, kind)
    apart = 100 * float((at * (a["correct"].to_numpy(float) - b["correct"].to_numpy(float))).sum())
    value = scored(ood, b) - scored(ood, a)
    parts = 100 * ood * (b["correct"].to_numpy(float) - a["correct"].to_numpy(float)) if kind == measure else None
    matched = None
    if all(map(place.has, SHORT)):
        (of_a, far), (of_b, far_b) = (_beyond(place, rows, at, ood, scored) for rows in (a, b))
        matched = Number(of_b - of_a, flagged=far or far_b)
    return Number(float(value), parts, apart=apart, matched=matched)


def _kind(measure: str):
    """A measure without its scale, and how that scores rows by their weights."""
    kind = measure.removesuffix("_odds")
    return kind, (_points if kind == measure else _log_odds)


def _points(weights: np.ndarray, rows: pd.DataFrame) -> float:
    return 100 * float((weights * rows["correct"].to_numpy(float)).sum())


def _log_odds(weights: np.ndarray, rows: pd.DataFrame) -> float:
    """Log-odds of a score, of as many rows as have a weight."""
    n, score = np.count_nonzero(weights), _points(weights, rows) / 100
    return float(np.log((n * score + 0.5) / (n * (1 - score) + 0.5)))


def _side(place: Place, rows: pd.DataFrame, fails: bool) -> np.ndarray | None:
    """Weights of the OOD rows on which the shortcut fails, or of the others; None where that is not known."""
    wrong = ~rows["is_shortcut"].astype("boolean").fillna(True).to_numpy(bool)
    if not (wrong & place.here(rows, "ood")).any():
        return None
    weights = np.where(wrong == fails, place.score_weights(rows, "ood"), 0)
    return weights / weights.sum()


def _matched_on(rows: pd.DataFrame, kind: str) -> np.ndarray:
    """Weights of the rows of dev that are matched on."""
    dev = (rows["split"] == "dev").to_numpy()
    holds = dev & rows["is_shortcut"].astype("boolean").fillna(False).to_numpy(bool)
    return even(holds if kind != "matched" and holds.any() else dev)


def _beyond(place: Place, rows: pd.DataFrame, at: np.ndarray, ood: np.ndarray, scored) -> tuple[float, bool]:
    """A model's score less that of the dense runs at its score on the rows matched on; whether it leaves their
    range."""
    runs = [rows, *map(place.rows, SHORT)]
    ids, oods = ([scored(weights, one) for one in runs] for weights in (at, ood))
    dense, flagged = rule.matched(ids[0], np.array(ids[1:]), np.array(oods[1:]))
    return oods[0] - dense, flagged
