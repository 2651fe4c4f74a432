"""From predictions to scores: accuracy, gaps, bias, forgetting, calibration and churn, each with its interval.

Scores are shares in [0, 1] (a point is 0.01). Tables have the columns value, low, high (95 % interval) and n (distinct
rows). The intervals are those of `lib.analysis.bootstrap`; where `rows` hold a column `seed`, seeds are a level of it
and the value is the mean over seeds.
"""

from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.special import log_softmax, logsumexp

from lib.analysis import bootstrap
from lib.errors import StudyError
from lib.tasks.task import Task

OOD_WEIGHTS = MappingProxyType({"paws_wiki": 8000, "paws_qqp": 677})  # the paper's rows; other sets weigh alike
ITEM_COLUMNS = ["guid", "heuristic", "subcase", "is_shortcut", "group"]
MATCH_LOSS = 0.05  # share of resamples that may leave the dense run's range before an interval is withheld


def rows(predictions: pd.DataFrame, items: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Judge each prediction: guid split label pred correct confidence loss heuristic subcase is_shortcut group.

    predictions: the interchange table; columns `seed`, `step` and `model`, where there, are kept. On an OOD set with
    fewer labels the argmax is taken first and collapsed then. confidence: the probability of the predicted class,
    loss: -log of the label's, both summed over the task classes that collapse into it. Raises StudyError for a guid
    that is not among the items, or a label that differs.
    """
    known = items.set_index("guid")["label"].reindex(predictions["guid"]).to_numpy()
    good = known == predictions["label"].to_numpy()
    if not good.all():
        at = predictions.iloc[int(np.argmin(good))]
        raise StudyError(f"predictions: guid {at['guid']!r} of split {at['split']!r} is not among the task's rows "
                         "with that label; check that predictions and data are of one task and seed")
    logits = np.concatenate(predictions["logits"].tolist()).reshape(len(predictions), -1)
    judged = outcomes(logits, predictions["split"].to_numpy(object), predictions["label"].to_numpy(), task)
    return predictions.drop(columns="logits").assign(**judged).merge(items[ITEM_COLUMNS], on="guid", how="left")


def outcomes(logits: np.ndarray, split: np.ndarray, label: np.ndarray, task: Task) -> dict[str, np.ndarray]:
    """pred, correct, confidence, loss [n] of `rows`, from logits [n, classes] and the rows' split and label [n]."""
    logp = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    pred, confidence, loss = np.empty(len(label), dtype=np.int64), np.empty(len(label)), np.empty(len(label))
    for name in pd.unique(split):
        here = np.flatnonzero(split == name)
        collapse = np.arange(logp.shape[1])
        if name in task.ood and task.ood[name].collapse is not None:
            collapse = np.asarray(task.ood[name].collapse)
        part, n_classes = logp[here], collapse.max() + 1
        by_class = np.stack([logsumexp(part[:, collapse == c], axis=1) for c in range(n_classes)], axis=1)
        if label[here].max() >= n_classes:
            raise StudyError(f"predictions: split {name!r} has label {label[here].max()}, the model only {n_classes} "
                             "classes there")
        at, pred[here] = np.arange(len(here)), collapse[part.argmax(axis=1)]
        confidence[here], loss[here] = np.exp(by_class[at, pred[here]]), -by_class[at, label[here]]
    return {"pred": pred, "correct": pred == label, "confidence": confidence, "loss": loss}


def kind_of(task: Task, split: str) -> str:
    """The score that a split is reported by: accuracy or balanced."""
    return task.ood[split].score if split in task.ood else "accuracy"


def score(rows: pd.DataFrame, kind: str, bins: int = 10) -> float:
    """One score of all rows: accuracy, balanced, confidence, loss, overconfidence or ece."""
    return float(bootstrap.scores(rows, np.zeros(len(rows), dtype=int), [kind], 0, 0, bins)[0, 0])


def ece(rows: pd.DataFrame, bins: int = 10) -> float:
    """Expected calibration error: mean over rows of |confidence - accuracy| of the row's equal-width bin."""
    return score(rows, "ece", bins)


def fails_only(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows on which the shortcut gives the wrong label; none where the truth is not known (real sets)."""
    return rows[~rows["is_shortcut"].astype("boolean").fillna(True).to_numpy(bool)]


def accuracy_table(rows: pd.DataFrame, task: Task, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Per split: split | score | primary | value | low | high | n.

    score is the split's own (primary), `balanced` beside the accuracy of an OOD set, and `fails_only`, the accuracy
    where the shortcut is wrong, where that is known.
    """
    entries = []
    for split, part in rows.groupby("split", sort=False):
        primary, failing = kind_of(task, split), fails_only(part)
        scored = [(primary, part, primary)]
        if split in task.ood and primary == "accuracy":
            scored.append(("balanced", part, "balanced"))
        if len(failing):
            scored.append(("fails_only", failing, "accuracy"))
        entries += [({"split": split, "score": name, "primary": name == primary}, *of) for name, *of in scored]
    return bootstrap.intervals(entries, n_boot, seed)


def by(rows: pd.DataFrame, columns: list[str], n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Accuracy of each cell of `columns` (subcase x label, heuristic x label...): columns | value | low | high | n."""
    parts = rows.groupby(columns, sort=True, dropna=False)
    return bootstrap.intervals([(dict(zip(columns, name)), part, "accuracy") for name, part in parts], n_boot, seed)


def forgetting(rows: pd.DataFrame, counts: dict[str, int], dense: pd.DataFrame, n_boot: int = 1000,
               seed: int = 0) -> pd.DataFrame:
    """The forgetting curve: subcase | count | value | low | high | n | lost | lost_low | lost_high, rarest first.

    value: balanced score of the subcase; lost: the dense model's less it, on the same rows. counts: failing rows of
    each subcase in train; a subcase that is not there was unseen (0). Counts rotate between seeds, so several seeds at
    once raise StudyError.
    """
    _one_seed(rows, "forgetting")
    own, other = (dict(list(part.groupby("subcase", sort=True))) for part in (rows, dense))
    parts = [*own.values(), *(other[subcase] for subcase in own)]
    entry = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    drawn = bootstrap.scores(pd.concat(parts, ignore_index=True), entry, ["balanced"] * len(parts), n_boot, seed)
    table = []
    for i, (subcase, part) in enumerate(own.items()):
        n = part["guid"].nunique()
        lost = bootstrap.estimate(drawn[:, len(own) + i] - drawn[:, i], n)
        table.append({"subcase": subcase, "count": int(counts.get(subcase, 0))} | bootstrap.estimate(drawn[:, i], n)
                     | {"lost": lost["value"], "lost_low": lost["low"], "lost_high": lost["high"]})
    return pd.DataFrame(table).sort_values(["count", "subcase"], ignore_index=True)


def gap(dev, ood):
    """How far OOD lies below ID, dev - ood (floats or arrays)."""
    return dev - ood


def relative_gap(dev, ood):
    """Delta = (F_dev - F_OOD) / F_dev (Du et al. 2023)."""
    return (dev - ood) / dev


def f_bias(dev_c, ood_c, dev_d, ood_d):
    """F_bias = Delta_compressed / Delta_dense (Du et al. 2023); above 1 the compressed model is the more biased."""
    return np.divide(relative_gap(dev_c, ood_c), relative_gap(dev_d, ood_d))


def ood_score(scores: dict[str, float]) -> float:
    """One OOD score of a task from those of its `scored` sets: their mean, PAWS weighted 8000:677 as in the paper.

    Values may be arrays.
    """
    weights = {s: OOD_WEIGHTS.get(s, 1) for s in scores}
    return sum(w * np.asarray(scores[s]) for s, w in weights.items()) / sum(weights.values())


def overall(rows: pd.DataFrame, task: Task, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """A model in two numbers: measure (`test`, and `ood` as `ood_score`) | value | low | high | n."""
    rows, ood = _parts(rows, task)
    drawn = id_and_ood(rows, np.zeros(len(rows), dtype=int), task, ood, n_boot, seed)[0]
    is_id = rows["split"] == "test"
    return pd.DataFrame([{"measure": name, **bootstrap.estimate(values, rows.loc[part, "guid"].nunique())}
                         for name, values, part in zip(("test", "ood"), drawn, (is_id, ~is_id))])


def compare(rows_c: pd.DataFrame, rows_d: pd.DataFrame, task: Task, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """A compressed model against the dense one: measure | value | low | high | n | flag, paired over rows and seeds.

    id_difference and ood_difference (compressed - dense), gap_difference (above 0: the gap has grown), f_bias and
    skill_kept (`undefined` where the interval of the dense model's gap or skill holds 0).
    """
    (rows_c, _), (rows_d, ood) = (_parts(rows, task) for rows in (rows_c, rows_d))
    both, model = bootstrap.paired(rows_c, rows_d)
    (id_c, ood_c), (id_d, ood_d) = id_and_ood(both, model, task, ood, n_boot, seed)
    chance = float(ood_score({s: task.chance(s) for s in ood}))
    n = rows_d["guid"].nunique()
    table = [{"measure": name, **bootstrap.estimate(values, n), "flag": ""} for name, values in (
        ("id_difference", id_c - id_d), ("ood_difference", ood_c - ood_d),
        ("gap_difference", gap(id_c, ood_c) - gap(id_d, ood_d)))]
    table.append({"measure": "f_bias", **bootstrap.share(relative_gap(id_c, ood_c), relative_gap(id_d, ood_d), n)})
    table.append({"measure": "skill_kept", **bootstrap.share(ood_c - chance, ood_d - chance, n)})
    return pd.DataFrame(table)


def difference(rows_a: pd.DataFrame, rows_b: pd.DataFrame, statistic: str = "accuracy",
               n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """statistic(a) - statistic(b) on the same guids (and seeds), paired bootstrap: one row value | low | high | n."""
    both, entry = bootstrap.paired(rows_a, rows_b)
    drawn = bootstrap.scores(both, entry, [statistic, statistic], n_boot, seed)
    return pd.DataFrame([bootstrap.estimate(drawn[:, 0] - drawn[:, 1], rows_a["guid"].nunique())])


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction (1979) of the p values [m] of one family; NaN stays NaN and still counts among the m."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(np.nan_to_num(p, nan=1.0), kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.nan_to_num(p[order], nan=1.0) * np.arange(len(p), 0, -1))
    return np.where(np.isnan(p), np.nan, np.minimum(corrected, 1))


def flipped(rows_a: pd.DataFrame, rows_b: pd.DataFrame) -> pd.DataFrame:
    """`bootstrap.merged`, whose `correct` says that the predicted classes differ; lost, gained: a, b alone is right."""
    both = bootstrap.merged(rows_a, rows_b)
    return both.assign(correct=both["pred_a"] != both["pred_b"], lost=both["correct_a"] & ~both["correct_b"],
                       gained=both["correct_b"] & ~both["correct_a"])


def flips(rows_a: pd.DataFrame, rows_b: pd.DataFrame, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Churn per split: split | value | low | high | n | lost | gained.

    value: share of rows whose predicted class differs. lost, gained: shares that a alone, b alone has right.
    """
    both = flipped(rows_a, rows_b)
    entries = [({"split": split}, part, "accuracy") for split, part in both.groupby("split", sort=False)]
    table = bootstrap.intervals(entries, n_boot, seed)
    return table.merge(both.groupby("split", sort=False)[["lost", "gained"]].mean().reset_index(), on="split")


def matched_dev(trajectory: pd.DataFrame, model_rows: pd.DataFrame, task: Task, n_boot: int = 1000,
                seed: int = 0) -> pd.DataFrame:
    """A model's OOD score against that of the dense run when it was as good ID (effective robustness).

    trajectory: rows of the dense run with a column `step`; model_rows: rows of one model. The dense curve: the
    checkpoints by ID score (checkpoints of one ID score averaged), the nondecreasing least-squares fit of OOD on ID
    (isotonic regression), straight lines between. One row id | ood | dense_ood | value | low | high | n | outside |
    reason. value: ood - dense_ood. outside: share of resamples (curve and model drawn together) in which the model
    leaves the curve's ID range; they are left out, above 5 % the interval is NaN. Outside of the range itself all is
    NaN and `reason` says so. One seed at a time, else StudyError.
    """
    _one_seed(trajectory, "matched_dev")
    _one_seed(model_rows, "matched_dev")
    (trajectory, ood), (model_rows, _) = (_parts(rows, task) for rows in (trajectory, model_rows))
    steps = np.sort(trajectory["step"].unique())
    both = pd.concat([trajectory, model_rows.assign(step=-1)], ignore_index=True).drop(columns="seed", errors="ignore")
    model = np.searchsorted(np.concatenate([[-1], steps]), both["step"].to_numpy())
    points = id_and_ood(both, model, task, ood, n_boot, seed)
    dev, out = (np.column_stack([p[i] for p in points]) for i in (0, 1))
    dense = np.array([_on_curve(x[0], x[1:], y[1:]) for x, y in zip(dev, out)])
    estimate = bootstrap.estimate(out[:, 0] - dense, model_rows["guid"].nunique())
    outside = float(np.isnan(dense[1:]).mean()) if n_boot else 0.0
    reason = "resamples leave the dense run's range: no interval" if outside > MATCH_LOSS else ""
    if np.isnan(dense[0]):
        reason = "ID score above the dense run's best" if dev[0, 0] > dev[0, 1:].max() else \
            "ID score below the dense run's first checkpoints"
    if reason:
        estimate |= {"low": np.nan, "high": np.nan}
    return pd.DataFrame([{"id": dev[0, 0], "ood": out[0, 0], "dense_ood": dense[0], **estimate,
                          "outside": outside, "reason": reason}])


def dense_curve(dev: np.ndarray, ood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The knots of the dense run's curve: ID scores, rising, and the nondecreasing least-squares fit of OOD scores;
    between them it is straight in the ID score."""
    x, place, count = np.unique(dev, return_inverse=True, return_counts=True)
    return x, isotonic_regression(np.bincount(place, ood) / count, weights=count).x


def _on_curve(at: float, dev: np.ndarray, ood: np.ndarray) -> float:
    return float(np.interp(at, *dense_curve(dev, ood), left=np.nan, right=np.nan))


def id_and_ood(frame: pd.DataFrame, model: np.ndarray, task: Task, ood: list[str], n_boot: int,
               seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each model code the ID and the OOD score [1 + n_boot] (NaN where `ood` names no set), all from one draw;
    frame, model: as `bootstrap.paired` gives them."""
    splits = ["test", *ood]
    kinds = [kind_of(task, s) for s in splits]
    entry = model * len(splits) + pd.Categorical(frame["split"], categories=splits).codes
    n_models = int(model.max()) + 1
    present = np.bincount(entry, minlength=n_models * len(splits)) > 0
    if not present.all():
        raise StudyError(f"split {splits[int(np.argmin(present)) % len(splits)]!r} has no rows for one of the models")
    drawn = bootstrap.scores(frame, entry, kinds * n_models, n_boot, seed).reshape(n_boot + 1, n_models, len(splits))
    outside = [{s: drawn[:, m, 1 + i] for i, s in enumerate(ood)} for m in range(n_models)]
    return [(drawn[:, m, 0], ood_score(outside[m]) if ood else np.full(n_boot + 1, np.nan)) for m in range(n_models)]


def _one_seed(rows: pd.DataFrame, name: str) -> None:
    if "seed" in rows and rows["seed"].nunique() > 1:
        raise StudyError(f"{name}: give the rows of one seed at a time, not {sorted(rows['seed'].unique())}")


def _parts(rows: pd.DataFrame, task: Task) -> tuple[pd.DataFrame, list[str]]:
    """The rows of test and of the `scored` OOD sets, and the names of the latter."""
    there = set(rows["split"].unique())
    ood = [s for s in task.scored if s in there]
    if "test" not in there or not ood:
        raise StudyError(f"the rows hold {', '.join(sorted(there))}: a comparison needs split 'test' and an OOD split "
                         f"of task {task.name!r} ({', '.join(task.scored)})")
    return rows[rows["split"].isin(["test", *ood])], ood
