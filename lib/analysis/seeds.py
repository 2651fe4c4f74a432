"""A model's numbers over seeds: the mean and its t interval over them, or of one seed the bootstrap interval over rows.

The functions take `rows`: (task, seed) -> model -> rows as `evidence.GatheredRuns.rows_of` gives them, a model called
dense among each. The tables' columns value, low, high are shares in [0, 1]; seeds counts what the mean is over;
interval says "seeds" or "rows", what the 95 % interval is over.
"""

import numpy as np
import pandas as pd

from lib import names
from lib.analysis import bootstrap, measures, tables
from lib.tasks import registry
from lib.tasks.task import Task

Rows = dict[tuple[str, int], dict[str, pd.DataFrame]]
MEASURES = ("test", "ood", "gap_difference", "loyalty_test", "loyalty_ood", "after_attack")
OF_ENTRY = ["guid", "split", "subcase", "group", "label", "correct", "confidence", "loss"]


def partners(full: list[int], alone: list[int]) -> dict[int, int]:
    """Full seed -> the seed whose dense model is its null: the n-th of those with a dense model alone for the n-th full
    one, so that no dense model stands in two pairs; those for which there is none are left out."""
    return dict(zip(sorted(full), sorted(alone)))


def means(rows: Rows, n_boot: int = 1000) -> pd.DataFrame:
    """task | model | measure | value | low | high | seeds | interval.

    measure: test and ood (the scores of `measures.overall`), gap_difference (test - ood, less the dense model's of the
    same seed), loyalty_test and loyalty_ood (label loyalty; OOD rows pooled), after_attack.
    """
    by_seed: dict[tuple, dict[int, float]] = {}
    for (task, seed), models in rows.items():
        for key, value in _drawn(models, registry.get(task), 0).items():
            by_seed.setdefault((task, *key), {})[seed] = float(value[0])
    alone: dict[tuple, dict] = {}  # models of one seed, whose rows have to tell how sure the numbers are
    for (task, model, _), values in by_seed.items():
        if len(values) == 1:
            place = (task, *values)
            alone.setdefault(place, {"dense": rows[place]["dense"]})[model] = rows[place][model]
    drawn = {(task, *key): values for (task, _), models in alone.items()
             for key, values in _drawn(models, registry.get(task), n_boot).items()}
    return pd.DataFrame([dict(zip(("task", "model", "measure"), key)) | _summary(list(values.values()), drawn.get(key))
                         for key, values in by_seed.items()])


def churn(pairs: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]], n_boot: int = 1000) -> pd.DataFrame:
    """Labels that differ: model | split | value | low | high | lost | gained | seeds | interval.

    pairs: under each model's name its rows and the dense model's, a pair a seed. lost, gained: shares of the rows that
    only the dense model, only the model gets right.
    """
    flipped = {model: [measures.flipped(dense, rows) for rows, dense in of_model] for model, of_model in pairs.items()}
    alone = {(model, split): part for model, frames in flipped.items() if len(frames) == 1
             for split, part in frames[0].groupby("split", sort=False)}
    drawn = _bootstrapped(alone, ["accuracy"] * len(alone), n_boot)
    shares = []
    for model, frames in flipped.items():
        means = [frame.groupby("split", sort=False)[["correct", "lost", "gained"]].mean() for frame in frames]
        for split, part in pd.concat(means).groupby(level=0, sort=False):
            shares.append({"model": model, "split": split, "lost": part["lost"].mean(), "gained": part["gained"].mean()}
                          | _summary(part["correct"].tolist(), drawn.get((model, split))))
    return pd.DataFrame(shares, columns=["model", "split", "value", "low", "high", "lost", "gained", "seeds",
                                         "interval"])


def wide(table: pd.DataFrame, keys: str | list[str]) -> pd.DataFrame:
    """A long table of measures with one row for each of `keys` (the index): columns x, x_low, x_high of a measure x."""
    result = table.pivot(index=keys, columns="measure", values=["value", "low", "high"])
    columns = [name if end == "value" else f"{name}_{end}" for end, name in result.columns]
    return result.set_axis(columns, axis="columns")


def mitigation_points(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """What the mitigations do in one task, points for `curves.mitigation_plane`, from `means`: model | loss | dev |
    ood and their _low and _high; dev is the score on test.

    Points are the dense model, the compressions that a mitigation was tried on, and these with each loss at the
    profile's own setting; all models where no mitigation was tried.
    """
    part = table[(table["task"] == task) & table["measure"].isin(["test", "ood"])].replace({"measure": {"test": "dev"}})
    parsed = part["model"].map(names.parse)
    mended = {name.base for name in parsed if name.loss in names.MITIGATIONS}
    told = parsed.map(lambda name: name.base in mended and not name.quantization and not name.setting
                      and name.loss not in names.TRANSFERS)
    part = part[(part["model"] == "dense") | told] if mended else part
    points = wide(part, "model").loc[part["model"].unique()]
    points.insert(0, "loss", [name.partition(" + ")[2] or "vanilla" for name in points.index])
    return points.reset_index()


def _drawn(models: dict[str, pd.DataFrame], task: Task, n_boot: int) -> dict[tuple[str, str], np.ndarray]:
    """(model, measure) -> its values [1 + n_boot], all from one draw; a measure that was not taken is left out."""
    ood = [split for split in tables.ood_splits(task) if (models["dense"]["split"] == split).any()]
    parts, kinds = {}, {}
    for name, rows in models.items():
        chosen = {split: (rows["split"] == split, "correct") for split in ("test", *ood)} | {
            "loyalty_test": (rows["split"] == "test", "label_loyalty"),
            "loyalty_ood": (rows["split"].isin(ood), "label_loyalty"),
            "after_attack": (rows["after_attack"].notna(), "after_attack")}
        for part, (here, column) in chosen.items():
            if here.any():
                parts[name, part], kinds[name, part] = (rows, here, column), measures.kind_of(task, part)
    if n_boot:
        values = _bootstrapped({key: _as_correct(*part) for key, part in parts.items()}, list(kinds.values()), n_boot)
    else:
        values = {key: np.array([_observed(*part, kinds[key])]) for key, part in parts.items()}
    result = {}
    for name in models:
        values[name, "ood"] = measures.ood_score({split: values[name, split] for split in ood})
        values[name, "gap"] = measures.gap(values[name, "test"], values[name, "ood"])
    for name in models:
        values[name, "gap_difference"] = values[name, "gap"] - values["dense", "gap"]
        result |= {(name, measure): values[name, measure] for measure in MEASURES if (name, measure) in values}
    return result


def _as_correct(rows: pd.DataFrame, here: pd.Series, column: str) -> pd.DataFrame:
    """Some rows for `lib.analysis.bootstrap`, with that column for `correct`."""
    return rows.loc[here, OF_ENTRY].assign(correct=rows.loc[here, column].astype(bool))


def _observed(rows: pd.DataFrame, here: pd.Series, column: str, kind: str) -> float:
    if kind == "accuracy":  # without resamples a mean does
        return float(rows[column].to_numpy()[here.to_numpy()].astype(float).mean())
    return measures.score(_as_correct(rows, here, column), kind)


def _summary(values: list[float], drawn: np.ndarray | None) -> dict:
    """value, low, high, seeds, interval of the seeds' values; drawn: a single seed's bootstrap [1 + n_boot]."""
    own = (np.nan, np.nan) if drawn is None else bootstrap.interval(drawn)
    return bootstrap.of_seeds(values, *own) | {"interval": "rows" if len(values) == 1 else "seeds"}


def _bootstrapped(parts: dict[tuple, pd.DataFrame], kinds: list[str], n_boot: int) -> dict[tuple, np.ndarray]:
    """The score [1 + n_boot] of each part, all from one draw."""
    if not parts:
        return {}
    entry = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    frame = pd.concat([part[OF_ENTRY] for part in parts.values()], ignore_index=True)
    return dict(zip(parts, bootstrap.scores(frame, entry, kinds, n_boot, seed=0).T))
