"""What a person hands in to be judged: rows, and tables of predictions from any runtime, checked and in one form.

However they came, rows are the items of a task (`lib.tasks.dataset`) and predictions the table of `lib.store`: what
comes after does not care. Nothing here loads a model.
"""

import gzip
import itertools
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib import files, store
from lib.errors import StudyError, nearest
from lib.tasks import dataset, registry, sources
from lib.tasks.forms import SEPARATORS, USUAL, form_of
from lib.tasks.labels import known_as
from lib.tasks.own import LARGEST
from lib.tasks.task import Ood, Task, set_name

MADE = {"n_train": 512, "n_eval": 2000, "n_ood": 200}  # rows of a task that is made, not read, where 0 asks for all
TEXTS = ("guid", "Guid", "GUID", "prediction", "Prediction", "label", "text_a", "text_b", "group", "subcase")
SURE = 10.0  # logit of an answer that comes without scores


@dataclass(frozen=True)
class Rows:
    """The rows that two models are judged on, and what they are of.

    items: as `dataset.load` gives them, train's too where it is known; the ID rows are split `test`. given: the
    arguments of the command line that name these rows again. notes: what was taken of them, a sentence each. named:
    whether a class means the same in every row (not so where each row has choices of its own).
    """

    task: Task
    items: pd.DataFrame
    given: str
    notes: tuple[str, ...] = ()
    named: bool = True

    @property
    def judged(self) -> pd.DataFrame:
        """The rows to predict: test and the OOD sets."""
        return self.items[~self.items["split"].isin(["train", "dev"])].reset_index(drop=True)


@dataclass(frozen=True)
class Predictions:
    """A model's answers: the table of `lib.store`, what its scores were, and what was decided on the way.

    kind: logits, probabilities, percentages, labels (then its logits tell the answer alone) or log-likelihoods.
    """

    table: pd.DataFrame
    kind: str
    notes: tuple[str, ...] = ()


def of_task(name: str, n_eval: int = 0, n_ood: int = 0, n_train: int = 0, seed: int = 0) -> Rows:
    """The rows of a task of the study, or of a task file: so many of test and of each subcase and label of its OOD
    sets, 0 all (of a task that is made: 2,000 and 200). Errors as `registry.get` and `dataset.load`."""
    task = registry.get(name)
    asked = {"n_train": n_train, "n_eval": n_eval, "n_ood": n_ood}
    sizes = {key: n or (0 if task.tables else MADE[key]) for key, n in asked.items()}
    items = dataset.load(task, seed=seed, **sizes)
    given = f"--task {name}" + "".join(f" --{key.replace('_', '-')} {n}" for key, n in asked.items()
                                       if n and key != "n_train")
    return Rows(task, items, given)


def of_files(splits: Mapping[str, Path], name: str = "rows of your own") -> Rows:
    """Labelled rows in files: `id` (the ID rows), any others are OOD sets; `train`, where it is given, is looked at for
    rows that stand there too. Columns guid, label and, where there are any, text_a, text_b, group, subcase. The classes
    are the labels of `id`, sorted. StudyError names file and row."""
    if "id" not in splits:
        raise StudyError(f"--split names {', '.join(splits) or 'nothing'}: give the ID rows too, --split id=FILE")
    if taken := {"test", "dev", "all", "gap"} & set(splits):
        raise StudyError(f"--split: a set cannot be called {min(taken)}; the ID rows are id, an OOD set takes another "
                         "name")
    frames = {split: _labelled(Path(path), split) for split, path in splits.items()}
    labels = tuple(sorted(frames["id"]["label"].unique()))
    if len(labels) < 2:
        raise StudyError(f"{splits['id']}: every row has the label '{labels[0]}'; ID rows hold two classes or more")
    ood, notes = {}, []
    for split, frame in frames.items():
        for label in frame["label"].unique():
            if label not in labels:
                row = int((frame["label"] == label).argmax()) + 1
                raise StudyError(f"{splits[split]}: row {row}: label '{label}' is none of the ID rows' "
                                 f"({', '.join(labels)}){nearest(label, labels)}; sets with labels of their own need a "
                                 "task file with `collapse`")
        if split not in ("id", "train"):
            share = frame["label"].value_counts(normalize=True)
            is_even = share.iloc[0] <= LARGEST
            ood[split] = Ood(labels, score="accuracy" if is_even else "balanced")
            if not is_even:
                notes.append(f"{share.iloc[0]:.0%} of {split} is '{share.index[0]}': its score is the mean over its "
                             "labels.")
    task = Task(name, labels, "text_a", "text_b", ood, "overlap", "", "", "")
    items = pd.concat([frame.assign(split="test" if split == "id" else split) for split, frame in frames.items()],
                      ignore_index=True)
    if (again := items["guid"].duplicated()).any():
        at = items[again].iloc[0]
        raise StudyError(f"guid '{at['guid']}' of split {at['split']} stands in another split too; give every row a "
                         "guid of its own")
    items = items.assign(label=items["label"].map(labels.index).astype("int64"), heuristic="",
                         is_shortcut=pd.array([pd.NA] * len(items), dtype="boolean"))
    given = " ".join(f"--split {split}={path}" for split, path in splits.items())
    return Rows(task, items[dataset.COLUMNS], given, tuple(notes))


def _labelled(path: Path, split: str) -> pd.DataFrame:
    """The rows of one file, its labels as text."""
    frame = read_frame(path)
    by_name = _columns(path, frame, ("guid", "label"))
    found = {name: frame[by_name[name]] for name in ("guid", "label", "text_a", "text_b", "group", "subcase")
             if name in by_name}
    found = pd.DataFrame({name: [known_as(value, ()) for value in column] for name, column in found.items()})
    for name in ("guid", "label"):
        if (empty := found[name] == "").any():
            raise StudyError(f"{path}: row {int(empty.argmax()) + 1}: the {name} is missing; fill it in or take the "
                             "row out")
    _refuse_twice(path, found["guid"])
    return found.assign(**{name: "" for name in ("text_a", "text_b", "group", "subcase") if name not in found},
                        split=split)


def write_rows(path: Path, rows: Rows) -> int:
    """Write guid, text_a and text_b of the rows to predict as CSV, TSV, JSON lines or Parquet; returns how many."""
    table = rows.judged[["guid", "text_a", "text_b"]]
    if not (table["text_a"] != "").any():
        raise StudyError(f"{path}: the rows have no texts to write; the files that --split names are the rows to "
                         "predict")
    writers: dict[str, Callable] = {
        ".csv": lambda to: table.to_csv(to, index=False), ".parquet": lambda to: table.to_parquet(to, index=False),
        ".tsv": lambda to: table.to_csv(to, index=False, sep="\t"),
        ".jsonl": lambda to: table.to_json(to, orient="records", lines=True, force_ascii=False)}
    if path.suffix not in writers:
        raise StudyError(f"{path}: format '{path.suffix}' is not written; take {', '.join(writers)}")
    with files.whole(path) as temporary:
        writers[path.suffix](temporary)
    return len(table)


def read_predictions(path: str | Path, rows: Rows) -> Predictions:
    """A predictions table from any runtime: Parquet, CSV, TSV or JSON lines with guid and a column for each class, by
    its name, or guid and `prediction` alone; or the study's own predictions.parquet. Rows beyond those of `rows` are
    dropped and counted, further columns not read; an OOD set outside the OOD score may be left out as a whole.

    Scores are probabilities where every row sums to 1, percentages where to 100, else logits. StudyError naming the
    file and the column or row at fault.
    """
    path, task, known = Path(path), rows.task, rows.judged
    frame = read_frame(path)
    by_name = _columns(path, frame, ("guid",), f"; give guid and a column for each class ({', '.join(task.labels)}), or"
                       " guid and prediction")
    guid = frame[by_name["guid"]].map(lambda value: known_as(value, ()))
    _refuse_twice(path, guid)
    at = pd.Index(guid).get_indexer(known["guid"])
    absent = [split for split in known["split"].unique() if split not in ("test", *task.scored)
              and (at[known["split"] == split] < 0).all()]
    at, known = at[~known["split"].isin(absent)], known[~known["split"].isin(absent)].reset_index(drop=True)
    if (at < 0).any():
        first = known[at < 0].iloc[0]
        raise StudyError(f"{path}: guid '{first['guid']}' of split {set_name(first['split'])} has no row "
                         f"({(at < 0).sum()} of {len(known)} are missing); predict the rows that this writes: python "
                         f"-m lib.tools.judge {rows.given} --rows FILE.csv")
    extra = len(frame) - len(known)
    notes = (f"{extra} rows beyond those asked for were dropped.",) * bool(extra)
    notes += (f"It has no row of {', '.join(absent)}, which make no score: left out.",) * bool(absent)
    values, kind = _scores(path, frame, by_name, task.labels)
    faulty = ~np.isfinite(values[at]).all(axis=1)
    if faulty.any():
        row = at[int(faulty.argmax())]
        raise StudyError(f"{path}: row {row + 1}, guid '{guid[row]}': {_told(frame.iloc[row], by_name, task.labels)} "
                         "are not all numbers; give logits, probabilities or percentages, decimals after a point")
    values, kind = (values[at], kind) if kind else _as_logits(path, values[at], guid.to_numpy()[at])
    if kind == "places":
        told = ", ".join(f"{i} {label}" for i, label in enumerate(task.labels))
        notes += (f"Its predictions are whole numbers, read as places among the classes: {told}.",)
        kind = "labels"
    return Predictions(store.predictions_table(known, values), kind, notes)


def _scores(path: Path, frame: pd.DataFrame, by_name: dict[str, str], labels: tuple[str, ...]
            ) -> tuple[np.ndarray, str]:
    """Values [rows, classes] as they stand in the file, NaN for what is no number; and their kind where that is plain
    from the columns."""
    plain = [_plain(label) for label in labels]
    there = [name for name in plain if name in by_name]
    if len(there) == len(plain):
        columns = [pd.to_numeric(frame[by_name[name]], errors="coerce") for name in plain]
        return np.column_stack(columns).astype(float), ""
    if there or not {"prediction", "logits"} & set(by_name):
        missing = next(label for label, name in zip(labels, plain) if name not in by_name)
        raise StudyError(f"{path}: column '{missing}' is missing{nearest(missing, map(str, frame.columns))}; give guid "
                         f"and a column for each class: {', '.join(labels)}")
    if "logits" in by_name:
        vectors = [np.asarray(value, dtype=float) if np.ndim(value) == 1 else np.empty(0)
                   for value in frame[by_name["logits"]]]
        for row, vector in enumerate(vectors, 1):
            if len(vector) != len(labels):
                raise StudyError(f"{path}: row {row}: logits holds {len(vector)} numbers, the task has {len(labels)} "
                                 f"classes ({', '.join(labels)}); give one for each, in that order")
        return np.stack(vectors), ""
    places = {str(i): i for i in range(len(labels))}
    answers = [known_as(value, (*labels, *places)) for value in frame[by_name["prediction"]]]
    ids = places | {name: i for i, name in enumerate(plain)}
    found = [ids.get(_plain(answer), -1) for answer in answers]
    if -1 in found:
        row = found.index(-1)
        raise StudyError(f"{path}: row {row + 1}: prediction '{answers[row]}' is no class of the task"
                         f"{nearest(answers[row], labels)}; write its classes as {', '.join(labels)}")
    is_named = any(_plain(answer) in plain for answer in answers)
    return SURE * np.eye(len(labels))[found], "labels" if is_named else "places"


def _as_logits(path: Path, values: np.ndarray, guid: np.ndarray) -> tuple[np.ndarray, str]:
    """Logits, and what the scores were: told by what the rows sum to. StudyError: most rows sum so, one does not."""
    for total, room, kind in ((1, 0.02, "probabilities"), (100, 2, "percentages")):
        sums = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - total) <= room)
        if sums.all():
            return np.log(np.clip(values / total, 1e-12, None)), kind
        if sums.mean() > 0.5 and len(sums) > 2:
            row = int((~sums).argmax())
            raise StudyError(f"{path}: guid '{guid[row]}': {values[row].tolist()} sum to {values[row].sum():g}, while "
                             f"{sums.mean():.0%} of the rows are {kind} and sum to {total}; give one kind of score")
    return values, "logits"


def _told(row: pd.Series, by_name: dict[str, str], labels: tuple[str, ...]) -> list:
    columns = [by_name[name] for name in map(_plain, labels) if name in by_name]
    return [str(row[column]) for column in columns] or list(row[by_name["logits"]])


def read_frame(path: Path) -> pd.DataFrame:
    """A table of one's own as it stands in its file; of text files the separator is found. StudyError: no such file,
    another format, not readable."""
    if not path.is_file():
        raise StudyError(f"{path}: no such file; mend the path")
    form, suffix = None, Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in SEPARATORS:
        opener: Callable = gzip.open if path.suffix == ".gz" else open
        try:
            with opener(path, "rb") as file:
                header = next(filter(bytes.strip, itertools.islice(file, 9)), b"").decode(errors="replace")
        except (OSError, EOFError, zlib.error) as error:
            raise StudyError(f"{path}: not readable ({error}); save it anew") from error
        form = form_of(path, (), max((SEPARATORS[suffix], *USUAL), key=header.count))
    return sources.load_file(path, TEXTS, form).to_pandas()


def _columns(path: Path, frame: pd.DataFrame, needed: Iterable[str], mend: str = "") -> dict[str, str]:
    """Column of the file by its name's letters and digits, and by the plain names of `TEXTS`."""
    by_name: dict[str, str] = {}
    for column in map(str, frame.columns):
        plain = _plain(column)
        if plain in by_name:
            raise StudyError(f"{path}: columns '{by_name[plain]}' and '{column}' are one name; keep one of them")
        by_name[plain] = column
    for name in needed:
        if name not in by_name:
            raise StudyError(f"{path}: column '{name}' is missing{nearest(name, map(str, frame.columns))}{mend}")
    return by_name | {name: by_name[_plain(name)] for name in ("text_a", "text_b")
                      if _plain(name) in by_name}


def _refuse_twice(path: Path, guid: pd.Series) -> None:
    if (again := guid.duplicated()).any():
        row = int(again.argmax())
        raise StudyError(f"{path}: row {row + 1}: guid '{guid.iloc[row]}' stands there twice; give one row each")


def _plain(name: str) -> str:
    """A name's letters and digits; itself where it has none."""
    return sources.normalise(name) or name
