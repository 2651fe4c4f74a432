"""Make one model of the study, or load it if it is finished: build, train, predict, save.

A name says what a model is (`lib.names`). Everything a model depends on goes into its key, so a finished model is never
trained twice and a changed one never passes for the old.
"""

import math
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

from lib import code, names, progress, store
from lib.errors import StudyError
from lib.models import (
    batches,
    devices,
    encoders,
    families,
    last_layer,
    loop,
    losses,
    magnitude,
    pretrained,
    processor,
    quantization,
    structured,
    theseus,
    transfer,
)
from lib.tasks import dataset, registry

TRAINING_SIDE = ("tasks.tokenised", *(f"models.{module}" for module in (
    "batches", "devices", "encoders", "families", "last_layer", "loop", "losses", "make", "pretrained")))
OF_FAMILY = {"imp": ("models.magnitude",), "heads": ("models.magnitude", "models.structured"),
             "ffn": ("models.structured",), "theseus": ("models.theseus",)}
RUN_FIELDS = ("encoder", "encoder_revision", "encoder_layers", "freeze_embeddings", "dropout", "max_length",
              "batch_size", "learning_rate", "warmup", "weight_decay", "seed", "threads")
FIELDS_OF_FAMILY = {"imp": ("prune_warmup", "prune_cooldown", "mask_interval"),
                    "theseus": ("replace_start", "replace_rate", "replace_share")}
OF_EXTRAS = ("kd_weight", "transfer_weight", "gamma", "checkpoints", "checkpoint_splits", "run_levels", "predict_train",
             "as_teacher")
PRUNED = ("imp", "heads", "ffn")


@dataclass(frozen=True)
class Extras:
    """What a recipe needs beside the run's parameters.

    teacher: the dense model whose logits on train are the soft targets (pkd and tinybert run it). strength: d [n_train]
    or one float. weights: loss weight of each train row [n_train]. kd_weight, transfer_weight, gamma: of the loss.
    start: a finished model to go on from (structured pruning, replacing, quantisation). checkpoints: fractions of the
    steps at which the run is predicted, its end comes with them. run_levels: sparsities at which an IMP run is
    predicted. checkpoint_splits: what is predicted at both. epochs: in place of the run's own. predict_train: whether
    the finished model is predicted on train too. as_teacher: whether other models are held to it: then it is predicted
    in fp32 too, as quantised ones are, and the norms of what its last layer is fed are kept.
    """

    teacher: store.Model | None = None
    strength: np.ndarray | float | None = None
    weights: np.ndarray | None = None
    kd_weight: float | None = None
    transfer_weight: float | None = None
    gamma: float | None = None
    start: store.Model | None = None
    checkpoints: tuple[float, ...] = ()
    checkpoint_splits: tuple[str, ...] = ()
    run_levels: tuple[float, ...] = ()
    epochs: float | None = None
    predict_train: bool = False
    as_teacher: bool = False


def steps_of(epochs: float, n_rows: int, batch_size: int) -> int:
    """Optimizer steps of that many epochs, at least one."""
    return max(1, math.ceil(epochs * n_rows / batch_size))


def key_modules(recipe: names.Name) -> tuple[str, ...]:
    """Modules of lib whose code is part of a model's key."""
    return (*TRAINING_SIDE, *OF_FAMILY.get(recipe.family, ()),
            *(("models.transfer",) if recipe.loss in names.TRANSFERS else ()),
            *(("models.magnitude", "models.quantization") if recipe.quantization else ()))


def model(run, items: pd.DataFrame, name: str, extras: Extras = Extras()) -> store.Model:
    """The model `name` of this run, trained now or found in the store.

    run: a checked run of `lib.params.profile`. items: the task's rows. Raises StudyError for a name or an extra that
    does not fit, before any training.
    """
    recipe = names.parse(name)
    stage = recipe.quantization or recipe.family
    if stage in ("heads", "ffn", "theseus", *names.QUANTIZATIONS) and extras.start is None:
        raise StudyError(f"model {name!r}: {stage} starts from a finished model; hand it as extras.start")
    n_train = int((items["split"] == "train").sum())
    device = devices.device(run.device)
    trains = recipe.family != "untrained" and not recipe.quantization.startswith("ptq")
    ingredients = {
        "model": name, "task": run.task, "data": dataset.fingerprint(items),
        "steps": steps_of(extras.epochs or run.epochs, n_train, run.batch_size) if trains else 0,
        "dtype": devices.dtype(run.dtype, device), "device": device, "source": code.source_hash(*key_modules(recipe)),
        "encoder_files": pretrained.identity(*_encoder(run, recipe)),
        "teacher": extras.teacher.record["key"] if extras.teacher else None,
        "start": extras.start.record["key"] if extras.start else None,
        "strength": store.array_hash(np.asarray(extras.strength)) if extras.strength is not None else None,
        "weights": store.array_hash(extras.weights),
    } | {field: getattr(extras, field) for field in OF_EXTRAS} | {
        field: getattr(run, field) for field in RUN_FIELDS + FIELDS_OF_FAMILY.get(stage, ())}
    model_key = store.key(ingredients)
    finished = store.find(run.outputs / "store", model_key)
    if finished and (finished.has_weights or not run.keep_weights):
        return finished
    check(run, name)
    loop.check_stops(extras.checkpoints, ingredients["steps"], extras.epochs or run.epochs, run.batch_size / n_train)
    record = ingredients | {"key": model_key, "compression": recipe.structure, "loss": recipe.loss,
                            "quantization": recipe.quantization, "profile": run.profile}
    return store.add(run.outputs / "store", model_key, lambda folder: train(run, items, record, extras, folder))


def check(run, name: str) -> None:
    """StudyError, from configs alone, for a model that the run's encoder cannot be made into."""
    recipe, own = names.parse(name), (run.encoder, run.encoder_revision)
    for place in dict.fromkeys([own, _encoder(run, recipe)]):
        config = pretrained.config_of(*place)
        n_layers = min(run.encoder_layers if place == own else 0, config.num_hidden_layers) or config.num_hidden_layers
        families.check(config, place[0], recipe, n_layers)
        if recipe.family == "theseus":
            theseus.check(int(recipe.structure.split("-")[1]), n_layers)
        encoders.layers_for(recipe.structure, n_layers)


def _encoder(run, recipe: names.Name) -> tuple[str, str]:
    """Encoder and revision: the run's, or the structure itself where it is no family."""
    return (run.encoder, run.encoder_revision) if recipe.family in names.FAMILIES else (recipe.structure, "")


def load(model: store.Model) -> transformers.PreTrainedModel:
    """A finished model, ready for use, in eval mode on the CPU: heads cut for real, quantised weights quantised."""
    if quantization.is_quantized(model.path):
        return quantization.load(model.path)
    n_labels = len(registry.get(model.record["task"]).labels)
    kept = pretrained.n_labels(str(model.path))
    if kept != n_labels:
        raise StudyError(f"{model.path} has {kept} labels, task '{model.record['task']}' has {n_labels}: run the "
                         f"notebook that makes {model.name!r} again")
    loaded = pretrained.load_classifier(str(model.path), n_labels, seed=0).eval()
    return structured.cut_heads(loaded) if names.parse(model.name).family == "heads" else loaded


def train(run, items: pd.DataFrame, record: dict, extras: Extras, folder: Path) -> None:
    """Make the model of a record, which `model` began, and its files in `folder`."""
    recipe, steps, device, dtype = names.parse(record["model"]), record["steps"], record["device"], record["dtype"]
    began = time.perf_counter()
    devices.deterministic(run.seed, run.threads)
    tokenizer = pretrained.load_tokenizer(*_encoder(run, recipe))
    encoded = batches.encode_splits(tokenizer, items, run.max_length, (record["data"], record["encoder_files"]))
    train_rows = encoded["train"]
    model = _build(run, recipe, extras.start).to(device)
    change = _change(run, recipe, model, train_rows, steps, device)

    def predict(splits: Sequence[str], precision: str = "fp32" if recipe.quantization else dtype) -> pd.DataFrame:
        tables, n_rows = [], sum(len(encoded[split].labels) for split in splits)
        worker = loop.bf16_copy(model) if precision == "bf16" else model  # once for all splits
        with progress.bar(n_rows, f"{record['model']}, predictions", wait=progress.LONG) as bar:
            for split in splits:
                logits = loop.predict(worker, encoded[split], dtype="fp32", device=device, progress=bar)
                tables.append(store.predictions_table(items[items["split"] == split], logits))
        return pd.concat(tables, ignore_index=True)

    along: list[pd.DataFrame] = []
    levels = change.steps_at(extras.run_levels) if extras.run_levels else {}
    stops = sorted({round(f * steps) for f in extras.checkpoints} | set(levels))
    cost = {}
    if steps:
        plan = loop.Plan(steps=steps, batch_size=run.batch_size, learning_rate=run.learning_rate, warmup=run.warmup,
                         weight_decay=run.weight_decay, dtype=dtype, device=device, seed=run.seed)
        replaces = isinstance(change, theseus.Replacer)  # which draws its modules once for a whole batch
        weights = None if replaces else losses.row_weights(recipe.loss, len(train_rows.labels), _tensor(extras.weights))
        with _objective(recipe.loss, items, train_rows, model, extras, device) as objective, \
                progress.bar(steps, record["model"]) as bar:
            log, cost = loop.fit(
                model, train_rows, objective, plan, progress=bar, row_weights=weights,
                after_step=change.after_step if change else None,
                checkpoints={stop: lambda stop=stop: along.append(predict(extras.checkpoint_splits).assign(step=stop))
                             for stop in stops})
        store.write_csv(folder / "log.csv", log)
    if isinstance(change, theseus.Replacer):
        model = change.successor()
    length = {split: round(float(encoded[split].lengths.mean())) for split in ("train", "test")}
    forward = {split: encoders.flops(model, tokens) for split, tokens in length.items()}
    counted = encoders.sizes(model) | magnitude.measured_sparsity(model) | {"flops_per_example": forward["test"]}
    if recipe.quantization:
        model = quantization.quantize(model, recipe.quantization)
    started = time.perf_counter()
    table = predict([split for split in encoded if split != "train" or extras.predict_train])
    predicted = len(table) + sum(map(len, along))
    if extras.as_teacher:
        evaluated = [split for split in encoded if split != "train"]
        if dtype != "fp32":
            in_fp32 = predict(evaluated, "fp32")
            store.write_predictions(folder / store.FP32, in_fp32)
            predicted += len(in_fp32)
        norms = last_layer.input_norms(model, {split: encoded[split] for split in evaluated}, items, dtype, device)
        store.write_items(folder / store.NORMS, norms)
    on_row = 3 * forward["train"]
    if recipe.loss in names.TRANSFERS:  # the teacher runs beside its student
        on_row += encoders.flops(load(extras.teacher), length["train"])
    cost |= {"predict_seconds": time.perf_counter() - started, "predicted_rows": len(table),
             "flops": steps * run.batch_size * on_row + predicted * forward["test"]}

    store.write_predictions(folder / "predictions.parquet", table)
    if extras.checkpoints:
        along.append(table[table["split"].isin(extras.checkpoint_splits)].assign(step=steps))
    if along:
        store.write_predictions(folder / "checkpoints.parquet", pd.concat(along, ignore_index=True))
    is_magnitude = isinstance(change, magnitude.MagnitudePruner)
    if is_magnitude:
        store.write_csv(folder / "sparsity_per_layer.csv", change.per_layer())
    (quantization if recipe.quantization else pretrained).save(model, tokenizer, folder / "model")
    store.write_json(folder / "cost.json", cost | {
        "peak_memory_bytes": devices.peak_memory(device), "processor": processor.name(device),
        "wall_seconds": time.perf_counter() - began})
    store.write_json(folder / "record.json", record | counted | {
        "bytes": (folder / store.WEIGHTS).stat().st_size,
        "n_train": len(train_rows.labels), "epochs": steps * run.batch_size / len(train_rows.labels),
        "sparsity_target": change.sparsity_target if is_magnitude else 0.0,
        "checkpoint_sparsity": {str(step): change.history[step] for step in levels},
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "transformers": transformers.__version__}, "machine": platform.machine(),
    })
    if not (run.keep_weights or recipe.is_built_on):
        (folder / store.WEIGHTS).unlink()


def _build(run, recipe: names.Name, start: store.Model | None) -> transformers.PreTrainedModel:
    labels, (encoder, revision) = registry.get(run.task).labels, _encoder(run, recipe)
    frozen = run.freeze_embeddings or recipe.family in PRUNED  # as in the paper, whatever the dense model does
    common = dict(seed=run.seed, dropout=run.dropout, freeze_embeddings=frozen, labels=labels)
    if start is not None:
        return pretrained.load_classifier(str(start.path), len(labels), **common)
    if recipe.family in names.FAMILIES:
        whole = pretrained.depth(encoder, revision)
        common["layers"] = encoders.layers_for(recipe.structure, min(run.encoder_layers or whole, whole))
        common["from_scratch"] = recipe.family == "scratch"
    return pretrained.load_classifier(encoder, len(labels), revision=revision, **common)


def _change(run, recipe: names.Name, model, train: batches.Encoded, steps: int, device: str):
    """What changes the model while it trains, an object with `after_step`; None where nothing is to be called."""
    if recipe.quantization:
        if recipe.quantization != "qat8":
            return None
        quantization.prepare(model)
        return magnitude.ZeroHolder(model)
    level = recipe.structure.partition("-")[2]
    if recipe.family == "imp":
        return magnitude.MagnitudePruner(model, float(level) / 100, steps=steps, warmup=run.prune_warmup,
                                         cooldown=run.prune_cooldown, interval=run.mask_interval)
    if recipe.family == "heads":
        importance = structured.head_importance(model, train, device)
        return structured.HeadPruner(model, importance, float(level) / 100)
    if recipe.family == "ffn":
        structured.cut_ffn(model, structured.ffn_importance(model), float(level) / 100)
    if recipe.family == "theseus":
        successors, _, constant = level.partition("-")
        return theseus.Replacer(model, int(successors), schedule=constant or "linear", start=run.replace_start,
                                rate=run.replace_rate, share=run.replace_share, steps=steps, seed=run.seed)
    return None


@contextmanager
def _objective(loss: str, items: pd.DataFrame, train: batches.Encoded, model, extras: Extras, device: str) -> Iterator:
    """The training loss; one that copies hidden states is distillation plus what it copies from the running teacher."""
    given = {name: getattr(extras, name) for name in ("kd_weight", "gamma") if getattr(extras, name) is not None}
    base = losses.objective(
        "distil" if loss in names.TRANSFERS else loss, torch.as_tensor(train.labels), strength=_tensor(extras.strength),
        teacher_logits=torch.as_tensor(extras.teacher.logits(items, "train")) if extras.teacher else None,
        weights=_tensor(extras.weights), **given)
    if loss not in names.TRANSFERS:
        yield base
        return
    teacher = load(extras.teacher).to(device)
    with transfer.objective(base, model, teacher, loss, extras.transfer_weight) as objective:
        yield objective


def _tensor(values: np.ndarray | float | None) -> torch.Tensor | float | None:
    return torch.as_tensor(values, dtype=torch.float32) if isinstance(values, np.ndarray) else values
