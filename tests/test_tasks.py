"""Tasks: what is loaded, by which draw, from where, and how a mistake in a file is told."""

import dataclasses
import functools
import gzip
import http.server
import os
import tempfile
import threading
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import yaml

from lib.errors import StudyError
from lib.tasks import dataset, download, microworld, registry, sources
from lib.tasks.sources import Hub, Table
from lib.tasks.task import Ood

real = pytest.mark.skipif(not os.environ.get("STUDY_DATA"), reason="STUDY_DATA is not set (a folder with the real data sets)")
PAIR = {"text_a": "premise", "text_b": "hypothesis", "label": "gold"}


def rows(n: int, prefix: str = "t") -> pd.DataFrame:
    """n rows, three of four labelled yes, two rows to a topic."""
    return pd.DataFrame({
        "premise": [f'A "{prefix}" premise {i}' for i in range(n)],
        "hypothesis": ["NA" if i == 0 else f"00{i}" for i in range(n)],
        "gold": ["no" if i % 4 == 0 else "yes" for i in range(n)],
        "topic": [f"{prefix}{i // 2}" for i in range(n)],
    })


def write(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".tsv":
        path.write_text("\n".join("\t".join(line) for line in [list(frame), *frame.astype(str).values.tolist()]) + "\n")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)


SPEC = {
    "name": "mine", "labels": ["yes", "no"], "columns": {**PAIR, "group": "topic"},
    "files": {"train": "train.csv", "test": "test.csv"}, "ood": {"hard": {"file": "hard.csv"}},
    "shortcut": "overlap", "licence": "CC0",
}


@pytest.fixture
def own(tmp_path):
    """A reader's task on disk: 100 train, 10 test and 8 OOD rows. Call with changes of the YAML, get its path."""
    for name, n in (("train", 100), ("test", 10), ("hard", 8)):
        write(rows(n, name), tmp_path / f"{name}.csv")

    def make(**changes) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**SPEC, **changes}, sort_keys=False))
        return path

    return make


def load(path: Path | str, seed: int = 0, n_train: int = 0, n_eval: int = 0, n_ood: int = 0) -> pd.DataFrame:
    return dataset.load(registry.get(path), seed=seed, n_train=n_train, n_eval=n_eval, n_ood=n_ood)


def guids(items: pd.DataFrame, split: str) -> list[str]:
    return items.loc[items["split"] == split, "guid"].tolist()


# --- the real sets: counts of data/README.md ---------------------------------------------------

COUNTS = {
    "mnli": {"train": 30880, "dev": 2000, "test": 9815, "hans": 30000, "cad_nli": 2400, "cad_nli_original": 600, "monli": 2678,
             "anli_r1": 1000, "anli_r2": 1000, "anli_r3": 1198},
    "fever": {"train": 107134, "dev": 2000, "test": 13332, "sym1": 717, "sym2": 712},
    "qqp": {"train": 24324, "dev": 2000, "test": 29586, "paws_qqp": 677, "paws_wiki": 5348},
}


@functools.cache
def whole(name: str) -> pd.DataFrame:
    return load(name)


@real
@pytest.mark.parametrize("name", COUNTS)
def test_real_counts(name):
    items = whole(name)
    assert items["split"].value_counts().to_dict() == COUNTS[name]
    assert list(items) == dataset.COLUMNS
    assert items["is_shortcut"].isna().all()
    assert items["guid"].str.startswith(f"{name}-").all()
    assert pd.DataFrame(items.attrs["sources"]).groupby("split", sort=False)["rows"].sum().tolist() == [
        sum(n for split, n in COUNTS[name].items() if split in (table, "dev" if table == "train" else "")) + (name == "fever" and table == "train")
        for table in registry.get(name).tables
    ]
    assert not any(Path(record["file"]).is_absolute() for record in items.attrs["sources"])


@real
def test_real_labels_are_those_of_the_authors():
    def table(name, *splits):
        items = whole(name)
        return items[items["split"].isin(splits)].groupby("label").size().tolist()

    assert table("mnli", "train", "dev") == [10792, 11223, 10865]
    assert table("mnli", "hans") == [15000, 15000]
    assert table("mnli", "cad_nli") == [760, 804, 836] and table("mnli", "cad_nli_original") == [220, 198, 182]
    assert table("mnli", "monli") == [1339, 1339] and table("mnli", "anli_r3") == [402, 400, 396]
    assert table("mnli", "anli_r1") == table("mnli", "anli_r2") == [334, 333, 333]
    assert table("fever", "test") == [6666, 6666]
    assert table("qqp", "train", "dev") == [13993, 12331]
    assert table("qqp", "paws_qqp") == [486, 191]
    assert table("qqp", "paws_wiki") == [3123, 2225]


@real
def test_fever_train_and_dev_share_no_claim_with_the_symmetric_sets_nor_with_each_other():
    items = whole("fever")
    groups = {split: set(part["group"]) for split, part in items.groupby("split")}
    assert sum(items.attrs["dropped"].values()) == 1
    assert not (groups["train"] | groups["dev"]) & (groups["sym1"] | groups["sym2"])
    assert not groups["train"] & groups["dev"]
    assert len(groups["sym1"] & groups["sym2"]) == 242
    claim = items["text_b"].iloc[0]
    assert not items["group"].str.contains(claim, regex=False).any()


@real
def test_the_panel_is_whole_in_groups_that_tell_nothing_of_its_texts():
    items = load("mnli", n_train=90, n_eval=50, n_ood=20)
    panel = items[items["split"].isin(registry.get("mnli").panel)]
    assert panel.groupby("split", sort=False).size().tolist() == [2400, 600, 2678, 1000, 1000, 1198]
    monli = panel[panel["split"] == "monli"]
    assert monli.groupby("subcase", sort=False).size().to_dict() == {"pmonli": 1476, "nmonli": 1202} and monli["group"].nunique() == 128
    assert panel[panel["split"] == "cad_nli"].groupby("group").size().eq(4).all()
    assert panel["group"].str.fullmatch(r"(dev|test|pmonli|nmonli_train|nmonli_test)-\d+|context-[0-9a-f]{12}").all()


@real
def test_hans_is_cut_by_one_fixed_list_per_subcase():
    items = load("mnli", seed=1, n_train=90, n_eval=50, n_ood=20)
    hans = items[items["split"] == "hans"]
    assert (hans.groupby(["subcase", "label"]).size() == 20).all() and hans["subcase"].nunique() == 30
    assert set(hans["heuristic"]) == {"lexical_overlap", "subsequence", "constituent"}
    assert hans["group"].str.startswith("temp").all()
    assert hans["guid"].tolist()[:3] == ["mnli-hans-20", "mnli-hans-44", "mnli-hans-80"]
    assert items["split"].value_counts()[["train", "dev", "test"]].tolist() == [90, 50, 50]


# --- draws --------------------------------------------------------------------------------------

def test_dev_is_a_fixed_tenth_of_train_by_whole_groups(own):
    items = load(own(), seed=0)
    assert guids(items, "dev") == guids(load(own(), seed=7), "dev") and len(guids(items, "dev")) == 10
    assert not set(items.loc[items["split"] == "dev", "group"]) & set(items.loc[items["split"] == "train", "group"])
    assert sorted(guids(items, "train") + guids(items, "dev")) == sorted(f"mine-train-{i}" for i in range(100))


def test_seed_draws_train_in_its_label_mix_and_nothing_else(own):
    a, again, b = (load(own(), seed=seed, n_train=40, n_eval=5) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(a, again)
    assert guids(a, "train") != guids(b, "train") and len(guids(b, "train")) == 40
    for split in ("dev", "test", "hard"):
        assert guids(a, split) == guids(b, split)
    whole_train = load(own()).query("split == 'train'")["label"].eq(1).mean()
    assert abs(a.query("split == 'train'")["label"].eq(1).sum() - 40 * whole_train) < 1


def test_smaller_fixed_draws_lie_inside_larger_ones(own):
    assert set(guids(load(own(), n_eval=3), "test")) < set(guids(load(own(), n_eval=6), "test"))
    assert len(guids(load(own(), n_eval=500), "test")) == 10


def test_n_ood_counts_per_subcase_and_label(own, tmp_path):
    write(rows(40).assign(case=["x", "y"] * 20), tmp_path / "hard.csv")
    path = own(ood={"hard": {"file": "hard.csv", "columns": {**PAIR, "subcase": "case"}}})
    hard = load(path, n_ood=4).query("split == 'hard'")
    assert hard.groupby(["subcase", "label"]).size().to_dict() == {("x", 0): 4, ("x", 1): 4, ("y", 0): 4}


def test_fingerprint_is_of_the_content(own, tmp_path):
    items = load(own())
    items.to_parquet(tmp_path / "data.parquet")
    assert dataset.fingerprint(items) == dataset.fingerprint(pd.read_parquet(tmp_path / "data.parquet")) == dataset.fingerprint(load(own()))
    changed = items.copy()
    changed.loc[3, "text_b"] += "."
    assert dataset.fingerprint(changed) != dataset.fingerprint(items) != dataset.fingerprint(items.iloc[::-1])


# --- declarations -------------------------------------------------------------------------------

def test_chance_and_collapse():
    mnli, qqp = registry.get("mnli"), registry.get("qqp")
    assert mnli.chance("test") == pytest.approx(1 / 3) and mnli.chance("hans") == qqp.chance("dev") == 0.5
    assert [mnli.classes("hans")[mnli.ood["hans"].collapse[i]] for i in range(3)] == ["entailment", "non-entailment", "non-entailment"]
    assert {ood.score for ood in qqp.ood.values()} == {"balanced"}


def test_unknown_name_names_the_nearest():
    with pytest.raises(StudyError, match="'micro_nil'.*yaml.*; did you mean 'micro_nli'"):
        registry.get("micro_nil")


@pytest.mark.parametrize("name", microworld.TASKS)
def test_micro_tasks_are_made_by_the_microworld(name, monkeypatch):
    task = registry.get(name)
    calls = []
    monkeypatch.setattr(microworld, "generate", lambda *args, **kwargs: calls.append((args, kwargs)))
    dataset.load(task, seed=3, n_train=64, n_eval=20, n_ood=4, shortcut_rate=0.8, subcase_counts={"swap": 5})
    assert calls == [((name,), dict(seed=3, n_train=64, n_eval=20, n_ood=4, shortcut_rate=0.8, subcase_counts={"swap": 5}))]
    assert task.labels == microworld.TASKS[name] and list(task.ood) == ["ood", "unseen"]


def test_micro_items_are_items_of_their_task():
    task = registry.get("micro_nli")
    items = dataset.load(task, seed=0, n_train=256, n_eval=40, n_ood=4)
    assert list(items) == dataset.COLUMNS and not items["guid"].duplicated().any()
    assert set(items["split"]) == {"train", "dev", "test", *task.ood} and set(items["label"]) == {0, 1}
    assert items["label"].dtype == "int64" and items["is_shortcut"].dtype == "boolean"
    assert (items[["text_a", "text_b"]].apply(lambda text: text.str.strip()) != "").all(axis=None)


def test_subcase_counts_belong_to_the_microworld(own):
    with pytest.raises(StudyError, match="subcase_counts"):
        dataset.load(registry.get(own()), seed=0, n_train=0, n_eval=0, n_ood=0, subcase_counts={"swap": 1})


# --- a reader's own files -----------------------------------------------------------------------

@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_every_format_gives_the_same_items(own, tmp_path, suffix):
    reference = load(own())
    (folder := tmp_path / "odd [1] *name").mkdir()
    for name, n in (("train", 100), ("test", 10), ("hard", 8)):
        write(rows(n, name), folder / f"{name}.{suffix.removesuffix('.gz')}")
        if suffix.endswith("gz"):
            plain = folder / f"{name}.csv"
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    files = {split: f"{folder.name}/{split}.{suffix}" for split in ("train", "test")}
    items = load(own(files=files, ood={"hard": {"file": f"{folder.name}/hard.{suffix}"}}))
    pd.testing.assert_frame_equal(items, reference)
    assert items.query("guid == 'mine-hard-0'")["text_b"].item() == "NA"  # text, not a missing value
    assert items.query("guid == 'mine-hard-1'")["text_b"].item() == "001"


def test_maps_and_collapse_of_own_labels(own, tmp_path):
    for name, values in (("train", [0, 1, 2]), ("test", [2, 1, 0])):
        frame = rows(60, name)
        write(frame.assign(gold=np.resize(values, 60)), tmp_path / f"{name}.csv")
    path = own(
        labels={0: "entail", 1: "neutral", 2: "contradict"},
        ood={"hard": {"file": "hard.csv", "labels": {"yes": "E", "no": "not E"}, "collapse": {"entail": "E", "neutral": "not E", "contradict": "not E"}}},
    )
    task, items = registry.get(path), load(path)
    assert task.labels == ("entail", "neutral", "contradict") and task.ood["hard"] == Ood(("E", "not E"), (0, 1, 1))
    assert items.query("split == 'test'")["label"].tolist()[:3] == [2, 1, 0]
    assert items.query("split == 'hard'")["label"].tolist()[:2] == [1, 0]


def test_a_declared_dev_file_and_guids_are_taken(own, tmp_path):
    for name, n in (("train", 20), ("test", 10), ("hard", 8), ("dev", 4)):
        write(rows(n, name).assign(key=[f"{name}/{i}" for i in range(n)]), tmp_path / f"{name}.csv")
    items = load(own(columns={**PAIR, "guid": "key"}, files={"train": "train.csv", "dev": "dev.csv", "test": "test.csv"}))
    assert guids(items, "dev") == [f"dev/{i}" for i in range(4)] and len(guids(items, "train")) == 20
    assert (items["group"] == items["guid"]).all()


def change(column: str, row: int, value):
    def edit(folder: Path) -> None:
        frame = rows(10, "test")
        frame.loc[row - 1, column] = value
        write(frame, folder / "test.csv")
    return edit


def put(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


FILE_ERRORS = {
    "missing column": (lambda f: write(rows(10).rename(columns={"hypothesis": "hypotesis"}), f / "test.csv"), {}, "test.csv: column 'hypothesis' is missing; did you mean 'hypotesis'"),
    "unknown label": (change("gold", 3, "maybe"), {}, "test.csv: row 3, column 'gold': unknown label 'maybe'.*'yes', 'no'"),
    "no label": (change("gold", 3, ""), {}, "test.csv: row 3, column 'gold': the label is missing"),
    "missing text": (change("premise", 7, "  "), {}, "test.csv: row 7, column 'premise': the text is missing"),
    "short row": (put("test.csv", b"premise,hypothesis,gold,topic\na,b,yes,t\na\n"), {}, "test.csv: row 2, column 'hypothesis': the text is missing"),
    "long row": (put("test.csv", b"premise,hypothesis,gold,topic\na,b,yes,t\na,b,yes,t,u,v\n"), {}, "test.csv: not readable as .csv.*line 3"),
    "empty file": (put("test.csv", b""), {}, "test.csv: there is no row"),
    "empty gz": (put("test.csv.gz", gzip.compress(b"")), {"files": {"train": "train.csv", "test": "test.csv.gz"}}, "test.csv.gz: there is no row"),
    "no gz": (put("test.csv.gz", b"a,b"), {"files": {"train": "train.csv", "test": "test.csv.gz"}}, "test.csv.gz: cannot be opened"),
    "header only": (put("test.csv", b"premise,hypothesis,gold,topic\n"), {}, "test.csv: there is no row"),
    "no row": (lambda f: write(rows(0), f / "test.parquet"), {"files": {"train": "train.csv", "test": "test.parquet"}}, "test.parquet: there is no row"),
    "blank": (put("test.csv", b"\n"), {}, "test.csv: there is no row"),
    "no parquet": (put("test.parquet", b"PAR0"), {"files": {"train": "train.csv", "test": "test.parquet"}}, "test.parquet: cannot be opened"),
    "not utf-8": (put("test.csv", "premise,hypothesis,gold,topic\né,b,yes,t\n".encode("latin-1")), {}, "test.csv: not readable as .csv in UTF-8"),
    "broken jsonl": (put("test.jsonl", b'{"premise": "a", \n'), {"files": {"train": "train.csv", "test": "test.jsonl"}}, "test.jsonl: not readable as .jsonl"),
    "no text": (put("test.jsonl", b'{"premise": ["a"], "hypothesis": "b", "gold": "yes", "topic": "t"}\n'), {"files": {"train": "train.csv", "test": "test.jsonl"}}, "test.jsonl: row 1, column 'premise'.*is not text"),
    "pickle": (put("test.pkl", b"x"), {"files": {"train": "train.csv", "test": "test.pkl"}}, "test.pkl: format '.pkl' is not read"),
    "no such file": (lambda f: None, {"files": {"train": "train.csv", "test": "tset.csv"}}, "tset.csv: no such file"),
    "guid twice": (lambda f: None, {"columns": {**PAIR, "guid": "topic"}}, "train.csv: row 2, guid 'train0' stands already in .*train.csv, row 1"),
    "guid missing": (change("topic", 2, ""), {"columns": {**PAIR, "guid": "topic"}, "files": {"train": "test.csv", "test": "hard.csv"}, "ood": {"hard": {"file": "train.csv"}}}, "test.csv: row 2, column 'topic': the guid is missing"),
    "guid in two files": (lambda f: write(rows(8, "test"), f / "hard.csv"), {"columns": {**PAIR, "guid": "premise"}}, "row 1, guid.*stands already in .*test.csv, row 1"),
}


@pytest.mark.parametrize("case", FILE_ERRORS)
def test_errors_of_a_data_file_name_file_row_column_and_mend(own, tmp_path, case):
    edit, spec, told = FILE_ERRORS[case]
    edit(tmp_path)
    with pytest.raises(StudyError, match=told) as error:
        load(own(**spec))
    assert ";" in str(error.value) and "\n" not in str(error.value)


YAML_ERRORS = {
    "unknown key": ({"licens": "CC0"}, "unknown key 'licens'; did you mean 'licence'"),
    "unknown column key": ({"columns": {**PAIR, "gruop": "topic"}}, "unknown key 'columns.gruop'; did you mean 'group'"),
    "unknown split": ({"files": {"train": "train.csv", "test": "test.csv", "deev": "x.csv"}}, "unknown key 'files.deev'; did you mean 'dev'"),
    "unknown ood key": ({"ood": {"hard": {"file": "hard.csv", "colapse": {}}}}, "unknown key 'ood.hard.colapse'; did you mean 'collapse'"),
    "missing key": ({"files": {"train": "train.csv"}}, "key 'files.test' is missing"),
    "wrong type": ({"licence": 3}, "licence must be text, not 3"),
    "wrong choice": ({"shortcut": "overlp"}, "shortcut is 'overlp'; did you mean 'overlap'?"),
    "yes as boolean": ({"labels": [True, False]}, "labels: .*put it in quotes"),
    "no labels": ({"labels": []}, "labels: give a list"),
    "one class": ({"labels": {"yes": "same", "no": "same"}}, "only one class 'same'"),
    "name": ({"name": "mnli"}, "name 'mnli' must be the file's own name"),
    "reserved split": ({"ood": {"test": {"file": "hard.csv"}}}, "ood.test: an OOD set cannot be called test"),
    "needs collapse": ({"ood": {"hard": {"file": "hard.csv", "labels": {"yes": "E", "no": "no"}}}}, "ood.hard.labels: 'E' is no class of the task.*collapse"),
    "collapse leaves one out": ({"ood": {"hard": {"file": "hard.csv", "collapse": {"yes": "yes"}}}}, "ood.hard.collapse: class 'no' of the task is missing"),
    "collapse from unknown": ({"ood": {"hard": {"file": "hard.csv", "collapse": {"yes": "yes", "no": "no", "nope": "no"}}}}, "'nope' is no class of the task; did you mean 'no'"),
    "collapse to unknown": ({"ood": {"hard": {"file": "hard.csv", "collapse": {"yes": "yess", "no": "no"}}}}, "'yess' is no class of the OOD set; did you mean 'yes'"),
}


@pytest.mark.parametrize("case", YAML_ERRORS)
def test_errors_of_a_task_file_name_the_key(own, case):
    spec, told = YAML_ERRORS[case]
    with pytest.raises(StudyError, match="mine.yaml: " + ("" if told.startswith("ood") else ".*") + told) as error:
        registry.get(own(**spec))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "told"), [("name: [", "line 1: not readable as YAML"), ("", "a task file is a mapping of name, labels"), ("!!python/object/apply:os.getcwd []", "not readable as YAML")])
def test_a_file_that_is_no_task_yaml(tmp_path, content, told):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(StudyError, match=told):
        registry.get(tmp_path / "mine.yaml")
    with pytest.raises(StudyError, match="no such task file"):
        registry.get(tmp_path / "other.yaml")


def test_loading_is_silent_and_leaves_nothing(own, tmp_path, monkeypatch, capfd):
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    shown = datasets.are_progress_bars_disabled()
    load(own())
    assert list(scratch.iterdir()) == [] and not (tmp_path / "cache").exists()
    assert capfd.readouterr() == ("", "") and datasets.are_progress_bars_disabled() == shown


# --- mirror, hub, address -----------------------------------------------------------------------

@pytest.fixture
def table(tmp_path):
    """A table whose official file lies on a disk 'upstream'; its digest is known."""
    (upstream := tmp_path / "upstream").mkdir()
    write(rows(6), upstream / "a.csv")
    return Table("set/a.csv", PAIR, {"yes": 0, "no": 1}, url=(upstream / "a.csv").as_uri(), url_digest=download.digest(upstream / "a.csv", "git"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("STUDY_DATA", raising=False)
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "PAUSES", ())
    return tmp_path / "home" / "study" / "set"


def test_digest_is_that_of_git(tmp_path):
    (tmp_path / "x").write_bytes(b"hello\n")
    assert download.digest(tmp_path / "x", "git") == "git:ce013625030ba8dba906f756967f9e9ca394464a"
    assert download.digest(tmp_path / "x") == "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


def test_a_local_file_must_be_the_mirrors_or_the_official_one(table, cache, tmp_path, monkeypatch):
    (local := tmp_path / "data" / "set").mkdir(parents=True)
    write(rows(4, "mirror"), local / "a.csv")
    table = dataclasses.replace(table, local={download.digest(local / "a.csv"): "regenerated"})
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    assert (record := sources.read(table)[1])["copy"] == "regenerated" and record["origin"] == "local" and record["rows"] == 4
    write(rows(6), local / "a.csv")
    assert sources.read(table)[1]["copy"] == "official"
    write(rows(5), local / "a.csv")
    with pytest.raises(StudyError, match="a.csv: expected sha256:.* or git:.*found sha256:.*bytes.*task YAML"):
        sources.read(table)


def test_a_file_is_fetched_once_and_held_to_its_digest(table, cache, tmp_path):
    frame, record = sources.read(table)
    assert len(frame) == 6 and record["origin"] == table.url and [p.name for p in cache.iterdir()] == ["a.csv"]
    (tmp_path / "upstream" / "a.csv").unlink()
    assert len(sources.read(table)[0]) == 6
    (cache / "a.csv").write_text("damaged")
    with pytest.raises(StudyError, match="a.csv: expected git:.*delete the file"):
        sources.read(table)


def test_a_changed_file_upstream_is_not_kept(table, cache, tmp_path):
    write(rows(7), tmp_path / "upstream" / "a.csv")
    with pytest.raises(StudyError, match="expected git:.*found git:.*not kept"):
        sources.read(table)
    assert list(cache.iterdir()) == []


def test_an_unknown_digest_is_recorded_at_the_first_download(table, cache):
    table = dataclasses.replace(table, url_digest="")
    digest = sources.read(table)[1]["digest"]
    assert (cache / "a.csv.sha256").read_text().strip() == digest
    write(rows(3), cache / "a.csv")
    with pytest.raises(StudyError, match=f"expected {digest}"):
        sources.read(table)


class Upstream(http.server.BaseHTTPRequestHandler):
    """Sends a whole file, a web page in its place, or a file cut off half way."""

    def do_GET(self):
        body = rows(6).to_csv(index=False).encode()
        if self.path == "/gone.csv":
            return self.send_error(404)
        body = b"\n<!DOCTYPE html><p>log in" if self.path == "/page.csv" else body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) * (2 if self.path == "/cut.csv" else 1)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("name", "told"), [("cut", "of .* bytes arrived"), ("page", "a web page came"), ("gone", "STUDY_DATA.*set/a.csv.*404")])
def test_a_download_gone_wrong_leaves_no_file(table, cache, server, name, told):
    broken = dataclasses.replace(table, url=f"{server}/{name}.csv", url_digest="")
    with pytest.raises(StudyError, match=told):
        sources.read(broken)
    assert list(cache.iterdir()) == []
    assert len(sources.read(dataclasses.replace(broken, url=f"{server}/a.csv?dl=1"))[0]) == 6


def test_the_hub_is_asked_by_repository_configuration_and_revision(cache, tmp_path, monkeypatch):
    repo = tmp_path / "repo"
    (repo / "mnli").mkdir(parents=True)
    features = datasets.Features({"premise": datasets.Value("string"), "hypothesis": datasets.Value("string"), "label": datasets.ClassLabel(names=["e", "n", "c"])})
    for split, n in (("train", 5), ("validation_matched", 3)):
        frame = rows(n).drop(columns=["gold", "topic"]).assign(label=[i % 3 for i in range(n)])
        datasets.Dataset.from_pandas(frame, features=features).to_parquet(repo / "mnli" / f"{split}-00000-of-00001.parquet")
    files = [{"split": split, "path": f"mnli/{split}-*"} for split in ("train", "validation_matched")]
    (repo / "README.md").write_text("---\n" + yaml.safe_dump({"configs": [{"config_name": "mnli", "data_files": files}]}) + "---\n")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    mnli = registry.get("mnli").tables["train"]
    frame, record = sources.read(dataclasses.replace(mnli, hub=dataclasses.replace(mnli.hub, repo=str(repo))))
    assert frame["label"].tolist() == [0, 1, 2, 0, 1] and record["digest"] == f"revision:{mnli.hub.revision}"

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or datasets.Dataset.from_pandas(frame[[]]))
    with pytest.raises(StudyError, match="column 'premise' is missing"):
        sources.read(mnli)
    assert asked == [(("nyu-mll/glue", "mnli"), {"split": "train", "revision": mnli.hub.revision, "cache_dir": str(tmp_path / "cache" / mnli.hub.revision)})]


@pytest.mark.parametrize(("name", "split", "way"), [
    ("mnli", "train", "nyu-mll/glue"), ("mnli", "hans", "tommccoy1/hans"), ("fever", "train", "dropbox"), ("fever", "sym2", "FeverSymmetric"),
    ("qqp", "paws_qqp", "authors' script"), ("qqp", "paws_wiki", "google-research-datasets/paws"),
])
def test_without_mirror_and_network_both_ways_are_told(cache, monkeypatch, name, split, way):
    def offline(*args, **kwargs):
        raise ConnectionError("no route")
    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.setattr(download.urllib.request, "urlopen", offline)
    table = registry.get(name).tables[split]
    with pytest.raises(StudyError, match=f"STUDY_DATA.*{way}") as error:
        sources.read(table)
    assert table.path in str(error.value) and ("no route" in str(error.value) or split == "paws_qqp")


def test_a_mirror_that_is_no_folder(tmp_path):
    with pytest.raises(StudyError, match="nowhere.*no folder"):
        sources.read(registry.get("mnli").tables["hans"], tmp_path / "nowhere")


def test_rows_without_evidence_are_left_out(tmp_path):
    frame = rows(8).assign(gold=["SUPPORTS", "REFUTES", "NOT ENOUGH INFO", "SUPPORTS"] * 2)
    frame.loc[2, "premise"] = ""
    write(frame, tmp_path / "f.csv")
    kept, _ = sources.read(dataclasses.replace(registry.get("fever").tables["test"], path=str(tmp_path / "f.csv"), local={}, columns={**PAIR, "group": "hypothesis"}))
    assert kept["row"].tolist() == [1, 2, 4, 5, 6, 8] and kept["label"].tolist() == [0, 1, 0, 0, 1, 0]


def test_claims_that_differ_in_form_only_are_one_group():
    assert sources.normalise("Damon Albarn 's album .") == sources.normalise("damon albarn's Album")
    assert Hub("r", "c", "s", "v") in {Hub("r", "c", "s", "v")}
