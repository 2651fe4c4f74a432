"""A finished model of the reader's own: loaded, its classes found by name, asked; what its answers say: `judging`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib import progress, store
from lib.errors import StudyError, nearest
from lib.models import batches, classifiers, loop
from lib.tasks import sources
from lib.tasks.task import Task
from lib.trials import attack

MIXED = "Été"  # a word that shows whether case and accents are read


@dataclass(frozen=True)
class Subject:
    """A classifier as it was saved. order: for each class of the task, the model's class. dtype: of its predictions.
    stored: of most numbers in its file. notes: a sentence for each thing that was decided when it was loaded."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    order: tuple[int, ...]
    dtype: str
    stored: str
    notes: tuple[str, ...]

    @property
    def layers(self) -> int | str:
        """Layers of the encoder, as its config says."""
        return getattr(self.model.config, "num_hidden_layers", "not known")


def load(place: str, task: Task, labels: list[str] | None = None, revision: str = "", dtype: str = "fp32",
         name: str = "") -> Subject:
    """A finished classifier of any architecture from a folder or a hub id, quantised by torchao or not.

    labels: the task's class names in the model's order, needed where its config does not name them. dtype: of
    predictions, "fp32" or "bf16"; a model and its parent should have one, and a quantised model takes fp32. name: what
    it is called in bars and texts. Raises StudyError for what `classifiers.load` refuses, another number of classes,
    classes that cannot be told apart.
    """
    loaded = classifiers.load(place, revision)
    model, notes = loaded.model, loaded.notes
    theirs = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    if labels and len(labels) != len(theirs):
        raise StudyError(f"labels names {len(labels)} classes ({', '.join(labels)}), the model in {place} has "
                         f"{len(theirs)} ({', '.join(theirs)}): name all of its classes, in its order")
    if is_quantized(model) and dtype != "fp32":
        notes += ("It is quantised, so it is predicted in fp32: take fp32 for its parent too.",)
    return Subject(name or Path(place).name, model, loaded.tokenizer, order_of(labels or theirs, task, place),
                   "fp32" if is_quantized(model) else dtype, loaded.stored, notes)


def order_of(names: list[str], task: Task, place: str) -> tuple[int, ...]:
    """For each class of the task the place of its name among the model's, by letters and digits alone."""
    plain = [sources.normalise(name) for name in names]
    wanted = [sources.normalise(label) for label in task.labels]
    if len(names) != len(task.labels):
        raise StudyError(f"{place} has {len(names)} classes ({', '.join(names)}), task '{task.name}' has "
                         f"{len(task.labels)} ({', '.join(task.labels)}): give a model of that task")
    if twice := [name for name in names if names.count(name) > 1]:
        raise StudyError(f"{place}: class '{twice[0]}' is named twice; name each of its classes once, in its order")
    if sorted(plain) != sorted(wanted):
        strange = next(name for name, one in zip(names, plain) if one not in wanted)
        raise StudyError(f"{place} calls a class '{strange}', which task '{task.name}' does not know"
                         f"{nearest(strange, task.labels)}; say in labels what its classes mean, in its order, such as "
                         f"labels = {list(task.labels)}")
    return tuple(plain.index(label) for label in wanted)


def predict(subject: Subject, items: pd.DataFrame, max_length: int, device: str = "cpu") -> pd.DataFrame:
    """The model's predictions table of these rows, its logits in the task's order of classes; rows are cut at
    `max_length` tokens, or at the model's own limit."""
    encoded = batches.encode(subject.tokenizer, items, cap(subject, max_length))
    with progress.bar(len(items), subject.name) as bar:
        logits = loop.predict(subject.model, encoded, dtype=subject.dtype, device=place_of(subject, device),
                              progress=bar)
    return store.predictions_table(items, logits[:, list(subject.order)])


def cap(subject: Subject, max_length: int) -> int:
    """Tokens at which rows are cut: `max_length`, or fewer where the model has positions for fewer."""
    return min(max_length, subject.tokenizer.model_max_length)


def place_of(subject: Subject, device: str) -> str:
    """Where the model runs: a quantised one on the CPU."""
    return "cpu" if is_quantized(subject.model) else device


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether a model's weights are integers."""
    return getattr(model.config, "quantization_config", None) is not None


def victim(subject: Subject, max_length: int, device: str = "cpu") -> "_Ordered":
    """The model, ready for `lib.trials.attack`, its answers in the task's order of classes."""
    asked = attack.Victim(subject.model, subject.tokenizer, cap(subject, max_length), "fp32", place_of(subject, device))
    return _Ordered(asked, subject.order)


@dataclass
class _Ordered:
    asked: attack.Victim
    order: tuple[int, ...]

    def logits(self, text_a, text_b) -> np.ndarray:
        return self.asked.logits(text_a, text_b)[:, list(self.order)]


def tokenizers_differ(subject: Subject, parent: Subject, max_length: int | None = None) -> str:
    """What to know where a model and its parent read otherwise, a line each; else "". max_length: at which rows are
    cut, for what a limit of the model's own changes."""
    yours, theirs = subject.tokenizer, parent.tokenizer
    lines = []
    if yours.get_vocab() != theirs.get_vocab():
        lines.append(f"{subject.name} has a tokenizer of its own ({len(yours)} tokens, its parent's {len(theirs)}): "
                     "each reads by its own, and word counts and speeds are of different inputs.")
    special = [{name: str(token) for name, token in one.special_tokens_map.items() if isinstance(token, str)}
               for one in (yours, theirs)]
    for name in sorted({*special[0], *special[1]}):
        if special[0].get(name) != special[1].get(name):
            lines.append(f"{subject.name} has the {name} {special[0].get(name, 'none')!r}, its parent "
                         f"{special[1].get(name, 'none')!r}.")
    if yours.padding_side != theirs.padding_side:
        lines.append(f"{subject.name} pads on the {yours.padding_side}, its parent on the {theirs.padding_side}.")
    if _normal(yours) != _normal(theirs):
        lines.append(f"{subject.name} reads {MIXED!r} as {_normal(yours)!r}, its parent as {_normal(theirs)!r}: "
                     "case or accents are not treated alike.")
    limits = [cap(one, max_length or one.tokenizer.model_max_length) for one in (subject, parent)]
    if limits[0] != limits[1]:
        lines.append(f"{subject.name} reads at most {limits[0]} tokens, its parent {limits[1]}: longer rows are cut "
                     "differently.")
    return "\n".join(lines)


def _normal(tokenizer: PreTrainedTokenizerBase) -> str:
    """How a tokenizer writes a word of mixed case before it cuts it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return MIXED.lower() if getattr(tokenizer, "do_lower_case", False) else MIXED
    return backend.normalizer.normalize_str(MIXED) if backend.normalizer else MIXED
