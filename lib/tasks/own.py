"""A reader's own task: a YAML file that names local files, checked before a row is read; what is odd in its rows."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lib import safe_yaml
from lib.errors import StudyError, fault, nearest
from lib.tasks.sources import Table, normalise
from lib.tasks.task import Ood, Shortcut, Task

FEW = 100  # rows of an OOD set below which its score is hardly known
LARGEST = 0.6  # share of one label in an OOD set from which plain accuracy flatters


def _label_map(value: Any) -> dict[str, str]:
    """File value -> class name, from a list of values or a map."""
    pairs = value.items() if isinstance(value, dict) else [(v, v) for v in value] if isinstance(value, list) else ()
    if not pairs:
        raise ValueError("give a list of the file's labels, or a map from the file's value to the class name")
    for one in (word for pair in pairs for word in pair):
        if isinstance(one, bool):
            raise ValueError(f"YAML reads an unquoted yes, no, true or false as {one}; put it in quotes, as the file "
                             "writes it")
        if not isinstance(one, str | int):
            raise ValueError(f"{one!r} is no label; write each as a string or a whole number")
    return {str(key): str(name) for key, name in pairs}


def _dropped(value: Any) -> tuple[str, ...]:
    """The values of a list, as text."""
    if not isinstance(value, list):
        raise ValueError("give a list of the labels whose rows are left out, such as ['-']")
    return tuple(_label_map(value)) if value else ()


def _separator(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1 or value.isalnum() or value in "\"\r\n":
        raise ValueError(f"is {value!r}; give the one character that separates the columns, such as ';', or \"\\t\" in "
                         "double quotes for a tab")
    return value


LabelMap = Annotated[dict[str, str], BeforeValidator(_label_map)]
Separator = Annotated[str, BeforeValidator(_separator)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Columns(_Section):
    text_a: str
    text_b: str | None = None
    label: str
    guid: str | None = None
    heuristic: str | None = None
    subcase: str | None = None
    group: str | None = None


class _Files(_Section):
    train: str
    test: str
    dev: str | None = None


class _OodFile(_Section):
    file: str
    labels: LabelMap | None = None
    collapse: dict[str, str] | None = None
    score: Literal["accuracy", "balanced"] = "accuracy"
    role: Literal["scored", "panel"] = "scored"
    columns: _Columns | None = None
    separator: Separator | None = None


class _TaskFile(_Section):
    name: str
    labels: LabelMap
    columns: _Columns
    files: _Files
    ood: Annotated[dict[str, _OodFile], Field(min_length=1)]
    shortcut: Shortcut
    drop: Annotated[tuple[str, ...], BeforeValidator(_dropped)] = ()
    separator: Separator | None = None
    licence: str
    source: str = ""
    caveats: str = ""


def read_task(path: Path, taken: Iterable[str] = ()) -> Task:
    """The task that a YAML file declares; file paths in it are relative to it.

    CSV is read with the usual quoting, TSV with that or none (`lib.tasks.forms`), both as text; `name` is the file's
    own name and none of `taken`. Raises StudyError naming the file, the key and the mend.
    """
    spec = _parse(path)
    if spec.name != path.stem or spec.name in taken or not re.fullmatch(r"[a-z][a-z0-9_-]*", spec.name):
        raise StudyError(f"{path}: name '{spec.name}' must be the file's own name without .yaml, begin with a small "
                         f"letter, hold small letters, digits, _ or -, and be none of {', '.join(taken)}")
    labels = tuple(dict.fromkeys(spec.labels.values()))
    if len(labels) < 2:
        raise StudyError(f"{path}: labels: only one class '{labels[0]}'; a task needs two or more")
    _check_texts(path, spec)

    def table(file: str, columns: _Columns, names: tuple[str, ...], values: dict[str, str], separator: str | None
              ) -> Table:
        if twice := [value for value in spec.drop if value in values]:
            raise StudyError(f"{path}: drop: '{twice[0]}' is a label too; take it out here or there")
        ids = {value: names.index(name) for value, name in values.items()}
        return Table(str((path.parent / file).resolve()), columns.model_dump(exclude_none=True), ids, drop=spec.drop,
                     quoted=None, separator=separator or "")

    tables = {split: table(file, spec.columns, labels, spec.labels, spec.separator)
              for split, file in spec.files.model_dump(exclude_none=True).items()}
    ood = {}
    for split, part in spec.ood.items():
        if split in ("train", "dev", "test"):
            raise StudyError(f"{path}: ood.{split}: an OOD set cannot be called {split}; give it another name")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", split):
            raise StudyError(f"{path}: ood: '{split}' must begin with a letter or digit and hold letters, digits, _, . "
                             "or -")
        values = part.labels or spec.labels
        if len(set(values.values())) < 2:
            raise StudyError(f"{path}: ood.{split}.labels: only one class '{next(iter(values.values()))}'; an OOD set "
                             "needs two or more")
        ood[split] = Ood(*_collapse(f"{path}: ood.{split}", part, labels, values), part.score, part.role)
        tables[split] = table(part.file, part.columns or spec.columns, ood[split].labels, values,
                              part.separator or spec.separator)
    if all(of.role == "panel" for of in ood.values()):
        raise StudyError(f"{path}: ood: every set has the role panel, which leaves no OOD score; give one the role "
                         "scored")
    _check_apart(path, tables)
    left_out = f"Rows whose label is {_listed(spec.drop)} are left out." if spec.drop else ""
    return Task(spec.name, labels, spec.columns.text_a, spec.columns.text_b or "", ood, spec.shortcut, spec.licence,
                spec.source or path.name, f"{spec.caveats.strip()} {left_out}".strip(), tables)


def taken(items: pd.DataFrame, task: Task) -> list[str]:
    """What was taken of the files of a task, a sentence each: the rows left out for their label, and what quotation
    marks are where a file may mean both. items: as `dataset.load` gives them."""
    said = []
    for source in items.attrs.get("sources", ()):
        if source["left_out"]:
            said.append(f"{source['left_out']} of {source['left_out'] + source['rows']} rows of {source['file']} are "
                        f"left out: their label is {_listed(task.tables[source['split']].drop)}.")
        if source["marks"]:
            said.append(f"Quotation marks in {source['file']} are {source['marks']}.")
    return said


def overview(items: pd.DataFrame, task: Task) -> pd.DataFrame:
    """What each split (the index) holds: rows | groups | labels (with their rows) | repeated | at_odds | in_train.

    Two rows hold the same pair (or single text) where its letters and digits agree. repeated: rows whose pair stands
    earlier in the split; at_odds: rows whose pair has another label there too; in_train: rows whose pair is in train.
    """
    pair = items["text_a"].map(normalise) + "|" + items["text_b"].map(normalise)
    train = set(pair[items["split"] == "train"])
    table = []
    for split, part in items.groupby("split", sort=False):
        own, counts = pair[part.index], part["label"].value_counts()
        two_labels = part["label"].groupby(own).transform("nunique") > 1
        table.append({
            "split": split, "rows": len(part), "groups": part["group"].nunique(),
            "labels": ", ".join(f"{name} {counts.get(i, 0)}" for i, name in enumerate(task.classes(split))),
            "repeated": int(own.duplicated().sum()), "at_odds": int(two_labels.sum()),
            "in_train": int(own.isin(train).sum()) if split != "train" else 0})
    return pd.DataFrame(table).set_index("split")


def doubts(items: pd.DataFrame, task: Task) -> list[str]:
    """What in the rows makes scores mean less than they seem to, a sentence each; nothing that stops a run."""
    said, pair = [], "pair of texts" if task.text_b else "text"
    for split, row in overview(items, task).iterrows():
        share = items.loc[items["split"] == split, "label"].value_counts(normalize=True)
        if row["repeated"]:
            said.append(f"{row['repeated']} of {row['rows']} rows of {split} repeat an earlier {pair}: take "
                        "them out, or give them one group.")
        if row["at_odds"]:
            said.append(f"{row['at_odds']} rows of {split} hold a {pair} that has two labels: no model can have all of "
                        "them right.")
        if row["in_train"]:
            said.append(f"{row['in_train']} rows of {split} stand in train too: its score is partly memory. Take them "
                        "out of train.")
        if split in task.ood and row["rows"] < FEW:
            said.append(f"{split} has {row['rows']} rows: its intervals are too wide for small losses.")
        if split in task.ood and task.ood[split].score == "accuracy" and share.iloc[0] > LARGEST:
            said.append(f"{share.iloc[0]:.0%} of {split} is {task.classes(split)[share.index[0]]}: always to say so "
                        f"scores as much. Set ood.{split}.score to balanced.")
    return said


def _listed(values: Iterable[str]) -> str:
    return " or ".join(f"'{value}'" for value in values)


def _check_texts(path: Path, spec: _TaskFile) -> None:
    """Raise StudyError for columns that are one, for a set that has other texts than the task, and for a shortcut of
    two texts where there is one."""
    for where, columns in [("", spec.columns), *((f"ood.{name}.", of.columns) for name, of in spec.ood.items())]:
        if columns is None:
            continue
        named = {key: column for key, column in columns.model_dump().items() if key in ("text_a", "text_b", "label")}
        given = {key: column for key, column in named.items() if column is not None}
        if len(set(given.values())) < len(given):
            raise StudyError(f"{path}: {where}columns: {', '.join(given)} must be columns of their own, not "
                             f"{', '.join(given.values())}")
        if (columns.text_b is None) != (spec.columns.text_b is None):
            raise StudyError(f"{path}: {where}columns: a task has one text in every file or two; "
                             + ("take text_b out" if columns.text_b else "add text_b"))
    if spec.columns.text_b is None and spec.shortcut != "a_only":
        raise StudyError(f"{path}: shortcut: '{spec.shortcut}' is of two texts, and columns.text_b is missing; add it, "
                         "or, for single texts, take a_only")


def _check_apart(path: Path, tables: dict[str, Table]) -> None:
    """Raise StudyError for a file that two splits share."""
    of: dict[str, str] = {}
    for split, table in tables.items():
        if (first := of.setdefault(table.path, split)) != split:
            raise StudyError(f"{path}: {first} and {split} are the same file, {table.path}; give each split rows of "
                             "its own")


def _collapse(where: str, part: _OodFile, labels: tuple[str, ...],
              values: dict[str, str]) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """The classes of an OOD set, and the OOD class id of each task class (None where they are the task's)."""
    if part.collapse is None:
        for name in values.values():
            if name not in labels:
                raise StudyError(f"{where}.labels: '{name}' is no class of the task ({', '.join(labels)}); add "
                                 "`collapse`, task class: OOD class")
        return labels, None
    classes = tuple(dict.fromkeys(values.values()))
    for name in labels:
        if name not in part.collapse:
            raise StudyError(f"{where}.collapse: class '{name}' of the task is missing; say which of "
                             f"{', '.join(classes)} it becomes")
    for name, target in part.collapse.items():
        if name not in labels:
            raise StudyError(f"{where}.collapse: '{name}' is no class of the task{nearest(name, labels)}")
        if target not in classes:
            raise StudyError(f"{where}.collapse: '{target}' is no class of the OOD set{nearest(target, classes)}")
    return classes, tuple(classes.index(part.collapse[name]) for name in labels)


def _parse(path: Path) -> _TaskFile:
    if not path.is_file():
        raise StudyError(f"{path}: no such task file; mend the path or give the name of a task")
    content = safe_yaml.read(path)
    if not isinstance(content, dict):
        raise StudyError(f"{path}: a task file is a mapping of {', '.join(_TaskFile.model_fields)}; begin with "
                         f"name: {path.stem}")
    try:
        return _TaskFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise StudyError(f"{path}: {fault(first, _keys(first['loc']))}") from error


def _keys(place: tuple) -> Iterable[str]:
    """The keys that are valid beside the one at this place in a task file."""
    parent = str(place[-2]) if len(place) > 1 else ""
    return {"": _TaskFile, "columns": _Columns, "files": _Files}.get(parent, _OodFile).model_fields
