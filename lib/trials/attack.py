"""Greedy importance-ranked word substitution: which words of the second text does a model's answer hang on?

Words of `text_b` (hypothesis, claim, second question; of a single text, whose text_b is "", those of text_a) are ranked
by how much the true class loses when they are taken out, and replaced in that order, each by the best of its candidates
(`lib.trials.candidates`), until the answer turns or the budget is spent. The recipe is that of Jin et al. (2020, arXiv
1907.11932) without its sentence similarity and tagger. All rows advance in lock step, so that each round asks the model
once.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import softmax
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.analysis import bootstrap
from lib.errors import StudyError
from lib.models import encoders, loop
from lib.models.batches import encode
from lib.trials.candidates import STOP_WORDS, Source

WORD = re.compile(r"\w+(?:['’-]\w+)*")
COLUMNS = ["guid", "label", "correct", "success", "queries", "words", "changed", "text_b", "adversarial"]


class Victim:
    """A model that is asked for logits and remembers its answers.

    `queries` counts the pairs asked, `forwards` those that really ran, `flops` what these cost without padding, NaN
    where the encoder's family is unknown. dtype
    "bf16" keeps one bf16 copy of the model for the victim's life; a quantised model takes "fp32". batch_size: in rows
    of 64 tokens, see `batches.eval_batches`; None is `loop.predict`'s own on a CPU, else 512.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, dtype: str,
                 device: str, batch_size: int | None = None):
        self.model = loop.bf16_copy(model) if dtype == "bf16" else model
        self.tokenizer, self.max_length, self.device = tokenizer, max_length, device
        self.batch_size = batch_size or (None if device == "cpu" else 512)
        self.queries = self.forwards = self.flops = 0
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def logits(self, text_a: Sequence[str], text_b: Sequence[str]) -> np.ndarray:
        """Logits float32 [n, classes] of the pairs, in their order; a pair asked before is not run again."""
        pairs = list(zip(text_a, text_b, strict=True))
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        self.queries += len(pairs)
        self.forwards += len(new)
        if new:
            frame = pd.DataFrame(new, columns=["text_a", "text_b"]).assign(label=0)
            encoded = encode(self.tokenizer, frame, self.max_length)
            for length, count in zip(*np.unique(encoded.lengths, return_counts=True)):
                self.flops += int(count) * encoders.flops(self.model, int(length))
            logits = loop.predict(self.model, encoded, dtype="fp32", device=self.device, batch_size=self.batch_size)
            self._known.update(zip(new, logits))
        if not pairs:
            return np.zeros((0, self.model.config.num_labels), np.float32)
        return np.stack([self._known[pair] for pair in pairs])


@dataclass
class _Row:
    """One row under attack: its text as words and what stands between them, and how far it has come.

    text_a: what the text stands beside; None where it is the only one.
    """

    text_a: str | None
    label: int
    gaps: list[str]
    words: list[str]
    p: float = 1.0  # probability of the label
    todo: list[tuple[int, list[str]]] = field(default_factory=list)  # (word, its candidates), most important first
    budget: int = 0
    queries: int = 0
    changed: int = 0
    success: bool = False

    def text(self, at: int | None = None, word: str = "") -> str:
        """The attacked text, with the word at `at` replaced."""
        words = self.words if at is None else [*self.words[:at], word, *self.words[at + 1:]]
        return "".join(part for pair in zip(self.gaps, [*words, ""]) for part in pair)

    def without(self, at: int) -> str:
        """The attacked text without the word at `at`."""
        return re.sub(r"\s+", " ", self.text(at)).strip()


def run(victim: Victim, items: pd.DataFrame, source: Source, *, max_changed: float, max_candidates: int,
        stop_words: bool = True, progress: tqdm | None = None) -> pd.DataFrame:
    """Attack the rows of items (guid, text_a, text_b, label), one row each in the result, in their order.

    source: candidates of a word, see `lib.trials.candidates.source`; the first `max_candidates` are tried. max_changed:
    share of the words that may be replaced, at least one word. stop_words: leave `candidates.STOP_WORDS` as they are.
    victim: anything with `logits(text_a, text_b)`. progress: a bar that is moved on by len(items) rows.

    guid | label | correct (before) | success | queries | words | changed | text_b | adversarial ("" unless
    success). queries: texts asked about the row (itself, without each word, its candidates), whether remembered or
    not; 0 of a row that was wrong before, which is not attacked. Of one word's candidates the one that lowers the
    label's probability most is taken, if any does; one that turns the answer goes first and ends the search. Texts of
    real sets stand in the table: do not commit those. StudyError: a number out of its range, a label unknown to the
    model.
    """
    if not 0 <= max_changed <= 1:
        raise StudyError(f"attack_changed is {max_changed}; give a share of the words from 0 to 1")
    if max_candidates < 1:
        raise StudyError(f"attack_candidates is {max_candidates}; give 1 or more")
    rows = [_Row(a if b else None, int(y), WORD.split(b or a), WORD.findall(b or a))
            for a, b, y in zip(items["text_a"], items["text_b"], items["label"])]
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    p, pred = _ask(victim, [(row, row.text()) for row in rows])
    correct = pred == [row.label for row in rows]
    active = [row for row, right in zip(rows, correct) if right]
    for row, before in zip(active, p[correct]):
        row.p, row.queries, row.budget = before, 1, max(1, int(max_changed * len(row.words) + 1e-9))
    _rank(victim, active, source, max_candidates, stop_words)
    done = 0
    while True:
        left = [row for row in active if row.todo and row.changed < row.budget and not row.success]
        if progress is not None:
            progress.update(len(rows) - len(left) - done)
        done = len(rows) - len(left)
        if not left:
            break
        _substitute(victim, left)
    return pd.DataFrame({
        "guid": items["guid"].to_numpy(), "label": items["label"].to_numpy(), "correct": correct,
        "success": [row.success for row in rows], "queries": [row.queries for row in rows],
        "words": [len(row.words) for row in rows], "changed": [row.changed for row in rows],
        "text_b": items["text_b"].to_numpy(), "adversarial": [row.text() if row.success else "" for row in rows]})


def summary(attacked: pd.DataFrame, items: pd.DataFrame, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """An attack in five numbers: measure | value | low | high | n (rows), intervals as `lib.analysis.bootstrap`.

    clean_accuracy and after_attack_accuracy (a row wrong before is a failure) of all rows; success_rate and queries
    (mean) of the rows right before; words_changed: mean share of the words replaced where the attack succeeded.
    attacked: of one model (with a column `seed`: of one model per seed). items: their splits, subcases and groups.
    """
    rows = attacked.merge(items[["guid", "split", "subcase", "group"]], on="guid", how="left", validate="many_to_one")
    rows["confidence"], rows["loss"] = rows["changed"] / rows["words"].clip(lower=1), rows["queries"]  # reused names
    broken, right = rows["success"], rows["correct"]
    parts = [("clean_accuracy", rows, "accuracy"),
             ("after_attack_accuracy", rows.assign(correct=right & ~broken), "accuracy"),
             ("success_rate", rows.assign(correct=broken)[right], "accuracy"),
             ("queries", rows[right], "loss"),
             ("words_changed", rows[broken], "confidence")]
    known = [({"measure": name}, part, kind) for name, part, kind in parts if len(part)]
    table = bootstrap.intervals(known, n_boot, seed)
    table = table.set_index("measure").reindex([name for name, *_ in parts]).reset_index()
    return table.assign(n=table["n"].fillna(0).astype(int))


def replay(victim: Victim, attacked: pd.DataFrame, items: pd.DataFrame) -> pd.Series:
    """Whether the victim is right on the adversarial texts found on another model: guid -> bool, successes only."""
    pairs = attacked.loc[attacked["success"], ["guid", "label", "adversarial"]].merge(
        items[["guid", "text_a", "text_b"]], on="guid", how="left", validate="one_to_one")
    beside = [a if b else None for a, b in zip(pairs["text_a"], pairs["text_b"])]
    logits = _logits(victim, beside, pairs["adversarial"])
    return pd.Series(logits.argmax(axis=1) == pairs["label"].to_numpy(), index=pd.Index(pairs["guid"], name="guid"),
                     name="correct", dtype=bool)


def _logits(victim: Victim, beside: Iterable[str | None], texts: Iterable[str]) -> np.ndarray:
    """Logits of texts, each beside a first one, or by itself where there is none."""
    pairs = [(text, "") if first is None else (first, text) for first, text in zip(beside, texts, strict=True)]
    return victim.logits([a for a, _ in pairs], [b for _, b in pairs])


def _ask(victim: Victim, texts: list[tuple[_Row, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each text's row's label and the predicted class, [n] both; one call of the victim."""
    logits = _logits(victim, [row.text_a for row, _ in texts], [text for _, text in texts])
    label = np.array([row.label for row, _ in texts], dtype=int)
    if len(label) and label.max() >= logits.shape[1]:
        raise StudyError(f"attack: label {label.max()} is beyond the model's {logits.shape[1]} classes; attack rows of "
                         "the model's own task")
    p = softmax(logits.astype(np.float64), axis=1)[np.arange(len(label)), label]
    return p, logits.argmax(axis=1)


def _rank(victim: Victim, rows: list[_Row], source: Source, max_candidates: int, stop_words: bool) -> None:
    """Set each row's `todo`: importance = p(label | text) - p(label | text without the word)."""
    texts = [(row, row.without(at)) for row in rows for at in range(len(row.words))]
    p = iter(_ask(victim, texts)[0] if texts else ())
    for row in rows:
        row.queries += len(row.words)
        without = [next(p) for _ in row.words]
        for at in np.argsort(without, kind="stable"):
            word = row.words[at]
            if not (stop_words and word.lower() in STOP_WORDS) and (candidates := source(word)[:max_candidates]):
                row.todo.append((int(at), [_cased(c, word) for c in candidates]))


def _substitute(victim: Victim, rows: list[_Row]) -> None:
    """One round: each row's next word, all its candidates, the best of them."""
    turns = [(row, *row.todo.pop(0)) for row in rows]
    p, pred = _ask(victim, [(row, row.text(at, c)) for row, at, candidates in turns for c in candidates])
    start = 0
    for row, at, candidates in turns:
        mine = slice(start, start := start + len(candidates))
        row.queries += len(candidates)
        turned = pred[mine] != row.label
        best = int(np.argmin(np.where(turned, p[mine] - 2, p[mine])))
        if turned[best] or p[mine][best] < row.p:
            row.words[at], row.p, row.success = candidates[best], p[mine][best], bool(turned[best])
            row.changed += 1


def _cased(candidate: str, word: str) -> str:
    """The candidate in the case of the word it replaces."""
    if word.isupper() and len(word) > 1:
        return candidate.upper()
    return candidate.capitalize() if word[0].isupper() else candidate
