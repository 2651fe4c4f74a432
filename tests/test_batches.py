"""Batches: tokens of a pair, every row once an epoch, like with like, padding that is masked."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.errors import StudyError
from lib.models import batches, pretrained


@pytest.fixture(scope="module")
def tokenizer():
    return pretrained.load_tokenizer("offline")


@pytest.fixture
def items():
    return pd.DataFrame({"text_a": ["the cat saw the dog", "a cat", "the doctor who met the old banker slept well today"],
                         "text_b": ["the dog saw the cat", "no", "the banker slept"], "label": [1, 0, 1]})


LENGTHS = np.random.default_rng(0).integers(5, 60, 200)


def test_encode_keeps_rows_pairs_and_labels(tokenizer, items):
    encoded = batches.encode(tokenizer, items, 128)
    assert tokenizer.decode(encoded.input_ids[1]) == "[CLS] a cat [SEP] no [SEP]"
    assert encoded.token_type_ids[1].tolist() == [0, 0, 0, 0, 1, 1]
    assert encoded.lengths.tolist() == [len(row) for row in encoded.input_ids] == [13, 6, 16]
    assert encoded.labels.tolist() == [1, 0, 1] and encoded.labels.dtype == np.int64
    assert encoded.pad_id == tokenizer.pad_token_id


def test_encode_cuts_the_longer_text(tokenizer, items):
    encoded = batches.encode(tokenizer, items, 10)
    assert encoded.lengths.max() == 10
    assert tokenizer.decode(encoded.input_ids[2]).endswith("[SEP] the banker slept [SEP]")


def test_encode_of_no_row(tokenizer, items):
    assert batches.encode(tokenizer, items.head(0), 16).lengths.shape == (0,)


def test_encode_refuses_what_the_encoder_cannot_hold(tokenizer, items):
    with pytest.raises(StudyError, match="max_length 600 is beyond the encoder's 512"):
        batches.encode(tokenizer, items, 600)


@pytest.mark.parametrize("n", [200, 192, 33])
def test_every_epoch_visits_every_row_once(n):
    size, epochs = 32, 4
    visited = np.concatenate(list(batches.train_batches(LENGTHS[:n], size, epochs * n // size, seed=0)))
    for epoch in range(1, epochs):
        done = visited[:epoch * n // size * size]  # whole batches within these epochs
        counts = np.bincount(done, minlength=n)
        assert counts.max() == epoch and (counts < epoch).sum() == epoch * n - len(done) < size


def test_train_batches_are_full_and_follow_the_seed():
    def draw(seed):
        return np.stack(list(batches.train_batches(LENGTHS, 16, 40, seed)))
    assert draw(1).shape == (40, 16)
    assert np.array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_train_batches_begin_alike_whatever_the_steps():
    short, long = (list(batches.train_batches(LENGTHS, 16, steps, 3)) for steps in (5, 50))
    assert np.array_equal(short, long[:5])


def test_train_batches_pad_little():
    rows = np.stack(list(batches.train_batches(LENGTHS, 16, 12, 0)))
    bucketed = LENGTHS[rows].max(axis=1).sum() * 16 / LENGTHS[rows].sum()
    plain = LENGTHS[:192].reshape(12, 16).max(axis=1).sum() * 16 / LENGTHS[:192].sum()
    assert bucketed < 1.2 < plain


@pytest.mark.parametrize(("low", "high", "is_sorted"), [(5, 60, True), (5, 128, True), (12, 20, False), (20, 22, False)])
def test_rows_of_about_one_length_stay_mixed(low, high, is_sorted):
    lengths = np.random.default_rng(1).integers(low, high, 2048)
    spread = lengths[np.stack(list(batches.train_batches(lengths, 32, 64, 0)))].mean(axis=1).std()
    by_chance = lengths.std() / 32 ** 0.5  # of means of 32 rows drawn at random
    assert spread > 3 * by_chance if is_sorted else spread < 1.5 * by_chance


def test_mixed_padding_is_what_random_batches_pad():
    rows = np.random.default_rng(0).integers(len(LENGTHS), size=(20_000, 32))
    drawn = LENGTHS[rows].max(axis=1).mean() / LENGTHS.mean() - 1
    assert batches.mixed_padding(LENGTHS, 32) == pytest.approx(drawn, abs=0.01)
    assert batches.mixed_padding(LENGTHS, 1) == pytest.approx(0)


def test_train_batches_of_fewer_rows_than_a_batch():
    rows = list(batches.train_batches(LENGTHS[:5], 8, 3, 0))
    assert [len(r) for r in rows] == [8, 8, 8] and set(np.concatenate(rows)) == set(range(5))
    with pytest.raises(StudyError, match="no row to train on"):
        next(batches.train_batches(LENGTHS[:0], 8, 3, 0))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_eval_batches_hold_every_row_once_sorted_within_their_cost(batch_size):
    lengths = np.append(LENGTHS, 500)
    rows = list(batches.eval_batches(lengths, batch_size))
    order = np.concatenate(rows)
    assert sorted(order) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) >= 0).all()
    assert all(len(r) * lengths[r].max() <= batch_size * 64 or len(r) == 1 for r in rows)
    assert not list(batches.eval_batches(lengths[:0], batch_size))


def test_collate_pads_to_the_longest_and_masks_the_rest(tokenizer, items):
    encoded = batches.encode(tokenizer, items, 128)
    inputs = batches.collate(encoded, np.array([1, 0]), "cpu")
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert {tuple(t.shape) for t in inputs.values()} == {(2, 13)} and {t.dtype for t in inputs.values()} == {torch.int64}
    assert inputs["attention_mask"].sum(1).tolist() == [6, 13]
    for i, row in enumerate((1, 0)):
        real = inputs["attention_mask"][i].bool()
        assert inputs["input_ids"][i][real].tolist() == encoded.input_ids[row].tolist()
        assert inputs["token_type_ids"][i][real].tolist() == encoded.token_type_ids[row].tolist()
        assert (inputs["input_ids"][i][~real] == encoded.pad_id).all()


def test_a_batch_of_many_tokens_is_cut_into_parts():
    lengths = np.array([100, 20, 30, 90] * 32)
    rows = np.random.default_rng(0).permutation(128)
    parts = batches.parts_of(lengths, rows)  # 128 x 100 tokens
    assert [len(part) for part in parts] == [32] * 4
    assert [set(lengths[part]) for part in parts] == [{20}, {30}, {90}, {100}]
    assert sorted(np.concatenate(parts)) == sorted(rows)
    assert batches.parts_of(lengths, rows[:40])[0].tolist() == rows[:40].tolist()  # 4,000 tokens
