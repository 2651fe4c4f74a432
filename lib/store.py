"""Where finished work lives: keys, atomic files, the predictions table and the folders of models.

A model's folder is `outputs/<profile>/store/<key>/` and appears whole or not at all. It holds
`record.json`, `cost.json`, `log.csv`, `predictions.parquet`, where there are any `checkpoints.parquet`,
and `model/`, a plain `from_pretrained` folder.
"""

import ast
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lib.errors import StudyError

SCHEMA = "1"
COLUMNS = ["guid", "split", "label", "logits"]


def key(ingredients: dict) -> str:
    """Sixteen hex digits that name everything a model depends on."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


def array_hash(values: np.ndarray | None) -> str | None:
    """A hash of an array's bytes and shape, so that arrays can stand in a key."""
    if values is None:
        return None
    values = np.ascontiguousarray(values)
    return hashlib.sha256(str((values.dtype, values.shape)).encode() + values.tobytes()).hexdigest()[:16]


def source_hash(*modules: str) -> str:
    """A hash of the code of some modules of `lib`; comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for name in sorted(modules):
        tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) \
                    and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                body[0] = ast.Pass()
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


@contextmanager
def replacing(path: Path):
    """Yield a temporary path beside `path` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")


def write_items(path: Path, items: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        items.to_parquet(temporary, index=False, compression="zstd")


def read_items(path: Path) -> pd.DataFrame:
    """The rows of a task as notebook 01 wrote them. Raises StudyError where they are missing."""
    if not path.exists():
        raise StudyError(f"{path} is not there: run notebooks/01_data.ipynb with the same parameters first")
    return pd.read_parquet(path)


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
        raise StudyError(f"{source}: the table has no rows")

    def fault(bad: np.ndarray, what: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise StudyError(f"{source}: row {row + 1} (guid {table['guid'].iloc[row]!r}): {what}")

    fault(table["guid"].isna().to_numpy(), "guid is empty")
    fault(table["guid"].duplicated().to_numpy(), "guid stands there twice")
    if not pd.api.types.is_integer_dtype(table["label"]):
        raise StudyError(f"{source}: column label must hold whole numbers, not {table['label'].dtype}")
    widths = table["logits"].map(lambda x: np.size(x)).to_numpy()
    fault(widths != widths[0], f"logits have another number of classes than the first row's {widths[0]}")
    if widths[0] < 2:
        raise StudyError(f"{source}: logits need two classes or more, not {widths[0]}")
    logits = np.stack(table["logits"].to_numpy()).astype(np.float64)
    fault(~np.isfinite(logits).all(axis=1), "logits are not finite")
    if items is not None:
        known = items.set_index("guid")[["split", "label"]].reindex(table["guid"])
        fault(known["split"].isna().to_numpy(), "guid is not among the task's rows")
        fault(known["split"].to_numpy() != table["split"].to_numpy(), "split differs from the task's row")
        fault(known["label"].to_numpy() != table["label"].to_numpy(), "label differs from the task's row")


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write a predictions (or checkpoints) table."""
    logits = np.stack(table["logits"].to_numpy()).astype(np.float32)
    width = logits.shape[1]
    columns = {c: pa.array(table[c]) for c in table.columns if c != "logits"}
    columns["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), width)
    arrow = pa.table(columns).replace_schema_metadata({"predictions_schema": SCHEMA})
    with replacing(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a predictions (or checkpoints) table; logits come back as float32. Refuses another schema version."""
    if not path.exists():
        raise StudyError(f"{path} is not there: run the stage that makes it, or check the path")
    arrow = pq.read_table(path)
    version = (arrow.schema.metadata or {}).get(b"predictions_schema", b"none").decode()
    if version != SCHEMA:
        raise StudyError(f"{path}: predictions schema is {version!r}, this study reads {SCHEMA!r}")
    table = arrow.to_pandas()
    return table.assign(logits=[np.asarray(x, dtype=np.float32) for x in table["logits"]])


@dataclass(frozen=True)
class Model:
    """One finished model in the store."""

    folder: Path

    @property
    def record(self) -> dict:
        return json.loads((self.folder / "record.json").read_text())

    @property
    def name(self) -> str:
        return self.record["model"]

    @property
    def cost(self) -> dict:
        return json.loads((self.folder / "cost.json").read_text())

    @property
    def path(self) -> Path:
        """The `from_pretrained` folder."""
        return self.folder / "model"

    def predictions(self) -> pd.DataFrame:
        return read_predictions(self.folder / "predictions.parquet")

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
    """The finished model of that key, or None."""
    folder = store / model_key
    return Model(folder) if (folder / "record.json").exists() else None


def add(store: Path, model_key: str, fill: Callable[[Path], None]) -> Model:
    """Let `fill` write a model's files into a temporary folder, then put it in place in one step."""
    store.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{model_key}-", dir=store))
    try:
        fill(temporary)
        temporary.chmod(0o755)
        if find(store, model_key) is None:
            shutil.rmtree(store / model_key, ignore_errors=True)  # what is there without a record is a torn copy
            os.replace(temporary, store / model_key)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Model(store / model_key)


def write_stage(folder: Path, models: list[Model]) -> None:
    """List a stage's models in `models.json`, the file the next stages read."""
    write_json(folder / "models.json", [m.record for m in models])


def read_stage(folder: Path) -> dict[str, Model]:
    """The models a stage made, by name. Raises StudyError where the stage has not run."""
    path = folder / "models.json"
    if not path.exists():
        raise StudyError(f"{path} is not there: run notebooks/{folder.name}.ipynb with the same parameters first")
    store = folder.parents[2] / "store"
    models = {}
    for record in json.loads(path.read_text()):
        model = find(store, record["key"])
        if model is None:
            raise StudyError(f"{path} names model {record['model']!r} ({record['key']}), which is not in {store}: "
                             f"run notebooks/{folder.name}.ipynb again")
        models[record["model"]] = model
    return models
