"""Probes that guard the micro-world: no word, and no bag of words, gives a label away beyond the declared shortcut."""

from collections import Counter

import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from lib.tasks.microworld import drawn, planned_twins, trained


def features(items: pd.DataFrame) -> list[dict[str, float]]:
    """Order-free features, a dict a row: counts of the words of each side, the share of text_b's distinct words that
    text_a holds, and that of both texts' words."""
    rows = []
    for text_a, text_b in zip(items["text_a"], items["text_b"]):
        a, b = text_a.split(), text_b.split()
        both = len(set(a) & set(b))
        rows.append(Counter([f"a:{w}" for w in a] + [f"b:{w}" for w in b])
                    | {"overlap": both / len(set(b)), "jaccard": both / len(set(a) | set(b))})
    return rows


def bag_probe(items: pd.DataFrame) -> dict[str, float]:
    """Ruling (a): logistic regression on words and overlap, trained on train; its penalty (C = 0.1) keeps it from
    learning rare words by heart, which costs dev and says nothing of the shortcut.

    Returns accuracy on dev, and on the ood rows where the shortcut fails and where it holds.
    """
    probe = make_pipeline(DictVectorizer(), MaxAbsScaler(), LogisticRegression(C=0.1, max_iter=1000))
    train = items[items["split"] == "train"]
    probe.fit(features(train), train["label"])
    right = pd.Series(probe.predict(features(items)) == items["label"].to_numpy(), index=items.index)
    ood, holds = items["split"] == "ood", items["is_shortcut"].astype(bool)
    return {"dev": float(right[items["split"] == "dev"].mean()), "ood_fails": float(right[ood & ~holds].mean()),
            "ood_holds": float(right[ood & holds].mean())}


def twin_probe(task_name: str, seed: int) -> pd.DataFrame:
    """Ruling (b): a random forest on the same features, trained on 2,000 hard rows with their twins.

    Returns its accuracy per subcase on fresh twins: frame [subcase, accuracy, rows].
    """
    plan = planned_twins(task_name, False, 2000 // (2 * len(trained(task_name))))
    hard = pd.DataFrame(drawn(task_name, "train", plan, seed))
    fresh = pd.DataFrame(drawn(task_name, "ood", planned_twins(task_name, False, 200)))
    probe = make_pipeline(DictVectorizer(sparse=False), RandomForestClassifier(60, random_state=seed))
    probe.fit(features(hard), hard["label"])
    fresh["accuracy"] = probe.predict(features(fresh)) == fresh["label"]
    return fresh.groupby("subcase", sort=False)["accuracy"].agg(accuracy="mean", rows="size").reset_index()
