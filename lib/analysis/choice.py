"""The practitioner's choice: which models no other beats, which fit a budget, and what those have forgotten.

The final table holds one row a model: model | dev | ood | label_loyalty | after_attack | bytes | latency_ms and more.
Scores are shares in [0, 1]; bytes are those on disk, latency_ms is the time of one example. NaN is "not measured".
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from lib.analysis.tables import case_name
from lib.errors import StudyError, nearest

FRONT = {"dev": "high", "ood": "high", "label_loyalty": "high", "after_attack": "high", "bytes": "low",
         "latency_ms": "low"}


def combine(points: pd.DataFrame, loyal: pd.DataFrame, broken: pd.DataFrame, sizes: pd.DataFrame, fastest: pd.DataFrame,
            ood: Iterable[str]) -> pd.DataFrame:
    """The final table, a row for each model of `points` (`tables.points`).

    loyal: `loyalty.by_split` with a column model (dense follows itself: 1); label_loyalty is that on test, loyalty_ood
    the mean over the splits `ood`. broken: `attack.summary` with a column model. sizes: `costs.sizes`, indexed by
    model. fastest: `costs.fastest`, of which batch 1 counts; path says how. front: on the Pareto front of all of FRONT.
    """
    followed = loyal[loyal["measure"] == "label_loyalty"].pivot(index="model", columns="split", values="value")
    followed.loc["dense"] = 1.0
    after = broken[broken["measure"] == "after_attack_accuracy"].set_index("model")["value"]
    one = fastest[fastest["batch"] == 1].set_index("model")
    by_model = points["model"].map
    table = points.assign(
        label_loyalty=by_model(followed["test"]), loyalty_ood=by_model(followed[list(ood)].mean(axis=1)),
        after_attack=by_model(after), bytes=by_model(sizes["bytes"]),
        nonzero_parameters=by_model(sizes["nonzero_parameters"]), latency_ms=by_model(one["latency_ms"]),
        path=by_model(one["path"]))
    return table.assign(front=front(table, FRONT))


def front(table: pd.DataFrame, better: Mapping[str, str]) -> pd.Series:
    """The Pareto front, a boolean a row: True where no row is as good in every column and better in one.

    better: column -> "high" or "low". A row with a NaN in one of the columns is not on the front and beats nobody.
    """
    _need(table, better)
    for column, direction in better.items():
        if direction not in ("high", "low"):
            raise StudyError(f"front: {column!r} is better {direction!r}; say 'high' or 'low'")
    values = table[list(better)].to_numpy(float, na_value=np.nan) * [1 if d == "high" else -1 for d in better.values()]
    known = ~np.isnan(values).any(axis=1)
    at_least = (values[:, None] >= values[None]).all(axis=2)  # [a, b]: a is nowhere worse than b; False with a NaN
    beaten = (at_least & ~at_least.T).any(axis=0)
    return pd.Series(known & ~beaten, index=table.index, name="front")


def recommend(table: pd.DataFrame, *, max_bytes: float | None = None, max_latency_ms: float | None = None,
              min_dev: float = 0.0) -> pd.DataFrame:
    """The models that fit, best OOD score first: rows of `table`, renumbered.

    max_bytes, max_latency_ms: budgets, None for none; min_dev: floor of the ID score, a share. A model that was not
    measured on what is asked for does not fit. Raises StudyError naming the nearest miss when none is left.
    """
    limits = {"bytes": ("max_bytes", max_bytes), "latency_ms": ("max_latency_ms", max_latency_ms)}
    limits = {column: limit for column, limit in limits.items() if limit[1] is not None}
    for name, budget in limits.values():
        if not budget > 0:
            raise StudyError(f"{name}={budget} leaves no model; give a budget above 0")
    if not 0 <= min_dev <= 1:
        raise StudyError(f"min_dev={min_dev:g} is no share; give 0.9 for 90 %")
    if table.empty:
        raise StudyError("recommend: the table has no row; give at least one model")
    _need(table, ["model", "dev", "ood", *limits])
    misses = pd.DataFrame({column: table[column] / budget - 1 for column, (_, budget) in limits.items()}
                          | {"dev": (min_dev - table["dev"]) / max(min_dev, 1e-9)}, index=table.index)
    misses = misses.clip(lower=0).fillna(np.inf)
    left = table[(misses == 0).all(axis=1)]
    if left.empty:
        limits["dev"] = "min_dev", min_dev
        budgets = ", ".join(f"{name}={limit:g}" for name, limit in limits.values())
        raise StudyError(f"no model fits {budgets}; {_nearest_miss(table, misses, limits)}")
    return left.sort_values("ood", ascending=False, kind="stable", ignore_index=True)


def _nearest_miss(table: pd.DataFrame, misses: pd.DataFrame, limits: dict[str, tuple[str, float]]) -> str:
    total = misses.sum(axis=1)
    at = int(total.to_numpy().argmin())
    if np.isinf(total.iloc[at]):
        never = [column for column in misses if np.isinf(misses[column]).all()]
        return f"no model was measured on {' and '.join(never or misses.columns)}"
    row = table.iloc[at]
    words = [f"{column} {row[column]:.6g} against {limits[column][0]}={limits[column][1]:g}"
             for column in misses if misses[column].iloc[at] > 0]
    return f"nearest is {row['model']!r}: {', '.join(words)}"


def worst(curve: pd.DataFrame, model: str, n: int = 3) -> pd.DataFrame:
    """What a model lost most of against dense: subcase | count | dense | model | lost | sure, at most n rows.

    curve: `tables.forgetting` (subcases, or OOD set x label where there are none), the dense model in it. dense, model:
    the scores, lost: dense - model (shares), only where above 0; sure: its interval, on the same rows, lies above 0.
    Subcases that train holds no row of are left out: they show the shortcut, not the compression.
    """
    _need(curve, ["model", "subcase", "count", "value", "lost", "lost_low"])
    for name in ("dense", model):
        if name not in set(curve["model"]):
            known = curve["model"].unique()
            raise StudyError(f"worst: no model {name!r} in the forgetting curve{nearest(name, known)}")
    seen = curve[curve["count"] != 0].set_index("subcase")
    dense, own = seen[seen["model"] == "dense"], seen[seen["model"] == model]
    own = own.reindex(dense.index)
    table = pd.DataFrame({"count": dense["count"], "dense": dense["value"], "model": own["value"],
                          "lost": own["lost"], "sure": own["lost_low"] > 0})
    return table[table["lost"] > 0].sort_values("lost", ascending=False, kind="stable").head(n).reset_index()


def forgets(curve: pd.DataFrame, model: str, n: int = 3) -> str:
    """`worst` in words, only what is surely lost: "role swap (5 rows) 90 -> 1"; empty where nothing does."""
    lost = worst(curve, model, len(curve))
    return ", ".join(f"{case_name(row.subcase, row.count_)} {100 * row.dense:.0f} -> {100 * row.model:.0f}"
                     for row in lost[lost["sure"]].head(n).rename(columns={"count": "count_"}).itertuples())


def _need(table: pd.DataFrame, columns: Iterable[str]) -> None:
    for column in columns:
        if column not in table:
            raise StudyError(f"the table has no column {column!r}{nearest(column, table.columns)}")
