"""The answer to the study's title in plain sentences, every number and word read from a run's tables."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from lib.analysis.forecast import ALL
from lib.analysis.tables import with_interval
from lib.figures.plot_answer import GATE, kind_of
from lib.figures.theme import label_of
from lib.names import OTHER_DENSE

TOLD = (("half the layers", r"truncated-\d+"), ("half the layers, distilled", r"truncated-\d+ \+ distil"),
        ("70 % of the encoder's weights", "imp-70"), ("70 %, twice the steps", "imp-70-2x"),
        ("40 % of the encoder's weights", "imp-40"), ("all but eight bits", r"dense \+ ptq8"))  # what each is without
EQUAL = {"holds": "no more is lost", "fails, reversed": "more is lost"}  # what T5 comes to
SEEDS = 5  # training runs below which nothing is more than an indication
MARGIN = 3  # points above chance below which no skill is left, as the ledger's gate has it
POOLED = "these tasks"  # of a ledger: no task of its own
NOT_MEASURED = "not measured"
PAPERS = {"A": "Du et al.", "B": "Xu et al."}
COUNTED = {"holds": "held", "holds, size open or small": "held, size open or small",
           "no such effect, or not of that size": "surely smaller than asked", "fails, reversed": "failed or reversed"}


class Run(NamedTuple):
    """The tables of notebook 09 that a story is told from. losses: `Study.losses`; ledger: `ledger.judged`; by_time:
    `Study.lost_by_time`; mends: mends.csv of 07b over the seeds, empty where it did not run."""

    losses: pd.DataFrame
    ledger: pd.DataFrame
    by_time: pd.DataFrame
    mends: pd.DataFrame

    def of(self, tasks: Iterable[str]) -> "Run":
        """The same of some tasks alone."""
        return Run(*(table[table["task"].isin(list(tasks))] for table in self))


def read(folder: Path) -> Run:
    """The tables of a finished notebook 09 from its folder."""
    losses, by_time, mends = (pd.read_csv(folder / f"{name}.csv", dtype={"gate": str})
                              for name in ("losses", "lost_by_time", "mends"))
    ledger = pd.read_csv(folder / "ledger.csv", keep_default_na=False).replace({"ours": {"": np.nan}})
    return Run(losses, ledger.astype({"ours": float}), by_time, mends)


def headline(runs: list[Run]) -> str:
    """The answer: a table of what each compression costs, then a line a question: which rows go, whether a dense model
    trained shorter loses as much, whether more steps bring it back, what the papers' claims come to, how sure all that
    is; of what the runs do not tell, nothing."""
    told = _together(runs)
    return _costs(told.losses) + _lines(
        ("Which rows go?", _late(told.ledger)), ("Is it more than too little training?", _equal(told.ledger)),
        ("Does more training bring it back?", _longer(told.ledger)),
        ("Do the papers' claims hold?", _papers(told.ledger)), ("How sure is that?", _rests(told)))


def tell(runs: list[Run]) -> str:
    """The `headline`, then where the loss lies, what mends it and what stays open. What the runs do not tell is left
    out, or named."""
    told = _together(runs)
    return headline(runs) + "\n" + _lines(("Where does the loss lie?", _where(told)), ("What mends it?", _mends(told)),
                                          ("What stays open?", _open(told.ledger)))


def _lines(*parts: tuple[str, str]) -> str:
    return "\n".join(f"- **{head}** {said}" for head, said in parts if said)


def _late(ledger: pd.DataFrame) -> str:
    return _sentences(("That they are those which the dense model had learned last (`T2`)", _words(ledger, "T2")),
                      ("That they are so beyond what another dense model loses (`T4`)", _words(ledger, "T4")))


def _longer(ledger: pd.DataFrame) -> str:
    return _sentences(("That a model without 70 % of its encoder's weights, trained for twice the steps, scores lower "
                       "OOD than the dense model (`C5`)", _words(ledger, "C5", numbers=True)),
                      ("That it scores lower than a dense model of as many steps (`C6`)",
                       _words(ledger, "C6", numbers=True)))


def _sentences(*said: tuple[str, str]) -> str:
    """`That ...: words. That ...: words.`, of what has words."""
    return " ".join(f"{what}: {words}." for what, words in said if words)


def _words(ledger: pd.DataFrame, claim: str, numbers: bool = False) -> str:
    """`*holds* in micro_nli and micro_paraphrase; *open* in ...`: tasks of one word together. numbers: each with its
    own, in points."""
    rows = _measured(ledger, claim)
    rows = rows[rows["word"].map(kind_of) != GATE]
    told = [f"{task} ({value:+.1f} points {interval})" if numbers and pd.notna(value) else task
            for task, value, interval in zip(rows["task"], rows["ours"], rows["interval"])]
    return "; ".join(f"*{word}* in {listed(names)}"
                     for word, names in pd.Series(told, rows.index, str).groupby(rows["word"], sort=False))


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def answers(ledger: pd.DataFrame, questions: dict[str, str]) -> str:
    """What a ledger says to questions, as a Markdown table: a row a question, a column a task, in each field the words
    of its claims.

    questions: question -> the ids of its claims, apart by blanks. What a task does not measure is left out, or said to
    be not measured where it is all that was asked.
    """
    ledger = measured(ledger)
    words = {task: dict(zip(rows["id"], rows["word"])) for task, rows in ledger.groupby("task", sort=False)}
    lines = [f"| question | {' | '.join(words)} |", f"| --- |{' --- |' * len(words)}"]
    for question, claims in questions.items():
        cells = ("; ".join(f"`{claim}` *{of[claim]}*" for claim in claims.split() if claim in of) or NOT_MEASURED
                 for of in words.values())
        lines.append(f"| {question} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _together(runs: list[Run]) -> Run:
    return Run(*(pd.concat(tables, ignore_index=True) for tables in zip(*runs)))


def _rests(told: Run) -> str:
    pilots = set(told.ledger.loc[told.ledger["pilot"] == "pilot", "task"])
    said = []
    for task, rows in told.losses.groupby("task", sort=False):
        n, planned = int(rows["seeds"].max()), int(rows["planned"].max())
        notes = [f"of {planned} planned: its words are interim"] * (n < planned) + ["a pilot"] * (task in pilots)
        said.append(f"{n} in {task}" + f" ({'; '.join(notes)})" * bool(notes))
    return (f"It rests on so many training runs of each model: {', '.join(said)}. The words in italics are those of "
            "one rule; its intervals are over runs.")


def _costs(losses: pd.DataFrame) -> str:
    """A table of the points that each compression of `TOLD` loses, with a line below it; "" where no run has one."""
    tasks, rows = list(losses["task"].unique()), []
    for name, pattern in TOLD:
        models = losses[losses["model"].str.fullmatch(pattern)]
        for model, of in models.groupby("model", sort=False):
            known = {row.task: _cost(row) for row in of.itertuples()}
            rows.append([f"{name} (`{model}`)", *(known.get(task, "") for task in tasks)])
    if not rows:
        return ""
    firsts = [losses[losses["task"] == task].iloc[0] for task in tasks]
    heads = ["points lost without", *map(_head, firsts)]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
    return "\n".join([*lines, "", "ID: on the task's own test; OOD: on rows where the shortcut of the training data "
                                  "often fails. In brackets 95 % intervals over training runs.", "", ""])


def _head(row: pd.Series) -> str:
    return f"{row['task']}: dense {row['dense_id']:.1f} ID, {row['dense_ood']:.1f} OOD (chance {row['chance']:.0f})"


def _cost(row: NamedTuple) -> str:
    if isinstance(row.gate, str) and row.gate:
        return row.gate
    if not row.learned:
        return "did not learn"
    nothing_left = row.dense_ood - row.ood_loss < row.chance + MARGIN
    return f"{points(row, 'id_loss')} ID<br>{points(row, 'ood_loss')} OOD" + ", to chance" * nothing_left


def points(row: NamedTuple, name: str, suffix: str = "") -> str:
    """A loss with its interval, rounded as tables are written, so that all places say the same."""
    return with_interval(*(round(getattr(row, f"{name}{end}{suffix}"), 4) for end in ("", "_low", "_high")), scale=1)


def _where(told: Run) -> str:
    said, closed = [], told.losses.loc[told.losses["gate"].fillna("") != "", "task"]
    ood = told.by_time[(told.by_time["split"] == "ood") & ~told.by_time["task"].isin(closed)]
    for task, table in ood.groupby("task", sort=False):
        ends = []
        for name, at in (("those learned last", table["learned_at"].max()), ("those learned first",
                                                                            table["learned_at"].min())):
            here = table[table["learned_at"] == at].set_index("model")
            if ALL in here.index:
                null = f" ({_share(here.loc[OTHER_DENSE])})" if OTHER_DENSE in here.index else ""
                ends.append(f"{_share(here.loc[ALL])}{null} of {name}")
        said += [f"{' and '.join(ends)} in {task}"] if ends else []
    words = _sentences(("That the loss lies where the shortcut fails (`T6`)", _words(told.ledger, "T6")))
    return ("Of the OOD rows that the dense model gets right, by when it had learned them, compressions lose (in "
            f"brackets: another dense model) {'; '.join(said)}. {words}").strip() if said else ""


def _share(row: pd.Series) -> str:
    return with_interval(row["value"], row["low"], row["high"], digits=0) + " %"


def _equal(ledger: pd.DataFrame) -> str:
    said = []
    for row in _measured(ledger, "T5").itertuples():
        number = f"{row.ours:+.1f} points {row.interval}".strip() if pd.notna(row.ours) else ""
        reasons = ": ".join(filter(None, (f"*{row.word}*", row.caveat)))
        meant = ", ".join(filter(None, (number, EQUAL.get(kind_of(row.word)))))
        said.append(f"{meant} ({reasons}) in {row.task}".strip())
    return ("OOD score less that of dense models that were trained for fewer steps, to the same ID score (`T5`, that "
            f"nothing more is lost; above zero the compressed model is better): {'; '.join(said)}.") if said else ""


def _papers(ledger: pd.DataFrame) -> str:
    said = []
    for letter, paper in PAPERS.items():
        of_paper = []
        for task, rows in ledger[ledger["id"].str.startswith(letter) & _own(ledger)].groupby("task", sort=False):
            kinds, words = rows["word"].map(kind_of), rows["word"]
            counts = {short: (kinds == kind).sum() for kind, short in COUNTED.items()}
            counts |= {"open": words.isin(["open", "undefined"]).sum(),
                       "no more than an indication": words.eq("indication").sum()}
            if asked := sum(counts.values()):
                of_paper.append(f"of {asked} in {task} " + ", ".join(f"{n} {t}" for t, n in counts.items() if n))
        said += [f"{paper}: {'; '.join(of_paper)}."] if of_paper else []
    return f"Of those that could be asked, {' '.join(said)}" if said else ""


def _mends(told: Run) -> str:
    said = []
    for (task, base), rows in told.mends.groupby(["task", "base"], sort=False):
        sure = rows[rows["low"] > 0].sort_values(["cost", "value"], ascending=[True, False])
        row = sure.iloc[0] if len(sure) else rows.loc[rows["value"].idxmax()]
        gain = with_interval(row["value"], row["low"], row["high"])
        name = str(row["mend"]) if row["kind"] == "rows" else f"`{row['mend']}`"
        cheapest = f"the cheapest sure mend of {label_of(base)} is {name}, {gain} OOD points for {row['cost']:.2g} "
        none = f"no mend of {label_of(base)} is sure to help, {name} gave most: {gain}"
        few = f" (an indication: {row['seeds']} runs)" if row["seeds"] < SEEDS else ""
        said.append(f"In {task} {cheapest + 'dense trainings' if len(sure) else none}{few}")
    words = _sentences(("That RMC makes a compressed model less biased (`A20`)", _words(told.ledger, "A20")),
                       ("That it takes the right rows (`O4`)", _words(told.ledger, "O4")))
    return " ".join(filter(None, (*(f"{one}." for one in said), words)))


def _open(ledger: pd.DataFrame) -> str:
    said = []
    for task, rows in ledger[_own(ledger)].groupby("task", sort=False):
        counts = {word: int(rows["word"].eq(word).sum()) for word in ("open", "indication", NOT_MEASURED)}
        told = ", ".join(f"{n} {word}{'s' * (word == 'indication' and n > 1)}" for word, n in counts.items() if n)
        said.append(f"{told or 'none'} of {len(rows)} in {task}")
    return f"Claims without a verdict: {'; '.join(said)}." if said else ""


def _own(ledger: pd.DataFrame) -> pd.Series:
    """Which rows are about one task."""
    return ~ledger["task"].isin(["", POOLED])


def measured(ledger: pd.DataFrame) -> pd.DataFrame:
    """The rows of a ledger that are about one task and have a word."""
    return ledger[_own(ledger) & (ledger["word"] != NOT_MEASURED)]


def _measured(ledger: pd.DataFrame, claim: str) -> pd.DataFrame:
    return measured(ledger[ledger["id"] == claim])


def few_seeds(losses: pd.DataFrame, others: dict[str, pd.DataFrame]) -> str:
    """What a run of fewer than `SEEDS` seeds can and cannot tell, beside the same models of a run of more; "" for a run
    that has as many on every task.

    losses: `Study.losses` of the run; others: those of finished runs by name, of which each task's largest is taken.
    """
    lines = []
    for task, here in losses[losses["seeds"] < SEEDS].groupby("task", sort=False):
        known = {name: table[(table["task"] == task) & (table["seeds"] >= SEEDS)] for name, table in others.items()}
        sizes = {name: table["seeds"].max() for name, table in known.items() if len(table)}
        n, name = int(here["seeds"].max()), max(sizes, key=sizes.get, default="")
        lines.append(f"**{task}** has {n} training run{'s' * (n > 1)} here: enough to see that the chain works and "
                     "where to look, not to tell a compression from another seed.")
        if name:
            lines.append(_beside(here, known[name], name))
    return "\n\n".join(lines)


def _beside(here: pd.DataFrame, there: pd.DataFrame, name: str) -> str:
    """A table of the models that both have, and how far a single run of the larger one strays."""
    both = here.merge(there, on="model", suffixes=("", "_there"))
    both = both[both["model"].map(lambda model: any(re.fullmatch(pattern, model) for _, pattern in TOLD))]
    if both.empty:
        return f"`{name}` has none of its models."
    k = both["seeds_there"].max()
    heads = ["model", "ID loss here", "OOD loss here", f"ID loss, {k} runs of `{name}`", f"OOD loss, {k} runs",
             "one run's OOD loss strays by"]
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- | --- | --- | --- |"]
    for row in both.itertuples():
        strays = (row.ood_loss_high_there - row.ood_loss_low_there) / 2 * np.sqrt(row.seeds_there)
        strays *= stats.norm.ppf(0.975) / stats.t.ppf(0.975, row.seeds_there - 1)
        cells = [points(row, "id_loss"), points(row, "ood_loss"), points(row, "id_loss", "_there"),
                 points(row, "ood_loss", "_there"), f"±{strays:.1f}"]
        lines.append(f"| {label_of(row.model)} | {' | '.join(cells)} |")
    return "\n".join(lines)
