"""Training: it learns, repeats byte by byte, is not touched by its checkpoints, and says what is wrong."""

import copy
import dataclasses
import os
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lib import progress
from lib.errors import StudyError
from lib.models import batches, devices, loop, losses, make, pretrained

CLASSES, PAD = 2, 0
PLAN = loop.Plan(steps=40, batch_size=16, learning_rate=2e-3, warmup=0.1, weight_decay=0.01, dtype="fp32",
                     device="cpu", seed=0)
SHORT = dataclasses.replace(PLAN, steps=8)


def tiny(family="bert", dropout=0.0):
    torch.manual_seed(0)
    common = dict(vocab_size=40, max_position_embeddings=40, num_labels=CLASSES, pad_token_id=PAD)
    if family == "distilbert":
        return DistilBertForSequenceClassification(DistilBertConfig(dim=32, hidden_dim=64, n_heads=4, n_layers=2, **common))
    kind, make = {"bert": (BertForSequenceClassification, BertConfig),
                  "roberta": (RobertaForSequenceClassification, RobertaConfig)}[family]
    return kind(make(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2,
                     hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
                     type_vocab_size=1 if family == "roberta" else 2, **common))


def rows(n=160):
    """Random token rows of two labels, each with its own part of the vocabulary."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, n)
    ids = [np.concatenate([[1], draw.integers(4, 24, draw.integers(3, 12)) + 16 * label, [2]]) for label in labels]
    types = [(np.arange(len(row)) > len(row) // 2).astype(int) for row in ids]
    return batches.Encoded(ids, types, labels, np.array([len(row) for row in ids]), PAD)


@pytest.fixture
def encoded():
    return rows()


def vanilla(encoded):
    labels = torch.as_tensor(encoded.labels)
    return lambda logits, rows: F.cross_entropy(logits, labels[rows])


def trained(encoded, plan=PLAN, dropout=0.1, **kwargs):
    model = tiny(dropout=dropout)
    return model, *loop.fit(model, encoded, vanilla(encoded), plan, **kwargs)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# --- fit

LARGE = dataclasses.replace(PLAN, steps=1, batch_size=400)  # more tokens than are run at once


def gradient(encoded, objective, row_weights, plan, monkeypatch):
    """The gradient that one step clips, flat, with its loss and the rows of each forward pass."""
    found, passes, model = [], [], tiny()
    model.register_forward_pre_hook(lambda _, args, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True)
    clip = torch.nn.utils.clip_grad_norm_

    def look(parameters, most):
        found.append(torch.cat([p.grad.flatten() for p in parameters]))
        return clip(parameters, most)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", look)
    log, _ = loop.fit(model, encoded, objective, plan, row_weights=row_weights)
    monkeypatch.undo()
    return found[0], log["loss"].item(), passes


@pytest.mark.parametrize("dtype, near", [("fp32", 1e-5), ("bf16", 2e-2)])
@pytest.mark.parametrize("loss", losses.NAMES)
def test_the_parts_of_a_large_batch_add_up_to_its_gradient(loss, dtype, near, monkeypatch):
    encoded, plan, draw = rows(440), dataclasses.replace(LARGE, dtype=dtype), torch.Generator().manual_seed(0)
    weights = 1 + 3 * torch.rand(440, generator=draw)
    objective = losses.objective(loss, torch.as_tensor(encoded.labels), weights=weights, strength=torch.rand(440, generator=draw),
                                 teacher_logits=3 * torch.randn(440, CLASSES, generator=draw))
    whole, whole_loss, once = gradient(encoded, objective, None, plan, monkeypatch)
    parts, parts_loss, passes = gradient(encoded, objective, losses.row_weights(loss, 440, weights), plan, monkeypatch)
    assert once == [400] and passes == ([400] if loss == "focal" else [200, 200])
    assert (parts - whole).norm() < near * whole.norm() and parts_loss == pytest.approx(whole_loss, rel=near)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_run_in_parts_repeats_byte_by_byte(dtype):
    encoded, plan = rows(440), dataclasses.replace(LARGE, steps=3, dtype=dtype)
    (first, log, _), (second, log_again, _) = (trained(encoded, plan, row_weights=torch.ones(440)) for _ in range(2))
    assert same_weights(first, second) and log.equals(log_again)


def test_a_batch_that_fits_is_run_as_without_parts(encoded):
    (first, log, _), (second, log_again, _) = (trained(encoded, SHORT, row_weights=w) for w in (None, torch.ones(160)))
    assert same_weights(first, second) and log.equals(log_again)

@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_it_learns_and_tells_its_log_and_cost(encoded, dtype):
    model, log, cost = trained(encoded, dataclasses.replace(PLAN, dtype=dtype, steps=80), dropout=0.0)
    logits = loop.predict(model, encoded, dtype=dtype, device="cpu")
    assert (logits.argmax(1) == encoded.labels).mean() > 0.9
    assert log["step"].tolist() == list(range(1, 81))
    assert log["loss"].tail(10).mean() < 0.5 * log["loss"].head(10).mean()
    assert set(cost) == {"seconds", "rows_per_second", "peak_memory_bytes"}
    assert {p.dtype for p in model.parameters()} == {torch.float32} and not model.training


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_bytes(encoded, dtype):
    plan = dataclasses.replace(SHORT, dtype=dtype)
    first, log, _ = trained(encoded, plan)
    torch.rand(3)
    second, log_again, _ = trained(encoded, plan)
    assert same_weights(first, second) and log.equals(log_again)
    other, *_ = trained(encoded, dataclasses.replace(plan, seed=1))
    assert not same_weights(first, other)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_checkpoints_see_the_run_and_never_change_it(encoded, dtype):
    plan, seen = dataclasses.replace(SHORT, dtype=dtype), {}
    model = tiny(dropout=0.2)

    def look(step):
        torch.rand(5)  # draws from the source that dropout draws from
        seen[step] = (model.training, loop.predict(model, encoded, dtype=dtype, device="cpu"), copy.deepcopy(model))
    modes = []
    log, _ = loop.fit(model, encoded, vanilla(encoded), plan, checkpoints={s: lambda s=s: look(s) for s in (1, 4, 8)},
                          after_step=lambda _: modes.append(model.training))
    plain, plain_log, _ = trained(encoded, plan, dropout=0.2)
    assert same_weights(model, plain) and log.equals(plain_log)
    assert sorted(seen) == [1, 4, 8] and not any(mode for mode, *_ in seen.values()) and all(modes)
    assert not same_weights(seen[1][2], seen[4][2])
    assert np.array_equal(seen[8][1], loop.predict(model, encoded, dtype=dtype, device="cpu"))


def test_after_step_follows_each_step_and_precedes_its_checkpoint(encoded):
    model, calls = tiny(), []

    def prune(step):
        calls.append(step)
        with torch.no_grad():
            model.classifier.weight.zero_()
    loop.fit(model, encoded, vanilla(encoded), SHORT, after_step=prune,
                 checkpoints={3: lambda: calls.append(model.classifier.weight.abs().sum().item())})
    assert calls == [1, 2, 3, 0.0, 4, 5, 6, 7, 8]


def test_frozen_parameters_stay(encoded):
    model = tiny()
    model.bert.embeddings.requires_grad_(False)
    before = copy.deepcopy(model)
    loop.fit(model, encoded, vanilla(encoded), SHORT)
    assert same_weights(model.bert.embeddings, before.bert.embeddings)
    assert not same_weights(model.bert.encoder, before.bert.encoder)


def test_weight_decay_spares_biases_and_norms(encoded):
    model = tiny()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    loop.fit(model, encoded, lambda logits, _: 0 * logits.sum(), dataclasses.replace(SHORT, weight_decay=0.5))
    for name, p in model.named_parameters():
        assert (p < 1).all() if p.ndim > 1 else (p == 1).all(), name


def test_the_rate_rises_to_the_peak_and_falls_towards_zero(encoded):
    _, log, _ = trained(encoded, dataclasses.replace(PLAN, steps=10, warmup=0.2, learning_rate=1.0))
    assert np.allclose(log["learning_rate"], [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    for warmup, first, last in ((0.0, 1, 0.25), (1.0, 0.25, 1)):
        _, log, _ = trained(encoded, dataclasses.replace(PLAN, steps=4, warmup=warmup, learning_rate=1.0))
        assert log["learning_rate"].iloc[[0, -1]].tolist() == [first, last]


def test_the_objective_gets_fp32_logits_and_the_rows_of_the_batch(encoded):
    for dtype in ("fp32", "bf16"):
        seen = []

        def objective(logits, rows):
            seen.append((logits.dtype, tuple(logits.shape), rows.dtype, len(rows)))
            return vanilla(encoded)(logits, rows)
        loop.fit(tiny(), encoded, objective, dataclasses.replace(SHORT, dtype=dtype))
        assert set(seen) == {(torch.float32, (16, CLASSES), torch.int64, 16)}


def test_bf16_stays_near_fp32(encoded):
    runs = [trained(encoded, dataclasses.replace(SHORT, dtype=dtype), dropout=0.0)[1]["loss"] for dtype in ("fp32", "bf16")]
    assert np.allclose(*runs, atol=0.02) and not np.array_equal(*runs)


def test_bf16_leaves_the_models_attention_as_it_was(encoded):
    model = tiny()
    usual = model.config._attn_implementation
    loop.fit(model, encoded, vanilla(encoded), dataclasses.replace(SHORT, dtype="bf16"))
    assert model.config._attn_implementation == usual == "sdpa"


def test_a_loss_that_is_no_number_names_the_step(encoded):
    calls = []

    def objective(logits, rows):
        calls.append(1)
        return vanilla(encoded)(logits, rows) * (float("nan") if len(calls) == 5 else 1)
    with pytest.raises(StudyError, match=r"nan at step 5 of 8: lower learning_rate \(now 0.002\)"):
        loop.fit(tiny(), encoded, objective, SHORT)


def test_a_checkpoint_outside_the_run_is_refused(encoded):
    with pytest.raises(StudyError, match="checkpoint at step 9"):
        trained(encoded, SHORT, checkpoints={9: lambda: None})


@pytest.mark.parametrize("n_rows", [256, 5000])
def test_too_few_epochs_for_the_checkpoints_are_named_with_enough_of_them(n_rows):
    def check(epochs):
        loop.check_stops([0.5, 0.125], make.steps_of(epochs, n_rows, 32), epochs, 32 / n_rows)
    with pytest.raises(StudyError, match=r"epochs = 0.005 makes too few steps \(1\) .* after 12.5%") as error:
        check(0.005)
    enough = float(re.search("give epochs = ([0-9.]+) or more", str(error.value))[1])
    check(enough)
    with pytest.raises(StudyError):
        check(enough * 0.5)
    loop.check_stops([], 1, 0.005, 1)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_models_without_token_types_train_on_rows_that_have_them(encoded, family):
    model = tiny(family)
    loop.fit(model, encoded, vanilla(encoded), SHORT)
    assert loop.predict(model, encoded, dtype="bf16", device="cpu").shape == (160, CLASSES)


def test_token_types_reach_a_model_that_takes_them(encoded):
    model = tiny()
    without = dataclasses.replace(encoded, token_type_ids=None)
    a, b = (loop.predict(model, e, dtype="fp32", device="cpu") for e in (encoded, without))
    assert not np.allclose(a, b)


# --- predict

@pytest.mark.parametrize("dtype, tolerance", [("fp32", 1e-5), ("bf16", 1e-2)])
def test_predictions_are_in_row_order_whatever_the_batches(encoded, dtype, tolerance):
    model = tiny().train()
    logits = loop.predict(model, encoded, dtype=dtype, device="cpu")
    assert logits.dtype == np.float32 and logits.shape == (160, CLASSES) and model.training
    small = loop.predict(model, encoded, dtype=dtype, device="cpu", batch_size=1)
    assert np.allclose(logits, small, atol=tolerance)
    order = np.random.default_rng(1).permutation(160)
    shuffled = batches.Encoded([encoded.input_ids[i] for i in order], [encoded.token_type_ids[i] for i in order],
                               encoded.labels[order], encoded.lengths[order], PAD)
    assert np.allclose(loop.predict(model, shuffled, dtype=dtype, device="cpu"), logits[order], atol=tolerance)


def test_bf16_predictions_are_near_fp32_and_not_rounded_to_bf16(encoded):
    model = tiny()
    fp32, bf16 = (loop.predict(model, encoded, dtype=dtype, device="cpu") for dtype in ("fp32", "bf16"))
    assert np.abs(fp32 - bf16).max() < 0.02
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    rounded = torch.as_tensor(bf16).bfloat16().float().numpy()
    assert (rounded != bf16).mean() > 0.9


def test_predict_of_no_row(encoded):
    nothing = batches.Encoded([], None, encoded.labels[:0], encoded.lengths[:0], PAD)
    assert loop.predict(tiny(), nothing, dtype="fp32", device="cpu").shape == (0, CLASSES)


def test_the_offline_encoder_trains_in_both_precisions():
    encoded = batches.encode(pretrained.load_tokenizer("offline"), _sentences(), 32)
    plan = dataclasses.replace(PLAN, steps=3, batch_size=8, learning_rate=1e-4)
    for dtype in ("fp32", "bf16"):
        model = pretrained.load_classifier("offline", 2, seed=0, layers=[0, 1])
        log, _ = loop.fit(model, encoded, vanilla(encoded), dataclasses.replace(plan, dtype=dtype))
        assert np.isfinite(log["loss"]).all()
        assert np.isfinite(loop.predict(model, encoded, dtype=dtype, device="cpu")).all()


def _sentences():
    return pd.DataFrame({"text_a": ["the cat saw the dog"] * 16, "text_b": ["the dog ran", "a cat saw it"] * 8,
                         "label": [0, 1] * 8})


# --- where to run, and what is seen meanwhile

def test_device_and_dtype_are_checked():
    assert devices.device("cpu") == "cpu" and devices.device("auto") in ("cpu", "cuda", "mps")
    assert devices.dtype("auto", "cpu") in ("fp32", "bf16") and devices.dtype("bf16", "cpu") == "bf16"
    assert devices.dtype("auto", "mps") == "fp32"
    with pytest.raises(StudyError, match="write auto, cuda, mps, cpu"):
        devices.device("gpu")
    with pytest.raises(StudyError, match="write auto, fp32 or bf16"):
        devices.dtype("float16", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(StudyError, match="none; write auto or cpu"):
            devices.device("cuda")


def test_cublas_is_told_to_repeat_before_a_card_is_taken_and_only_then(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    devices.deterministic(0, torch.get_num_threads())
    devices.device("cpu")
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    told = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(devices, "take_card", lambda n: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda card: told.append(os.environ["CUBLAS_WORKSPACE_CONFIG"]))
    assert devices.device("cuda") == "cuda" and told == [":4096:8"]
    torch.use_deterministic_algorithms(False)


def test_deterministic_seeds_every_source():
    draws = []
    threads = torch.get_num_threads()
    for _ in range(2):
        devices.deterministic(3, threads)
        draws.append((torch.rand(1).item(), np.random.rand()))
    assert draws[0] == draws[1] and torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


def test_the_bar_tells_the_loss_and_leaves_one_short_line(encoded, capsys):
    with progress.bar(SHORT.steps, "dense") as bar:
        trained(encoded, SHORT, progress=bar)
    out = capsys.readouterr().out
    assert "dense 100%" in out and "8/8" in out and "loss=" in out and "rows/s=" in out
    assert out.endswith("\n") and len(out.strip()) < 100


def test_the_bar_is_quiet_where_nobody_watches(capsys):
    with progress.bar(2000, "long") as bar:
        for _ in range(2000):
            bar.update()
    written = capsys.readouterr().out
    assert written.count("\r") <= 2 and "2000/2000" in written


def test_predict_counts_its_rows_on_the_bar(encoded, capsys):
    with progress.bar(160, "predict") as bar:
        loop.predict(tiny(), encoded, dtype="fp32", device="cpu", progress=bar)
    assert "160/160" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_predictions_do_not_depend_on_how_many_rows_are_run_at_once(encoded, dtype):
    model = tiny()
    usual, whole = (loop.predict(model, encoded, dtype=dtype, device="cpu", batch_size=size) for size in (None, 1000))
    one = loop.predict(model, encoded, dtype=dtype, device="cpu", batch_size=1)
    near = dict(rtol=0, atol={"fp32": 1e-5, "bf16": 1e-2}[dtype])
    np.testing.assert_allclose(usual, whole, **near)
    np.testing.assert_allclose(one, whole, **near)
    assert model.config._attn_implementation == "sdpa"
