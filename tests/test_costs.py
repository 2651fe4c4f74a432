"""Costs: every path gives the model's own numbers, no mask or eager int8 passes for a speed, and no failure is silent."""

import copy
import importlib.util
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from lib.errors import StudyError
from lib.models import batches, encoders, quantization, structured
from lib.trials import costs, runtimes

LAYERS, HEADS, HIDDEN, WIDTH = 2, 4, 32, 64
SETTING = {"length": 8, "threads": 1, "runs": 2}


def tiny(family="bert", seed=0, layers=LAYERS):
    torch.manual_seed(seed)
    common = dict(vocab_size=40, num_labels=3, max_position_embeddings=40, pad_token_id=0)
    if family == "distilbert":
        config = DistilBertConfig(dim=HIDDEN, hidden_dim=WIDTH, n_heads=HEADS, n_layers=layers, **common)
        model = DistilBertForSequenceClassification(config)
    else:
        model = BertForSequenceClassification(BertConfig(
            hidden_size=HIDDEN, intermediate_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=layers, **common))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower() and "embeddings" not in name:
                parameter.normal_(0, 0.3)
    return model.eval()


def cut(model, fraction=0.25):
    importance = np.arange(LAYERS * HEADS, dtype=float).reshape(LAYERS, HEADS)  # all that goes, goes from layer 0
    structured.HeadPruner(model, importance, fraction)
    return model


def rows(n=50):
    draw = np.random.default_rng(0)
    ids = [draw.integers(4, 40, draw.integers(3, 12)) for _ in range(n)]
    return batches.Encoded(ids, [np.zeros(len(row), int) for row in ids], np.zeros(n, int), np.array([len(r) for r in ids]), 0)


def fake_onnx(monkeypatch, tmp_path):
    """onnxruntime's part played by torch, for tests of the bookkeeping alone."""
    made = []

    def export(model, file):
        made.append(model)
        file.write_text(str(len(made) - 1))

    def session(file, threads):
        return lambda inputs: made[int(file.read_text())](**inputs).logits.numpy()

    monkeypatch.setattr(runtimes, "export", export)
    monkeypatch.setattr(runtimes, "open_session", session)
    monkeypatch.setattr(runtimes, "to_int8", lambda file: file)
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: package)
    return made


def fake_compiler(monkeypatch):
    """torch.compile's front without its compiler; gives the number of graphs it was handed."""
    handed = []

    def backend(graph, inputs):
        handed.append(graph)
        return graph.forward

    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: real(self, backend=backend, **kwargs))
    return handed


def only(frame, **values):
    for column, value in values.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


# --- the table of speeds

def test_eager_rows_are_times_of_each_model_and_int8_is_marked():
    dense = tiny()
    models = {"dense": dense, "imp-70": tiny(seed=1), "dense + ptq8": quantization.quantize(copy.deepcopy(dense), "ptq8")}
    found = costs.measure(models, paths=["eager"], batch_sizes=(1, 4), **SETTING)
    assert list(found.columns) == costs.COLUMNS
    assert found[["model", "path", "batch"]].values.tolist() == [
        ["dense", "eager", 1], ["dense", "eager", 4], ["imp-70", "eager", 1], ["imp-70", "eager", 4],
        ["dense + ptq8", costs.NO_SPEED, 1], ["dense + ptq8", costs.NO_SPEED, 4]]
    assert (found["low"] > 0).all() and (found["low"] <= found["latency_ms"]).all()
    assert (found["latency_ms"] <= found["high"]).all()
    assert np.allclose(found["rows_per_s"], found["batch"] / found["latency_ms"] * 1000)
    assert found["speed"].tolist() == [True] * 4 + [False] * 2
    assert found["agreement"].isna().all() and (found["note"][:4] == "").all() and (found["note"][4:] != "").all()


def test_rounds_run_through_all_models_and_the_median_stands(monkeypatch):
    order, clock, seconds = [], [0.0], iter([7, 7, 1, 2, 9, 4, 3, 6])  # the first of each is not timed
    real = runtimes.torch_forward

    def slow(model, path):
        def forward(inputs):
            order.append(real(model, path)(inputs).shape)
            clock[0] += next(seconds)
        return forward
    monkeypatch.setattr(runtimes, "torch_forward", slow)
    monkeypatch.setattr(costs, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    other = tiny(seed=1)
    other.classifier = nn.Linear(HIDDEN, 5)
    found = costs.measure({"a": tiny(), "b": other}, paths=["eager"], batch_sizes=[2], length=8, threads=1, runs=3)
    assert order == [(2, 3), (2, 5)] * 4
    assert found[["latency_ms", "low", "high", "rows_per_s"]].values.tolist() == [
        [3000, 1000, 9000, 2 / 3], [4000, 2000, 6000, 0.5]]


def test_models_come_back_as_they_were():
    model, threads = cut(tiny()).train(), torch.get_num_threads()
    before = copy.deepcopy(model.state_dict())
    costs.measure({"heads-25": model}, paths=["eager"], batch_sizes=[1], length=8, threads=threads + 1, runs=1)
    assert model.training and torch.get_num_threads() == threads and model.config.zeroed_heads == [[0, 1], []]
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_zeroed_heads_are_cut_before_they_are_timed():
    model = cut(tiny())
    used, note = runtimes.as_used(model)
    assert note == "" and encoders.layer_parts(used)[0]["query"].out_features == HIDDEN // 2
    inputs = runtimes.random_inputs(model, 3, 8)
    with torch.no_grad():
        torch.testing.assert_close(used(**inputs).logits, model(**inputs).logits)
    found = costs.measure({"heads-25 + ptq8": quantization.quantize(model, "ptq8")}, paths=["eager"], batch_sizes=[1],
                          **SETTING)
    assert "not cut" in found["note"][0]


def test_compiled_layers_serve_all_models_of_their_shape(monkeypatch):
    handed = fake_compiler(monkeypatch)
    models = {"dense": tiny(), "truncated-1": tiny(seed=1, layers=1), "imp-70": tiny(seed=2), "heads-25": cut(tiny())}
    found = costs.measure(models, paths=["compiled"], batch_sizes=(1, 4), **SETTING)
    assert len(handed) == 4  # dense and truncated share a layer's two (batch 1 and 4), heads have two of their own
    assert found["latency_ms"].notna().all() and found["speed"].all()
    assert only(found, model="imp-70", batch=4)["note"] == "timed on dense, the same graph"
    assert only(found, model="imp-70", batch=4)["latency_ms"] == only(found, model="dense", batch=4)["latency_ms"]
    assert (found[found["model"] != "imp-70"]["note"] == "").all()
    assert encoders.encoder_layers(models["dense"])[0]._compiled_call_impl is None


def test_more_shapes_than_the_compiler_remembers_are_no_eager_rows(monkeypatch):
    fake_compiler(monkeypatch)
    monkeypatch.setattr(costs, "LIMITS", costs.LIMITS | {"recompile_limit": 2})
    found = costs.measure({"dense": tiny()}, paths=["compiled"], batch_sizes=(1, 2, 3, 4), **SETTING)
    assert found["latency_ms"].isna().all() and found["note"].str.contains("compiled failed").all()


def test_a_compiler_that_fails_is_told(monkeypatch):
    from torch._inductor import config, utils
    with utils.fresh_cache(), config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        found = costs.measure({"dense": tiny()}, paths=["compiled", "eager"], batch_sizes=[2], **SETTING)
    failed = only(found, path="compiled")
    assert np.isnan(failed["latency_ms"]) and "compiled failed" in failed["note"]
    assert only(found, path="eager")["latency_ms"] > 0


def test_onnx_absent_or_wrong_is_told(monkeypatch, tmp_path):
    with monkeypatch.context() as absent:
        absent.setattr(importlib.util, "find_spec", lambda package: None if package == "onnxruntime" else package)
        found = costs.measure({"dense": tiny()}, paths=["onnx_fp32", "onnx_int8"], batch_sizes=[1], **SETTING)
    assert found["latency_ms"].isna().all()
    assert found["note"].str.startswith("onnxruntime is not installed: pip install '.[onnx]'").all()

    made = fake_onnx(monkeypatch, tmp_path)
    session = runtimes.open_session
    monkeypatch.setattr(runtimes, "open_session", lambda file, threads: lambda inputs: session(file, threads)(inputs) + 0.01)
    found = costs.measure({"dense": tiny(), "imp-70": tiny(seed=1)}, paths=["onnx_fp32", "onnx_int8"], batch_sizes=[1],
                          **SETTING)
    assert found["latency_ms"].isna().all() and len(made) == 1
    assert found["note"][0] == "onnxruntime's logits are 0.01 from torch's"


def test_a_graph_is_exported_once_and_named(monkeypatch, tmp_path):
    made = fake_onnx(monkeypatch, tmp_path)
    dense = tiny()
    models = {"dense": dense, "imp-70": tiny(seed=1), "truncated-1": tiny(layers=1),
              "dense + ptq8": quantization.quantize(copy.deepcopy(dense), "ptq8"),
              "dense + ptq4": quantization.quantize(copy.deepcopy(dense), "ptq4")}
    found = costs.measure(models, paths=["onnx_fp32", "onnx_int8"], batch_sizes=[2], encoded=rows(), **SETTING)
    assert len(made) == 2 and made[0] is dense
    assert only(found, path="onnx_int8", model="dense")["agreement"] == 1
    assert found["agreement"].notna().sum() == 2
    assert "timed on dense" in only(found, path="onnx_int8", model="dense + ptq8")["note"]
    speed = found.set_index(["model", "path"])["speed"]
    assert speed[speed].index.tolist() == [("dense", "onnx_fp32"), ("imp-70", "onnx_fp32"), ("truncated-1", "onnx_fp32"),
                                           ("dense + ptq4", "onnx_fp32"), ("dense + ptq8", "onnx_int8")]


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_onnxruntime_gives_the_models_numbers(family, tmp_path, capfd):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    dense = tiny(family)
    models = {"dense": dense, "dense + ptq8": quantization.quantize(copy.deepcopy(dense), "ptq8")}
    found = costs.measure(models, paths=["onnx_fp32", "onnx_int8"], batch_sizes=(1, 3), encoded=rows(), **SETTING)
    assert found["latency_ms"].notna().all(), found["note"].tolist()
    assert only(found, path="onnx_int8", model="dense", batch=1)["agreement"] > 0.8
    assert capfd.readouterr() == ("", "")


# --- the fastest path

def test_fastest_takes_no_eager_int8_and_no_int8_of_a_float_model():
    paths = ["eager", "compiled", "onnx_fp32", "onnx_int8"]
    found = pd.DataFrame({
        "model": ["z"] * 4 + ["z + ptq8"] * 4 + ["none"], "path": paths + [costs.NO_SPEED, *paths[1:]] + ["compiled"],
        "batch": 1, "latency_ms": [3, 2, np.nan, 1, 1, 5, 1, 4, np.nan], "rows_per_s": 0.0,
        "speed": [True, True, True, False, False, True, False, True, True]})
    best = costs.fastest(found)
    assert best["model"].tolist() == ["z", "z + ptq8", "none"]
    assert best["path"].tolist() == ["compiled", "onnx_int8", ""]
    assert best["latency_ms"][:2].tolist() == [2, 4] and best.loc[2, ["latency_ms", "rows_per_s"]].isna().all()


# --- sizes

def test_table_counts_what_is_on_disk_and_what_is_not_zero(tmp_path):
    dense, heads = tiny(), cut(tiny())
    int8 = quantization.quantize(copy.deepcopy(dense), "ptq8")
    models = {"dense": dense, "heads-25": heads, "dense + ptq8": int8}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    found = costs.sizes(models, {name: tmp_path / name for name in models}, 8).set_index("model")
    assert found["parameters"].nunique() == 1
    assert found["bytes"]["dense"] == (tmp_path / "dense" / "model.safetensors").stat().st_size
    assert found["bytes"]["dense + ptq8"] < found["bytes"]["dense"]
    gone = 2 * (HIDDEN // HEADS) * (4 * HIDDEN + 3)  # two heads' rows of q, k, v, their biases, their output columns
    assert found["nonzero_parameters"]["heads-25"] == found["parameters"]["heads-25"] - gone - zeros(dense)
    assert found["flops"]["dense"] == encoders.flops(dense, 8) == found["flops"]["dense + ptq8"]
    assert found["flops"]["heads-25"] < found["flops"]["dense"]
    with pytest.raises(StudyError, match="'dense'.*no model.safetensors"):
        costs.sizes({"dense": dense}, {"dense": tmp_path}, 8)


def zeros(model):
    return sum(int((p == 0).sum()) for p in model.parameters())


@pytest.mark.parametrize("change, message", [
    ({"paths": ["compile"]}, "did you mean 'compiled'"), ({"runs": 0}, "1 or more"), ({"batch_sizes": [0]}, "1 or more"),
    ({"length": 99}, "dense has 40 positions"),
])
def test_mistakes_are_named(change, message):
    with pytest.raises(StudyError, match=message):
        costs.measure({"dense": tiny()}, **(SETTING | change))
