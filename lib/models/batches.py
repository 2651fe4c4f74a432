"""From rows of text to padded tensors: tokenise once, batch (by length where it pays), pad to a batch's longest."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from lib.errors import StudyError
from lib.tasks import tokenised

POOL = 16  # batches sorted together: MNLI pads 11 % of its tokens, and rows of a batch still vary
# rows whose mixed batches pad less than this stay mixed: where length goes with the kind of a sentence, as in the
# micro-world, a sorted batch holds one kind, and some seeds then train far worse
MIXED_PADDING = 0.5
TOKENS_PER_ROW = 64
# of a batch that a CPU trains on at once. In an encoder of width 768 the largest activation of a part is then 25 MB:
# glibc keeps blocks of up to 32 MB, larger ones go back to the kernel and are zeroed, page by page, at each use
PART_TOKENS = 4096

_kept: dict[tuple, dict[str, "Encoded"]] = {}


@dataclass(frozen=True)
class Encoded:
    """Tokenised rows, unpadded, in row order: n arrays of token ids, n of token types (0 first text, 1 second; None
    where the tokenizer has none), labels int64 [n], tokens of each row [n], the id that pads, and whether it stands
    before a row, as XLNet's tokenizer has it."""

    input_ids: list[np.ndarray]
    token_type_ids: list[np.ndarray] | None
    labels: np.ndarray
    lengths: np.ndarray
    pad_id: int
    pads_left: bool = False


def encode(tokenizer: PreTrainedTokenizerBase, items: pd.DataFrame, max_length: int) -> Encoded:
    """Tokenise the pairs (`text_a`, `text_b`) or single texts of items, see `tokenised.tokens`.

    StudyError: a tokenizer without a padding token, a max_length beyond what the encoder has positions for.
    """
    if tokenizer.pad_token_id is None:
        raise StudyError("encoder: its tokenizer has no padding token: take another encoder, or name one in its "
                         "tokenizer_config.json")
    if max_length > tokenizer.model_max_length:
        raise StudyError(f"max_length {max_length} is beyond the encoder's {tokenizer.model_max_length} tokens: lower "
                         "it")
    labels = items["label"].to_numpy(dtype=np.int64, copy=True)  # a frame's own column is read-only
    if not len(items):
        return Encoded([], None, labels, np.zeros(0, np.int64), tokenizer.pad_token_id)
    columns = {name: [np.asarray(row, np.int32) for row in rows]
               for name, rows in tokenised.tokens(tokenizer, items, max_length).items()}
    ids = columns["input_ids"]
    lengths = np.array([len(row) for row in ids])
    return Encoded(ids, columns.get("token_type_ids"), labels, lengths, tokenizer.pad_token_id,
                   tokenizer.padding_side == "left")


def encode_splits(tokenizer: PreTrainedTokenizerBase, items: pd.DataFrame, max_length: int,
                  identity: tuple) -> dict[str, Encoded]:
    """`encode` of every split of a task's items. identity: what the items and the tokenizer are; the tokens of the last
    one are kept, for the next model that the process makes of them."""
    wanted = (*identity, max_length)
    if wanted not in _kept:
        _kept.clear()
        _kept[wanted] = {split: encode(tokenizer, part, max_length)
                         for split, part in items.groupby("split", sort=False)}
    return _kept[wanted]


def train_batches(lengths: np.ndarray, batch_size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """`steps` batches of exactly `batch_size` row numbers, the same for the same seed.

    Each epoch is a fresh permutation of all rows; the rows that would make a short last batch open the next epoch.
    Where mixed batches would pad by more than half (`mixed_padding`), rows are sorted by length within pools of 16
    batches, and a pool's batches come in random order.
    """
    if not len(lengths):
        raise StudyError("there is no row to train on: n_train or the split 'train' is empty")
    pooled = POOL if mixed_padding(lengths, batch_size) > MIXED_PADDING else 1
    draw = np.random.default_rng(seed)
    waiting, done = np.zeros(0, np.int64), 0
    while done < steps:
        waiting = np.concatenate([waiting, draw.permutation(len(lengths))])
        whole = len(waiting) // batch_size * batch_size
        for start in range(0, whole, pooled * batch_size):
            pool = waiting[start:min(start + pooled * batch_size, whole)]
            pool = pool[np.argsort(lengths[pool], kind="stable")].reshape(-1, batch_size)
            for rows in draw.permutation(pool)[:steps - done]:
                done += 1
                yield rows
        waiting = waiting[whole:]


def mixed_padding(lengths: np.ndarray, batch_size: int) -> float:
    """The padding that batches of rows drawn at random are expected to hold, as a share of the real tokens (batches of
    32: 0.1 to 0.3 in the micro-world, 1.2 on MNLI)."""
    is_longest = np.diff(np.linspace(0, 1, len(lengths) + 1) ** batch_size)  # the chance of each row, shortest first
    return float(is_longest @ np.sort(lengths) / lengths.mean() - 1)


def eval_batches(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Every row once, sorted by length, in batches of about equal cost: `batch_size` rows of 64 tokens, or more."""
    order, start, budget = np.argsort(lengths, kind="stable"), 0, batch_size * TOKENS_PER_ROW
    while start < len(order):
        longest = lengths[order[start:start + budget]]  # of a batch that ends at this row
        cost = longest * np.arange(1, len(longest) + 1)
        stop = start + max(1, int(np.searchsorted(cost, budget, side="right")))
        yield order[start:stop]
        start = stop


def parts_of(lengths: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """A batch of row numbers as it is, or, above 4,096 tokens with its padding, sorted by length and cut into parts of
    about equally many rows, one for every 4,096 tokens begun."""
    tokens = len(rows) * int(lengths[rows].max())
    if tokens <= PART_TOKENS:
        return [rows]
    return np.array_split(rows[np.argsort(lengths[rows], kind="stable")], math.ceil(tokens / PART_TOKENS))


def collate(encoded: Encoded, rows: np.ndarray, device: str | torch.device) -> dict[str, torch.Tensor]:
    """The model's inputs for these rows, int64 [batch, longest of the batch]: input_ids, attention_mask, and
    token_type_ids where the tokenizer gives them. Labels are not among them: a loss of the study takes row numbers."""
    lengths = encoded.lengths[rows]
    shape = (len(rows), int(lengths.max()))
    real = np.arange(shape[1]) < lengths[:, None]
    if encoded.pads_left:
        real = real[:, ::-1]

    def padded(values: list[np.ndarray], fill: int) -> np.ndarray:
        table = np.full(shape, fill, np.int64)
        table[real] = np.concatenate([values[row] for row in rows])
        return table

    tables = {"input_ids": padded(encoded.input_ids, encoded.pad_id), "attention_mask": real.astype(np.int64)}
    if encoded.token_type_ids is not None:
        tables["token_type_ids"] = padded(encoded.token_type_ids, 0)
    return {name: torch.from_numpy(table).to(device) for name, table in tables.items()}
