"""Compressed models beside the one they were made from: whatever was handed in of each is read or run, and judged.

A side is a table of predictions or a finished classifier; a mixture is fine. Nothing stands in for what is missing.
"""

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import store
from lib.analysis import verdict
from lib.errors import StudyError
from lib.files import ROOT
from lib.tasks import handed, harness, sources

HOW = {"logits": "as logits", "probabilities": "as probabilities", "percentages": "as percentages, divided by 100",
       "labels": "as labels without scores: no KL, no probability loyalty", "log-likelihoods": "as log-likelihoods"}


@dataclass(frozen=True)
class How:
    """How a model that is run here is run. labels: the task's class names in its order, where its config names none."""

    revision: str = ""
    dtype: str = "fp32"
    max_length: int = 128
    device: str = "auto"
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Side:
    """One model as it was handed in. scored: whether its answers come with scores. how: how they came about, a
    sentence; notes: what was decided on the way. subject: the classifier (`your_model.Subject`), None where it was read
    from a file. noise: what `noise.floor` says of it."""

    name: str
    place: str
    table: pd.DataFrame
    scored: bool
    how: str
    notes: tuple[str, ...] = ()
    subject: Any = None
    noise: pd.DataFrame | None = None


@dataclass(frozen=True)
class Judgement:
    """A model, what is said of it, and the notes on the pair. key: names these models' answers on these rows."""

    side: Side
    verdict: verdict.Verdict
    notes: tuple[str, ...]
    key: str


def found(place: str) -> Path:
    """Where a file or folder lies: from the working folder or, if it is not there, from the project's root."""
    path = Path(place).expanduser()
    return path if path.exists() or path.is_absolute() or not (ROOT / path).exists() else ROOT / path


def is_table(place: str) -> bool:
    """Whether a place names a file of predictions, there or not; else it is a folder or a hub id of a model."""
    return Path(place.removesuffix(".gz")).suffix.lower() in sources.FORMATS


def read_side(place: str, rows: handed.Rows, how: How = How(), name: str = "", with_noise: bool = True) -> Side:
    """A model from a file of predictions, read, or from a folder or hub id, run on the rows.

    Raises StudyError naming what is wrong with it (`handed.read_predictions`, `your_model.load`).
    """
    name = name or _stem(place)
    if is_table(place):
        read = handed.read_predictions(found(place), rows)
        return Side(name, place, read.table, read.kind != "labels", f"read from {Path(place).name} {HOW[read.kind]}",
                    read.notes)
    if not (rows.judged["text_a"] != "").any():
        raise StudyError(f"{place}: the rows have no texts, so no model can be run on them; hand in its predictions, "
                         "or rows with text_a (and text_b)")
    from lib.trials import noise, your_model  # transformers is not needed to read a table

    path = found(place)
    held = str(path.resolve()) if path.exists() else place
    subject = your_model.load(held, rows.task, list(how.labels), how.revision, how.dtype, name)
    table = your_model.predict(subject, rows.judged, how.max_length, how.device)
    floor = noise.floor(subject, rows.judged, how.max_length, how.device) if with_noise else None
    where = your_model.place_of(subject, how.device)
    said = f"run here on {where} in {subject.dtype}, at most {your_model.cap(subject, how.max_length)} tokens"
    return Side(name, place, table, True, said, tuple(subject.notes), subject, floor)


def read_sides(rows: handed.Rows, parent: str, models: Sequence[str], null: str = "", how: How = How(),
               parent_labels: Sequence[str] = ()) -> list[Side]:
    """The parent, the models and, where there is one, the null, each read or run. how.labels are those of the models,
    parent_labels of the other two."""
    places = [parent, *models, *([null] if null else [])]
    if not all(map(is_table, places)):
        from lib.models import devices

        how = replace(how, device=devices.device(how.device))
    own = replace(how, labels=parent_labels)
    asked = list(zip(places, names_of(places), [own, *[how] * len(models), own]))
    asked.sort(key=lambda one: not is_table(one[0]))  # what is wrong with a table is told before a model runs
    sides = {place: read_side(place, rows, one, name) for place, name, one in asked}
    shared = set.intersection(*(set(side.table["split"]) for side in sides.values()))
    return [replace(side, table=side.table[side.table["split"].isin(shared)].reset_index(drop=True))
            for side in (sides[place] for place in places)]


def write_table(path: Path, table: pd.DataFrame, rows: handed.Rows) -> str:
    """Write a model's predictions of the rows as a person hands them in, guid and a column for each class; returns the
    place."""
    table = table[table["guid"].isin(rows.judged["guid"])].reset_index(drop=True)
    scores = pd.DataFrame(table["logits"].tolist(), columns=list(rows.task.labels))
    store.write_csv(path, pd.concat([table["guid"], scores], axis=1))
    return str(path)


def read_samples(parent: str, models: Sequence[str], null: str = "", ood: Sequence[str] = ()
                 ) -> tuple[handed.Rows, list[Side]]:
    """Rows and sides, the parent's first and the null's last, of samples of the lm-evaluation-harness."""
    places = [parent, *models, *([null] if null else [])]
    for place in places:
        if not harness.is_harness(found(place)):
            raise StudyError(f"{place}: holds no samples of the lm-evaluation-harness, as the other side does; give "
                             "both sides as samples, or both as predictions of one task")
    rows, read = harness.read(found(parent), [found(place) for place in places[1:]], ood)
    return rows, [Side(name, place, one.table, True, f"read from {Path(place).name} {HOW[one.kind]}", one.notes)
                  for name, place, one in zip(names_of(places), places, read)]


def folder_for(folder: Path, judgement: Judgement) -> Path:
    """Where a judgement is kept: `folder`/NAME, or NAME-2, ... where other models' answers are kept under that name."""
    stem = re.sub(r"[^\w.-]+", "_", judgement.side.name).strip("._-") or "model"
    for number in itertools.count(1):
        place = folder / (stem if number == 1 else f"{stem}-{number}")
        kept = place / "verdict.json"
        if not place.exists() or kept.is_file() and _kept_key(kept) == judgement.key:
            return place


def _kept_key(path: Path) -> str:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["models"][0]["key"]
    except (ValueError, LookupError, TypeError):
        return ""


def judged(rows: handed.Rows, parent: Side, models: Sequence[Side], null: Side | None = None,
           n_boot: int = 1000) -> list[Judgement]:
    """The verdict on each model beside the parent. null: the parent trained once more."""
    return [Judgement(side, _verdict(rows, parent, side, null, n_boot), tuple(_pair(parent, side)),
                      _key([one.table for one in (parent, side, null) if one is not None])) for side in models]


def _verdict(rows: handed.Rows, parent: Side, side: Side, null: Side | None, n_boot: int) -> verdict.Verdict:
    scored = parent.scored and side.scored and (null is None or null.scored)
    return verdict.of_pair(side.table, parent.table, rows.items, rows.task, null=null.table if null else None,
                           scored=scored, named=rows.named, n_boot=n_boot)


def _key(tables: list[pd.DataFrame]) -> str:
    return store.key({"guid": tables[0]["guid"].tolist(), "label": tables[0]["label"].tolist(),
                      "logits": [store.array_hash(np.stack(one["logits"].to_numpy())) for one in tables]})


def _pair(parent: Side, side: Side) -> list[str]:
    """What to know of two models that are run here, and of one alone: weights, classifier, tokenizers."""
    from_file = [one.subject is None for one in (parent, side)]
    said = []
    if not from_file[1]:
        from lib.models import inspection

        said += [f"Inside {side.name}: {line}" for line in
                 inspection.inspect(side.subject.model, side.subject.stored).lines()]
    if any(from_file):
        return said
    from lib.trials import your_model

    said += your_model.tokenizers_differ(side.subject, parent.subject).splitlines() or ["The two tokenizers agree."]
    if parent.subject.dtype != side.subject.dtype:
        said.append(f"{side.name} is predicted in {side.subject.dtype}, its parent in {parent.subject.dtype}.")
    return said


def names_of(places: Sequence[str]) -> list[str]:
    """A short name for each model, none twice: its file's or folder's, with that of the folder above or a number where
    two agree."""
    names = [_stem(place) for place in places]
    names = [f"{Path(place).parent.name}-{name}" if names.count(name) > 1 and Path(place).parent.name else name
             for name, place in zip(names, places)]
    return [f"{name}-{names[:at].count(name) + 1}" if name in names[:at] else name for at, name in enumerate(names)]


def _stem(place: str) -> str:
    name = Path(place.rstrip("/")).name
    stem = Path(name.removesuffix(".gz")).stem if is_table(name) else name
    return stem or "model"
