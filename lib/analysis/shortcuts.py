"""Shortcut samples: which rows a shortcut solves, by several scores, and how models treat them (notebook 06)."""

import numpy as np
import pandas as pd

from lib import names, store
from lib.analysis import difficulty, measures
from lib.errors import StudyError

HARDER = {"v_levels": 1, "v_one_run": 1, "variability": 1, "confidence": -1, "shortcut_confidence": -1, "el2n": 1,
          "v_seeds": 1}  # 1 where a larger score means a harder row


def by_sparsity(models: dict[str, store.Model]) -> dict[str, store.Model]:
    """The IMP models alone, least sparse first; no variants (imp-70-2x), losses or quantised models."""
    pruned = [name for name in models if names.parse(name).family == "imp" and names.parse(name).structure == name]
    return {name: models[name] for name in sorted(pruned, key=lambda name: models[name].record["sparsity_target"])}


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
        raise StudyError(f"no checkpoint of {model.name!r} at {fraction:g} of its steps; teacher.checkpoints kept "
                         f"{known}")
    return along[step]


def early(model: store.Model, items: pd.DataFrame) -> np.ndarray:
    """Train logits [checkpoints, rows, classes] of a run's first quarter; its earliest where none was kept so soon."""
    along = _along(model, items)
    stops = [step for step in along if step <= round(model.record["steps"] / 4)] or [min(along)]
    return np.stack([along[step] for step in stops])


def wrong_at_every_level(pruned: dict[str, store.Model], items: pd.DataFrame) -> np.ndarray:
    """Whether a train row is misclassified at every sparsity level, [rows]: such rows have little variance."""
    labels = items.loc[items["split"] == "train", "label"].to_numpy()
    return np.all([m.logits(items, "train").argmax(1) != labels for m in pruned.values()], axis=0)


def easy_rows(shortcut: pd.DataFrame) -> pd.Series:
    """Whether the shortcut-only model's answer is right, by guid of its predictions table."""
    right = np.stack(shortcut["logits"].to_numpy()).argmax(1) == shortcut["label"].to_numpy()
    return pd.Series(right, index=shortcut["guid"].to_numpy())


def score_table(items: pd.DataFrame, dense: store.Model, shortcut: pd.DataFrame, v_levels: np.ndarray,
                v_one_run: np.ndarray) -> pd.DataFrame:
    """One row per train row: guid, v_levels, v_one_run, confidence, variability, shortcut_confidence, el2n.

    confidence and variability are the dense run's training dynamics, el2n its error early on (`early`);
    shortcut_confidence is the cross-fitted shortcut-only model's probability of the true label.
    """
    train = items[items["split"] == "train"]
    labels = train["label"].to_numpy()
    confidence, variability, _ = difficulty.dynamics(np.stack(list(_along(dense, items).values())), labels)
    biased = np.exp(-difficulty.losses_from_logits(store.ordered_logits(shortcut, items, "train"), labels))
    return pd.DataFrame({"guid": train["guid"].to_numpy(), "v_levels": v_levels, "v_one_run": v_one_run,
                         "confidence": confidence, "variability": variability, "shortcut_confidence": biased,
                         "el2n": difficulty.el2n(early(dense, items), labels)})


def _hardness(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores that a table holds, each turned so that larger means harder."""
    return pd.DataFrame({name: sign * scores[name] for name, sign in HARDER.items() if name in scores})


def rank_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Spearman rank agreement between every two scores, each turned so that larger means harder."""
    return _hardness(scores).corr(method="spearman").rename_axis("score")


def truth_table(scores: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """AUC, best threshold, agreement and majority share of each score against the rows on which the shortcut fails.

    Empty where the task does not know the truth.
    """
    known = train["is_shortcut"].notna().to_numpy()
    if not known.any():
        return pd.DataFrame(columns=["auc", "best_threshold", "agreement", "majority"]).rename_axis("score")
    hard = ~train["is_shortcut"].to_numpy(dtype=bool, na_value=True)[known]
    return pd.DataFrame({name: difficulty.threshold_agreement(score.to_numpy()[known], hard)
                         for name, score in _hardness(scores).items()}).T.rename_axis("score")


def on_dev(pruned: dict[str, store.Model], dense: list[store.Model], items: pd.DataFrame) -> pd.DataFrame:
    """One row per dev row: guid, v_levels, v_seeds (variance of the loss over dense models of several seeds).

    Taken on dev because seeds draw different train rows and share dev. v_seeds is missing where there is one seed.
    """
    dev = items[items["split"] == "dev"]
    seeds = level_losses({str(i): model for i, model in enumerate(dense)}, items, "dev")
    v_levels = difficulty.variance(level_losses(pruned, items, "dev"))
    return pd.DataFrame({"guid": dev["guid"].to_numpy(), "v_levels": v_levels,
                         "v_seeds": difficulty.variance(seeds) if len(seeds) > 1 else np.nan})


def rivals(scores: pd.DataFrame, dev: pd.DataFrame, items: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Each score beside v_levels of the same rows: score | on | measure | value | low | high | n.

    scores: `score_table`, on train; dev: `on_dev`. measure: rank, Spearman's rho with v_levels (its interval takes rows
    as independent), and auc, against the rows on which the shortcut fails (not there where the task does not know
    them). NaN for a score that is missing.
    """
    measured = []
    for split, table in (("train", scores), ("dev", dev)):
        rows = items[items["split"] == split]
        known = rows["is_shortcut"].notna().to_numpy()
        fails = ~rows["is_shortcut"].to_numpy(dtype=bool, na_value=True)[known]
        for name, score in _hardness(table).items():
            place, missing = {"score": name, "on": split}, score.isna().any()
            unknown = {"value": np.nan, "low": np.nan, "high": np.nan, "n": 0}
            if name != "v_levels":
                rank = unknown if missing else difficulty.rank_agreement(score, table["v_levels"])
                measured.append(place | {"measure": "rank"} | rank)
            if known.any():
                auc = unknown if missing else difficulty.auc(score[known], fails, rows[known], n_boot, seed)
                measured.append(place | {"measure": "auc"} | auc)
    return pd.DataFrame(measured)


def prices(dense: list[store.Model], pruned: dict[str, store.Model]) -> pd.DataFrame:
    """What each score costs beyond one dense run, which is there anyway: score | steps | dense_runs | note.

    dense: the run's own model first, then those of other seeds. steps: training steps of all models that are made for
    the score alone; dense_runs: the same as a share of one dense run's.
    """
    first, *others = (model.record["steps"] for model in dense)
    levels = [model.record["steps"] for model in pruned.values()]
    seeds = (sum(others), f"dense runs of {len(others) + 1} seeds") if others else \
        (np.nan, "one dense seed: not available")
    needs = {"v_levels": (sum(levels), f"{len(levels)} pruned runs"), "v_one_run": (levels[-1], "one pruned run"),
             "variability": (0, "dense run"), "confidence": (0, "dense run"), "shortcut_confidence": (0, "no encoder"),
             "el2n": (0, "dense run"), "v_seeds": seeds}
    table = pd.DataFrame(needs, index=["steps", "note"]).T.rename_axis("score").astype({"steps": float})
    return table.assign(dense_runs=table["steps"] / first)[["steps", "dense_runs", "note"]]


def agreement_on_dev(pruned: dict[str, store.Model], items: pd.DataFrame, shortcut: pd.DataFrame) -> pd.DataFrame:
    """Agreement of the variance over sparsity levels with the shortcut-only split, both on dev."""
    hard = ~easy_rows(shortcut).loc[items.loc[items["split"] == "dev", "guid"]].to_numpy()
    variance = difficulty.variance(level_losses(pruned, items, "dev"))
    return pd.DataFrame({"variance": difficulty.threshold_agreement(variance, hard)}).T.rename_axis("score")


def easy_hard(rows: dict[str, pd.DataFrame], shortcut: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Accuracy of each model on the easy and the hard rows of test: model, part, value, low, high, n."""
    return pd.concat([measures.by(test, ["part"], n_boot=n_boot, seed=seed).assign(model=name)
                      for name, test in _parted(rows, shortcut).items()], ignore_index=True)


def confidence(rows: dict[str, pd.DataFrame], shortcut: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, mean confidence, over-confidence (confidence less accuracy) and ECE of easy and hard rows of test."""
    result = []
    for name, test in _parted(rows, shortcut).items():
        for part, chosen in test.groupby("part"):
            accuracy, sure = chosen["correct"].mean(), chosen["confidence"].mean()
            result.append({"model": name, "part": part, "n": len(chosen), "accuracy": accuracy, "confidence": sure,
                           "over_confidence": sure - accuracy, "ece": measures.ece(chosen)})
    return pd.DataFrame(result)


def _parted(rows: dict[str, pd.DataFrame], shortcut: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each model's rows of test with a column part: easy or hard."""
    part = easy_rows(shortcut).map({True: "easy", False: "hard"})
    tests = {name: frame[frame["split"] == "test"] for name, frame in rows.items()}
    return {name: test.assign(part=part.loc[test["guid"]].to_numpy()) for name, test in tests.items()}
