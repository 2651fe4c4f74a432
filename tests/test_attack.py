"""The attack: greedy in the right order, within its budget, batched at no change of a result, true to the label."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lib import progress
from lib.errors import StudyError
from lib.models import batches, encoders, loop, pretrained
from lib.tasks import microworld
from lib.trials.attack import COLUMNS, Victim, replay, run, summary
from lib.trials.candidates import source

LOOSE = dict(max_changed=1.0, max_candidates=5)


class Scored:
    """A victim whose margin for class 0 is the sum of its words' weights in text_b; it keeps what it was asked."""

    def __init__(self, weights, bias=0.0):
        self.weights, self.bias, self.asked = weights, bias, []

    def logits(self, text_a, text_b):
        self.asked.append(list(text_b))
        margin = [self.bias + sum(self.weights.get(w, 0) for w in text.split()) for text in text_b]
        return np.array([[m, 0.0] for m in margin], np.float32).reshape(-1, 2)


class Overlap:
    """A follower of the shortcut: entailment where 80 % of the hypothesis' words stand in the premise."""

    def logits(self, text_a, text_b):
        share = [np.mean([w in a.split() for w in b.split()]) for a, b in zip(text_a, text_b)]
        return np.array([[10 * (s - 0.8), 0.0] for s in share])


def items(texts, labels=0):
    n = len(texts)
    return pd.DataFrame({"guid": [f"g{i}" for i in range(n)], "split": "test", "text_a": "a premise", "text_b": texts,
                         "label": np.broadcast_to(labels, n), "subcase": "", "group": ""})


def of(**words):
    """A source of these candidates."""
    return lambda word: list(words.get(word.lower(), []))


@pytest.fixture(scope="module")
def tokenizer():
    return pretrained.load_tokenizer("offline")


def tiny(seed=0, scale=8):
    """A model of random weights; `scale` makes its answers hang on the words."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=30522, hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=2,
        max_position_embeddings=64, num_labels=2))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale if p.ndim > 1 else 1)
    return model.eval()


def micro(n=40):
    frame = microworld.generate("micro_nli", seed=0, n_train=64, n_eval=200, n_ood=2, shortcut_rate=0.5)
    return frame[frame["split"] == "test"].head(n).reset_index(drop=True)


# --- the search

def test_the_most_important_word_goes_first_and_the_best_candidate_wins():
    victim = Scored({"big": 1, "dog": 3, "hound": 2, "mutt": -2, "whelp": -3, "huge": -9})
    found = run(victim, items(["big dog"]), of(big=["huge"], dog=["hound", "mutt", "whelp"]), **LOOSE)
    assert victim.asked == [["big dog"], ["dog", "big"], ["big hound", "big mutt", "big whelp"]]
    assert found.loc[0].to_dict() == {"guid": "g0", "label": 0, "correct": True, "success": True, "queries": 6,
                                      "words": 2, "changed": 1, "text_b": "big dog", "adversarial": "big whelp"}
    assert list(found.columns) == COLUMNS


def test_words_change_one_after_the_other_and_a_candidate_that_helps_nothing_is_left():
    victim = Scored({"big": 1, "dog": 3, "hound": 4, "ran": 2, "fled": 1, "huge": 0}, bias=-5.5)
    found = run(victim, items(["big dog ran"]), of(big=["huge"], dog=["hound"], ran=["fled"]), **LOOSE)
    assert found.loc[0, "adversarial"] == "big dog fled" and found.loc[0, "changed"] == 1
    victim.bias = -4.5
    found = run(victim, items(["big dog ran"]), of(big=["huge"], dog=["hound"], ran=["fled"]), **LOOSE)
    assert found.loc[0, "adversarial"] == "huge dog fled" and found.loc[0, "changed"] == 2
    assert victim.asked[-1] == ["huge dog fled"]  # the later word is tried on the text already changed


@pytest.mark.parametrize("share, budget", [(0.0, 1), (0.49, 1), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_the_budget_is_a_share_of_the_words_and_at_least_one(share, budget):
    victim = Scored({w: 1 for w in "pqrs"} | {w: 0.9 for w in "wxyz"})
    search = of(p=["w"], q=["x"], r=["y"], s=["z"])
    found = run(victim, items(["p q r s"]), search, max_changed=share, max_candidates=5)
    assert found.loc[0, "changed"] == budget and not found.loc[0, "success"] and found.loc[0, "adversarial"] == ""


def test_stop_words_stay_unless_asked_for_and_candidates_are_cut():
    victim = Scored({"not": 5, "dog": 1, "yes": -1, "cur": 0.5, "mutt": -9})
    search = of(dog=["cur", "mutt"], **{"not": ["yes"]})
    kept = run(victim, items(["not dog"]), search, max_changed=1, max_candidates=1)
    assert kept.loc[0, "changed"] == 1 and not kept.loc[0, "success"] and victim.asked[-1] == ["not cur"]
    taken = run(victim, items(["not dog"]), search, max_changed=0.5, max_candidates=1, stop_words=False)
    assert victim.asked[-1] == ["yes dog"] and taken.loc[0, "changed"] == 1


def test_case_and_punctuation_stay():
    victim = Scored({"Dog,": 2, "Mutt,": -2})
    found = run(victim, items(['"so"  Dog, ran.']), of(dog=["mutt"]), **LOOSE)
    assert found.loc[0, "adversarial"] == '"so"  Mutt, ran.' and found.loc[0, "words"] == 3


def test_rows_already_wrong_are_left_alone():
    victim = Scored({"dog": 1, "cur": -1})
    found = run(victim, items(["dog", "dog", "cur"], [0, 1, 0]), of(dog=["cur"], cur=["dog"]), **LOOSE)
    assert found["correct"].tolist() == [True, False, False] and found["success"].tolist() == [True, False, False]
    assert found["queries"].tolist() == [3, 0, 0] and found["changed"].tolist() == [1, 0, 0]


def test_nothing_to_attack():
    assert list(run(Scored({}), items([]), of(), **LOOSE).columns) == COLUMNS
    wrong = run(Scored({}, bias=-1), items(["dog"]), of(dog=["cur"]), **LOOSE)
    assert not wrong["correct"].any() and wrong["queries"].tolist() == [0]
    assert run(Scored({}, bias=1), items(["..."]), of(), **LOOSE).loc[0, "words"] == 0
    assert run(Scored({}, bias=1), items(["p q"]), of(), **LOOSE).loc[0, ["queries", "changed"]].tolist() == [3, 0]


def test_the_bar_counts_the_rows(capsys):
    with progress.bar(3, "attack") as bar:
        run(Scored({"dog": 1, "cur": -1}), items(["dog", "cur", "dog"]), of(dog=["cur"]), progress=bar, **LOOSE)
    assert "3/3" in capsys.readouterr().out


def test_mistakes_are_named():
    with pytest.raises(StudyError, match="attack_changed is 20"):
        run(Scored({}), items(["dog"]), of(), max_changed=20, max_candidates=1)
    with pytest.raises(StudyError, match="attack_candidates is 0"):
        run(Scored({}), items(["dog"]), of(), max_changed=1, max_candidates=0)
    with pytest.raises(StudyError, match="label 2 is beyond the model's 2 classes"):
        run(Scored({}), items(["dog"], 2), of(), **LOOSE)


# --- the micro-world

@pytest.mark.parametrize("task", list(microworld.TASKS))
def test_adversarial_pairs_keep_their_label_by_the_grammar(task):
    rows = microworld.generate(task, seed=0, n_train=64, n_eval=200, n_ood=10, shortcut_rate=0.5)
    rows = rows[rows["split"].isin(["test", "ood"])]
    found = run(Overlap(), rows, source("synonyms", limit=5), max_changed=1.0, max_candidates=5)
    pairs = found[found["success"]].merge(rows, on="guid", suffixes=("", "_item"))
    assert len(pairs) > 20 and (pairs["adversarial"] != pairs["text_b"]).all()
    for pair in pairs.itertuples():
        assert microworld.label_of(task, pair.text_a, pair.adversarial) == pair.label


# --- a real victim

@pytest.mark.parametrize("dtype, tolerance", [("fp32", 1e-6), ("bf16", 1e-3)])
def test_the_victim_answers_as_predict_does_and_runs_no_pair_twice(tokenizer, dtype, tolerance):
    rows, model = micro(), tiny(scale=1)
    victim = Victim(model, tokenizer, 64, dtype, "cpu")
    expected = loop.predict(model, batches.encode(tokenizer, rows, 64), dtype=dtype, device="cpu")
    for _ in range(2):
        assert np.allclose(victim.logits(rows["text_a"].tolist(), rows["text_b"].tolist()), expected, atol=tolerance)
    twice = victim.logits(["new", "new", rows["text_a"][0]], ["pair", "pair", rows["text_b"][0]])
    assert np.array_equal(twice[0], twice[1]) and np.allclose(twice[2], expected[0], atol=tolerance)
    assert victim.queries == 2 * len(rows) + 3 and victim.forwards == len(rows) + 1
    lengths = batches.encode(tokenizer, pd.concat([rows, items(["pair"]).assign(text_a="new")]), 64).lengths
    assert victim.flops == sum(encoders.flops(model, int(length)) for length in lengths)
    assert victim.logits([], []).shape == (0, 2) and {p.dtype for p in model.parameters()} == {torch.float32}


def test_lock_step_finds_what_row_by_row_finds(tokenizer):
    rows, search = micro(), source("characters", limit=4)
    together = Victim(tiny(), tokenizer, 64, "fp32", "cpu")
    rows["label"] = together.logits(rows["text_a"].tolist(), rows["text_b"].tolist()).argmax(axis=1)
    rows.loc[::10, "label"] = 1 - rows.loc[::10, "label"]
    found = run(together, rows, search, max_changed=0.6, max_candidates=4)
    alone = [run(Victim(tiny(), tokenizer, 64, "fp32", "cpu", batch_size=1), rows.iloc[[i]], search, max_changed=0.6,
                    max_candidates=4) for i in range(len(rows))]
    pd.testing.assert_frame_equal(found, pd.concat(alone, ignore_index=True))
    assert 0 < found["success"].sum() < found["correct"].sum() < len(rows)
    assert together.forwards < together.queries == found["queries"].sum() + (~found["correct"]).sum() + len(rows)


def test_replay_breaks_the_model_it_was_found_on_and_asks_others(tokenizer):
    rows = micro()
    victim, other = (Victim(tiny(seed), tokenizer, 64, "fp32", "cpu") for seed in (0, 1))
    rows["label"] = victim.logits(rows["text_a"].tolist(), rows["text_b"].tolist()).argmax(axis=1)
    found = run(victim, rows, source("characters", limit=4), max_changed=1.0, max_candidates=4)
    ran = victim.forwards
    assert found["success"].any() and not replay(victim, found, rows).any() and victim.forwards == ran
    right = replay(other, found, rows)
    assert right.index.tolist() == found.loc[found["success"], "guid"].tolist() and right.dtype == bool
    assert replay(other, found[:0], rows).empty


# --- its numbers

def test_summary_counts_wrong_rows_as_failures():
    found = pd.DataFrame({"guid": [f"g{i}" for i in range(4)], "label": 0, "correct": [True, True, True, False],
                          "success": [True, False, False, False], "queries": [3, 6, 9, 0], "words": [4, 4, 4, 4],
                          "changed": [2, 1, 0, 0], "text_b": "x", "adversarial": ["y", "", "", ""]})
    table = summary(found, items(["x"] * 4), n_boot=200).set_index("measure")
    assert table["value"].to_dict() == pytest.approx({"clean_accuracy": 0.75, "after_attack_accuracy": 0.5,
                                                      "success_rate": 1 / 3, "queries": 6, "words_changed": 0.5})
    assert table["n"].to_dict() == {"clean_accuracy": 4, "after_attack_accuracy": 4, "success_rate": 3, "queries": 3,
                                    "words_changed": 1}
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert table.loc["queries", "low"] < 6 < table.loc["queries", "high"]


def test_summary_where_nothing_succeeded():
    found = run(Scored({}, bias=-1), items(["dog"] * 3), of(dog=["cur"]), **LOOSE)
    table = summary(found, items(["dog"] * 3), n_boot=10).set_index("measure")
    assert table.loc["clean_accuracy", "value"] == table.loc["after_attack_accuracy", "value"] == 0
    assert table.loc[["success_rate", "queries", "words_changed"], "value"].isna().all()
    assert table.loc["words_changed", "n"] == 0


def test_summary_takes_the_mean_over_seeds():
    base = run(Scored({"dog": 1, "cur": -1}), items(["dog"] * 4), of(dog=["cur"]), **LOOSE)
    held = base.assign(success=False)
    both = pd.concat([base.assign(seed=0), held.assign(seed=1)])
    table = summary(both, items(["dog"] * 4), n_boot=10).set_index("measure")
    assert table.loc["after_attack_accuracy", "value"] == 0.5 and table.loc["words_changed", "value"] == 1
