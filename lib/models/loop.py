"""One training loop and one prediction loop for every model of the study."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from lib.errors import StudyError
from lib.models.batches import Encoded, collate, eval_batches, parts_of, train_batches
from lib.models.devices import peak_memory
from lib.models.families import takes_types

CLIP = 1.0
LOG_EVERY = 10  # steps between two looks at the loss on an accelerator, where each look waits for it


@dataclass(frozen=True)
class Plan:
    """How to train. steps: optimizer steps of `batch_size` rows. learning_rate: the peak. warmup: share of the steps
    with a rising rate. weight_decay: decoupled, not on biases and norms. dtype: "fp32" or "bf16" (mixed precision).
    seed: of the order of rows and of dropout."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    dtype: str
    device: str
    seed: int


def check_stops(fractions: Sequence[float], steps: int, epochs: float, of_step: float) -> None:
    """StudyError, before anything is trained, where the first of these fractions of the steps comes before the first
    step. of_step: the epochs that one step makes."""
    if fractions and not round(min(fractions) * steps):
        least = of_step * (math.floor(0.5 / min(fractions)) + 1)
        raise StudyError(f"epochs = {epochs:g} makes too few steps ({steps}) to predict the run after "
                         f"{min(fractions):.1%} of them (checkpoints): give epochs = {math.ceil(100 * least) / 100:g} "
                         "or more, or more rows (n_train)")


def fit(model: PreTrainedModel, encoded: Encoded, objective: Callable[[Tensor, Tensor], Tensor], plan: Plan, *,
        row_weights: Tensor | None = None, after_step: Callable[[int], None] | None = None,
        checkpoints: Mapping[int, Callable[[], None]] | None = None,
        progress: tqdm | None = None) -> tuple[pd.DataFrame, dict]:
    """Train, in place, the parameters that require a gradient: AdamW, linear warm-up, linear decay to 0, clipped to 1.

    objective: (logits fp32 [b, c], row numbers [b] on the CPU) -> scalar loss. row_weights [n]: where the loss is the
    batch's mean of its rows' losses by these weights, and no row has a part in another's; a CPU then runs a batch of
    many tokens in parts (`batches.parts_of`), whose gradients add up to the batch's in less memory. Without them every
    batch is run whole. after_step(step) is called after each optimizer step (1, 2, ...): pruners. checkpoints: {step:
    call} after that step, the model in eval mode; what is done there changes nothing in the training. progress: a bar
    of `plan.steps` steps. Call `devices.deterministic` first for a run that repeats byte by byte. Gives the log (step,
    loss, learning_rate: one row per step) and the cost (seconds and rows_per_second of the training alone, without
    checkpoints; peak_memory_bytes of `devices`).
    StudyError: a loss that is no number, a checkpoint outside the run.
    """
    checkpoints = checkpoints or {}
    if outside := [step for step in checkpoints if not 1 <= step <= plan.steps]:
        raise StudyError(f"checkpoint at step {outside[0]}: the run has steps 1 to {plan.steps}")
    torch.manual_seed(plan.seed)
    model.to(plan.device).train()
    optimizer = _optimizer(model, plan)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    look = 1 if plan.device == "cpu" else LOG_EVERY
    losses, rates, waiting, paused = [], [], [], 0.0
    if plan.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for step, rows in enumerate(train_batches(encoded.lengths, plan.batch_size, plan.steps, plan.seed), start=1):
        rates.append(_rate(step, plan))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        waiting.append(_backward(model, encoded, rows, objective, row_weights, plan))
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        if step % look == 0 or step == plan.steps or step in checkpoints:
            losses += _finite(torch.stack(waiting).tolist(), len(losses) + 1, plan)
            waiting.clear()
        if after_step:
            after_step(step)
        if step in checkpoints:
            paused -= time.perf_counter()
            _call(checkpoints[step], model, plan.device)
            paused += time.perf_counter()
        if progress is not None:
            if step % LOG_EVERY == 0 or step == plan.steps:
                speed = step * plan.batch_size / (time.perf_counter() - start - paused)
                progress.set_postfix({"loss": f"{losses[-1]:.3f}", "rows/s": f"{speed:.0f}"}, refresh=False)
            progress.update()
    seconds = time.perf_counter() - start - paused
    model.eval()
    log = pd.DataFrame({"step": range(1, plan.steps + 1), "loss": losses, "learning_rate": rates})
    return log, {"seconds": seconds, "rows_per_second": plan.steps * plan.batch_size / seconds,
                 "peak_memory_bytes": peak_memory(plan.device)}


def predict(model: PreTrainedModel, encoded: Encoded, *, dtype: str, device: str, batch_size: int | None = None,
            progress: tqdm | None = None) -> np.ndarray:
    """Logits [rows, classes], float32, in row order; the model in eval mode and left as it was.

    bf16: a copy of the encoder in bf16, its classifier in fp32, for logits rounded to 8 bits would tie and jump.
    batch_size: in rows of 64 tokens, see `batches.eval_batches`; None is 16 on a CPU, whose caches hold about 1,000
    tokens, else 64. progress: a bar of n rows.
    """
    training, batch_size = model.training, batch_size or (16 if device == "cpu" else 64)
    worker = (bf16_copy(model) if dtype == "bf16" else model).to(device).eval()
    logits = np.zeros((len(encoded.lengths), model.config.num_labels), np.float32)
    try:
        with torch.inference_mode(), _attention(worker, device, worker.base_model.dtype == torch.bfloat16):
            for rows in eval_batches(encoded.lengths, batch_size):
                logits[rows] = worker(**inputs(worker, encoded, rows, device)).logits.float().cpu().numpy()
                if progress is not None:
                    progress.update(len(rows))
    finally:
        model.train(training)
    return logits


def _backward(model: PreTrainedModel, encoded: Encoded, rows: np.ndarray, objective: Callable[[Tensor, Tensor], Tensor],
              row_weights: Tensor | None, plan: Plan) -> Tensor:
    """The loss of a batch, a scalar without a graph; its gradient is added to the parameters'."""
    parts = [rows] if row_weights is None or plan.device != "cpu" else parts_of(encoded.lengths, rows)
    total = torch.zeros((), device=plan.device)
    with _repeatable(plan.device), _precision(model, plan):  # one autocast: weights are cast once a batch
        for part in parts:
            share = 1.0 if len(parts) == 1 else float(row_weights[part].sum() / row_weights[rows].sum())
            logits = model(**inputs(model, encoded, part, plan.device)).logits.float()
            with torch.autocast(plan.device.split(":")[0], enabled=False):
                loss = share * objective(logits, torch.from_numpy(part))
                loss.backward()
            total += loss.detach()
    return total


def _finite(losses: list[float], first_step: int, plan: Plan) -> list[float]:
    for step, loss in enumerate(losses, start=first_step):
        if not math.isfinite(loss):
            raise StudyError(f"the loss is {loss} at step {step} of {plan.steps}: lower learning_rate (now "
                             f"{plan.learning_rate:g}) or raise warmup (now {plan.warmup:g})")
    return losses


def _optimizer(model: PreTrainedModel, plan: Plan) -> torch.optim.AdamW:
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trainable if p.ndim > 1], "weight_decay": plan.weight_decay},
              {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0}]  # biases and norms
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)


def _rate(step: int, plan: Plan) -> float:
    """Learning rate of step 1, 2, ...: up to the peak at the last warm-up step, then down; 0 at step `steps` + 1."""
    rising = round(plan.warmup * plan.steps)
    if step <= rising:
        return plan.learning_rate * step / rising
    return plan.learning_rate * (plan.steps - step + 1) / (plan.steps - rising)


def inputs(model: PreTrainedModel, encoded: Encoded, rows: np.ndarray, device: str) -> dict[str, Tensor]:
    """The batch of these rows as the model takes it, without token types where the model knows one type or none."""
    batch = collate(encoded, rows, device)
    if not takes_types(model):
        batch.pop("token_type_ids", None)
    return batch


@contextmanager
def _precision(model: PreTrainedModel, plan: Plan) -> Iterator[None]:
    """The forward pass in the plan's precision: fp32 as it is, bf16 as autocast over fp32 weights."""
    if plan.dtype == "fp32":
        yield
        return
    with _attention(model, plan.device, True), torch.autocast(plan.device.split(":")[0], torch.bfloat16):
        yield


@contextmanager
def _attention(model: PreTrainedModel, device: str, bf16: bool) -> Iterator[None]:
    """On a CPU torch's fused attention in bf16 is slow: its backward pass takes a third of a step, its forward pass up
    to a fifth of a prediction."""
    if device != "cpu" or not bf16:
        yield
        return
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


@contextmanager
def _repeatable(device: str) -> Iterator[None]:
    """On CUDA fused attention is repeatable under the strict setting alone, which elsewhere refuses too much."""
    if not device.startswith("cuda"):
        yield
        return
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)


def _call(checkpoint: Callable[[], None], model: PreTrainedModel, device: str) -> None:
    with torch.random.fork_rng(devices=[torch.device(device)] if device.startswith("cuda") else []):
        model.eval()
        checkpoint()
        model.train()


def bf16_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with the encoder in bf16 and the classifier in fp32, for predictions."""
    worker = copy.deepcopy(model).to(torch.bfloat16)
    for head in worker.children():
        if head is not worker.base_model:
            head.float().register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
    return worker
