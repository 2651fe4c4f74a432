"""When the dense run learned a row, and what is lost of the rows that it gets right."""
import numpy as np
import pandas as pd
import pytest

from lib.analysis import learned


def along(right):
    """Checkpoints of rows [rows, steps], at steps 10, 20, ..."""
    right = np.asarray(right, dtype=bool)
    return pd.DataFrame([(f"r{i}", 10 * (j + 1), bool(right[i, j])) for i in range(len(right)) for j in range(right.shape[1])],
                        columns=["guid", "step", "correct"])


def rows(correct):
    return pd.DataFrame({"guid": [f"r{i}" for i in range(len(correct))], "correct": correct})


def test_a_row_is_learned_when_it_is_right_for_good():
    at = learned.learned_at(along([[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]]))
    assert at.tolist()[:3] == [0.25, 0.75, 1.0] and at.isna().tolist() == [False] * 3 + [True] * 2


def test_the_auc_is_the_share_of_pairs_in_which_the_lost_row_was_learned_later():
    times = np.random.default_rng(0).integers(1, 5, 60) / 4
    at = pd.Series(times, index=[f"r{i}" for i in range(60)])
    lost = np.random.default_rng(1).random(60) < 0.2 + 0.4 * times
    a, b = times[lost][:, None], times[~lost][None]
    assert learned.auc(at, rows(~lost)) == pytest.approx(((a > b) + 0.5 * (a == b)).mean())
    at["r0"] = np.nan  # never learned: it cannot be lost
    assert learned.auc(at, rows(~lost)) == pytest.approx(learned.auc(at.drop("r0"), rows(~lost).iloc[1:]))
    assert np.isnan(learned.auc(at, rows(np.arange(60) >= 5))), "five lost rows say nothing"


def test_agreement_on_what_is_lost_is_whole_where_one_loses_part_of_what_the_other_does():
    at = pd.Series(1.0, index=[f"r{i}" for i in range(200)])
    place = np.arange(200)
    few, many = rows(place >= 20), rows(place >= 80)
    assert learned.alike(at, few, many) == pytest.approx(1.0) == learned.alike(at, few, few)
    drawn = [rows(np.random.default_rng(seed).random(200) > 0.3) for seed in range(40)]
    chance = [learned.alike(at, one, other) for one, other in zip(drawn[::2], drawn[1::2])]
    assert abs(np.mean(chance)) < 0.06
    assert np.isnan(learned.alike(at, few, rows(place >= 3)))


def test_within_times_counts_the_pairs_of_rows_that_were_learned_at_one_time():
    draw = np.random.default_rng(3)
    times, by = draw.integers(1, 5, 400) / 4, draw.integers(0, 6, 400).astype(float)
    by[:20] = np.nan
    at = pd.Series(times, index=[f"r{i}" for i in range(400)])
    lost = draw.random(400) < 0.1 + 0.05 * np.nan_to_num(by)
    pairs = [(by[i] > by[j]) + 0.5 * (by[i] == by[j]) for i in range(20, 400) for j in range(20, 400)
             if times[i] == times[j] and lost[i] and not lost[j]]
    assert learned.within_times(at, rows(~lost), by) == pytest.approx(np.mean(pairs))
    assert np.isnan(learned.within_times(at, rows(np.arange(400) >= 25), by)), "five lost rows say nothing"


def test_within_times_forgets_what_time_alone_explains_however_it_bends():
    """Loss and `by` rise and fall with the time of learning: a straight line held fixed would leave a good deal."""
    draw = np.random.default_rng(3)
    times = draw.integers(1, 6, 4000) / 5
    bend, by = np.abs(times - 0.6), draw.normal(size=4000)
    at = pd.Series(times, index=[f"r{i}" for i in range(4000)])
    of_time = rows(draw.random(4000) > 0.1 + 1.5 * bend)
    assert abs(learned.within_times(at, of_time, by + 10 * bend) - 0.5) < 0.03
    of_both = rows(draw.random(4000) > 0.3 * times + 0.3 * (by > 0))
    assert learned.within_times(at, of_both, by) > 0.65


def test_what_is_lost_by_time_is_of_the_rows_that_dense_gets_right():
    at = pd.Series([0.5] * 4 + [1.0] * 4 + [np.nan], index=[f"r{i}" for i in range(9)])
    table = learned.lost_by_time(at, rows([1, 1, 1, 0, 0, 0, 1, 1, 0]).astype({"correct": bool}))
    assert table.to_dict("list") == {"learned_at": [0.5, 1.0], "n": [4, 4], "value": [0.25, 0.5]}
