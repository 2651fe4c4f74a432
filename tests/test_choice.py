"""The Pareto front, the budgets and what a recommended model has lost, on tables small enough to check by eye."""

import numpy as np
import pandas as pd
import pytest

from lib.analysis import choice
from lib.errors import StudyError


def final() -> pd.DataFrame:
    rows = [("dense", 0.99, 0.95, 90e6, 6.0), ("truncated-3", 0.98, 0.70, 69e6, 3.0), ("dense + ptq8", 0.99, 0.95, 58e6, 4.0),
            ("truncated-3 + distil + ptq8", 0.95, 0.72, 53e6, 2.0), ("imp-70", 0.90, 0.80, 90e6, np.nan)]
    return pd.DataFrame(rows, columns=["model", "dev", "ood", "bytes", "latency_ms"])


def curve() -> pd.DataFrame:
    cells = {"easy": (100, 0.99, 0.98), "role_swap": (5, 0.9, 0.1), "clause": (10, 0.8, 0.5), "better": (20, 0.7, 0.9),
             "never": (0, 0.9, 0.0)}
    rows = [(m, s, c, v) for s, (c, *both) in cells.items() for m, v in zip(("dense", "imp-70"), both)]
    frame = pd.DataFrame(rows, columns=["model", "subcase", "count", "value"])
    lost = frame["subcase"].map(frame[frame["model"] == "dense"].set_index("subcase")["value"]) - frame["value"]
    return frame.assign(lost=lost, lost_low=lost - 0.03)


# --- the final table

def parts():
    points = pd.DataFrame({"model": ["dense", "dense + ptq8", "imp-70"], "loss": "vanilla", "dev": [0.99, 0.99, 0.9],
                           "ood": [0.95, 0.95, 0.8]})
    loyal = pd.DataFrame([(m, split, "label_loyalty", v) for m, of in (("dense + ptq8", (0.5, 0.9, 0.8, 0.6, 0.1)),
                                                                       ("imp-70", (0.5, 0.7, 0.6, 0.2, 0.1)))
                          for split, v in zip(("dev", "test", "sym1", "sym2", "unseen"), of)]
                         + [("imp-70", "test", "kl", 9.0), ("dense, seed 1", "test", "label_loyalty", 0.3)],
                         columns=["model", "split", "measure", "value"])
    broken = pd.DataFrame([(m, measure, v) for m, v in (("dense", 0.5), ("dense + ptq8", 0.4), ("imp-70", 0.6))
                           for measure, v in (("after_attack_accuracy", v), ("clean_accuracy", 1.0))],
                          columns=["model", "measure", "value"])
    sizes = pd.DataFrame({"bytes": [90, 58, 90], "nonzero_parameters": [22, 21, 9]}, index=["dense", "dense + ptq8", "imp-70"])
    fastest = pd.DataFrame([("dense", 32, "eager", 1.0), ("dense", 1, "compiled", 6.0), ("imp-70", 1, "eager", 6.5),
                            ("dense + ptq8", 1, "onnx_int8", 3.0), ("dense + ptq8", 32, "compiled", 99.0)],
                           columns=["model", "batch", "path", "latency_ms"])
    return points, loyal, broken, sizes, fastest, ["sym1", "sym2"]


def test_the_final_table_brings_the_numbers_of_each_model_together():
    table = choice.combine(*parts()).set_index("model")
    assert table.index.tolist() == ["dense", "dense + ptq8", "imp-70"]
    assert table["dev"].tolist() == [0.99, 0.99, 0.9] and table["label_loyalty"].tolist() == [1, 0.9, 0.7]
    assert table["loyalty_ood"].tolist() == pytest.approx([1, 0.7, 0.4]) and table["after_attack"].tolist() == [0.5, 0.4, 0.6]
    assert table["bytes"].tolist() == [90, 58, 90] and table["nonzero_parameters"].tolist() == [22, 21, 9]
    assert table["latency_ms"].tolist() == [6, 3, 6.5] and table["path"].tolist() == ["compiled", "onnx_int8", "eager"]
    assert table["front"].tolist() == [True, True, True], "imp-70 withstands best"


def test_the_front_of_the_final_table_weighs_every_column():
    points, loyal, broken, sizes, fastest, ood = parts()
    worse = broken.assign(value=broken["value"].mask(broken["model"] == "imp-70", 0.1))
    assert choice.combine(points, loyal, worse, sizes, fastest, ood)["front"].tolist() == [True, True, False]
    unknown = fastest[fastest["model"] != "dense"]
    table = choice.combine(points, loyal, broken, sizes, unknown, ood)
    assert table["latency_ms"].isna().tolist() == [True, False, False] and table["front"].tolist() == [False, True, True]
    left = choice.recommend(table, max_bytes=60)
    assert left["model"].tolist() == ["dense + ptq8"]


# --- front

def test_front_holds_who_is_beaten_by_none():
    table = final().assign(index=list("vwxyz")).set_index("index")
    got = choice.front(table, {"ood": "high", "bytes": "low"})
    assert got.index.tolist() == list("vwxyz") and got.dtype == bool
    assert table.loc[got, "model"].tolist() == ["dense + ptq8", "truncated-3 + distil + ptq8"]
    assert table.loc[choice.front(table, {"ood": "high"}), "model"].tolist() == ["dense", "dense + ptq8"]  # a tie stays


def test_front_turns_with_the_direction():
    table = pd.DataFrame({"a": [1, 2, 3], "b": [3, 1, 2]})
    assert choice.front(table, {"a": "high", "b": "high"}).tolist() == [True, False, True]
    assert choice.front(table, {"a": "low", "b": "low"}).tolist() == [True, True, False]


def test_front_leaves_out_what_was_not_measured_and_lets_it_beat_nobody():
    table = pd.DataFrame({"a": [9, 1, np.nan], "b": [np.nan, 1, 9]})
    assert choice.front(table, {"a": "high", "b": "high"}).tolist() == [False, True, False]
    assert choice.front(table[:0], {"a": "high"}).empty


def test_front_agrees_with_a_search_row_by_row():
    values = np.random.default_rng(0).integers(0, 5, (60, 3))
    def beaten(row):
        return any((other >= row).all() and (other > row).any() for other in values)
    got = choice.front(pd.DataFrame(values, columns=list("abc")), dict.fromkeys("abc", "high"))
    assert got.tolist() == [not beaten(row) for row in values]


def test_front_names_a_wrong_column_or_direction():
    with pytest.raises(StudyError, match="no column 'byte'; did you mean 'bytes'"):
        choice.front(final(), {"byte": "low"})
    with pytest.raises(StudyError, match="'bytes' is better 'small'; say 'high' or 'low'"):
        choice.front(final(), {"bytes": "small"})


# --- recommend

def test_recommend_names_those_that_fit_best_ood_first():
    assert choice.recommend(final())["model"].tolist() == ["dense", "dense + ptq8", "imp-70", "truncated-3 + distil + ptq8", "truncated-3"]
    assert choice.recommend(final(), max_bytes=69e6)["model"].tolist() == ["dense + ptq8", "truncated-3 + distil + ptq8", "truncated-3"]
    got = choice.recommend(final(), max_latency_ms=3, min_dev=0.96)
    assert got["model"].tolist() == ["truncated-3"] and got.index.tolist() == [0] and list(got) == list(final())


def test_recommend_takes_no_model_that_was_not_measured():
    assert "imp-70" not in set(choice.recommend(final(), max_latency_ms=1000)["model"])
    assert "imp-70" in set(choice.recommend(final(), max_bytes=1e9)["model"])


def test_recommend_names_the_nearest_miss():
    with pytest.raises(StudyError) as found:
        choice.recommend(final(), max_latency_ms=1.9, min_dev=0.9)
    assert str(found.value) == ("no model fits max_latency_ms=1.9, min_dev=0.9; nearest is 'truncated-3 + distil + ptq8': "
                                "latency_ms 2 against max_latency_ms=1.9")
    with pytest.raises(StudyError, match=r"nearest is 'dense': dev 0.99 against min_dev=1$"):
        choice.recommend(final(), min_dev=1.0)
    with pytest.raises(StudyError, match="no model was measured on latency_ms"):
        choice.recommend(final().assign(latency_ms=np.nan), max_latency_ms=5)


def test_recommend_names_a_senseless_budget_or_a_missing_column():
    with pytest.raises(StudyError, match="max_bytes=0 leaves no model"):
        choice.recommend(final(), max_bytes=0)
    with pytest.raises(StudyError, match="min_dev=90 is no share; give 0.9"):
        choice.recommend(final(), min_dev=90)
    with pytest.raises(StudyError, match="no column 'latency_ms'; did you mean 'latency'"):
        choice.recommend(final().rename(columns={"latency_ms": "latency"}), max_latency_ms=5)
    with pytest.raises(StudyError, match="no row"):
        choice.recommend(final()[:0])


# --- worst, forgets

def test_worst_lists_the_largest_losses_of_subcases_that_train_holds():
    got = choice.worst(curve(), "imp-70")
    assert list(got.columns) == ["subcase", "count", "dense", "model", "lost", "sure"]
    assert got["subcase"].tolist() == ["role_swap", "clause", "easy"]
    assert got["lost"].tolist() == pytest.approx([0.8, 0.3, 0.01]) and got["sure"].tolist() == [True, True, False]
    assert choice.worst(curve(), "imp-70", 1)["count"].tolist() == [5]
    assert choice.worst(curve(), "dense").empty


def test_worst_takes_sets_of_which_no_count_is_known():
    unknown = curve().assign(count=np.nan)
    assert choice.worst(unknown, "imp-70")["subcase"].tolist() == ["never", "role_swap", "clause"]
    assert choice.forgets(unknown, "imp-70", 2) == "never 90 -> 0, role swap 90 -> 10"


def test_forgets_tells_only_what_is_surely_lost():
    assert choice.forgets(curve(), "imp-70") == "role swap (5 rows) 90 -> 10, clause (10 rows) 80 -> 50"
    assert choice.forgets(curve(), "imp-70", 1) == "role swap (5 rows) 90 -> 10"
    assert choice.forgets(curve(), "dense") == ""


def test_worst_names_a_model_that_is_not_there():
    with pytest.raises(StudyError, match="no model 'imp-7' in the forgetting curve; did you mean 'imp-70'"):
        choice.worst(curve(), "imp-7")
    with pytest.raises(StudyError, match="no model 'dense'"):
        choice.worst(curve().query("model != 'dense'"), "imp-70")
