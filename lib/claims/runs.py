"""What one task and seed of a profile left, read alike from `outputs` and from the committed reference.

Both offer items (the evaluation rows without texts, with `easy`: the shortcut-only model is right), train (what is
known of each train row), models by name, and the files of the stages. `lib.tools.reference` says what the reference's
files hold.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lib import files, store
from lib.analysis import difficulty, floors, shortcuts
from lib.errors import StudyError
from lib.files import ROOT
from lib.params.stages import MODEL_STAGES
from lib.tasks import registry

TEXT = ["text_a", "text_b"]
OF_TRAIN = ["guid", "split", "label", "subcase", "heuristic", "is_shortcut"]
FOLDS = 5
AGAIN = "check it out of git again, or collect it again with python -m lib.tools.reference"
SCHEMA = "3"  # of the reference's predictions.parquet
IN_FP32 = " (fp32)"  # after the model's name: its predictions in fp32


@dataclass(frozen=True)
class OutputRun:
    """One task and seed of `outputs/<profile>`, as the notebooks left it; tables are computed once, when asked for."""

    folder: Path
    task: str
    seed: int

    def models(self, stages: Iterable[str] = MODEL_STAGES) -> dict[str, store.Model]:
        """The models of some stages by name, one of two stages once. StudyError: a stage has not run."""
        return {name: model for stage in stages for name, model in store.read_stage(self.folder / stage).items()}

    def find(self, stage: str, name: str) -> Path | None:
        """A file that a stage wrote; None where there is none. Raises StudyError where it is damaged."""
        path = self.folder / stage / name
        return files.checked(path) if path.exists() else None

    def file(self, stage: str, name: str) -> Path:
        """A file that a stage wrote. Raises StudyError where it is not there, or damaged."""
        path = self.find(stage, name)
        if path is None:
            raise StudyError(f"{self.folder / stage / name} is not there: run notebooks/{stage}.ipynb with the same "
                             "parameters first")
        return path

    @cached_property
    def _all(self) -> pd.DataFrame:
        return store.read_items(self.folder / "01_data" / "data.parquet")

    @cached_property
    def items(self) -> pd.DataFrame:
        """The evaluation rows without their texts, and `easy`."""
        easy = shortcuts.easy_rows(floors.shortcut_only(self._all, registry.get(self.task), FOLDS, self.seed))
        items = self._all[self._all["split"] != "train"].drop(columns=TEXT)
        return items.assign(easy=items["guid"].map(easy).astype(bool)).reset_index(drop=True)

    @cached_property
    def train(self) -> pd.DataFrame:
        """The train rows as in train.parquet, of the stages that have run."""
        return self.train_rows(predictions_of(self.models(self.finished)))

    def train_rows(self, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
        """`train`, with the losses of these predictions (`predictions_of`)."""
        train = self._all.loc[self._all["split"] == "train", OF_TRAIN].reset_index(drop=True)
        path = self.find("06_shortcut_samples", "difficulty.parquet")
        if path is not None:
            scores = pd.read_parquet(path)
            numbers = scores.select_dtypes("float").columns
            train = train.merge(scores.astype(dict.fromkeys(numbers, "float32")), on="guid", how="left")
        return train.assign(**{f"loss:{name}": _losses(table, train) for name, table in tables.items()
                               if (table["split"] == "train").any()})

    @property
    def finished(self) -> list[str]:
        """The stages that made models and are done."""
        return [stage for stage in MODEL_STAGES if (self.folder / stage / "models.json").exists()]


@dataclass(frozen=True)
class ReferenceRun:
    """One task and seed of the reference. It offers what `OutputRun` does; what was not kept is left out."""

    folder: Path

    def models(self, stages: Iterable[str] = MODEL_STAGES) -> dict[str, "ReferenceModel"]:
        """The models of some stages by name, of those stages that the reference has."""
        paths = [self.folder / stage / "models.json" for stage in stages]
        records = [record for path in paths if path.exists() for record in _read(path, _records)]
        return {record["model"]: ReferenceModel(self, record) for record in records}

    def find(self, stage: str, name: str) -> Path | None:
        """A file that a stage wrote; None where the reference has none."""
        path = self.folder / stage / name
        return path if path.exists() else None

    file = find

    @cached_property
    def items(self) -> pd.DataFrame:
        items = _read(self.folder / "items.parquet", pd.read_parquet)
        if missing := [column for column in ("guid", "split", "label", "easy") if column not in items]:
            raise StudyError(f"{self.folder / 'items.parquet'}: column {missing[0]!r} is missing: {AGAIN}")
        return items

    @cached_property
    def train(self) -> pd.DataFrame:
        return _read(self.folder / "train.parquet", pd.read_parquet)

    @cached_property
    def costs(self) -> dict[str, dict]:
        return _read(self.folder / "costs.json", _json)

    @property
    def predictions(self) -> dict[str, pd.DataFrame]:
        """Each model's predictions table, rows in the order of `items`."""
        return {name: table for name, table in self._wide.items() if "@" not in name and not name.endswith(IN_FP32)}

    @property
    def checkpoints(self) -> dict[str, pd.DataFrame]:
        """model@step -> its predictions table; none where no run was predicted along its way."""
        return {name: table for name, table in self._wide.items() if "@" in name}

    @property
    def fp32(self) -> dict[str, pd.DataFrame]:
        """Model -> its predictions table in fp32; of the dense model, where the run is in bf16."""
        return {name.removesuffix(IN_FP32): table for name, table in self._wide.items() if name.endswith(IN_FP32)}

    @cached_property
    def _wide(self) -> dict[str, pd.DataFrame]:
        path = self.folder / "predictions.parquet"
        arrow = _read(path, pq.read_table)
        version = (arrow.schema.metadata or {}).get(b"reference_schema", b"none").decode()
        if version != SCHEMA:
            raise StudyError(f"{path}: the reference's schema is {version!r}, this study reads {SCHEMA!r}: collect it "
                             "again")
        for column in ("guid", *arrow.column_names):
            if column not in arrow.column_names or not (
                    column == "guid" or pa.types.is_fixed_size_list(arrow[column].type)):
                raise StudyError(f"{path}: column {column!r} is missing or holds no logits: {AGAIN}")
        guids = arrow["guid"].to_pandas()
        at = pd.Index(self.items["guid"]).get_indexer(guids)
        if (at < 0).any():
            raise StudyError(f"{path}: guid {guids[at < 0].iloc[0]!r} is not among the rows of items.parquet: collect "
                             "it again")
        rows = self.items.iloc[at][["guid", "split", "label"]].reset_index(drop=True)
        tables = {}
        for column in arrow.drop_columns("guid").column_names:
            values = arrow[column].combine_chunks()
            beside_first = values.flatten().to_numpy().reshape(len(values), -1).astype(np.float32)
            logits = np.pad(beside_first, ((0, 0), (1, 0)))
            there = ~np.isnan(beside_first).all(axis=1)
            tables[column] = (rows if there.all() else rows[there]).assign(logits=list(logits[there]))
        return tables


@dataclass(frozen=True)
class ReferenceModel:
    """One model of the reference; it answers as `store.Model` does, of the evaluation rows."""

    run: ReferenceRun
    record: dict

    @property
    def name(self) -> str:
        return self.record["model"]

    @property
    def cost(self) -> dict:
        if self.name not in self.run.costs:
            raise StudyError(f"{self.run.folder / 'costs.json'} has no model {self.name!r}: {AGAIN}")
        return self.run.costs[self.name]

    def predictions(self) -> pd.DataFrame:
        """Raises StudyError where the reference has the record alone."""
        if self.name not in self.run.predictions:
            raise StudyError(f"{self.run.folder / 'predictions.parquet'} has no model {self.name!r}: collect it again")
        return self.run.predictions[self.name]

    def in_fp32(self) -> pd.DataFrame | None:
        """Its predictions in fp32; None where the reference has those in bf16 alone."""
        if self.name in self.run.fp32:
            return self.run.fp32[self.name]
        return self.predictions() if self.record.get("dtype") == "fp32" else None

    def checkpoints(self) -> pd.DataFrame:
        """Predictions along the run, with a column `step`."""
        along = [table.assign(step=int(column.rpartition("@")[2])) for column, table in self.run.checkpoints.items()
                 if column.rpartition("@")[0] == self.name]
        if not along:
            raise StudyError(f"{self.run.folder / 'predictions.parquet'} has nothing along the run of {self.name!r}")
        return pd.concat(along, ignore_index=True)

    def logits(self, items: pd.DataFrame, split: str) -> np.ndarray:
        """Logits [rows, classes] of one split in the order of `items`."""
        return store.ordered_logits(self.predictions(), items, split)


def load(profile: str, task: str, seed: int, root: Path = ROOT) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Items (without texts) and predictions by model name of a committed run; those along a run, with a column step, as
    `<model>@checkpoints`. Raises StudyError where that run is not in the reference, or a table of it is not valid.
    """
    folder = root / "outputs" / "reference"
    kept = ReferenceRun(folder / profile / task / f"seed{seed}")
    if not (kept.folder / "items.parquet").exists():
        known = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/*/seed*/items.parquet"))
        raise StudyError(f"{kept.folder} is not in the reference; it has {', '.join(known) or 'no run'}")
    for name, table in kept.predictions.items():
        store.check_predictions(table, kept.items, source=f"{kept.folder.relative_to(root)}: {name}")
    along = dict.fromkeys(column.rpartition("@")[0] for column in kept.checkpoints)
    return kept.items, kept.predictions | {
        f"{name}@checkpoints": ReferenceModel(kept, {"model": name}).checkpoints() for name in along}


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """What `reader` makes of a file of the reference. Raises StudyError where it cannot."""
    try:
        return reader(path)
    except (OSError, ValueError) as error:  # pyarrow's and json's errors are among these
        said = "it is not there" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise StudyError(f"{path} cannot be read ({said}): {AGAIN}") from None


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _records(path: Path) -> list[dict]:
    records = _json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) and "model" in record for record in records):
        raise ValueError("it is no list of models' records")
    return records


def predictions_of(models: dict[str, store.Model]) -> dict[str, pd.DataFrame]:
    """model -> predictions, and model@step -> those along its run."""
    tables = {}
    for name, model in models.items():
        tables[name] = model.predictions()
        if (model.folder / "checkpoints.parquet").exists():
            along = model.checkpoints().groupby("step")
            tables |= {f"{name}@{step}": table.drop(columns="step") for step, table in along}
    return tables


def _losses(table: pd.DataFrame, train: pd.DataFrame) -> np.ndarray:
    losses = difficulty.losses_from_logits(store.ordered_logits(table, train, "train"), train["label"].to_numpy())
    return losses.astype(np.float16)
