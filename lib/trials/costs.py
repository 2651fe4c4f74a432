"""What a model really costs: its size, and its speed beside all others in one run.

Paths, by which a model can be run on a CPU:
- eager: transformers as it is. A model of torchao rounds its numbers there but multiplies floats, which is no speed
  of an int8 model: its path reads `eager (not a speed)`.
- compiled: torch.compile of the encoder's layers (PyTorch's regional compilation: a layer is compiled once for its
  shape and serves all layers and all models of that shape; where layers differ, as with heads cut, or are unknown,
  the encoder is compiled whole); pooler and classifier stay eager.
- onnx_fp32, onnx_int8: onnxruntime on the exported float graph; int8 after its own dynamic quantisation (weights int8
  per output channel, activations uint8 per tensor) of the layers' linear maps, whose logits are close to torchao's
  but not the same. For a float model the int8 row is what quantising it would bring, no speed of its own, and so it is
  for one whose weights alone are quantised. A quantised model's graph is made of its rounded weights.
A mask of zeros speeds nothing up: masked models are timed like any other.
"""

import contextlib
import importlib.util
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from lib.errors import StudyError, nearest
from lib.models import batches, encoders, families, quantization
from lib.trials import runtimes
from lib.trials.runtimes import Forward, Inputs

PATHS = ("eager", "compiled", "onnx_fp32", "onnx_int8")
NO_SPEED = "eager (not a speed)"
COLUMNS = ["model", "path", "batch", "latency_ms", "low", "high", "rows_per_s", "speed", "agreement", "note"]
SAMPLE = 0.03  # seconds that one sample lasts at least, in up to CALLS calls
CALLS = 10
# a shape too many would fall back to eager and be timed as compiled
LIMITS = {"recompile_limit": 256, "accumulated_recompile_limit": 1024, "fail_on_recompile_limit_hit": True}


def sizes(models: Mapping[str, PreTrainedModel], folders: Mapping[str, Path], length: int) -> pd.DataFrame:
    """Size of each model: model | parameters | nonzero_parameters | bytes | flops.

    bytes: on disk, of all safetensors files in the model's folder. flops: of one forward pass over one example of
    `length` tokens, after zeroed heads are cut (see `encoders.flops`); NaN where the encoder's family is unknown.
    StudyError: a folder without weights.
    """
    rows = []
    for name, model in models.items():
        files = list(Path(folders[name]).glob("*.safetensors"))
        if not files:
            raise StudyError(f"model {name!r}: {folders[name]} holds no model.safetensors: make the model again")
        table = (quantization if runtimes.kind_of(model) != "float" else encoders).sizes(model)
        rows.append((name, table["parameters"], table["nonzero_parameters"], sum(file.stat().st_size for file in files),
                     encoders.flops(runtimes.as_used(model)[0], length)))
    return pd.DataFrame(rows, columns=["model", "parameters", "nonzero_parameters", "bytes", "flops"])


def measure(models: Mapping[str, PreTrainedModel], *, length: int, threads: int, batch_sizes: Sequence[int] = (1, 32),
            paths: Sequence[str] = PATHS, runs: int = 5, encoded: batches.Encoded | None = None) -> pd.DataFrame:
    """Speed of all models on the CPU, side by side: one row for each model, path and batch size.

    Columns: model | path | batch | latency_ms | low | high | rows_per_s | speed | agreement | note. latency_ms: median
    over `runs` rounds, milliseconds per batch of rows of `length` tokens; low, high: fastest and slowest round. Each
    round runs through all models, paths and batches, so that a slow minute hits all. speed: whether the row is a speed
    of this very model (see the module). agreement: on onnx_int8, share of the rows of `encoded` that get the label the
    eager model gives them. NaN with the reason in note: a path that could not be run.

    Eager, each model is timed itself. Compiled and in onnxruntime models of one graph (same shapes, same quantisation)
    have one time, and the note names the model that was timed. Heads in `config.zeroed_heads` are cut before. The
    models come back unchanged. StudyError: an unknown path, a number below 1.
    """
    for path in paths:
        if path not in PATHS:
            raise StudyError(f"path {path!r} is not known{nearest(path, PATHS)}")
    if min(length, threads, runs, *batch_sizes) < 1:
        raise StudyError("length, threads, runs and batch_sizes must be 1 or more")
    for name, model in models.items():
        if (most := families.most_tokens(model.config)) and length > most:
            raise StudyError(f"length {length}: {name} has {most} positions: lower it")
    before, modes = torch.get_num_threads(), {name: model.training for name, model in models.items()}
    torch.set_num_threads(threads)
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder, torch._dynamo.config.patch(LIMITS), _quiet():
            waiting = {name: model.eval() for name, model in models.items()}
            bench = _Bench(waiting, length, threads, Path(folder), encoded)
            for path in paths:
                for name in models:
                    bench.add(name, path, batch_sizes)
            bench.run(runs)
            return bench.frame()
    finally:
        torch.set_num_threads(before)
        for name, model in models.items():
            model.train(modes[name])
        if "compiled" in paths:
            torch.compiler.reset()


def fastest(times: pd.DataFrame) -> pd.DataFrame:
    """Per model and batch size the fastest of its own paths, of a table by `measure`: model | batch | path |
    latency_ms | rows_per_s, in the table's order. An int8 model's are compiled and onnx_int8, never eager; a float
    model's all but onnx_int8; with int4 weights compiled and onnx_fp32. A model none of whose own paths ran has path ""
    and NaN."""
    own = times["latency_ms"].where(times["speed"])
    best = own.fillna(np.inf).groupby([times["model"], times["batch"]], sort=False).idxmin()
    kept = times.loc[best, ["model", "batch", "path", "latency_ms", "rows_per_s"]].reset_index(drop=True)
    none = own.loc[best].isna().to_numpy()
    kept.loc[none, ["latency_ms", "rows_per_s"]] = np.nan
    kept.loc[none, "path"] = ""
    return kept


class _Bench:
    """All calls to be timed, each known by the graph it runs, and the rows of the table that they serve."""

    def __init__(self, models: Mapping[str, PreTrainedModel], length: int, threads: int, folder: Path,
                 encoded: batches.Encoded | None):
        self._models = {name: runtimes.as_used(model) for name, model in models.items()}
        self._length, self._threads, self._folder, self._encoded = length, threads, folder, encoded
        self._floats: dict[tuple, tuple[str, Path]] = {}  # exported float graphs
        # who is timed, how, on what, or why not, agreement
        self._calls: dict[tuple, tuple[str, Forward | None, dict[int, Inputs], str, float]] = {}
        self._rows: list[tuple[str, str, int, tuple]] = []
        self._times: dict[tuple, list[float]] = {}

    def add(self, name: str, path: str, batch_sizes: Sequence[int]) -> None:
        model, in_onnx = self._models[name][0], path.startswith("onnx")
        key = (path, name if path == "eager" else runtimes.graph_of(runtimes.as_float(model) if in_onnx else model))
        if key not in self._calls:
            inputs = {batch: runtimes.random_inputs(model, batch, self._length) for batch in batch_sizes}
            forward, agreement, reason = None, np.nan, ""
            try:
                if in_onnx:
                    forward, agreement = self._onnx(name, path)
                else:
                    forward = runtimes.torch_forward(model, path)
                for batch in batch_sizes:
                    forward(inputs[batch])  # compiles for this size
            except Exception as error:  # whatever a compiler or exporter raises: the row says so, the others go on
                forward, reason = None, _reason(path, error)
            self._calls[key] = name, forward, inputs, reason, agreement
        self._rows += [(name, path, batch, key) for batch in batch_sizes]

    def run(self, runs: int) -> None:
        self._times = {(key, batch): [] for _, _, batch, key in self._rows if self._calls[key][1]}
        for _ in range(runs):
            for (key, batch), times in self._times.items():
                _, forward, inputs, _, _ = self._calls[key]
                times.append(_sample(forward, inputs[batch]))

    def frame(self) -> pd.DataFrame:
        rows = []
        for name, path, batch, key in self._rows:
            model, cut = self._models[name]
            timed, _, _, reason, agreement = self._calls[key]
            times = 1e3 * np.array(self._times.get((key, batch), [np.nan]))
            if not reason and timed != name:
                reason = f"timed on {timed}, the same graph"
            shown, own, about = _honest(path, runtimes.kind_of(model))
            latency = float(np.median(times))
            rows.append([name, shown, batch, latency, times.min(), times.max(), 1e3 * batch / latency, own,
                         agreement if timed == name else np.nan, "; ".join(filter(None, [reason, cut, about]))])
        return pd.DataFrame(rows, columns=COLUMNS)

    def _onnx(self, name: str, path: str) -> tuple[Forward, float]:
        if missing := [package for package in runtimes.ONNX if not importlib.util.find_spec(package)]:
            raise StudyError(f"{missing[-1]} is not installed: pip install '.[onnx]'")
        model = runtimes.as_float(self._models[name][0])
        key = runtimes.graph_of(model)
        if key not in self._floats:
            file = self._folder / f"{len(self._floats)}.onnx"
            runtimes.export(model, file)
            self._floats[key] = name, file
            inputs = runtimes.random_inputs(model, 3, 12)
            inputs["attention_mask"][0, 5:] = 0
            logits = runtimes.open_session(file, self._threads)(inputs)
            gap = float(np.abs(logits - model(**inputs).logits.numpy()).max())
            if not gap <= runtimes.TOLERANCE:  # NaN too
                file.unlink()
                raise StudyError(f"onnxruntime's logits are {gap:.1g} from torch's")
        owner, file = self._floats[key]
        if not file.exists():
            raise StudyError(f"the graph of {owner} failed, see onnx_fp32")
        session = runtimes.open_session(runtimes.to_int8(file) if path == "onnx_int8" else file, self._threads)
        compared = path == "onnx_int8" and self._encoded is not None and owner == name
        return session, runtimes.agreement_of(self._models[name][0], session, self._encoded) if compared else np.nan


def _honest(path: str, kind: str) -> tuple[str, bool, str]:
    """The path as the table shows it, whether its time is a speed of a model of this kind, and a note."""
    if path == "eager" and kind != "float":
        return NO_SPEED, False, "torchao multiplies floats"
    if path == "onnx_fp32" and kind != "float":
        return path, kind == "weights", "its rounded weights in floats"
    if path == "onnx_int8":
        own = kind == "int8"
        return path, own, "rounded by onnxruntime" if own else "of an int8 version, not of this model"
    return path, True, ""


def _sample(forward: Forward, inputs: Inputs) -> float:
    """Seconds of one call, the median of as many as fill SAMPLE."""
    times: list[float] = []
    while not times or (sum(times) < SAMPLE and len(times) < CALLS):
        start = time.perf_counter()
        forward(inputs)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _reason(path: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0] if isinstance(error, StudyError) else f"{path} failed ({type(error).__name__}: {lines[0][:160]})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporter, quantiser and compiler tell of much that is no news; what they raise is told in the note."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        unread = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
