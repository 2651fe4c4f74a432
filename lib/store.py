"""Where finished work lives: keys, atomic files with checksums, the predictions table and the folders of models.

Every file that a stage writes appears whole or not at all, and its folder's `checksums.json` says what it holds; a file
that is read is held to that first. A model's folder is `outputs/<profile>/store/<key>/`: `record.json`, `cost.json`,
`log.csv`, `predictions.parquet`, where there are any `checkpoints.parquet`, of a teacher `predictions_fp32.parquet`
and `norms.parquet`, and `model/`, a plain `from_pretrained` folder. What was damaged is mended by
`lib.tools.integrity`.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lib import files
from lib.errors import StudyError

SCHEMA = "1"
COLUMNS = ["guid", "split", "label", "logits"]
WEIGHTS = "model/model.safetensors"
FP32 = "predictions_fp32.parquet"
NORMS = "norms.parquet"


def key(ingredients: dict) -> str:
    """Sixteen hex digits that name everything a model depends on."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


def array_hash(values: np.ndarray | None) -> str | None:
    """A hash of an array's bytes and shape, so that arrays can stand in a key."""
    if values is None:
        return None
    values = np.ascontiguousarray(values)
    return hashlib.sha256(str((values.dtype, values.shape)).encode() + values.tobytes()).hexdigest()[:16]


def write_json(path: Path, value) -> None:
    with files.recorded(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    with files.recorded(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def write_items(path: Path, items: pd.DataFrame) -> None:
    with files.recorded(path) as temporary:
        items.to_parquet(temporary, index=False, compression="zstd")


def read_items(path: Path) -> pd.DataFrame:
    """A table of rows as `write_items` wrote it: a task's, or what a stage knows of them. StudyError as `read_csv`."""
    return pd.read_parquet(_written(path))


def read_csv(path: Path) -> pd.DataFrame:
    """A table as `write_csv` wrote it. Raises StudyError where it is missing or damaged."""
    return pd.read_csv(_written(path))


def _written(path: Path) -> Path:
    if not path.exists():
        raise StudyError(f"{path} is not there: run notebooks/{path.parent.name}.ipynb with the same parameters first")
    return files.checked(path)


def predictions_table(items: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """The interchange table of one model: `logits` [rows, classes] in the order of `items`."""
    table = items[["guid", "split", "label"]].reset_index(drop=True)
    return table.assign(logits=list(np.asarray(logits, dtype=np.float32)))


def check_predictions(table: pd.DataFrame, items: pd.DataFrame | None = None, source: str = "predictions") -> None:
    """Raise StudyError naming the first row at fault unless `table` is a valid predictions table.

    Columns are exactly guid (unique), split, label (int), logits (finite, one width within an OOD or ID set);
    given `items`, every guid must stand there with the same split and label.
    """
    extra = [c for c in table.columns if c not in COLUMNS]
    missing = [c for c in COLUMNS if c not in table.columns]
    if extra or missing:
        raise StudyError(f"{source}: columns must be {COLUMNS}; missing {missing}, not known {extra}")
    if table.empty:
        raise StudyError(f"{source}: the table has no rows; give one for each row that was predicted")

    def fault(bad: np.ndarray, what: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise StudyError(f"{source}: row {row + 1} (guid {table['guid'].iloc[row]!r}): {what}")

    for column in ("guid", "split"):
        is_text = table[column].map(lambda value: isinstance(value, str) and value != "")
        fault(~is_text.to_numpy(bool), f"{column} must be text, not empty")
    fault(table["guid"].duplicated().to_numpy(), "guid stands there twice; give each row one of its own")
    if not pd.api.types.is_integer_dtype(table["label"]):
        raise StudyError(f"{source}: column label must hold whole numbers, not {table['label'].dtype}")
    fault((table["label"].isna() | (table["label"] < 0)).to_numpy(bool), "label must be a class id of 0 or more")
    fault(~table["logits"].map(_is_vector).to_numpy(bool), "logits must be a list of numbers")
    widths = table["logits"].map(len).to_numpy()
    fault(widths != widths[0], f"logits must have as many classes as the first row's {widths[0]}")
    if widths[0] < 2:
        raise StudyError(f"{source}: logits must have two classes or more, not {widths[0]}")
    logits = np.stack(table["logits"].to_numpy()).astype(np.float64)
    fault(~np.isfinite(logits).all(axis=1), "logits must be finite numbers")
    if items is not None:
        known = items.set_index("guid")[["split", "label"]].reindex(table["guid"])
        again = "predict the rows of data.parquet again"
        fault(known["split"].isna().to_numpy(), f"guid is not among the task's rows; {again}")
        fault(known["split"].to_numpy() != table["split"].to_numpy(), f"split differs from the task's row; {again}")
        fault(known["label"].to_numpy() != table["label"].to_numpy(), f"label differs from the task's row; {again}")


def _is_vector(values) -> bool:
    try:
        array = np.asarray(values)
    except ValueError:  # lists of several lengths inside
        return False
    return array.ndim == 1 and array.dtype.kind in "fiu"


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write a predictions (or checkpoints) table."""
    logits = np.stack(table["logits"].to_numpy()).astype(np.float32)
    width = logits.shape[1]
    columns = {c: pa.array(table[c]) for c in table.columns if c != "logits"}
    columns["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), width)
    arrow = pa.table(columns).replace_schema_metadata({"predictions_schema": SCHEMA})
    with files.recorded(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd")


def read_predictions(path: Path) -> pd.DataFrame:
    """A predictions (or checkpoints) table, logits as float32. StudyError: missing, damaged or of another schema."""
    if not path.exists():
        raise StudyError(f"{path} is not there: run the stage that makes it, or check the path")
    arrow = pq.read_table(files.checked(path))
    version = (arrow.schema.metadata or {}).get(b"predictions_schema", b"none").decode()
    if version != SCHEMA:
        raise StudyError(f"{path}: predictions schema is {version!r}, this study reads {SCHEMA!r}; delete the file and "
                         "run its notebook again")
    table = arrow.to_pandas()
    return table.assign(logits=[np.asarray(x, dtype=np.float32) for x in table["logits"]])


@dataclass(frozen=True)
class Model:
    """One finished model in the store."""

    folder: Path

    @property
    def record(self) -> dict:
        return json.loads(files.checked(self.folder / "record.json").read_text())

    @property
    def name(self) -> str:
        return self.record["model"]

    @property
    def cost(self) -> dict:
        return json.loads(files.checked(self.folder / "cost.json").read_text())

    @property
    def has_weights(self) -> bool:
        """Whether its weights are still there: `let_go` takes them away where a profile does not keep them."""
        return (self.folder / WEIGHTS).exists()

    @property
    def path(self) -> Path:
        """The `from_pretrained` folder, its files checked. StudyError: its weights were let go."""
        if not self.has_weights:
            raise StudyError(f"{self.folder}: the weights of {self.name!r} were let go once nothing of its run needed "
                             "them; run again with SET='common.keep_weights=true' and it is trained anew")
        for name in files.checksums(self.folder):
            if name.startswith("model/"):
                files.checked(self.folder / name, self.folder)
        return self.folder / "model"

    def predictions(self) -> pd.DataFrame:
        return read_predictions(self.folder / "predictions.parquet")

    def in_fp32(self) -> pd.DataFrame | None:
        """The predictions of all rows but train's in fp32; None where a model was predicted in bf16 alone."""
        path = self.folder / FP32
        if path.exists():
            return read_predictions(path)
        return evaluated(self) if self.record.get("dtype") == "fp32" else None

    def norms(self) -> pd.Series:
        """What its last layer is fed, |h|, of all rows but train's by guid."""
        return read_items(self.folder / NORMS).set_index("guid")["norm"]

    def checkpoints(self) -> pd.DataFrame:
        """Predictions along the run, with a column `step`."""
        return read_predictions(self.folder / "checkpoints.parquet")

    def logits(self, items: pd.DataFrame, split: str) -> np.ndarray:
        """Logits [rows, classes] of one split in the order of `items`."""
        return ordered_logits(self.predictions(), items, split)


def ordered_logits(table: pd.DataFrame, items: pd.DataFrame, split: str) -> np.ndarray:
    """Logits [rows, classes] of `split` in the order of `items`. Raises StudyError where a row has none."""
    guids = items.loc[items["split"] == split, "guid"]
    logits = table.set_index("guid")["logits"].reindex(guids)
    if logits.isna().any():
        raise StudyError(f"no prediction for guid {guids[logits.isna().to_numpy()].iloc[0]!r} of split {split!r}")
    return np.stack(logits.to_numpy())


def find(store: Path, model_key: str) -> Model | None:
    """The finished model of that key, or None; one that is damaged or belongs elsewhere is told in a warning."""
    folder = store / model_key
    if not folder.exists():
        return None
    if wrong := model_fault(folder):
        warnings.warn(f"{folder}: {wrong}; the model is made anew", stacklevel=2)
        return None
    return Model(folder)


def model_fault(folder: Path) -> str:
    """The first thing wrong with a model's folder, in a file or by a record of another key; "" where it is sound."""
    for name in dict.fromkeys(("record.json", *files.checksums(folder))):
        if wrong := files.fault(folder, name):
            return f"{name} {wrong}"
    return files.misplaced(folder)


def add(store: Path, model_key: str, fill: Callable[[Path], None]) -> Model:
    """Let `fill` write a model's files into a temporary folder, then put it in place in one step.

    Where another process was first its model stays, unless its weights were let go. StudyError: a full disk.
    """
    store.mkdir(parents=True, exist_ok=True)
    target = store / model_key
    with files.room(target):
        temporary = Path(tempfile.mkdtemp(prefix=f".{model_key}-", dir=store))
        try:
            fill(temporary)
            files.seal(temporary)
            temporary.chmod(0o755)
            old = find(store, model_key)
            if old is None or not old.has_weights:
                shutil.rmtree(target, ignore_errors=True)
                try:
                    os.rename(temporary, target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Model(target)


def let_go(models: Iterable[Model]) -> None:
    """Delete the weights of finished models; their predictions, records and tokenizers stay."""
    for model in models:
        files.take_away(model.folder, WEIGHTS)


def write_stage(folder: Path, models: list[Model]) -> None:
    """List a stage's models in `models.json`, the file the next stages read."""
    write_json(folder / "models.json", [m.record for m in models])


def read_stage(folder: Path) -> dict[str, Model]:
    """The models a stage made, by name. Raises StudyError where the stage has not run."""
    path, store, models = folder / "models.json", folder.parents[2] / "store", {}
    for record in json.loads(_written(path).read_text()):
        model = Model(store / record["key"])
        if not (model.folder / "record.json").exists() or model.record["key"] != record["key"]:
            raise StudyError(f"{path} names model {record['model']!r} ({record['key']}), which is not in {store}: "
                             f"run notebooks/{folder.name}.ipynb again")
        models[record["model"]] = model
    return models


def evaluated(model) -> pd.DataFrame:
    """The predictions of all rows but train's, which differ from seed to seed; model: anything with `predictions()`."""
    table = model.predictions()
    return table[table["split"] != "train"].reset_index(drop=True)
