"""What will be forgotten, foretold: which rows that the dense model gets right does a compressed model lose?

Known beforehand are the dense model and its training. A predictor gives each row a risk; its AUC is the share of pairs
of a lost and a kept row in which the lost one has the higher risk (0.5: a coin). All predictors are higher for rows
more at risk, and but for `rarity` need no truth: of a row that the dense model gets right its own answer is the label.

- loss, margin: of the dense model; margin is minus the log odds of its label against the next. With two classes both
  order the rows alike.
- el2n: mean norm of softmax - onehot over the checkpoints of the first half of the run (Paul et al. 2021); one run,
  where they average ten. loss_variance: variance of the loss over all checkpoints (which Du et al. 2023 take over
  sparsities). variability: standard deviation of the label's probability over them (Swayamdipta et al. 2020).
- gradient_norm: norm of the loss's gradient by the last layer's weights, |softmax - onehot| |h|, h what the layer is
  fed (`store.Model.norms`; Katharopoulos and Fleuret 2018 bound the whole gradient by it).
- rarity: minus log of 1 + the train rows of the row's subcase with the same truth about the shortcut: micro-world
  alone. bigram_rarity: mean over its word pairs of minus log of the share of train texts that hold the pair.
- shortcut_wrong: the probability that the shortcut-only model gives the wrong labels.
- combined: logistic regression on the normal scores of all of them, of each seed's rows apart, fitted on compressions
  of other kinds (`kind`) in other seeds; the rows are the same ones. churn: the same fitted on what dense models of
  other seeds lose, where no compression is at work: what it foretells is hardness. `combined - churn`: the difference.

The null is the model `dense, other seed`: the rows that another dense model loses. It has another train draw, in the
micro-world with other subcases rare, which no compressed model has: what `rarity` has in excess of it is not all
compression's. `dense-2x` and `dense-after`, where the runs hold them, share the draw and are told like any model.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import log_softmax, logsumexp
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from lib import names, store
from lib.analysis import bootstrap, difficulty, measures, seeds, tables
from lib.errors import StudyError
from lib.names import OTHER_DENSE
from lib.tasks.task import Task

PREDICTORS = ("loss", "margin", "el2n", "loss_variance", "variability", "gradient_norm", "rarity", "bigram_rarity",
              "shortcut_wrong")
COMBINED, CHURN, BEYOND = "combined", "churn", "combined - churn"
ALL, EXCESS = "all compressions", "all compressions - dense, other seed"
MEANS = (ALL, OTHER_DENSE, EXCESS)
EARLY = 0.5  # of the dense run: checkpoints that count for EL2N
FEWEST = 10  # lost, or kept, rows below which an AUC is not told
Runs = dict[int, dict[str, pd.DataFrame]]


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


def kind(name: str) -> str:
    """What a combination may not have seen of a model: `imp` of imp-70 + rmc, `ptq8` of dense + ptq8.

    "" where nothing was taken from a dense model: another dense one, one from scratch or untrained.
    """
    recipe = names.parse(name)
    if recipe.family in ("dense", "scratch", "untrained"):
        return recipe.quantization
    return recipe.family


def aucs(runs: Runs, at_risk: dict[int, pd.DataFrame], n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How well each predictor foretells what each model loses: model | kind | seed | split | predictor | value | low |
    high | lost | n.

    runs: {seed: {model: rows of measures.rows}}, further seeds with `dense` alone for the null, paired as in
    `seeds.partners`; at_risk: `predictors` of the seeds that have more. value: AUC over the n rows that the seed's
    dense model gets right, `lost` of them lost;
    NaN below `FEWEST` lost or kept. Beside the models stand the null, `ALL`, the mean over the compressions that have
    an AUC on every seed, and `EXCESS`, ALL less the null (a difference of AUCs, 0: as much); beside the predictors the
    combinations at the head of this module, which need a second seed and a second kind. low, high: with one seed the 95
    % interval over rows (bootstrap of the AUC's linear part), else NaN: `summary` has that over seeds.
    """
    used = [p for p in PREDICTORS if all(p in f and f[p].notna().all() for f in at_risk.values())]
    lost = {s: _lost(runs, s, frame["guid"]) for s, frame in at_risk.items()}
    frames = []
    for split in next(iter(at_risk.values()))["split"].unique():
        sides = {}
        for s, frame in at_risk.items():
            here = ((frame["split"] == split) & frame["right"]).to_numpy()
            sides[s] = _Side(frame[here], _normal_scores(frame.loc[here, used]), lost[s].loc[:, here])
        told = [name for name in next(iter(sides.values())).lost.index if _kind(name) and all(
            name in side.lost.index and _enough(side.lost.loc[name].to_numpy()) for side in sides.values())]
        for s, side in sides.items():
            combinations = _combinations([other for of, other in sides.items() if of != s], side)
            frames.append(_told(side, used, combinations, told, n_boot if len(sides) == 1 else 0, seed)
                          .assign(seed=s, split=split, n=len(side.rows)))
    table = pd.concat(frames, ignore_index=True)
    return table[["model", "kind", "seed", "split", "predictor", "value", "low", "high", "lost", "n"]]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """`aucs` over seeds: model | kind | split | predictor | value | low | high | lost | n | seeds.

    value: mean over the seeds where it is known; low, high: 95 % t interval over them, of one seed that over rows;
    lost, n: means. What no seed knows is left out.
    """
    places = ["model", "kind", "split", "predictor"]
    return tables.over_seeds(table, places, ("lost", "n"))[[*places, "value", "low", "high", "lost", "n", "seeds"]]


def _log_probabilities(logits: np.ndarray, split: str, task: Task) -> np.ndarray:
    """Log probabilities [rows, classes of the split] of logits over the task's classes."""
    logp = log_softmax(logits.astype(np.float64), axis=1)
    collapse = task.ood[split].collapse if split in task.ood else None
    if collapse is None:
        return logp
    return np.stack([logsumexp(logp[:, np.equal(collapse, c)], axis=1) for c in range(max(collapse) + 1)], axis=1)


class _Side(NamedTuple):
    """One seed and split: the rows that its dense model gets right, their x [rows, predictors], and which of them each
    model loses, bool, models x rows."""

    rows: pd.DataFrame
    x: np.ndarray
    lost: pd.DataFrame


def _lost(runs: Runs, seed: int, guids: pd.Series) -> pd.DataFrame:
    """Which rows each model of a seed gets wrong, and the null among the models where there is another dense model."""
    models = {name: rows for name, rows in runs[seed].items() if name != "dense"}
    alone = {of for of, known in runs.items() if set(known) == {"dense"}}
    partner = seeds.partners([of for of in runs if of not in alone], [*alone]).get(seed)
    if partner is not None:
        models[OTHER_DENSE] = runs[partner]["dense"]
    wrong = {}
    for name, rows in models.items():
        correct = rows.set_index("guid")["correct"].reindex(guids)
        if correct.isna().any():
            raise StudyError(f"{name!r} of seed {seed} has no prediction of guid {correct.index[correct.isna()][0]!r}")
        wrong[name] = ~correct.to_numpy(bool)
    return pd.DataFrame(wrong).T


def _normal_scores(frame: pd.DataFrame) -> np.ndarray:
    return stats.norm.ppf((stats.rankdata(frame, axis=0) - 0.5) / len(frame))


def _enough(lost: np.ndarray) -> bool:
    return min(lost.sum(), (~lost).sum()) >= FEWEST


def _kind(name: str) -> str:
    return "" if name == OTHER_DENSE else kind(name)


def _combinations(others: list[_Side], side: _Side) -> dict[str, dict[str, np.ndarray]]:
    """Scores [rows] of one seed by models fitted on the others: kind held out -> combination -> scores."""
    kinds = {name: _kind(name) for other in others for name in other.lost.index}
    churn, scores = _fitted(others, [OTHER_DENSE], side.x), {}
    for held_out in dict.fromkeys(map(_kind, side.lost.index)):
        seen = [name for name, of in kinds.items() if of not in ("", held_out)]
        fitted = {COMBINED: _fitted(others, seen, side.x), CHURN: churn}
        scores[held_out] = {name: risk for name, risk in fitted.items() if risk is not None}
    return scores


def _fitted(sides: list[_Side], seen: list[str], x: np.ndarray) -> np.ndarray | None:
    """Log odds of being lost for x, of a logistic regression on what the models `seen` lose; None for too few rows.

    Models of a seed share its predictors, so each row stands there twice, weighted by how many lost and kept it.
    """
    lost = [side.lost.loc[side.lost.index.isin(seen)].to_numpy() for side in sides]
    n_lost, n_kept = (np.concatenate([part.sum(axis=0) for part in parts]) if parts else np.zeros(0)
                      for parts in (lost, [~part for part in lost]))
    if min(n_lost.sum(), n_kept.sum()) < FEWEST:
        return None
    rows = np.concatenate([side.x for side in sides])
    model = LogisticRegression(solver="newton-cholesky")
    model.fit(np.tile(rows, (2, 1)), np.repeat([1, 0], len(rows)), np.concatenate([n_lost, n_kept]))
    return model.decision_function(x)


def _told(side: _Side, used: list[str], combinations: dict, told: list[str], n_boot: int, seed: int) -> pd.DataFrame:
    """`aucs` of one seed and split. What is no AUC itself is a weighted sum of AUCs, and its interval that sum's."""
    places, values, parts = [], [], []
    for of, group in side.lost.groupby(side.lost.index.map(_kind), sort=False):
        x = np.column_stack([side.x, *combinations[of].values()])
        ranks = stats.rankdata(x, axis=0)
        places += [(name, predictor) for name in group.index for predictor in (*used, *combinations[of])]
        for lost in group.to_numpy():
            values.append(_auc(ranks, lost))
            parts += [_parts(ranks, lost)] if n_boot else []
    weights = dict(zip(places, np.eye(len(places))))
    for predictor in dict.fromkeys(predictor for _, predictor in places):
        if told and all((name, predictor) in weights for name in told):
            weights[ALL, predictor] = np.mean([weights[name, predictor] for name in told], axis=0)
            if (OTHER_DENSE, predictor) in weights:
                weights[EXCESS, predictor] = weights[ALL, predictor] - weights[OTHER_DENSE, predictor]
    for model in dict.fromkeys(model for model, _ in weights):
        if {(model, COMBINED), (model, CHURN)} <= set(weights):
            weights[model, BEYOND] = weights[model, COMBINED] - weights[model, CHURN]
    frame = pd.DataFrame(list(weights), columns=["model", "predictor"])
    matrix, values = np.stack(list(weights.values())), np.concatenate(values)
    unknown = (matrix != 0) @ np.isnan(values)
    n_lost = side.lost.sum(axis=1)
    n_lost[ALL] = n_lost[EXCESS] = n_lost[told].mean()
    frame = frame.assign(
        kind=frame["model"].map(lambda name: _kind(name) if name in side.lost.index else ""), low=np.nan, high=np.nan,
        value=np.where(unknown, np.nan, matrix @ np.nan_to_num(values)), lost=frame["model"].map(n_lost))
    if n_boot:
        each = np.nan_to_num(np.concatenate(parts, axis=1)) @ matrix.T
        moved = bootstrap.cell_sums(side.rows, np.zeros(len(side.rows), dtype=int), each, n_boot, seed)[0][:, 0, 0]
        low, high = bootstrap.interval(moved + frame["value"].to_numpy())
        frame = frame.assign(low=low, high=high)
    return frame


def _auc(ranks: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """AUC [predictors] of ranks [rows, predictors] against `lost` (Mann-Whitney); NaN where rows are too few."""
    if not _enough(lost):
        return np.full(ranks.shape[1], np.nan)
    return (ranks[lost].mean(axis=0) - (lost.sum() + 1) / 2) / (~lost).sum()


def _parts(ranks: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Each row's part [rows, predictors] in the AUC: they sum to 0, and weighted to its change to first order (the
    placement values of DeLong et al. 1988)."""
    part = np.full(ranks.shape, np.nan)
    if _enough(lost):
        for rows, sign in ((lost, 1), (~lost, -1)):
            above = (ranks[rows] - stats.rankdata(ranks[rows], axis=0)) / (~rows).sum()
            part[rows] = sign * (above - above.mean(axis=0)) / rows.sum()
    return part
