"""What a claim compares: the pairs of models that its patterns name, and the one number of each pair on one seed.

Every number is a measure of the model minus the same measure of the baseline, on the same rows. OOD is scored as a set
says (balanced accuracy on PAWS, accuracy elsewhere), PAWS weighted 8000:677, other sets alike; `unseen`, the panel, and
sets on which the dense models have no skill to lose, left out; loyalty and changed answers pool the OOD rows. A number
that is linear in the rows comes with each row's part in it.

- score: on `split`, test or ood. gap: score on test minus score on ood. Both in points.
- f_bias: F_bias, 1 for the dense model. skill_kept: share of the dense model's above-chance OOD skill, 1 for the dense
  model. Their denominators, the dense model's relative gap and skill, are told beside (`Number.bottom`).
- easy_hard: accuracy on the easy minus that on the hard rows of test. overconfidence: mean confidence minus accuracy on
  the easy rows of test. Both in points; easy: the shortcut-only model is right.
- matched, matched_fails, matched_rest, lost_fails: at a matched score, see `lib.claims.matching`; in points. Those of
  the rows on which the shortcut fails and of the others with `_odds`: in log-odds. Of lost_fails the baseline is what
  the model is taken from: it is above zero where the model loses.
- label_loyalty, probability_loyalty: of `split`, each against the dense model of its seed; in points.
- hidden_flips: share of `split` whose label differs from the dense model's, minus what the two scores tell of it, less
  the same between two dense models of a disjoint pair of seeds: the null; in points.
- learned_late: AUC of `learned_at` (`lib.analysis.learned`) for the rows of `split` that the model loses, minus 0.5.
  learned_excess: that AUC less the one for the rows that the other dense model of the pair loses. lost_alike: phi, as a
  share of its maximum, of the rows that the model and those that the baseline loses, less phi of the model's and the
  other dense model's. rarity_beyond, depth_beyond: AUC of the rarity in train (the depth) of the OOD row's subcase for
  the rows that the model loses, among rows that were learned at one time, less the same of what the other dense model
  of the pair loses. All of the rows that the dense model gets right.
- pie_excess: pruning identified exemplars (`lib.analysis.populations`) of `split` between disjoint populations of three
  seeds, less those between two dense populations; a number for each population, not for each seed; in points.
- attack_success: share of the attacked rows of test, right before, that are wrong after word substitution; in points.
- after_attack: accuracy on the attacked rows of test after word substitution, each model under its own attack; in
  points.
- agreement: on dev, rows split by the variance of their loss over the models against easy and hard, minus the share of
  the larger class, in points; the threshold is chosen on one half of the rows and read on the other, both ways.
- auc: how well that variance finds the rows of dev on which the shortcut fails, minus 0.5.

Four numbers come from the tables of other notebooks and have no baseline: rank_agreement (Spearman's rho, on train, of
the difficulty from one pruning run and from a run per level), alpha_regret (OOD score of RMC at the alpha chosen
without OOD data minus that at the oracle's, of all sets, in points), bias_slope (change of the gap, the dense model's
taken off, per 10 points of shortcut_rate; in points), foretold (AUC of the rows that a model forgets by all that
the dense run tells of a row, combined; less the same for another dense model's).
"""

import re
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from lib import names
from lib.analysis import difficulty, measures
from lib.claims import losing, matching
from lib.claims.place import Number, Place, even

UNITS = {"score": "points", "gap": "points", "f_bias": "ratio", "skill_kept": "share", "easy_hard": "points",
         "overconfidence": "points", "matched": "points", "matched_fails": "points", "matched_rest": "points",
         "matched_fails_odds": "log-odds", "matched_rest_odds": "log-odds", "lost_fails": "points",
         "lost_fails_odds": "log-odds", "label_loyalty": "points", "probability_loyalty": "points",
         "hidden_flips": "points", "learned_late": "AUC", "learned_excess": "AUC", "lost_alike": "phi",
         "rarity_beyond": "AUC", "depth_beyond": "AUC", "pie_excess": "points", "attack_success": "points",
         "after_attack": "points", "agreement": "points", "auc": "AUC", "rank_agreement": "rho",
         "alpha_regret": "points", "bias_slope": "points", "foretold": "AUC"}
OF_ROWS = ("agreement", "auc")
OF_TABLES = ("rank_agreement", "alpha_regret", "bias_slope", "foretold")
ALONE = (*OF_ROWS, *OF_TABLES)  # of one model or several, without a baseline
OF_SPLIT = ("score", "label_loyalty", "probability_loyalty", "hidden_flips", "learned_late", "learned_excess",
            "lost_alike", "pie_excess")
OF_PANEL = ("score", "gap", "label_loyalty", "probability_loyalty", "hidden_flips")  # split may be a set of the panel
OF_OOD = ("rarity_beyond", "depth_beyond", "gap", "f_bias", "skill_kept", "matched", "matched_fails", "matched_rest",
          "matched_fails_odds", "matched_rest_odds", "lost_fails", "lost_fails_odds", "alpha_regret", "bias_slope",
          "foretold")
NUMBER = re.compile(r"-(\d+(?:\.\d+)?)(?= |-|$)")
VARIANT = re.compile(rf"-({'|'.join(names.VARIANTS)}|{names.SHORTER.pattern})$")


def pairs(models: list[str], baselines: list[str], known: list[str], half: int | None = None) -> list[tuple[str, str]]:
    """Every (model, baseline) of the known names that the patterns name; the baseline is "" where there are none.

    A pattern is `fnmatch`'s, small and capital letters alike, taken apart at " + ": `imp-*` never names `imp-40 + rmc`,
    nor a variant that it does not itself end in: `imp-70-after` and `imp-70-2x` are named by `imp-*-after`, `imp-*-2x`.
    `highest X` and `lowest X` pick by the number in the compression, `all X` joins two or more in rising order with
    ", ", `{base}` is the model's own compression, `{half}` half the number of the dense model's layers.
    """
    models, baselines = ([one.replace("{half}", str(half)) for one in patterns] for patterns in (models, baselines))
    named = []
    for model in (name for pattern in models for name in _named(known, pattern)):
        base = model.split(" + ")[0]
        others = [o for p in baselines for o in _named(known, p.replace("{base}", base))] if baselines else [""]
        named += [(model, other) for other in others if other != model]
    return list(dict.fromkeys(named))


def _named(known: list[str], pattern: str) -> list[str]:
    how, _, rest = pattern.partition(" ")
    if how not in ("highest", "lowest", "all"):
        return [name for name in known if _matches(name, pattern)]
    levels = sorted((n for n in known if _matches(n, rest)), key=lambda n: float(NUMBER.search(n)[1]))
    if how == "all":
        return [", ".join(levels)] if len(levels) > 1 else []
    return levels[-1:] if how == "highest" else levels[:1]


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.lower().split(" + "), pattern.lower().split(" + ")
    variants = {variant[1] if (variant := VARIANT.search(structure)) else "" for structure, *_ in (parts, wanted)}
    return len(parts) == len(wanted) and len(variants) == 1 and all(fnmatchcase(p, w) for p, w in zip(parts, wanted))


# ---------------------------------------------------------------- one contrast
def number(measure: str, split: str, place: Place, model: str, baseline: str) -> Number | None:
    """The contrast on one seed; None where something that it needs was not made."""
    if measure in OF_TABLES:
        value = place.table(measure, model)
        reason = "" if value is None or np.isfinite(value) else "its table holds no number"
        return None if value is None else Number(value, reason=reason)
    if measure in OF_ROWS:
        return _of_variance(measure, [place.rows(name) for name in model.split(", ")])
    a, b = place.rows(model), place.rows(baseline)
    if measure.startswith("matched"):
        return matching.against_short(measure, place, a)
    if measure.startswith("lost_fails"):
        return matching.lost_fails(measure, place, a, b)
    if measure == "pie_excess":
        return losing.pie_excess(split, place, model)
    if measure in losing.MEASURES:
        return losing.of_lost(measure, split, place, a, b)
    if measure == "hidden_flips":
        other = place.other()
        if other is None:
            return None
        weights = place.split_weights(a, split)
        own, null = (_hidden(rows, weights) for rows in (a, other))
        return Number((own - null).sum(), own - null)
    if measure == "attack_success":
        return _attacked(a, b)
    if measure in ("f_bias", "skill_kept"):
        return _ratio(measure, place, a, b, place.rows("dense"))
    return _linear(measure, split, place, a, b)


def _linear(measure: str, split: str, place: Place, a: pd.DataFrame, b: pd.DataFrame) -> Number:
    """A contrast whose rows add up: weights [rows] times a column of the model less the same of the baseline."""
    weights, column = {
        "score": lambda: (place.score_weights(a, split), "correct"),
        "gap": lambda: (place.score_weights(a, "test") - place.score_weights(a, split or "ood"), "correct"),
        "label_loyalty": lambda: (place.split_weights(a, split), "label_loyalty"),
        "probability_loyalty": lambda: (place.split_weights(a, split), "probability_loyalty"),
        "after_attack": lambda: (even(a["after_attack"].notna() & b["after_attack"].notna()), "after_attack"),
        "easy_hard": lambda: (even(_easy(a, True)) - even(_easy(a, False)), "correct"),
        "overconfidence": lambda: (even(_easy(a, True)), "over"),
    }[measure]()
    if not np.isfinite(weights).all():
        reason = "one of the two was not attacked" if measure == "after_attack" else "the rows are of one kind"
        return Number(np.nan, reason=reason)
    values = [_values(rows, column) for rows in (a, b)]
    parts = 100 * weights * (values[0] - values[1])
    return Number(parts.sum(), parts)


def _values(rows: pd.DataFrame, column: str) -> np.ndarray:
    if column == "over":
        return rows["confidence"].to_numpy() - rows["correct"].to_numpy(float)
    return rows[column].astype(float).fillna(0).to_numpy()


def _easy(rows: pd.DataFrame, easy: bool) -> np.ndarray:
    return ((rows["split"] == "test") & (rows["easy"].astype(bool) == easy)).to_numpy()


def _hidden(rows: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Each row's part in the share of answers changed beyond the difference of the two scores, in points."""
    lost = rows["dense_correct"].to_numpy(float) - rows["correct"].to_numpy(float)
    changed = (rows["pred"].to_numpy() != rows["dense_pred"].to_numpy()).astype(float)
    return 100 * weights * (changed - np.sign((weights * lost).sum()) * lost)


def _attacked(a: pd.DataFrame, b: pd.DataFrame) -> Number:
    """Attack success on the rows that each model gets right before it, less that of the baseline."""
    shares = []
    for rows in (a, b):
        tried = rows[rows["after_attack"].notna() & rows["correct"].astype(bool)]
        shares.append(1 - tried["after_attack"].astype(float).mean() if len(tried) else np.nan)
    value = 100 * (shares[0] - shares[1])
    return Number(value, reason="" if np.isfinite(value) else "one of the two was not attacked")


def _ratio(measure: str, place: Place, a: pd.DataFrame, b: pd.DataFrame, dense: pd.DataFrame) -> Number:
    """F_bias or the skill kept of the model less that of the baseline, and what both are divided by."""
    score = {(i, split): place.score(rows, split) for i, rows in enumerate((a, b, dense)) for split in ("test", "ood")}
    if measure == "skill_kept":
        bottom = score[2, "ood"] - place.chance()
        top = score[0, "ood"] - score[1, "ood"]
    else:
        gaps = [measures.relative_gap(score[i, "test"], score[i, "ood"]) for i in range(3)]
        top, bottom = gaps[0] - gaps[1], gaps[2]
    return Number(top / bottom if bottom else np.nan, bottom=bottom)


def _of_variance(measure: str, levels: list[pd.DataFrame]) -> Number:
    dev = (levels[0]["split"] == "dev").to_numpy()
    rows, variance = levels[0][dev], difficulty.variance(np.stack([level["loss"].to_numpy()[dev] for level in levels]))
    if measure == "auc":
        known = rows["is_shortcut"].notna().to_numpy()
        hard = ~rows["is_shortcut"][known].to_numpy(bool)
        value = difficulty.threshold_agreement(variance[known], hard)["auc"] if 0 < hard.mean() < 1 else np.nan
        return Number(value - 0.5, reason="" if np.isfinite(value) else "the rows are all of one kind")
    hard = ~rows["easy"].to_numpy(bool)
    half = np.arange(len(rows)) % 2 == 0
    thresholds = {True: difficulty.threshold_agreement(variance[half], hard[half])["best_threshold"],
                  False: difficulty.threshold_agreement(variance[~half], hard[~half])["best_threshold"]}
    shares = [((variance[half != fit] >= best) == hard[half != fit]).mean() for fit, best in thresholds.items()]
    return Number(100 * (np.mean(shares) - max(hard.mean(), 1 - hard.mean())))
