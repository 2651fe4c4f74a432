"""Killed again and again, `make study` comes to the same end."""
import os
import random
import signal
import subprocess
import time
from contextlib import suppress

import psutil

from tests.long import smoke

KILLS = int(os.environ.get("KILLS", 20))


def kill(running: subprocess.Popen, whom: str) -> None:
    """kill -9 of the whole run, of Snakemake alone (its notebook goes on without it), or of the notebook's kernel (the
    run goes on with what does not need that notebook)."""
    if whom == "everything":
        os.killpg(running.pid, signal.SIGKILL)
    for process in psutil.Process(running.pid).children(recursive=True) if whom != "everything" else ():
        with suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            if (whom == "snakemake" and "snakemake" in line and "papermill" not in line) or \
                    (whom == "kernel" and "ipykernel" in line):
                process.kill()
    if whom != "kernel":
        running.wait()


def test_killed_at_random_moments_the_tables_are_the_same(undisturbed, tmp_path):
    folder, draw, kills = smoke.clone(tmp_path / "study"), random.Random(0), []
    running, unhurt = smoke.start(folder), True
    while len(kills) < KILLS:
        time.sleep(draw.uniform(3, 25))
        if running.poll() is None:
            kills.append(draw.choice(["everything", "everything", "snakemake", "kernel"]))
            kill(running, kills[-1])
            unhurt = False
        if running.poll() is not None:
            assert running.returncode, f"the run ended after {len(kills)} kills: shorten the waits"
            assert not unhurt, f"a run that nobody killed failed after {len(kills)} kills: {smoke.said(folder)}"
            running, unhurt = smoke.start(folder), True
    running.wait()
    assert smoke.start(folder).wait() == 0, smoke.said(folder)
    found = smoke.tables(folder)
    assert found.keys() == undisturbed.keys()
    assert [name for name in found if found[name] != undisturbed[name]] == []
