"""Contrasts of what is lost: when it was learned, how rare and deep it is, whether two models lose the same rows, and
what populations of models change. All of the rows that the dense model gets right, but the last."""

import numpy as np
import pandas as pd

from lib.analysis import learned, populations, tables
from lib.claims.place import Number, Place

POPULATION = 3  # seeds of a population: odd, so that its modal answer is clear, and small, so that there are several
MEASURES = ("learned_late", "learned_excess", "lost_alike", "rarity_beyond", "depth_beyond")


def of_lost(measure: str, split: str, place: Place, rows: pd.DataFrame, baseline: pd.DataFrame) -> Number | None:
    """One of MEASURES; None where it needs another dense model, or the truth about the subcases, which is not there."""
    at, other = place.learned_at(), place.other()
    here = rows[place.here(rows, split or "ood")]
    if measure == "learned_late":
        value = learned.auc(at, here) - 0.5
    elif measure.endswith("_beyond"):
        by = place.rarity() if measure == "rarity_beyond" else pd.Series(tables.depths(place.task), dtype=float)
        if by.empty or other is None:
            return None
        by = here["subcase"].map(by).to_numpy(float)
        value = learned.within_times(at, here, by) - learned.within_times(at, other.loc[here.index], by)
    elif other is None:
        return None
    elif measure == "learned_excess":
        value = learned.auc(at, here) - learned.auc(at, other.loc[here.index])
    else:
        value = learned.alike(at, here, baseline.loc[here.index]) - learned.alike(at, here, other.loc[here.index])
    return Number(float(value), reason="" if np.isfinite(value) else "too few rows are lost, or kept")


def pie_excess(split: str, place: Place, model: str) -> Number | None:
    """Share of the rows whose modal answer over a population differs from the dense one's, less the same of another
    dense population, in points; None unless this seed is the first of a population that has them all."""
    if place.population is None:
        return None
    own, others = place.population
    tables_of = [[place.rows_at(seed, name) for seed in seeds]
                 for seeds, name in ((own, model), (own, "dense"), (others, "dense"))]
    if any(rows is None for population in tables_of for rows in population):
        return None
    compressed, dense, other = (populations.modal(np.stack([rows["pred"].to_numpy(int) for rows in population]))
                                for population in tables_of)
    weights = place.split_weights(tables_of[1][0], split)
    parts = 100 * weights * ((compressed != dense).astype(float) - (other != dense))
    return Number(float(parts.sum()), parts)
