"""What notebook 09 shows beside the ledger, over tasks and seeds: PIEs, prices, regrets, and tables put together over seeds."""

from typing import NamedTuple

import pandas as pd

from lib import foretelling, names, over_seeds, populations, report, rmc, tasks
from lib.contrasts import OTHER_DENSE
from lib.foretelling import ALL, EXCESS

MEANS = (ALL, OTHER_DENSE, EXCESS)


def plane(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """What the mitigations do in one task, points for `figures.mitigation_plane`, from `Found.over_seeds`: model | loss | dev |
    ood and their _low and _high; dev is the score on test.

    Points are the dense model, the compressions that a mitigation was tried on, and these with each loss at the profile's own
    setting; all models where no mitigation was tried.
    """
    part = table[(table["task"] == task) & table["measure"].isin(["test", "ood"])].replace({"measure": {"test": "dev"}})
    parsed = part["model"].map(names.parse)
    mended = {name.base for name in parsed if name.loss in names.MITIGATIONS}
    told = parsed.map(lambda name: name.base in mended and not name.quantization and not name.setting
                      and name.loss not in names.TRANSFERS)
    part = part[(part["model"] == "dense") | told] if mended else part
    wide = over_seeds.wide(part, "model").loc[part["model"].unique()]
    wide.insert(0, "loss", [name.partition(" + ")[2] or "vanilla" for name in wide.index])
    return wide.reset_index()


class Pies(NamedTuple):
    """The tables `populations.table`, `by_subcase` and `spread` of every task that has two dense populations, each with a
    column task; empty where none has."""

    table: pd.DataFrame
    subcases: pd.DataFrame
    spread: pd.DataFrame


def pies(found) -> Pies:
    """PIEs of every task, from `evidence.Found`."""
    shares = ["count", "n", "value", "low", "high"]
    frames = Pies([pd.DataFrame(columns=["task", "model", "split", "measure", *shares])],
                  [pd.DataFrame(columns=["task", "model", "split", "subcase", "measure", *shares])],
                  [pd.DataFrame(columns=["task", "split", "value", "low", "high", "pairs"])])
    for task in found.run.tasks:
        runs = {seed: rows for (of, seed), rows in found.by_run().items() if of == task}
        names = populations.compressions(runs)
        if names and any(set(rows) == {"dense"} for rows in runs.values()):
            rows = populations.exemplars(runs, names, tasks.get(task))
            for tables, table in zip(frames, (populations.table(rows), populations.by_subcase(rows),
                                              populations.spread(runs, names, tasks.get(task)))):
                tables.append(table.assign(task=task))
    return Pies(*(pd.concat(tables[1:] or tables, ignore_index=True)[tables[0].columns.tolist()] for tables in frames))


def most_changed(table: pd.DataFrame) -> str:
    """The compression of a PIE table of one task that changes the most OOD answers; one that took nothing from a dense
    model (`foretelling.kind`), and so has nothing to forget, only where there is no other."""
    ood = table[(table["measure"] == "pies") & (table["split"] != "test")]
    changed = ood.groupby("model", sort=False)["value"].mean()
    return changed[list(filter(foretelling.kind, changed.index)) or changed.index].idxmax()


def foretold(found) -> pd.DataFrame:
    """`foretelling.summary` of every task: task | model | kind | split | predictor | value | low | high | lost | n | seeds."""
    table = found.foretold()
    frames = [foretelling.summary(part).assign(task=task) for task, part in table.groupby("task", sort=False)]
    columns = ["task", "model", "kind", "split", "predictor", "value", "low", "high", "lost", "n", "seeds"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def one_run_says(one_run: pd.DataFrame, price: pd.DataFrame) -> str:
    """Whether the difficulty of one pruning run may stand for that of several, task by task, by the rule of
    `rmc.one_run_serves`; both tables over seeds."""
    lines = []
    ranks = price[(price["score"] == "v_one_run") & (price["on"] == "train") & (price["measure"] == "rank")]
    for row in ranks.itertuples():
        differences = one_run[one_run["task"] == row.task]
        ood = ", ".join(f"{r.base}: {report.interval(r.value, r.low, r.high)} OOD points" for r in differences.itertuples())
        serves = rmc.one_run_serves(row.value, differences)
        lines.append(f"- {row.task}: rank agreement {report.interval(row.value, row.low, row.high, 2, 1)}; RMC from one run less "
                     f"RMC from several, {ood or 'not trained'}. One run **{'serves' if serves else 'does not serve'}** by "
                     "the rule (agreement of 0.8, difference within a point).")
    return "\n".join(lines) or "No difficulty was measured."


def regret_says(regret: pd.DataFrame) -> str:
    """What choosing alpha without OOD data loses to the oracle, from regrets over seeds."""
    lines = [f"- {row.task}, {row.base}, rule {row.rule}: {report.interval(row.value, row.low, row.high)} OOD points lost to "
             f"the oracle's alpha over {row.seeds} seed{'s' * (row.seeds > 1)}" for row in regret.itertuples()]
    return "\n".join(lines) or "This profile tries one alpha: nothing to choose."
