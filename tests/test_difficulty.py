"""Difficulty scores and strengths against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from lib.analysis import difficulty
from lib.errors import StudyError


def entropy(logits: np.ndarray, strength) -> float:
    p = softmax(np.reshape(strength, (-1, 1)) * logits, axis=1)
    return float(-(p * np.log(p)).sum(axis=1).mean())


def pairs(n: int, seed: int = 0) -> pd.DataFrame:
    """Rows whose label follows both a word of text_b and the overlap, on nine rows of ten."""
    rng = np.random.default_rng(seed)
    words = np.array([f"w{i}" for i in range(40)])
    label = rng.integers(0, 2, n)
    shortcut = np.where(rng.random(n) < 0.9, label, 1 - label)
    rows = []
    for i in range(n):
        a, other = rng.choice(words, 6, replace=False), rng.choice(words, 4)
        rows.append((" ".join(a), " ".join([*(a[:4] if shortcut[i] == 0 else other), "is" if shortcut[i] == 0 else "never"])))
    return pd.DataFrame(rows, columns=["text_a", "text_b"]).assign(
        label=label, guid=[f"g{i}" for i in range(n)], is_shortcut=shortcut == label)


def test_variance_divides_by_the_number_of_levels():
    losses = np.array([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0], [5.0, 2.0, 3.0]])
    assert difficulty.variance(losses) == pytest.approx([8 / 3, 0, 2])
    with pytest.raises(StudyError, match="two levels"):
        difficulty.variance(losses[:1])


def test_losses_are_cross_entropies():
    logits = np.log([[[0.2, 0.8], [0.5, 0.5]], [[0.9, 0.1], [0.25, 0.75]]])
    assert difficulty.losses_from_logits(logits, np.array([1, 0])) == pytest.approx(-np.log([[0.8, 0.5], [0.1, 0.25]]))
    assert np.isfinite(difficulty.losses_from_logits(np.array([[-1e4, 1e4]]), np.array([0]))).all()


def test_strength_spans_alpha_to_one():
    assert difficulty.strength(np.array([1.0, 2.0, 5.0]), 0.2) == pytest.approx([0.2, 0.4, 1.0])
    with pytest.raises(StudyError, match="same difficulty"):
        difficulty.strength(np.ones(4), 0.5)
    with pytest.raises(StudyError, match="alpha"):
        difficulty.strength(np.arange(3), 1.5)
    with pytest.raises(StudyError, match="row 2"):
        difficulty.strength(np.array([0.0, np.nan, 1.0]), 0.5)


def test_controls_keep_what_they_promise_to_keep():
    rng = np.random.default_rng(0)
    d, labels = rng.uniform(0.3, 1, 300), rng.integers(0, 3, 300)
    assert difficulty.matched(d) == pytest.approx(d.mean())
    moved = difficulty.shuffled(d, labels, 1)
    for label in range(3):
        assert sorted(moved[labels == label]) == sorted(d[labels == label])
    assert (moved != d).mean() > 0.9 and np.array_equal(moved, difficulty.shuffled(d, labels, 1))
    assert not np.array_equal(moved, difficulty.shuffled(d, labels, 2))


def test_entropy_matched_strength_gives_the_same_mean_entropy():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(500, 3)) * rng.choice([0.2, 5], (500, 1))
    d = np.where(np.ptp(logits, axis=1) > 2, 0.1, 1)  # only what the teacher is sure of is smoothed
    c = difficulty.entropy_matched(logits, d)
    assert entropy(logits, c) == pytest.approx(entropy(logits, d), abs=1e-9)
    assert abs(c - d.mean()) > 0.1
    assert difficulty.entropy_matched(logits, np.full(500, 0.6)) == pytest.approx(0.6)


def test_biased_strength_is_one_minus_beta():
    assert difficulty.biased_strength(np.array([0.9, 0.2])) == pytest.approx([0.1, 0.8])


def test_overlap_features_by_hand():
    items = pd.DataFrame({"text_a": ["The dog saw a cat.", ""], "text_b": ["the cat saw the dog", "x"]})
    got = difficulty.overlap_features(items)
    assert got[0] == pytest.approx([4 / 5, 1, 4 / 5, 1, 0])
    assert got[1] == pytest.approx([0, 0, 0, 0, -1])


@pytest.mark.parametrize("kind", ["overlap", "b_only"])
def test_shortcut_only_model_follows_the_shortcut(kind):
    items = pairs(400)
    train, other = difficulty.shortcut_only(items, kind, 3, 5, 0, items_eval=pairs(200, 1))
    assert train.shape == (400, 3) and other.shape == (200, 3)
    assert train.sum(axis=1) == pytest.approx(np.ones(400)) and (train[:, 2] == 0).all()
    right = train.argmax(axis=1) == items["label"]
    assert right[items["is_shortcut"]].mean() > 0.9 and right[~items["is_shortcut"]].mean() < 0.1
    assert np.array_equal(train, difficulty.shortcut_only(items, kind, 3, 5, 0))


def test_cross_fitting_never_sees_the_text_it_judges():
    """Each text stands in three rows of one label and tells it by heart alone: unseen, nothing is left to learn."""
    n = 300
    items = pd.DataFrame({"text_a": "same words", "text_b": [f"{'T' if i % 3 else 't'}oken{i // 3}" for i in range(n)],
                          "label": np.random.default_rng(0).integers(0, 2, n // 3).repeat(3), "guid": range(n)})
    held_out, by_heart = difficulty.shortcut_only(items, "b_only", 2, 5, 0, items_eval=items)
    at = np.arange(n), items["label"]
    assert (by_heart[at] > 0.5).mean() == 1
    assert (held_out[at] > 0.5).mean() < 0.65


def test_shortcut_only_names_what_is_wrong():
    with pytest.raises(StudyError, match="overlap"):
        difficulty.shortcut_only(pairs(20), "c_only", 2, 5, 0)
    with pytest.raises(StudyError, match="folds"):
        difficulty.shortcut_only(pairs(20).assign(text_b="one"), "b_only", 2, 5, 0)


def test_dynamics_are_mean_spread_and_share_right():
    logits = np.log([[[0.9, 0.1], [0.4, 0.6]], [[0.5, 0.5], [0.8, 0.2]]])
    confidence, variability, correctness = difficulty.dynamics(logits, np.array([0, 1]))
    assert confidence == pytest.approx([0.7, 0.4])
    assert variability == pytest.approx([0.2, 0.2])
    assert correctness == pytest.approx([1, 0.5])


def test_el2n_is_the_length_of_the_error_averaged_over_checkpoints():
    logits = np.log([[[0.6, 0.2, 0.2], [1.0, 1e-9, 1e-9]], [[0.2, 0.6, 0.2], [1.0, 1e-9, 1e-9]]])
    first, second = np.sqrt(0.16 + 0.04 + 0.04), np.sqrt(0.64 + 0.36 + 0.04)
    assert difficulty.el2n(logits, np.array([0, 0])) == pytest.approx([(first + second) / 2, 0], abs=1e-8)


def test_agreement_by_hand():
    got = difficulty.threshold_agreement([0.1, 0.4, 0.35, 0.8, 0.2], [False, False, True, True, False])
    assert got["auc"] == pytest.approx(5 / 6)
    assert (got["agreement"], got["majority"]) == (0.8, 0.6)
    assert got["best_threshold"] in (0.8, 0.35)


def test_agreement_of_a_useless_score_is_the_majority():
    got = difficulty.threshold_agreement(np.zeros(10), np.arange(10) < 3)
    assert (got["auc"], got["agreement"], got["majority"]) == (0.5, 0.7, 0.7)
    assert got["best_threshold"] == np.inf
    assert np.isnan(difficulty.threshold_agreement([1, 2], [True, True])["auc"])


def test_rank_agreement():
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    same = difficulty.rank_agreement(a, np.exp(a))
    assert same["value"] == pytest.approx(1) and same["low"] > 0.99
    noisy = difficulty.rank_agreement(a, a + rng.normal(size=400))
    assert noisy["low"] < noisy["value"] < noisy["high"] < 1 and noisy["n"] == 400
    assert np.isnan(difficulty.rank_agreement(a, np.ones(400))["value"])
