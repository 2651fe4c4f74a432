"""One model trained by several processes at once, each on its share of every batch: data-parallel, through accelerate.

`common.processes: N` is for a model that is too slow on one card and has N cards of one machine to itself. Many small models
are done sooner side by side, one to a card: starting the processes takes some ten seconds a model, and in each step all wait
for the slowest. On a CPU, where it serves as a test, each process takes `threads` threads and gloo carries the gradients.

What is computed is what one process computes, up to rounding: the loss is that of the whole batch, its logits gathered;
gradients are averaged before they are clipped; every process takes the same optimizer step and calls the same pruner. Only
dropout draws anew in each.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib import names, store
from lib.errors import StudyError
from lib.sections import RUNS

CODE = Path(__file__).resolve().parents[1]
MODELS, ARRAYS = ("teacher", "start"), ("strength", "weights")  # fields of models.Extras


class Team:
    """The processes that train a model together, seen from one of them, which `launch` started.

    device: "cpu" or "cuda", of which each process takes the card of its number. spares: whether there are batches in
    which some parameters take no part. `size` of the team, `rank` of this process, from 0.
    """

    def __init__(self, device: str, spares: bool = False):
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        averaging = DistributedDataParallelKwargs(find_unused_parameters=spares)
        self._accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[averaging])
        self.size, self.rank = self._accelerator.num_processes, self._accelerator.process_index

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model as it is to be called: rank 0's weights, and a backward pass that averages gradients over the team."""
        return self._accelerator.prepare_model(model)

    def seed(self, seed: int) -> int:
        """A seed of this process' own."""
        return int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])

    def own(self, rows: np.ndarray) -> np.ndarray:
        """This process' rows of a batch: every size-th, so that all are of like length."""
        return rows[self.rank::self.size]

    def whole(self, logits: Tensor) -> Tensor:
        """Logits [batch, classes] of the whole batch, of which only this process' [batch / size, classes] have a gradient.

        That gradient is taken `size` times, for the average over the team is to be the sum of all rows' parts. A
        loss that does not come through the logits is averaged as it is.
        """
        shares = list(self._accelerator.gather(logits.detach()).chunk(self.size))
        shares[self.rank] = logits
        logits.register_hook(lambda gradient: gradient * self.size)
        return torch.stack(shares, dim=1).flatten(0, 1)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the team of each value."""
        return self._accelerator.reduce(values, "mean")

    def end(self) -> None:
        """Part, all at the same point."""
        self._accelerator.end_training()


def train(run, items: pd.DataFrame, recipe: dict, extras, folder: Path) -> None:
    """`models.train` by `run.processes` processes; rank 0 of them writes the model's files into `folder`.

    They are told what to do by plain files in a temporary folder beside it: job.json, items.parquet, arrays as .npy.
    StudyError: fewer cards than processes, a device without means for it, a process that failed.
    """
    _check(run.processes, recipe["device"])
    given = {field.name: getattr(extras, field.name) for field in dataclasses.fields(extras)}
    others = {name: given.pop(name) for name in MODELS}
    arrays = {name: given.pop(name) for name in ARRAYS}
    with tempfile.TemporaryDirectory(prefix=f".{recipe['key']}-job-", dir=folder.parent) as name:
        job = Path(name)
        for array, values in arrays.items():
            if values is not None:
                np.save(job / f"{array}.npy", np.asarray(values), allow_pickle=False)
        items.to_parquet(job / "items.parquet", index=False)
        (job / "job.json").write_text(json.dumps({
            "section": run.section, "run": run.model_dump(), "recipe": recipe, "extras": given,
            "folder": str(folder.resolve()),
            "models": {field: str(model.folder.resolve()) for field, model in others.items() if model is not None}}))
        launch(["-m", "lib.parallel", name], run.processes, run.threads, job)


def launch(program: Sequence[str], processes: int, threads: int, folder: Path) -> None:
    """Run `python PROGRAM` in that many processes that can form a `Team`, and print what they print.

    The program does its work inside `member(folder)`. torchrun starts them, for `accelerate launch` starts one process
    on a CPU. StudyError: one of them failed, with the last line it said; the others are ended.
    """
    path = os.pathsep.join(filter(None, (str(CODE), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
               "--nproc-per-node", str(processes), *program]
    with open(folder / "stderr", "wb") as stderr, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}) as team:
        while text := team.stdout.read1():
            sys.stdout.write(text.decode(errors="replace"))
            sys.stdout.flush()
    if team.returncode:
        said = sorted(folder.glob("failed-*"), key=lambda path: path.stat().st_mtime_ns)[:1] or [folder / "stderr"]
        lines = [line for line in said[0].read_text(errors="replace").splitlines() if any(map(str.isalpha, line))]
        last = lines[-1].strip().removeprefix("traceback : ") if lines else f"exit status {team.returncode}"
        raise StudyError(f"one of the {processes} processes failed: {last}")


@contextmanager
def member(folder: Path) -> Iterator[None]:
    """Around the work of a process that `launch` started: rank 0 alone prints, an error's last line is left in `folder`,
    and the process ends when the one that called `launch` does."""
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    rank = int(os.environ["RANK"])
    try:
        if rank == 0:
            yield
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield
    except Exception as error:
        said = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        (folder / f"failed-{rank}").write_text(said)
        raise


def work(folder: Path) -> None:
    """Do, as one process of a team, the job that `train` wrote into a folder."""
    from lib import models  # which hands over to this module

    job = json.loads((folder / "job.json").read_text())
    arrays = [name for name in ARRAYS if (folder / f"{name}.npy").exists()]
    extras = {name: tuple(value) if isinstance(value, list) else value for name, value in job["extras"].items()}
    extras |= {name: store.Model(Path(place)) for name, place in job["models"].items()}
    extras |= {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in arrays}
    recipe, run = job["recipe"], RUNS[job["section"]].model_validate(job["run"])
    team = Team(recipe["device"], spares=names.parse(recipe["model"]).family == "theseus")
    items = pd.read_parquet(folder / "items.parquet")
    models.train(run, items, recipe, models.Extras(**extras), Path(job["folder"]), team)


def _check(processes: int, device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise StudyError(f"common.processes = {processes}: on {device} a model is trained by one process; give 1")
    if device == "cuda" and processes > torch.cuda.device_count():
        raise StudyError(f"common.processes = {processes}: each takes a card of its own, and there are "
                         f"{torch.cuda.device_count()} here; give that many or fewer")


def _end_with_the_caller() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written there: it returns when the caller's end is closed
    os._exit(1)


if __name__ == "__main__":
    with member(Path(sys.argv[1])):
        work(Path(sys.argv[1]))
