"""What a model must beat: predictions that need no trained encoder, in the study's own predictions table."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from lib import store
from lib.analysis import difficulty
from lib.tasks.task import Task


def majority(items: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The share of each label in train, for every row."""
    train = items.loc[items["split"] == "train", "label"]
    shares = np.bincount(train, minlength=len(task.labels)) / len(train)
    return store.predictions_table(items, np.log(np.tile(shares + 1e-9, (len(items), 1))))


def bag_of_words(items: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Logistic regression on the words of both texts, side told, fitted on train."""
    def marked(frame: pd.DataFrame) -> list[str]:
        return [" ".join([f"a_{w}" for w in a.lower().split()] + [f"b_{w}" for w in b.lower().split()])
                for a, b in zip(frame["text_a"], frame["text_b"])]

    train = items[items["split"] == "train"]
    model = make_pipeline(CountVectorizer(token_pattern=r"\S+", binary=True), LogisticRegression(max_iter=1000))
    model.fit(marked(train), train["label"])
    probabilities = np.zeros((len(items), len(task.labels)))
    probabilities[:, model.classes_] = model.predict_proba(marked(items))
    return store.predictions_table(items, np.log(probabilities + 1e-9))


def shortcut_only(items: pd.DataFrame, task: Task, folds: int, seed: int) -> pd.DataFrame:
    """The task's shortcut-only model (one text alone, or word overlap alone), cross-fitted on train."""
    train, other = items[items["split"] == "train"], items[items["split"] != "train"]
    on_train, on_other = difficulty.shortcut_only(train, task.shortcut, len(task.labels), folds, seed, items_eval=other)
    return store.predictions_table(pd.concat([train, other]), np.log(np.concatenate([on_train, on_other]) + 1e-9))


def predictions(items: pd.DataFrame, task: Task, seed: int, folds: int = 5) -> dict[str, pd.DataFrame]:
    """Every floor's predictions by name."""
    return {"majority": majority(items, task), "bag of words": bag_of_words(items, task),
            "shortcut only": shortcut_only(items, task, folds, seed)}
