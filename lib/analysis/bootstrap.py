"""Intervals for scores whose rows are not independent: the hierarchical bootstrap, vectorised.

What is resampled, and why:

* seed - the models of one seed share a training draw, so seeds are drawn whole and shared by all compared models.
  The evaluation rows are the same for every seed: rows and seeds are *crossed* (Owen 2007), each row draw is used
  for all seeds of a replicate. Drawing rows anew within each seed would pass one test set off as several.
* group - rows made by one template, or that share a claim or premise, are drawn together, over models, seeds and
  splits alike. A row whose `group` is empty is a group of its own.
* row - drawn within its group where a stratum has fewer than `FEW` groups, too few to show the spread of rows (one
  template shows none). Drawing groups carries the row level too, so this counts it twice (Davison and Hinkley 1997,
  3.8) and may be up to 1.4 times too wide where templates do not matter; with more groups it is left out.
* split and subcase are fixed by design, hence strata: groups are drawn within them. Strata that share a group
  (Sym1 and Sym2 share claims) are drawn as one.

G units are drawn G - 1 at a time and weighted G / (G - 1), which keeps the variance unbiased for the five seeds or
few templates there are (Rao and Wu 1988); it makes E[weight^2] = 2, hence the damping of row draws under drawn groups.
Intervals of fewer than about ten units remain rough, those over seeds and rows wide rather than narrow.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import sparse, stats
from scipy.sparse.csgraph import connected_components

from lib.errors import StudyError

CHUNK = 4_000_000  # weights drawn at a time
HELD = 16_000_000  # most weights kept for the next call on the same rows (128 MB)
FEW = 10


def units(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn: the unit of each row [n], the block of each unit [units], the stratum of each block [blocks].

    frame: columns guid, split, subcase, group. In a stratum of many groups the units are groups and the stratum is
    one block; in a stratum of few the units are rows and each group is a block.
    """
    row = "row " + frame["guid"].astype(str)
    names = frame["group"].fillna("").astype(str)
    names = names.where(names != "", row)
    group = pd.factorize(names)[0]
    cell = frame.groupby(["split", "subcase"], sort=False, dropna=False).ngroup().to_numpy()
    n_groups, n_cells = group.max() + 1, cell.max() + 1
    links = sparse.coo_matrix((np.ones(len(group)), (group, n_groups + cell)), shape=(n_groups + n_cells,) * 2)
    component = connected_components(links, directed=False)[1]
    few = (np.bincount(component[:n_groups]) < FEW)[component[group]]
    unit = pd.factorize(names.where(~few, row))[0]
    block = pd.factorize(np.where(few, component.size + group, component[group]))[0]
    block_of_unit = np.empty(unit.max() + 1, dtype=np.int64)
    block_of_unit[unit] = block
    stratum_of_block = np.empty(block.max() + 1, dtype=np.int64)
    stratum_of_block[block] = component[group]
    return unit, block_of_unit, stratum_of_block


def draw(strata: np.ndarray, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """Weights [n_boot, units] of a bootstrap that draws units within their stratum."""
    weights = np.ones((n_boot, len(strata)))
    order = np.argsort(strata, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        size = len(members)
        if size > 1:
            drawn = rng.integers(0, size, (n_boot, size - 1)) + size * np.arange(n_boot)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=n_boot * size).reshape(n_boot, size)
            weights[:, members] = counts * (size / (size - 1))
    return weights


def _rng(seed: int, of: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[of])


def _unit_weights(blocks: bytes, strata: bytes, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """Weights [some, units] of the resamples, a chunk at a time, of the blocks and strata of `units` as bytes."""
    block, stratum = (np.frombuffer(codes, dtype=np.int64) for codes in (blocks, strata))
    damping, rng = np.where(np.bincount(stratum)[stratum] > 1, np.sqrt(0.5), 1.0)[block], _rng(seed, 1)
    step = max(1, CHUNK // len(block))
    for start in range(0, n_boot, step):
        n = min(step, n_boot - start)
        yield draw(stratum, n, rng)[:, block] * (1 + damping * (draw(block, n, rng) - 1))


@lru_cache(maxsize=2)  # contrasts on the same rows come one after the other
def _held(*key) -> list[np.ndarray]:
    return list(_unit_weights(*key))


def cell_sums(frame: pd.DataFrame, cell: np.ndarray, values: np.ndarray, n_boot: int,
              seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values [n, k] over the cells [n] of a table, as observed and under each resample.

    Returns sums [1 + n_boot, seeds, cells, k] and the weights of the seeds [1 + n_boot, seeds]; entry 0 is the
    observed one. The same rows and `seed` give the same draws whatever the cells and values.
    """
    alike = np.zeros(1, dtype=np.int64)  # without resamples it does not matter what would be drawn
    unit, block, stratum = units(frame) if n_boot else (np.zeros(len(frame), dtype=np.int64), alike, alike)
    of_seed = pd.factorize(frame["seed"], sort=True)[0] if "seed" in frame else np.zeros(len(frame), dtype=int)
    n_units, n_seeds, n_cells, k = len(block), of_seed.max() + 1, cell.max() + 1, values.shape[1]
    column = of_seed * n_cells + cell
    shape = (n_units, n_seeds * n_cells)
    table = sparse.hstack([sparse.csr_matrix((values[:, j].astype(float), (unit, column)), shape=shape)
                           for j in range(k)], format="csr")
    seed_weights = np.vstack([np.ones(n_seeds), draw(np.zeros(n_seeds, dtype=int), n_boot, _rng(seed, 0))])
    parts = [np.asarray(table.sum(axis=0))]
    key = block.tobytes(), stratum.tobytes(), n_boot, seed
    parts += [weights @ table for weights in (_held(*key) if n_boot * n_units <= HELD else _unit_weights(*key))]
    sums = np.concatenate(parts).reshape(n_boot + 1, k, n_seeds, n_cells)
    return np.ascontiguousarray(np.moveaxis(sums, 1, -1)), seed_weights


def mean_known(values: np.ndarray, axis: int, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Weighted mean over an axis of the values that are known; NaN where none is."""
    known = ~np.isnan(values) * weights
    return ratio((np.nan_to_num(values) * known).sum(axis=axis), known.sum(axis=axis))


def scores(frame: pd.DataFrame, entry: np.ndarray, kinds: list[str], n_boot: int, seed: int,
           bins: int = 10) -> np.ndarray:
    """Scores [1 + n_boot, entries] of the entries (models, splits, subcases...) that the rows belong to.

    frame: one row per prediction as `measures.rows` makes them; rows of one guid or group get one weight in all
    entries, so differences between entries are paired. entry: code [n] of each row's entry. kinds: per entry
    accuracy, balanced (mean over subcases of the mean over labels), confidence, loss (means), overconfidence
    (confidence - accuracy) or ece (expected calibration error, `bins` equal widths). With several seeds: the mean
    of the seeds' scores. Entry 0 of the first axis is the observed score.
    """
    is_ece = np.array([k == "ece" for k in kinds])[entry]
    bin_ = np.minimum((frame["confidence"].to_numpy() * bins).astype(int), bins - 1)
    subcase = pd.factorize(frame["subcase"], use_na_sentinel=False)[0]
    keys = pd.DataFrame({"entry": entry, "major": np.where(is_ece, bin_, subcase),
                         "minor": np.where(is_ece, 0, frame["label"].to_numpy())})
    grouped = keys.groupby(["entry", "major", "minor"], sort=True)
    cells = grouped.size().reset_index()
    values = np.column_stack([frame["correct"], frame["confidence"], frame["loss"], np.ones(len(frame))]).astype(float)
    sums, seed_weights = cell_sums(frame, grouped.ngroup().to_numpy(), values, n_boot, seed)
    return np.column_stack([
        mean_known(_fold(sums[:, :, mine.index], mine["major"].to_numpy(), kind), 1, seed_weights)
        for kind, (_, mine) in zip(kinds, cells.groupby("entry"), strict=True)])


def _fold(sums: np.ndarray, major: np.ndarray, kind: str) -> np.ndarray:
    """One score [1 + n_boot, seeds] from an entry's sums [1 + n_boot, seeds, cells, (correct, confidence, loss, n)]."""
    correct, confidence, loss, n = np.moveaxis(sums, -1, 0)
    if kind == "balanced":
        per_cell = ratio(correct, n)
        per_subcase = np.stack([mean_known(per_cell[..., major == m], -1) for m in np.unique(major)], axis=-1)
        return mean_known(per_subcase, -1)
    top = {"accuracy": correct, "confidence": confidence, "loss": loss, "overconfidence": confidence - correct,
           "ece": np.abs(confidence - correct)}[kind]
    return ratio(top.sum(-1), n.sum(-1))


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN where bottom is not above 0."""
    return np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, np.nan), where=bottom > 0)


def interval(replicates: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval (low, high) over axis 0 of statistics whose entry 0 is the observed one.

    NaN where there is no resample, or where a statistic is unknown in all of them.
    """
    drawn = replicates[1:]
    low, high = np.full(drawn.shape[1:], np.nan), np.full(drawn.shape[1:], np.nan)
    known = ~np.isnan(drawn).all(axis=0) if len(drawn) else np.zeros(drawn.shape[1:], dtype=bool)
    if known.any():
        low[known], high[known] = np.nanquantile(drawn[:, known], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % t interval (low, high) of the mean of values [..., two or more seeds]."""
    values = np.asarray(values, dtype=float)
    k = values.shape[-1]
    half = stats.t.ppf(0.975, k - 1) * values.std(axis=-1, ddof=1) / np.sqrt(k)
    return values.mean(axis=-1) - half, values.mean(axis=-1) + half


def of_seeds(values: np.ndarray, low: float = np.nan, high: float = np.nan) -> dict:
    """value, low, high, seeds: the mean of the seeds' values and its t interval; of one seed low and high, its own."""
    if len(values) > 1:
        low, high = t_interval(values)
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high), "seeds": len(values)}


def intervals(entries: list[tuple[dict, pd.DataFrame, str]], n_boot: int, seed: int) -> pd.DataFrame:
    """One row per entry (names, its rows, kind of score), all drawn together: names | value | low | high | n."""
    frame = pd.concat([part for _, part, _ in entries], ignore_index=True)
    entry = np.repeat(np.arange(len(entries)), [len(part) for _, part, _ in entries])
    drawn = scores(frame, entry, [kind for _, _, kind in entries], n_boot, seed)
    return pd.DataFrame([name | estimate(drawn[:, i], part["guid"].nunique())
                         for i, (name, part, _) in enumerate(entries)])


def estimate(drawn: np.ndarray, n: int) -> dict:
    """value, low, high, n of a statistic [1 + n_boot]; n: distinct rows."""
    low, high = interval(drawn)
    return {"value": float(drawn[0]), "low": float(low), "high": float(high), "n": int(n)}


def share(top: np.ndarray, bottom: np.ndarray, n: int) -> dict:
    """`estimate` of top / bottom with a flag: `undefined` and NaN unless the interval of `bottom` lies above 0."""
    low, high = interval(bottom)
    if low <= 0 or bottom[0] <= 0:
        return {"value": np.nan, "low": np.nan, "high": np.nan, "n": int(n), "flag": "undefined"}
    return estimate(np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0), n) | {"flag": ""}


def aligned(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames in the order of a, with a column `seed` that pairs them: their own, or 0 where each has only one.

    Raises StudyError unless both hold the same guids and seeds, each once.
    """
    seeds = [set(r["seed"].unique()) if "seed" in r else {0} for r in (a, b)]
    if max(map(len, seeds)) == 1:
        a, b = a.assign(seed=0), b.assign(seed=0)
    elif seeds[0] != seeds[1]:
        raise StudyError(f"paired measures need the same seeds on both sides, not {sorted(seeds[0])} and "
                         f"{sorted(seeds[1])}")
    same = all(a[name].array.equals(b[name].array) for name in ("seed", "guid"))
    for frame in (a,) if same else (a, b):
        twice = frame.duplicated(["seed", "guid"])
        if twice.any():
            raise StudyError(f"guid {frame.loc[twice, 'guid'].iloc[0]!r} stands there twice: give one model's rows")
    if same:
        return a, b
    left, right = (pd.MultiIndex.from_frame(r[["seed", "guid"]]) for r in (a, b))
    odd = left.symmetric_difference(right)
    if len(odd):
        raise StudyError(f"paired measures need the same rows on both sides: guid {odd[0][1]!r} is on one only")
    return a, b.iloc[right.get_indexer(left)]


def paired(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Two models' rows in one frame and the code [n], 0 or 1, of each row's model. Errors as `aligned`."""
    a, b = aligned(a, b)
    return pd.concat([a, b], ignore_index=True), np.repeat([0, 1], [len(a), len(b)])


def merged(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Two models' rows side by side: pred_a, correct_a, pred_b, correct_b. Errors as `aligned`."""
    a, b = aligned(a, b)
    renamed = a.rename(columns={"pred": "pred_a", "correct": "correct_a"})
    return renamed.assign(pred_b=b["pred"].to_numpy(), correct_b=b["correct"].to_numpy())
