"""Sample files of the lm-evaluation-harness (`--log_samples`), multiple choice: its rows and a model's answers to them.

A class is the place of a choice in its own row, so rows may differ in their number of choices. A row's scores are the
log-likelihoods of its choices, not divided by their lengths: the harness' `acc`, not its `acc_norm`.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import store
from lib.errors import StudyError, nearest
from lib.tasks import dataset
from lib.tasks.handed import Predictions, Rows
from lib.tasks.task import Ood, Task

NAME = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d{2}-\d{2}T[\d.:-]+)?\.jsonl")
ABSENT = -1e5  # log-likelihood, below that of the best, of a choice that a row does not have


@dataclass(frozen=True)
class Choices(Task):
    """A task whose classes are places of each row's own choices. chances: of a guess among them, by split."""

    chances: dict[str, float] = field(default_factory=dict)

    def chance(self, split: str) -> float:
        return self.chances[split]


@dataclass(frozen=True)
class _Sample:
    doc_hash: str
    target: int
    scores: tuple[float, ...]


def is_harness(place: str | Path) -> bool:
    """Whether a file or folder holds samples of the harness: by its name, or by what its first line holds."""
    path = Path(place).expanduser()
    if path.is_dir():
        return any(path.rglob("samples_*.jsonl"))
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    return '"doc_id"' in first and "resps" in first


def read(parent: str | Path, others: Sequence[str | Path], ood: Iterable[str] = ()) -> tuple[Rows, list[Predictions]]:
    """The rows of two or more models' samples and the predictions of each, the parent's first.

    Tasks pair up by the names of their files, two single files whatever they are called; rows by doc_id and doc_hash.
    Every task is ID unless `ood` names it. StudyError names file and line.
    """
    places = [Path(place).expanduser() for place in (parent, *others)]
    files = [_files(place) for place in places]
    if all(place.is_file() for place in places):
        name = os.path.commonprefix([next(iter(one)) for one in files]).strip("_-. ") or next(iter(files[0]))
        files = [{name: next(iter(one.values()))} for one in files]
    shared = [task for task in files[0] if all(task in one for one in files)]
    if not shared:
        raise StudyError(f"{places[0]} and {places[1]} share no task: {', '.join(files[0])} there, "
                         f"{', '.join(files[1])} here; run both models on the same tasks")
    ood = list(ood)
    for task in ood:
        if task not in shared:
            raise StudyError(f"--ood {task}: no task of both is called so{nearest(task, shared)}")
    if set(ood) == set(shared):
        raise StudyError(f"--ood names every task ({', '.join(ood)}); at least one is the ID one")
    left = sorted({task for one in files for task in one} - set(shared))
    samples = [{task: _samples(one[task]) for task in shared} for one in files]
    for task in shared:
        for other, one in zip(files[1:], samples[1:]):
            _check_paired(files[0][task], other[task], samples[0][task], one[task])
    frame = pd.concat([_items(task, samples[0][task], task if task in ood else "test") for task in shared],
                      ignore_index=True)
    width = int(frame["choices"].max())
    chances = (1 / frame["choices"]).groupby(frame["split"]).mean().to_dict()
    labels = tuple(f"choice {place}" for place in range(width))
    task = Choices("+".join(shared), labels, "text_a", "text_b", {name: Ood(labels) for name in ood}, "overlap", "",
                   "lm-evaluation-harness", "", chances=chances)
    notes = ["Scores are log-likelihoods of the choices, as they are: acc, not acc_norm."]
    notes += [f"Tasks that not all have were left out: {', '.join(left)}."] * bool(left)
    id_tasks = [name for name in shared if name not in ood]
    notes += [f"The ID score is over the rows of {', '.join(id_tasks)}, a row a vote."] * (len(id_tasks) > 1)
    items = frame[dataset.COLUMNS]
    tables = [np.vstack([_scores(sample, width) for name in shared for sample in one[name].values()])
              for one in samples]
    given = f"--parent {parent} --model {others[0]}" if others else ""
    return (Rows(task, items, given, tuple(notes), named=False),
            [Predictions(store.predictions_table(items, logits), "log-likelihoods") for logits in tables])


def _files(place: Path) -> dict[str, Path]:
    """Task -> its samples, of a file or a folder. StudyError: none, or two of one task."""
    if place.is_file():
        named = NAME.fullmatch(place.name)
        return {named["task"] if named else place.stem: place}
    found: dict[str, Path] = {}
    for path in sorted(place.rglob("samples_*.jsonl")):
        if not (named := NAME.fullmatch(path.name)):
            continue
        if (other := found.setdefault(named["task"], path)) != path:
            raise StudyError(f"{path}: task {named['task']} has samples in {other} too; give the folder of one run, or "
                             "the file itself")
    if not found:
        raise StudyError(f"{place}: no samples_*.jsonl of the lm-evaluation-harness there; run it with --log_samples")
    return found


def _samples(path: Path) -> dict[str, _Sample]:
    """doc_id -> its sample, in the file's order; of a file with several filters those of the first."""
    found: dict[str, _Sample] = {}
    kept = None
    with open(path, "rb") as file:  # so that a line that is not UTF-8 is told by its number
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise StudyError(f"{where}: not JSON ({error}); log the samples anew") from error
            if not isinstance(record, dict):
                raise StudyError(f"{where}: {str(record)[:40]!r} is no sample; log the samples anew")
            kept = record.get("filter") if kept is None else kept
            if record.get("filter") != kept:
                continue
            for key in ("doc_id", "doc_hash", "target", "filtered_resps"):
                if key not in record:
                    raise StudyError(f"{where}: '{key}' is missing; give samples as --log_samples of the "
                                     "lm-evaluation-harness writes them")
            if not isinstance(record["filtered_resps"], list):
                raise StudyError(f"{where}: filtered_resps holds {str(record['filtered_resps'])[:40]!r}, no list of "
                                 "choices; only multiple-choice tasks are read")
            name = str(record["doc_id"])
            if name in found:
                raise StudyError(f"{where}: doc_id {name} stands there twice; give the samples of one run")
            scores = tuple(_score(one, where) for one in record["filtered_resps"])
            if len(scores) < 2:
                raise StudyError(f"{where}: filtered_resps holds {len(scores)} choice; only multiple-choice tasks are "
                                 "read, of two choices or more")
            found[name] = _Sample(str(record["doc_hash"]), _target(record, len(scores), where), scores)
    if not found:
        raise StudyError(f"{path}: there is no sample in the file; log the samples anew")
    return found


def _score(one: Any, where: str) -> float:
    """The log-likelihood of a choice, from [log-likelihood, is greedy] as numbers or text."""
    while isinstance(one, list) and one and isinstance(one[0], list):
        one = one[0]
    try:
        value = float(one[0]) if isinstance(one, list) and len(one) == 2 else None
    except (TypeError, ValueError):
        value = None
    if value is None or np.isnan(value):
        raise StudyError(f"{where}: filtered_resps holds {str(one)[:40]!r}, which is no pair of a log-likelihood and "
                         "whether it is greedy; only multiple-choice tasks are read")
    return max(value, ABSENT)


def _target(record: dict, n: int, where: str) -> int:
    """The place of the right choice, from its number or its text."""
    target, doc = record["target"], record.get("doc")
    choices = doc.get("choices") if isinstance(doc, dict) else None
    texts = [str(choice).strip() for choice in choices] if isinstance(choices, list) else []
    text = str(target).strip()
    if text in texts and not (text.isdecimal() and int(text) < n):
        return texts.index(text)
    if not text.isdecimal() or int(text) >= n:
        raise StudyError(f"{where}: target {target!r} is none of its {n} choices; it must be the place of the right "
                         "one, from 0, or its text")
    return int(text)


def _check_paired(path: Path, other: Path, mine: dict[str, _Sample], theirs: dict[str, _Sample]) -> None:
    """StudyError unless both hold the same questions."""
    if odd := sorted(mine.keys() ^ theirs.keys(), key=lambda name: (len(name), name)):
        lacks = other if odd[0] in mine else path
        raise StudyError(f"{lacks}: doc_id {odd[0]} is missing ({len(odd)} stand in one file only); run both models "
                         "with the same --limit")
    for name, sample in mine.items():
        same = theirs[name]
        if (sample.doc_hash, len(sample.scores), sample.target) != (same.doc_hash, len(same.scores), same.target):
            raise StudyError(f"{other}: doc_id {name} is another question than in {path} (doc_hash, choices or target "
                             "differ); run both models on one version of the task")
    for name in list(mine):  # the parent's order
        theirs[name] = theirs.pop(name)


def _items(task: str, samples: dict[str, _Sample], split: str) -> pd.DataFrame:
    guid = [f"{task}/{name}" for name in samples]
    return pd.DataFrame({"guid": guid, "split": split, "text_a": "", "text_b": "",
                         "label": [sample.target for sample in samples.values()], "heuristic": "", "subcase": task,
                         "is_shortcut": pd.array([pd.NA] * len(guid), dtype="boolean"), "group": guid,
                         "choices": [len(sample.scores) for sample in samples.values()]})


def _scores(sample: _Sample, width: int) -> np.ndarray:
    """Log-likelihoods [width], the best 0, of choices that are not there far below."""
    scores = np.full(width, 2 * ABSENT)
    scores[:len(sample.scores)] = np.array(sample.scores) - max(sample.scores)
    return scores
