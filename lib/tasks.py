"""Every task of the study, declared once: labels, splits, OOD sets, sources; and a reader's own by YAML."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from lib import microworld
from lib.errors import StudyError, nearest
from lib.schema import ROOT
from lib.sources import Hub, Table, read

COLUMNS = ["guid", "split", "text_a", "text_b", "label", "heuristic", "subcase", "is_shortcut", "group"]
DEV_ROWS = 2000


@dataclass(frozen=True)
class Ood:
    """An OOD set: its labels, how a task class becomes one of them after the argmax, its main score."""

    labels: tuple[str, ...]
    collapse: tuple[int, ...] | None = None
    score: Literal["accuracy", "balanced"] = "accuracy"


@dataclass(frozen=True)
class Task:
    """What a task is; `text_a` and `text_b` are the field's words for the two texts, `caveats` what its data are not.

    `tables` names the file of each split (none for the micro-world, which is made, not read);
    train rows whose group occurs in a split of `train_without` are dropped.
    """

    name: str
    labels: tuple[str, ...]
    text_a: str
    text_b: str
    ood: dict[str, Ood]
    shortcut: Literal["overlap", "b_only"]
    licence: str
    source: str
    caveats: str
    tables: dict[str, Table] = field(default_factory=dict, repr=False)
    train_without: tuple[str, ...] = ()

    def classes(self, split: str) -> tuple[str, ...]:
        """Label names of a split, by class id."""
        return self.ood[split].labels if split in self.ood else self.labels

    def chance(self, split: str) -> float:
        """Accuracy of a uniform guess on a split, after the collapse."""
        return 1 / len(self.classes(split))


def _micro(name: str, text_a: str, text_b: str, shortcut: Literal["overlap", "b_only"]) -> Task:
    labels = microworld.TASKS[name]
    beside = " In train each failing row stands beside its twin, so that no word tells the label." if name in microworld.PAIRED else ""
    if name == "micro_facts":
        beside += (" In seven of its eight trained subcases the person who was not stands last: a model may learn that order in "
                   "place of reading; the unseen subcase `reversed` turns it round.")
    return Task(
        name, labels, text_a, text_b, {"ood": Ood(labels), "unseen": Ood(labels)}, shortcut, "that of this project", "made by lib.microworld",
        "English from templates: `ood` is a subpopulation shift with known counts; HANS and PAWS are nearer to `unseen`. Dev and "
        "test spread their failing rows evenly over the subcases, whose counts in train rotate from seed to seed." + beside,
    )


GLUE, GLUE_REVISION = "nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
PAWS, PAWS_REVISION = "google-research-datasets/paws", "161ece9501cf0a11f3e48bd356eaa82de46d6a09"
HANS_URL = "https://raw.githubusercontent.com/tommccoy1/hans/7299f6f657089ce06a0f98e7e81f8d0f5b7741ce/heuristics_evaluation_set.txt"
SYM_URL = "https://raw.githubusercontent.com/TalSchuster/FeverSymmetric/fa25d17e73ea0694edc78133ec654b9f32f6db73/"
MNLI_COLUMNS = {"text_a": "premise", "text_b": "hypothesis", "label": "label", "group": "premise"}
HANS_COLUMNS = {"text_a": "sentence1", "text_b": "sentence2", "label": "gold_label", "heuristic": "heuristic", "subcase": "subcase", "group": "template"}
FEVER_COLUMNS = {"text_a": "evidence", "text_b": "claim", "label": "gold_label", "group": "claim"}
QQP_COLUMNS = {"text_a": "question1", "text_b": "question2", "label": "label"}
PAWS_COLUMNS = {"text_a": "sentence1", "text_b": "sentence2", "label": "label"}
MNLI_IDS, FEVER_IDS, QQP_IDS = {"0": 0, "1": 1, "2": 2}, {"SUPPORTS": 0, "REFUTES": 1}, {"0": 0, "1": 1}


def _mnli(file: str, split: str, sha: str, copy: str) -> Table:
    return Table(f"glue/mnli/{file}.parquet", MNLI_COLUMNS, MNLI_IDS, {f"sha256:{sha}": copy}, Hub(GLUE, "mnli", split, GLUE_REVISION), hash_group=True)


def _fever(file: str, url: str, sha: str, copy: str) -> Table:
    return Table(f"fever/{file}", FEVER_COLUMNS, FEVER_IDS, {f"sha256:{sha}": copy}, url=url, drop=("NOT ENOUGH INFO",), hash_group=True)


def _symmetric(path: str, sha: str, **columns: str) -> Table:
    digest = f"sha256:{sha}"
    return Table(f"fever_symmetric/{path}", FEVER_COLUMNS | columns, FEVER_IDS, {digest: "official"}, url=SYM_URL + path, url_digest=digest, hash_group=True)


def _qqp(split: str, sha: str, copy: str) -> Table:
    return Table(f"glue/qqp/{split}.parquet", QQP_COLUMNS, QQP_IDS, {f"sha256:{sha}": copy}, Hub(GLUE, "qqp", split, GLUE_REVISION))


TASKS: dict[str, Task] = {task.name: task for task in (
    _micro("micro_nli", "premise", "hypothesis", "overlap"),
    _micro("micro_facts", "evidence", "claim", "b_only"),
    _micro("micro_paraphrase", "sentence1", "sentence2", "overlap"),
    Task(
        "mnli", ("entailment", "neutral", "contradiction"), "premise", "hypothesis",
        {"hans": Ood(("entailment", "non-entailment"), (0, 1, 1))}, "b_only",
        "MultiNLI: OANC and others; HANS: MIT", f"hub {GLUE} config mnli at {GLUE_REVISION}; {HANS_URL}",
        "The mirror's train is a subset (32,880 of 392,702) and its HANS a fresh draw of the authors' generator "
        "(seed 1902), not the official 30,000 rows. test is validation_matched.",
        {
            "train": _mnli("train", "train", "9128b2bb922627769c18cc10d4ca53fca64b8c4e8aeef02655683275064a76f0", "subset: 32,880 of 392,702 rows"),
            "test": _mnli("validation_matched", "validation_matched", "a108ec0b4e764f4445248907693c7a7b7c2140bcbf1cec23806a5f9098a0866f", "all 9,815 rows"),
            "hans": Table(
                "hans/heuristics_evaluation_set.txt", HANS_COLUMNS, {"entailment": 0, "non-entailment": 1},
                {"sha256:2c0c8286c0385e33d7079edd08e722abc658f21a54ab9a9583017d20c860d5ee": "regenerated at seed 1902, not the official rows"},
                url=HANS_URL, url_digest="git:e042af242b19708d9c0256c713e873415c0b58a1",
            ),
        },
    ),
    Task(
        "fever", ("SUPPORTS", "REFUTES"), "evidence", "claim", {"sym1": Ood(("SUPPORTS", "REFUTES")), "sym2": Ood(("SUPPORTS", "REFUTES"))},
        "b_only", "CC BY-SA and Wikipedia's terms", f"FEVER as linked by the FeverSymmetric README; {SYM_URL}",
        "Two-way: NOT ENOUGH INFO is left out, while the paper trains three-way. Half of the Symmetric claims stand in FEVER "
        "dev, which is test here: select on dev only. Sym1 and Sym2 share 242 claims.",
        {
            "train": _fever("train.jsonl.gz", "https://www.dropbox.com/s/v1a0depfg7jp90f/fever.train.jsonl?dl=1", "0c98597d0c56a6103450dde24b797501d441b59670dba365cbc88960e0927e87", "all SUPPORTS and REFUTES rows, two-way"),
            "test": _fever("dev.jsonl", "https://www.dropbox.com/s/bdwf46sa2gcuf6j/fever.dev.jsonl?dl=1", "fa24313db3e27929c27e2d7b66c717666d89f49def8f98ee7ee63a29d312aded", "paper_dev and paper_test, two-way"),
            "sym1": _symmetric("symmetric_v0.1/fever_symmetric_generated.jsonl", "83a4aac042192ebc159b4478dc5316f9e25094e41ddc97c3b1cea825ad2943eb", text_a="evidence_sentence", label="label"),
            "sym2": _symmetric("symmetric_v0.2/fever_symmetric_test.jsonl", "b2ff560615bd3337c858bc5b09256d04f39aaa034aaae2351bb2d6345c110f83"),
        },
        train_without=("sym1", "sym2"),
    ),
    Task(
        "qqp", ("not_duplicate", "duplicate"), "question1", "question2",
        {name: Ood(("not_duplicate", "duplicate"), score="balanced") for name in ("paws_qqp", "paws_wiki")}, "overlap",
        "QQP and PAWS-QQP: Quora's terms; PAWS-Wiki: free use", f"hub {GLUE} config qqp at {GLUE_REVISION}; hub {PAWS} config labeled_final at {PAWS_REVISION}",
        "The mirror's train and validation are subsets, train with a label mix of its own (47 % duplicates); its PAWS-Wiki holds 5,348 rows, "
        "the paper's test set 8,000. 102 of the 677 PAWS-QQP pairs also stand in PAWS-QQP train.",
        {
            "train": _qqp("train", "6bc81a9ed1d879d005c0a3b360acaa534f16f8520b30d1296e9cc5c7aeb7cdad", "subset: 26,324 rows of a balanced part"),
            "test": _qqp("validation", "e00ec9f483d2f5e0593dafccc8cdeed04a4a1a9f1b5af7a3f23c6fa2a6170250", "subset: 29,586 of 40,430 rows"),
            "paws_qqp": Table(
                "paws_qqp/dev_and_test.tsv", PAWS_COLUMNS, QQP_IDS, {"sha256:4f4688bdcaddc51c5acde571ec8d5a08b8d3abb01e6e1660a5fbb49d5d90f106": "all 677 rows"},
                by_hand="made from QQP by its authors' script, https://github.com/google-research-datasets/paws (no hub carries it)",
            ),
            "paws_wiki": Table(
                "paws_wiki/labeled_final-subset.parquet", PAWS_COLUMNS, QQP_IDS,
                {"sha256:b445880d4df374bc6ee160007424c2fd8a886df0de87566b44c61d039da0e9b9": "thin subset: 5,348 rows"},
                Hub(PAWS, "labeled_final", "test", PAWS_REVISION),
            ),
        },
    ),
)}


def get(name_or_yaml_path: str | Path) -> Task:
    """A task of the study by its name, or a reader's own from its YAML file (a relative path counts from the project's root)."""
    name = str(name_or_yaml_path)
    if name.endswith((".yaml", ".yml")):
        from lib.own_task import read_task  # there Task and Ood are imported from here

        return read_task(ROOT / name, taken=TASKS)
    if name not in TASKS:
        raise StudyError(f"unknown task '{name}', nor does it end in .yaml as a task file{nearest(name, TASKS)}")
    return TASKS[name]


def load(
    task: Task, *, seed: int, n_train: int, n_eval: int, n_ood: int,
    shortcut_rate: float = 0.9, subcase_counts: dict[str, int] | None = None, data_dir: str | Path | None = None,
) -> pd.DataFrame:
    """The items of a task [rows, COLUMNS]: train, dev, test and the OOD sets, in file order.

    n_train, n_eval and n_ood are upper bounds, 0 = all rows. n_train rows are drawn by `seed`, in the label mix of
    the file; n_eval caps dev and test, and n_ood each subcase x label of an OOD set, by fixed draws that no seed
    moves (an OOD set without subcases is taken whole). Where the task has no dev file, dev is held out of train by
    a fixed draw of whole groups: 2,000 rows, or a tenth of train if that is less. `attrs["sources"]` tells each
    split's file, origin, digest, copy and rows; `attrs["dropped"]` the train rows dropped, by split they occur in.
    """
    _check_sizes(task, {"n_train": n_train, "n_eval": n_eval, "n_ood": n_ood})
    if not task.tables:
        return microworld.make(
            task.name, seed=seed, n_train=n_train, n_eval=n_eval, n_ood=n_ood, shortcut_rate=shortcut_rate, subcase_counts=subcase_counts,
        )
    if subcase_counts:
        raise StudyError(f"subcase_counts is for the micro-world; task '{task.name}' is read from files: leave it empty")
    splits, sources = {}, []
    for split, table in task.tables.items():
        frame, record = read(table, data_dir)
        sources.append({"split": split, **record})
        blank = frame["guid"] == ""
        frame["guid"] = frame["guid"].where(~blank, [f"{task.name}-{split}-{row - 1}" for row in frame["row"]])
        frame["group"] = frame["group"].where(frame["group"] != "", frame["guid"])
        splits[split] = frame.assign(split=split, is_shortcut=pd.array([pd.NA] * len(frame), dtype="boolean"))
    _refuse_twice(pd.concat(splits.values(), ignore_index=True))

    dropped = {}
    for other in task.train_without:
        seen = splits["train"]["group"].isin(splits[other]["group"])
        dropped[other] = int(seen.sum())
        splits["train"] = splits["train"][~seen]
    if "dev" not in splits:
        file, whole = splits["train"]["file"].iloc[0], splits["train"]
        splits["train"], splits["dev"] = _hold_out(whole, DEV_ROWS)
        if splits["dev"].empty:
            raise StudyError(f"{file}: its {len(whole)} rows, in {whole['group'].nunique()} groups, hold no tenth of whole groups that "
                             "could be dev; give more rows, or a dev file")
    splits["train"] = _stratified(splits["train"], n_train, seed)
    if splits["train"]["label"].nunique() < 2:
        raise StudyError(f"train of '{task.name}' holds one label alone, '{task.labels[splits['train']['label'].iloc[0]]}', in "
                         f"{len(splits['train'])} rows; give rows of two or more, or raise n_train")
    for split in ("dev", "test"):
        splits[split] = _first_by_hash(splits[split], n_eval)
    for split in task.ood:
        if (splits[split]["subcase"] != "").any():
            cells = splits[split].groupby(["subcase", "label"], sort=False)
            splits[split] = pd.concat([_first_by_hash(cell, n_ood) for _, cell in cells]).sort_index()
    items = pd.concat([splits[split] for split in ("train", "dev", "test", *task.ood)], ignore_index=True)[COLUMNS]
    check_items(items, task)
    items.attrs = {"sources": sources, "dropped": dropped}
    return items


def _check_sizes(task: Task, sizes: dict[str, int]) -> None:
    """Raise StudyError for a number of rows that cannot be drawn."""
    least = {"n_train": 2, "n_eval": 1, "n_ood": 1}
    for name, n in sizes.items():
        if n < 0:
            raise StudyError(f"{name} is {n}; give 0 (all rows) or more")
        if not task.tables and n < least[name]:
            raise StudyError(f"{name} is {n}, but task '{task.name}' is made, not read, and has no 'all' rows; give {least[name]} or more")


def _refuse_twice(rows: pd.DataFrame) -> None:
    again = rows["guid"].duplicated()
    if again.any():
        second = rows[again].iloc[0]
        first = rows[rows["guid"] == second["guid"]].iloc[0]
        raise StudyError(
            f"{second['file']}: row {second['row']}, guid '{second['guid']}' stands already in {first['file']}, row {first['row']}; "
            "give every row of all splits a guid of its own"
        )


def _by_hash(names: pd.Series) -> np.ndarray:
    """Positions in the order of the names' hashes: a fixed draw, whatever the seed and the file's order."""
    return np.argsort([hashlib.blake2b(name.encode(), digest_size=8).hexdigest() for name in names], kind="stable")


def _first_by_hash(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """n rows of a frame (0 = all) by a fixed draw, in the frame's order; smaller draws lie inside larger ones."""
    return frame.iloc[np.sort(_by_hash(frame["guid"])[:n])] if n else frame


def _hold_out(train: pd.DataFrame, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train without dev, and dev: whole groups by a fixed draw, so that no claim or premise stands in both."""
    n = min(n, len(train) // 10)
    sizes = train["group"].value_counts(sort=False)
    chosen, rows = [], 0
    for position in _by_hash(sizes.index.to_series()):
        if rows + sizes.iloc[position] <= n:
            chosen.append(sizes.index[position])
            rows += sizes.iloc[position]
        if rows == n:
            break
    held_out = train["group"].isin(chosen)
    return train[~held_out], train[held_out].assign(split="dev")


def _stratified(train: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """n rows (0 = all) drawn by seed in train's label mix (largest remainders), in file order."""
    if n == 0 or n >= len(train):
        return train
    shares = train["label"].value_counts().sort_index() * (n / len(train))
    counts = np.floor(shares).astype(int)
    counts[(shares - counts).sort_values(ascending=False, kind="stable").index[: n - counts.sum()]] += 1
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(np.flatnonzero(train["label"] == label), count, replace=False) for label, count in counts.items()]
    return train.iloc[np.sort(np.concatenate(drawn))]


def fingerprint(items: pd.DataFrame) -> str:
    """SHA-256 of the items' content: every value of every column, in row order."""
    total = hashlib.sha256()
    for column in COLUMNS:
        values = [None if value is pd.NA else value for value in items[column].tolist()]
        total.update(json.dumps([column, values]).encode())
    return total.hexdigest()


def check_items(frame: pd.DataFrame, task: Task) -> None:
    """StudyError naming row, guid and column unless the frame is one of items of the task."""
    for column in COLUMNS:
        if column not in frame:
            raise StudyError(f"items of '{task.name}': column '{column}' is missing; items have {', '.join(COLUMNS)}")
    for column, dtype in (("label", "int64"), ("is_shortcut", "boolean")):
        if frame[column].dtype != dtype:
            raise StudyError(f"items of '{task.name}': column '{column}' is {frame[column].dtype}, not {dtype}; convert it with astype")
    valid = ("train", "dev", "test", *task.ood)
    for split in valid[:3]:
        if split not in set(frame["split"]):
            raise StudyError(f"items of '{task.name}': no row is in split '{split}'; train, dev and test need rows")
    n_classes = frame["split"].map({split: len(task.classes(split)) for split in valid})
    bad = {
        "guid": (frame["guid"].duplicated(), "occurs twice; give every row a guid of its own"),
        "split": (n_classes.isna(), f"is no split of the task; its splits are {', '.join(valid)}"),
        "label": ((frame["label"] < 0) | (frame["label"] >= n_classes), "is no class id of this split; see Task.classes"),
        **{text: (frame[text].isna() | (frame[text].str.strip() == ""), "is empty; fill it in or take the row out") for text in ("text_a", "text_b")},
    }
    for column, (where, what) in bad.items():
        if where.any():
            row = int(np.argmax(where))
            at = frame.iloc[row]
            raise StudyError(f"items of '{task.name}': row {row + 1} (guid '{at['guid']}'), column '{column}': {at[column]!r} {what}")
