"""The committed reference: what a full run found, small enough for git, enough to rebuild every table of notebook 09.

`outputs/reference/<profile>/` mirrors `outputs/<profile>/`: executed notebooks, tables, figures and model records. In
place of models and texts each task and seed has

- items.parquet: the evaluation rows (all but train) without their texts, which the real sets' terms forbid, and `easy`:
  the shortcut-only model is right
- predictions.parquet: guid and, for each model, a column of logits in half precision
- checkpoints.parquet: the same along a run, in columns such as `dense@48`, of the rows that were predicted there
- train.parquet: the train rows' guid, split, label, subcase, heuristic, is_shortcut, the scores of notebook 06, and in
  half precision `loss:<model>` and `loss:<model>@<step>` (nats) of whatever was predicted on train
- costs.json: what each model cost

`Made` and `Kept` read one task and seed of a run and of the reference alike.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lib import difficulty, floors, notebooks, shortcuts, store, tasks
from lib.errors import StudyError
from lib.schema import ROOT, STAGES

MODEL_STAGES = ("02_teacher", "03_distillation", "04_pruning", "05_quantization_and_replacing", "07_mitigation")
COPIED = ("*.csv", "attacks.parquet", "figures/*.svg", "figures/*.csv", "models.json")
TEXT = ["text_a", "text_b"]
OF_TRAIN = ["guid", "split", "label", "subcase", "heuristic", "is_shortcut"]
FOLDS = 5
SCHEMA = "2"


# --- one task and seed, of a run or of the reference

@dataclass(frozen=True)
class Made:
    """One task and seed of `outputs/<profile>`, as the notebooks left it; tables are computed once, when asked for."""

    folder: Path
    task: str
    seed: int

    def models(self, stages: Iterable[str] = MODEL_STAGES) -> dict[str, store.Model]:
        """The models of some stages by name; one that two stages ask for counts once. StudyError: a stage has not run."""
        return {name: model for stage in stages for name, model in store.read_stage(self.folder / stage).items()}

    def file(self, stage: str, name: str) -> Path:
        """A file that a stage wrote. Raises StudyError where it is not there."""
        path = self.folder / stage / name
        if not path.exists():
            raise StudyError(f"{path} is not there: run notebooks/{stage}.ipynb with the same parameters first")
        return path

    @cached_property
    def _all(self) -> pd.DataFrame:
        return store.read_items(self.folder / "01_data" / "data.parquet")

    @cached_property
    def items(self) -> pd.DataFrame:
        """The evaluation rows without their texts, and `easy`."""
        easy = shortcuts.easy_rows(floors.shortcut_only(self._all, tasks.get(self.task), FOLDS, self.seed))
        items = self._all[self._all["split"] != "train"].drop(columns=TEXT)
        return items.assign(easy=items["guid"].map(easy).astype(bool)).reset_index(drop=True)

    @cached_property
    def train(self) -> pd.DataFrame:
        """The train rows as in train.parquet, of the stages that have run."""
        train = self._all.loc[self._all["split"] == "train", OF_TRAIN].reset_index(drop=True)
        scores = self.folder / "06_shortcut_samples" / "difficulty.parquet"
        if scores.exists():
            found = pd.read_parquet(scores)
            numbers = found.select_dtypes("float").columns
            train = train.merge(found.astype(dict.fromkeys(numbers, "float32")), on="guid", how="left")
        losses = {f"loss:{name}": _losses(table, train) for name, table in _tables(self.models(self.finished)).items()
                  if (table["split"] == "train").any()}
        return train.assign(**losses)

    @property
    def finished(self) -> list[str]:
        """The stages that made models and are done."""
        return [stage for stage in MODEL_STAGES if (self.folder / stage / "models.json").exists()]


@dataclass(frozen=True)
class Kept:
    """One task and seed of the reference. It offers what `Made` does; what was not kept is left out, not an error."""

    folder: Path

    def models(self, stages: Iterable[str] = MODEL_STAGES) -> dict[str, "Model"]:
        """The models of some stages by name, of those stages that the reference has."""
        paths = [self.folder / stage / "models.json" for stage in stages]
        records = [record for path in paths if path.exists() for record in json.loads(path.read_text())]
        return {record["model"]: Model(self, record) for record in records}

    def file(self, stage: str, name: str) -> Path | None:
        """A file that a stage wrote; None where the reference has none."""
        path = self.folder / stage / name
        return path if path.exists() else None

    @cached_property
    def items(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "items.parquet")

    @cached_property
    def train(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "train.parquet")

    @cached_property
    def costs(self) -> dict[str, dict]:
        return json.loads((self.folder / "costs.json").read_text())

    @cached_property
    def predictions(self) -> dict[str, pd.DataFrame]:
        """Each model's predictions table, rows in the order of `items`."""
        return self._wide("predictions.parquet")

    @cached_property
    def checkpoints(self) -> dict[str, pd.DataFrame]:
        """model@step -> its predictions table; none where no run was predicted along its way."""
        return self._wide("checkpoints.parquet") if (self.folder / "checkpoints.parquet").exists() else {}

    def _wide(self, name: str) -> dict[str, pd.DataFrame]:
        path = self.folder / name
        arrow = pq.read_table(path)
        version = (arrow.schema.metadata or {}).get(b"reference_schema", b"none").decode()
        if version != SCHEMA:
            raise StudyError(f"{path}: the reference's schema is {version!r}, this study reads {SCHEMA!r}: collect it again")
        guids = arrow["guid"].to_pandas()
        at = pd.Index(self.items["guid"]).get_indexer(guids)
        if (at < 0).any():
            raise StudyError(f"{path}: guid {guids[at < 0].iloc[0]!r} is not among the rows of items.parquet: collect it again")
        rows = self.items.iloc[at][["guid", "split", "label"]].reset_index(drop=True)
        tables = {}
        for column in arrow.column_names[1:]:
            values = arrow[column].combine_chunks()
            logits = values.flatten().to_numpy().reshape(len(values), -1).astype(np.float32)
            there = ~np.isnan(logits).all(axis=1)
            tables[column] = (rows if there.all() else rows[there]).assign(logits=list(logits[there]))
        return tables


@dataclass(frozen=True)
class Model:
    """One model of the reference; it answers as `store.Model` does, of the evaluation rows."""

    run: Kept
    record: dict

    @property
    def name(self) -> str:
        return self.record["model"]

    @property
    def cost(self) -> dict:
        return self.run.costs[self.name]

    def predictions(self) -> pd.DataFrame:
        """Raises StudyError where the reference has the record alone."""
        if self.name not in self.run.predictions:
            raise StudyError(f"{self.run.folder / 'predictions.parquet'} has no model {self.name!r}: collect it again")
        return self.run.predictions[self.name]

    def checkpoints(self) -> pd.DataFrame:
        """Predictions along the run, with a column `step`."""
        along = [table.assign(step=int(column.rpartition("@")[2])) for column, table in self.run.checkpoints.items()
                 if column.rpartition("@")[0] == self.name]
        if not along:
            raise StudyError(f"{self.run.folder / 'checkpoints.parquet'} has nothing along the run of {self.name!r}")
        return pd.concat(along, ignore_index=True)

    def logits(self, items: pd.DataFrame, split: str) -> np.ndarray:
        """Logits [rows, classes] of one split in the order of `items`."""
        return store.ordered_logits(self.predictions(), items, split)


def _tables(models: dict[str, store.Model]) -> dict[str, pd.DataFrame]:
    """model -> predictions, and model@step -> those along its run."""
    tables = {}
    for name, model in models.items():
        tables[name] = model.predictions()
        if (model.folder / "checkpoints.parquet").exists():
            tables |= {f"{name}@{step}": part.drop(columns="step") for step, part in model.checkpoints().groupby("step")}
    return tables


def _losses(table: pd.DataFrame, train: pd.DataFrame) -> np.ndarray:
    losses = difficulty.losses_from_logits(store.ordered_logits(table, train, "train"), train["label"].to_numpy())
    return losses.astype(np.float16)


# --- writing

def collect(profile: str, root: Path = ROOT) -> Path:
    """Bring `outputs/reference/<profile>` up to what `outputs/<profile>` holds; returns its folder.

    Files change one by one and only where their content does, so an interrupted call leaves valid files and the next
    one goes on. Tasks and seeds that `outputs` no longer holds stay. Raises StudyError where nothing has run.
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
    made = Made(folder, record["task"], record["seed"])
    models = made.models(made.finished)
    tables = {name: table[table["split"] != "train"] for name, table in _tables(models).items()}
    final = {name: table for name, table in tables.items() if name in models}
    along = {name: table for name, table in tables.items() if name not in models and len(table)}
    guids = made.items["guid"]
    files: dict[str, Callable[[Path], object]] = {
        "items.parquet": lambda path: store.write_items(path, made.items),
        "train.parquet": lambda path: store.write_items(path, made.train),
        "predictions.parquet": lambda path: _write_wide(path, guids, final),
        "costs.json": lambda path: store.write_json(path, {name: model.cost for name, model in models.items()})}
    if along:
        seen = set().union(*(table["guid"] for table in along.values()))
        files["checkpoints.parquet"] = lambda path: _write_wide(path, guids[guids.isin(seen)], along)
    for notebook in folder.glob("*.ipynb"):
        files[notebook.name] = lambda path, notebook=notebook: notebooks.tidy_copy(notebook, path)
    for path in (path for stage in STAGES.values() for pattern in COPIED for path in (folder / stage).glob(pattern)):
        files[str(path.relative_to(folder))] = lambda target, path=path: shutil.copyfile(path, target)
    for name, write in files.items():
        _put(place / name, write)
    for path in sorted(place.rglob("*"), reverse=True):  # what the run no longer has; files before their folders
        if path.is_file() and str(path.relative_to(place)) not in files:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _put(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file and put it at `target` in one step, unless that has the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / target.name
        write(made)
        if not target.exists() or target.read_bytes() != made.read_bytes():
            with store.replacing(target) as temporary:
                shutil.copyfile(made, temporary)


def _write_wide(path: Path, guids: pd.Series, tables: dict[str, pd.DataFrame]) -> None:
    """One row per guid and one column of half-precision logits per table; NaN where a table lacks the row."""
    columns = {"guid": pa.array(guids)}
    for name, table in tables.items():
        known = np.stack(table["logits"].to_numpy())
        logits = np.full((len(guids), known.shape[1]), np.nan, dtype=np.float16)
        logits[pd.Index(guids).get_indexer(table["guid"])] = known
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), known.shape[1])
    arrow = pa.table(columns).replace_schema_metadata({"reference_schema": SCHEMA})
    pq.write_table(arrow, path, compression="zstd", compression_level=19, use_dictionary=False)


# --- reading

def load(profile: str, task: str, seed: int, root: Path = ROOT) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Items (without texts) and predictions by model name of a committed run; those along a run, with a column step, as
    `<model>@checkpoints`. Raises StudyError where that run is not in the reference, or a table of it is not valid.
    """
    folder = root / "outputs" / "reference"
    kept = Kept(folder / profile / task / f"seed{seed}")
    if not (kept.folder / "items.parquet").exists():
        known = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/*/seed*/items.parquet"))
        raise StudyError(f"{kept.folder} is not in the reference; it has {', '.join(known) or 'no run'}")
    for name, table in kept.predictions.items():
        store.check_predictions(table, kept.items, source=f"{kept.folder.relative_to(root)}: {name}")
    along = dict.fromkeys(column.rpartition("@")[0] for column in kept.checkpoints)
    return kept.items, kept.predictions | {
        f"{name}@checkpoints": Model(kept, {"model": name}).checkpoints() for name in along}


# --- notebook 09 from the reference

def rebuild(profiles: list[str], root: Path = ROOT) -> None:
    """Run notebook 09 on the reference alone, all profiles side by side; it writes to `outputs/rebuilt/<profile>`.

    Raises StudyError with its last line for a notebook that fails.
    """
    jobs = {}
    for profile in profiles:
        params, place = root / "outputs" / "reference" / profile / "params.yaml", root / "outputs" / "rebuilt" / profile
        if not params.exists():
            raise StudyError(f"{params} is not there: collect it with `python -m lib.reference {profile}` first")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        jobs[profile] = subprocess.Popen(
            [sys.executable, "-m", "papermill", "--no-progress-bar", "notebooks/09_claims.ipynb",
             str(place / "09_claims.ipynb"), "-f", str(params), "-p", "source", "reference"],
            cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = {profile: job.communicate()[1] for profile, job in jobs.items()}
    for profile, job in jobs.items():
        if job.returncode:
            last = (said[profile].strip() or "it said nothing").splitlines()[-1]
            raise StudyError(f"notebook 09 failed on the reference of {profile}: {last}")


def keep(profile: str, root: Path = ROOT) -> None:
    """Commit to the reference what `rebuild` made of it: notebook 09, its tables and figures."""
    rebuilt, target = (root / "outputs" / name / profile for name in ("rebuilt", "reference"))
    _put(target / "09_claims.ipynb", lambda path: notebooks.tidy_copy(rebuilt / "09_claims.ipynb", path))
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
        before, after = (pd.read_csv(folder / name, dtype=str, keep_default_na=False) for folder in (committed, rebuilt))
        if list(before.columns) != list(after.columns):
            return f"{name}: the committed columns are {', '.join(before.columns)}, the rebuilt {', '.join(after.columns)}"
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


def main(arguments: list[str]) -> None:
    """`python -m lib.reference PROFILE ...` collects finished runs and rebuilds 09's tables from them; `--check` rebuilds
    those of the profiles given, or all, and compares."""
    parser = argparse.ArgumentParser(prog="python -m lib.reference", description=main.__doc__)
    parser.add_argument("profiles", nargs="*")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    folder = ROOT / "outputs" / "reference"
    profiles = given.profiles or sorted(path.parent.name for path in folder.glob("*/params.yaml"))
    if not given.profiles and not given.check:
        parser.error("name the profiles to collect, or give --check")
    try:
        if given.check:
            found = check(profiles)
            for profile, what in found.items():
                n = len(list((folder / profile / "09_claims").rglob("*.csv")))
                sys.stdout.write(f"{profile}: {what or f'{n} tables of 09 rebuilt, identical to the committed ones'}\n")
            sys.exit(any(found.values()))
        for profile in profiles:
            target = collect(profile)
            rebuild([profile])
            keep(profile)
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            sys.stdout.write(f"{target.relative_to(ROOT)}: {size / 1e6:.1f} MB\n")
    except StudyError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
