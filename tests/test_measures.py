"""Scores against values worked out by hand, intervals against what sampling theory says of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.analysis import bootstrap, measures
from lib.errors import StudyError
from lib.tasks.task import Ood, Task

ROOT = Path(__file__).resolve().parents[1]


def task(**ood: Ood) -> Task:
    return Task(name="toy", labels=("entailment", "neutral", "contradiction"), text_a="premise", text_b="hypothesis", ood=ood,
                shortcut="b_only", licence="", source="", caveats="")


def judged(correct, **columns) -> pd.DataFrame:
    """A frame as `measures.rows` makes it, with `correct` given and defaults for the rest."""
    n = len(correct)
    frame = pd.DataFrame({"guid": [f"r{i}" for i in range(n)], "split": "test", "label": 0, "pred": 0, "correct": correct,
                          "confidence": 0.9, "loss": 0.1, "heuristic": "", "subcase": "", "group": "",
                          "is_shortcut": pd.array([pd.NA] * n, dtype="boolean")})
    frame = frame.assign(**columns)
    return frame.assign(correct=frame["correct"].astype(bool))


def items_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[["guid", "split", "label"]].assign(text_a="", text_b="", heuristic="", subcase="", group="",
                                                    is_shortcut=pd.array([pd.NA] * len(table), dtype="boolean"))


def coin(n: int, p: float, seed: int = 0) -> np.ndarray:
    """n outcomes of which exactly a share p is right, in random order."""
    return np.random.default_rng(seed).permutation(np.arange(n) < p * n)


# --- rows

def test_rows_collapse_after_the_argmax():
    logits = np.log([[0.4, 0.35, 0.25], [0.2, 0.5, 0.3]])
    table = pd.DataFrame({"guid": ["a", "b"], "split": "hans", "label": [1, 1], "logits": list(logits)})
    got = measures.rows(table, items_of(table), task(hans=Ood(("e", "n"), (0, 1, 1))))
    assert got["pred"].tolist() == [0, 1]  # summing first would say 1, 1
    assert got["confidence"].tolist() == pytest.approx([0.4, 0.8])
    assert got["loss"].tolist() == pytest.approx([-np.log(0.6), -np.log(0.8)])
    assert list(got.columns) == ["guid", "split", "label", "pred", "correct", "confidence", "loss", "heuristic",
                                 "subcase", "is_shortcut", "group"]


def test_rows_keep_the_three_classes_in_distribution():
    table = pd.DataFrame({"guid": ["a"], "split": "test", "label": [2], "logits": [np.log([0.2, 0.5, 0.3])], "seed": [4]})
    got = measures.rows(table, items_of(table), task(hans=Ood(("e", "n"), (0, 1, 1)))).iloc[0]
    assert (got["pred"], bool(got["correct"]), got["seed"]) == (1, False, 4)
    assert got["loss"] == pytest.approx(-np.log(0.3))


def test_rows_refuse_a_guid_or_label_of_other_data():
    table = pd.DataFrame({"guid": ["a", "b"], "split": "test", "label": [0, 1], "logits": [np.zeros(3)] * 2})
    items = items_of(table)
    with pytest.raises(StudyError, match="'b'"):
        measures.rows(table, items.assign(label=[0, 2]), task())
    with pytest.raises(StudyError, match="'a'"):
        measures.rows(table, items.iloc[1:], task())


# --- scores

def test_balanced_is_the_mean_over_subcases_of_the_mean_over_labels():
    frame = judged([1, 1, 1, 0, 0, 1], subcase=["x"] * 4 + ["y"] * 2, label=[0, 0, 0, 1, 0, 1])
    assert measures.score(frame, "balanced") == pytest.approx(((1 + 0) / 2 + (0 + 1) / 2) / 2)
    assert measures.score(frame, "accuracy") == pytest.approx(4 / 6)


def test_a_shortcut_follower_gets_half_and_nothing_where_the_shortcut_fails():
    frame = judged([1] * 5 + [0] * 5, label=[0] * 5 + [1] * 5, is_shortcut=[True] * 5 + [False] * 5)
    assert measures.score(frame, "balanced") == 0.5
    assert len(measures.fails_only(frame)) == 5 and measures.fails_only(frame)["correct"].sum() == 0
    assert measures.fails_only(judged([1, 0])).empty


def test_ece_by_hand():
    frame = judged([1, 0, 1, 1], confidence=[0.61, 0.69, 0.95, 1.0])
    # bin [.6,.7): mean confidence .65, accuracy .5, two rows; bin [.9,1]: .975 against 1, two rows
    assert measures.ece(frame) == pytest.approx(0.5 * 0.15 + 0.5 * 0.025)
    assert measures.ece(frame, bins=1) == pytest.approx(abs((0.61 + 0.69 + 0.95 + 1) / 4 - 0.75))
    assert measures.score(frame, "confidence") == pytest.approx(0.8125)
    assert measures.score(frame, "overconfidence") == pytest.approx(0.0625)


def test_accuracy_table_gives_each_split_its_own_score():
    frame = pd.concat([judged(coin(40, 0.9), guid=[f"t{i}" for i in range(40)], is_shortcut=[True] * 30 + [False] * 10),
                       judged([1] * 30 + [0] * 10, split="ood", label=[0] * 30 + [1] * 10)])
    micro = measures.accuracy_table(frame, task(ood=Ood(("a", "b"), None, "balanced")), 100, 1)
    assert micro[["split", "score", "primary"]].values.tolist() == [
        ["test", "accuracy", True], ["test", "fails_only", False], ["ood", "balanced", True]]
    assert micro["n"].tolist() == [40, 10, 40]
    assert micro.loc[2, "value"] == 0.5
    real = measures.accuracy_table(frame, task(ood=Ood(("a", "b"))), 100, 1)
    assert real.loc[real["split"] == "ood", ["score", "value"]].values.tolist() == [["accuracy", 0.75], ["balanced", 0.5]]
    assert (real["low"] <= real["value"]).all() and (real["value"] <= real["high"]).all()


def test_by_and_forgetting_tables():
    frame = judged([1, 0, 1, 1, 0, 0], subcase=["rare"] * 2 + ["common"] * 2 + ["never"] * 2, label=[0, 1] * 3)
    cells = measures.by(frame, ["subcase", "label"], 20)
    assert list(cells.columns) == ["subcase", "label", "value", "low", "high", "n"]
    assert cells.set_index(["subcase", "label"]).loc[("rare", 0), "value"] == 1
    curve = measures.forgetting(frame, {"common": 100, "rare": 5}, frame.assign(correct=True), 20)
    assert curve[["subcase", "count", "value"]].values.tolist() == [["never", 0, 0], ["rare", 5, 0.5], ["common", 100, 1]]
    assert curve["lost"].tolist() == [1, 0.5, 0] and curve.loc[0, ["lost_low", "lost_high"]].tolist() == [1, 1]
    with pytest.raises(StudyError, match="one seed"):
        measures.forgetting(frame.assign(seed=[0, 1] * 3), {}, frame, 20)


# --- intervals

def width(frame: pd.DataFrame, kind: str = "accuracy", n_boot: int = 2000) -> float:
    low, high = bootstrap.interval(bootstrap.scores(frame, np.zeros(len(frame), dtype=int), [kind], n_boot, 3)[:, 0])
    return float(high - low)


def normal(p: float, n: int) -> float:
    return 2 * 1.96 * np.sqrt(p * (1 - p) / n)


def test_independent_rows_give_the_binomial_interval():
    assert width(judged(coin(1000, 0.8))) == pytest.approx(normal(0.8, 1000), rel=0.08)


def test_copies_of_a_group_add_no_certainty():
    once = judged(coin(200, 0.7))
    copies = pd.concat([once.assign(guid=once["guid"] + f"_{k}", group=once["guid"]) for k in range(5)])
    assert width(copies) == pytest.approx(normal(0.7, 200), rel=0.1)
    assert width(copies.assign(group="")) == pytest.approx(normal(0.7, 1000), rel=0.1)


def test_groups_of_independent_rows_do_not_widen_the_interval():
    frame = judged(coin(1000, 0.7))
    assert width(frame.assign(group=[f"g{i % 250}" for i in range(1000)])) == pytest.approx(normal(0.7, 1000), rel=0.15)


def test_few_groups_draw_their_rows_too():
    assert width(judged(coin(400, 0.6), group="only")) == pytest.approx(normal(0.6, 400), rel=0.1)
    alike = judged(np.concatenate([coin(200, 0.6, 1), coin(200, 0.6, 2)]), group=["a"] * 200 + ["b"] * 200)
    assert width(alike) == pytest.approx(normal(0.6, 400), rel=0.1)  # groups alone would say 0


def test_few_groups_are_not_understated():
    scores = [0.2, 0.5, 0.9]
    frame = judged(np.concatenate([coin(1000, p) for p in scores]), group=np.repeat(["a", "b", "c"], 1000))
    drawn = bootstrap.scores(frame, np.zeros(3000, dtype=int), ["accuracy"], 2000, 0)[1:, 0]
    assert drawn.var() == pytest.approx(np.var(scores, ddof=1) / 3, rel=0.08)


def test_subcases_are_strata():
    """Where each subcase is all right or all wrong nothing varies; with unequal sizes the balanced score says so."""
    frame = judged([1] * 50 + [0] * 30, subcase=["x"] * 50 + ["y"] * 30)
    assert width(frame) == pytest.approx(0, abs=1e-12)
    assert width(frame.assign(subcase="")) > 0.1


def test_the_same_rows_under_more_seeds_add_no_certainty():
    frame = judged(coin(300, 0.8))
    seeds = pd.concat([frame.assign(seed=s) for s in range(5)])
    assert width(seeds) == pytest.approx(width(frame), rel=0.01)


def test_seeds_that_differ_widen_the_interval():
    frame = judged(coin(2000, 0.8))
    seeds = pd.concat([frame.assign(seed=s, correct=coin(2000, p, s)) for s, p in enumerate([0.5, 0.6, 0.7, 0.8, 0.9])])
    drawn = bootstrap.scores(seeds, np.zeros(len(seeds), dtype=int), ["accuracy"], 4000, 0)[:, 0]
    assert drawn[0] == pytest.approx(0.7)
    assert drawn[1:].var() == pytest.approx(np.var([0.5, 0.6, 0.7, 0.8, 0.9], ddof=1) / 5, rel=0.1)


def test_a_claim_shared_by_two_sets_is_drawn_once():
    one = judged(coin(300, 0.6), split="sym1", group=[f"c{i}" for i in range(300)])
    two = one.assign(split="sym2", guid="s2" + one["guid"])
    drawn = bootstrap.scores(pd.concat([one, two]), np.repeat([0, 1], 300), ["accuracy"] * 2, 200, 0)
    assert np.allclose(drawn[:, 0], drawn[:, 1]) and drawn[1:, 0].std() > 0.01


def test_draws_follow_the_seed():
    frame = judged(coin(100, 0.5))
    first, again, other = (measures.difference(frame, judged(coin(100, 0.6, 5)), n_boot=50, seed=s) for s in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)


# --- comparisons

def test_a_paired_difference_is_tighter_than_two_intervals():
    a = judged(coin(500, 0.7))
    b = a.assign(correct=a["correct"] | (np.arange(500) % 50 == 0))
    got = measures.difference(a, b, "accuracy", 1000, 0).iloc[0]
    assert got["value"] == pytest.approx(a["correct"].mean() - b["correct"].mean())
    assert got["high"] - got["low"] < 0.5 * width(a) and got["n"] == 500
    same = measures.difference(a, a, "ece", 100, 0).iloc[0]
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)


def test_pairs_need_the_same_rows_and_seeds():
    a = judged([1, 0, 1])
    with pytest.raises(StudyError, match="'r2'"):
        measures.difference(a, a.iloc[:2])
    with pytest.raises(StudyError, match="same seeds"):
        measures.difference(pd.concat([a.assign(seed=0), a.assign(seed=1)]), pd.concat([a.assign(seed=0), a.assign(seed=2)]))
    with pytest.raises(StudyError, match="twice"):
        measures.difference(pd.concat([a, a]), pd.concat([a, a]))
    assert measures.difference(a.assign(seed=0), a.assign(seed=1))["value"].item() == 0


def test_flips_count_predictions_not_errors():
    a = judged([1, 1, 0, 0], pred=[0, 0, 1, 1])
    b = judged([0, 1, 0, 1], pred=[2, 0, 2, 0])
    got = measures.flips(a, b, 100).iloc[0]
    assert (got["value"], got["lost"], got["gained"], got["n"]) == (0.75, 0.25, 0.25, 4)
    assert measures.flips(a, a, 20)["value"].item() == 0


def models(p_id: float, p_ood: float, seed: int, n: int = 1000) -> pd.DataFrame:
    """Rows of a model with these scores on test and on ood."""
    return pd.concat([judged(coin(n, p_id, seed), guid=[f"t{i}" for i in range(n)]),
                      judged(coin(n, p_ood, seed + 1), guid=[f"o{i}" for i in range(n)], split="ood", label=np.arange(n) % 2),
                      judged(coin(20, 0.0), guid=[f"u{i}" for i in range(20)], split="unseen")], ignore_index=True)


TOY = task(ood=Ood(("a", "b")), unseen=Ood(("a", "b"), role="unseen"))


def test_compare_puts_gap_bias_and_skill_side_by_side():
    got = measures.compare(models(0.8, 0.6, 0), models(0.9, 0.8, 5), TOY, n_boot=400).set_index("measure")
    assert got.loc["id_difference", "value"] == pytest.approx(-0.1)
    assert got.loc["gap_difference", "value"] == pytest.approx(0.2 - 0.1)
    assert got.loc["f_bias", "value"] == pytest.approx((0.2 / 0.8) / (0.1 / 0.9))
    assert got.loc["skill_kept", "value"] == pytest.approx(0.1 / 0.3)
    assert (got["low"] < got["value"]).all() and (got["value"] < got["high"]).all() and (got["flag"] == "").all()
    without = [rows[rows["split"] != "test"] for rows in (models(0.8, 0.6, 0), models(0.9, 0.8, 5))]
    with pytest.raises(StudyError, match="'test'"):
        measures.compare(*without, TOY)


def test_overall_leaves_unseen_out():
    got = measures.overall(models(0.9, 0.6, 0), TOY, n_boot=200).set_index("measure")
    assert got["value"].to_dict() == pytest.approx({"test": 0.9, "ood": 0.6}) and got["n"].tolist() == [1000, 1000]
    assert got.loc["ood", "high"] - got.loc["ood", "low"] == pytest.approx(normal(0.6, 1000), rel=0.25)


def test_shares_of_nothing_are_undefined():
    got = measures.compare(models(0.5, 0.4, 0), models(0.505, 0.5, 5), TOY, n_boot=400).set_index("measure")
    for name in ("f_bias", "skill_kept"):
        assert got.loc[name, "flag"] == "undefined" and np.isnan(got.loc[name, ["value", "low", "high"]].astype(float)).all()
    assert got.loc["gap_difference", "flag"] == ""


def test_ood_score_of_a_task_with_several_sets():
    assert measures.ood_score({"sym1": 0.5, "sym2": 0.7}) == pytest.approx(0.6)
    assert measures.ood_score({"paws_qqp": 0.0, "paws_wiki": 1.0}) == pytest.approx(8000 / 8677)


# --- matched dev

def trajectory(points: list[tuple[float, float]]) -> pd.DataFrame:
    return pd.concat([models(p, q, 0).assign(step=10 * k) for k, (p, q) in enumerate(points)], ignore_index=True)


def test_matched_dev_reads_the_dense_run_where_it_was_as_good():
    curve = trajectory([(0.6, 0.5), (0.8, 0.6), (0.9, 0.8)])
    got = measures.matched_dev(curve, models(0.85, 0.65, 0), TOY, n_boot=300).iloc[0]
    assert got["dense_ood"] == pytest.approx(0.7) and got["value"] == pytest.approx(-0.05)
    assert got["low"] < got["value"] < got["high"] and got["reason"] == ""


def test_matched_dev_is_monotone_and_averages_ties():
    curve = trajectory([(0.6, 0.5), (0.7, 0.7), (0.8, 0.6), (0.9, 0.8), (0.9, 0.9)])
    at = {p: measures.matched_dev(curve, models(p, 0.5, 0), TOY, n_boot=0)["dense_ood"].item() for p in (0.7, 0.75, 0.8, 0.9)}
    assert at == pytest.approx({0.7: 0.65, 0.75: 0.65, 0.8: 0.65, 0.9: 0.85})


def test_matched_dev_does_not_extrapolate():
    curve = trajectory([(0.6, 0.5), (0.8, 0.6)])
    above = measures.matched_dev(curve, models(0.95, 0.7, 3), TOY, n_boot=50).iloc[0]
    below = measures.matched_dev(curve, models(0.4, 0.5, 3), TOY, n_boot=50).iloc[0]
    assert np.isnan([above["value"], above["low"], below["value"]]).all()
    assert "above" in above["reason"] and "below" in below["reason"]
    edge = measures.matched_dev(curve, models(0.798, 0.6, 3), TOY, n_boot=200).iloc[0]
    assert edge["outside"] > 0.05 and np.isnan(edge["low"]) and not np.isnan(edge["value"]) and "resamples" in edge["reason"]


def test_a_model_as_good_as_the_dense_run_s_best_is_inside():
    """At the ceiling ties are the rule: drawn together they stay ties."""
    curve = trajectory([(0.6, 0.5), (0.99, 0.9)])
    model = models(0.99, 0.7, 0).assign(group=[f"g{i % 333}" for i in range(2020)])
    curve = curve.merge(model[["guid", "group"]], on="guid", suffixes=("_", "")).sample(frac=1, random_state=0)
    got = measures.matched_dev(curve, model, TOY, n_boot=200).iloc[0]
    assert got["outside"] == 0 and got["dense_ood"] == pytest.approx(0.9) and got["low"] < -0.2 < got["high"]


# --- the paper's own numbers

def test_f_bias_recomputes_from_the_papers_accuracies():
    """64 of the paper's 75 F_bias values follow from its accuracies within 0.001, at its three decimals."""
    tables = [pd.read_csv(ROOT / "params" / "published" / name) for name in ("a_compression.csv", "a_mitigation.csv")]
    table = pd.concat(tables).fillna({"split": ""}).drop_duplicates(["paper_name", "task", "split", "measure"])
    printed = table[table["measure"] == "f_bias"].set_index(["paper_name", "task"])["value"]
    scores = table[table["measure"] == "accuracy"].set_index(["paper_name", "task", "split"])["value"]

    def parts(model: str, name: str) -> tuple[float, float]:
        mine = scores[model][name].to_dict()
        return mine.pop("test"), measures.ood_score(mine)
    ours = {(m, t): measures.f_bias(*parts(m, t), *parts("BERT-base", t)) for m, t in printed.index if t != "avg"}
    ours |= {(m, "avg"): np.mean([ours[m, t] for t in ("mnli", "fever", "qqp")]) for m, t in printed.index if t == "avg"}
    misses = {k: abs(round(ours[k], 3) - value) for k, value in printed.items()}
    assert (len(misses), sum(miss < 0.00101 for miss in misses.values())) == (75, 64)
    assert max(misses, key=misses.get) == ("DistilBERT", "mnli")
    assert ours["DistilBERT", "mnli"] == pytest.approx(1.304, abs=0.001)
