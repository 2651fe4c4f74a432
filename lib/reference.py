"""The committed reference: what a full run found, small enough for git and enough to rebuild every table.

`outputs/reference/<profile>/` mirrors `outputs/<profile>/`: executed notebooks, tables, figures and model records,
and for each task and seed `items.parquet` (the rows' truth without their texts, which the real sets' terms forbid)
and `predictions/<model>.parquet` (half-precision logits of all splits but train; checkpoints beside them).
"""

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd

from lib import notebooks, store
from lib.errors import StudyError
from lib.schema import ROOT, STAGES

FOLDER = ROOT / "outputs" / "reference"
COPIED = ("*.csv", "attacks.parquet", "figures/*.svg", "figures/*.csv", "models.json")
TEXT = ["text_a", "text_b"]


def _file_name(model: str) -> str:
    return model.replace(" + ", "+").replace("/", "--")


def _copy(source: Path, target: Path) -> None:
    with store.replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def collect(profile: str, root: Path = ROOT) -> Path:
    """Copy the finished parts of `outputs/<profile>` to the reference; returns its folder.

    Raises StudyError where the profile has not been run.
    """
    source, target = root / "outputs" / profile, root / "outputs" / "reference" / profile
    runs = sorted(source.glob("*/seed*/02_teacher/models.json"))
    if not runs:
        raise StudyError(f"{source} holds no finished teacher: run `make study PROFILE={profile}` first")
    shutil.rmtree(target, ignore_errors=True)
    for run in (path.parents[1] for path in runs):
        place = target / run.relative_to(source)
        items = store.read_items(run / "01_data" / "data.parquet")
        items = items[items["split"] != "train"]
        store.write_items(place / "items.parquet", items.drop(columns=TEXT))
        for stage in sorted(run.glob("*/models.json")):
            for model in store.read_stage(stage.parent).values():
                tables = {"": model.predictions()}
                if (model.folder / "checkpoints.parquet").exists():
                    tables["@checkpoints"] = model.checkpoints()
                for suffix, table in tables.items():
                    table = table[table["split"] != "train"]
                    if len(table):
                        path = place / "predictions" / f"{_file_name(model.name)}{suffix}.parquet"
                        store.write_predictions(path, table, half=True)
    for folder in {source, *(path.parents[1] for path in runs)}:
        place = target / folder.relative_to(source)
        for notebook in folder.glob("*.ipynb"):
            notebooks.tidy_copy(notebook, place / notebook.name)
        for stage in STAGES.values():
            for pattern in COPIED:
                for path in (folder / stage).glob(pattern):
                    _copy(path, place / path.relative_to(folder))
    if (source / "params.yaml").exists():
        _copy(source / "params.yaml", target / "params.yaml")
    return target


def load(profile: str, task: str, seed: int, root: Path = ROOT) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Items (without texts) and predictions by model name of a committed run; checkpoints as `<model>@checkpoints`.

    Raises StudyError where that run is not in the reference, or a table of it is not valid.
    """
    place = root / "outputs" / "reference" / profile / task / f"seed{seed}"
    if not (place / "items.parquet").exists():
        known = sorted(str(p.parent.relative_to(root / "outputs" / "reference"))
                       for p in (root / "outputs" / "reference").glob("*/*/seed*/items.parquet"))
        raise StudyError(f"{place} is not in the reference; it has {', '.join(known) or 'no run'}")
    tables = {path.stem.replace("+", " + ").replace("--", "/"): store.read_predictions(path)
              for path in sorted((place / "predictions").glob("*.parquet"))}
    items = pd.read_parquet(place / "items.parquet")
    for name, table in tables.items():
        if not name.endswith("@checkpoints"):
            store.check_predictions(table, items, source=f"{place.relative_to(root)}: {name}")
    return items, tables


def main(arguments: list[str]) -> None:
    """`python -m lib.reference PROFILE` collects a finished run."""
    parser = argparse.ArgumentParser(prog="python -m lib.reference", description=collect.__doc__.splitlines()[0])
    parser.add_argument("profile")
    try:
        target = collect(parser.parse_args(arguments).profile)
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        sys.stdout.write(f"{target.relative_to(ROOT)}: {size / 1e6:.1f} MB\n")
    except StudyError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
