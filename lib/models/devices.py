"""Where models run: device (of several GPUs the card that the fewest jobs hold), precision, threads, seeds, memory."""

import fcntl
import getpass
import itertools
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lib.errors import StudyError

PEAK_SIDES = (1024, 2048)  # of the square matrices whose product tells a machine's peak
_held: dict[Path, tuple[int, object]] = {}


def take_card(n_cards: int, folder: Path | None = None) -> int:
    """The number of the card for this process, 0 to n_cards - 1; asked again the same one.

    It is held by a lock that dies with the process, so that jobs side by side spread over the cards, and beyond one a
    card share them evenly. folder: where the locks lie; by default one of this user's in the machine's temporary one.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"study-cards-{getpass.getuser()}"
    if folder in _held:
        return _held[folder][0]
    folder.mkdir(parents=True, exist_ok=True)
    for place in itertools.count():
        for card in range(n_cards):
            file = open(folder / f"card{card}-{place}", "a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            _held[folder] = card, file
            return card


def device(name: str) -> str:
    """The device to use: `auto` is cuda, else mps, else cpu. Of several GPUs the one that the fewest jobs hold becomes
    this process's (`take_card`). StudyError: an unknown or absent one."""
    kind = _kind(name)
    if kind == "cuda":
        # cuBLAS repeats with a workspace of fixed size only, and looks for it at its first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(take_card(torch.cuda.device_count()))
    return kind


def _kind(name: str) -> str:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(kind for kind, there in present.items() if there)
    if name not in present:
        raise StudyError(f"device {name!r}: write auto, {', '.join(present)}")
    if not present[name]:
        raise StudyError(f"device {name!r}: this machine or this build of torch has none; write auto or cpu")
    return name


def dtype(name: str, device: str) -> str:
    """The precision to use: `auto` is bf16 where the hardware multiplies it natively, else fp32."""
    if name not in ("auto", "fp32", "bf16"):
        raise StudyError(f"dtype {name!r}: write auto, fp32 or bf16")
    if name != "auto":
        return name
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    can = torch.cpu.get_capabilities() if device == "cpu" else {}
    return "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") else "fp32"


def deterministic(seed: int, threads: int) -> None:
    """Seed every random source and choose repeatable kernels: same machine, same threads, same bytes."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def peak_memory(device: str) -> int | None:
    """Bytes held at most so far: of the accelerator, on a CPU of the whole process; None where it is not told."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    if device == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matrix_peak(dtype: str, device: str, seconds: float = 0.5) -> float:
    """GFLOP/s of the fastest square matrix product of this machine in that precision."""
    best = 0.0
    for side in PEAK_SIDES:
        a = torch.ones(side, side, dtype={"bf16": torch.bfloat16, "fp32": torch.float32}[dtype], device=device)
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            float((a @ a)[0, 0])  # waits for an accelerator
            best = max(best, 2 * side**3 / (time.perf_counter() - start) / 1e9)
    return best
