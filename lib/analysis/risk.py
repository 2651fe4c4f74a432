"""What is known of each row before anything is compressed: from the dense run, from the rows, from a shortcut.

Each gives a row a risk of being lost: all are higher for rows more at risk, and but for `rarity` need no truth, for of
a row that the dense model gets right its own answer is the label.

- loss, margin: of the dense model; margin is minus the log odds of its label against the next. With two classes both
  order the rows alike.
- el2n: mean norm of softmax - onehot over the checkpoints of the first half of the run (Paul et al. 2021); one run,
  where they average ten. loss_variance: variance of the loss over all checkpoints (which Du et al. 2023 take over
  sparsities). variability: standard deviation of the label's probability over them (Swayamdipta et al. 2020).
- gradient_norm: norm of the loss's gradient by the last layer's weights, |softmax - onehot| |h|, h what the layer is
  fed (`store.Model.norms`; Katharopoulos and Fleuret 2018 bound the whole gradient by it).
- learned_at: when the run learned the row (`learned.learned_at`); missing where it ends wrong.
- rarity: minus log of 1 + the train rows of the row's subcase with the same truth about the shortcut: micro-world
  alone. bigram_rarity: mean over its word pairs of minus log of the share of train texts that hold the pair.
- shortcut_wrong: the probability that the shortcut-only model gives the wrong labels.
"""

import numpy as np
import pandas as pd
from scipy.special import log_softmax, logsumexp
from sklearn.feature_extraction.text import CountVectorizer

from lib import store
from lib.analysis import difficulty, learned, measures, tables
from lib.errors import StudyError
from lib.tasks.task import Task

DENSE_RUN = ("loss", "margin", "el2n", "loss_variance", "variability", "gradient_norm", "learned_at")
PREDICTORS = (*DENSE_RUN, "rarity", "bigram_rarity", "shortcut_wrong")
EARLY = 0.5  # of the dense run: checkpoints that count for EL2N


def predictors(checkpoints: pd.DataFrame, items: pd.DataFrame, task: Task, shortcut: pd.DataFrame | None = None,
               norms: pd.Series | None = None) -> pd.DataFrame:
    """One row per row of test and the OOD sets (but `unseen`): guid split subcase group right | a column per predictor.

    checkpoints: predictions of the dense run with a column `step`, its end among them. items: the task's rows; where
    they hold no texts bigram_rarity is missing, where no truth rarity. shortcut: predictions of the shortcut-only model
    (`floors.shortcut_only`) for shortcut_wrong. norms: `store.Model.norms` for gradient_norm. right: the
    dense model is. Raises StudyError where the first half of the run has no checkpoint, or a row no prediction.
    """
    steps = np.sort(checkpoints["step"].unique())
    early = steps <= EARLY * steps[-1]
    if not early.any():
        raise StudyError("EL2N needs a checkpoint in the first half of the dense run, not only at steps "
                         f"{steps.tolist()}: set teacher.checkpoints")
    splits = ["test", *tables.ood_splits(task)]
    frame = items.loc[items["split"].isin(splits), ["guid", "split", "label", "subcase", "group", "is_shortcut"]]
    by_step = [checkpoints[checkpoints["step"] == step] for step in steps]
    end = measures.rows(by_step[-1][by_step[-1]["split"].isin(splits)], items, task)
    parts = []
    for split, part in frame.groupby("split", sort=False):
        labels, at = part["label"].to_numpy(), np.arange(len(part))
        logp = np.stack([_log_probabilities(store.ordered_logits(table, items, split), split, task)
                         for table in by_step])
        loss, wrong = -logp[:, at, labels], logp[-1].copy()
        wrong[at, labels] = -np.inf
        error = np.linalg.norm(np.exp(logp) - np.eye(logp.shape[-1])[labels], axis=-1)
        parts.append(part.assign(loss=loss[-1], margin=wrong.max(axis=1) + loss[-1], el2n=error[early].mean(axis=0),
                                 loss_variance=loss.var(axis=0), variability=np.exp(-loss).std(axis=0),
                                 gradient_norm=error[-1]))
    frame = pd.concat(parts)
    frame.insert(5, "right", frame["guid"].map(end.set_index("guid")["correct"]).to_numpy(bool))
    frame["gradient_norm"] *= frame["guid"].map(norms) if norms is not None else np.nan
    frame["learned_at"] = frame["guid"].map(learned.learned_at(tables.trajectory_rows(checkpoints, items, task)))
    frame["rarity"] = rarity(items).reindex(frame.index)
    frame["bigram_rarity"] = bigram_rarity(items).reindex(frame.index) if "text_a" in items else np.nan
    if shortcut is not None:
        known = measures.rows(shortcut[shortcut["split"].isin(splits)], items, task).set_index("guid")
        frame["shortcut_wrong"] = frame["guid"].map(1 - np.exp(-known["loss"]))
    return frame.drop(columns=["label", "is_shortcut"]).dropna(axis="columns", how="all").reset_index(drop=True)


def rarity(items: pd.DataFrame) -> pd.Series:
    """Minus log of 1 + the train rows of a row's subcase and `is_shortcut`, [rows]; NaN where the truth is unknown."""
    kinds = items.groupby(["subcase", "is_shortcut"], sort=False, dropna=False).ngroup()
    counts = kinds[items["split"] == "train"].value_counts()
    return -np.log1p(kinds.map(counts).fillna(0)).mask(items["is_shortcut"].isna().to_numpy())


def bigram_rarity(items: pd.DataFrame) -> pd.Series:
    """Mean over a row's word pairs of -log((c + 1) / (N + 1)), c of N train texts hold the pair, [rows]; no pair: 0."""
    counter = CountVectorizer(ngram_range=(2, 2), token_pattern=difficulty.WORD, binary=True)
    counter.fit(pd.concat([items["text_a"], items["text_b"]]))
    pairs = counter.transform(items["text_a"]) + counter.transform(items["text_b"])
    train = (items["split"] == "train").to_numpy()
    held = np.asarray(pairs[train].sum(axis=0)).ravel()
    rare = -np.log((held + 1) / (2 * train.sum() + 1))
    return pd.Series(pairs @ rare / np.maximum(np.asarray(pairs.sum(axis=1)).ravel(), 1), index=items.index)


def _log_probabilities(logits: np.ndarray, split: str, task: Task) -> np.ndarray:
    """Log probabilities [rows, classes of the split] of logits over the task's classes."""
    logp = log_softmax(logits.astype(np.float64), axis=1)
    collapse = task.ood[split].collapse if split in task.ood else None
    if collapse is None:
        return logp
    return np.stack([logsumexp(logp[:, np.equal(collapse, c)], axis=1) for c in range(max(collapse) + 1)], axis=1)
