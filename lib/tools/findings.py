"""The numbers of README and of the book's page of findings, read from the committed reference: they cannot drift.

A block is a pair of HTML comments, which a reader never sees, with the text made from `outputs/reference` between them:

    Is it forgotten? <!-- found: micro A4 micro_nli -->a sentence<!-- end -->
    <!-- found: micro verdicts -->
    a table
    <!-- end -->

    PROFILE CLAIM [TASK ...]    a sentence: the claim, then verdict and evidence of each task (of all, if none is
                                named); PROFILE/TASK takes that task from another profile's ledger
    PROFILE claims CLAIM; CLAIM tasks=TASK; PROFILE/TASK
                                a table: a row for each claim, with verdict, contrast and interval on each task
    PROFILE verdicts            a table: how many claims of each paper and of ours got which verdict, task by task
    PROFILE notebooks           a table: every notebook, its question, the minutes that its models took to train
    PROFILE csv FILE KEY=a; b columns=x %; y MB
                                a table of a CSV in the profile's folder: a row for each value of its columns KEY (for
                                several KEYs each combination), with the measures x and y, in percent or megabytes
                                where the block says so, and intervals where the file has x_low and x_high (low, high)

`python -m lib.tools.findings` writes the blocks of both anew. With `--check` it writes nothing and exits with 1, naming
each block that differs and each digit in the section `What was found` outside a block. Allowed there are digits in a
link's address, in `code`, and in the names that NAMES lists.
"""

import argparse
import itertools
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib.errors import StudyError, nearest
from lib.files import ROOT

DOCUMENTS = (ROOT / "README.md", ROOT / "notebooks" / "book" / "found.md")
REFERENCE = ROOT / "outputs" / "reference"
SECTION = "What was found"
OPENING, CLOSING = r"<!--\s*found:[ \t]*(?P<asked>[^\n]*?)\s*-->", r"<!--\s*end\s*-->"
MARK = re.compile(f"{OPENING}|{CLOSING}")
BLOCK = re.compile(rf"(?P<opening>{OPENING})(?P<text>(?:(?!<!--\s*found:).)*?)(?P<closing>{CLOSING})", re.S)
CODE = re.compile(r"(`+)(?:(?!\n\n).)+?\1", re.S)
ADDRESS = re.compile(r"\]\([^)\s]*\)|<https?://[^>\s]*>")
NAMES = re.compile(r"(?<![\w.-])(?:IMP \d+"  # as the papers write it; then models, losses, number formats, claims
                   r"|(?:imp|heads|ffn|truncated|scratch|theseus)-\d+(?:-(?:alternate|constant|after|2x))?|dense-2x"
                   r"|rmc-\d+|(?:ptq|qat)[48]|int[48]|(?:fp|bf)(?:16|32)|MiniLM-L6-v2|[ABOP]\d{1,2})(?![\w-]|\.\d)")
CONTRAST = re.compile(r"[+-][\d.]+(?: points)? (?:\[[^]]*\]|undefined)")  # of a finding
PAPERS = {"A": "Du et al. (A)", "B": "Xu et al. (B)"}
VERDICTS = ("replicated", "not replicated", "inconclusive", "not measured")
HEADINGS = {"dev": "ID", "test": "ID", "ood": "OOD"}  # of final.csv, over_seeds.csv
UNITS = {"%": 100, "MB": 1e-6}


def rewrite(text: str, reference: Path = REFERENCE) -> str:
    """A document's text with every block made anew. Raises StudyError with the line of a block that cannot be made."""
    blocks(text)
    return BLOCK.sub(lambda block: f"{block['opening']}{_made(block, reference)}{block['closing']}", text)


def faults(text: str, reference: Path = REFERENCE) -> list[str]:
    """One line for each block that is not what the reference says, and for each number typed by hand. Raises StudyError
    where a block cannot be made, or the document has no section `What was found`."""
    stale = [f"line {_line(text, block.start())}: '{block['asked']}' is not what outputs/reference says: "
             "run `python -m lib.tools.findings`"
             for block in blocks(text) if block["text"] != _made(block, reference)]
    return stale + [f"line {line}: '{word}' is typed by hand: take it from outputs/reference by a block, "
                    "or write a name in `code`" for line, word in _typed(text)]


def blocks(text: str) -> list[re.Match]:
    """The blocks of a document, as BLOCK matches them. Raises StudyError, with the line, on a mark without partner."""
    lone = MARK.search(_without(BLOCK, text))
    if lone:
        lacks = "<!-- found: ... --> before it" if lone["asked"] is None else "<!-- end -->"
        raise StudyError(f"line {_line(text, lone.start())}: '{lone[0]}' has no {lacks}")
    return list(BLOCK.finditer(text))


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _made(block: re.Match, reference: Path) -> str:
    """What the block should say. Raises StudyError where it cannot be made, or would not show where it stands."""
    before = block.string[:block.start()].rpartition("\n")[2]
    try:
        made = statement(block["asked"], reference)
        if made.startswith("|"):
            if before:
                raise StudyError(f"'{block['asked']}' is a table: begin a line with its block")
            return f"\n\n{made}\n\n"
        if not before.strip(" \t>*+-"):
            raise StudyError(f"'{block['asked']}' is a sentence: put a word before its block, for Markdown "
                             "shows a line that begins with a comment as it is")
        return made
    except StudyError as error:
        raise StudyError(f"line {_line(block.string, block.start())}: {error}") from None


def statement(asked: str, reference: Path = REFERENCE) -> str:
    """What a block says: sentences, or a table. Raises StudyError, with the nearest name, on an unknown one."""
    profile, kind, rest = [*asked.split(None, 2), "", "", ""][:3]
    if not kind:
        raise StudyError(f"'{asked}' must read PROFILE CLAIM TASK, PROFILE claims CLAIM; ... tasks=..., "
                         "PROFILE verdicts, PROFILE notebooks or PROFILE csv FILE ...")
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
        verdict = row.verdict.capitalize() if number else row.verdict
        place = f"{row.task} (`{row.profile}`)" if row.task else f"`{row.profile}`"
        finding = row.finding.replace("*", "\\*")
        text += f" **{verdict}** in {place}: {finding}."
    return text


def _claims(profile: str, rest: str, reference: Path) -> str:
    ids, _, tasks = rest.partition(" tasks=")
    asked, places = ([text.strip() for text in part.split(";") if text.strip()] for part in (ids, tasks))
    if not asked or not places:
        raise StudyError(f"'{profile} claims {rest}' must read PROFILE claims CLAIM; CLAIM tasks=TASK; TASK")
    rows = []
    for claim in asked:
        answers = [next(iter(_answers(profile, claim, place, reference, elsewhere=True)), None) for place in places]
        if not any(answers):
            raise StudyError(f"claim {claim} is about none of {', '.join(places)}; take it out")
        said = next(filter(None, answers)).claim
        rows.append([f"{said} ({claim})", *(_verdict(row) if row else "not claimed" for row in answers)])
    return _markdown(["claim", *(place.rpartition("/")[2] for place in places)], rows)


def _verdict(row: NamedTuple) -> str:
    number = CONTRAST.search(row.finding)
    return f"**{row.verdict}** {number[0]}" if number else row.verdict


def _verdicts(profile: str, _: str, reference: Path) -> str:
    ledger = _ledger(profile, reference)
    whose = ledger["id"].str[0].map(PAPERS).fillna("ours")
    counts = ledger.groupby([whose, ledger["task"]])["verdict"].value_counts().unstack(fill_value=0)
    columns = [*VERDICTS, *sorted(set(counts.columns) - set(VERDICTS))]
    counts = counts.reindex(columns=columns, fill_value=0)
    places = itertools.product(dict.fromkeys(ledger["task"]), (*PAPERS.values(), "ours"))
    rows = [[paper, task or "none of its own here", *map(str, counts.loc[paper, task])]
            for task, paper in places if (paper, task) in counts.index]
    return _markdown(["claims of", "task", *columns], rows)


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


TABLES = {"claims": _claims, "verdicts": _verdicts, "notebooks": _notebooks, "csv": _table}


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


def _typed(text: str) -> list[tuple[int, str]]:
    """(line, word) of each word of the section with a digit, outside blocks and what is allowed there."""
    section = re.search(rf"^(##?) {SECTION}\s*$(.*?)(?=^\1 |\Z)", text, re.M | re.S)
    if not section:
        raise StudyError(f"there is no section '## {SECTION}' to check")
    bare = _without(BLOCK, text)[section.start(2):section.end(2)]
    for allowed in (CODE, ADDRESS, NAMES):
        bare = _without(allowed, bare)
    above = _line(text, section.start(2)) - 1
    return [(above + _line(bare, word.start()), word[0]) for word in re.finditer(r"\S*\d\S*", bare)]


def _without(pattern: re.Pattern, text: str) -> str:
    """The text with blanks for what the pattern matches, line for line."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def write_or_check(arguments: list[str], documents: tuple[Path, ...] = DOCUMENTS, reference: Path = REFERENCE) -> None:
    """`python -m lib.tools.findings [--check]`."""
    parser = argparse.ArgumentParser(prog="python -m lib.tools.findings", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a document differs")
    given = parser.parse_args(arguments)
    differing = []
    for path in documents:
        text = path.read_text(encoding="utf-8")
        try:
            if not given.check:
                text = rewrite(text, reference)
                path.write_text(text, encoding="utf-8")
            differing += [f"{path.name}: {fault}\n" for fault in faults(text, reference)]
        except StudyError as error:
            parser.exit(1, f"{path.name}: {error}\n")
    if differing:
        parser.exit(1, "".join(differing))


if __name__ == "__main__":
    write_or_check(sys.argv[1:])
