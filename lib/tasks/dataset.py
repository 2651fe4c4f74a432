"""The items of a task: made, or read, freed of what train must not hold, and cut to size by fixed draws."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from lib.errors import StudyError
from lib.tasks import microworld
from lib.tasks.sources import read
from lib.tasks.task import Task

COLUMNS = ["guid", "split", "text_a", "text_b", "label", "heuristic", "subcase", "is_shortcut", "group"]
DEV_ROWS = 2000


def load(task: Task, *, seed: int, n_train: int, n_eval: int, n_ood: int, shortcut_rate: float = 0.9,
         subcase_counts: dict[str, int] | None = None, data_dir: str | Path | None = None) -> pd.DataFrame:
    """The items of a task [rows, COLUMNS]: train, dev, test and the OOD sets, in file order.

    n_train, n_eval and n_ood are upper bounds, 0 = all rows. n_train rows are drawn by `seed`, in the label mix of
    the file; n_eval caps dev and test, and n_ood each subcase x label of an OOD set, by fixed draws that no seed
    moves (an OOD set without subcases, and one of the panel, is taken whole). Where the task has no dev file, dev is
    held out of train by a fixed draw of whole groups: 2,000 rows, or a tenth of train if that is less.
    `attrs["sources"]` tells each file's split, name, origin, digest, copy and rows; `attrs["dropped"]` the train rows
    dropped, by split they occur in.
    """
    _check_sizes(task, {"n_train": n_train, "n_eval": n_eval, "n_ood": n_ood})
    if not task.tables:
        return microworld.generate(task.name, seed=seed, n_train=n_train, n_eval=n_eval, n_ood=n_ood,
                                   shortcut_rate=shortcut_rate, subcase_counts=subcase_counts)
    if subcase_counts:
        raise StudyError(f"subcase_counts is for the micro-world; task '{task.name}' is read from files: leave it "
                         "empty")
    splits, sources = {}, []
    for split, first in task.tables.items():
        frames, above = [], 0
        for table in (first, *first.also):
            frame, record = read(table, data_dir)
            sources.append({"split": split, **record})
            blank, numbers = frame["guid"] == "", above + frame["row"] - 1
            frame["guid"] = frame["guid"].where(~blank, [f"{task.name}-{split}-{number}" for number in numbers])
            frames.append(frame)
            above += frame["row"].iloc[-1]
        frame = pd.concat(frames, ignore_index=True)
        frame["group"] = frame["group"].where(frame["group"] != "", frame["guid"])
        splits[split] = frame.assign(split=split, is_shortcut=pd.array([pd.NA] * len(frame), dtype="boolean"))
    _refuse_twice(pd.concat(splits.values(), ignore_index=True))
    dropped = {}
    for other in task.train_without:
        seen = splits["train"]["group"].isin(splits[other]["group"])
        dropped[other] = int(seen.sum())
        splits["train"] = splits["train"][~seen]
    if "dev" not in splits:
        file, whole = splits["train"]["file"].iloc[0], splits["train"]
        splits["train"], splits["dev"] = _hold_out(whole, DEV_ROWS)
        if splits["dev"].empty:
            raise StudyError(f"{file}: its {len(whole)} rows, in {whole['group'].nunique()} groups, hold no tenth of "
                             "whole groups that could be dev; give more rows, or a dev file")
    train = splits["train"] = _stratified(splits["train"], n_train, seed)
    if train["label"].nunique() < 2:
        raise StudyError(f"train of '{task.name}' holds one label alone, '{task.labels[train['label'].iloc[0]]}', in "
                         f"{len(train)} rows; give rows of two or more, or raise n_train")
    for split in ("dev", "test"):
        splits[split] = _first_by_hash(splits[split], n_eval)
    for split in task.ood:
        if split not in task.panel and (splits[split]["subcase"] != "").any():
            cells = splits[split].groupby(["subcase", "label"], sort=False)
            splits[split] = pd.concat([_first_by_hash(cell, n_ood) for _, cell in cells]).sort_index()
    items = pd.concat([splits[split] for split in ("train", "dev", "test", *task.ood)], ignore_index=True)[COLUMNS]
    items.attrs = {"sources": sources, "dropped": dropped}
    return items


def _check_sizes(task: Task, sizes: dict[str, int]) -> None:
    """Raise StudyError for a number of rows that cannot be drawn."""
    least = {"n_train": 2, "n_eval": 1, "n_ood": 1}
    for name, n in sizes.items():
        if n < 0:
            raise StudyError(f"{name} is {n}; give 0 (all rows) or more")
        if not task.tables and n < least[name]:
            raise StudyError(f"{name} is {n}, but task '{task.name}' is made, not read, and has no 'all' rows; give "
                             f"{least[name]} or more")


def _refuse_twice(rows: pd.DataFrame) -> None:
    again = rows["guid"].duplicated()
    if again.any():
        second = rows[again].iloc[0]
        first = rows[rows["guid"] == second["guid"]].iloc[0]
        raise StudyError(f"{second['file']}: row {second['row']}, guid '{second['guid']}' stands already in "
                         f"{first['file']}, row {first['row']}; give every row of all splits a guid of its own")


def _by_hash(names: pd.Series) -> np.ndarray:
    """Positions in the order of the names' hashes: a fixed draw, whatever the seed and the file's order."""
    return np.argsort([hashlib.blake2b(name.encode(), digest_size=8).hexdigest() for name in names], kind="stable")


def _first_by_hash(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """n rows of a frame (0 = all) by a fixed draw, in the frame's order; smaller draws lie inside larger ones."""
    return frame.iloc[np.sort(_by_hash(frame["guid"])[:n])] if n else frame


def _hold_out(train: pd.DataFrame, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train without dev, and dev: whole groups by a fixed draw, so that no claim or premise stands in both."""
    n = min(n, len(train) // 10)
    sizes = train["group"].value_counts(sort=False)
    chosen, rows = [], 0
    for position in _by_hash(sizes.index.to_series()):
        if rows + sizes.iloc[position] <= n:
            chosen.append(sizes.index[position])
            rows += sizes.iloc[position]
        if rows == n:
            break
    held_out = train["group"].isin(chosen)
    return train[~held_out], train[held_out].assign(split="dev")


def _stratified(train: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """n rows (0 = all) drawn by seed in train's label mix (largest remainders), in file order."""
    if n == 0 or n >= len(train):
        return train
    shares = train["label"].value_counts().sort_index() * (n / len(train))
    counts = np.floor(shares).astype(int)
    counts[(shares - counts).sort_values(ascending=False, kind="stable").index[: n - counts.sum()]] += 1
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(np.flatnonzero(train["label"] == label), count, replace=False)
             for label, count in counts.items()]
    return train.iloc[np.sort(np.concatenate(drawn))]


def fingerprint(items: pd.DataFrame) -> str:
    """SHA-256 of the items' content: every value of every column, in row order."""
    total = hashlib.sha256()
    for column in COLUMNS:
        values = [None if value is pd.NA else value for value in items[column].tolist()]
        total.update(json.dumps([column, values]).encode())
    return total.hexdigest()
