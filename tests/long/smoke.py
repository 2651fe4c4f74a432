"""A clone of the study, its smoke profile run there by `make study`, and what that run found."""
import os
import subprocess
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
OF_TIME = {"speed.csv", "batching.csv", "plane.csv", "final.csv", "bill.csv"}  # hold measured times


def clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def start(folder: Path, *settings: str, **env: str) -> subprocess.Popen:
    """`make study PROFILE=smoke` without its set-up, in a session of its own; what it says goes to said.txt."""
    return subprocess.Popen(["make", "study", "-o", ".venv/.ready", "PROFILE=smoke", *settings], cwd=folder,
                            stdout=open(folder / "said.txt", "a"), stderr=subprocess.STDOUT, start_new_session=True,
                            env={**os.environ, "PYTHONPATH": str(folder), "MAKEFLAGS": "", **env})


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text()[-3000:]


def tables(folder: Path) -> dict[str, object]:
    """What a run found: the bytes of every model's predictions by key, and every table but those of times."""
    outputs = folder / "outputs" / "smoke"
    found = {str(path.relative_to(outputs)): path.read_bytes() for path in outputs.glob("store/*/predictions.parquet")}
    for path in outputs.rglob("*.csv"):
        if path.name not in OF_TIME and "figures" not in path.parts and "store" not in path.parts:
            found[str(path.relative_to(outputs))] = path.read_bytes()
    final = pd.read_csv(outputs / "09_claims" / "final.csv")
    return found | {"final": final[[c for c in final if not c.startswith("latency")]].to_csv()}
