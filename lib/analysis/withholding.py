"""Why a verdict on a compressed model is withheld, and what else makes its numbers mean less than they seem."""

from itertools import permutations

import numpy as np
import pandas as pd

from lib.analysis import measures
from lib.tasks.own import FEW, overview
from lib.tasks.task import Task, set_name

DOUBT = 0.2  # share of rows by which another order of the classes must fit better before the given one is doubted
MANY = 6  # classes beyond which orders are not tried
CONSTANT = 0.99  # share of one answer from which a model gives one class only
KNOWN = 0.01  # share of a set's rows in train from which its score is partly memory


def reasons(rows: dict[str, pd.DataFrame], items: pd.DataFrame, task: Task, numbers: pd.DataFrame,
            named: bool = True) -> list[str]:
    """A sentence for each reason to give no verdict, with its numbers, the gravest first.

    rows: of `model` and `parent`, as `measures.rows` makes them; numbers: of `lib.analysis.verdict`. named: whether a
    class means the same in every row; else its answers are not looked at by class.
    """
    on_id = {name: table[table["split"] == "test"] for name, table in rows.items()}
    said = [line for name, table in on_id.items() if named and (line := wrong_order(table, task.labels, name))]
    said += [line for name, table in on_id.items()
             if named and (line := _constant(table, task.labels, f"{name} gives", "the ID rows"))]
    scores = numbers[(numbers["measure"] == "score") & (numbers["of"] == "parent")].set_index("on")
    label, own = on_id["parent"]["label"], scores.loc["id"]
    floor = float(label.value_counts(normalize=True).max()) if named else task.chance("test")
    if own["low"] <= floor:
        said.append(f"the parent is right on {own['value']:.1%} [{own['low']:.1%}, {own['high']:.1%}] of the ID rows, "
                    f"{'the majority class on' if named else 'a guess on'} {floor:.1%}: it has not learned the task")
    if "ood" in scores.index:
        outside, chance = scores.loc["ood"], _chance(rows["parent"], task)
        if outside["low"] <= chance:
            said.append(f"the parent scores {outside['value']:.1%} [{outside['low']:.1%}, {outside['high']:.1%}] OOD, "
                        f"chance {chance:.1%}: it has no OOD skill that could be lost")
    for split, table in rows["parent"].groupby("split", sort=False):
        if split != "test" and split not in task.scored:
            continue
        if len(table) < FEW:
            said.append(f"{set_name(split)} has {len(table)} rows; fewer than {FEW} tell too little")
        if named and table["label"].nunique() == 1:
            said.append(f"every row of {set_name(split)} has the label "
                        f"'{task.classes(split)[table['label'].iloc[0]]}': a model that always says so is right on all")
    return said + [f"{n} of {of} rows of {set_name(split)} stand in train too ({n / of:.1%}): its score is partly "
                   "memory" for split, n, of in _in_train(items, task) if n >= KNOWN * of]


def doubts(rows: dict[str, pd.DataFrame], items: pd.DataFrame, task: Task, named: bool = True) -> list[str]:
    """A sentence for each thing to know that is no reason to withhold the verdict."""
    said = []
    for name, table in rows.items():
        for split in (split for split in task.ood if named and (table["split"] == split).any()):
            part = table[table["split"] == split]
            told = _constant(part, task.classes(split), f"{name} gives", split) or (
                task.ood[split].collapse is None and _misses(part, task.labels, name, split))
            if told:
                said.append(f"{told}: that is what a follower of the shortcut does, no fault of its labels.")
    return said + [f"{n} of {of} rows of {set_name(split)} stand in train too."
                   for split, n, of in _in_train(items, task) if 0 < n < KNOWN * of]


def wrong_order(rows: pd.DataFrame, labels: tuple[str, ...], name: str) -> str:
    """A sentence where another order of the classes fits the rows far better than the one in use; else ""."""
    now, best, order = _orders(rows, len(labels))
    if best - now < DOUBT:
        return ""
    return (f"{name} is right on {now:.0%} of the ID rows and would be right on {best:.0%} with its classes read as "
            f"{', '.join(labels[i] for i in order)}: is the order of its labels wrong?")


def _orders(rows: pd.DataFrame, n: int) -> tuple[float, float, tuple[int, ...]]:
    """Share right as it is, and in the best order of the classes, and that order."""
    own = tuple(range(n))
    if n > MANY:
        return 1.0, 1.0, own
    pairs = np.zeros((n, n))
    np.add.at(pairs, (rows["pred"].to_numpy(), rows["label"].to_numpy()), 1 / len(rows))
    fits = {order: pairs[range(n), order].sum() for order in permutations(range(n))}
    best = max(fits, key=fits.get)
    return fits[own], fits[best], best


def _misses(rows: pd.DataFrame, labels: tuple[str, ...], name: str, split: str) -> str:
    now, best, _ = _orders(rows, len(labels))
    return f"{name} is right on {now:.0%} of {split}, below a guess" if best - now >= DOUBT and now < 1 / len(labels) \
        else ""


def _constant(rows: pd.DataFrame, labels: tuple[str, ...], who: str, where: str) -> str:
    share = rows["pred"].value_counts(normalize=True)
    if share.iloc[0] < CONSTANT:
        return ""
    return f"{who} one class only: '{labels[share.index[0]]}' on {share.iloc[0]:.1%} of {where}"


def _chance(rows: pd.DataFrame, task: Task) -> float:
    there = set(rows["split"])
    return float(measures.ood_score({name: task.chance(name) for name in task.scored if name in there}))


def _in_train(items: pd.DataFrame, task: Task) -> list[tuple[str, int, int]]:
    """(split, its rows in train, its rows) of the sets of the two scores, where the texts are known."""
    train = items[items["split"] == "train"]
    if not (train["text_a"] != "").any():
        return []
    table = overview(items, task)
    return [(split, int(table.loc[split, "in_train"]), int(table.loc[split, "rows"]))
            for split in ("test", *task.scored) if split in table.index]
