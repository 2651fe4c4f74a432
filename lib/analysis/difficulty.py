"""How hard a row is: loss variance over sparsity levels and its rivals, and the strengths d made from it."""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from lib.analysis import bootstrap
from lib.errors import StudyError

WORD = r"(?u)\b\w+\b"


def losses_from_logits(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy [..., n] in nats of logits [..., n, classes] against labels [n]."""
    logp = log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    return -logp[..., np.arange(len(labels)), np.asarray(labels)]


def variance(losses: np.ndarray) -> np.ndarray:
    """v_i = (1/n) sum_t (l_it - mean_t l_it)^2 [rows] of losses [levels, rows] (Du et al. 2023)."""
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 2 or len(losses) < 2:
        raise StudyError(f"difficulty: losses must be [levels, rows] with two levels or more, not {losses.shape}")
    return losses.var(axis=0)


def strength(v: np.ndarray, alpha: float) -> np.ndarray:
    """d_i = alpha + (1 - alpha) (v_i - v_min) / (v_max - v_min), in [alpha, 1] (Du et al. 2023)."""
    v = np.asarray(v, dtype=np.float64)
    if not 0 <= alpha <= 1:
        raise StudyError(f"difficulty: alpha must lie in [0, 1], not {alpha}")
    if not np.isfinite(v).all():
        raise StudyError(f"difficulty: row {int(np.argmin(np.isfinite(v))) + 1} has no finite difficulty")
    if v.max() == v.min():
        raise StudyError(f"difficulty: every row has the same difficulty {v.max():g}, so strengths cannot be ranked; "
                         "take sparsity levels that differ more, or more steps")
    return alpha + (1 - alpha) * (v - v.min()) / (v.max() - v.min())


def matched(d: np.ndarray) -> float:
    """The mean of d, for every row: smoothing as strong as RMC's on average, blind to the row."""
    return float(np.mean(d))


def shuffled(d: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """d permuted within each label: the same strengths on other rows."""
    rng, labels, result = np.random.default_rng(seed), np.asarray(labels), np.array(d)
    for label in np.unique(labels):
        at = np.flatnonzero(labels == label)
        result[at] = result[rng.permutation(at)]
    return result


def entropy_matched(teacher_logits: np.ndarray, d: np.ndarray) -> float:
    """The one strength whose soft targets have the mean entropy of those that d [n] makes of logits [n, classes].

    Entropy falls in the strength, so it lies between min d and max d.
    """
    logp = log_softmax(np.asarray(teacher_logits, dtype=np.float64), axis=1)
    d = np.asarray(d, dtype=np.float64)

    def mean_entropy(strengths: np.ndarray | float) -> float:
        tempered = np.reshape(strengths, (-1, 1)) * logp
        return float(-(softmax(tempered, axis=1) * log_softmax(tempered, axis=1)).sum(axis=1).mean())

    target, low, high = mean_entropy(d), d.min(), d.max()
    if mean_entropy(low) <= target or mean_entropy(high) >= target:  # one strength, or a teacher without any doubt
        return float(d.mean())
    return float(brentq(lambda c: mean_entropy(c) - target, low, high))


def biased_strength(prob_biased_true_label: np.ndarray) -> np.ndarray:
    """d_i = 1 - beta_i, beta the biased model's probability of the true label (Utama et al., ACL 2020)."""
    return 1 - np.asarray(prob_biased_true_label, dtype=np.float64)


def overlap_features(items: pd.DataFrame) -> np.ndarray:
    """Word overlap of each pair [n, 5]: Jaccard, share of text_b's words in text_a and the reverse, whether all of
    text_b's words are in text_a, difference in length (words of a - b)."""
    counter = CountVectorizer(token_pattern=WORD)
    counter.fit(pd.concat([items["text_a"], items["text_b"]]))
    a, b = (counter.transform(items[c]) for c in ("text_a", "text_b"))
    length = np.asarray((a.sum(axis=1) - b.sum(axis=1))).ravel()
    set_a, set_b = ((m > 0).astype(np.int64) for m in (a, b))
    shared, n_a, n_b = (np.asarray(m.sum(axis=1)).ravel() for m in (set_a.multiply(set_b), set_a, set_b))
    contained = shared / np.maximum(n_b, 1)
    return np.column_stack([shared / np.maximum(n_a + n_b - shared, 1), contained, shared / np.maximum(n_a, 1),
                            contained == 1, length]).astype(float)


def shortcut_only(items_train: pd.DataFrame, kind: str, n_classes: int, folds: int, seed: int,
                  items_eval: pd.DataFrame | None = None) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, n_classes] of a model that sees the shortcut alone, cross-fitted on train.

    kind: `overlap` (logistic regression on `overlap_features`), `b_only` or `a_only` (on TF-IDF of that text's words
    and word pairs; rows of one such text stay in one fold, else it would know them by heart). With items_eval: (train,
    eval), the latter by a model of all of train.
    """
    text = {"a_only": "text_a", "b_only": "text_b"}.get(kind)
    if kind == "overlap":
        head = (FunctionTransformer(overlap_features), StandardScaler())
    elif text:
        head = (FunctionTransformer(lambda items: items[text]),
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD))
    else:
        raise StudyError(f"difficulty: a shortcut-only model is 'overlap', 'b_only' or 'a_only', not {kind!r}")
    items_train = items_train.reset_index(drop=True)
    labels = items_train["label"].to_numpy()

    def fitted(at: np.ndarray, of: pd.DataFrame) -> np.ndarray:
        model = make_pipeline(*head, LogisticRegression(max_iter=2000, C=10.0)).fit(items_train.iloc[at], labels[at])
        result = np.zeros((len(of), n_classes))
        result[:, model.classes_] = model.predict_proba(of)
        return result

    seen = items_train[text].str.lower() if text else items_train["guid"]
    if seen.nunique() < folds or folds < 2:
        raise StudyError(f"difficulty: cannot cross-fit in {folds} folds, train has {seen.nunique()} different rows: "
                         "set folds to 2 or more, and to no more than that")
    on_train = np.zeros((len(items_train), n_classes))
    for fit_at, held_out in GroupKFold(folds, shuffle=True, random_state=seed).split(items_train, groups=seen):
        on_train[held_out] = fitted(fit_at, items_train.iloc[held_out])
    if items_eval is None:
        return on_train
    return on_train, fitted(np.arange(len(items_train)), items_eval)


def dynamics(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, variability, correctness [n each] of logits [epochs, n, classes] (Swayamdipta et al., EMNLP 2020).

    Mean and standard deviation over epochs of the label's probability, and the share of epochs that are right.
    """
    of_label = np.exp(-losses_from_logits(logits, labels))
    correct = np.asarray(logits).argmax(axis=-1) == np.asarray(labels)
    return of_label.mean(axis=0), of_label.std(axis=0), correct.mean(axis=0)


def el2n(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean norm [n] of softmax minus one-hot label of logits [checkpoints, n, classes] (Paul et al., NeurIPS 2021)."""
    probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    one_hot = np.eye(probabilities.shape[-1])[np.asarray(labels)]
    return np.linalg.norm(probabilities - one_hot, axis=-1).mean(axis=0)


def auc(score: np.ndarray, is_hard: np.ndarray, rows: pd.DataFrame, n_boot: int = 1000,
        seed: int = 0) -> dict[str, float]:
    """How well a difficulty score finds the hard rows: the AUC with its interval, value | low | high | n.

    rows: columns guid, split, subcase, group of the same rows in the same order; the interval is
    `lib.analysis.bootstrap`'s, so rows of one template are drawn together. All NaN where every row is of one kind.
    """
    score, is_hard = np.asarray(score, dtype=np.float64), np.asarray(is_hard, dtype=bool)
    if is_hard.all() or not is_hard.any():
        return {"value": np.nan, "low": np.nan, "high": np.nan, "n": len(score)}
    hardest_first = np.unique(-score, return_inverse=True)[1]
    sums, _ = bootstrap.cell_sums(rows, hardest_first, np.column_stack([is_hard, ~is_hard]), n_boot, seed)
    hard, easy = np.moveaxis(np.pad(np.cumsum(sums[:, 0], axis=1), ((0, 0), (1, 0), (0, 0))), -1, 0)
    return bootstrap.estimate(np.trapezoid(hard, easy, axis=1) / (hard[:, -1] * easy[:, -1]), len(score))


def threshold_agreement(score: np.ndarray, is_hard: np.ndarray) -> dict[str, float]:
    """How well a difficulty score finds the hard rows: auc, best_threshold, agreement, majority.

    agreement: the largest share of rows on which `score >= threshold` equals is_hard, threshold chosen on these very
    rows, so never below `majority`, the larger class alone. auc is NaN where all rows are of one kind.
    """
    score, is_hard = np.asarray(score, dtype=np.float64), np.asarray(is_hard, dtype=bool)
    order = np.argsort(-score, kind="stable")
    hits = np.concatenate([[0], np.cumsum(np.where(is_hard[order], 1, -1))]) + (~is_hard).sum()
    thresholds = np.concatenate([[np.inf], score[order]])
    last_of_tie = np.append(thresholds[1:] != thresholds[:-1], True)
    best = int(np.argmax(np.where(last_of_tie, hits, -1)))
    share = is_hard.mean()
    auc = roc_auc_score(is_hard, score) if 0 < share < 1 else np.nan
    return {"auc": float(auc), "best_threshold": float(thresholds[best]), "agreement": float(hits[best] / len(score)),
            "majority": float(max(share, 1 - share))}


def rank_agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Spearman's rho of two scores: value, low, high (95 %), n.

    Interval by Fisher's z with the standard error sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett and Wright 2000); NaN for
    fewer than four rows or a constant score.
    """
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    rho = np.nan if constant else float(spearmanr(a, b).statistic)
    if constant or len(a) < 4:
        return {"value": rho, "low": np.nan, "high": np.nan, "n": len(a)}
    z = np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))
    error = 1.959964 * np.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    return {"value": rho, "low": float(np.tanh(z - error)), "high": float(np.tanh(z + error)), "n": len(a)}
