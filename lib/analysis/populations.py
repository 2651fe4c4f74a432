"""Pruning identified exemplars (PIEs): the rows that a compressed population answers otherwise than the dense one.

A population is one model made from several seeds; its answer to a row is the modal prediction, of labels with as many
votes the lowest (two classes and an odd number of models never tie, so populations are cut to an odd number). A PIE is
a row whose modal prediction over the compressed population is not that over the dense one of the same seeds (Hooker et
al. 2019, arXiv 1911.05248). Dense populations of other seeds differ as well: that churn is the null, and only the
excess over it is owed to compression.

A compressed model shares its train draw with the dense model of its seed; the other dense population has other draws,
in the micro-world with other subcases rare. So the null is large and `excess` small rather than large. `pies_other`
counts PIEs against the other dense population, as strange to the compressed models as to the dense ones: `excess_other`
is like with like. Intervals are over rows, given these models; `spread` shows how far the null moves with its seeds.

Everywhere `runs` is {seed: {model: rows of measures.rows}}: seeds with `dense` and compressed models, and further seeds
with `dense` alone for the null. Rows are those of test and of the OOD sets but `unseen`.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.analysis import bootstrap, forecast, tables
from lib.errors import StudyError
from lib.tasks import registry
from lib.tasks.task import Task

Runs = dict[int, dict[str, pd.DataFrame]]
DESCRIBED = ["guid", "split", "label", "subcase", "is_shortcut", "group"]


def compressions(runs: Runs) -> list[str]:
    """The models but `dense` that every seed with more than a dense model has, in the order of the first."""
    full = [models for models in runs.values() if set(models) != {"dense"}]
    return [name for name in (full[0] if full else {}) if name != "dense" and all(name in models for models in full)]


def paired_seeds(runs: Runs, names: list[str]) -> tuple[list[int], list[int]]:
    """Seeds of the populations and of the other dense one: the first that have all of `names`, and the first that have
    `dense` alone; as many of each, an odd number. Raises StudyError where there is none.
    """
    own = sorted(seed for seed, models in runs.items() if {*names, "dense"} <= set(models))
    others = sorted(seed for seed, models in runs.items() if set(models) == {"dense"})
    n = min(len(own), len(others))
    if n == 0:
        lacking = "no other seed has 'dense' alone: raise grid.dense_seeds" if own else \
            f"no seed has all of {', '.join(['dense', *names])}"
        raise StudyError(f"PIEs need a compressed and two dense populations, but {lacking}")
    return own[:n - 1 + n % 2], others[:n - 1 + n % 2]


def modal(predictions: np.ndarray) -> np.ndarray:
    """The most frequent label of each row [n] of labels [models, n]; of several the lowest."""
    labels = np.arange(predictions.max() + 1)
    return (predictions[..., None] == labels).sum(axis=0).argmax(axis=1)


def exemplars(runs: Runs, names: list[str], task: Task) -> pd.DataFrame:
    """One row per model and evaluation row: model guid split label subcase is_shortcut group | compressed dense other |
    pie churn pie_other.

    compressed, dense, other: modal predictions of the compressed, the dense and the other dense population. pie:
    compressed differs from dense; churn: other differs from dense; pie_other: compressed differs from other. Raises
    StudyError where a model lacks a row.
    """
    own, others = paired_seeds(runs, names)
    rows = _rows(runs[own[0]]["dense"], task)
    dense, other = (modal(_predictions(runs, population, "dense", rows["guid"])) for population in (own, others))
    frames = []
    for name in names:
        compressed = modal(_predictions(runs, own, name, rows["guid"]))
        frames.append(rows.assign(model=name, compressed=compressed, dense=dense, other=other, pie=compressed != dense,
                                  churn=other != dense, pie_other=compressed != other))
    frame = pd.concat(frames, ignore_index=True)
    return frame[["model", *frame.columns.drop("model")]]


def shares(table: pd.DataFrame, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The PIEs of `exemplars`: model | split | measure | count | n | value | low | high; all from one draw of rows.

    - pies, null, pies_other: share of the n rows that are PIEs, that churn, that are PIEs against the other dense
      population; excess, excess_other: pies - null, pies_other - null.
    - dense_right: share of the n PIEs that the dense population gets right. fails: share on which the shortcut fails;
      fails_base: share of all rows; lift: fails / fails_base.
    - odds_ratio: odds of the shortcut failing on a PIE over those on another row, half a row added to each of the four
      counts (Haldane 1956); odds_ratio_null: the same of the rows that churn; odds_ratio_excess: their ratio.

    count: rows that the share counts (of a ratio: PIEs on which the shortcut fails; of a difference: of counts). NaN
    where there is no PIE or the task does not know where its shortcut fails.
    """
    parts = {name: part for name, part in table.groupby("model", sort=False)}
    first = next(iter(parts.values())).reset_index(drop=True)
    splits = first["split"].unique()
    fails = ~first["is_shortcut"].astype("boolean").fillna(True).to_numpy(bool)
    known = first["is_shortcut"].notna().groupby(first["split"]).all()
    columns = [np.ones(len(first)), fails, first["churn"], first["churn"] & fails]
    for part in parts.values():
        pie = part["pie"].to_numpy()
        columns += [pie, part["pie_other"], pie & fails, pie & (part["dense"] == part["label"])]
    cell = pd.Categorical(first["split"], categories=splits).codes.astype(int)
    sums = bootstrap.cell_sums(first, cell, np.column_stack(columns), n_boot, seed)[0][:, 0].transpose(1, 2, 0)
    return pd.DataFrame([{"model": name, "split": split, "measure": measure} | numbers for m, name in enumerate(parts)
                         for split, drawn in zip(splits, sums)
                         for measure, numbers in _measures(*drawn[:4], *drawn[4 + 4 * m:][:4], known[split]).items()])


def by_subcase(table: pd.DataFrame, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Where the PIEs lie: model | split | subcase | measure (pies, null, excess) | count | n | value | low | high."""
    parts = {name: part for name, part in table.groupby("model", sort=False)}
    first = next(iter(parts.values())).reset_index(drop=True)
    cells = first.groupby(["split", "subcase"], sort=False)
    columns = [np.ones(len(first)), first["churn"], *(part["pie"] for part in parts.values())]
    sums = bootstrap.cell_sums(first, cells.ngroup().to_numpy(), np.column_stack(columns), n_boot, seed)[0][:, 0]
    result = []
    for m, name in enumerate(parts):
        for (split, subcase), (n, null, *pies) in zip(cells.size().index, sums.transpose(1, 2, 0)):
            for measure, count in (("pies", pies[m]), ("null", null), ("excess", pies[m] - null)):
                place = {"model": name, "split": split, "subcase": subcase, "measure": measure}
                result.append(place | _share(count, n))
    return pd.DataFrame(result)


def spread(runs: Runs, names: list[str], task: Task) -> pd.DataFrame:
    """The null over every two dense populations of the size that `exemplars` has: split | value | low | high | pairs.

    value: mean share of rows that churn; low, high: its 2.5 and 97.5 % quantiles over the pairs. They share models: the
    range shows what chance in the seeds does and is no interval of the mean.
    """
    size = len(paired_seeds(runs, names)[0])
    dense = sorted(seed for seed, models in runs.items() if "dense" in models)
    rows = _rows(runs[dense[0]]["dense"], task)
    votes = _predictions(runs, dense, "dense", rows["guid"])
    answers = {chosen: modal(votes[list(chosen)]) for chosen in combinations(range(len(dense)), size)}
    differs = np.stack([answers[a] != answers[b] for a, b in combinations(answers, 2) if not set(a) & set(b)])
    result = []
    for split in rows["split"].unique():
        table = differs[:, rows["split"] == split].mean(axis=1)
        low, high = np.quantile(table, [0.025, 0.975])
        result.append({"split": split, "value": table.mean(), "low": low, "high": high, "pairs": len(table)})
    return pd.DataFrame(result)


class Pies(NamedTuple):
    """The tables `shares`, `by_subcase` and `spread` of every task that has two dense populations, each with a
    column task; empty where none has."""

    table: pd.DataFrame
    subcases: pd.DataFrame
    spread: pd.DataFrame


def pies(by_place: dict[tuple[str, int], dict[str, pd.DataFrame]]) -> Pies:
    """PIEs of every task, from (task, seed) -> model -> rows."""
    numbers = ["count", "n", "value", "low", "high"]
    frames = Pies([pd.DataFrame(columns=["task", "model", "split", "measure", *numbers])],
                  [pd.DataFrame(columns=["task", "model", "split", "subcase", "measure", *numbers])],
                  [pd.DataFrame(columns=["task", "split", "value", "low", "high", "pairs"])])
    for task in dict.fromkeys(task for task, _ in by_place):
        runs = {seed: rows for (of, seed), rows in by_place.items() if of == task}
        names = compressions(runs)
        if names and any(set(rows) == {"dense"} for rows in runs.values()):
            rows = exemplars(runs, names, registry.get(task))
            for parts, part in zip(frames, (shares(rows), by_subcase(rows), spread(runs, names, registry.get(task)))):
                parts.append(part.assign(task=task))
    return Pies(*(pd.concat(parts[1:] or parts, ignore_index=True)[parts[0].columns.tolist()] for parts in frames))


def most_changed(table: pd.DataFrame) -> str:
    """The compression of a PIE table of one task that changes the most OOD answers; one that took nothing from a dense
    model (`forecast.kind`), and so has nothing to forget, only where there is no other."""
    ood = table[(table["measure"] == "pies") & (table["split"] != "test")]
    changed = ood.groupby("model", sort=False)["value"].mean()
    return changed[list(filter(forecast.kind, changed.index)) or changed.index].idxmax()


def _rows(dense: pd.DataFrame, task: Task) -> pd.DataFrame:
    return dense.loc[dense["split"].isin(["test", *tables.ood_splits(task)]), DESCRIBED].reset_index(drop=True)


def _predictions(runs: Runs, population: list[int], name: str, guids: pd.Series) -> np.ndarray:
    """Predicted labels [seeds, rows] of a model in the order of `guids`."""
    result = []
    for seed in population:
        pred = runs[seed][name].set_index("guid")["pred"].reindex(guids)
        if pred.isna().any():
            raise StudyError(f"model {name!r} of seed {seed} has no prediction of guid {pred.index[pred.isna()][0]!r}: "
                             "PIEs need the same rows of all seeds")
        result.append(pred.to_numpy(int))
    return np.stack(result)


def _measures(n, fails, null, null_fail, pies, other, pies_fail, right, known: bool) -> dict[str, dict]:
    """The measures of `shares` from the sums [1 + n_boot] of one model and split."""
    odds, odds_null = _odds_ratio(pies_fail, pies, fails, n), _odds_ratio(null_fail, null, fails, n)
    of_truth = {"fails": _share(pies_fail, pies), "fails_base": _share(fails, n),
                "lift": _estimate(bootstrap.ratio(pies_fail * n, pies * fails), pies_fail[0], n[0]),
                "odds_ratio": _estimate(odds, pies_fail[0], n[0]),
                "odds_ratio_null": _estimate(odds_null, null_fail[0], n[0]),
                "odds_ratio_excess": _estimate(bootstrap.ratio(odds, odds_null), pies_fail[0], n[0])}
    unknown = dict.fromkeys(("count", "value", "low", "high"), np.nan)
    return {"pies": _share(pies, n), "null": _share(null, n), "excess": _share(pies - null, n),
            "pies_other": _share(other, n), "excess_other": _share(other - null, n), "dense_right": _share(right, pies),
            **{measure: numbers if known else numbers | unknown for measure, numbers in of_truth.items()}}


def _odds_ratio(both: np.ndarray, hit: np.ndarray, fails: np.ndarray, n: np.ndarray) -> np.ndarray:
    odds = (both + 0.5) * (n - hit - fails + both + 0.5) / ((hit - both + 0.5) * (fails - both + 0.5))
    return np.where(hit > 0, odds, np.nan)


def _share(count: np.ndarray, n: np.ndarray) -> dict:
    return _estimate(bootstrap.ratio(count, n), count[0], n[0])


def _estimate(drawn: np.ndarray, count: float, n: float) -> dict:
    estimate = bootstrap.estimate(drawn, round(n))
    if np.isnan(drawn[0]):
        estimate |= {"low": np.nan, "high": np.nan}
    return {"count": round(count), "n": estimate.pop("n"), **estimate}
