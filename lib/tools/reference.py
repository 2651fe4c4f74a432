"""The committed reference: what a full run found, small enough for git, enough to rebuild every table of notebook 09.

`outputs/reference/<profile>/` mirrors `outputs/<profile>/`: tables and model records, and of one seed a task, the first
that was collected, executed notebooks and figures. In place of models and texts each task and seed has

- items.parquet: the evaluation rows (all but train) without their texts, which the real sets' terms forbid, and `easy`:
  the shortcut-only model is right
- predictions.parquet: guid and, for each model, a column of logits in half precision, less the first class's: for two
  classes one number, the log-odds of the second. `dense@48`: along a run, of the rows that were predicted there;
  `dense (fp32)`: the dense model's in fp32, which quantised models are held to
- train.parquet: the train rows' guid, split, label, subcase, heuristic, is_shortcut, the scores of notebook 06, and in
  half precision `loss:<model>` and `loss:<model>@<step>` (nats) of whatever was predicted on train
- costs.json: what each model cost
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lib import files, store
from lib.claims.runs import IN_FP32, SCHEMA, OutputRun, predictions_of
from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.params.stages import STAGES
from lib.tools import executed

COPIED = ("*.csv", "attacks.parquet", "models.json")
FORETOLD = ("06_shortcut_samples", "risk.parquet")
FIGURES = ("figures/*.svg", "figures/*.csv")


def collect(profile: str, root: Path = ROOT) -> Path:
    """Bring `outputs/reference/<profile>` up to what `outputs/<profile>` holds; returns its folder.

    Files change one by one and only where their content does, so an interrupted call leaves valid files and the next
    one goes on. Tasks and seeds that `outputs` no longer holds stay, and so does the copy of a notebook that is running
    or was broken off. Raises StudyError where nothing has run.
    """
    source, target = root / "outputs" / profile, root / "outputs" / "reference" / profile
    runs = sorted(path.parents[1] for path in source.glob("*/seed*/02_teacher/models.json"))
    if not runs:
        raise StudyError(f"{source} holds no finished teacher: run `make study PROFILE={profile}` first")
    for folder in runs:
        _collect_run(folder, target / folder.relative_to(source))
    if (source / "params.yaml").exists():
        _put(target / "params.yaml", lambda path: shutil.copyfile(source / "params.yaml", path))
    return target


def _collect_run(folder: Path, place: Path) -> None:
    record = json.loads((folder / "02_teacher" / "models.json").read_text())[0]
    run = OutputRun(folder, record["task"], record["seed"])
    models = run.models(run.finished)
    tables = predictions_of(models)
    evaluated = {name: table[table["split"] != "train"] for name, table in tables.items()}
    if (dense := models["dense"].folder / store.FP32).exists():
        evaluated[f"dense{IN_FP32}"] = store.read_predictions(dense)
    writers: dict[str, Callable[[Path], object]] = {
        "items.parquet": lambda path: store.write_items(path, run.items),
        "train.parquet": lambda path: store.write_items(path, run.train_rows(tables)),
        "predictions.parquet": lambda path: _write_wide(path, run.items["guid"], evaluated),
        "costs.json": lambda path: store.write_json(path, {name: model.cost for name, model in models.items()})}
    if (risk := folder / FORETOLD[0] / FORETOLD[1]).exists():
        writers["/".join(FORETOLD)] = lambda path: _write_halved(path, pd.read_parquet(files.checked(risk)))
    shown = len(run.finished) > 1 and not any(other.parent != place for other in place.parent.glob("seed*/*.ipynb"))
    ran = list(folder.glob("*.ipynb")) if shown else []
    for notebook in filter(executed.finished, ran):
        writers[notebook.name] = lambda path, notebook=notebook: executed.tidy_copy(notebook, path)
    for path in (path for stage in STAGES.values() for pattern in (*COPIED, *(FIGURES if shown else ()))
                 for path in (folder / stage).glob(pattern)):
        writers[str(path.relative_to(folder))] = lambda target, path=path: shutil.copyfile(path, target)
    for name, write in writers.items():
        _put(place / name, write)
    kept = {*writers, *(notebook.name for notebook in ran)}
    for path in sorted(place.rglob("*"), reverse=True):  # what the run no longer has; files before their folders
        if path.is_file() and str(path.relative_to(place)) not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _put(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file and put it at `target` in one step, unless that has the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / target.name
        write(new)
        if not target.exists() or target.read_bytes() != new.read_bytes():
            with files.whole(target) as temporary:
                shutil.copyfile(new, temporary)


def _write_halved(path: Path, table: pd.DataFrame) -> None:
    """A table of rows, its numbers in half precision."""
    store.write_items(path, table.astype(dict.fromkeys(table.select_dtypes("float").columns, np.float16)))


def _write_wide(path: Path, guids: pd.Series, tables: dict[str, pd.DataFrame]) -> None:
    """One row per guid and one column of half-precision logits, less those of the first class, per table that has rows;
    NaN where a table lacks the row."""
    columns = {"guid": pa.array(guids)}
    for name, table in tables.items():
        if table.empty:
            continue
        known = np.stack(table["logits"].to_numpy())
        known = known[:, 1:] - known[:, :1]
        logits = np.full((len(guids), known.shape[1]), np.nan, dtype=np.float16)
        logits[pd.Index(guids).get_indexer(table["guid"])] = known
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), known.shape[1])
    arrow = pa.table(columns).replace_schema_metadata({"reference_schema": SCHEMA})
    pq.write_table(arrow, path, compression="zstd", compression_level=19, use_dictionary=False)


def rebuild(profiles: list[str], root: Path = ROOT) -> None:
    """Run notebook 09 on the reference alone, as many profiles at a time as there are cores, the largest first; it
    writes to `outputs/rebuilt/<profile>`. Raises StudyError with its last line for a notebook that fails.
    """
    for profile in profiles:
        params = root / "outputs" / "reference" / profile / "params.yaml"
        if not params.exists():
            raise StudyError(f"{params} is not there: collect it with `python -m lib.tools.reference {profile}` first")
    sizes = {profile: sum(path.stat().st_size for path in (root / "outputs" / "reference" / profile).rglob("*.parquet"))
             for profile in profiles}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda profile: _rebuild(profile, root), sorted(profiles, key=sizes.get, reverse=True)))


def _rebuild(profile: str, root: Path) -> None:
    params, place = root / "outputs" / "reference" / profile / "params.yaml", root / "outputs" / "rebuilt" / profile
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "notebooks/09_claims.ipynb",
               str(place / "09_claims.ipynb"), "-f", str(params), "-p", "source", "reference"]
    job = subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if job.returncode:
        last = (job.stderr.strip() or "it said nothing").splitlines()[-1]
        raise StudyError(f"notebook 09 failed on the reference of {profile}: {last}")


def keep(profile: str, root: Path = ROOT) -> None:
    """Commit to the reference what `rebuild` made of it: notebook 09, its tables and figures."""
    rebuilt, target = (root / "outputs" / name / profile for name in ("rebuilt", "reference"))
    _put(target / "09_claims.ipynb", lambda path: executed.tidy_copy(rebuilt / "09_claims.ipynb", path))
    shutil.rmtree(target / "09_claims", ignore_errors=True)
    shutil.copytree(rebuilt / "09_claims", target / "09_claims")


def difference(committed: Path, rebuilt: Path) -> str:
    """The first table, row and column in which two folders' CSV files differ; "" where they do not."""
    names = sorted({str(path.relative_to(folder)) for folder in (committed, rebuilt) for path in folder.rglob("*.csv")})
    if not names:
        return f"{committed} holds no table"
    for name in names:
        for folder, what in ((committed, "committed"), (rebuilt, "rebuilt")):
            if not (folder / name).exists():
                return f"{name} was not {what}"
        before, after = (pd.read_csv(folder / name, dtype=str, keep_default_na=False)
                         for folder in (committed, rebuilt))
        if list(before.columns) != list(after.columns):
            columns, others = (", ".join(table.columns) for table in (before, after))
            return f"{name}: the committed columns are {columns}, the rebuilt {others}"
        for row, (a, b) in enumerate(zip(before.to_numpy(), after.to_numpy()), 1):
            for column, old, new in zip(before.columns, a, b):
                if old != new:
                    return f"{name}, row {row}, column {column}: committed {old!r}, rebuilt {new!r}"
        if len(before) != len(after):
            return f"{name}: {len(before)} rows are committed, {len(after)} were rebuilt"
    return ""


def check(profiles: list[str], root: Path = ROOT) -> dict[str, str]:
    """Each profile's first `difference` between the tables of 09 as committed and as rebuilt."""
    rebuild(profiles, root)
    return {profile: difference(*(root / "outputs" / name / profile / "09_claims" for name in ("reference", "rebuilt")))
            for profile in profiles}


def _check_names(profiles: list[str], kept: bool) -> None:
    """Raise StudyError for a profile that is not in the reference (kept), or that no run of `outputs` finished."""
    outputs = ROOT / "outputs"
    known = sorted({path.relative_to(outputs).parts[kept] for path in outputs.glob(
        "reference/*/params.yaml" if kept else "*/*/seed*/02_teacher/models.json")} - {"reference", "rebuilt"})
    for name in profiles:
        if name not in known:
            said = (f"{outputs / 'reference'} has no profile '{name}': collect it with "
                    f"`python -m lib.tools.reference {name}` first" if kept else
                    f"{outputs} holds no finished teacher of a profile '{name}': run `make study PROFILE={name}` first")
            raise StudyError(said + nearest(name, known))


def collect_or_check(arguments: list[str]) -> None:
    """`python -m lib.tools.reference PROFILE ...` collects finished runs and rebuilds 09's tables from them; `--check`
    rebuilds those of the profiles given, or all, and compares."""
    parser = argparse.ArgumentParser(prog="python -m lib.tools.reference", description=collect_or_check.__doc__)
    parser.add_argument("profiles", nargs="*")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    folder = ROOT / "outputs" / "reference"
    profiles = given.profiles or sorted(path.parent.name for path in folder.glob("*/params.yaml"))
    if not given.profiles and not given.check:
        parser.error("name the profiles to collect, or give --check")
    try:
        _check_names(profiles, given.check)
        if given.check:
            differences = check(profiles, ROOT)
            for profile, what in differences.items():
                n = len(list((folder / profile / "09_claims").rglob("*.csv")))
                sys.stdout.write(f"{profile}: {what or f'{n} tables of 09 rebuilt, identical to the committed ones'}\n")
            sys.exit(int(any(differences.values())))
        for profile in profiles:
            target = collect(profile, ROOT)
            rebuild([profile], ROOT)
            keep(profile, ROOT)
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            sys.stdout.write(f"{target.relative_to(ROOT)}: {size / 1e6:.1f} MB\n")
    except StudyError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    collect_or_check(sys.argv[1:])
