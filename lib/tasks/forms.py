"""How a reader's own text table is written: which character separates its columns, and what its quotation marks are."""

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.errors import StudyError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
USUAL = (",", ";", "\t", "|")
WHOLE = re.compile(r'"(?:[^"]|"")*"')  # a field in quotes, those inside it doubled
AS_TEXT, AS_QUOTES = "taken as text", "read as quotes"


@dataclass(frozen=True)
class Form:
    """separator: of the columns. quoted: quotation marks around a field are none of its text, which may hold the
    separator and line breaks. told: what its quotation marks are, AS_TEXT or AS_QUOTES, where a file may mean both."""

    separator: str
    quoted: bool
    told: str = ""


def form_of(path: Path, columns: Iterable[str], separator: str = "") -> Form | None:
    """The form of a CSV, TSV or text file that must hold `columns`; None of another format and of what is no text.

    separator: "" is that of the format. CSV has quotes. The others have them where their rows are as wide as the
    header only so, or, where they are so both ways, if the header is quoted or marks are doubled as CSV doubles them.
    Else marks are text, as in the files of GLUE. StudyError: another separator stands there, or a row fits no way.
    """
    default = SEPARATORS.get(suffix := Path(path.name.removesuffix(".gz")).suffix.lower())
    text = _text(path).lstrip("\r\n") if default else ""
    if not text.strip():
        return None
    taken = separator or default
    _check_separator(path, re.match(r"[^\r\n]*", text)[0], frozenset(columns), taken, separator)
    if suffix == ".csv":
        return _usual(path, text, taken)
    rows = list(_split(text, taken))
    if not any(field.startswith('"') for row in rows for field in row.fields):
        plain = _held(rows)
        if plain.too_long:
            raise StudyError(f"{path}: {plain.too_long}; take {_called(taken)} out of its texts")
        return Form(taken, False, AS_TEXT if '"' in text else "")
    plain, quoted = _held(rows), _held(_read(text, taken))
    if plain.fault and quoted.fault:
        furthest, how = max((plain, AS_TEXT), (quoted, AS_QUOTES), key=lambda one: one[0].good)
        raise StudyError(f"{path}: {furthest.fault}, with quotation marks {how}, and the other way rows do not fit "
                         "either; quote each text that holds a mark, a tab or a line break and double the marks in "
                         "it, or save the rows as Parquet or JSON lines")
    is_quoted = bool(plain.fault) or not quoted.fault and _as_csv_writes(rows)
    return Form(taken, is_quoted, AS_QUOTES if is_quoted else AS_TEXT)


@dataclass(frozen=True)
class _Row:
    """The fields of a row and the line it ends on; fault: why it cannot be read, else ""."""

    fields: list[str]
    line: int
    fault: str = ""


@dataclass(frozen=True)
class _Reading:
    """What came of one way to read a file: the rows before the first that is at fault, its fault, else "", and that of
    the first row that is too long."""

    good: int
    fault: str
    too_long: str


def _text(path: Path) -> str:
    opener: Callable = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            return file.read().decode("utf-8-sig")
    except (OSError, EOFError, ValueError):
        return ""  # the reader of the format says what is wrong


def _split(text: str, separator: str) -> Iterator[_Row]:
    """Rows whose quotation marks are text."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if line.strip(" "):
            yield _Row(line.split(separator), number)


def _read(text: str, separator: str) -> Iterator[_Row]:
    """Rows whose quotation marks are quotes, up to one whose are not closed, or closed within a field."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        yield from (_Row(fields, rows.line_num) for fields in rows if "".join(fields).strip(" ") or len(fields) > 1)
    except csv.Error as error:
        yield _Row([], rows.line_num, f"cannot be read ({error})")


def _held(rows: Iterable[_Row]) -> _Reading:
    """Hold every row to the width of the first, the header."""
    width, good, fault, too_long = 0, 0, "", ""
    for number, row in enumerate(rows):
        width = width or len(row.fields)
        wrong = row.fault or (f"has {_fields(row)}, the header {width}" if len(row.fields) != width else "")
        told = f"row {number} (line {row.line}) {wrong}" if wrong else ""
        fault = fault or told
        too_long = too_long or (told if len(row.fields) > width else "")
        good += not fault
    return _Reading(good, fault, too_long)


def _as_csv_writes(rows: list[_Row]) -> bool:
    """Whether rows that fit both ways are quoted: their header is, or they double a mark somewhere and quote each field
    that holds one."""
    if all(map(WHOLE.fullmatch, rows[0].fields)):
        return True
    marked = [field for row in rows for field in row.fields if '"' in field]
    return all(map(WHOLE.fullmatch, marked)) and any('""' in field[1:-1] for field in marked)


def _usual(path: Path, text: str, separator: str) -> Form:
    """The form of a CSV file. StudyError: a first row longer than the header, of which pandas makes an index."""
    first = [row for _, row in zip(range(2), _read(text, separator))]
    if wrong := _held(first).too_long:
        raise StudyError(f"{path}: {wrong}; put each text that holds {_called(separator)} in quotes")
    return Form(separator, True)


def _check_separator(path: Path, header: str, columns: frozenset[str], taken: str, asked: str) -> None:
    """StudyError for a header that holds more of the columns, or more than one, by another separator."""
    def found(separator: str) -> tuple[int, int]:
        fields = next(_read(header, separator), _Row([], 0)).fields
        return len(columns & set(fields)), len(fields) if is_one else 0

    is_one = taken not in header
    best = max((taken, *USUAL), key=found)
    if best != taken:
        said = f"and not {_called(asked)}, as the task file says" if asked else "which the task file does not say"
        written = '"\\t"' if best == "\t" else repr(best)
        raise StudyError(f"{path}: {_called(best)} separates its columns, {said}; set separator: {written} there")


def _fields(row: _Row) -> str:
    return f"{len(row.fields)} field{'s' * (len(row.fields) != 1)}"


def _called(separator: str) -> str:
    return "a tab" if separator == "\t" else repr(separator)
