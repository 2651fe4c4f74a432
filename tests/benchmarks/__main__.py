"""How fast is the study? Ratios, each of two things measured in turn within one process.

    python -m tests.benchmarks [NAME ...]      # make bench; --help names them

Prints a table of ratio beside target and writes it to outputs/benchmarks.json, where what other calls measured stays.
Nothing else may run on the machine meanwhile. Rows have the lengths of MNLI pairs and random words: speed depends on
nothing else.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from lib import files
from lib.analysis import bootstrap
from lib.files import ROOT
from lib.models import batches, devices, encoders, loop, losses, pretrained, quantization
from lib.tasks import dataset, registry
from lib.trials import costs

OUT = ROOT / "outputs" / "benchmarks.json"
# 0, 2.5, ... 100 % quantiles of the tokens of MNLI's training pairs (bert-base-uncased's words, at most 128)
MNLI = [7, 13, 16, 18, 19, 21, 22, 23, 24, 26, 27, 28, 29, 30, 31, 32, 33, 34,
        35, 36, 37, 39, 40, 41, 42, 43, 44, 46, 47, 48, 50, 52, 54, 55, 58, 60, 63, 67, 73, 83, 128]
BATCH, STEPS, ROUNDS, CLASSES = 32, 16, 3, 3


def rows(n: int, seed: int = 0) -> batches.Encoded:
    """n rows of random words with the lengths of MNLI."""
    draw = np.random.default_rng(seed)
    lengths = np.interp(draw.random(n), np.linspace(0, 1, len(MNLI)), MNLI).round().astype(int)
    return batches.Encoded([draw.integers(1000, 30000, size=length).astype(np.int32) for length in lengths],
                           [np.zeros(length, np.int32) for length in lengths], draw.integers(0, CLASSES, size=n), lengths, 0)


def classifier(**changes) -> transformers.PreTrainedModel:
    return pretrained.load_classifier("offline", CLASSES, seed=0, **changes)


def in_turn(contestants: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median of what each contestant gives (rows/s), all of them once a round."""
    found = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            found[name].append(run())
    return {name: statistics.median(values) for name, values in found.items()}


def peak(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """FLOP/s of the machine's matrix product: the best of a few large shapes."""
    best = 0.0
    for m, k, n in ((2048, 2048, 2048), (4096, 1024, 1024), (1280, 384, 1536)):
        a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
        a @ b
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            a @ b
            done += 1
        best = max(best, 2 * m * k * n * done / (time.perf_counter() - start))
    return best


def useful_flops(model: transformers.PreTrainedModel, encoded: batches.Encoded) -> float:
    """FLOPs of one forward pass over one row of these, mean; padding is no work."""
    return float(np.mean([encoders.flops(model, int(length)) for length in encoded.lengths]))


# ---------------------------------------------------------------- training

def fitting(encoded: batches.Encoded, dtype: str, objective: Callable | None = None, **changes) -> Callable[[], float]:
    """Rows/s of `loop.fit` on a model made with these changes."""
    model = classifier(**changes)
    plan = loop.Plan(STEPS, BATCH, 1e-5, 0.1, 0.01, dtype, "cpu", seed=0)
    objective = objective or losses.objective("vanilla", torch.as_tensor(encoded.labels))
    return lambda: loop.fit(model, encoded, objective, plan)[1]["rows_per_second"]


def trainer(encoded: batches.Encoded, bf16: bool, model: transformers.PreTrainedModel, steps: int = STEPS, rate: float = 1e-5,
            seed: int = 0) -> Callable[[], float]:
    """Rows/s of `transformers.Trainer` with dynamic padding on the same rows."""
    table = [{"input_ids": ids.tolist(), "token_type_ids": types.tolist(), "labels": int(label)}
             for ids, types, label in zip(encoded.input_ids, encoded.token_type_ids, encoded.labels)]
    collate = DataCollatorWithPadding(pretrained.load_tokenizer("offline"))

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=BATCH, max_steps=steps, bf16=bf16, use_cpu=True, learning_rate=rate,
                warmup_steps=steps // 10, weight_decay=0.01, seed=seed, save_strategy="no", logging_strategy="no", report_to=[],
                disable_tqdm=True)
            judge = Trainer(model, arguments, data_collator=collate, train_dataset=table)
            start = time.perf_counter()
            judge.train()
            return steps * BATCH / (time.perf_counter() - start)
    return run


def bench_train() -> list[dict]:
    """`fit` against Trainer, with the same arithmetic and with the study's own; and against the machine's peak."""
    encoded = rows(2048)
    same = dict(dropout=0.1, freeze_embeddings=False)
    speed = in_turn({"Trainer fp32": trainer(encoded, False, classifier(**same)),
                     "Trainer bf16": trainer(encoded, True, classifier(**same)),
                     "fit fp32": fitting(encoded, "fp32", **same), "fit bf16": fitting(encoded, "bf16", **same),
                     "fit fp32, as the study trains": fitting(encoded, "fp32"),
                     "fit bf16, as the study trains": fitting(encoded, "bf16")})
    per_row = 3 * useful_flops(classifier(), encoded)
    share = {dtype: speed[f"fit {dtype}, as the study trains"] * per_row / peak(kind)
             for dtype, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    base = speed["Trainer fp32"]
    return [
        row("fit / Trainer, both fp32, dropout, embeddings trained", speed["fit fp32"] / base, 2.5, speed),
        row("fit bf16 / Trainer bf16, the same", speed["fit bf16"] / speed["Trainer bf16"], None, speed),
        row("fit in its best precision / Trainer fp32", speed["fit bf16, as the study trains"] / base, 5.0, speed),
        row("training FLOP/s / matrix peak, fp32", share["fp32"], 0.70, speed),
        row("training FLOP/s / matrix peak, bf16", share["bf16"], 0.60, speed)]


def bench_distil() -> list[dict]:
    """A distilled epoch against a plain one, and against a loop that runs the teacher in each step."""
    encoded = rows(2048)
    labels, dtype = torch.as_tensor(encoded.labels), devices.dtype("auto", "cpu")
    teacher = classifier().eval()
    logits = torch.as_tensor(loop.predict(teacher, encoded, dtype=dtype, device="cpu"))
    once = losses.objective("distil", labels, teacher_logits=logits)

    def teaching(student: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            fresh = logits.clone()
            fresh[chosen] = teacher(**loop.inputs(teacher, encoded, chosen.numpy(), "cpu")).logits.float()
        return losses.objective("distil", labels, teacher_logits=fresh.clone())(student, chosen)
    speed = in_turn({"plain": fitting(encoded, dtype), "distilled": fitting(encoded, dtype, once),
                     "teacher in each step": fitting(encoded, dtype, teaching)}, rounds=5)
    return [row("a distilled epoch's time / a plain one's", speed["plain"] / speed["distilled"], -1.05, speed),
            row("distilled, teacher's logits kept / teacher run in each step", speed["distilled"] / speed["teacher in each step"],
                None, speed)]


def bench_accuracy() -> list[dict]:
    """Do `fit` and Trainer end at the same accuracy? The same start and steps, five seeds (a quarter of an hour)."""
    task = registry.get("micro_nli")
    tokenizer = pretrained.load_tokenizer("offline")
    steps, rate, found = 192, 2e-4, {"Trainer fp32": [], "fit fp32": [], "fit bf16": []}
    for seed in range(5):
        items = dataset.load(task, seed=seed, n_train=2048, n_eval=2000, n_ood=1)
        train, dev = (batches.encode(tokenizer, items[items["split"] == split], 128) for split in ("train", "dev"))

        def right(model) -> float:
            logits = loop.predict(model, dev, dtype="fp32", device="cpu")
            return 100 * float((logits.argmax(1) == dev.labels).mean())
        start = partial(pretrained.load_classifier, "offline", len(task.labels), seed=seed, dropout=0.1, freeze_embeddings=False)
        model = start()
        trainer(train, False, model, steps, rate, seed)()
        found["Trainer fp32"].append(right(model))
        for dtype in ("fp32", "bf16"):
            model = start()
            loop.fit(model, train, losses.objective("vanilla", torch.as_tensor(train.labels)),
                         loop.Plan(steps, BATCH, rate, 0.1, 0.01, dtype, "cpu", seed=seed))
            found[f"fit {dtype}"].append(right(model))
    lines = []
    for dtype in ("fp32", "bf16"):
        less = np.subtract(found[f"fit {dtype}"], found["Trainer fp32"])
        low, high = bootstrap.t_interval(less)
        lines.append(row(f"points of accuracy, fit {dtype} less Trainer fp32: upper end of the 95 % interval over seeds", high, 0.0, {
            "mean": float(less.mean()), "low": low, "high": high} | {
            f"{name}, seed {seed}": value for name in found for seed, value in enumerate(found[name])}))
    return lines


def bench_base() -> list[dict]:
    """An encoder of BERT-base's size on batches of 64 rows with FEVER's lengths: share of the peak, and memory, with and without parts."""
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    model.base_model.embeddings.requires_grad_(False)
    dtype, draw, size, steps = devices.dtype("auto", "cpu"), np.random.default_rng(0), 64, 4
    lengths = np.clip(draw.gamma(7.5, 9.0, size * 16), 16, 128).round().astype(int)  # mean 67
    encoded = batches.Encoded([draw.integers(1000, 30000, size=length) for length in lengths], None,
                              draw.integers(0, 2, len(lengths)), lengths, 0)
    objective = losses.objective("vanilla", torch.as_tensor(encoded.labels))
    plan = loop.Plan(steps, size, 1e-5, 0.1, 0.01, dtype, "cpu", seed=4)  # batches whose longest rows have 69, 50, 53, 128 tokens
    memory = {}

    def fit(name: str, row_weights: torch.Tensor | None) -> float:
        cost = loop.fit(model, encoded, objective, plan, row_weights=row_weights)[1]
        memory.setdefault(name, cost["peak_memory_bytes"] / 1e9)  # the process's: so parts come first
        return cost["rows_per_second"]
    speed = in_turn({"parts": lambda: fit("parts", torch.ones(len(lengths))), "whole": lambda: fit("whole", None)}, rounds=2)
    chosen = np.concatenate(list(batches.train_batches(lengths, size, steps, plan.seed)))
    per_row = 3 * float(np.mean([encoders.flops(model, int(length)) for length in lengths[chosen]]))
    share = speed["parts"] * per_row / peak({"bf16": torch.bfloat16, "fp32": torch.float32}[dtype])
    return [row(f"base size, training FLOP/s / matrix peak, {dtype}", share, 0.45, speed),
            row("base size, in parts / whole batches", speed["parts"] / speed["whole"], None, speed),
            row("base size, peak memory in parts, GB", memory["parts"], -8.0, {f"{k}, GB": v for k, v in memory.items()})]


# ---------------------------------------------------------------- prediction

def bench_predict() -> list[dict]:
    """`predict` against the machine's peak, `transformers.pipeline` and Trainer.predict."""
    encoded, model = rows(1024), classifier().eval()
    tokenizer = pretrained.load_tokenizer("offline")
    words = [tokenizer.decode(ids) for ids in encoded.input_ids]
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    table = [{"input_ids": ids.tolist(), "labels": 0} for ids in encoded.input_ids]

    def timed(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return len(words) / (time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        judge = Trainer(model, TrainingArguments(folder, per_device_eval_batch_size=BATCH, use_cpu=True, report_to=[],
                                                 disable_tqdm=True), data_collator=DataCollatorWithPadding(tokenizer))
        speed = in_turn({
            "predict fp32": lambda: timed(lambda: loop.predict(model, encoded, dtype="fp32", device="cpu")),
            "predict bf16": lambda: timed(lambda: loop.predict(model, encoded, dtype="bf16", device="cpu")),
            "pipeline fp32": lambda: timed(lambda: pipeline(words, batch_size=BATCH, truncation=True, max_length=128)),
            "Trainer.predict fp32": lambda: timed(lambda: judge.predict(table))})
    share = speed["predict fp32"] * useful_flops(model, encoded) / peak(torch.float32)
    return [row("predict FLOP/s / matrix peak, fp32", share, 0.80, speed),
            row("predict / pipeline (batch 32), both fp32", speed["predict fp32"] / speed["pipeline fp32"], None, speed),
            row("predict / Trainer.predict (batch 32), both fp32", speed["predict fp32"] / speed["Trainer.predict fp32"], None, speed),
            row("predict bf16 / predict fp32", speed["predict bf16"] / speed["predict fp32"], None, speed)]


def bench_int8() -> list[dict]:
    """An int8 student against its compiled float self, one example and a batch of 32."""
    student = classifier(layers=(0, 1, 2)).eval()
    models = {"float": student, "int8": quantization.quantize(classifier(layers=(0, 1, 2)).eval(), "ptq8")}
    found = costs.measure(models, length=40, threads=torch.get_num_threads(), runs=5,
                          paths=("compiled", "onnx_fp32", "onnx_int8"))
    result = []
    for batch in (1, 32):
        part = found[found["batch"] == batch].set_index(["model", "path"])["latency_ms"]
        best = {"int8 " + path: part["int8", path] for path in ("compiled", "onnx_int8")}
        name = min(best, key=best.get)
        result.append(row(f"int8 student ({name}) / its compiled fp32 self, batch {batch}", part["float", "compiled"] / best[name], 1.3,
                          {f"{model} {path}, ms": ms for (model, path), ms in part.items()}))
    return result


# ---------------------------------------------------------------- a whole profile

def bench_jobs() -> list[dict]:
    """The whole profile `mini`, untouched copies, with one job of two threads and two jobs of one (half an hour)."""
    def whole(jobs: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "study"
            subprocess.run(["git", "clone", "-q", ROOT, copy], check=True)
            (copy / ".venv").symlink_to(ROOT / ".venv")
            start = time.perf_counter()
            subprocess.run(["make", "study", "-o", ".venv/.ready", f"JOBS={jobs}", f"SET=common.threads={3 - jobs}"], cwd=copy,
                           env={**os.environ, "PYTHONPATH": str(copy)}, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - start
    seconds = {f"{jobs} job{'s' * (jobs > 1)}, minutes": whole(jobs) / 60 for jobs in (1, 2)}
    one, two = seconds.values()
    return [row("mini: one job's time / two jobs'", one / two, None, seconds), row("mini, minutes", min(one, two), -12.0, seconds)]


# ---------------------------------------------------------------- the table

def row(what: str, ratio: float, target: float | None, measured: dict[str, float]) -> dict:
    """One line of the table. target: what the ratio must reach; negative: what it must not exceed; None: no target."""
    reached = None if target is None else bool(ratio <= -target if target < 0 else ratio >= target)
    return {"what": what, "ratio": ratio, "target": target, "reached": reached, "measured": measured}


BENCHMARKS = {name.removeprefix("bench_"): run for name, run in globals().items() if name.startswith("bench_")}
LONG = ("accuracy", "jobs")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    machine = {"machine": platform.machine(), "threads": given.threads, "torch": torch.__version__,
               "transformers": transformers.__version__, "date": time.strftime("%Y-%m-%d")}
    found, lines = json.loads(OUT.read_text()) if OUT.exists() else {}, []
    for name in given.names or [name for name in BENCHMARKS if name not in LONG]:
        sys.stdout.write(f"{name}: {BENCHMARKS[name].__doc__}\n")
        sys.stdout.flush()
        found[name] = {"machine": machine, "lines": BENCHMARKS[name]()}
        lines += found[name]["lines"]
        with files.whole(OUT) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")
    table = pd.DataFrame(lines).assign(
        target=lambda t: ["" if pd.isna(x) else f"<= {-x:g}" if x < 0 else f">= {x:g}" for x in t["target"]],
        measured=lambda t: ["; ".join(f"{k} {v:.3g}" for k, v in m.items()) for m in t["measured"]])
    sys.stdout.write(table.round(2).to_string(index=False) + f"\n{OUT}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
