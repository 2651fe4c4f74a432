"""Shortcut samples: which rows a shortcut solves, by four scores, and how models treat them (notebook 06)."""

import numpy as np
import pandas as pd

from lib import difficulty, measures, store
from lib.errors import StudyError


def by_sparsity(models: dict[str, store.Model]) -> dict[str, store.Model]:
    """The IMP models alone, least sparse first."""
    pruned = {n: m for n, m in models.items() if n.startswith("imp-")}
    return dict(sorted(pruned.items(), key=lambda pair: pair[1].record["sparsity_target"]))


def level_losses(pruned: dict[str, store.Model], items: pd.DataFrame, split: str) -> np.ndarray:
    """Loss of each row at each sparsity level, [levels, rows], in nats."""
    labels = items.loc[items["split"] == split, "label"].to_numpy()
    return np.stack([difficulty.losses_from_logits(m.logits(items, split), labels) for m in pruned.values()])


def run_losses(pruned: dict[str, store.Model], items: pd.DataFrame) -> np.ndarray:
    """Loss of each train row at the sparsities recorded along the sparsest run, [levels, rows], in nats.

    Raises StudyError where that run recorded fewer than two.
    """
    name, last = list(pruned.items())[-1]
    if len(last.record["checkpoint_sparsity"]) < 2:
        raise StudyError(f"model {name!r} recorded fewer than two sparsities along its run: "
                         "give pruning.run_levels two or more values up to the largest of sparsity_levels")
    labels = items.loc[items["split"] == "train", "label"].to_numpy()
    return np.stack([difficulty.losses_from_logits(logits, labels) for logits in _along(last, items).values()])


def _along(model: store.Model, items: pd.DataFrame) -> dict[int, np.ndarray]:
    """step -> train logits [rows, classes] of a model's checkpoints, in step order."""
    table = model.checkpoints()
    return {int(step): store.ordered_logits(part, items, "train") for step, part in table.groupby("step")}


def checkpoint_logits(model: store.Model, items: pd.DataFrame, fraction: float) -> np.ndarray:
    """Train logits [rows, classes] of a model at a fraction of its steps. Raises StudyError where none was kept."""
    along = _along(model, items)
    step = round(fraction * model.record["steps"])
    if step not in along:
        known = sorted(round(s / model.record["steps"], 3) for s in along)
        raise StudyError(f"no checkpoint of {model.name!r} at {fraction:g} of its steps; teacher.checkpoints kept {known}")
    return along[step]


def wrong_at_every_level(pruned: dict[str, store.Model], items: pd.DataFrame) -> np.ndarray:
    """Whether a train row is misclassified at every sparsity level, [rows]: such rows have little variance."""
    labels = items.loc[items["split"] == "train", "label"].to_numpy()
    return np.all([m.logits(items, "train").argmax(1) != labels for m in pruned.values()], axis=0)


def easy_rows(shortcut: pd.DataFrame) -> pd.Series:
    """Whether the shortcut-only model's answer is right, by guid of its predictions table."""
    right = np.stack(shortcut["logits"].to_numpy()).argmax(1) == shortcut["label"].to_numpy()
    return pd.Series(right, index=shortcut["guid"].to_numpy())


def table(items: pd.DataFrame, dense: store.Model, shortcut: pd.DataFrame, v_levels: np.ndarray,
          v_one_run: np.ndarray) -> pd.DataFrame:
    """One row per train row: guid, v_levels, v_one_run, confidence, variability, shortcut_confidence.

    confidence and variability are the dense run's training dynamics; shortcut_confidence is the cross-fitted
    shortcut-only model's probability of the true label.
    """
    train = items[items["split"] == "train"]
    labels = train["label"].to_numpy()
    confidence, variability, _ = difficulty.dynamics(np.stack(list(_along(dense, items).values())), labels)
    biased = np.exp(-difficulty.losses_from_logits(store.ordered_logits(shortcut, items, "train"), labels))
    return pd.DataFrame({"guid": train["guid"].to_numpy(), "v_levels": v_levels, "v_one_run": v_one_run,
                         "confidence": confidence, "variability": variability, "shortcut_confidence": biased})


HARDER = {"v_levels": 1, "v_one_run": 1, "variability": 1, "confidence": -1, "shortcut_confidence": -1}


def rank_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Spearman rank agreement between every two scores, each turned so that larger means harder."""
    return pd.DataFrame({n: sign * scores[n] for n, sign in HARDER.items()}).corr(method="spearman").rename_axis("score")


def truth_table(scores: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """AUC, best threshold, agreement and majority share of each score against the rows on which the shortcut fails.

    Empty where the task does not know the truth.
    """
    known = train["is_shortcut"].notna().to_numpy()
    if not known.any():
        return pd.DataFrame(columns=["auc", "best_threshold", "agreement", "majority"]).rename_axis("score")
    hard = ~train["is_shortcut"].to_numpy(dtype=bool, na_value=True)[known]
    return pd.DataFrame({n: difficulty.agreement(sign * scores[n].to_numpy()[known], hard)
                         for n, sign in HARDER.items()}).T.rename_axis("score")


def agreement_on_dev(pruned: dict[str, store.Model], items: pd.DataFrame, shortcut: pd.DataFrame) -> pd.DataFrame:
    """Agreement of the variance over sparsity levels with the shortcut-only split, both on dev."""
    dev = items[items["split"] == "dev"]
    hard = ~easy_rows(shortcut).loc[dev["guid"]].to_numpy()
    variance = difficulty.variance(level_losses(pruned, items, "dev"))
    return pd.DataFrame({"variance": difficulty.agreement(variance, hard)}).T.rename_axis("score")


def easy_hard(rows: dict[str, pd.DataFrame], shortcut: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Accuracy of each model on the easy and the hard rows of test: model, part, value, low, high, n."""
    easy = easy_rows(shortcut)
    frames = []
    for name, frame in rows.items():
        test = frame[frame["split"] == "test"]
        part = np.where(easy.loc[test["guid"]].to_numpy(), "easy", "hard")
        frames.append(measures.by(test.assign(part=part), ["part"], n_boot=n_boot, seed=seed).assign(model=name))
    return pd.concat(frames, ignore_index=True)


def confidence(rows: dict[str, pd.DataFrame], shortcut: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, mean confidence, over-confidence (confidence less accuracy) and ECE of easy and hard rows of test."""
    easy = easy_rows(shortcut)
    result = []
    for name, frame in rows.items():
        test = frame[frame["split"] == "test"]
        is_easy = easy.loc[test["guid"]].to_numpy()
        for part, chosen in test.groupby(np.where(is_easy, "easy", "hard")):
            accuracy, sure = chosen["correct"].mean(), chosen["confidence"].mean()
            result.append({"model": name, "part": part, "n": len(chosen), "accuracy": accuracy, "confidence": sure,
                           "over_confidence": sure - accuracy, "ece": measures.ece(chosen)})
    return pd.DataFrame(result)
