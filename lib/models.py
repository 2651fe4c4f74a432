"""Make one model of the study, or load it if it is finished: build, train, predict, save.

A name says what a model is: `imp-70 + rmc` is a compression and a loss. Everything a model depends on
goes into its key, so a finished model is never trained twice and a changed one never passes for the old.
"""

import math
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

from lib import batches, encoders, losses, progress, pruning, store, structured, tasks, training
from lib.errors import StudyError

TRAINING_SIDE = ("batches", "encoders", "losses", "models", "pruning", "structured", "training")
RUN_FIELDS = ("encoder", "encoder_revision", "encoder_layers", "freeze_embeddings", "dropout", "max_length",
              "batch_size", "learning_rate", "warmup", "weight_decay", "seed", "threads")
PRUNING_FIELDS = ("prune_warmup", "prune_cooldown", "mask_interval")
PRUNED = ("imp", "heads", "ffn")
FAMILIES = ("dense", "untrained", "truncated", "scratch", *PRUNED)


@dataclass(frozen=True)
class Extras:
    """What a recipe needs beside the run's parameters.

    teacher: the dense model whose logits on train are the soft targets. strength: d [n_train] or one float.
    weights: loss weight of each train row [n_train]. kd_weight, gamma: of the loss. start: a finished model to
    go on from (structured pruning). checkpoints: fractions of the steps at which the run is predicted, its end
    comes with them.
    run_levels: sparsities at which an IMP run is predicted. checkpoint_splits: what is predicted at both.
    epochs: in place of the run's own. predict_train: whether the finished model is predicted on train too.
    """

    teacher: store.Model | None = None
    strength: np.ndarray | float | None = None
    weights: np.ndarray | None = None
    kd_weight: float | None = None
    gamma: float | None = None
    start: store.Model | None = None
    checkpoints: tuple[float, ...] = ()
    checkpoint_splits: tuple[str, ...] = ()
    run_levels: tuple[float, ...] = ()
    epochs: float | None = None
    predict_train: bool = False


def parse(name: str) -> tuple[str, str]:
    """Compression and loss of a model's name; a name without a loss is `vanilla`."""
    compression, _, loss = name.partition(" + ")
    return compression, loss or "vanilla"


def percent(prefix: str, fraction: float) -> str:
    """`imp-70` from ("imp", 0.7)."""
    return f"{prefix}-{fraction * 100:g}"


def steps_of(epochs: float, n_rows: int, batch_size: int) -> int:
    """Optimizer steps of that many epochs, at least one."""
    return max(1, math.ceil(epochs * n_rows / batch_size))


def make(run, items: pd.DataFrame, name: str, extras: Extras = Extras()) -> store.Model:
    """The model `name` of this run, trained now or found in the store.

    run: a checked run of `lib.params`. items: the task's rows. Raises StudyError for a name or an extra that
    does not fit, before any training.
    """
    compression, loss = parse(name)
    kind = compression.split("-")[0]
    if kind in ("heads", "ffn") and extras.start is None:
        raise StudyError(f"model {name!r}: heads-* and ffn-* start from a finished dense model; hand it as extras.start")
    n_train = int((items["split"] == "train").sum())
    device = training.device(run.device)
    steps = 0 if kind == "untrained" else steps_of(extras.epochs or run.epochs, n_train, run.batch_size)
    encoder, revision = (run.encoder, run.encoder_revision) if kind in FAMILIES else (compression, "")
    ingredients = {
        "model": name, "task": run.task, "data": tasks.fingerprint(items), "steps": steps,
        "dtype": training.dtype(run.dtype, device), "device": device, "source": store.source_hash(*TRAINING_SIDE),
        "encoder_files": encoders.identity(encoder, revision),
        "teacher": extras.teacher.record["key"] if extras.teacher else None,
        "start": extras.start.record["key"] if extras.start else None,
        "strength": store.array_hash(np.asarray(extras.strength)) if extras.strength is not None else None,
        "weights": store.array_hash(extras.weights), "kd_weight": extras.kd_weight, "gamma": extras.gamma,
        "checkpoints": extras.checkpoints, "checkpoint_splits": extras.checkpoint_splits,
        "run_levels": extras.run_levels, "predict_train": extras.predict_train,
    } | {field: getattr(run, field) for field in RUN_FIELDS + (PRUNING_FIELDS if kind == "imp" else ())}
    model_key = store.key(ingredients)
    found = store.find(run.outputs / "store", model_key)
    if found:
        return found
    recipe = ingredients | {"key": model_key, "compression": compression, "loss": loss, "profile": run.profile}
    return store.add(run.outputs / "store", model_key, lambda folder: _train(run, items, recipe, extras, folder))


def _train(run, items: pd.DataFrame, recipe: dict, extras: Extras, folder: Path) -> None:
    kind, steps, device, dtype = recipe["compression"].split("-")[0], recipe["steps"], recipe["device"], recipe["dtype"]
    training.deterministic(run.seed, run.threads)
    encoder, revision = (run.encoder, run.encoder_revision) if kind in FAMILIES else (recipe["compression"], "")
    tokenizer = encoders.load_tokenizer(encoder, revision)
    encoded = {split: batches.encode(tokenizer, part, run.max_length)
               for split, part in items.groupby("split", sort=False)}
    train = encoded["train"]
    model = _build(run, recipe["compression"], encoder, revision, extras.start).to(device)
    pruner = _pruner(run, recipe["compression"], model, train, steps, device)

    def predict(splits: Iterable[str]) -> pd.DataFrame:
        tables = []
        for split in splits:
            logits = training.predict(model, encoded[split], dtype=dtype, device=device)
            tables.append(store.predictions_table(items[items["split"] == split], logits))
        return pd.concat(tables, ignore_index=True)

    along: list[pd.DataFrame] = []
    levels = pruner.steps_at(extras.run_levels) if extras.run_levels else {}
    stops = sorted({round(f * steps) for f in extras.checkpoints} | set(levels))
    cost = {}
    if steps:
        objective = losses.objective(
            recipe["loss"], torch.as_tensor(train.labels), strength=_tensor(extras.strength), weights=_tensor(extras.weights),
            teacher_logits=torch.as_tensor(extras.teacher.logits(items, "train")) if extras.teacher else None,
            **{name: value for name, value in (("kd_weight", extras.kd_weight), ("gamma", extras.gamma)) if value is not None})
        plan = training.Plan(steps=steps, batch_size=run.batch_size, learning_rate=run.learning_rate, warmup=run.warmup,
                             weight_decay=run.weight_decay, dtype=dtype, device=device, seed=run.seed)
        with progress.bar(steps, recipe["model"]) as bar:
            log, cost = training.fit(
                model, train, objective, plan, progress=bar, after_step=pruner.after_step if pruner else None,
                checkpoints={stop: lambda stop=stop: along.append(predict(extras.checkpoint_splits).assign(step=stop))
                             for stop in stops})
        store.write_csv(folder / "log.csv", log)
    started = time.perf_counter()
    table = predict(split for split in encoded if split != "train" or extras.predict_train)
    cost |= {"predict_seconds": time.perf_counter() - started, "predicted_rows": len(table)}

    store.write_predictions(folder / "predictions.parquet", table)
    if extras.checkpoints:
        along.append(table[table["split"].isin(extras.checkpoint_splits)].assign(step=steps))
    if along:
        store.write_predictions(folder / "checkpoints.parquet", pd.concat(along, ignore_index=True))
    is_magnitude = isinstance(pruner, pruning.MagnitudePruner)
    if is_magnitude:
        store.write_csv(folder / "sparsity_per_layer.csv", pruner.per_layer())
    encoders.save(model, tokenizer, folder / "model")
    store.write_json(folder / "cost.json", cost)
    store.write_json(folder / "record.json", recipe | encoders.sizes(model) | pruning.measured_sparsity(model) | {
        "n_train": len(train.labels), "epochs": steps * run.batch_size / len(train.labels),
        "sparsity_target": pruner.sparsity_target if is_magnitude else 0.0,
        "checkpoint_sparsity": {str(step): pruner.history[step] for step in levels},
        "flops_per_example": encoders.flops(model, round(float(encoded["test"].lengths.mean()))),
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "transformers": transformers.__version__}, "machine": platform.machine(),
    })


def _build(run, compression: str, encoder: str, revision: str, start: store.Model | None) -> transformers.PreTrainedModel:
    task, kind = tasks.get(run.task), compression.split("-")[0]
    frozen = run.freeze_embeddings or kind in PRUNED  # as in the paper, whatever the dense model does
    common = dict(seed=run.seed, dropout=run.dropout, freeze_embeddings=frozen, labels=task.labels)
    if start is not None:
        return encoders.load_classifier(str(start.path), len(task.labels), **common)
    whole = encoders.depth(encoder, revision)
    if kind not in FAMILIES:
        return encoders.load_classifier(encoder, len(task.labels), revision=revision, **common)
    layers = encoders.layers_for(compression, min(run.encoder_layers or whole, whole))
    return encoders.load_classifier(encoder, len(task.labels), layers=layers, from_scratch=kind == "scratch",
                                    revision=revision, **common)


def _pruner(run, compression: str, model, train: batches.Encoded, steps: int, device: str):
    """The pruner of a compression, None where there is none to call after each step."""
    kind, _, level = compression.partition("-")
    if kind == "imp":
        return pruning.MagnitudePruner(model, float(level) / 100, steps=steps, warmup=run.prune_warmup,
                                       cooldown=run.prune_cooldown, interval=run.mask_interval)
    if kind == "heads":
        importance = structured.head_importance(model, train, train.labels, device)
        return structured.HeadPruner(model, importance, float(level) / 100)
    if kind == "ffn":
        structured.cut_ffn(model, structured.ffn_importance(model), float(level) / 100)
    return None


def _tensor(values: np.ndarray | float | None) -> torch.Tensor | float | None:
    return torch.as_tensor(values, dtype=torch.float32) if isinstance(values, np.ndarray) else values
