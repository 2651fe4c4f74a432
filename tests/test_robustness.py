"""The attack on every model of a run: kept as it is found, released without texts, replayed where a model was right."""
import os

import numpy as np
import pandas as pd
import pytest
import torch

from lib import store
from lib.errors import StudyError
from lib.models import devices, make
from lib.params.profile import load_profile
from lib.params.schema import Run
from lib.trials import candidates, robustness


@pytest.fixture(scope="module")
def run(tiny_run):
    """Notebook 08's run, with the outputs and the encoder of the tiny one."""
    common = {name: getattr(tiny_run, name) for name in Run.model_fields}
    return load_profile("smoke").run("loyalty", "micro_nli", 0).model_copy(update=common)


@pytest.fixture(scope="module")
def finished(tiny_run, micro):
    longer = tiny_run.model_copy(update={"epochs": 3.0})
    dense = make.model(longer, micro, "dense")
    return {"dense": dense, "truncated-1": make.model(longer, micro, "truncated-1"),
            "dense + ptq8": make.model(longer, micro, "dense + ptq8", make.Extras(start=dense))}


@pytest.fixture(scope="module")
def chosen(micro):
    return robustness.chosen_rows(micro, 12)


@pytest.fixture(scope="module")
def source(run):
    return robustness.source_of(run)


@pytest.fixture(scope="module")
def found(finished, run, chosen, source):
    return robustness.attacks(finished, run, chosen, source)


@pytest.fixture
def asked(monkeypatch):
    """The names of the models that are attacked, in order."""
    names, victim = [], robustness.victim

    def counted(model, *args, **kwargs):
        names.append(model.name)
        return victim(model, *args, **kwargs)
    monkeypatch.setattr(robustness, "victim", counted)
    return names


def test_what_takes_weights_is_computed_once(run, finished, chosen, tmp_path):
    asked, vectors = [], tmp_path / "vectors.txt"
    vectors.write_text("a 1")

    def compute():
        asked.append(1)
        return pd.DataFrame({"model": ["dense"], "bytes": [7]})
    of = run.model_copy(update={"profile": "once", "vectors": str(vectors)})
    other = of.model_copy(update={"cost_runs": 9})
    tables = [robustness.kept(one, name, finished, chosen, compute)
              for one, name in ((of, "sizes"), (of, "sizes"), (of, "speed"), (other, "sizes"))]
    assert len(asked) == 3 and all(table.equals(tables[0]) for table in tables)
    robustness.kept(of, "sizes", {"dense": finished["dense"]}, chosen, compute)
    robustness.kept(of, "sizes", finished, chosen.iloc[1:], compute)
    assert len(asked) == 5, "other models, other rows under attack"
    os.utime(vectors, ns=(1, 1))
    robustness.kept(of, "sizes", finished, chosen, compute)
    assert len(asked) == 6, "another file of word vectors"


def test_models_whose_weights_were_not_kept_are_not_asked(run, finished, micro):
    lean = run.model_copy(update={"keep_weights": False, "profile": "lean"})
    made = {name: make.model(lean, micro, name, make.Extras(epochs=0.3, **extras)) for name, extras in (
        ("truncated-1", {}), ("truncated-1 + focal", {"gamma": 2.0}))}
    assert list(robustness.with_weights(made)) == ["truncated-1"] and list(robustness.with_weights(finished)) == list(finished)


# --- rows, source, victim

def test_the_same_test_rows_are_attacked_for_all(micro):
    chosen = robustness.chosen_rows(micro, 12)
    assert set(chosen["split"]) == {"test"} and len(chosen) == 12 and chosen.index.is_monotonic_increasing
    other_train = pd.concat([micro[micro["split"] != "train"]])
    assert robustness.chosen_rows(other_train, 12)["guid"].tolist() == chosen["guid"].tolist()
    assert len(robustness.chosen_rows(micro, 10**6)) == (micro["split"] == "test").sum()
    assert chosen["guid"].tolist() != micro.loc[micro["split"] == "test", "guid"].head(12).tolist()


def test_the_runs_own_settings_make_the_source(run, tmp_path):
    assert robustness.source_of(run)("doctor") == ["physician"], "the micro-world's own synonyms"
    letters = run.model_copy(update={"attack_source": "characters"})
    assert len(robustness.source_of(letters)("doctor")) > 3
    assert len(robustness.source_of(letters.model_copy(update={"attack_candidates": 3}))("doctor")) == 3
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("red 1 0\nscarlet 1 0.1\ncrimson 1 1\n")
    near = run.model_copy(update={"attack_source": "vectors", "vectors": str(vectors), "attack_pos": False})
    assert [robustness.source_of(near.model_copy(update={"attack_cosine": c}))("red") for c in (0.9, 0.5)] == [
        ["scarlet"], ["scarlet", "crimson"]]
    with pytest.raises(StudyError, match="nowhere"):
        robustness.source_of(near.model_copy(update={"vectors": "nowhere.txt"}))


@pytest.mark.parametrize("name", ["dense", "truncated-1", "dense + ptq8"])
def test_a_victim_answers_as_the_model_predicted(finished, run, micro, name):
    test = micro[micro["split"] == "test"]
    got = robustness.victim(finished[name], run).logits(test["text_a"], test["text_b"])
    assert np.allclose(got, finished[name].logits(micro, "test"), atol=1e-5)


def test_a_quantised_victim_stays_in_fp32(finished, run):
    half = run.model_copy(update={"dtype": "bf16"})
    kinds = {name: {p.dtype for p in robustness.victim(model, half).model.parameters()} for name, model in finished.items()}
    assert torch.bfloat16 in kinds["dense"] and torch.bfloat16 not in kinds["dense + ptq8"]


# --- attacks

def test_every_model_is_attacked_on_the_same_rows(found, finished, chosen, micro):
    assert list(found.columns[:3]) == ["model", "guid", "label"] and found["model"].unique().tolist() == list(finished)
    for name, part in found.groupby("model"):
        assert part["guid"].tolist() == chosen["guid"].tolist()
        logits = store.ordered_logits(finished[name].predictions(), micro, "test")
        right = pd.Series(logits.argmax(axis=1), micro.loc[micro["split"] == "test", "guid"]).loc[part["guid"]].to_numpy()
        assert part["correct"].tolist() == (right == part["label"]).tolist()
    assert found["success"].any() and not found.loc[~found["correct"], "success"].any()


def test_a_finished_attack_is_read_again(found, finished, run, chosen, source, asked):
    pd.testing.assert_frame_equal(robustness.attacks(finished, run, chosen, source), found)
    assert asked == []


@pytest.mark.parametrize("change, words", [
    ({"attack_changed": 0.2}, lambda word: ["x", "y", "z"]), ({"attack_candidates": 2}, lambda word: ["x", "y", "z"]),
    ({"attack_stop_words": False}, lambda word: ["x"] if word in candidates.STOP_WORDS else []),
    ({"attack_source": "characters"}, None)], ids=["attack_changed", "attack_candidates", "attack_stop_words", "attack_source"])
def test_a_changed_setting_attacks_anew(finished, run, chosen, asked, change, words):
    place = run.model_copy(update={"profile": f"settings-{next(iter(change))}"})
    queries = []
    for setting in (place, place.model_copy(update=change)):
        table = robustness.attacks({"dense": finished["dense"]}, setting, chosen, words or robustness.source_of(setting))
        queries.append(table["queries"].sum())
    assert asked == ["dense"] * 2 and queries[0] != queries[1]


def test_other_rows_or_another_model_of_that_name_are_attacked_anew(found, finished, run, chosen, source, asked, tmp_path):
    robustness.attacks({"dense": finished["dense"]}, run, chosen.head(3), source)
    robustness.attacks({"dense": finished["truncated-1"]}, run, chosen, source)
    assert asked == ["dense"], "the second is known under its own key"
    words = tmp_path / "words.txt"
    for text in ("red 1 0\nscarlet 1 0\n", "red 1 0\ncrimson 1 0\nscarlet 1 0\n"):
        words.write_text(text)
        other = run.model_copy(update={"attack_source": "vectors", "vectors": str(words), "attack_pos": False})
        robustness.attacks({"dense": finished["dense"]}, other, chosen.head(2), robustness.source_of(other))
    assert asked == ["dense"] * 3, "the file of words has changed"


def test_settings_that_are_not_the_attacks_count_for_nothing(found, finished, run, chosen, source, asked):
    other = run.model_copy(update={"cost_runs": 9, "n_boot": 999, "min_dev": 0.1, "kd_weight": 0.1})
    robustness.attacks(finished, other, chosen, source)
    assert asked == []


def test_a_run_that_breaks_loses_one_model_at_most(finished, run, chosen, source, asked):
    place = run.model_copy(update={"profile": "breaks"})

    def breaks(word):
        if asked[-1] == "truncated-1":
            raise KeyboardInterrupt
        return source(word)
    with pytest.raises(KeyboardInterrupt):
        robustness.attacks(finished, place, chosen, breaks)
    kept = list((place.folder("08_loyalty_and_attacks") / "attacks").glob("*.parquet"))
    assert len(kept) == 1
    asked.clear()
    robustness.attacks(finished, place, chosen, source)
    assert asked == ["truncated-1", "dense + ptq8"]


def test_the_released_table_has_no_text(found, chosen, tmp_path):
    robustness.write(found, tmp_path / "08" / "attacks.parquet")
    released = pd.read_parquet(tmp_path / "08" / "attacks.parquet")
    pd.testing.assert_frame_equal(released, found[released.columns.tolist()])
    assert {"model", "guid", "correct", "success", "queries"} <= set(released.columns)
    texts = {*chosen["text_a"], *chosen["text_b"], *found.loc[found["success"], "adversarial"]}
    assert not texts & set(released.astype(str).to_numpy().ravel())


# --- made by hand

def table_of(model, correct, success, queries=4):
    n = len(correct)
    return pd.DataFrame({"model": model, "guid": [f"g{i}" for i in range(n)], "label": 0, "correct": correct,
                         "success": success, "queries": np.where(correct, queries, 0), "words": 4,
                         "changed": np.where(success, 1, 0), "text_b": "a b c d",
                         "adversarial": [f"{model} {i}" if s else "" for i, s in enumerate(success)]})


@pytest.fixture
def by_hand():
    """dense: right on 0 to 3, broken on 0 and 1; imp-70: right on 1 to 3, broken on 3; heads-20: right on all, none broken."""
    return pd.concat([table_of("dense", [True] * 4 + [False], [True, True, False, False, False]),
                      table_of("imp-70", [False, True, True, True, False], [False, False, False, True, False], 8),
                      table_of("heads-20", [True] * 5, [False] * 5)], ignore_index=True)


@pytest.fixture
def rows():
    return pd.DataFrame({"guid": [f"g{i}" for i in range(5)], "split": "test", "text_a": "p", "text_b": "a b c d", "label": 0,
                         "subcase": "", "group": ""})


def test_every_model_is_summed_up_by_itself(by_hand, rows):
    table = robustness.summary(by_hand, rows, n_boot=20, seed=0)
    assert list(table.columns) == ["model", "measure", "value", "low", "high", "n"]
    value = table.set_index(["model", "measure"])["value"]
    assert value["dense", "clean_accuracy"] == 0.8 and value["dense", "after_attack_accuracy"] == 0.4
    assert value["dense", "success_rate"] == 0.5 and value["imp-70", "queries"] == 8
    assert value["imp-70", "after_attack_accuracy"] == 0.4 and value["heads-20", "after_attack_accuracy"] == 1
    assert table["model"].unique().tolist() == ["dense", "imp-70", "heads-20"]


class Remembers:
    """A victim that has these texts right; it keeps what it was asked."""

    def __init__(self, right):
        self.right, self.asked = right, []

    def logits(self, text_a, text_b):
        self.asked += text_b
        return np.array([[1.0, 0.0] if text in self.right else [0.0, 1.0] for text in text_b])


def test_attacks_are_replayed_where_the_judged_model_was_right_before(by_hand, rows, run, monkeypatch):
    judges = {"dense": Remembers(["imp-70 3"]), "imp-70": Remembers([]), "heads-20": Remembers(["dense 0"])}
    monkeypatch.setattr(robustness, "victim", lambda model, run: judges[model])
    table = robustness.transfers({name: name for name in judges}, run, by_hand, rows)
    assert list(table.columns) == ["found_on", "model", "value", "n"]
    assert list(map(tuple, table.to_numpy().tolist())) == [
        ("dense", "imp-70", 0.0, 1), ("dense", "heads-20", 0.5, 2), ("imp-70", "dense", 1.0, 1), ("imp-70", "heads-20", 0.0, 1)]
    assert judges["imp-70"].asked == ["dense 1"], "dense 0 was wrong on it before"


def test_a_model_that_is_not_asked_for_judges_nothing_and_is_not_replayed(by_hand, rows, run, monkeypatch):
    monkeypatch.setattr(robustness, "victim", lambda model, run: Remembers([]))
    table = robustness.transfers({"dense": 0, "heads-20": 0}, run, by_hand, rows)
    assert table[["found_on", "model"]].to_numpy().tolist() == [["dense", "heads-20"]]


def test_no_success_is_no_transfer(by_hand, rows, run, monkeypatch):
    monkeypatch.setattr(robustness, "victim", lambda model, run: Remembers([]))
    none = robustness.transfers({"dense": 0, "heads-20": 0}, run, by_hand.assign(success=False), rows)
    assert none.empty and list(none.columns) == ["found_on", "model", "value", "n"]


# --- speed

def test_batching_asks_the_same_queries(finished, run, chosen, source, monkeypatch):
    monkeypatch.setattr(robustness, "matrix_peak", lambda dtype, device: {"fp32": 50.0}[dtype])
    for name in ("dense", "dense + ptq8"):
        table = robustness.batching(finished[name], run, chosen.head(5), source, n_single=5).set_index("how")
        assert list(table.index) == ["batched", "one by one"]
        assert table["queries"].nunique() == 1 and table["forwards"].nunique() == 1
        assert (table["forwards"] <= table["queries"]).all() and (table["seconds"] > 0).all()
        assert np.allclose(table["queries_per_s"] * table["seconds"], table["queries"])
        assert np.allclose(table["of_peak"], table["gflops"] / 50)
        assert np.isclose(*(table["gflops"] * table["seconds"])), "the same work"


def test_the_peak_is_of_real_products(monkeypatch):
    monkeypatch.setattr(devices, "PEAK_SIDES", (64, 128))
    assert all(0 < devices.matrix_peak(dtype, "cpu", seconds=0.01) < 1e6 for dtype in ("fp32", "bf16"))


def test_rows_are_encoded_as_the_model_reads_them(finished, run, chosen):
    tokens = [3 + len((a + " " + b).split()) for a, b in zip(chosen["text_a"], chosen["text_b"])]
    whole = robustness.encoded(finished["dense"], run, chosen)
    assert whole.lengths.tolist() == tokens and whole.labels.tolist() == chosen["label"].tolist()
    assert robustness.encoded(finished["dense"], run.model_copy(update={"max_length": 8}), chosen).lengths.max() == 8
