"""The rule by which a claim gets its word: intervals over training runs, gates, nulls, and how many seeds it takes.

Values are per seed, in the claim's unit; arrays have the seeds on their last axis, so that many studies can be judged
at once. An interval is turned so that the claim's direction is up; d is its smallest effect. Rows (the test set) are
fixed for the verdict; `with_rows` says what drawing other rows would add.
"""

import numpy as np
from scipy import stats

from lib.analysis import bootstrap

SEEDS = 5  # below it an estimate is an indication, no verdict
MOST_SEEDS = 32
LEVEL = 0.95
SKILL, LEARNED, KEPT = 0.03, 0.02, 0.02  # gates, as shares: above chance; above the floor; ID score lost at most
CALIPER = 1.0  # points that two models may lie apart on average where they should score alike
FLAGGED = 0.2  # share of matched values beyond the short runs' range from which nothing is said
INDICATION, UNDEFINED, OPEN, NOT_MEASURED = "indication", "undefined", "open", "not measured"
DIRECTIONS = ("above", "below", "same", "not_below")


def over_seeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low, high of the 95 % t interval of values [..., k seeds]; NaN where a seed is undefined or k is 1."""
    values = np.asarray(values, dtype=float)
    k = values.shape[-1]
    mean = values.mean(axis=-1)
    if k < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    return mean, *bootstrap.t_interval(values)


def with_rows(values: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low, high of an interval over seeds *and* rows, crossed; every seed is judged on the same rows.

    values [..., k seeds]; parts [..., k seeds, G groups]: how far each group of rows (of one template, or of one claim)
    lies off its share of the seed's value, so that they sum to 0 over the groups.
    Var = S^2 / k + V, S^2 the variance of the seeds' values and V that of drawing G groups, found on the mean over
    seeds and less the k-th part of the interaction, which S^2 / k holds already (crossed random effects by moments,
    Owen 2007); degrees of freedom by Satterthwaite.
    """
    values, parts = np.asarray(values, dtype=float), np.asarray(parts, dtype=float)
    k, n_groups = parts.shape[-2:]
    of_seeds, of_groups = values.var(axis=-1, ddof=1) / k, parts.mean(axis=-2)
    scale = n_groups / (n_groups - 1)
    interaction = scale * np.square(parts - of_groups[..., None, :]).sum(axis=(-1, -2)) / (k - 1)
    of_rows = np.maximum(scale * np.square(of_groups).sum(axis=-1) - interaction / k, 0)
    variance = of_seeds + of_rows
    parts_of = np.square(of_seeds) / (k - 1) + np.square(of_rows) / (n_groups - 1)
    freedom = np.square(variance) / np.maximum(parts_of, 1e-300)
    mean, half = values.mean(axis=-1), stats.t.ppf((1 + LEVEL) / 2, np.maximum(freedom, 1)) * np.sqrt(variance)
    return mean, mean - half, mean + half


def word(low: float, high: float, direction: str, d: float, n_seeds: int = SEEDS) -> str:
    """The word of an interval, the first that matches; below five seeds an estimate is an *indication*.

    above, below (turned up): undefined; reversed (high < 0); holds (low >= d); holds, but small (low > 0, high < d);
    holds, size open (low > 0); no such effect (-d < low, high < d); not of that size (high < d); open.
    same: holds (within +-d); fails (wholly outside); open. not_below: holds (low > -d); fails (high < -d); open.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction {direction!r} is not one of {', '.join(DIRECTIONS)}")
    if not np.isfinite([low, high]).all():
        return UNDEFINED if n_seeds >= SEEDS else INDICATION
    if n_seeds < SEEDS:
        return INDICATION
    if direction == "same":
        return "holds" if -d < low and high < d else "fails" if low > d or high < -d else OPEN
    if direction == "not_below":
        return "holds" if low > -d else "fails" if high < -d else OPEN
    if direction == "below":
        low, high = -high, -low
    if high < 0:
        return "reversed"
    if low > 0 or low >= d:
        return "holds" if low >= d else "holds, but small" if high < d else "holds, size open"
    return "no such effect" if -d < low and high < d else "not of that size" if high < d else OPEN


# ---------------------------------------------------------------- gates: they come first
def has_skill(dense: np.ndarray, chance: float) -> bool:
    """Whether dense models [seeds] have anything to lose on a set: their mean is three points or more above chance, and
    its interval above chance. Scores as shares, in the claim's own measure."""
    mean, low, _ = over_seeds(dense)
    return bool(mean >= chance + SKILL and not low <= chance)


def has_learned(dev: np.ndarray, floor: float) -> bool:
    """Whether a model [seeds] learned its task: its mean on dev is more than two points above the better of the
    majority class and the shortcut-only model (`floor`); in all seeds or none."""
    return bool(np.mean(dev) > floor + LEARNED)


def keeps_score(id_model: np.ndarray, id_dense: np.ndarray) -> bool:
    """Whether "the ID score is kept, but ..." may be asked: the mean ID loss is two points at most."""
    return bool(np.mean(id_dense) - np.mean(id_model) <= KEPT)


def is_bounded(dense_error: np.ndarray, d: float) -> bool:
    """Whether a measure that the dense error bounds (changed answers beyond the score: twice the error) cannot reach
    d."""
    return bool(2 * np.mean(dense_error) < d)


# ---------------------------------------------------------------- nulls and references
def matched(id_score: float, id_short: np.ndarray, ood_short: np.ndarray) -> tuple[float, bool]:
    """OOD score of dense models that were trained shorter, on full annealed schedules, at an ID score; and whether that
    is no true match: the ID score lies outside their range, or they do not rise with training, so that several may
    have it. Piecewise linear in the ID score; above the best the full run, below the lowest that one.

    id_short, ood_short [runs], shortest first, the full run last. Match on dev, per seed.
    """
    order = np.argsort(id_short, kind="stable")
    x, y = np.asarray(id_short, float)[order], np.asarray(ood_short, float)[order]
    falls = bool((np.diff(id_short) < 0).any())
    if id_score > x[-1]:
        return float(ood_short[-1]), True
    if id_score < x[0]:
        return float(y[0]), True
    return float(np.interp(id_score, x, y)), falls


# ---------------------------------------------------------------- how many seeds
def seeds_needed(sd: float, d: float, direction: str = "above", power: float = 0.8) -> int | None:
    """Seeds from which *holds* is said with that probability, from five on; None above 32.

    Of a true effect of 2 d (above, below), or of nothing (same, not_below). The seeds' values are normal with that SD,
    S the one found: low >= d is (mean - d) / (S / sqrt k) >= t, a noncentral t with d sqrt(k) / sd, and so is low > -d
    of no effect. *same* takes both sides: the mean within d - t S / sqrt k, averaged over the distribution of S.
    """
    for k in range(SEEDS, MOST_SEEDS + 1):
        t = stats.t.ppf((1 + LEVEL) / 2, k - 1)
        if direction == "same":
            spread = sd * np.sqrt(stats.chi2.ppf((np.arange(400) + 0.5) / 400, k - 1) / (k - 1))
            room = np.maximum(d - t * spread / np.sqrt(k), 0)
            sure = float(np.mean(2 * stats.norm.cdf(room * np.sqrt(k) / sd) - 1)) if sd else 1.0
        else:
            sure = float(stats.nct.sf(t, k - 1, d * np.sqrt(k) / sd)) if sd else 1.0
        if sure >= power:
            return k
    return None


def all_of(k: int) -> float:
    """Exact lower bound (95 %, two-sided, Clopper and Pearson 1934) of a share of which k of k were seen: what a
    zero-width interval does not say."""
    return float(((1 - LEVEL) / 2) ** (1 / k))


def q_values(p: np.ndarray) -> np.ndarray:
    """False-discovery q of p values [m] (Benjamini and Hochberg 1995); NaN stays NaN and does not count."""
    p = np.asarray(p, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")[::-1]]
    q = np.full(len(p), np.nan)
    q[order] = np.minimum.accumulate(np.minimum(p[order] * len(known) / np.arange(len(known), 0, -1), 1))
    return q
