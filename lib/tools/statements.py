"""What the blocks of README and of the page of findings say: sentences and tables read from outputs/reference."""

import itertools
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib.claims.ledger import NOT_MEASURED, POOLED
from lib.errors import StudyError, nearest
from lib.figures import story
from lib.files import ROOT

REFERENCE = ROOT / "outputs" / "reference"
CONTRAST = re.compile(r"[+-][\d.]+(?: points)?(?: \[[^]]*\])?(?= over)")  # of a finding
HEADINGS = {"dev": "ID", "test": "ID", "ood": "OOD"}  # of final.csv, over_seeds.csv
UNITS = {"%": 100, "MB": 1e-6}


def statement(asked: str, reference: Path = REFERENCE) -> str:
    """What a block says: sentences, or a table. Raises StudyError, with the nearest name, on an unknown one."""
    profile, kind, rest = [*asked.split(None, 2), "", "", ""][:3]
    if not kind:
        raise StudyError(f"'{asked}' must read PROFILE CLAIM TASK, PROFILE claims CLAIM; ... tasks=..., "
                         "PROFILE against PROFILE [tasks=TASK; ...], "
                         "PROFILE answer|headline [PROFILE ...] [tasks=TASK; ...], "
                         "PROFILE notebooks or PROFILE csv FILE ...")
    if kind in TABLES:
        return TABLES[kind](profile, rest, reference)
    return _claim(profile, kind, rest.split(), reference)


def _ledger(profile: str, reference: Path) -> pd.DataFrame:
    path = reference / profile / "09_claims" / "ledger.csv"
    if not path.exists():
        known = sorted(ledger.parents[1].name for ledger in reference.glob("*/09_claims/ledger.csv"))
        raise StudyError(f"the reference has no ledger of a profile '{profile}'{nearest(profile, known)}")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _answers(profile: str, claim: str, place: str | None, reference: Path, elsewhere: bool = False) -> list[NamedTuple]:
    """Ledger rows, with their `profile`, of a claim on [PROFILE/]TASK; without a place, on all tasks of the profile.

    elsewhere: a task of the profile that the claim is not about has no answer, instead of an error.
    """
    other, _, task = place.rpartition("/") if place else ("", "", None)
    profile = other or profile
    ledger = _ledger(profile, reference).assign(profile=profile)
    mine = ledger[ledger["id"] == claim]
    if mine.empty:
        known = [*ledger["id"].unique(), *TABLES]
        raise StudyError(f"{profile} has no claim '{claim}'{nearest(claim, known)}")
    if task is not None and task not in set((ledger if elsewhere else mine)["task"]):
        raise StudyError(f"{profile} has no task '{task}' of claim {claim}{nearest(task, filter(None, mine['task']))}")
    return [row for row in mine.itertuples() if task in (None, row.task)]


def _claim(profile: str, claim: str, places: list[str], reference: Path) -> str:
    answers = [answer for place in places or [None] for answer in _answers(profile, claim, place, reference)]
    text = f"{answers[0].claim.removesuffix('.')} ({claim}):"
    for number, row in enumerate(answers):
        word = row.word.capitalize() if number else row.word
        run = f"`{row.profile}`" + f", {row.pilot}" * bool(row.pilot)
        place = f"{row.task} ({run})" if row.task else run
        finding = row.finding.replace("*", "\\*")
        text += f" **{word}** in {place}: {finding}."
    return text


def _claims(profile: str, rest: str, reference: Path) -> str:
    ids, _, tasks = rest.partition(" tasks=")
    asked, places = _list(ids), _list(tasks)
    if not asked or not places:
        raise StudyError(f"'{profile} claims {rest}' must read PROFILE claims CLAIM; CLAIM tasks=TASK; TASK")
    rows = []
    for claim in asked:
        answers = [next(iter(_answers(profile, claim, place, reference, elsewhere=True)), None) for place in places]
        if not any(answers):
            raise StudyError(f"claim {claim} is about none of {', '.join(places)}; take it out")
        known = [row for row in answers if row]
        of = next((_asked(row) for row in known if row.measured), "")
        rows.append([f"{known[0].claim} ({claim})", of,
                     *(_told(row.word, row.finding) if row else "not claimed" for row in answers)])
    return _markdown(["claim", "measured", *(place.rpartition("/")[2] for place in places)], rows)


def _asked(row: NamedTuple) -> str:
    """What the number of a claim is of, and what was asked of it."""
    return f"{row.measured.rstrip(',')}, asked: {row.asked}"


def _told(word: str, finding: str) -> str:
    number = CONTRAST.search(finding)
    return f"**{word}** {number[0]}" if number else word


def _answer(profile: str, rest: str, reference: Path, told_by: Callable = story.tell) -> str:
    others, _, tasks = rest.partition("tasks=")
    runs, wanted = {name: _ledger(name, reference) for name in (profile, *others.split())}, _list(tasks)
    known = {task for ledger in runs.values() for task in ledger["task"]}
    for task in wanted:
        if task not in known:
            raise StudyError(f"{', '.join(runs)}: no task '{task}'{nearest(task, filter(None, known))}")
    told = [story.read(reference / name / "09_claims") for name in runs]
    return told_by([run.of(wanted) for run in told] if wanted else told)


def _list(text: str) -> list[str]:
    return [one.strip() for one in text.split(";") if one.strip()]


def _against(profile: str, rest: str, reference: Path) -> str:
    """A table of the claims whose word in one run is another than in a second, on the tasks of both; those that one of
    them did not measure are left out."""
    other, _, tasks = rest.partition("tasks=")
    wanted, keys = _list(tasks), ["id", "task"]
    both = [_ledger(name, reference) for name in (profile, other.strip())]
    both = [ledger[(ledger["word"] != NOT_MEASURED) & (ledger["task"] != POOLED)] for ledger in both]
    table = both[0].merge(both[1], on=keys, suffixes=("", "_other"))
    table = table[table["task"].isin(wanted)] if wanted else table
    if table.empty:
        raise StudyError(f"{profile} and {other.strip()} have measured no claim on one task; name two runs that have")
    changed = table[table["word"] != table["word_other"]]
    rows = [[f"{row.claim} ({row.id})", _asked(row), row.task,
             _told(row.word_other, row.finding_other), _told(row.word, row.finding)] for row in changed.itertuples()]
    if same := len(table) - len(changed):
        rows.append([f"{'the other' if rows else 'all'} {same} that both measured", "", "", "the same word",
                     "the same word"])
    return _markdown(["claim", f"measured, in `{profile}`", "task", f"`{other.strip()}`", f"`{profile}`"], rows)


def _notebooks(profile: str, _: str, reference: Path) -> str:
    """Each notebook's name, its question (the bold line under its title) and its line in the profile's bill."""
    bill = _csv(profile, "09_claims/bill.csv", reference).set_index("stage")["minutes"]
    rows = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        question = re.search(r"^\*\*(.+?)\*\*$", first, re.M)
        minutes = f"{float(bill[path.stem]):.1f}" if path.stem in bill else ""
        rows.append([f"[`{path.stem}`](notebooks/{path.name})", question[1], minutes])
    return _markdown(["notebook", "question", f"minutes of training in `{profile}`"], rows)


def _csv(profile: str, name: str, reference: Path) -> pd.DataFrame:
    folder = reference / profile
    if not (folder / name).is_file():
        known = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.csv"))
        raise StudyError(f"the reference has no file {profile}/{name}{nearest(name, known)}")
    return pd.read_csv(folder / name, dtype=str, keep_default_na=False)


def _table(profile: str, rest: str, reference: Path) -> str:
    name, *pairs = re.split(r"\s+(\w+)=", rest)
    asked = {key: [value.strip() for value in values.split(";")] for key, values in zip(pairs[::2], pairs[1::2])}
    measures = [_measure(column) for column in asked.pop("columns", [])]
    if not asked or not measures:
        raise StudyError(f"'{profile} csv {rest}' must read PROFILE csv FILE KEY=a; b columns=x %; y")
    table = _csv(profile, name, reference)
    for column in [*asked, *(column for column, _ in measures)]:
        if column not in table.columns:
            raise StudyError(f"{profile}/{name} has no column '{column}'{nearest(column, table.columns)}")
    shown = [key for key, values in asked.items() if len(values) > 1] or list(asked)
    rows = []
    for values in itertools.product(*asked.values()):
        row = _only_row(table, dict(zip(asked, values)), f"{profile}/{name}")
        rows.append([*row[shown], *(_cell(row, column, unit) for column, unit in measures)])
    headings = [HEADINGS.get(column, column.replace("_", " ")) + (f" ({unit})" if unit else "")
                for column, unit in measures]
    return _markdown([*shown, *headings], rows)


TABLES = {"claims": _claims, "against": _against, "answer": _answer,
          "headline": partial(_answer, told_by=story.headline), "notebooks": _notebooks, "csv": _table}


def _measure(column: str) -> tuple[str, str]:
    name, _, unit = column.partition(" ")
    if unit not in ("", *UNITS):
        raise StudyError(f"'{column}': the unit '{unit}' is unknown{nearest(unit, UNITS)}")
    return name, unit


def _only_row(table: pd.DataFrame, wanted: dict[str, str], source: str) -> pd.Series:
    for key, value in wanted.items():
        known = table[key].unique()
        table = table[table[key] == value]
        if table.empty:
            raise StudyError(f"{source} has no such row with {key} '{value}'{nearest(value, known)}")
    if len(table) > 1:
        raise StudyError(f"{source} has {len(table)} rows with {wanted}: name a value of another column too")
    return table.iloc[0]


def _cell(row: pd.Series, column: str, unit: str) -> str:
    low, high = ("low", "high") if column == "value" else (f"{column}_low", f"{column}_high")
    text = _number(row[column], unit)
    return f"{text} [{_number(row[low], unit)}, {_number(row[high], unit)}]" if row.get(low) else text


def _number(text: str, unit: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    if unit:
        return f"{UNITS[unit] * value:z.1f}"
    return text if "." not in text else f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *rows])
