"""Where a task's rows come from: a local mirror, the hub or a pinned address, always through `datasets`."""

import csv
import gzip
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from glob import escape
from itertools import islice
from pathlib import Path, PurePosixPath

import datasets
import numpy as np
import pandas as pd
from huggingface_hub import constants
from huggingface_hub.utils import logging as hub_logging
from pyarrow import parquet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lib import files, progress
from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.tasks.download import digest, fetch
from lib.tasks.forms import Form, form_of
from lib.tasks.labels import as_text, known_as

datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else each file that is read, a local one too, asks a server first
OPTIONAL = ("guid", "heuristic", "subcase", "group")
TAB = {"sep": "\t", "quoting": 3}  # QUOTE_NONE: the published files (HANS, PAWS, GLUE) hold bare quotation marks
FORMATS: dict[str, tuple[str, dict]] = {".csv": ("csv", {}), ".tsv": ("csv", TAB), ".txt": ("csv", TAB),
                                        ".jsonl": ("json", {}), ".parquet": ("parquet", {})}


@dataclass(frozen=True)
class Hub:
    """A data set of the hub at a pinned commit, which fixes its content."""

    repo: str
    config: str
    split: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo} ({self.config}, {self.split}) at {self.revision}"


@dataclass(frozen=True)
class Table:
    """One file of a task: where it lies, what it must hash to and what its columns mean.

    `path` is relative to the data folder (absolute for a reader's own file). `columns` maps text_a, text_b, label and,
    where present, guid, heuristic, subcase, group to the file's names. `labels` maps the published value, as text, to
    the class id. `local` maps each digest accepted for a local copy to what that copy is; empty accepts any file.
    `url_digest` "" means: recorded at the first download and held to from then on. `drop` lists label values that are
    left out. `hash_group` groups rows by the normalised text of the group column, as a hash, since no text of a real
    set may travel into tables that are committed. `group_rows` makes a group of every so many rows, as they follow one
    another; `linked` one of the rows that share a text, by way of other rows too. `quoted`: whether a tab-separated
    file quotes as CSV does; None finds it out (`lib.tasks.forms`). `separator` of a text file's columns; "" is its
    format's. `case` is the heuristic and subcase of all rows. `also`: further files of the same split. Without a column
    text_b every row is a single text, and its text_b "".
    """

    path: str
    columns: dict[str, str]
    labels: dict[str, int]
    local: dict[str, str] = field(default_factory=dict)
    hub: Hub | None = None
    url: str = ""
    url_digest: str = ""
    by_hand: str = ""
    drop: tuple[str, ...] = ()
    hash_group: bool = False
    group_rows: int = 0
    linked: bool = False
    quoted: bool | None = False
    separator: str = ""
    case: str = ""
    also: tuple["Table", ...] = ()


def normalise(text: str) -> str:
    """Lower-case letters and digits only: two claims are one when these agree."""
    return re.sub(r"[\W_]+", "", text.lower())


def read(table: Table, data_dir: str | Path | None = None) -> tuple[pd.DataFrame, dict]:
    """Rows of one table and a record of where they came from.

    The rows: text_a, text_b, label (class id), guid, heuristic, subcase, group ("" where none), row (1-based data row)
    and file; the record: file, origin, digest, copy, marks (what quotation marks are where a file may mean both, else
    ""), left_out (rows whose label is one of `drop`) and rows. Looks in `data_dir`, else in the folder that STUDY_DATA
    names, else upstream. A relative folder counts from the project's root. StudyError names file, row, column and mend.
    """
    named = str(data_dir or os.environ.get("STUDY_DATA") or "")
    folder, form = ROOT / Path(named).expanduser(), None
    if named and not folder.is_dir():
        raise StudyError(f"STUDY_DATA (or data_dir) names '{named}', which is no folder; give the folder that holds "
                         f"{table.path}")
    local = folder / table.path
    if (named or Path(table.path).is_absolute()) and local.is_file():
        where, record = str(local), {"origin": "local", **_verify(local, table)}
        form = _form(local, table)
        data = load_file(local, table.columns.values(), form)
    elif table.hub or table.url:
        where, (data, record) = str(table.hub or table.url), _upstream(table)
    elif Path(table.path).is_absolute():
        raise StudyError(f"{local}: no such file; mend the path in the task's YAML (paths there are relative to the "
                         "YAML)")
    else:
        raise StudyError(f"{table.path}: {_both_ways(table)}")
    frame = _rows(data, table, where)
    record |= {"marks": form.told if form else "", "left_out": data.num_rows - len(frame)}
    # the record goes into tables that may be committed: no folder of this machine in it
    name = Path(table.path).name if Path(table.path).is_absolute() else table.path
    return frame.assign(file=where), {"file": name, **record, "rows": len(frame)}


def _verify(path: Path, table: Table) -> dict[str, str]:
    """Record of a local file whose digest is one of those accepted, else StudyError."""
    accepted = table.local | ({table.url_digest: "official"} if table.local and table.url_digest else {})
    digests = {kind: digest(path, kind) for kind in {d.split(":")[0] for d in accepted} | {"sha256"}}
    copies = [accepted[value] for value in digests.values() if value in accepted]
    if accepted and not copies:
        raise StudyError(f"{path}: expected {' or '.join(accepted)}, found {digests['sha256']} ({path.stat().st_size} "
                         "bytes); put the expected file back, or, to study your own copy, declare it in a task YAML of "
                         "your own")
    return {"digest": digests["sha256"], "copy": copies[0] if copies else "the reader's own file"}


def _upstream(table: Table) -> tuple[datasets.Dataset, dict]:
    """The table from the hub or by its address; whatever goes wrong, the error tells both ways to the data."""
    try:
        if hub := table.hub:
            return _from_hub(hub), {"origin": str(hub), "digest": f"revision:{hub.revision}", "copy": "official"}
        path = fetch(table.url, _cache() / PurePosixPath(table.path).parent, table.url_digest)
    except StudyError:
        raise
    except Exception as error:  # the hub client, datasets and urllib share no base class
        told = str(error) if isinstance(error, datasets.exceptions.DatasetNotFoundError) else _first_line(error)
        raise StudyError(f"{table.path}: {_both_ways(table)}; the download failed with: {told}") from error
    data = load_file(path, table.columns.values(), _form(path, table))
    return data, {"origin": table.url, "digest": digest(path), "copy": "official"}


def _form(path: Path, table: Table) -> Form | None:
    if table.quoted is None:
        return form_of(path, table.columns.values(), table.separator)
    return Form("\t", True) if table.quoted else None


def _from_hub(hub: Hub) -> datasets.Dataset:
    """The rows of one split at its commit. StudyError: a file that is not what the hub said it is."""
    # a cache for each commit: where the hub does not answer, `datasets` takes the newest table it made, of any commit
    made = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / hub.revision
    fetched = Path(constants.HF_HUB_CACHE, f"datasets--{hub.repo.replace('/', '--')}", "snapshots", hub.revision)
    try:
        with _quiet():
            return datasets.load_dataset(hub.repo, hub.config, split=hub.split, revision=hub.revision,
                                         cache_dir=str(made))
    finally:  # after an error too, for damage may have caused it
        if bad := files.drop_damaged(fetched):
            shutil.rmtree(made, ignore_errors=True)
            raise StudyError(f"{hub}: what came as {bad[0].relative_to(fetched)} is not what its content hash says; "
                             "it was deleted, run again to fetch it anew")


def _both_ways(table: Table) -> str:
    network = f"or go online to fetch {table.hub or table.url}" if table.hub or table.url else table.by_hand
    return f"the file is not here; set STUDY_DATA (or data_dir) to a folder that holds {table.path}, {network}"


def _cache() -> Path:
    return Path(datasets.config.HF_CACHE_HOME).expanduser() / "study"


def _quiet() -> AbstractContextManager:
    """No progress bars and retry notices of `datasets` and the hub's client inside."""
    return progress.hushed([datasets.logging, hub_logging], not datasets.are_progress_bars_disabled(),
                           datasets.disable_progress_bars, datasets.enable_progress_bars)


def load_file(path: Path, texts: Iterable[str], form: Form | None = None) -> datasets.Dataset:
    """One local file through the builder of its format; its Arrow cache is thrown away.

    texts: columns that a CSV or TSV file holds as they stand there; form: how such a file is written, None: CSV with
    commas and quotes, TSV with neither. Raises StudyError naming the file.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS:
        raise StudyError(f"{path}: format '{suffix}' is not read; save the rows as {', '.join(FORMATS)} (text formats "
                         "also .gz)")
    builder, options = FORMATS[suffix]
    if not _has_rows(path, builder):
        raise StudyError(f"{path}: there is no row in the file; put at least one there")
    if builder == "csv":  # as text: "NA", "007" and "1" stay what the file says
        options = {**options, "keep_default_na": False, "converters": dict.fromkeys(texts, str)}
        if form:
            options |= {"sep": form.separator, "quoting": csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE}
    try:
        with _quiet(), tempfile.TemporaryDirectory() as cache:
            return datasets.load_dataset(builder, data_files=escape(str(path)), split="train", cache_dir=cache,
                                         keep_in_memory=True, **options)
    except Exception as error:  # each builder wraps its own parser's errors
        raise StudyError(f"{path}: not readable as {suffix} in UTF-8: {_first_line(error)}; save it anew in that "
                         "format") from error


def _has_rows(path: Path, builder: str) -> bool:
    """Whether anything stands in the file, below its header if it has one: the builders fail obscurely on none."""
    opener: Callable = gzip.open if path.suffix == ".gz" else open
    try:
        if builder == "parquet":
            return parquet.read_metadata(path).num_rows > 0
        with opener(path, "rb") as file:
            lines = (line for line in file if line.strip())
            return len(list(islice(lines, 2))) > (builder == "csv")
    except (OSError, EOFError, ValueError) as error:
        raise StudyError(f"{path}: cannot be opened: {_first_line(error)}; put a whole, readable file there") from error


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _rows(data: datasets.Dataset, table: Table, file: str) -> pd.DataFrame:
    """Check and rename the columns of one file; labels become class ids."""
    for column in table.columns.values():
        if column not in data.column_names:
            raise StudyError(f"{file}: column '{column}' is missing{nearest(column, data.column_names)}")
    frame = pd.DataFrame({name: pd.Series(data[column][:], dtype=object) for name, column in table.columns.items()})
    frame["row"] = range(1, len(frame) + 1)
    texts, known = [name for name in ("text_a", "text_b") if name in table.columns], {*table.labels, *table.drop}
    frame["label"] = frame["label"].map(lambda value: known_as(value, known))
    frame = frame[~frame["label"].isin(table.drop)].reset_index(drop=True)
    if frame.empty:
        raise StudyError(f"{file}: every row is one of those left out; put at least one other there")

    def fail_where(bad: pd.Series, name: str, what: str) -> None:
        if bad.any():
            at = frame[bad].iloc[0]
            what = what.replace("{value}", str(at[name]))
            raise StudyError(f"{file}: row {at['row']}, column '{table.columns[name]}': {what}")

    for name in texts:
        is_text = frame[name].map(lambda text: isinstance(text, str))
        blank = frame[name].isna() | is_text & (frame[name].astype(str).str.strip() == "")
        fail_where(blank, name, "the text is missing; fill it in or take the row out")
        fail_where(~is_text, name, "{value} is not text; write it as a string")
    fail_where(frame["label"] == "", "label",
               "the label is missing; fill it in, or leave such rows out: drop: [''] in the task file")
    fail_where(~frame["label"].isin(table.labels), "label",
               "unknown label '{value}'; known are " + ", ".join(f"'{value}'" for value in table.labels)
               + "; mend the row or the label map, or leave such rows out: drop: ['{value}'] in the task file")
    frame = frame.assign(**{"text_b": ""} | {name: frame[name].astype("str") for name in texts})
    frame["label"] = frame["label"].map(table.labels).astype("int64")
    for name in OPTIONAL:
        blank = table.case if name in ("heuristic", "subcase") else ""
        values = frame[name].map(as_text) if name in frame else pd.Series(blank, index=frame.index)
        frame[name] = values.astype("str")
    if "guid" in table.columns:
        fail_where(frame["guid"] == "", "guid", "the guid is missing; give every row one of its own")
    if table.hash_group:
        hashes = [hashlib.sha256(normalise(text).encode()).hexdigest()[:12] for text in frame["group"]]
        frame["group"] = [f"{table.columns['group']}-{one}" for one in hashes]
    elif table.group_rows or table.linked:
        numbers = _linked(frame) if table.linked else (frame["row"] - 1) // table.group_rows
        frame["group"] = [f"{PurePosixPath(table.path).stem}-{number}" for number in numbers]
    return frame


def _linked(frame: pd.DataFrame) -> np.ndarray:
    """The number of each row's group, where rows that share a text are linked."""
    ends = pd.factorize(pd.concat([frame["text_a"], frame["text_b"]]))[0].reshape(2, -1)
    n = ends.max() + 1
    return connected_components(coo_array((np.ones(len(frame)), tuple(ends)), shape=(n, n)), directed=False)[1][ends[0]]
