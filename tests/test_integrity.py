"""Damaged, foreign and half-written files are noticed, named and made anew; a full disk leaves nothing half-written."""
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from lib import files, store
from lib.errors import StudyError
from lib.params.profile import load_profile
from lib.params.stages import CHAIN
from lib.tools import integrity

ITEMS = pd.DataFrame({"guid": [f"r{i}" for i in range(6)], "split": ["test"] * 6, "label": [0, 1] * 3})


def fill(folder: Path, name: str, key: str, size: int = 16) -> None:
    (folder / "model").mkdir()
    save_file({"w": torch.ones(size)}, folder / "model" / "model.safetensors")
    logits = np.arange(12.0).reshape(6, 2)
    store.write_predictions(folder / "predictions.parquet", store.predictions_table(ITEMS, logits))
    store.write_json(folder / "cost.json", {"seconds": 1.0})
    store.write_json(folder / "record.json", {"model": name, "key": key})


@pytest.fixture
def outputs(tmp_path):
    """A profile with two models, three stages, a figure and an attack's part."""
    outputs = tmp_path / "smoke"
    run = outputs / "micro_nli" / "seed0"
    made = {name: store.add(outputs / "store", key, lambda folder: fill(folder, name, key))
            for name, key in (("dense", "k0"), ("imp-70", "k1"))}
    store.write_items(run / "01_data" / "data.parquet", ITEMS)
    store.write_stage(run / "02_teacher", [made["dense"]])
    store.write_stage(run / "04_pruning", list(made.values()))
    store.write_csv(run / "04_pruning" / "scores.csv", ITEMS)
    store.write_csv(run / "04_pruning" / "figures" / "sweep.csv", ITEMS)
    store.write_items(run / "08_loyalty_and_attacks" / "attacks.parquet", ITEMS)
    store.write_items(run / "08_loyalty_and_attacks" / "attacks" / "k0.parquet", ITEMS)
    store.write_csv(outputs / "09_claims" / "ledger.csv", ITEMS)
    return outputs


def left(outputs: Path) -> set[str]:
    """The files by which Snakemake sees what is done, and the models."""
    done = {path.parent.name for stage in CHAIN.values() for path in outputs.rglob(f"{stage.notebook}/{stage.done}")}
    return done | {path.name for path in (outputs / "store").iterdir()}


ALL = {"01_data", "02_teacher", "04_pruning", "08_loyalty_and_attacks", "09_claims", "k0", "k1"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    """Another hand's file of the same name, where the study's own record of it is gone too."""
    path.unlink()
    (path.parent / files.CHECKSUMS).unlink(missing_ok=True)
    path.write_text("[]")


RUN = "micro_nli/seed0"


@pytest.mark.parametrize("damage, file, lost", [
    (cut, "store/k1/model/model.safetensors", {"k1", "04_pruning"}),
    (alter, "store/k0/model/model.safetensors", {"k0", "02_teacher", "04_pruning"}),
    (alter, "store/k1/predictions.parquet", {"k1", "04_pruning"}),
    (Path.unlink, "store/k1/record.json", {"k1", "04_pruning"}),
    (Path.unlink, "store/k1/cost.json", {"k1", "04_pruning"}),
    (Path.unlink, "store/k1/checksums.json", {"k1", "04_pruning"}),
    (cut, "store/k1/checksums.json", {"k1", "04_pruning"}),
    (cut, f"{RUN}/01_data/data.parquet", {"01_data"}),
    (foreign, f"{RUN}/01_data/data.parquet", {"01_data"}),
    (alter, f"{RUN}/02_teacher/models.json", {"02_teacher"}),
    (foreign, f"{RUN}/02_teacher/models.json", {"02_teacher"}),
    (cut, f"{RUN}/04_pruning/scores.csv", {"04_pruning"}),
    (Path.unlink, f"{RUN}/04_pruning/scores.csv", {"04_pruning"}),
    (alter, f"{RUN}/04_pruning/figures/sweep.csv", {"04_pruning"}),
    (cut, f"{RUN}/08_loyalty_and_attacks/attacks/k0.parquet", {"08_loyalty_and_attacks"}),
    (alter, "09_claims/ledger.csv", {"09_claims"}),
])
def test_what_is_damaged_is_named_and_made_anew_and_the_rest_stays(outputs, damage, file, lost):
    assert integrity.mend(outputs) == [] and left(outputs) == ALL
    damage(outputs / file)
    said = integrity.mend(outputs)
    name = "record.json" if file.endswith("checksums.json") else Path(file).name
    assert len(said) == 1 and str((outputs / file).relative_to(outputs).parts[-2]) in said[0] and name in said[0]
    assert left(outputs) == ALL - lost
    assert integrity.mend(outputs) == []


def test_a_model_under_another_key_is_foreign(outputs):
    shutil.copytree(outputs / "store" / "k0", outputs / "store" / "k2")
    with pytest.warns(UserWarning, match="of another model"):
        assert store.find(outputs / "store", "k2") is None
    assert "of another model (k0)" in integrity.mend(outputs)[0] and left(outputs) == ALL


def test_the_notebook_of_a_model_that_was_deleted_runs_again(outputs):
    shutil.rmtree(outputs / "store" / "k1")
    said = integrity.mend(outputs)
    assert left(outputs) == ALL - {"04_pruning", "k1"} and len(said) == 1 and "k1 is not in the store" in said[0]


def test_weights_that_were_let_go_are_no_damage(outputs):
    store.let_go([store.Model(outputs / "store" / "k0")])
    assert not integrity.mend(outputs) and left(outputs) == ALL


def test_what_was_found_sound_is_not_read_again(outputs, monkeypatch):
    integrity.mend(outputs)
    monkeypatch.setattr(files, "fault", lambda folder, name: "was read")
    assert integrity.mend(outputs) == []
    os.utime(outputs / "09_claims" / "ledger.csv", ns=(1, 1))
    assert len(integrity.mend(outputs)) == 1


def test_half_written_files_of_killed_runs_go_after_a_day(outputs):
    old, new = outputs / "store" / ".k9-abc", outputs / "09_claims" / ".ledger.csv-abc"
    old.mkdir()
    (old / "model.safetensors").write_text("half")
    new.write_text("half")
    os.utime(old, (time.time() - 2 * integrity.DAY,) * 2)
    assert integrity.mend(outputs) == [] and not old.exists() and new.exists()


@pytest.mark.parametrize("file, read", [
    ("01_data/data.parquet", lambda run: store.read_items(run / "01_data" / "data.parquet")),
    ("04_pruning/scores.csv", lambda run: store.read_csv(run / "04_pruning" / "scores.csv")),
    ("04_pruning/models.json", lambda run: store.read_stage(run / "04_pruning")),
    ("../../store/k1/predictions.parquet", lambda run: store.read_stage(run / "04_pruning")["imp-70"].predictions()),
    ("../../store/k1/model/model.safetensors", lambda run: store.read_stage(run / "04_pruning")["imp-70"].path),
    ("../../store/k1/cost.json", lambda run: store.read_stage(run / "04_pruning")["imp-70"].cost),
    ("../../store/k1/record.json", lambda run: store.read_stage(run / "04_pruning")),
])
def test_a_damaged_file_is_refused_before_it_is_used(outputs, file, read):
    run = outputs / RUN
    read(run)
    alter((run / file).resolve())
    told = f"{Path(file).name} was altered or cut short since it was written: `make study`"
    with pytest.raises(StudyError, match=told):
        read(run)


def test_a_damaged_model_is_trained_again_when_it_is_asked_for(outputs):
    alter(outputs / "store" / "k1" / "model" / "model.safetensors")
    with pytest.warns(UserWarning, match="k1: model/model.safetensors was altered .* made anew"):
        assert store.find(outputs / "store", "k1") is None
    with pytest.warns(UserWarning):
        again = store.add(outputs / "store", "k1", lambda folder: fill(folder, "imp-70", "k1"))
    assert store.find(outputs / "store", "k1") == again and again.path.is_dir()


def test_of_two_that_make_the_same_model_the_first_stays(tmp_path):
    def slower(folder):
        store.add(tmp_path, "k1", lambda other: fill(other, "first", "k1"))
        fill(folder, "second", "k1")
    assert store.add(tmp_path, "k1", slower).name == "first" and [p.name for p in tmp_path.iterdir()] == ["k1"]


def test_a_locked_profile_is_left_alone(tmp_path):
    with files.lock(tmp_path / "mini"), pytest.raises(StudyError, match="another run of the profile 'mini'"):
        with files.lock(tmp_path / "mini"):
            pass
    with files.lock(tmp_path / "mini"):
        pass


def test_the_command_says_what_it_found(outputs, monkeypatch, capsys):
    monkeypatch.setattr(integrity, "ROOT", outputs.parent)
    shutil.move(outputs, outputs.parent / "outputs" / load_profile("smoke").name)
    cut(outputs.parent / "outputs" / "smoke" / "09_claims" / "ledger.csv")
    integrity.mend_profile(["smoke"])
    assert "damaged:" in (said := capsys.readouterr().out) and "ledger.csv was altered" in said
    with pytest.raises(SystemExit) as stopped:
        integrity.mend_profile(["smokey"])
    assert stopped.value.code == 2 and "did you mean 'smoke'" in capsys.readouterr().err


def test_where_nothing_ran_nothing_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(integrity, "ROOT", tmp_path)
    integrity.mend_profile(["smoke"])
    assert not any(tmp_path.iterdir()) and not capsys.readouterr().out


# --- a full disk

@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk (root)")
    yield disk
    subprocess.run(["umount", disk], check=True)


BIG = pd.DataFrame({"guid": [f"r{i}" for i in range(200_000)], "x": np.random.default_rng(0).random(200_000)})


@pytest.mark.parametrize("write", [
    lambda disk: store.write_csv(disk / "t", BIG), lambda disk: store.write_items(disk / "t", BIG),
    lambda disk: store.write_json(disk / "t", BIG["x"].tolist()),
    lambda disk: store.add(disk / "store", "t", lambda folder: fill(folder, "dense", "t", size=10**6)),
], ids=["csv", "parquet", "json", "model"])
def test_a_full_disk_is_said_and_leaves_no_half_file(small_disk, write):
    store.write_csv(small_disk / "kept.csv", ITEMS)
    with pytest.raises(StudyError, match="t: the disk is full; make room and run again"):
        write(small_disk)
    files_left = {path.name for path in small_disk.rglob("*") if path.is_file()}
    assert files_left == {"kept.csv", "checksums.json"} and len(store.read_csv(small_disk / "kept.csv")) == 6
    assert json.loads((small_disk / "checksums.json").read_text()).keys() == {"kept.csv"}
