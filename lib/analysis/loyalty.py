"""How closely a model follows its teacher, right or wrong (Xu et al. 2021, arXiv 2109.03228).

Logits are arrays [n, classes] of the model and of the teacher on the same rows; probabilities are their softmax in
float64. All of it is over the task's classes, before an OOD set collapses any of them: to call neutral what the
teacher calls contradiction is disloyal, though HANS takes both for non-entailment.
"""

import numpy as np
import pandas as pd
from scipy.special import log_softmax, rel_entr, softmax

from lib import names, store
from lib.analysis import bootstrap, measures
from lib.errors import StudyError
from lib.tasks.task import Task

COLUMNS = {"label_loyalty": "correct", "probability_loyalty": "confidence", "kl": "loss"}  # bootstrap's names for them
SCORES = {"label_loyalty": "accuracy", "probability_loyalty": "confidence", "kl": "loss"}


def label_loyalty(logits: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Whether the model predicts the teacher's label: bool [n]; their mean is the paper's label loyalty."""
    logits, teacher = _both(logits, teacher)
    return logits.argmax(axis=1) == teacher.argmax(axis=1)


def probability_loyalty(logits: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """1 - sqrt(D_JS(teacher, model)) of each row, in [0, 1]: [n].

    Jensen-Shannon divergence along the classes in base 2, so that opposite one-hot predictions give exactly 0 (natural
    logarithms would leave 0.167) and equal ones exactly 1.
    """
    p, q = (softmax(x, axis=1) for x in _both(logits, teacher))
    middle = (p + q) / 2
    # scipy's jensenshannon is NaN where rounding takes the divergence of two nearly equal rows below 0
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / (2 * np.log(2))
    return 1 - np.sqrt(np.clip(divergence, 0, 1))


def kl(logits: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """KL(teacher || model) of each row, in nats: [n], 0 or more."""
    of_model, of_teacher = (log_softmax(x, axis=1) for x in _both(logits, teacher))
    return np.maximum((np.exp(of_teacher) * (of_teacher - of_model)).sum(axis=1), 0)


def rows(predictions: pd.DataFrame, teacher_predictions: pd.DataFrame) -> pd.DataFrame:
    """The measures of every row but train's: the predictions with seed (0 where they hold one run) and the columns
    label_loyalty | probability_loyalty | kl. Raises StudyError unless both tables hold the same rows."""
    of_model, of_teacher = bootstrap.aligned(*(t[t["split"] != "train"] for t in (predictions, teacher_predictions)))
    both = of_model.merge(of_teacher[["seed", "guid", "logits"]], on=["seed", "guid"], suffixes=("", "_teacher"))
    logits, teacher = (np.stack(both[column].to_numpy()) for column in ("logits", "logits_teacher"))
    return both.drop(columns="logits_teacher").assign(
        label_loyalty=label_loyalty(logits, teacher), probability_loyalty=probability_loyalty(logits, teacher),
        kl=kl(logits, teacher))


def teacher(dense, recipe: names.Name) -> pd.DataFrame:
    """The dense model's predictions that a model of that recipe is held to: a quantised one, which is predicted in
    fp32, to those in fp32, where there are any. dense: a model of the store or of the reference."""
    in_fp32 = dense.in_fp32() if recipe.quantization else None
    return store.evaluated(dense) if in_fp32 is None else in_fp32


def by_split(predictions: pd.DataFrame, teacher_predictions: pd.DataFrame, items: pd.DataFrame, task: Task,
             n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Loyalty on every split but train: split | measure | value | low | high | n.

    predictions, teacher_predictions: interchange tables of the model and its teacher, with a column `seed` where they
    hold several runs (each run then has the teacher of its seed). measure: label_loyalty, probability_loyalty (means,
    in [0, 1]) and kl (mean, nats). The intervals are those of `lib.analysis.bootstrap`. Two dense models of different
    seeds in place of model and teacher give the null: the churn that means nothing. Raises StudyError unless both
    tables hold the same rows, all of them the task's.
    """
    followed = rows(predictions, teacher_predictions)
    judged = measures.rows(followed, items, task).drop(columns=list(COLUMNS.values())).rename(columns=COLUMNS)
    return bootstrap.intervals([({"split": split, "measure": measure}, part, kind)
                                for split, part in judged.groupby("split", sort=False)
                                for measure, kind in SCORES.items()], n_boot, seed)


def _both(logits: np.ndarray, teacher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, teacher = (np.asarray(x, dtype=np.float64) for x in (logits, teacher))
    if logits.ndim != 2 or logits.shape != teacher.shape:
        raise StudyError(f"loyalty: the model's logits are {list(logits.shape)}, the teacher's {list(teacher.shape)}; "
                         "give both as [rows, classes] on the same rows")
    return logits, teacher
