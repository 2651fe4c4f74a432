"""Training gives what it gave at the tag from which long runs start: the same bytes on the same machine, near them on another.

`python tests/test_fits.py` writes tests/fits.json anew; that ends the comparability of runs made before.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from lib.models import devices, loop, losses, magnitude

KEPT = Path(__file__).with_name("fits.json")
STEPS = 12
FITS = {"dense": ("vanilla", 0.0), "imp-50": ("vanilla", 0.5), "dense + distil": ("distil", 0.0)}
NEAR = {"fp32": 1e-3, "bf16": 0.1}


def machine():
    """What the bytes of a fit depend on besides the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"cpu": name, "kernels": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}), "torch": torch.__version__}


def fitted(name, dtype):
    """Logits [rows, labels] of a tiny model after some steps."""
    loss, sparsity = FITS[name]
    devices.deterministic(0, threads=1)
    model, rows = tiny.classifier("bert", dropout=0.1), tiny.rows(48)
    teacher = torch.from_numpy(np.random.default_rng(1).normal(size=(48, 2)).astype(np.float32))
    objective = losses.objective(loss, torch.as_tensor(rows.labels), teacher_logits=teacher if loss == "distil" else None)
    pruner = magnitude.MagnitudePruner(model, sparsity, steps=STEPS, warmup=0.1, cooldown=0.3, interval=2) if sparsity else None
    plan = loop.Plan(steps=STEPS, batch_size=16, learning_rate=5e-3, warmup=0.1, weight_decay=0.01, dtype=dtype, device="cpu",
                     seed=0)
    loop.fit(model, rows, objective, plan, after_step=pruner.after_step if pruner else None)
    return loop.predict(model, rows, dtype=dtype, device="cpu")


def record(logits):
    return {"sha256": hashlib.sha256(logits.tobytes()).hexdigest(), "logits": np.round(logits[:8].astype(float), 5).tolist()}


@pytest.fixture(scope="module")
def kept():
    return json.loads(KEPT.read_text())


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("name", FITS)
def test_a_fit_gives_what_it_gave_at_the_tag(kept, name, dtype):
    if dtype == "bf16" and devices.dtype("auto", "cpu") != "bf16":
        pytest.skip("this processor has no bf16 of its own")
    logits, then = fitted(name, dtype), kept["fits"][f"{name}, {dtype}"]
    assert np.allclose(logits[:8], then["logits"], atol=NEAR[dtype]), f"largest difference {np.abs(logits[:8] - then['logits']).max()}"
    if machine() == kept["machine"]:
        assert record(logits)["sha256"] == then["sha256"]


def test_another_fit_gives_other_bytes(kept):
    shas = [fit["sha256"] for fit in kept["fits"].values()]
    assert len(shas) == len(FITS) * len(NEAR) == len(set(shas))


if __name__ == "__main__":
    fits = {f"{name}, {dtype}": record(fitted(name, dtype)) for name in FITS for dtype in NEAR}
    KEPT.write_text(json.dumps({"machine": machine(), "fits": fits}, indent=1) + "\n")
