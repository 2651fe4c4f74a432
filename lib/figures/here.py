"""What a section found, in a generated sentence that begins with "Here": the run's own numbers, and what the committed
runs of its task say over their seeds."""

import functools
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib.analysis.tables import with_interval
from lib.figures.plot_answer import kind_of
from lib.figures.report import say
from lib.figures.story import SEEDS, listed, measured, points, read
from lib.figures.theme import label_of
from lib.params.schema import task_folder

MOST = 6  # models of one figure
KINDS = {"Firm": ("holds", "holds, size open or small"),
         "Refuted": ("no such effect, or not of that size", "fails, reversed")}
OPEN, PILOT = "Open", "Seen in a pilot, which decides nothing"  # all other words; whatever a pilot says
HEADS = (*KINDS, OPEN, PILOT)


class Committed(NamedTuple):
    """A run of the reference: its name, the rows of its `losses.csv` and of its `ledger.csv` on one task."""

    name: str
    losses: pd.DataFrame
    ledger: pd.DataFrame

    @property
    def is_pilot(self) -> bool:
        return bool((self.ledger["pilot"] == "pilot").any())

    def over(self, seeds: float) -> str:
        """What a number of so many seeds is over: `5 of the 16 planned runs of micro`."""
        planned, runs = self.losses["planned"].max(), "run" if seeds == 1 else "runs"
        if seeds < planned and not self.is_pilot:
            return f"{seeds:.0f} of the {planned:.0f} planned runs of `{self.name}`"
        return f"{seeds:.0f} {runs} of `{self.name}`{', a pilot' * self.is_pilot}"


@functools.cache  # a notebook asks at the end of every section
def committed(root: Path, task: str) -> list[Committed]:
    """The runs of `outputs/reference` that have the task: those of enough seeds for a verdict first, pilots after the
    others, then by the number of seeds."""
    runs = []
    for folder in sorted((root / "outputs" / "reference").glob("*/09_claims")):
        run = read(folder).of([task])
        if len(run.losses):
            runs.append(Committed(folder.parent.name, run.losses, run.ledger))
    return sorted(runs, key=_rank)


def _rank(run: Committed) -> tuple:
    seeds = run.losses["seeds"].max()
    return seeds < SEEDS, run.is_pilot, -seeds


def found(run, said: str, *claims: str, models: Iterable[str] = ()) -> None:
    """Show what a section found: `said`, made of this run's own results, then, from the committed runs, what `models`
    lose over the seeds and what the ledger says to `claims`, a line each."""
    known = committed(run.root, run.task)
    rows = [*_lost(known, models), *(f"{_claim(*row)}." for claim in claims if (row := _row(known, claim)))]
    say("\n".join([f"**Here:** {said}", "", *(f"- {row}" for row in rows)]))


def each(table: pd.DataFrame, by: str = "model", *, of: Iterable[str] | None = None, digits: int = 1,
         scale: float = 100) -> str:
    """`IMP 40 % 1.5 [0.7, 2.3], IMP 70 % 9.8 [8.1, 11.5]`: the rows of a table with value, low, high, each named by its
    column `by`, with its column `reason` where there is one. of: those named there alone, in that order."""
    rows = {getattr(row, by): row for row in table.itertuples()}
    told = [f"{label_of(name) if by == 'model' else str(name).replace('_', ' ')} "
            f"{with_interval(rows[name].value, rows[name].low, rows[name].high, digits, scale)}{_reason(rows[name])}"
            for name in (rows if of is None else of) if name in rows]
    return ", ".join(told) or "nothing to compare"


def summary(run, *claims: str) -> None:
    """What the committed runs say to the claims of a chapter: what is firm, what is refuted, what is open, and what was
    seen in a pilot alone."""
    rows = [row for claim in claims if (row := _row(committed(run.root, run.task), claim))]
    told: dict[str, list] = {head: [] for head in HEADS}
    for of, row in rows:
        caveat = f" ({row.caveat})" * bool(row.caveat)
        told[_head(row.word, row.pilot)].append((_shown(row) + caveat, of.over(row.seeds)))
    say(_under_heads(told) if rows else "No committed run asks these claims on this task.")


def by_ledger(ledger: pd.DataFrame, said: str, *claims: str) -> None:
    """Show what a section of a run of several seeds found: `said`, then what the run's own ledger, `ledger.judged`,
    says to the claims, a line each, task by task."""
    rows = measured(ledger)
    say("\n".join([f"**Here:** {said}", "", *(
        f"- {_by_task(of)}." for claim in claims if len(of := rows[rows["id"] == claim]))]))


def ledger_summary(ledger: pd.DataFrame, *claims: str) -> None:
    """What a run's own ledger says to some claims: in which tasks each is firm, refuted, open, or a pilot's alone."""
    told, rows = {head: [] for head in HEADS}, measured(ledger)
    for claim in claims:
        of = rows[rows["id"] == claim]
        for head, some in of.groupby(pd.Series(map(_head, of["word"], of["pilot"]), of.index, str), sort=False):
            words = [f"**{word}** in {listed(part['task'])}" for word, part in some.groupby("word", sort=False)]
            told[head].append((f"{_sentence(next(some.itertuples()))} {'; '.join(words)}", ""))
    say(_under_heads(told))


def by_seed(run, path: str) -> tuple[str, pd.DataFrame]:
    """A table of a notebook, `06_shortcut_samples/rivals.csv`, of each seed of the first committed run with rows of it
    for the task, with a column seed, and what it is over (`3 runs of micro_wide`); "", an empty table if none has."""
    for known in committed(run.root, run.task):
        place = run.root / "outputs" / "reference" / known.name / task_folder(run.task)
        files = {int(file.parts[-3].removeprefix("seed")): file for file in sorted(place.glob(f"seed*/{path}"))}
        read = [pd.read_csv(file).assign(seed=seed) for seed, file in files.items()]
        if kept := [table for table in read if len(table)]:
            return known.over(len(kept)), pd.concat(kept, ignore_index=True)
    return "", pd.DataFrame()


def _reason(row: NamedTuple) -> str:
    reason = getattr(row, "reason", "")
    return f" ({reason})" if isinstance(reason, str) and reason else ""


def lost(relative: pd.DataFrame, of: Iterable[str]) -> str:
    """What the models `of` lose against dense by `tables.relative`, ID and OOD, in points."""
    told = []
    for model in of:
        rows = relative[relative["model"] == model].set_index("measure")
        ends = [with_interval(*(-100 * rows.loc[measure, end] for end in ("value", "high", "low")), scale=1)
                for measure in ("id_difference", "ood_difference") if measure in rows.index]
        told += [f"{label_of(model)} {' ID and '.join(ends)} OOD"] * (len(ends) == 2)
    return f"Points lost against dense: {'; '.join(told)}." if told else "No model stands beside the dense one."


def ends(values: pd.Series, form: str = "+.1f", unit: str = " points") -> tuple[str, str]:
    """The largest and the smallest of some values, each with its name, the index: `verb frame (-21.5 points)`."""
    values, told = values.dropna(), []
    for place in (values.idxmax(), values.idxmin()) if len(values) else ():
        names = place if isinstance(place, tuple) else (place,)
        named = ", ".join(str(name).replace("_", " ") for name in names if str(name))
        told.append(f"{named} ({values[place]:{form}}{unit})")
    return tuple(told) or ("nothing", "nothing")


def leaves(relative: pd.DataFrame, measure: str, of: Iterable[str]) -> str:
    """The first of the models `of` whose `measure` of `tables.relative` is surely below the dense model's."""
    rows = relative[relative["measure"] == measure].set_index("model")["high"]
    return next((label_of(model) for model in of if rows.get(model, 0) < 0), "none")


def few(models: Iterable[str], *first: str, most: int = MOST) -> list[str]:
    """Of some models no more than `most`, in their order: dense, then those whose names match the patterns `first`,
    pattern by pattern, then the others as they come."""
    models = list(dict.fromkeys(models))
    wanted = [name for pattern in ("dense", *first) for name in models if fnmatchcase(name, pattern)]
    kept = list(dict.fromkeys([*wanted, *models]))[:most]
    return [name for name in models if name in kept]


def _lost(known: list[Committed], models: Iterable[str]) -> list[str]:
    """Points lost by each model in the first of the runs that has it."""
    told: dict[str, list[str]] = {}
    for model in models:
        for run in known:
            rows = run.losses[run.losses["model"] == model]
            if len(rows) and rows["seeds"].iloc[0] >= SEEDS:
                row = next(rows.itertuples())
                told.setdefault(run.over(row.seeds), []).append(
                    f"{label_of(model)} {points(row, 'id_loss')} ID and {points(row, 'ood_loss')} OOD")
                break
    return [f"Points lost against dense, over {of}: {'; '.join(rows)}." for of, rows in told.items()]


def _row(known: list[Committed], claim: str) -> tuple[Committed, NamedTuple] | None:
    """What the first of the runs that measured a claim says to it."""
    for run in known:
        rows = measured(run.ledger[run.ledger["id"] == claim])
        if len(rows):
            return run, next(rows.itertuples())
    return None


def _claim(run: Committed, row: NamedTuple) -> str:
    return f"{_shown(row)} ({'; '.join(filter(None, (run.over(row.seeds), row.caveat)))})"


def _by_task(rows: pd.DataFrame) -> str:
    """One claim's rows of a ledger, the claim once and then each task; what was measured once where it is the same."""
    alike = rows["measured"].nunique() == 1
    words = []
    for row in rows.itertuples():
        unit = "population" if "populations" in row.finding else "run"
        over = (f"{row.seeds:.0f} {unit}{'s' * (row.seeds != 1)}", "a pilot" * (row.pilot == "pilot"))
        number = ", ".join(filter(None, ("" if alike else row.measured.rstrip(","), _number(row))))
        words.append(f"**{row.word}** in {row.task}{f', {number}' * bool(number)} "
                     f"({'; '.join(filter(None, (', '.join(filter(None, over)), row.caveat)))})")
    first = next(rows.itertuples())
    return f"{_sentence(first, first.measured if alike else '')} {'; '.join(words)}"


def _shown(row: NamedTuple) -> str:
    """Claim, word, what was measured, the number, what was asked of it."""
    number = " ".join(filter(None, (row.measured, _number(row))))
    return f"{_sentence(row)} **{row.word}**{f': {number}, asked: {row.asked}' * bool(number)}"


def _sentence(row: NamedTuple, beside: str = "") -> str:
    inside = ": ".join(filter(None, (f"`{row.id}`", beside.rstrip(","))))
    return f"\"{row.claim.rstrip('.')}\" ({inside})"


def _number(row: NamedTuple) -> str:
    if pd.isna(row.ours):
        return ""
    digits, unit = (1, " points") if " points" in row.finding else (3, "")
    return f"{row.ours:+.{digits}f}{unit} {row.interval}".rstrip()


def _head(word: str, pilot: str) -> str:
    """Under which head of a summary a row of a ledger stands."""
    kind = kind_of(word)
    return PILOT if pilot == "pilot" else next((head for head, kinds in KINDS.items() if kind in kinds), OPEN)


def _under_heads(told: dict[str, list[tuple[str, str]]]) -> str:
    """Lines under their heads, each with what it is over, which stands once where it is the same for all of a head; a
    pilot's head only where there is a pilot."""
    lines = []
    for head, rows in told.items():
        overs = {over for _, over in rows}
        shared = f" ({', '.join(overs)})" if len(overs) == 1 and all(overs) else ""
        if rows or head != PILOT:
            lines.append(f"- **{head}**{shared}" + (":" if rows else ": nothing."))
        lines += [f"  - {row}" + f" ({over})" * bool(over and not shared) for row, over in rows]
    return "\n".join(lines)
