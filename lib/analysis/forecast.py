"""What will be forgotten, foretold: which rows that the dense model gets right does a compressed model lose?

Known beforehand are the dense model and its training (`risk`). The AUC of a predictor is the share of pairs of a lost
and a kept row in which the lost one has the higher risk (0.5: a coin). Two predictors are put together of others:

- combined: logistic regression on the normal scores of `risk.DENSE_RUN`, of each seed's rows apart, fitted on
  compressions of other kinds (`kind`) in other seeds; the rows are the same ones. churn: the same fitted on what dense
  models of other seeds lose, where no compression is at work: what it foretells is hardness. `combined - churn`: the
  difference. Both again `, other tasks`: fitted on the seeds of other tasks alone, ID rows on ID rows, OOD on OOD.

The null is the model `dense, other seed`: the rows that another dense model loses. It has another train draw, in the
micro-world with other subcases rare, which no compressed model has: what `rarity` has in excess of it is not all
compression's. `dense-2x` and `dense-after`, where the runs hold them, share the draw and are told like any model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression

from lib import names
from lib.analysis import bootstrap, seeds, tables
from lib.analysis.learned import FEWEST
from lib.analysis.risk import DENSE_RUN, PREDICTORS
from lib.errors import StudyError
from lib.names import OTHER_DENSE

COMBINED, CHURN, BEYOND = "combined", "churn", "combined - churn"
ELSEWHERE = ", other tasks"
HEADLINE = ("learned_at", CHURN, COMBINED, CHURN + ELSEWHERE, COMBINED + ELSEWHERE)
ALL, EXCESS = "all compressions", "all compressions - dense, other seed"
MEANS = (ALL, OTHER_DENSE, EXCESS)
FOLDS = 5  # of seeds: a combination is fitted on the other folds
Runs = dict[int, dict[str, pd.DataFrame]]


def kind(name: str) -> str:
    """What a combination may not have seen of a model: `imp` of imp-70 + rmc, `ptq8` of dense + ptq8.

    "" where nothing was taken from a dense model: another dense one, one from scratch or untrained.
    """
    recipe = names.parse(name)
    if recipe.family in ("dense", "scratch", "untrained"):
        return recipe.quantization
    return recipe.family


def aucs(runs: Runs, at_risk: dict[int, pd.DataFrame], n_boot: int = 1000, seed: int = 0,
         elsewhere: Sequence[tuple[Runs, dict[int, pd.DataFrame]]] = ()) -> pd.DataFrame:
    """How well each predictor foretells what each model loses: model | kind | seed | split | predictor | value | low |
    high | lost | n.

    runs: {seed: {model: rows of measures.rows}}, further seeds with `dense` alone for the null, paired as in
    `seeds.partners`; at_risk: `predictors` of the seeds that have more; elsewhere: both of other tasks. value: AUC over
    the n rows that the seed's dense model gets right, `lost` of them lost; NaN below `FEWEST` lost or kept. Beside the
    models stand the null, `ALL`, the mean over the compressions that have an AUC on every seed, and `EXCESS`, ALL less
    the null (a difference of AUCs, 0: as much); beside the predictors the combinations at the head of this module,
    which need a second seed (another task) and a second kind. low, high: with one seed the 95 % interval over rows
    (bootstrap of the AUC's linear part), else NaN: `summary` has that over seeds.
    """
    frames, others = [], [_sides(*one) for one in elsewhere]
    for split, sides in _sides(runs, at_risk).items():
        told = [name for name in next(iter(sides.values())).lost.index if _kind(name) and all(
            name in side.lost.index and _enough(side.lost.loc[name].to_numpy()) for side in sides.values())]
        kinds = list(dict.fromkeys(_kind(name) for side in sides.values() for name in side.lost.index))
        own = [*sides.values()]
        away = _Fits([side for of_task in others for of, by_seed in of_task.items()
                      if (of == "test") == (split == "test") for side in by_seed.values()], own, kinds)
        folds = [_Fits([side for place, side in enumerate(own) if place % FOLDS != fold], own, kinds)
                 for fold in range(min(FOLDS, len(own)))]
        for place, (s, side) in enumerate(sides.items()):
            here, there = folds[place % FOLDS].scores(side), away.scores(side)
            combinations = {kind: here[kind] | {name + ELSEWHERE: risk for name, risk in there[kind].items()}
                            for kind in kinds}
            frames.append(_told(side, combinations, told, n_boot if len(sides) == 1 else 0, seed)
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


class _Side(NamedTuple):
    """One seed and split: the rows that its dense model gets right, their x [rows, predictors] as normal scores, and
    which of them each model loses, bool, models x rows."""

    rows: pd.DataFrame
    x: pd.DataFrame
    lost: pd.DataFrame


def _sides(runs: Runs, at_risk: dict[int, pd.DataFrame]) -> dict[str, dict[int, _Side]]:
    """Split -> seed -> side, with the predictors that every seed has."""
    used = [p for p in PREDICTORS if all(p in f and f.loc[f["right"], p].notna().all() for f in at_risk.values())]
    lost = {s: _lost(runs, s, frame["guid"]) for s, frame in at_risk.items()}
    result: dict[str, dict[int, _Side]] = {}
    for split in next(iter(at_risk.values()))["split"].unique():
        for s, frame in at_risk.items():
            here = ((frame["split"] == split) & frame["right"]).to_numpy()
            result.setdefault(split, {})[s] = _Side(frame[here], _normal_scores(frame.loc[here, used]),
                                                    lost[s].loc[:, here])
    return result


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


def _normal_scores(frame: pd.DataFrame) -> pd.DataFrame:
    scores = stats.norm.ppf((stats.rankdata(frame, axis=0) - 0.5) / len(frame))
    return pd.DataFrame(scores, columns=frame.columns)


def _enough(lost: np.ndarray) -> bool:
    return min(lost.sum(), (~lost).sum()) >= FEWEST


def _kind(name: str) -> str:
    return "" if name == OTHER_DENSE else kind(name)


class _Fits:
    """Logistic regressions on what the models of some sides lose, for sides with the same predictors as `own`: for each
    kind one on compressions of other kinds, and for all one on other dense models."""

    def __init__(self, sides: list[_Side], own: list[_Side], kinds: list[str]):
        self.known = [p for p in DENSE_RUN if all(p in side.x for side in (*sides, *own))]
        models = {name: _kind(name) for side in sides for name in side.lost.index}
        churn = self._fitted(sides, [OTHER_DENSE])
        self.models = {kind: {COMBINED: self._fitted(sides, [name for name, of in models.items()
                                                             if of not in ("", kind)]), CHURN: churn} for kind in kinds}

    def scores(self, side: _Side) -> dict[str, dict[str, np.ndarray]]:
        """Log odds [rows] of being lost, kind held out -> combination -> scores; without those with too few rows."""
        x = side.x[self.known].to_numpy()
        return {kind: {name: model.decision_function(x) for name, model in fitted.items() if model is not None}
                for kind, fitted in self.models.items()}

    def _fitted(self, sides: list[_Side], seen: list[str]) -> LogisticRegression | None:
        """None for too few rows. Models of a seed share its predictors, so each row stands there twice, weighted by how
        many lost and kept it."""
        lost = [side.lost.loc[side.lost.index.isin(seen)].to_numpy() for side in sides]
        n_lost, n_kept = (np.concatenate([part.sum(axis=0) for part in parts]) if parts else np.zeros(0)
                          for parts in (lost, [~part for part in lost]))
        if not self.known or min(n_lost.sum(), n_kept.sum()) < FEWEST:
            return None
        rows = np.concatenate([side.x[self.known].to_numpy() for side in sides])
        model = LogisticRegression(solver="newton-cholesky")
        return model.fit(np.tile(rows, (2, 1)), np.repeat([1, 0], len(rows)), np.concatenate([n_lost, n_kept]))


def _told(side: _Side, combinations: dict, told: list[str], n_boot: int, seed: int) -> pd.DataFrame:
    """`aucs` of one seed and split. What is no AUC itself is a weighted sum of AUCs, and its interval that sum's."""
    places, values, parts, used = [], [], [], list(side.x)
    for of, group in side.lost.groupby(side.lost.index.map(_kind), sort=False):
        x = np.column_stack([side.x.to_numpy(), *combinations[of].values()])
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
