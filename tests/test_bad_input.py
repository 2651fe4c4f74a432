"""Bad input of every kind is refused in one line that names the culprit and the mend, before anything is trained or written.

Each row of a table: what is bad, how it is made, the culprit and the mend that the one line must name (patterns).
"""
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_claims import GOOD
from test_params import injection, session
from test_tasks import PAIR, SPEC, rows, write

from lib import files, store
from lib.claims import declared, runs
from lib.errors import StudyError
from lib.models import loop, make, pretrained, recipes
from lib.params import notebook, schema
from lib.params.profile import load_profile
from lib.tasks import dataset, registry, sources

ROOT = files.ROOT


def state(folder):
    """Every file and folder below but what Python and Snakemake keep for themselves; of a file what tells a change."""
    paths = [path for path in folder.rglob("*") if not {"__pycache__", ".snakemake"} & set(path.parts)]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None for path in paths}


def refused(act, folder, culprit, mend):
    """`act` raises a StudyError of one line with both patterns, and changes nothing in the folder."""
    before = state(folder)
    with pytest.raises(StudyError) as error:
        act()
    said = str(error.value)
    assert "\n" not in said and re.search(culprit, said) and re.search(mend, said), said
    assert state(folder) == before


def table(cases):
    """The cases as parameters (made, culprit, mend), named by what is bad."""
    return pytest.mark.parametrize("made, culprit, mend", list(cases.values()), ids=list(cases))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working folder is the case's own: a file written by a relative name would be seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------- parameters
OVERRIDES = {
    "section misspelt": ("mitigaton.alpha=0.3", "section 'mitigaton'", "did you mean 'mitigation'"),
    "key misspelt": ("mitigation.alhpa=0.3", "'mitigation.alhpa'", "did you mean 'alpha'"),
    "key of another section": ("mitigation.n_train=5", "'mitigation.n_train'", "belongs to section 'data'"),
    "key of nothing": ("data.xyz=red", "'data.xyz'", "choose from n_eval, n_ood, n_train"),
    "no equals sign": ("mitigation.alpha", "override 'mitigation.alpha'", "must read section.key=value"),
    "no section": ("alpha=0.3", "override 'alpha=0.3'", "must read section.key=value"),
    "per_task by override": ("per_task.fever=3", "'per_task'", "choose from grid"),
    "list unclosed": ("pruning.run_levels=[0.3", "'pruning.run_levels=\\[0.3'.*not readable as YAML", "expected ',' or ']'.*mend that line"),
    "unsafe tag": ("common.task=!!python/object/apply:os.getcwd []", "python/object/apply:os.getcwd", "mend that line"),
    "key twice in a value": ("data.subcase_counts={swap: 1, swap: 2}", "'swap' stands twice", "keep one"),
    "no value": ("mitigation.alpha=", "mitigation.alpha = None", "should be a valid number"),
    "text for a number": ("common.epochs=many", "common.epochs = 'many'", "should be a valid number"),
    "truth for a number": ("common.epochs=true", "common.epochs = True", "should be a valid number"),
    "fraction for a count": ("data.n_train=10.5", "data.n_train = 10.5", "should be a valid integer"),
    "number for a truth": ("common.freeze_embeddings=1", "freeze_embeddings = 1", "should be a valid boolean"),
    "number for a list": ("pruning.sparsity_levels=0.5", "pruning.sparsity_levels = 0.5", "should be a valid list"),
    "negative rows": ("data.n_eval=-5", "data.n_eval = -5", "greater than or equal to 0"),
    "share above one": ("mitigation.alpha=1.5", "mitigation.alpha = 1.5", "less than or equal to 1"),
    "percent for a share": ("pruning.head_fractions=[20]", r"pruning.head_fractions = \[20\]", "less than 1"),
    "sparsity of one": ("pruning.sparsity_levels=[1.0]", r"pruning.sparsity_levels = \[1.0\]", "less than 1"),
    "no sparsity": ("pruning.sparsity_levels=[]", r"pruning.sparsity_levels = \[\]", "must hold 1 or more"),
    "sparsity twice": ("pruning.sparsity_levels=[0.4, 0.4]", "0.4 stands there twice", "name it once"),
    "infinite": ("common.epochs=.inf", "common.epochs = inf", "finite"),
    "no epochs": ("common.epochs=0.0", "common.epochs = 0.0", "greater than 0"),
    "no rows in a batch": ("common.batch_size=0", "common.batch_size = 0", "greater than or equal to 1"),
    "dropout of all": ("common.dropout=1.0", "common.dropout = 1.0", "less than 1"),
    "hardly a token": ("common.max_length=4", "common.max_length = 4", "greater than or equal to 8"),
    "more tokens than the encoder": ("common.max_length=1024", "common.max_length = 1024.*'offline'", "give 8 to 512"),
    "more layers than the encoder": ("common.encoder_layers=7", "common.encoder_layers = 7.*'offline'", r"give 0 \(all\) to 6"),
    "more layers than the base encoder": (("common.encoder=offline-base", "common.encoder_layers=13"),
                                          "common.encoder_layers = 13.*'offline-base'", r"give 0 \(all\) to 12"),
    "no step to prune in": ("common.prune_warmup=0.7", "prune_cooldown = 0.3.*prune_warmup = 0.7", "sum must be below 1"),
    "dtype": ("common.dtype=fp16", "common.dtype = 'fp16'", "did you mean 'bf16'"),
    "device": ("common.device=quantum", "common.device = 'quantum'", "choose from auto, cpu, cuda, mps"),
    "negative seed": ("common.seed=-1", "common.seed = -1", "greater than or equal to 0"),
    "seed too large": ("grid.seeds=[4294967296]", r"grid.seeds = \[4294967296\]", "less than 4294967296"),
    "seed twice": ("grid.dense_seeds=[1, 0, 1]", "1 stands there twice", "name it once"),
    "no seed": (("grid.seeds=[]", "grid.dense_seeds=[]"), r"grid.dense_seeds = \[\]", "give one here or in grid.seeds"),
    "profile above outputs": ("common.profile=..", r"common.profile = '\.\.'", "must begin with a letter"),
    "profile of the reference": ("common.profile=reference", "common.profile = 'reference'", "taken there"),
    "no encoder": ("common.encoder=''", "common.encoder = ''", "give 'offline' or 'offline-base', a hub id or a folder"),
    "no such encoder folder": ("common.encoder=/no/such", "common.encoder names '/no/such'", "mend the path"),
    "task misspelt": ("grid.tasks=[micro_nil]", "'micro_nil'", "did you mean 'micro_nli'"),
    "no such task file": ("grid.tasks=[tasks/mine.yaml]", "no task file .*tasks/mine.yaml", "mend the path"),
    "two tasks of one folder": ("grid.tasks=[a/mine.yaml, b/mine.yaml]", "two of .*'mine', 'mine'", "share a folder"),
    "doses of a real task": ("grid.dose_tasks=[mnli]", r"grid.dose_tasks = \['mnli'\]", "did you mean 'micro_nli'"),
    "doses of another seed": ("grid.dose_seeds=[5]", "5 is not among grid.seeds", "whose models"),
    "student without layers": ("distillation.students=[truncated-0]", "'truncated-0'", "give 1 or more"),
    "student of all layers": ("distillation.students=[truncated-6]", "'truncated-6'.*has 6 layers", "K from 1 to 5"),
    "student of a folder not there": ("distillation.students=[truncated-3, ./no/such]", "students names './no/such'", "mend the path"),
    "student of no name": ("distillation.students=[my model]", "'my model' is not a model name", "such as truncated-3"),
    "family misspelt": ("distillation.students=[truncatd-3]", "'truncatd-3'", "did you mean 'truncated'"),
    "student with another's loss": ("distillation.students=[truncated-3 + rmc]", "'truncated-3 \\+ rmc'", "other losses are mitigation's"),
    "recipe in the wrong order": ("quantization.recipes=[dense + ptq8 + distil]", "'dense \\+ ptq8 \\+ distil'", "must read STRUCTURE"),
    "quantisation misspelt": ("quantization.recipes=[dense + ptq9]", "'ptq9' is no loss", "did you mean 'ptq8'"),
    "recipe of nothing left": ("quantization.recipes=[imp-100 + ptq8]", "imp-100 leaves nothing", "must be below 100"),
    "recipe of heads not cut": ("quantization.recipes=[heads-25 + ptq8]", "'heads-25 \\+ ptq8'", "add its share to pruning.head_fractions"),
    "recipe of width not cut": ("quantization.recipes=[ffn-25 + ptq8]", "'ffn-25 \\+ ptq8'", "add its share to pruning.ffn_fractions"),
    "heads with a loss": ("quantization.recipes=[heads-20 + distil]", "'heads-20 \\+ distil'", "write heads-20 \\+ ptq8"),
    "replaced layers to copy": ("quantization.recipes=[theseus-2 + tinybert]", "'theseus-2 \\+ tinybert'", "take \\+ distil"),
    "control of heads": ("pruning.controls=[heads-20-after]", "'heads-20-after'", "controls are dense-after"),
    "base that is not made": ("mitigation.bases=[imp-71]", "mitigation.bases names 'imp-71'", "add it there; did you mean 'imp-70'"),
    "base with a loss": ("mitigation.bases=[imp-70 + rmc]", "'imp-70 \\+ rmc'", "without a loss"),
    "no loss": ("mitigation.losses=[]", "mitigation.losses = \\[\\]", "must hold 1 or more"),
    "loss misspelt": ("mitigation.losses=[rcm]", "'rcm'", "did you mean 'rmc'"),
    "alpha above 100 percent": ("mitigation.losses=[rmc-101]", "'rmc-101' is no loss", "did you mean 'rmc'"),
    "jtt from no checkpoint": (("mitigation.losses=[jtt]", "mitigation.jtt_checkpoint=0.3"), "jtt_checkpoint = 0.3", "must be one of teacher.checkpoints"),
    "difficulty of one sparsity": ("pruning.sparsity_levels=[0.7]", r"= \[0.7\] must hold two or more", "add one"),
    "nothing to quantise": ("quantization.recipes=[]", "quantization.recipes is empty", "name one"),
    "run levels beyond the run": ("pruning.run_levels=[0.4, 0.9]", r"pruning.run_levels = \[0.4, 0.9\]", "two or more up to 0.85"),
    "checkpoint at the start": ("teacher.checkpoints=[0]", r"teacher.checkpoints = \[0\]", "greater than 0"),
    "dose below a coin's": ("doses.shortcut_rates=[0.3]", r"doses.shortcut_rates = \[0.3\]", "greater than or equal to 0.5"),
    "dose without a pruned run": ("doses.models=[truncated-2 + rmc_one_run]", "'truncated-2 \\+ rmc_one_run'", "add one, such as imp-70"),
    "dose levels beyond the run": ("doses.run_levels=[0.4, 0.95]", r"doses.run_levels = \[0.4, 0.95\]", "two or more up to 0.7"),
    "shortcut rate": ("data.shortcut_rate=0.3", "data.shortcut_rate = 0.3", "greater than or equal to 0.5"),
    "mend of heads": ("mends.bases=[heads-20]", "'heads-20'", "must be truncated-\\* or imp-\\*"),
    "one fold": ("shortcut_samples.folds=1", "shortcut_samples.folds = 1", "greater than or equal to 2"),
    "vectors not named": ("loyalty.attack_source=vectors", "attack_source 'vectors'", "set loyalty.vectors"),
    "vectors not there": (("loyalty.attack_source=vectors", "loyalty.vectors=/no/such.txt"), "no file /no/such.txt", "give the path"),
    "source of the claims": ("claims.source=output", "claims.source = 'output'", "did you mean 'outputs'"),
}


@table(OVERRIDES)
def test_overrides(here, made, culprit, mend):
    refused(lambda: load_profile("mini", [made] if isinstance(made, str) else made), here, culprit, mend)


MINE = "common: {profile: mine}\n"
PROFILES = {
    "empty": ("", "mine.yaml: a profile", "mapping of sections grid, common"),
    "a list": ("- common\n", "mine.yaml: a profile", "mapping of sections grid, common"),
    "a web page": ("<!DOCTYPE html>\n<html></html>\n", "mine.yaml: a profile", "mapping of sections"),
    "not UTF-8": ("common: {profile: 'é'}\n".encode("latin-1"), "mine.yaml: byte 20 is not UTF-8", "save the file as UTF-8"),
    "UTF-16": (MINE.encode("utf-16"), "mine.yaml: byte 1 is not UTF-8", "save the file as UTF-8"),
    "a tab": ("common:\n\tprofile: mine\n", "mine.yaml: line 2: not readable as YAML", "mend that line"),
    "unsafe tag": (MINE + "data: !!python/object/apply:os.system [touch x]\n", "line 2: .*os.system", "mend that line"),
    "section twice": (MINE + "data: {}\ndata: {}\n", "line 3: key 'data' stands twice", "keep one"),
    "key twice": ("common:\n  profile: mine\n  epochs: 1.0\n  epochs: 2.0\n", "line 4: key 'epochs' stands twice", "keep one"),
    "a list for a key": ("? [common]\n: 1\n", "line 1: .*unhashable key", "mend that line"),
    "no such date": ("common: {profile: 2020-13-45}\n", "mine.yaml: .*month must be in 1..12", "mend it"),
    "nested without end": ("common: " + "[" * 1000, "mine.yaml: .*recursion depth", "mend it"),
    "undefined alias": ("common: *here\n", "undefined alias 'here'", "mend that line"),
    "two documents": (MINE + "---\n" + MINE, "line 2: .*another document", "mend that line"),
    "section of text": (MINE + "data: many\n", "section 'data'", "must be a mapping"),
    "section misspelt": (MINE + "prunning: {}\n", "section 'prunning'", "did you mean 'pruning'"),
    "key misspelt": (MINE + "data: {n_trian: 3}\n", "'data.n_trian'", "did you mean 'n_train'"),
    "no profile": ("common: {epochs: 1.0}\n", "common.profile is missing", "it names the folder"),
    "another's profile": ("common: {profile: mini}\n", "common.profile = 'mini'", "should be 'mine'"),
    "per_task as a list": (MINE + "per_task: [fever]\n", "mine.yaml: per_task", "must be a mapping such as"),
    "per_task of no section": (MINE + "per_task: {fever: {alpha: 0.3}}\n", "per_task fever: 'alpha'", "must read section.key"),
    "per_task of the seed": (MINE + "per_task: {fever: {common.seed: 3}}\n", "per_task fever: 'common.seed'", "take it out"),
    "per_task misspelt": (MINE + "per_task: {fever: {mitigation.alhpa: 0.3}}\n", "per_task fever: .*alhpa", "did you mean 'alpha'"),
    "per_task of no task": (MINE + "per_task: {fevr: {mitigation.alpha: 0.3}}\n", "'fevr' is no task", "did you mean 'fever'"),
    "per_task out of range": (MINE + "per_task: {fever: {mitigation.alpha: 3}}\n", "per_task fever: mitigation.alpha = 3", "less than or equal to 1"),
}


@table(PROFILES)
def test_profile_files(here, made, culprit, mend):
    (here / "mine.yaml").write_bytes(made if isinstance(made, bytes) else made.encode())
    refused(lambda: load_profile(here / "mine.yaml"), here, culprit, mend)


@table({
    "misspelt": ("mircro", "no profile 'mircro'", "did you mean 'micro'"),
    "no such file": ("no/such.yaml", "no profile 'no/such.yaml'", "choose from base, base_core"),
    "a folder": ("folder.yaml", "no profile 'folder.yaml'", "choose from base, base_core"),
    "the claims": ("claims", "params/claims.yaml: a profile", "mapping of sections"),
})
def test_profile_names(here, made, culprit, mend):
    (here / "folder.yaml").mkdir()
    refused(lambda: load_profile(made), here, culprit, mend)


@table({
    "misspelt": ("sparsity_levles = '[0.5]'", "04_pruning.ipynb: .*'sparsity_levles'", "did you mean 'sparsity_levels'"),
    "another notebook's": ("alpha = 0.3", "04_pruning.ipynb: .*'alpha'", "choose from|did you mean"),
    "text that is no list": ("sparsity_levels = '[0.5'", "'sparsity_levels' = .*not readable as YAML", "mend that line"),
    "out of range": ("sparsity_levels = '[5]'", r"04_pruning.ipynb, injected parameters: pruning.sparsity_levels = \[5\]", "less than 1"),
    "code for a number": ("epochs = '2; import os'", "common.epochs = '2; import os'", "should be a valid number"),
    "task misspelt": ("task = 'fevr'", "common.task = 'fevr'", "did you mean 'fever'"),
    "profile above outputs": ("profile = '..'", "common.profile = '..'", "must begin with a letter"),
    "section misspelt": ("prunning = {'sparsity_levels': [0.5]}", "'prunning'", "did you mean 'pruning'"),
    "section of text": ("common = 'mini'", "section 'common'", "must be a mapping"),
    "profile without a name": ("common = {'epochs': 2.0}", "common.profile is missing", "it names the folder"),
    "key misspelt in a profile": (injection("mini", mitigation={"alhpa": 0.3}), "injected profile: .*'mitigation.alhpa'", "did you mean 'alpha'"),
    "profile that does not hold together": (injection("mini", mitigation={"bases": ["imp-71"]}), "injected profile: .*'imp-71'", "add it there"),
})
def test_what_papermill_injects(here, made, culprit, mend):
    refused(lambda: notebook.parameters("pruning", session("pruning", made)), here, culprit, mend)


# ---------------------------------------------------------------- a reader's own task
def spec(**changes):
    return yaml.safe_dump({**SPEC, **changes}, sort_keys=False)


HARD = {"file": "hard.csv"}
TASK_FILES = {
    "empty": ("", "mine.yaml: a task file", "begin with name: mine"),
    "a list": ("- name\n", "mine.yaml: a task file", "mapping of name, labels"),
    "not UTF-8": ("name: 'é'\n".encode("latin-1"), "mine.yaml: byte 8 is not UTF-8", "save the file as UTF-8"),
    "unsafe tag": ("!!python/object/apply:os.getcwd []", "line 1: .*os.getcwd", "mend that line"),
    "key twice": (spec() + "licence: MIT\n", "key 'licence' stands twice", "keep one"),
    "file twice": (spec().replace("train: train.csv", "train: train.csv\n  train: b.csv"), "key 'train' stands twice", "keep one"),
    "key misspelt": (spec(licens="CC0"), "'licens'", "did you mean 'licence'"),
    "column misspelt": (spec(columns={**PAIR, "gruop": "topic"}), "'columns.gruop'", "did you mean 'group'"),
    "no files": (spec(files={"train": "train.csv"}), "'files.test' is missing", "add it"),
    "number for text": (spec(licence=3), "licence must be text, not 3", "put it in quotes"),
    "text for a mapping": (spec(files="train.csv"), "files must be a mapping", "not 'train.csv'"),
    "name of another": (spec(name="mnli"), "name 'mnli'", "must be the file's own name"),
    "shortcut of no kind": (spec(shortcut="overlp"), "'overlp'", "did you mean 'overlap'"),
    "yes unquoted": (spec(labels=[True, False]), "labels: .*as True", "put it in quotes"),
    "one class": (spec(labels=["yes"]), "only one class 'yes'", "needs two or more"),
    "one column twice": (spec(columns={**PAIR, "text_b": "premise"}), "not premise, premise, gold", "must be columns of their own"),
    "train is test": (spec(files={"train": "test.csv", "test": "test.csv"}), "train and test are the same file, .*test.csv", "rows of its own"),
    "no OOD set": (spec(ood={}), "ood", "must hold 1 or more"),
    "OOD set called test": (spec(ood={"test": HARD}), "ood.test", "give it another name"),
    "OOD set above its folder": (spec(ood={"../x": HARD}), "ood: '../x'", "must begin with a letter or digit"),
    "OOD set of one class": (spec(ood={"hard": {**HARD, "labels": ["yes"], "collapse": {"yes": "yes", "no": "yes"}}}), "only one class 'yes'", "an OOD set needs two"),
    "OOD labels of no class": (spec(ood={"hard": {**HARD, "labels": {"yes": "E", "no": "no"}}}), "ood.hard.labels: 'E'", "add `collapse`"),
    "OOD score": (spec(ood={"hard": {**HARD, "score": "f1"}}), "ood.hard.score .*'f1'", "choose from accuracy, balanced"),
    "collapse leaves one out": (spec(ood={"hard": {**HARD, "collapse": {"yes": "yes"}}}), "class 'no' of the task is missing", "say which"),
    "collapse to no class": (spec(ood={"hard": {**HARD, "collapse": {"yes": "yess", "no": "no"}}}), "'yess'", "did you mean 'yes'"),
}


@table(TASK_FILES)
def test_task_files(here, made, culprit, mend):
    (here / "mine.yaml").write_bytes(made if isinstance(made, bytes) else made.encode())
    refused(lambda: registry.get(here / "mine.yaml"), here, culprit, mend)


@pytest.fixture
def own(here):
    """Writes a reader's task of 40 train, 10 test and 8 OOD rows, or others, and gives its path."""
    def make(train=rows(40, "train"), **changes):
        for name, frame in (("train", train), ("test", rows(10, "test")), ("hard", rows(8, "hard"))):
            write(frame, here / f"{name}.csv")
        (here / "mine.yaml").write_text(spec(**changes))
        return here / "mine.yaml"
    return make


SMALL = {"seed": 0, "n_train": 64, "n_eval": 20, "n_ood": 4}


@table({
    "task misspelt": (("micro_nil", {}), "unknown task 'micro_nil'", "did you mean 'micro_nli'"),
    "no such task file": (("/no/such.yaml", {}), "/no/such.yaml: no such task file", "mend the path"),
    "all rows of the micro-world": (("micro_nli", {"n_train": 0}), "n_train is 0, .*'micro_nli'", "give 2 or more"),
    "no rows to judge": (("micro_nli", {"n_eval": 0}), "n_eval is 0, .*'micro_nli'", "give 1 or more"),
    "negative rows": (("own", {"n_train": -1}), "n_train is -1", "give 0"),
    "subcase misspelt": (("micro_nli", {"subcase_counts": {"swop": 6}}), "'swop'", "did you mean 'swap'"),
    "counts beside the rate": (("micro_nli", {"subcase_counts": {"swap": 9}}), "sums to 9 rows", "change one of the three"),
    "counts of a task of files": (("own", {"subcase_counts": {"swap": 1}}), "task 'mine' is read from files", "leave it empty"),
    "no such data folder": (("mnli", {"data_dir": "/no/such"}), "names '/no/such'", "give the folder"),
})
def test_draws(here, own, made, culprit, mend):
    name, changes = made
    path = own() if name == "own" else name
    refused(lambda: dataset.load(registry.get(path), **{**SMALL, **changes}), here, culprit, mend)


@table({
    "too few rows": ({"train": rows(5, "train")}, "train.csv: its 5 rows", "give more rows, or a dev file"),
    "one group": ({"train": rows(40).assign(topic="a")}, "train.csv: its 40 rows, in 1 groups", "a dev file"),
    "one label": ({"train": rows(40).assign(gold="yes")}, "one label alone, 'yes'", "give rows of two"),
    "no such file": ({"files": {"train": "train.csv", "test": "tset.csv"}}, "tset.csv: no such file", "mend the path"),
    "an address": ({"files": {"train": "https://x.org/a.csv", "test": "test.csv"}}, "x.org/a.csv: no such file", "mend the path"),
    "guid in two splits": ({"train": rows(40, "test"), "columns": {**PAIR, "guid": "premise"}},
                           "test.csv: row 1, guid 'A \"test\" premise 0' stands already in .*train.csv, row 1", "a guid of its own"),
})
def test_rows_of_a_task(here, own, made, culprit, mend):
    path = own(**made)
    refused(lambda: dataset.load(registry.get(path), **SMALL), here, culprit, mend)


# ---------------------------------------------------------------- data files
HEAD = b"premise,hypothesis,gold\n"
GOOD_CSV = HEAD + b"".join(b"a %d,b,yes\n" % i for i in range(40))
LINE = b'{"premise": "a", "hypothesis": "b", "gold": "yes"}\n'
PARQUET = pa.BufferOutputStream()
pq.write_table(pa.table({"premise": ["a"] * 50, "hypothesis": ["b"] * 50, "gold": ["yes"] * 50}), PARQUET)
PARQUET = PARQUET.getvalue().to_pybytes()
DATA = {
    "column misspelt": ("a.csv", b"premise,hypotesis,gold\na,b,yes\n", "a.csv: column 'hypothesis' is missing", "did you mean 'hypotesis'"),
    "no header": ("a.csv", b"a,b,yes\n" * 3, "a.csv: column 'premise' is missing", "choose from a, b, yes"),
    "semicolons": ("a.csv", GOOD_CSV.replace(b",", b";"), "a.csv: column 'premise' is missing", "choose from premise;hypothesis;gold"),
    "empty": ("a.csv", b"", "a.csv: there is no row", "put at least one"),
    "header alone": ("a.tsv", HEAD.replace(b",", b"\t"), "a.tsv: there is no row", "put at least one"),
    "empty text": ("a.csv", HEAD + b"a,b,yes\n  ,b,no\n", "a.csv: row 2, column 'premise': the text is missing", "fill it in"),
    "label of another task": ("a.csv", HEAD + b"a,b,yes\na,b,maybe\n", "a.csv: row 2, column 'gold': unknown label 'maybe'", "known are 'yes', 'no'"),
    "label in capitals": ("a.csv", HEAD + b"a,b,YES\n", "a.csv: row 1, column 'gold': unknown label 'YES'", "mend the row or the label map"),
    "no label": ("a.csv", HEAD + b"a,b,\n", "a.csv: row 1, column 'gold': the label is missing", "fill it in"),
    "row too short": ("a.csv", GOOD_CSV + b"a\n", "a.csv: row 41, column 'hypothesis': the text is missing", "take the row out"),
    "row too long": ("a.csv", GOOD_CSV + b"a,b,yes,x\n", "a.csv: not readable as .csv.*line 42, saw 4", "save it anew"),
    "quote left open": ("a.csv", GOOD_CSV + b'"a,b,yes\n', "a.csv: not readable as .csv.*row 41", "save it anew"),
    "not UTF-8": ("a.csv", HEAD + "é,b,yes\n".encode("latin-1"), "a.csv: not readable as .csv in UTF-8", "save it anew"),
    "gz cut short": ("a.csv.gz", gzip.compress(GOOD_CSV)[:-20], "a.csv.gz: .*ended before the end-of-stream", "save it anew|put a whole"),
    "gz that is none": ("a.csv.gz", GOOD_CSV, "a.csv.gz: cannot be opened: Not a gzipped file", "put a whole, readable file"),
    "web page for jsonl": ("a.jsonl", b"<!DOCTYPE html>\n<html></html>\n", "a.jsonl: not readable as .jsonl", "save it anew"),
    "web page for parquet": ("a.parquet", b"<!DOCTYPE html>\n<html></html>\n", "a.parquet: cannot be opened", "put a whole, readable file"),
    "parquet cut short": ("a.parquet", PARQUET[:-30], "a.parquet: cannot be opened", "put a whole, readable file"),
    "jsonl cut short": ("a.jsonl", LINE * 3 + LINE[:-20], "a.jsonl: not readable as .jsonl.*row 3", "save it anew"),
    "jsonl of numbers": ("a.jsonl", b'{"premise": 3, "hypothesis": "b", "gold": "yes"}\n', "a.jsonl: row 1, column 'premise': 3 is not text", "write it as a string"),
    "jsonl without a key": ("a.jsonl", LINE + b'{"premise": "a"}\n', "a.jsonl: row 2, column 'hypothesis': the text is missing", "fill it in"),
    "a pickle": ("a.pkl", b"x", "a.pkl: format '.pkl' is not read", "save the rows as .csv"),
    "a spreadsheet": ("a.xlsx", b"x", "a.xlsx: format '.xlsx' is not read", "save the rows as .csv"),
}


@pytest.mark.parametrize("name, content, culprit, mend", list(DATA.values()), ids=list(DATA))
def test_data_files(here, name, content, culprit, mend):
    (here / name).write_bytes(content)
    refused(lambda: sources.read(sources.Table(str(here / name), PAIR, {"yes": 0, "no": 1})), here, culprit, mend)


def test_data_of_another_digest(here):
    (here / "a.csv").write_bytes(GOOD_CSV)
    known = sources.Table("a.csv", PAIR, {"yes": 0, "no": 1}, {"sha256:0": "official"})
    refused(lambda: sources.read(known, here), here, "a.csv: expected sha256:0, found sha256:[0-9a-f]{64}", "put the expected file back")


# ---------------------------------------------------------------- predictions
ITEMS = pd.DataFrame({"guid": [f"r{i}" for i in range(4)], "split": ["dev", "dev", "test", "test"], "label": [0, 1, 0, 1]})
TABLE = store.predictions_table(ITEMS, np.arange(8.0).reshape(4, 2))


@table({
    "column misspelt": (TABLE.rename(columns={"logits": "logit"}), r"missing \['logits'\], not known \['logit'\]", "columns must be"),
    "no rows": (TABLE.iloc[:0], "mine: the table has no rows", "give one"),
    "guid of numbers": (TABLE.assign(guid=range(4)), r"mine: row 1 .*guid must be text", "must be text"),
    "guid twice": (TABLE.assign(guid=["r0", "r1", "r0", "r3"]), "row 3 .*'r0'.*twice", "one of its own"),
    "no split": (TABLE.assign(split=["dev", None, "test", "test"]), r"row 2 \(guid 'r1'\): split", "must be text"),
    "label of text": (TABLE.assign(label=list("abab")), "column label", "must hold whole numbers"),
    "negative label": (TABLE.assign(label=[0, -1, 0, 1]), r"row 2 \(guid 'r1'\): label", "a class id of 0 or more"),
    "logits of text": (TABLE.assign(logits=[["a", "b"]] * 4), r"row 1 \(guid 'r0'\): logits", "must be a list of numbers"),
    "logits of nothing": (TABLE.assign(logits=[*TABLE["logits"][:3], None]), r"row 4 \(guid 'r3'\): logits", "must be a list of numbers"),
    "logits of one class": (TABLE.assign(logits=[[1.0]] * 4), "not 1", "two classes or more"),
    "a class more": (TABLE.assign(logits=[[1.0, 2.0], [1.0, 2.0, 3.0], *[[1.0, 2.0]] * 2]), "row 2 .*logits", "as many classes as the first row's 2"),
    "logits that are no numbers": (TABLE.assign(logits=[[1.0, 2.0]] * 3 + [[np.nan, 1.0]]), "row 4 .*logits", "must be finite"),
    "another task's row": (TABLE.assign(guid=["r0", "r1", "r2", "s3"]), "row 4 .*'s3'.*not among the task's rows", "predict the rows"),
    "label of another row": (TABLE.assign(label=[0, 1, 1, 1]), "row 3 .*label differs", "predict the rows"),
})
def test_predictions(here, made, culprit, mend):
    store.check_predictions(TABLE, ITEMS)
    refused(lambda: store.check_predictions(made, ITEMS, "mine"), here, culprit, mend)


def another_schema(path):
    pq.write_table(pq.read_table(path).replace_schema_metadata({"predictions_schema": "0"}), path)
    (path.parent / files.CHECKSUMS).unlink()
    files.seal(path.parent)


@table({
    "gone": (Path.unlink, "p.parquet is not there", "run the stage"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-50]), "p.parquet was altered or cut short", "delete it"),
    "of another schema": (another_schema, "p.parquet: predictions schema is '0'", "delete the file"),
})
def test_a_predictions_file(here, made, culprit, mend):
    store.write_predictions(here / "p.parquet", TABLE)
    made(here / "p.parquet")
    refused(lambda: store.read_predictions(here / "p.parquet"), here, culprit, mend)


def wide(run, **columns):
    arrow = pa.table({"guid": ITEMS["guid"], **columns}).replace_schema_metadata({"reference_schema": runs.SCHEMA})
    pq.write_table(arrow, run / "predictions.parquet")


@table({
    "of no profile": (lambda run: shutil.rmtree(run), "smoke/micro_nli/seed0 is not in the reference", "it has no run"),
    "without predictions": (lambda run: (run / "predictions.parquet").unlink(), "predictions.parquet cannot be read .*not there", "check it out of git again"),
    "a pointer of git": (lambda run: (run / "predictions.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "predictions.parquet cannot be read", "check it out"),
    "without guids": (lambda run: pq.write_table(pq.read_table(run / "predictions.parquet").drop_columns("guid"), run / "predictions.parquet"), "predictions.parquet: column 'guid' is missing", "check it out"),
    "without logits": (lambda run: wide(run, dense=[1.0] * 4), "predictions.parquet: column 'dense' .*holds no logits", "check it out"),
    "of other rows": (lambda run: ITEMS.assign(easy=True).iloc[1:].to_parquet(run / "items.parquet"), "predictions.parquet: guid 'r0' is not among", "collect it again"),
    "rows without a split": (lambda run: ITEMS.assign(easy=True).drop(columns="split").to_parquet(run / "items.parquet"), "items.parquet: column 'split' is missing", "check it out"),
    "cut short": (lambda run: (run / "predictions.parquet").write_bytes(b"PAR1"), "predictions.parquet cannot be read", "check it out"),
    "a model without numbers": (lambda run: wide(run, dense=pa.array([[np.nan, 1.0]] * 4, pa.list_(pa.float64(), 2))), "seed0: dense: row 1 .*'r0'.*logits", "must be finite"),
})
def test_the_reference(here, made, culprit, mend):
    run = here / "outputs" / "reference" / "smoke" / "micro_nli" / "seed0"
    run.mkdir(parents=True)
    ITEMS.assign(easy=True).to_parquet(run / "items.parquet")
    wide(run, dense=pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float64(), 2)))
    runs.load("smoke", "micro_nli", 0, here)
    made(run)
    refused(lambda: runs.load("smoke", "micro_nli", 0, here), here, culprit, mend)


@table({
    "records cut short": (("02_teacher/models.json", "[{"), "models.json cannot be read", "check it out"),
    "records of no model": (("02_teacher/models.json", '[{"key": "a"}]'), "models.json cannot be read .*no list of models", "check it out"),
    "costs cut short": (("costs.json", "{"), "costs.json cannot be read", "check it out"),
    "costs of another model": (("costs.json", '{"imp-70": {}}'), "costs.json has no model 'dense'", "check it out"),
})
def test_records_of_the_reference(here, made, culprit, mend):
    (here / "02_teacher").mkdir()
    (here / "02_teacher" / "models.json").write_text('[{"model": "dense"}]')
    (here / made[0]).write_text(made[1])
    refused(lambda: runs.ReferenceRun(here).models()["dense"].cost, here, culprit, mend)


# ---------------------------------------------------------------- encoders and models
def config(**changes):
    """Change keys of config.json; None takes one away."""
    def edit(folder):
        values = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return edit


def put(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


ENCODERS = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "tiny has no config.json", "give a folder written by save_pretrained"),
    "config that is no JSON": (put("config.json", b"{"), "tiny/config.json' is not a valid JSON", "a folder with config.json"),
    "config of no kind": (config(model_type=None, architectures=None), "Should have a `model_type` key", "a folder with config.json"),
    "config of an unknown kind": (config(model_type="nosuch", architectures=None), "`nosuch`", "a folder with config.json"),
    "config of remote code": (config(model_type="mine", auto_map={"AutoConfig": "code.Mine"}), "contains custom code", "a folder with config.json"),
    "heads that do not divide": (config(num_attention_heads=3), r"\(16\) is not a multiple of .*\(3\)", "a folder with config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors", "a folder with .*model.safetensors"),
    "pickled weights alone": (pickled, "no file named model.safetensors", "a folder with .*model.safetensors"),
    "weights cut short": (cut("model.safetensors", -100), "tiny' cannot be loaded .*incomplete metadata", "a folder with .*model.safetensors"),
    "weights of a pointer of git": (put("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "tiny' cannot be loaded .*header", "a folder with .*model.safetensors"),
    "a vision model": (config(model_type="vit", architectures=None), "a model of type 'vit' cannot be trained", "take a BERT, RoBERTa, .* encoder"),
    "a decoder": (config(model_type="gpt2", architectures=None), "a model of type 'gpt2' cannot be trained", "take a BERT, RoBERTa, .* encoder"),
    "tokenizer cut short": (cut("tokenizer.json", 40), "tiny' cannot be loaded", "the tokenizer's files"),
    "tokenizer half there": (lambda folder: (folder / "tokenizer.json").unlink(), "tiny' cannot be loaded .*tokenizer", "the tokenizer's files"),
    "no tokenizer": (lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
                     "tiny': its tokenizer has no vocabulary", "put tokenizer.json, or vocab.txt"),
    "tokenizer larger than the model": (config(vocab_size=6), r"tiny': its tokenizer has \d+ tokens, its model 6", "from the same folder"),
    "config of another depth": (config(num_hidden_layers=9), r"its weights lack 'bert.encoder.layer.\d", "of the same model"),
    "config of another size": (config(intermediate_size=48), "its weights lack 'bert.encoder.layer.0.intermediate", "of the same model"),
    "config of a wrong type": (config(hidden_size="many"), "tiny' cannot be loaded", "a folder with config.json"),
    "tokenizer that is empty": (put("tokenizer.json", b"{}"), "tiny' cannot be loaded", "the tokenizer's files"),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_encoder):
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny", ["a b c", "d e"])


@table(ENCODERS)
def test_encoder_folders(here, tiny, made, culprit, mend):
    shutil.copytree(tiny, here / "tiny")
    made(here / "tiny")

    def load():
        pretrained.load_tokenizer(str(here / "tiny"))
        pretrained.load_classifier(str(here / "tiny"), 2, seed=0, layers=[0])
    refused(load, here, culprit, mend)


@table({
    "path misspelt": ("/no/such/folder", "'/no/such/folder': there is no folder", "mend the path"),
    "a file": ("config.json", "config.json' cannot be loaded", "write 'offline' or 'offline-base', a hub id"),
    "on no hub that answers": ("no-such/encoder", "'no-such/encoder' cannot be loaded", "fetch the folder elsewhere"),
})
def test_encoder_names(here, monkeypatch, made, culprit, mend):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(lambda: pretrained.load_classifier(made, 2, seed=0), here, culprit, mend)


@table({
    "structure misspelt": (("truncated3", {}), "'truncated3' is not a model name", "did you mean 'truncated'"),
    "as many layers as there are": (("truncated-2", {}), "'truncated-2': the dense model has 2 layers", "K is 1 to 1"),
    "percent above all": (("imp-120", {}), "'imp-120'", "must be below 100"),
    "loss misspelt": (("dense + rmcc", {}), "'rmcc' is no loss", "did you mean 'rmc'"),
    "loss without a teacher": (("truncated-1 + rmc", {"strength": 0.5}), "loss 'rmc' needs teacher_logits", "teacher_logits="),
    "weights of other rows": (("dense + jtt", {"weights": np.ones(3)}), "weights has 3 rows, labels have 64", "must be the same rows"),
    "quantised from nothing": (("dense + ptq8", {}), "'dense \\+ ptq8': ptq8 starts from a finished model", "hand it"),
    "levels beyond the run": (("imp-50", {"run_levels": (0.3, 0.6)}), "sparsity 0.6 is not on the way", "up to its 0.5"),
    "folder of no encoder": (("/no/such", {}), "'/no/such': there is no folder", "mend the path"),
})
def test_models(here, tiny_run, micro, monkeypatch, made, culprit, mend):
    monkeypatch.setattr(schema, "ROOT", here)
    monkeypatch.setattr(loop, "fit", None)
    (tiny_run.outputs / "store").mkdir(parents=True)
    refused(lambda: make.model(tiny_run, micro, made[0], make.Extras(**made[1])), here, culprit, mend)


@table({
    "quantisation misspelt": ("dense + ptq9", "'ptq9' is no loss", "did you mean 'ptq8'"),
    "heads that 04 cuts": ("heads-25 + ptq8", "'heads-25' is made in notebook 04", "add its share to pruning.head_fractions"),
})
def test_recipes(here, tiny_run, micro, made, culprit, mend):
    refused(lambda: recipes.follow_all(tiny_run, micro, [made], {"dense": store.Model(here)}), here, culprit, mend)


# ---------------------------------------------------------------- claims
@table({
    "empty": ("", "claims.yaml: must be a list", "beginning with '- id:'"),
    "not UTF-8": ("- id: é\n".encode("latin-1"), "claims.yaml: byte 7 is not UTF-8", "save the file as UTF-8"),
    "unsafe tag": ("- !!python/name:os.system\n", "line 1: .*os.system", "mend that line"),
    "key twice": (yaml.safe_dump([GOOD]) + "  measure: gap\n", "key 'measure' stands twice", "keep one"),
    "id twice": ([GOOD, GOOD], "claim A1: the id stands there twice", "give each claim its own"),
    "id of two words": ([GOOD | {"id": "A 1"}], "claim A 1: id: 'A 1'", "must be one word"),
    "no direction": ([{key: value for key, value in GOOD.items() if key != "direction"}], "claim A1: key 'direction' is missing", "add it"),
    "key misspelt": ([GOOD | {"directon": "above"}], "unknown key 'directon'", "did you mean 'direction'"),
    "key of a number": ([GOOD | {3: 4}], "claim A1: unknown key '3'", "choose from id, claim"),
    "measure misspelt": ([GOOD | {"measure": "fbias"}], "measure is 'fbias'", "did you mean 'f_bias'"),
    "no model": ([GOOD | {"models": []}], "claim A1: models", "must hold 1 or more"),
    "no task": ([GOOD | {"tasks": []}], "claim A1: tasks", "must hold 1 or more"),
    "effect that is no number": ([GOOD | {"smallest_effect": float("nan")}], "smallest_effect is nan", "finite number"),
    "effect of nothing": ([GOOD | {"smallest_effect": 0.0}], "claim A1: smallest_effect", "must be above 0"),
    "table misspelt": ([GOOD | {"published": ["a_mitigatoin"]}], "'a_mitigatoin'", "did you mean 'a_mitigation'"),
})
def test_claims(here, made, culprit, mend):
    text = made if isinstance(made, bytes) else (made if isinstance(made, str) else yaml.safe_dump(made)).encode()
    (here / "claims.yaml").write_bytes(text)
    refused(lambda: declared.load(here / "claims.yaml"), here, culprit, mend)


@table({"gone": ("no.yaml", "no.yaml: cannot be read", "give the path"), "a folder": (".", r"\.: cannot be read", "give the path")})
def test_claims_files(here, made, culprit, mend):
    refused(lambda: declared.load(made), here, culprit, mend)


# ---------------------------------------------------------------- command lines
@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project's ways in, copied: what they write would stand here."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "lib", folder / "lib")
    shutil.copytree(ROOT / "params", folder / "params")
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "04_pruning.ipynb").write_text("{}")
    (folder / "README.md").write_text("## What was found\n<!-- found: nano A4 -->a<!-- end -->\n")
    (folder / "outputs" / "reference" / "mini").mkdir(parents=True)
    (folder / "outputs" / "reference" / "mini" / "params.yaml").write_text("common: {profile: mini}\n")
    return folder


SNAKEMAKE = "snakemake -n --nolock --cores 1 --config"
COMMANDS = {
    "params, profile": ("lib.params.profile min mitigation", 2, "no profile 'min' in params; did you mean 'mini'?"),
    "params, section": ("lib.params.profile mini mitigaton", 2, "no section 'mitigaton'; did you mean 'mitigation'?"),
    "params, key": ("lib.params.profile mini mitigation --set mitigation.alhpa=3", 2, "unknown key 'mitigation.alhpa'; did you mean 'alpha'?"),
    "params, seed": ("lib.params.profile mini mitigation --seed -1", 2, "common.seed = -1: should be greater than or equal to 0"),
    "params, task": ("lib.params.profile mini mitigation --task micro_nil", 2, "'micro_nil' is no task .* did you mean 'micro_nli'?"),
    "statements, block": ("lib.tools.findings --check", 1, "README.md: line 2: the reference has no ledger of a profile 'nano'"),
    "statements, write": ("lib.tools.findings", 1, "README.md: line 2: the reference has no ledger of a profile 'nano'"),
    "notebooks": ("lib.tools.executed 04_prunning", 2, "no notebook '04_prunning'; did you mean '04_pruning'?"),
    "reference": ("lib.tools.reference --check mini min", 2, "no profile 'min': collect it .* first; did you mean 'mini'?"),
    "snakemake, override": (f"{SNAKEMAKE} study_profile=mini overrides=mitigation.alhpa=0.4", 1, "unknown key 'mitigation.alhpa'; did you mean 'alpha'?"),
    "snakemake, profile": (f"{SNAKEMAKE} study_profile=min", 1, "no profile 'min' in params; did you mean 'mini'?"),
}


@pytest.fixture(scope="module")
def ended(project):
    """How each command ended, by its name; they run two at a time, and none changes anything in the project."""
    def run(command):
        return subprocess.run([sys.executable, "-m", *command.split()], cwd=project, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1",
                                   "OMP_NUM_THREADS": "1"})
    before = state(project)
    with ThreadPoolExecutor(2) as pool:
        ended = dict(zip(COMMANDS, pool.map(run, [command for command, _, _ in COMMANDS.values()])))
    assert state(project) == before
    return ended


@pytest.mark.parametrize("name", COMMANDS)
def test_command_lines(ended, name):
    (command, status, says), done = COMMANDS[name], ended[name]
    said = (done.stderr + done.stdout).splitlines()
    assert done.returncode == status and not any(line.startswith("Traceback") for line in said), said
    assert len([line for line in said if re.search(says.replace("?", r"\?"), line)]) == 1, said
    assert len(said) == 1 or "snakemake" in command, "Snakemake adds where in the Snakefile"
