"""The ledger's words: what the rule gives from predictions, what its gates hold back, and what the old one got wrong."""
from datetime import date

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib.claims import contrasts, declared, gates, ledger, rule
from lib.claims.declared import Claim
from tests.simulated import SIZES, rows, study

SEEDS = range(5)


def claim(measure="score", split="ood", models=("imp-*",), baselines=("dense",), direction="below", d=2.0, **more):
    return Claim(id="A1", claim="It falls.", where="here", tasks=["mnli"], measure=measure, split=split, models=list(models),
                 baselines=list(baselines), direction=direction, smallest_effect=d, published=[], written=date(2026, 11, 21),
                 **more)


def dense(seed=0, ood=0.9, **columns):
    return rows({"dev": 0.95, "test": 0.95, "ood": ood + seed / 200}, **columns)


def compressed(ood, test=0.94, dev=0.94, **columns):
    return rows({"dev": dev, "test": test, "ood": ood}, **columns)


def entry(asked, of):
    return ledger.judged([asked], of).iloc[0]


# ---------------------------------------------------------------- seeds are the unit, the mean over models the estimand
def test_one_seed_never_speaks_like_five():
    every = {k: {"dense": dense(k), "imp-70": compressed(0.7 + k / 100)} for k in SEEDS}
    five = entry(claim(), study(every))
    assert five["word"] == "holds" and five["seeds"] == 5
    values = np.array([100 * (0.7 + k / 100 - 0.9 - k / 200) for k in SEEDS])
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval()
    assert five["ours"] == pytest.approx(values.mean(), abs=1e-6) and five["interval"] == f"[{low:.1f}, {high:.1f}]"
    assert five["p"] == pytest.approx(test.pvalue / 2)
    for k in (1, 4):
        assert entry(claim(), study({seed: every[seed] for seed in range(k)}))["word"] == "indication"


def test_the_mildest_model_does_not_decide_but_the_mean_with_the_models_beneath():
    mild = {k: {"dense": dense(k), "imp-20": compressed(0.9 + k / 200), "imp-70": compressed(0.7), "imp-85": compressed(0.6)}
            for k in SEEDS}
    found = entry(claim(), study(mild))
    assert found["word"] == "holds" and found["models"] == 3 and found["borne_out"] == 2
    assert found["ours"] == pytest.approx(np.mean([0, -21, -31]), abs=0.3)
    beneath = ledger.by_pair([claim()], study(mild)).set_index("model")
    assert beneath.loc["imp-20", "word"] == "open" and beneath.loc["imp-85", "word"] == "holds"


def test_rounding_that_changes_nothing_by_design_is_no_part_of_a_mean_over_removed_weights():
    models = {k: {"dense": dense(k), "dense + ptq8": dense(k), "imp-70": compressed(0.7 + k / 300)} for k in SEEDS}
    both = entry(claim(models=("imp-*", "dense + ptq8")), study(models))
    assert both["models"] == 1 and both["word"] == "holds" and "changes nothing by design" in both["finding"]
    alone = entry(claim(models=("dense + ptq8",)), study(models))
    assert alone["models"] == 1 and alone["word"] == "open"


def test_holm_counts_the_models_that_bear_a_claim_out():
    barely = {f"imp-{n}": n for n in range(20, 90, 10)}
    drawn = np.random.default_rng(0).normal(-6.0, 4.5, (5, len(barely)))
    models = {k: {"dense": dense(ood=0.9)} | {name: compressed(0.9 + drawn[k, i] / 100) for i, name in enumerate(barely)}
              for k in SEEDS}
    asked, of = claim(d=1.0), study(models)
    table = ledger.by_pair([asked], of)
    alone = sum(rule.word(*row, "below", 1.0).startswith("holds") for row in table[["low", "high"]].to_numpy())
    assert entry(asked, of)["borne_out"] < alone, "one by one more pass than after the correction"


# ---------------------------------------------------------------- gates: floors and ceilings are no verdicts
def test_where_the_dense_model_is_at_chance_there_is_nothing_to_lose():
    models = {k: {"dense": dense(0, ood=0.51 + k / 400), "imp-70": compressed(0.5)} for k in SEEDS}
    of = study(models)
    found = entry(claim(), of)
    assert found["word"] == gates.NO_SKILL
    gate = of.gates[(of.gates["gate"] == "skill") & (of.gates["of"] == "ood")].iloc[0]
    assert not gate["passed"] and gate["bound"] == 0.5 and gate["value"] == pytest.approx(0.515, abs=0.002)
    assert entry(claim(split="test"), of)["word"] != gates.NO_SKILL


def test_a_model_that_did_not_learn_is_left_out_and_alone_gets_that_word():
    models = {k: {"dense": dense(k), "imp-70": compressed(0.7 + k / 300), "imp-95": compressed(0.5, 0.5, 0.5)} for k in SEEDS}
    for of_seed in models.values():
        of_seed["imp-90"] = compressed(0.55, 0.51, 0.51)
    alone = entry(claim(models=("imp-95",), baselines=("imp-90",)), study(models))
    assert alone["word"] == gates.NOT_LEARNED and np.isnan(alone["ours"])
    both = entry(claim(models=("imp-70", "imp-95"), baselines=("imp-90",), direction="above"), study(models))
    assert both["models"] == 1 and "imp-95 (did not learn)" in both["finding"] and both["word"] == "holds"
    against = entry(claim(models=("imp-95",), baselines=("imp-70",)), study(models))
    assert against["word"] == "holds", "one side alone at the floor is a result"


def test_changed_answers_beyond_the_score_cannot_pass_twice_the_dense_error():
    sure = {k: {"dense": rows({"dev": 1, "test": 0.995, "ood": 0.9}), "imp-70": compressed(0.7, 0.985)} for k in SEEDS}
    alone = {k: rows({"dev": 1, "test": 0.995, "ood": 0.9}) for k in range(5, 10)}
    asked = claim("hidden_flips", "test", direction="above", d=2.0)
    assert entry(asked, study(sure, alone=alone))["word"] == gates.CEILING
    assert entry(claim("hidden_flips", "test", direction="above", d=0.5), study(sure, alone=alone))["word"] != gates.CEILING


def test_the_id_score_is_kept_only_within_two_points():
    models = {k: {"dense": dense(k), "imp-40": compressed(0.8 + k / 300), "imp-85": compressed(0.5, 0.8)} for k in SEEDS}
    found = entry(claim(kept_score=True), study(models))
    assert found["models"] == 1 and "imp-85 (ID score not kept)" in found["finding"]


def test_below_five_seeds_a_gate_is_an_indication_too():
    found = entry(claim(), study({k: {"dense": dense(0, ood=0.5), "imp-70": compressed(0.5)} for k in range(2)}))
    assert found["word"] == f"{gates.NO_SKILL} (indication)"


# ---------------------------------------------------------------- nulls
def test_no_dense_model_is_the_null_of_two_seeds():
    models = {k: {"dense": dense(k), "imp-70": compressed(0.7)} for k in SEEDS}
    of = study(models, alone={k: dense(k) for k in (7, 5, 6, 9, 8)})
    others = [of.runs.other_seed("micro_nli", k) for k in SEEDS]
    assert others == [5, 6, 7, 8, 9], "the n-th of those with a dense model alone for the n-th seed"
    assert study(models).runs.other_seed("micro_nli", 0) is None, "full seeds are no null for each other"
    few = study(models, alone={5: dense(5)})
    assert [few.runs.other_seed("micro_nli", k) for k in SEEDS] == [5, None, None, None, None]


def test_reusing_one_dense_model_would_pass_for_a_result():
    """Five seeds whose loyalty swings, beside five other dense models and beside one alone: the spread is the point."""
    loyal = np.array([0.80, 0.95, 0.75, 0.90, 0.85])
    models = {k: {"dense": dense(k), "dense + ptq8": dense(k, label_loyalty=0.98)} for k in SEEDS}
    asked = claim("label_loyalty", "ood", models=("dense + ptq8",), baselines=("dense, other seed",), direction="above")
    apart = entry(asked, study(models, alone={k + 5: dense(k, label_loyalty=loyal[k]) for k in SEEDS}))
    low, high = stats.ttest_1samp(100 * (0.98 - loyal), 0).confidence_interval()
    assert apart["interval"] == f"[{low:.1f}, {high:.1f}]" and apart["seeds"] == 5
    one = entry(asked, study(models, alone={5: dense(0, label_loyalty=0.9)}))
    assert one["seeds"] == 1 and one["word"] == "indication"


def test_hidden_flips_are_counted_beyond_those_of_another_dense_model():
    def flipped(n_lost, n_gained):
        place = np.arange(SIZES["test"])
        test = (place < 380) & (place >= n_lost) | (place >= 400 - n_gained)
        return rows({"dev": 0.95, "test": 0.95, "ood": 0.9}, correct=np.concatenate(
            [np.arange(200) < 190, test, np.arange(400) < 360]))
    models = {k: {"dense": dense(), "imp-70": flipped(18 + k, 18)} for k in SEEDS}
    asked = claim("hidden_flips", "test", direction="above")
    alone = {k + 5: flipped(18 + k, 18) for k in SEEDS}
    assert entry(asked, study(models, alone=alone))["ours"] == pytest.approx(0.0)
    calm = {k + 5: flipped(0, 0) for k in SEEDS}
    assert entry(asked, study(models, alone=calm))["ours"] == pytest.approx(100 * 36 / 400)
    assert entry(asked, study(models))["word"] == ledger.NOT_MEASURED


# ---------------------------------------------------------------- numbers that say nothing
def test_a_negative_denominator_is_undefined():
    models = {k: {"dense": dense(0, ood=0.45 + k / 500), "imp-70": compressed(0.40)} for k in SEEDS}
    asked = claim("skill_kept", "", direction="below", d=0.1)
    found = entry(asked, study(models))
    assert found["interval"] == "" and "does not lie above zero" in found["finding"]
    biased = entry(claim("f_bias", "", direction="above", d=0.05), study(
        {k: {"dense": rows({"dev": 0.95, "test": 0.9, "ood": 0.92 + k / 500}), "imp-70": compressed(0.7)} for k in SEEDS}))
    assert biased["word"] == "undefined" and "does not lie above zero" in biased["finding"]


def test_five_of_five_alike_are_no_proof():
    models = {k: {"dense": dense(), "imp-70 + rmc": compressed(0.7)} for k in SEEDS}
    of = study(models, tables={(k, "alpha_regret", "imp-70 + rmc"): 0.0 for k in SEEDS})
    found = entry(claim("alpha_regret", "", models=("* + rmc",), baselines=(), direction="not_below"), of)
    assert found["word"] == "open" and "5 of 5 seeds alike, which proves a share of 48% or more" in found["finding"]


def test_a_word_changes_where_it_would_with_other_rows():
    """All of a model's loss lies in three templates of a hundred: sure on these rows, not on others."""
    place, models = np.arange(400), {}
    for k in SEEDS:
        ood = (place >= 12) & (place < 380) & ~((place >= 100) & (place < 100 + k))
        models[k] = {"dense": dense(ood=0.95), "imp-70": rows({"dev": 0.95, "test": 0.95, "ood": 0}, correct=np.concatenate(
            [np.arange(200) < 190, place < 380, ood]))}
    found = entry(claim(), study(models))
    assert found["word"] == "holds" and found["rows"] == "open"
    spread = {k: {"dense": dense(ood=0.95), "imp-70": compressed(0.8 - k / 400)} for k in SEEDS}
    assert entry(claim(), study(spread))["rows"] == ""


def test_pairs_are_found_by_half_the_layers_of_the_dense_model():
    names = ["dense", "truncated-3", "truncated-6", "truncated-9", "theseus-6"]
    assert contrasts.pairs(["truncated-{half}"], ["theseus-{half}"], names, 6) == [("truncated-6", "theseus-6")]
    models = {k: {"dense": dense(k), "truncated-3": compressed(0.5), "truncated-6": compressed(0.7 + k / 300)} for k in SEEDS}
    of = study(models, weights={"dense": 12, "truncated-6": 6, "truncated-3": 3})
    assert entry(claim(models=("truncated-{half}",)), of)["finding"].startswith("truncated-6 against dense")


# ---------------------------------------------------------------- annealed short runs; last learned, first lost
def shorter(seed, gap=0.0):
    ids, oods = (0.80, 0.88, 0.92), (0.60, 0.70, 0.80)
    return {f"dense-{share}x": rows({"dev": i, "test": i, "ood": o}) for share, i, o in zip((0.125, 0.25, 0.5), ids, oods)} | {
        "dense": rows({"dev": 0.95, "test": 0.95, "ood": 0.9}), "imp-70": compressed(0.75 - gap - seed / 400, 0.90, 0.90)}


def test_a_match_reads_annealed_short_runs_and_never_a_checkpoint():
    asked = claim("matched", "", direction="not_below")
    found = entry(asked, study({k: shorter(k) for k in SEEDS}))
    assert found["ours"] == pytest.approx(-0.5) and found["word"] == "holds"  # at 90 % ID the short runs have 75 % OOD
    worse = entry(asked, study({k: shorter(k, gap=0.1) for k in SEEDS}))
    assert worse["ours"] == pytest.approx(-10.5) and worse["word"] == "fails"
    without = {k: {name: frame for name, frame in shorter(k).items() if name != "dense-0.25x"} for k in SEEDS}
    missing = entry(asked, study(without))
    assert missing["word"] == ledger.NOT_MEASURED and "teacher.shorter" in missing["finding"]


def test_a_match_beyond_the_short_runs_is_flagged_and_open():
    far = {k: shorter(k) | {"imp-70": compressed(0.5 + k / 400, 0.7, 0.7)} for k in SEEDS}
    assert entry(claim("matched", "", direction="same"), study(far))["word"] == "open"


def test_a_flag_says_so_takes_no_indication_away_and_is_not_pooled():
    far = {k: shorter(k) | {"imp-70": compressed(0.5 + k / 400, 0.7, 0.7)} for k in SEEDS}
    found = entry(claim("matched", "", direction="not_below"), study(far))
    assert found["word"] == "open" and "beyond the shorter dense runs" in found["finding"]
    assert entry(claim("matched", "", direction="not_below"), study({0: far[0]}))["word"] == "indication"


def ordered(learned_late: bool, k: int):
    """A dense run that learns OOD rows one hundred by one, and a model that loses 40, of the last or of the first ones."""
    place = np.arange(400)
    along = pd.concat([rows({"dev": 0, "test": 0, "ood": 0}).assign(step=step, correct=np.concatenate(
        [np.zeros(600, bool), place < 90 * step])) for step in (1, 2, 3, 4)])
    lost = (place >= 310) & (place < 350 + k) if learned_late else (place < 40 + k)
    return along, rows({"dev": 0.95, "test": 0.95, "ood": 0}, correct=np.concatenate(
        [np.arange(200) < 190, np.arange(400) < 380, (place < 360) & ~lost]))


def test_last_learned_first_lost_needs_late_rows_and_more_than_its_null():
    asked = claim("learned_late", "ood", direction="above", d=0.1)
    beyond = claim("learned_excess", "ood", direction="above", d=0.02)
    for late in (True, False):
        made = {k: ordered(late, k) for k in SEEDS}
        models = {k: {"dense": dense(0), "imp-70": made[k][1]} for k in SEEDS}
        of = study(models, along={k: made[k][0] for k in SEEDS}, alone={k + 5: made[k][1] for k in SEEDS})
        assert entry(asked, of)["word"] == ("holds" if late else "reversed")
        assert entry(beyond, of)["ours"] == pytest.approx(0.0), "another dense model loses the very same"
        other = study(models, along={k: made[k][0] for k in SEEDS}, alone={k + 5: ordered(not late, k)[1] for k in SEEDS})
        assert entry(beyond, other)["word"] == ("holds" if late else "reversed")


def test_under_a_gate_and_without_a_denominator_no_pair_gets_a_word_or_a_p():
    nothing = {k: {"dense": dense(0, ood=0.51 + k / 400), "imp-70": compressed(0.3 + k / 300), "imp-85": compressed(0.2 + k / 300)}
               for k in SEEDS}
    of = study(nothing)
    found, beneath = entry(claim(), of), ledger.by_pair([claim()], of)
    assert found["word"] == gates.NO_SKILL and found["borne_out"] == 0 and np.isnan(found["p"])
    assert set(beneath["word"]) == {""} and beneath["p"].isna().all()
    below = {k: {"dense": dense(0, ood=0.45 + k / 500), "imp-70": compressed(0.40 + k / 300)} for k in SEEDS}
    beneath = ledger.by_pair([claim("skill_kept", "", direction="below", d=0.1)], study(below))
    assert set(beneath["word"]) == {""} and beneath["p"].isna().all()


def test_a_pair_that_is_not_known_does_not_undo_the_others():
    made = {k: ordered(True, k) for k in SEEDS}
    kept = rows({"dev": 0.95, "test": 0.95, "ood": 0.9})
    models = {k: {"dense": dense(0), "imp-70": made[k][1], "imp-20": kept} for k in SEEDS}
    of = study(models, along={k: made[k][0] for k in SEEDS})
    found = entry(claim("learned_late", "ood", direction="above", d=0.1), of)
    assert found["word"] == "holds" and found["models"] == 1 and "imp-20 (too few rows are lost, or kept)" in found["finding"]


def test_a_model_that_a_seed_lacks_is_told_and_alone_is_not_measured():
    models = {k: {"dense": dense(k), "imp-40": compressed(0.8 + k / 300), "imp-85": compressed(0.5)} for k in SEEDS}
    del models[3]["imp-85"]
    found = entry(claim(), study(models))
    assert found["word"] == "holds" and found["models"] == 1 and "left out: imp-85 (not on every seed)" in found["finding"]
    alone = entry(claim(models=("imp-85",)), study(models))
    assert alone["seeds"] == 4 and alone["word"] == "indication", "the seeds that have one make up its study"
    both = {k: {"dense": dense(k), f"imp-{40 + 45 * (k % 2)}": compressed(0.8)} for k in SEEDS}
    apart = entry(claim(), study(both))
    assert apart["word"] == ledger.NOT_MEASURED and apart["finding"] == "imp-40, imp-85 (not on every seed)"
    assert list(ledger.unmeasured(ledger.judged([claim()], study(both)))["why"]) == ["imp-40, imp-85 (not on every seed)"]


def test_seeds_that_are_all_alike_have_no_p():
    models = {k: {"dense": dense(), "imp-70": compressed(0.7)} for k in SEEDS}
    found = entry(claim(), study(models))
    assert found["word"] == "open" and np.isnan(found["p"]) and np.isnan(found["needs"])


def test_an_attack_is_judged_by_the_right_answers_that_it_turns():
    """Both models keep 60 of 100 attacked rows; one had 100 right before, the other 60: nothing of it was turned."""
    def attacked(right, after):
        test = np.arange(400)
        left = np.full(1000, np.nan, dtype=object)
        left[200:300] = test[:100] < after
        return rows({"dev": 0.95, "test": 0, "ood": 0.9}, after_attack=left, correct=np.concatenate(
            [np.arange(200) < 190, (test < right) | (test >= 100), np.arange(400) < 360]))
    models = {k: {"dense": attacked(100, 60 + k), "imp-70": attacked(60, 60)} for k in SEEDS}
    found = entry(claim("attack_success", "", direction="above"), study(models))
    assert found["ours"] == pytest.approx(-38.0) and found["word"] == "reversed"
    assert entry(claim("after_attack", "", direction="below"), study(models))["ours"] == pytest.approx(-2.0)


def test_the_ends_of_a_mean_are_named():
    models = {k: {"dense": dense(k), "imp-20": compressed(0.92 + k / 200), "imp-85": compressed(0.6)} for k in SEEDS}
    assert "(imp-85) to +2.0 (imp-20)" in entry(claim(), study(models))["finding"]


def test_the_power_table_promises_what_the_rule_then_does():
    same = claim("score", "test", direction="same", d=1.0)
    k = rule.seeds_needed(1.2, 1.0, "same")
    draws = np.random.default_rng(2).normal(0, 1.2, (20000, k))
    _, low, high = rule.over_seeds(draws)
    assert ((low > -1.0) & (high < 1.0)).mean() == pytest.approx(0.8, abs=0.06)
    of = study({k: {"dense": dense(k), "imp-70": compressed(0.9 - k / 20)} for k in SEEDS},
               tables={(k, "rank_agreement", "imp-70"): 0.7 + k / 20 for k in SEEDS})
    passes = claim("rank_agreement", "", baselines=(), direction="above", d=0.0, threshold=0.8)
    asked = [claim(d=2.0), passes.model_copy(update={"id": "C8"}), same.model_copy(update={"id": "A2"})]
    table = ledger.power(ledger.judged(asked, of)).set_index("id")
    assert table.loc["C8", "needs"] == "" and table.loc["A1", "needs"] == ledger.UNDECIDABLE


def test_a_study_of_dense_models_alone_has_no_losses():
    of = study({0: {"dense": dense(), "dense-2x": dense()}}).losses()
    assert list(of["model"]) == ["dense-2x"]
    assert study({0: {"dense": dense()}}).losses().empty


def test_losses_stand_beside_the_dense_scores_and_chance_and_labels_are_told_apart():
    of = study({k: {"dense": dense(k), "imp-70": compressed(0.6)} for k in SEEDS})
    row = of.losses().set_index("model").loc["imp-70"]
    assert row["dense_id"] == pytest.approx(95) and row["dense_ood"] == pytest.approx(91) and row["chance"] == 50
    assert row["dense_ood"] - row["ood_loss"] == pytest.approx(60)
    by_label = of.by_label().set_index(["split", "model", "label"]).sort_index()
    assert set(by_label["seeds"]) == {len(SEEDS)} and "dev" not in by_label.index.get_level_values("split")
    known = compressed(0.6)
    known = known[known["split"] == "ood"].groupby("label")["correct"].mean()
    assert by_label.loc[("ood", "imp-70"), "value"].tolist() == pytest.approx(known.tolist())


# ---------------------------------------------------------------- where the gap is algebra
def two_kinds(holds, fails, dev_holds, dev_fails=0.5):
    """Rows of whose scores the truth is known: every second one follows the shortcut, on dev and OOD alike."""
    def right(n, a, b):
        place = np.arange(n)
        return np.where(place % 2 == 0, place < a * n, place < b * n)
    return rows({"dev": 0, "test": 0, "ood": 0}, correct=np.concatenate(
        [right(200, dev_holds, dev_fails), np.arange(400) < 380, right(400, holds, fails)]))


GAP = {"direction": "above", "d": 2.0, "micro": declared.Micro(measure="lost_fails", smallest_effect=5.0)}


def test_in_the_micro_world_a_claim_of_the_gap_is_decided_where_the_shortcut_fails():
    models = {k: {"dense": two_kinds(1, 0.9, 1), "imp-70": two_kinds(1, 0.7 + k / 100, 0.99, 0.3)} for k in SEEDS}
    of = study(models)
    found, beneath = entry(claim("gap", "", **GAP), of), ledger.by_pair([claim("gap", "", **GAP)], of).set_index("measure")
    assert found["word"] == "holds" and found["ours"] == pytest.approx(100 * np.mean([0.2 - k / 100 for k in SEEDS]))
    assert found["effect"] == 5.0 and set(beneath.index) == {"lost_fails", "gap", "lost_fails_odds"}
    odds = [np.log((180 + 0.5) / (20 + 0.5)) - np.log((140 + 2 * k + 0.5) / (60 - 2 * k + 0.5)) for k in SEEDS]
    assert beneath.loc["lost_fails_odds", "estimate"] == pytest.approx(np.mean(odds))
    assert beneath.loc["gap", "word"] == "" and beneath.loc["gap", "estimate"] == pytest.approx(found["ours"] / 2)
    elsewhere = study({k: {name: frame.assign(split=frame["split"].replace("ood", "hans")) for name, frame in by.items()}
                       for k, by in models.items()}, "mnli")
    assert entry(claim("gap", "", **GAP), elsewhere)["effect"] == 2.0, "the paper's task keeps the paper's gap"


def test_models_apart_where_the_shortcut_holds_need_shorter_runs_to_be_compared():
    """A model that is worse on easy rows too has learned less; that is not what the claim is about."""
    models = {k: {"dense": two_kinds(1, 0.9, 1), "imp-70": two_kinds(1, 0.6 + k / 100, 0.9),
                  "imp-40": two_kinds(1, 0.8 + k / 100, 0.995)} for k in SEEDS}
    found = entry(claim("gap", "", **GAP), study(models))
    assert found["models"] == 1 and "imp-70 (apart where the shortcut holds, and without shorter dense runs" in found["finding"]
    alone = entry(claim("gap", "", models=("imp-70",), **GAP), study(models))
    assert alone["word"] == ledger.NOT_MEASURED and np.isnan(alone["ours"])
    for of_seed in models.values():  # a dense run of 90 % on the rows that follow the shortcut has 50 % of the others
        of_seed |= {"dense-0.125x": two_kinds(1, 0.3, 0.8), "dense-0.25x": two_kinds(1, 0.5, 0.9), "dense-0.5x": two_kinds(1, 0.7, 0.95)}
    matched = entry(claim("gap", "", models=("imp-70",), **GAP), study(models))
    assert matched["ours"] == pytest.approx(-100 * np.mean([0.1 + k / 100 for k in SEEDS])) and matched["word"] == "reversed"


def test_a_match_of_the_two_kinds_of_rows_is_made_where_the_shortcut_holds_and_not_on_all_of_dev():
    made = {"dense-0.125x": (0.9, 0.3, 0.8), "dense-0.25x": (0.94, 0.5, 0.9), "dense-0.5x": (0.98, 0.7, 0.95), "dense": (1, 0.9, 1)}
    models = {k: {name: two_kinds(*of) for name, of in made.items()} | {
        "imp-70": two_kinds(0.92, 0.55 + k / 100, 0.9, dev_fails=0.0)} for k in SEEDS}  # on all of dev: 45 %, below any
    of = study(models)
    fails, rest = (entry(claim(f"matched_{kind}", "", **more), of) for kind, more in (
        ("fails", {}), ("rest", {"direction": "not_below"})))
    assert fails["ours"] == pytest.approx(np.mean([5 + k for k in SEEDS])) and rest["ours"] == pytest.approx(-2.0)
    def log_odds(share, n):
        return np.log((n * share + 0.5) / (n * (1 - share) + 0.5))
    expected = [log_odds(0.55 + k / 100, 200) - log_odds(0.5, 200) for k in SEEDS]
    assert entry(claim("matched_fails_odds", ""), of)["ours"] == pytest.approx(np.mean(expected))
    none = {k: by | {"imp-70": two_kinds(0.92, 0.0, 0.9)} for k, by in models.items()}
    assert np.isfinite(entry(claim("matched_fails_odds", ""), study(none))["ours"]), "none right is no infinite loss"
    unknown = study({k: {name: frame.assign(is_shortcut=pd.array([pd.NA] * 1000, dtype="boolean")) for name, frame in by.items()}
                     for k, by in models.items()})
    assert "it is not known where the shortcut fails" in entry(claim("matched_fails", ""), unknown)["finding"]


# ---------------------------------------------------------------- skill, set by set
SETS = {"dev": 200, "test": 400, "sym1": 200, "sym2": 200}


def two_sets(sym1, sym2):
    return rows({"dev": 0.95, "test": 0.95, "sym1": sym1, "sym2": sym2}, SETS)


def test_a_set_without_skill_is_left_out_of_the_score_and_the_finding_says_so():
    models = {k: {"dense": two_sets(0.5 + k / 200, 0.8), "imp-70": two_sets(0.5, 0.7 + k / 100)} for k in SEEDS}
    of = study(models, "fever")
    asked = claim().model_copy(update={"tasks": ["fever"]})
    found = entry(asked, of)
    assert found["ours"] == pytest.approx(-8.0) and found["word"] == "holds", "of sym2 alone: with sym1 it would be half"
    assert "without sym1: no skill to lose" in found["finding"]
    assert of.gates[of.gates["gate"] == "skill"].set_index("of")["passed"].to_dict() == {"sym1": False, "sym2": True, "all sets": True}
    kept = entry(claim("skill_kept", "", direction="below", d=0.05).model_copy(update={"tasks": ["fever"]}), of)
    assert kept["ours"] == pytest.approx(-0.08 / 0.3), "chance, too, is that of the sets that are read"
    few = entry(asked, study({k: models[k] for k in (0, 1)}, "fever"))
    assert "without sym1: no skill to lose (indication)" in few["finding"]


def test_without_a_set_that_has_skill_there_is_nothing_to_lose_whatever_all_together_say():
    draw = {0: (0.9, 0.3), 1: (0.3, 0.9), 2: (0.9, 0.3), 3: (0.3, 0.9), 4: (0.65, 0.65)}
    of = study({k: {"dense": two_sets(*draw[k]), "imp-70": two_sets(0.5, 0.5)} for k in SEEDS}, "fever")
    table = of.gates[of.gates["gate"] == "skill"].set_index("of")["passed"]
    assert table["all sets"] and not table["sym1"] and not table["sym2"]
    assert entry(claim().model_copy(update={"tasks": ["fever"]}), of)["word"] == gates.NO_SKILL
    assert set(of.losses()["gate"]) == {gates.NO_SKILL}


def test_a_readers_own_task_is_judged_by_the_claims_about_any(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text("""{name: shop, labels: [no, yes], columns: {text_a: a, text_b: b, label: label}, shortcut: overlap, licence: mine,
        files: {train: train.csv, test: test.csv}, ood: {other_shop: {file: other.csv}}}""".replace("[no, yes]", "['no', 'yes']"))
    frames = {k: {"dense": rows({"dev": 0.95, "test": 0.95, "other_shop": 0.9}, {"dev": 200, "test": 400, "other_shop": 400}),
                  "imp-70": rows({"dev": 0.94, "test": 0.94, "other_shop": 0.8 + k / 100}, {"dev": 200, "test": 400, "other_shop": 400})}
              for k in SEEDS}
    of = study(frames, str(path), along={k: frames[k]["dense"].assign(step=1) for k in SEEDS})
    found = entry(claim().model_copy(update={"tasks": ["any"]}), of)
    assert found["task"] == str(path) and found["word"] == "holds" and found["ours"] == pytest.approx(-8.0)
    table = ledger.judged(declared.load(), of)
    asked = set(table.loc[table["task"] == str(path), "id"])
    assert {"T1", "T2", "T5", "T14", "O7", "P1"} <= asked and not asked & {"A3", "B5", "T6"}


# ---------------------------------------------------------------- pilots, populations, plans
def test_a_pilot_is_marked_and_never_topped_up():
    models = {k: {"dense": dense(k % 5), "imp-70": compressed((0.7 if k < 5 else 0.8) + k % 5 / 100)} for k in range(10)}
    first = entry(claim(), study({k: models[k] for k in SEEDS}, pilot=tuple(SEEDS)))
    assert first["word"] == "holds" and first["pilot"] == "pilot"
    both = entry(claim(), study(models, pilot=tuple(SEEDS)))
    assert both["seeds"] == 5 and both["pilot"] == "" and both["ours"] == pytest.approx(-9.0, abs=0.3), "the new seeds alone"
    assert entry(claim(), study(models))["seeds"] == 10


def test_populations_are_disjoint_and_each_is_one_number():
    """Three seeds make one number, nine make three; the two that are left over, and those without others, make none."""
    def changed(n):
        return rows({"dev": 0.95, "test": 0.95, "ood": 0.9 - n / 400})
    asked = claim("pie_excess", "ood", direction="above")
    models = {k: {"dense": changed(0), "imp-70": changed(40 if k % 3 else 200)} for k in range(8)}
    alone = {k: {0: changed(4), 1: changed(4), 2: changed(90)}[k % 3] for k in range(20, 28)}
    found = entry(asked, study(models, alone={key: frame for key, frame in zip(range(20, 28), alone.values())}))
    assert found["seeds"] == 2 and found["word"] == "indication" and "over 2 populations of 3 seeds" in found["finding"]
    assert found["ours"] == pytest.approx(10.0 - 1.0), "the modal answers: 40 rows of 400, less 4"
    assert entry(asked, study(models, alone={20: changed(4), 21: changed(4)}))["word"] == ledger.NOT_MEASURED
    assert "no 3 seeds with as many more" in entry(asked, study(models))["finding"]


def test_the_plan_says_how_many_seeds_each_claim_takes_and_a_task_as_a_whole():
    of = study({k: {"dense": dense(k), "imp-70": compressed(0.7 + k / 100, 0.94 - k / 400)} for k in SEEDS})
    asked = [claim(d=2.0), claim(d=0.2).model_copy(update={"id": "A2"}), claim("score", "test", d=1.0).model_copy(update={"id": "A3"})]
    table = ledger.judged(asked, of)
    plan = ledger.planned(table).set_index("id")
    for one in asked:
        k = rule.seeds_needed(plan.loc[one.id, "sd"], one.smallest_effect)
        assert plan.loc[one.id, "k"] == (str(k) if k else ledger.UNDECIDABLE)
    assert plan.loc["A2", "k"] == ledger.UNDECIDABLE and int(plan.loc["A1", "k"]) >= 5
    whole = ledger.planned_by_task(ledger.planned(table)).iloc[0]
    assert (whole["claims"], whole["decidable"]) == (3, 2) and whole["all"] == str(max(int(plan.loc[i, "k"]) for i in ("A1", "A3")))
    closed = study({k: {"dense": dense(0, ood=0.5 + k / 400), "imp-70": compressed(0.4 + k / 300)} for k in SEEDS})
    assert ledger.planned(ledger.judged(asked[:1], closed)).empty, "no number of seeds gives it skill"


# ---------------------------------------------------------------- the whole path, calibrated
STUDIES = 200


def simulated(effect: float, draw: np.random.Generator, sd: float = 2.0) -> tuple[pd.DataFrame, float]:
    """A study's models and what its verdict is about: the effect on the rows drawn, whatever the seeds' luck."""
    templates = np.repeat(draw.normal(0, 0.06, 100), 4)
    models = {}
    for seed in SEEDS:
        luck = draw.normal(0, sd / 100)
        both = draw.random(400)
        was, now = (both < p for p in (0.8 + templates, 0.8 + templates - effect / 100 - luck))
        models[seed] = {name: rows({"dev": 0.95, "test": 0.95, "ood": 0}, correct=np.concatenate(
            [np.arange(200) < 190, np.arange(400) < 380, ood])) for name, ood in (("dense", was), ("imp-70", now))}
    return models


@pytest.mark.parametrize("effect", [0.0, 2.0])
def test_from_predictions_to_words_errors_stay_within_their_bounds(effect):
    draw, asked = np.random.default_rng(20261128), claim()
    words, covers = [], 0
    for _ in range(STUDIES):
        of = study(simulated(effect, draw))
        words.append(entry(asked, of)["word"])
        line = ledger.by_pair([asked], of).iloc[0]
        covers += line["low"] <= -effect <= line["high"]
    low, high = stats.binom.ppf([0.005, 0.995], STUDIES, 0.95)
    assert low <= covers <= high
    words = pd.Series(words)
    most = stats.binom.ppf(0.995, STUDIES, 0.025)
    if effect == 0:
        assert words.str.startswith("holds").sum() <= most and (words == "reversed").sum() <= most
    if effect == 2.0:  # at the smallest effect itself: "holds" says that it is surely that large
        assert (words == "holds").sum() <= most
    assert (words == "reversed").sum() <= most
