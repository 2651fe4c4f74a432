"""Quantisation of tiny BERT, RoBERTa and DistilBERT classifiers: what is rounded, trained, saved and said."""

import copy
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tiny as tiny_models
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, BertTokenizer

from lib.errors import StudyError
from lib.files import ROOT
from lib.models import batches, encoders, loop, magnitude, pretrained, quantization, structured
from lib.models.encoders import layer_parts

ROOT = ROOT
PLAN = loop.Plan(steps=12, batch_size=16, learning_rate=2e-3, warmup=0.1, weight_decay=0.01, dtype="fp32",
                     device="cpu", seed=0)


def tiny(family="bert", vocabulary=40):
    return tiny_models.classifier(family, width=32, ffn=64, heads=4, labels=3, dropout=0.1, vocabulary=vocabulary)


@pytest.fixture(params=tiny_models.FAMILIES)
def model(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def encoded():
    """Random token rows of three labels, each with its own part of the vocabulary."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 96)
    ids = [np.concatenate([[1], draw.integers(4, 16, draw.integers(3, 12)) + 12 * label, [2]]) for label in labels]
    types = [(np.arange(len(row)) > len(row) // 2).astype(int) for row in ids]
    return batches.Encoded(ids, types, labels, np.array([len(row) for row in ids]), 0)


@pytest.fixture
def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(35))]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def logits_of(model, encoded, dtype="fp32"):
    return loop.predict(model, encoded, dtype=dtype, device="cpu")


def train(model, encoded, **changes):
    labels = torch.as_tensor(encoded.labels)
    return loop.fit(model, encoded, lambda logits, rows: F.cross_entropy(logits, labels[rows]),
                        dataclasses.replace(PLAN, **changes))


def finished(model, kind):
    """The quantised model; qat8 without a step of training."""
    return quantization.quantize(quantization.prepare(model) if kind == "qat8" else model, kind)


def parts(model):
    return [part for parts in layer_parts(model) for part in parts.values()]


# --- what is rounded, and how

@pytest.mark.parametrize("kind", quantization.KINDS)
def test_the_encoder_s_linear_maps_alone_are_quantised(model, kind):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ours = {name for name, p in model.named_parameters() if any(p is part.weight for part in parts(model))}
    finished(model.train(), kind)
    assert not model.training and all(not part.weight.requires_grad for part in parts(model))
    after = dict(model.named_parameters())
    assert set(after) == set(before) and len(ours) == 12
    for name, p in after.items():
        if name in ours:
            assert (p.dequantize() != before[name]).any()
        else:
            assert torch.equal(p, before[name]) and type(p.data) is torch.Tensor


@pytest.mark.parametrize("kind, levels, group", [("ptq8", 127.5, 0), ("ptq4", 7.5, 32)])
def test_weights_lie_on_the_grid_of_their_row_or_group(model, kind, levels, group):
    before = [part.weight.detach().clone() for part in parts(model)]
    quantization.quantize(model, kind)
    for part, weight in zip(parts(model), before):
        groups = weight.unflatten(1, (-1, group or weight.shape[1]))
        step = groups.abs().amax(-1, keepdim=True) / levels
        whole = part.weight.dequantize().unflatten(1, (-1, group or weight.shape[1])) / step
        torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-3)
        assert whole.round().amin() >= -levels - 0.5 and whole.round().amax() <= levels - 0.5
        assert (whole - groups / step).abs().max() < 0.501


def test_int8_activations_are_rounded_token_by_token():
    model = tiny()
    weight, bias = parts(model)[0].weight.detach().clone(), parts(model)[0].bias
    part = parts(quantization.quantize(model, "ptq8"))[0]
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1))
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    step = (high - low) / 255
    zero = (-128 - (low / step).round()).clamp(-128, 127)
    rounded = ((x / step).round() + zero).clamp(-128, 127).sub(zero) * step
    torch.testing.assert_close(part(x), F.linear(rounded, part.weight.dequantize(), bias), rtol=1e-4, atol=1e-4)
    assert (part(x) - F.linear(x, weight, bias)).abs().max() > 1e-3
    alone = torch.stack([part(x[:, i:i + 1])[:, 0] for i in range(3)], 1)
    torch.testing.assert_close(part(x), alone)


def test_int8_is_close_to_fp32_and_closer_than_int4(model, encoded):
    full = logits_of(model, encoded)
    error = {kind: np.abs(logits_of(finished(copy.deepcopy(model), kind), encoded) - full).mean()
             for kind in ("ptq8", "ptq4")}
    assert 0 < error["ptq8"] < error["ptq4"] and error["ptq8"] < 0.05 * full.std()


def test_zeros_stay_zero_and_an_empty_row_is_no_fault(encoded):
    model = tiny()
    structured.HeadPruner(model, np.arange(8.0).reshape(2, 4), 0.5)
    pruner = magnitude.MagnitudePruner(model, 0.6, steps=4, warmup=0, cooldown=0, interval=1)
    pruner.after_step(pruner.end)
    zero = [part.weight.detach() == 0 for part in parts(model)]
    assert any(z.all(1).any() for z in zero)
    for kind in quantization.KINDS:
        changed = finished(copy.deepcopy(model), kind)
        assert np.isfinite(logits_of(changed, encoded)).all()
        assert all((part.weight.dequantize()[z] == 0).all() for part, z in zip(parts(changed), zero))


# --- quantisation-aware training

def test_without_training_qat8_is_ptq8(model, encoded):
    ptq8 = logits_of(quantization.quantize(copy.deepcopy(model), "ptq8"), encoded)
    ready = quantization.prepare(copy.deepcopy(model))
    assert np.array_equal(logits_of(ready, encoded), ptq8)
    assert np.array_equal(logits_of(quantization.convert(ready), encoded), ptq8)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_prepared_model_trains_and_converts_to_what_it_was_in_training(model, encoded, dtype):
    names = [name for name, _ in model.named_parameters()]
    model.base_model.embeddings.requires_grad_(False)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    quantization.prepare(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == frozen
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    labels, seen = torch.as_tensor(encoded.labels), []
    log, _ = loop.fit(model, encoded, lambda logits, rows: F.cross_entropy(logits, labels[rows]),
                          dataclasses.replace(PLAN, dtype=dtype, steps=30),
                          checkpoints={5: lambda: seen.append(logits_of(model, encoded, dtype))})
    assert log["loss"].tail(5).mean() < log["loss"].head(5).mean() and len(seen) == 1
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert still == frozen
    trained = logits_of(model, encoded)
    assert np.array_equal(logits_of(quantization.quantize(model, "qat8"), encoded), trained)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_quantisation_aware_training_repeats_byte_by_byte(encoded, dtype):
    runs = []
    for _ in range(2):
        model = quantization.prepare(tiny())
        train(model, encoded, dtype=dtype)
        runs.append(logits_of(quantization.convert(model), encoded))
    assert np.array_equal(*runs)


def test_training_sees_the_rounding_and_the_gradient_passes(encoded):
    usual, aware = tiny(), quantization.prepare(tiny())
    inputs = batches.collate(encoded, np.arange(16), "cpu")
    gradients = []
    for model in (usual, aware):
        model(**inputs).logits.square().mean().backward()
        gradients.append(torch.cat([part.weight.grad.flatten() for part in parts(model)]))
    assert not torch.equal(*gradients)
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("training_mode", [True, False])
def test_prepare_keeps_the_mode(training_mode):
    model = quantization.prepare(tiny().train(training_mode))
    assert {module.training for module in model.modules()} == {training_mode}


# --- saving and loading

@pytest.mark.parametrize("kind", quantization.KINDS)
def test_a_saved_model_gives_the_same_logits_here_and_in_plain_transformers(model, encoded, tokenizer, tmp_path, kind):
    expected = logits_of(finished(model, kind), encoded)
    quantization.save(model, tokenizer, tmp_path / "one")
    assert quantization.is_quantized(tmp_path / "one")
    assert not list((tmp_path / "one").glob("*.bin")) and (tmp_path / "one" / "tokenizer.json").is_file()
    loaded = quantization.load(tmp_path / "one")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "one")
    for other in (loaded, plain):
        assert not other.training and logits_of(other, encoded).tobytes() == expected.tobytes()
    quantization.save(loaded, tokenizer, tmp_path / "two")
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_model_that_came_from_a_folder_can_be_quantised_and_saved(encoded, tokenizer, tmp_path):
    pretrained.save(tiny(), tokenizer, tmp_path / "parent")
    assert not quantization.is_quantized(tmp_path / "parent")
    model = pretrained.load_classifier(str(tmp_path / "parent"), 3, seed=0)
    expected = logits_of(quantization.quantize(model, "ptq8"), encoded)
    quantization.save(model, tokenizer, tmp_path / "child")
    assert np.array_equal(logits_of(quantization.load(tmp_path / "child"), encoded), expected)


def test_saving_leaves_the_parent_s_config_alone_in_a_copy():
    parent = tiny()
    quantization.quantize(copy.deepcopy(parent), "ptq8")
    assert getattr(parent.config, "quantization_config", None) is None


@pytest.mark.parametrize("kind, width", [("ptq8", 8), ("ptq4", 4)])
def test_sizes_count_the_bits(encoded, tokenizer, tmp_path, kind, width):
    model = tiny(vocabulary=1000)
    usual = encoders.sizes(model)
    zeros = sum(int((part.weight == 0).sum()) for part in parts(model))
    quantization.quantize(model, kind)
    found = quantization.sizes(model)
    assert {name: found[name] for name in ("parameters", "encoder_parameters")} == \
           {name: usual[name] for name in ("parameters", "encoder_parameters")}
    new_zeros = sum(int((part.weight.dequantize() == 0).sum()) for part in parts(model)) - zeros
    assert new_zeros > 0
    for name in ("nonzero_parameters", "nonzero_encoder_parameters"):
        assert usual[name] - found[name] == new_zeros
    in_full = usual["parameters"] - usual["encoder_parameters"]
    scales = sum(part.weight.numel() // 32 if width == 4 else part.out_features for part in parts(model))
    assert found["bytes"] == 4 * in_full + usual["encoder_parameters"] * width // 8 + 4 * scales
    quantization.save(model, tokenizer, tmp_path)
    header = 30_000
    whole = 4 * in_full + usual["encoder_parameters"] + 5 * scales  # a zero point, always 0, for each scale
    assert whole <= (tmp_path / "model.safetensors").stat().st_size < whole + header


# --- what is said

def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(StudyError, match="'ptq-8'.*'ptq8'"):
        quantization.quantize(tiny(), "ptq-8")


def test_a_model_in_the_wrong_state_is_refused(tokenizer, tmp_path):
    for call in (lambda m: quantization.quantize(m, "qat8"), quantization.convert):
        with pytest.raises(StudyError, match="prepare"):
            call(tiny())
    for call in (lambda m: quantization.quantize(m, "ptq8"), quantization.prepare):
        with pytest.raises(StudyError, match="ready for qat8"):
            call(quantization.prepare(tiny()))
        with pytest.raises(StudyError, match="quantised already"):
            call(quantization.quantize(tiny(), "ptq8"))
    with pytest.raises(StudyError, match="pretrained.save"):
        quantization.save(tiny(), tokenizer, tmp_path)


def test_int4_says_which_width_it_cannot_group(encoded):
    model = tiny()
    structured.cut_ffn(model, structured.ffn_importance(model), 0.25)  # 64 to 48
    with pytest.raises(StudyError, match="48 inputs.*32.*ptq8"):
        quantization.quantize(model, "ptq4")
    assert np.isfinite(logits_of(quantization.quantize(model, "ptq8"), encoded)).all()  # nothing was changed


def test_a_folder_at_fault_is_named(tokenizer, tmp_path):
    with pytest.raises(StudyError, match="config.json cannot be read"):
        quantization.load(tmp_path / "absent")
    pretrained.save(tiny(), tokenizer, tmp_path / "plain")
    with pytest.raises(StudyError, match="plain holds no quantised model"):
        quantization.load(tmp_path / "plain")
    quantization.save(quantization.quantize(tiny(), "ptq8"), tokenizer, tmp_path / "short")
    weights = tmp_path / "short" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StudyError, match="short"):
        quantization.load(tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    plain = json.loads((tmp_path / "plain" / "config.json").read_text())
    (tmp_path / "plain" / "config.json").write_text(json.dumps(
        plain | {"quantization_config": config["quantization_config"]}))
    with pytest.raises(StudyError, match="plain"):
        quantization.load(tmp_path / "plain")


def test_torchao_makes_no_noise():
    code = ("from transformers import BertConfig, BertForSequenceClassification\n"
            "config = BertConfig(vocab_size=9, hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=1)\n"
            "quantization.quantize(quantization.prepare(BertForSequenceClassification(config)), 'qat8')")
    run = subprocess.run([sys.executable, "-c", f"from lib.models import quantization\n{code}"], cwd=ROOT, text=True,
                         capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
