"""The rule of the verdicts: its words at their edges, its gates, and that its intervals keep what they promise."""
import numpy as np
import pytest
from scipy import stats

from lib.claims import rule

D = 2.0
STUDIES, K, GROUPS = 4000, 5, 40


@pytest.mark.parametrize("low, high, word", [
    (np.nan, 1, "undefined"), (-3, -0.1, "reversed"), (2, 9, "holds"), (2.5, 3, "holds"), (0.1, 1.9, "holds, but small"),
    (0.1, 2.0, "holds, size open"), (0.1, 9, "holds, size open"), (-1.9, 1.9, "no such effect"), (-2, 1.9, "not of that size"),
    (-9, 1.9, "not of that size"), (-9, 2.0, "open"), (-0.1, 9, "open"), (0, 9, "open"), (0, 1, "no such effect")])
def test_the_words_are_the_first_that_match_and_below_mirrors_above(low, high, word):
    assert rule.word(low, high, "above", D) == word
    assert rule.word(-high, -low, "below", D) == word


@pytest.mark.parametrize("direction, low, high, word", [
    ("same", -1.9, 1.9, "holds"), ("same", 2.1, 3, "fails"), ("same", -3, -2.1, "fails"), ("same", -2, 1, "open"),
    ("same", 1, 3, "open"), ("not_below", -1.9, 9, "holds"), ("not_below", -9, -2.1, "fails"), ("not_below", -2, 9, "open")])
def test_a_missing_difference_has_words_of_its_own(direction, low, high, word):
    assert rule.word(low, high, direction, D) == word


@pytest.mark.parametrize("low, high, word", [(0, 0.1, "holds"), (0.01, 0.1, "holds"), (-0.1, -0.01, "reversed"), (-0.1, 0.1, "open")])
def test_a_threshold_is_a_claim_whose_smallest_effect_is_nothing(low, high, word):
    assert rule.word(low, high, "above", 0.0) == word


def test_below_five_seeds_an_estimate_is_an_indication():
    assert [rule.word(3, 4, "above", D, k) for k in (1, 4, 5)] == ["indication", "indication", "holds"]
    with pytest.raises(ValueError, match="sideways"):
        rule.word(3, 4, "sideways", D)


# ---------------------------------------------------------------- gates, nulls, references
def test_there_is_skill_only_three_points_and_an_interval_above_chance():
    assert rule.has_skill(np.array([0.60, 0.61, 0.59, 0.60, 0.60]), 0.5)
    assert not rule.has_skill(np.array([0.52, 0.52, 0.53, 0.52, 0.52]), 0.5)  # surely above, but too little
    assert not rule.has_skill(np.array([0.50, 0.50, 0.50, 0.50, 0.70]), 0.5)  # enough, but not surely


def test_floor_kept_score_and_ceiling():
    assert rule.has_learned(np.array([0.93, 0.94]), 0.9) and not rule.has_learned(np.array([0.95, 0.88]), 0.9)
    assert rule.keeps_score(np.array([0.95, 0.97]), np.array([0.97, 0.98])) and not rule.keeps_score(np.array([0.94]), np.array([0.97]))
    assert rule.is_bounded(np.array([0.94, 0.94]), 2.0) and not rule.is_bounded(np.array([1.1, 1.1]), 2.0)


def test_a_match_is_linear_between_short_runs_and_flagged_beyond_them():
    short = np.array([0.80, 0.90, 0.95]), np.array([0.50, 0.60, 0.80])
    assert rule.matched(0.85, *short) == (pytest.approx(0.55), False) and rule.matched(0.95, *short) == (0.80, False)
    assert rule.matched(0.99, *short) == (0.80, True) and rule.matched(0.70, *short) == (0.50, True)
    falling = np.array([0.90, 0.80, 0.95]), np.array([0.60, 0.50, 0.80])
    assert rule.matched(0.85, *falling) == (pytest.approx(0.55), True), "several runs may have that score"
    assert rule.matched(0.70, *falling) == (0.50, True), "below them all it is the lowest, not the shortest"


def test_seeds_needed_give_the_promised_power_and_no_more_than_it_takes():
    k = rule.seeds_needed(sd=3.0, d=2.0)
    draws = np.random.default_rng(1).normal(4.0, 3.0, (20000, k))
    holds = (rule.over_seeds(draws)[1] >= 2.0).mean()
    fewer = (rule.over_seeds(draws[:, :-1])[1] >= 2.0).mean()
    assert 0.8 <= holds + 0.01 and fewer < 0.8 + 0.01 and k > rule.SEEDS
    assert rule.seeds_needed(0.0, 2.0) == rule.seeds_needed(0.1, 2.0) == 5 and rule.seeds_needed(20.0, 2.0) is None


def test_what_k_of_k_proves_and_false_discoveries():
    assert rule.all_of(5) == pytest.approx(stats.binomtest(5, 5).proportion_ci(0.95).low)
    assert rule.q_values(np.array([0.01, 0.04, np.nan, 0.03])).tolist()[:2] == pytest.approx([0.03, 0.04])
    assert np.isnan(rule.q_values(np.array([np.nan]))).all()


# ---------------------------------------------------------------- calibration
def studies(effect: float, seed: int = 20261127, collapsed: float = 0.0) -> np.ndarray:
    """Simulated studies [studies, seeds, groups]: each group of rows adds its part to its seed's difference, in points.

    A seed's run, a template, and both together vary; `collapsed` of the runs lose 15 points more, as runs do that stay behind.
    """
    draw = np.random.default_rng(seed)
    run = draw.normal(0, 2.0, (STUDIES, K, 1)) - 15 * (draw.random((STUDIES, K, 1)) < collapsed)
    group, both = draw.normal(0, 6.0, (STUDIES, 1, GROUPS)), draw.normal(0, 6.0, (STUDIES, K, GROUPS))
    return (effect + run + group + both) / GROUPS


def of_these_rows(parts: np.ndarray, effect: float) -> np.ndarray:
    """What the verdict is about: the effect on the rows that were drawn. Run and interaction are chance."""
    group = np.random.default_rng(20261127)
    group.normal(0, 2.0, (STUDIES, K, 1)), group.random((STUDIES, K, 1))
    return effect + group.normal(0, 6.0, (STUDIES, 1, GROUPS)).mean(axis=(1, 2))


def limits(p: float) -> tuple[float, float]:
    """Binomial 99 % limits of a share of the studies."""
    return tuple(stats.binom.ppf([0.005, 0.995], STUDIES, p) / STUDIES)


def within(share: float, p: float) -> bool:
    low, high = limits(p)
    return low <= share <= high


def normal_interval(values):
    mean, half = values.mean(axis=-1), 1.96 * values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])
    return mean, mean - half, mean + half


def crossed(parts):
    """`with_rows` of groups of one size."""
    values = parts.sum(axis=-1)
    return rule.with_rows(values, parts - values[..., None] / parts.shape[-1])


def row_by_row(parts):
    """The same of rows taken one by one: each group's four rows pass for four groups, the template's part in each."""
    return crossed(np.repeat(parts / 4, 4, axis=-1))


def reused(values):
    """Values less a null that is one and the same dense model's in every seed, whose luck so never averages out."""
    other = np.random.default_rng(3).normal(0, 2.0, (len(values), 1))
    return values - other


def covered(interval, truth) -> float:
    _, low, high = interval
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("effect", [0.0, D / 2, D, 2 * D])
def test_intervals_cover_what_they_are_about(effect):
    parts = studies(effect)
    assert within(covered(rule.over_seeds(parts.sum(axis=-1)), of_these_rows(parts, effect)), 0.95)
    assert within(covered(crossed(parts), effect), 0.95)
    assert covered(rule.over_seeds(parts.sum(axis=-1)), effect) < limits(0.95)[0]  # it is not about other rows


@pytest.mark.parametrize("break_it", ["1.96", "rows one by one", "other dense model reused"])
def test_the_calibration_fails_where_the_rule_is_broken(break_it):
    parts = studies(0.0)
    values, truth = parts.sum(axis=-1), of_these_rows(parts, 0.0)
    share = {"1.96": lambda: covered(normal_interval(values), truth),
             "rows one by one": lambda: covered(row_by_row(parts), 0.0),
             "other dense model reused": lambda: covered(rule.over_seeds(reused(values)), truth)}[break_it]()
    assert not within(share, 0.95)


def words(effect: float, direction: str = "above") -> list[str]:
    parts = studies(effect)
    values = parts.sum(axis=-1) - (of_these_rows(parts, effect) - effect)[:, None]  # these rows' effect is the effect itself
    _, low, high = rule.over_seeds(values)
    return [rule.word(a, b, direction, D) for a, b in zip(low, high)]


def test_words_lie_no_more_often_than_promised():
    null = words(0.0)
    assert within(np.mean([word.startswith("holds") for word in null]), 0.025)
    assert within(np.mean([word == "reversed" for word in null]), 0.025)
    edge = words(D)  # the effect is the smallest of interest: "holds" whole, and "it is smaller", each at a tail
    assert within(np.mean([word == "holds" for word in edge]), 0.025)
    assert within(np.mean([word in ("holds, but small", "no such effect", "not of that size") for word in edge]), 0.025)
    assert np.mean([word == "reversed" for word in words(2 * D)]) < limits(0.001)[1]
    assert within(np.mean([word == "holds" for word in words(D, "same")]), 0.025)
    assert within(np.mean([word == "holds" for word in words(-D, "not_below")]), 0.025)


def test_with_collapsed_runs_the_coverage_is_told(capsys):
    """Runs that stay behind make seeds anything but normal: what is left of the coverage is printed, and asserted by nobody."""
    for effect in (0.0, 2 * D):
        mean = effect - 15 * 0.2
        values = studies(effect, collapsed=0.2).sum(axis=-1)
        print(f"effect {effect:g}, a fifth of the runs collapsed: {covered(rule.over_seeds(values), mean):.3f} of the intervals cover")
    assert "of the intervals cover" in capsys.readouterr().out
