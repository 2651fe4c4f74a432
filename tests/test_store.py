import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lib import files, store
from lib.errors import StudyError


@pytest.fixture
def items():
    return pd.DataFrame({"guid": [f"r{i}" for i in range(6)], "split": ["train"] * 2 + ["dev"] * 2 + ["ood"] * 2,
                         "text_a": "a secret premise", "text_b": "b", "label": [0, 1, 0, 1, 0, 1]})


@pytest.fixture
def table(items):
    return store.predictions_table(items, np.arange(12.0).reshape(6, 2))


def test_key_depends_on_every_ingredient_and_not_on_their_order():
    assert store.key({"a": 1, "b": [2]}) == store.key({"b": [2], "a": 1})
    assert store.key({"a": 1, "b": [2]}) != store.key({"a": 1, "b": [3]})


def test_array_hash_sees_values_shape_and_type():
    a = np.arange(4.0)
    hashes = {store.array_hash(x) for x in (a, a + 1, a.reshape(2, 2), a.astype(np.float32))}
    assert len(hashes) == 4 and store.array_hash(None) is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "t.json"
    store.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        store.write_json(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checksums.json", "t.json"]


def test_predictions_survive_the_disk(tmp_path, table):
    store.write_predictions(tmp_path / "full.parquet", table)
    back = store.read_predictions(tmp_path / "full.parquet")
    assert np.array_equal(np.stack(back["logits"]), np.stack(table["logits"])) and list(back.columns) == store.COLUMNS
    store.check_predictions(back)


def test_another_schema_version_is_refused(tmp_path, table):
    path = tmp_path / "p.parquet"
    store.write_predictions(path, table)
    with files.recorded(path) as other:
        pq.write_table(pq.read_table(path).replace_schema_metadata({"predictions_schema": "0"}), other)
    with pytest.raises(StudyError, match="schema is '0'"):
        store.read_predictions(path)


FAULTS = {
    "columns must be": lambda t: t.rename(columns={"guid": "id"}),
    "not known": lambda t: t.assign(extra=1),
    "no rows": lambda t: t.iloc[:0],
    r"row 3 .*stands there twice": lambda t: t.assign(guid=["r0", "r1", "r0", "r3", "r4", "r5"]),
    "whole numbers": lambda t: t.assign(label=t["label"] + 0.5),
    r"row 2 .*as many classes as the first row's 2": lambda t: t.assign(logits=[[1, 2], [1, 2, 3], *([[1, 2]] * 4)]),
    r"row 4 .*must be finite": lambda t: t.assign(logits=[[1, 2]] * 3 + [[np.nan, 1]] + [[1, 2]] * 2),
    r"row 1 .*not among": lambda t: t.assign(guid=["zz", "r1", "r2", "r3", "r4", "r5"]),
    r"row 5 .*split differs": lambda t: t.assign(split=["train"] * 2 + ["dev"] * 3 + ["ood"]),
    r"row 6 .*label differs": lambda t: t.assign(label=[0, 1, 0, 1, 0, 0]),
}


@pytest.mark.parametrize("message", FAULTS)
def test_the_validator_names_the_row_at_fault(message, items, table):
    store.check_predictions(table, items)
    with pytest.raises(StudyError, match=message):
        store.check_predictions(FAULTS[message](table), items)


def fill(folder, table, name="dense", key="k1"):
    store.write_predictions(folder / "predictions.parquet", table)
    store.write_json(folder / "record.json", {"model": name, "key": key})


def test_a_model_appears_whole_or_not_at_all(tmp_path, table):
    def breaks(folder):
        store.write_predictions(folder / "predictions.parquet", table)
        raise RuntimeError("killed")
    with pytest.raises(RuntimeError):
        store.add(tmp_path, "k1", breaks)
    assert store.find(tmp_path, "k1") is None and not list(tmp_path.iterdir())
    store.add(tmp_path, "k1", lambda folder: fill(folder, table))
    assert store.find(tmp_path, "k1").name == "dense"


def test_logits_come_in_the_order_of_the_items(tmp_path, items, table):
    shuffled = table.sample(frac=1, random_state=0)
    model = store.add(tmp_path, "k1", lambda folder: fill(folder, shuffled))
    assert np.array_equal(model.logits(items, "dev"), [[4, 5], [6, 7]])
    with pytest.raises(StudyError, match="'r2'"):
        store.ordered_logits(table[table["guid"] != "r2"], items, "dev")


def test_stages_are_read_back_by_name_and_say_what_to_run(tmp_path, table):
    folder = tmp_path / "smoke" / "micro_nli" / "seed0" / "02_teacher"
    model = store.add(tmp_path / "smoke" / "store", "k1", lambda f: fill(f, table))
    with pytest.raises(StudyError, match="run notebooks/02_teacher.ipynb"):
        store.read_stage(folder)
    store.write_stage(folder, [model])
    assert store.read_stage(folder)["dense"].predictions().equals(model.predictions())
    (model.folder / "record.json").unlink()
    with pytest.raises(StudyError, match="which is not in"):
        store.read_stage(folder)
