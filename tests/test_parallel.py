"""Two processes train what one trains: the same losses, gradient norms and logits, for every kind of loss and of change.

This file is also the program of those two processes, which are started once for all tests: it trains the cases, then does
what `python -m lib.parallel` would do, and then fails in rank 1.
"""

import runpy
import sys
from pathlib import Path
from contextlib import nullcontext
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
from lib import losses, models, names, parallel, params, replacing, store, training, transfer
from lib.errors import StudyError

STEPS, ROWS = 12, 32
PLAN = training.Plan(steps=STEPS, batch_size=8, learning_rate=0.002, warmup=0.2, weight_decay=0.01, dtype="fp32",
                     device="cpu", seed=3)
CASES = ("vanilla", "distil", "focal", "jtt", "pkd", "tinybert", "theseus", "bf16", "frozen")
WHAT = ("loss", "norms", "logits", "along")
clip_gradients = torch.nn.utils.clip_grad_norm_
CLOSE = dict(rtol=1e-4, atol=1e-4)  # sums in another order, over 12 steps of AdamW


def teacher():
    """Another model than the student, which starts as the same."""
    model = tiny.classifier(layers=4, dropout=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    return model


def fitted(case, team=None):
    """Losses, gradient norms before clipping, logits at the end and after step 5 of a tiny model, from the same weights
    each time. The norms are looked at because AdamW hides a wrong scale."""
    training.deterministic(0, threads=1)
    encoded, model = tiny.rows(ROWS), tiny.classifier(layers=4)
    model.base_model.embeddings.requires_grad_(case != "frozen")
    draw, change, along, norms = torch.Generator().manual_seed(1), None, [], []
    given = dict(teacher_logits=torch.randn(ROWS, 2, generator=draw), weights=torch.rand(ROWS, generator=draw) + 0.1)
    loss = case if case in losses.NAMES else "distil"
    objective = losses.objective(loss, encoded.labels, **given)
    if case == "theseus":  # some batches draw no successor at all
        change = replacing.Replacer(model, 2, schedule="constant", start=0.0, rate=0.3, share=0.8, steps=STEPS, seed=0)
    plan = PLAN if case != "bf16" else training.Plan(**vars(PLAN) | {"dtype": "bf16"})

    def predicted():
        return training.predict(model, encoded, dtype="fp32", device="cpu")

    def clip(parameters, limit):
        norms.append(float(clip_gradients(parameters, limit)))
    copying = transfer.objective(objective, model, teacher(), case, 1.0, team) if case in names.TRANSFERS \
        else nullcontext(objective)
    with copying as objective, mock.patch.object(torch.nn.utils, "clip_grad_norm_", clip):
        log, _ = training.fit(model, encoded, objective, plan, after_step=change.after_step if change else None,
                              checkpoints={5: lambda: along.append(predicted())}, team=team)
    return log["loss"].to_numpy(), np.array(norms), predicted(), along[0]


@pytest.fixture(scope="module")
def both(tiny_run, micro):
    """A model pruned and distilled by one process and by two, and what those two found for the cases and then said."""
    extras = models.Extras(
        teacher=models.make(tiny_run, micro, "dense", models.Extras(predict_train=True)), strength=np.linspace(0.3, 1.0, 64),
        kd_weight=0.9, run_levels=(0.3, 0.5), checkpoint_splits=("train",), predict_train=True)
    run, launch = tiny_run.model_copy(update={"dropout": 0.0, "learning_rate": 0.002}), parallel.launch
    of_two, found = run.model_copy(update={"processes": 2}), {}

    def launched(program, processes, threads, folder):
        assert program == ["-m", "lib.parallel", str(folder)]
        with pytest.raises(StudyError) as told:
            launch([__file__, str(folder)], processes, threads, folder)
        assert (folder / "found.npz").exists(), told.value
        found.update(np.load(folder / "found.npz"), told=str(told.value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "launch", launched)
        made = [models.make(one, micro, "imp-50 + rmc", extras) for one in (run, of_two)]
    return SimpleNamespace(runs=(run, of_two), extras=extras, made=made, found=found)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_trains(both, case):
    close = CLOSE if case != "bf16" else dict(rtol=0.05, atol=0.05)
    for what, alone in zip(WHAT, fitted(case)):
        assert np.allclose(both.found[f"{case}-{what}"], alone, **close), what


def test_dropout_differs_by_process_and_weights_do_not(both):
    assert both.found["seeds"][0] != both.found["seeds"][1]
    assert both.found["same"], "the weights of both processes are the same bits"


def test_a_process_that_fails_is_told_in_one_line(both):
    assert both.found["told"] == "one of the 2 processes failed: rank 1 has had enough"


def test_a_model_made_by_two_processes_is_the_one_made_by_one(both):
    alone, shared = both.made
    one, two = (pd.read_csv(model.folder / "log.csv") for model in both.made)
    assert np.allclose(one, two, **CLOSE)
    for table in ("predictions", "checkpoints"):
        a, b = (getattr(model, table)() for model in both.made)
        assert a.drop(columns="logits").equals(b.drop(columns="logits"))
        assert np.allclose(np.stack(a["logits"]), np.stack(b["logits"]), rtol=1e-3, atol=1e-3), table
    assert shared.record["nonzero_parameters"] == alone.record["nonzero_parameters"]
    assert shared.record["processes"] == 2 and "processes" not in alone.record
    assert not list(shared.folder.parent.glob(".*")), "nothing temporary is left"


def test_the_key_of_one_process_knows_nothing_of_processes(both, micro, monkeypatch):
    found = []
    monkeypatch.setattr(store, "key", lambda ingredients: found.append(ingredients) or "0" * 16)
    monkeypatch.setattr(store, "find", lambda *_: both.made[0])
    for one in both.runs:
        models.make(one, micro, "imp-50 + rmc", both.extras)
        models.make(one, micro, "untrained")
    (alone, untrained), (shared, still) = found[:2], found[2:]
    assert shared == alone | {"processes": 2, "source": shared["source"]} and shared["source"] != alone["source"]
    assert untrained == still and "processes" not in alone, "what is not trained is made by one"


def test_a_team_that_fails_leaves_nothing(tiny_run, micro, monkeypatch):
    def fails(program, processes, threads, folder):
        assert program[:2] == ["-m", "lib.parallel"] and (folder / "job.json").exists()
        raise StudyError("one of the 2 processes failed")
    monkeypatch.setattr(parallel, "launch", fails)
    run = tiny_run.model_copy(update={"processes": 2, "profile": "nothing"})
    with pytest.raises(StudyError, match="one of the 2 processes failed"):
        models.make(run, micro, "dense")
    assert not list((run.outputs / "store").iterdir())


def test_batches_and_machines_that_do_not_fit_are_refused(tiny_run, micro, monkeypatch):
    with pytest.raises(StudyError, match="common.processes = 3: a batch of 32 rows cannot be shared by 3 processes"):
        params.load("smoke", ["common.processes=3"])
    assert params.load("smoke", ["common.processes=4"]).run("teacher", "micro_nli", 0).processes == 4
    for device, match in (("mps", "on mps a model is trained by one"), ("cuda", "there are 1 here; give that many")):
        monkeypatch.setattr(training, "device", lambda name, device=device: device)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(StudyError, match=f"common.processes = 2: .*{match}"):
            models.make(tiny_run.model_copy(update={"processes": 2}), micro, "dense")


def main(folder):
    team = parallel.Team("cpu", spares=True)
    found = {f"{case}-{what}": value for case in CASES for what, value in zip(WHAT, fitted(case, team))}
    mine = torch.from_numpy(found["vanilla-logits"])
    seed = torch.tensor([[team.seed(0)]], dtype=torch.float64, requires_grad=True)
    found |= {"same": torch.equal(team.mean(mine.clone()), mine), "seeds": team.whole(seed).detach().ravel().numpy()}
    if team.rank == 0:
        np.savez(folder / "found.npz", **found)
    runpy.run_module("lib.parallel", run_name="__main__")
    if team.rank == 1:
        raise StudyError("rank 1 has had enough")


if __name__ == "__main__":
    with parallel.member(Path(sys.argv[1])):
        main(Path(sys.argv[1]))
