"""What arithmetic costs: params/speeds.yaml, the shapes of encoders without their weights, this machine measured."""

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from transformers import BertConfig, BertForSequenceClassification

from lib import names, safe_yaml
from lib.errors import StudyError, fault, nearest
from lib.files import ROOT
from lib.models import batches, devices, encoders, families, loop, pretrained, quantization
from lib.params.schema import Positive, Strict


class Machine(Strict):
    """Achieved GFLOP/s of one job: training, predicting, predicting with quantised models; seconds of a step beside.
    hidden: width of the encoder that it was measured with, as wider ones use a processor better."""

    kind: Literal["cpu", "accelerator"]
    hidden: int = Field(ge=1)
    dtype: Literal["fp32", "bf16"]
    threads: int = Field(ge=1)
    cores: int = Field(ge=1)
    train: Positive
    predict: Positive
    quantized: Positive
    step: float = Field(ge=0)
    origin: str

    def slowed(self, times: float) -> "Machine":
        """What is left to one of several jobs that share it; what a step takes beside its arithmetic overlaps."""
        return self.model_copy(update={key: getattr(self, key) / times for key in ("train", "predict", "quantized")})

    def at(self, train: float) -> "Machine":
        """The machine at another training speed (GFLOP/s), its predictions faster or slower by as much."""
        return self.slowed(self.train / train).model_copy(update={"step": 0.0, "origin": "as given"})


class Fixed(Strict):
    """Seconds beside the encoder's arithmetic, and the queries of an attack."""

    data: float
    notebook: float
    model: float
    tokenised: float
    analysed: float
    floors: float
    batching: float
    timed: float
    queries: dict[str, float]


class Shape(Strict):
    """An encoder's size: layers, hidden and feed-forward width; what its embeddings know.

    Counted as a BERT: a gate is half as much width again; narrow embeddings (ELECTRA, ALBERT), shared layers and
    DeBERTa's products with positions are not seen.
    """

    layers: int
    hidden: int
    ffn: int
    vocabulary: int
    positions: int
    types: int

    @property
    def layer_weights(self) -> int:
        """Linear weights of one layer."""
        return 4 * self.hidden**2 + 2 * self.hidden * self.ffn

    def flops(self, tokens: float, labels: int) -> float:
        """One forward pass over one row of so many tokens, counted as `encoders.flops` does."""
        layer = 2 * tokens * self.layer_weights + 4 * tokens**2 * self.hidden
        return self.layers * layer + 2 * (self.hidden**2 + self.hidden * labels)

    def parameters(self, labels: int) -> int:
        """All parameters of a classifier, embeddings, pooler and norms among them."""
        h, layer = self.hidden, self.layer_weights + 9 * self.hidden + self.ffn
        embeddings = (self.vocabulary + self.positions + self.types + 2) * h
        return embeddings + self.layers * layer + h**2 + h + (h + 1) * labels


class Split(Strict):
    """Rows upstream and in the mirror, mean tokens; cells: subcase x label, each of which data.n_ood caps."""

    tokens: Positive
    rows: int = 0
    mirror: int = 0
    cells: int = 0


class Table(Strict):
    """params/speeds.yaml."""

    machines: dict[str, Machine]
    fixed: Fixed
    encoders: dict[str, Shape]
    tasks: dict[str, dict[str, Split]]


@lru_cache
def known(path: Path = ROOT / "params" / "speeds.yaml") -> Table:
    """What costs are counted with. Raises StudyError naming the entry at fault."""
    try:
        return Table.model_validate(safe_yaml.read(path))
    except ValidationError as error:
        raise StudyError(f"{path.name}: {fault(error.errors()[0])}") from None


def machine(name: str = "", threads: int = 1, on_accelerator: bool = False, hidden: int = 384) -> Machine:
    """The entry of that name; without one, an accelerator's, or the CPU's of as many threads (else of the most) whose
    encoder was nearest in width."""
    entries = known().machines
    if name and name not in entries:
        raise StudyError(f"params/speeds.yaml has no machine '{name}'{nearest(name, entries)}")
    fitting = [m for m in entries.values() if (m.kind == "accelerator") == on_accelerator]
    return entries[name] if name else min(fitting, key=lambda m: (
        on_accelerator or m.threads != threads, -m.threads, abs(m.hidden - hidden)))


@lru_cache
def shape(encoder: str, revision: str = "") -> Shape:
    """An encoder's shape: of params/speeds.yaml, else of its config. Raises StudyError where neither is to be had."""
    if encoder in known().encoders:
        return known().encoders[encoder]
    try:
        config = pretrained.config_of(encoder, revision)
    except StudyError as error:
        raise StudyError(f"the shape of encoder '{encoder}' is not known ({error}); to plan without it, state its "
                         "shape in params/speeds.yaml, encoders") from None
    family = families.of(config, encoder)
    ffn = getattr(config, family.width)
    return Shape(layers=config.num_hidden_layers, hidden=config.hidden_size, ffn=ffn * 3 // 2 if family.gated else ffn,
                 vocabulary=config.vocab_size, positions=config.max_position_embeddings,
                 types=config.type_vocab_size if family.types else 0)


def shape_of(name: str, dense: Shape) -> Shape:
    """The shape of a model by its name; dense: that of the dense model. StudyError for layers that it does not have."""
    recipe = names.parse(name)
    if recipe.family not in names.FAMILIES:
        return shape(recipe.structure)
    level = recipe.structure.partition("-")[2].partition("-")[0]
    if recipe.family == "theseus" and not 1 <= int(level) < dense.layers:
        raise StudyError(f"{name!r}: the dense model has {dense.layers} layers, so theseus-K takes K from 1 to "
                         f"{dense.layers - 1}")
    if recipe.family == "ffn":
        return dense.model_copy(update={"ffn": max(1, dense.ffn - round(float(level) / 100 * dense.ffn))})
    kept = int(level) if recipe.family == "theseus" else len(encoders.layers_for(recipe.structure, dense.layers))
    return dense.model_copy(update={"layers": kept})


def dense_shape(run) -> Shape:
    """The shape of the dense model of a run."""
    whole = shape(run.encoder, run.encoder_revision)
    return whole.model_copy(update={"layers": min(run.encoder_layers or whole.layers, whole.layers)})


def calibrate(run, tokens: float, seconds: float = 6.0) -> Machine:
    """This machine's speeds with the run's dense shape, batch size, threads, dtype and device, on random weights and
    random rows of `tokens` in the mean; about three times `seconds`. Let nothing else run beside it."""
    device = devices.device(run.device)
    dtype = devices.dtype(run.dtype, device)
    devices.deterministic(0, run.threads)
    dense, draw = dense_shape(run), np.random.default_rng(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=dense.vocabulary, hidden_size=dense.hidden, num_hidden_layers=dense.layers,
        intermediate_size=dense.ffn, max_position_embeddings=dense.positions, type_vocab_size=max(1, dense.types),
        num_attention_heads=next(n for n in (12, 8, 4, 2, 1) if dense.hidden % n == 0),
        hidden_dropout_prob=run.dropout, attention_probs_dropout_prob=run.dropout))
    if run.freeze_embeddings:
        model.base_model.embeddings.requires_grad_(False)
    lengths = np.clip(draw.poisson(tokens, 16 * run.batch_size), 4, run.max_length)
    ids = [draw.integers(0, dense.vocabulary, n) for n in lengths]
    rows = batches.Encoded(ids, None, np.zeros(len(lengths), np.int64), lengths, 0)
    forward = float(np.mean([dense.flops(n, 2) for n in lengths])) / 1e9

    def train(steps: int) -> float:
        plan = loop.Plan(steps=steps, batch_size=run.batch_size, learning_rate=1e-6, warmup=0.0, weight_decay=0.0,
                         dtype=dtype, device=device, seed=0)
        _, cost = loop.fit(model, rows, lambda logits, _: logits.float().square().mean(), plan,
                           row_weights=torch.ones(len(lengths)))
        return cost["rows_per_second"]

    def predict(worker, kind: str) -> float:
        done, start = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - start < seconds:
            loop.predict(worker, rows, dtype=kind, device=device)
            done += len(lengths)
        return done / (time.perf_counter() - start)

    train(3)
    speed = train(max(3, round(seconds * train(5) / run.batch_size)))
    predicting = predict(model, dtype)
    quantized = predict(quantization.quantize(model, "ptq8"), "fp32")
    what = torch.cuda.get_device_name() if device == "cuda" else device
    origin = (f"measured: {what}, batches of {run.batch_size} rows of {tokens:.0f} tokens, {dense.layers} layers of "
              f"{dense.hidden}")
    gflops = {"train": 3 * speed, "predict": predicting, "quantized": quantized}
    return Machine(kind="cpu" if device == "cpu" else "accelerator", hidden=dense.hidden, dtype=dtype,
                   threads=run.threads, cores=os.cpu_count() or 1, step=0.0, origin=origin,
                   **{key: round(rows * forward, 1) for key, rows in gflops.items()})
