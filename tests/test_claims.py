import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from lib.analysis import difficulty, measures
from lib.claims import contrasts, declared, ledger, printed
from lib.errors import StudyError
from lib.tasks import registry

PAPER_TASKS = ["mnli", "fever", "qqp"]


@pytest.fixture(scope="module")
def written():
    return declared.load()


def gap(cells, task):
    ood = {"mnli": lambda c: c["hans"], "fever": lambda c: (c["sym1"] + c["sym2"]) / 2,
           "qqp": lambda c: (8000 * c["paws_wiki"] + 677 * c["paws_qqp"]) / 8677}[task](cells)
    return (cells["test"] - ood) / cells["test"]


def test_printed_f_bias_recomputes_from_the_printed_accuracies():
    table = pd.concat([printed.rows_of("a_compression"), printed.rows_of("a_mitigation")])
    accuracy = {key: dict(zip(part["split"], part["value"])) for key, part in
                table[table["measure"] == "accuracy"].groupby(["paper_name", "task"])}
    ratios = table[table["measure"] == "f_bias"]
    again = [np.mean([gap(accuracy[r.paper_name, t], t) / gap(accuracy["BERT-base", t], t)
                      for t in (PAPER_TASKS if r.task == "avg" else [r.task])]) for r in ratios.itertuples()]
    misses = ratios.assign(miss=np.abs(np.round(again, 3) - ratios["value"]))
    assert len(misses) == 75
    off = misses[misses["miss"] > 0.0010001]
    assert len(off) == 11 and off["note"].str.contains("recomputed").all()
    worst = off.loc[off["miss"].idxmax()]
    assert (worst["paper_name"], worst["task"], worst["value"]) == ("DistilBERT", "mnli", 1.289)
    assert "1.304" in worst["note"]


def test_published_tables_are_whole():
    for name in ("a_compression", "a_mitigation", "a_analysis"):
        table = printed.rows_of(name)
        assert list(table.columns) == ["model", "paper_name", "task", "split", "measure", "value", "status", "note"]
        assert not table.duplicated(["paper_name", "task", "split", "measure"]).any()
        assert set(table["status"]) <= {"T", "C"} and table["value"].notna().all()
    cells = printed.rows_of("a_analysis").pivot_table(index="model", columns="measure", values="value").dropna(
        subset=["easy_accuracy"])
    assert np.allclose(cells["easy_accuracy"] - cells["hard_accuracy"], cells["easy_hard_gap"], atol=0.051)


def test_the_papers_number_follows_from_the_claims_own_patterns(written):
    by_id = {claim.id: claim for claim in written}
    value, model, baseline = printed.number_of(by_id["A7"], "mnli")
    assert (round(value, 1), model, baseline) == (5.2, "imp-70", "dense")
    assert printed.number_of(by_id["A7"], "micro_nli") == printed.number_of(by_id["A7"], "mnli")
    assert round(printed.number_of(by_id["A13"], "mnli")[0], 1) == 6.6
    assert round(printed.number_of(by_id["A14"], "mnli")[0], 1) == 26.7
    assert round(printed.number_of(by_id["A5"], "fever")[0], 3) == 0.018
    for claim in written:
        for task in claim.tasks:
            assert (printed.number_of(claim, task) is not None) == bool(claim.published), claim.id


def test_claims_are_numbered_and_ours_are_marked(written):
    counts = {"A": 23, "O": 9, "B": 5, "P": 6, "C": 12}  # A, B: the two papers'; O, P, C: ours beside them
    assert [c.id for c in written] == [f"{letter}{i}" for letter, n in counts.items() for i in range(1, n + 1)]
    assert all(c.where.startswith("ours") == (c.id[0] in "OPC") for c in written)
    assert all(c.published == [] for c in written if c.id[0] in "BPC"), "B has no table of these tasks"
    assert all(ledger.rule(c) for c in written)


GOOD = {"id": "A1", "claim": "It falls.", "where": "table", "tasks": ["mnli"], "measure": "gap", "models": ["imp-*"],
        "baselines": ["dense"], "direction": "below", "smallest_effect": 2.0, "published": []}


@pytest.mark.parametrize("change, message", [
    ({"directon": "above"}, "unknown key 'directon'; did you mean 'direction'?"),
    ({"direction": "abve"}, "direction is 'abve'; did you mean 'above'?"),
    ({"measure": "fbias"}, "measure is 'fbias'; did you mean 'f_bias'?"),
    ({"tasks": ["mnlii"]}, "tasks.0 is 'mnlii'; did you mean 'mnli'?"),
    ({"smallest_effect": "2"}, "smallest_effect"),
    ({"smallest_effect": -1.0}, "smallest_effect must be above 0"),
    ({"split": "ood"}, "split belongs to the measures score, label_loyalty,"),
    ({"measure": "after_attack", "split": "test"}, "split belongs to the measures"),
    ({"measure": "score"}, "these need it"), ({"measure": "hidden_flips"}, "these need it"),
    ({"measure": "label_loyalty", "split": "dev"}, "split is 'dev'"),
    ({"measure": "label_loyalti", "split": "ood"}, "did you mean 'label_loyalty'?"),
    ({"measure": "label_loyalty", "split": "ood", "published": ["a_compression"]}, "do not print"),
    ({"baselines": []}, "baselines must be named"), ({"measure": "bias_slope"}, "left empty for agreement, .*bias_slope"),
    ({"published": ["a_mitigatoin"]}, "a_mitigatoin.*did you mean 'a_mitigation'?"),
    ({"measure": "overconfidence", "published": ["a_analysis"]}, "do not print"),
])
def test_a_wrong_claim_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([GOOD | change]))
    with pytest.raises(StudyError, match=message) as error:
        declared.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text, message", [
    (yaml.safe_dump([GOOD, GOOD]), "A1: the id stands there twice"),
    ("- id: [", "line 1: not readable as YAML"),
    ("claims: 3", "must be a list"),
    (yaml.safe_dump([{k: v for k, v in GOOD.items() if k != "where"}]), "key 'where' is missing; add it"),
])
def test_a_wrong_file_is_refused(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match=message):
        declared.load(path)


YES, NO, OPEN = "replicated", "not replicated", "inconclusive"


@pytest.mark.parametrize("estimate, low, high, direction, expected", [
    (3.0, 1.0, 5.0, "above", YES), (1.0, 0.5, 1.5, "above", NO), (3.0, -1.0, 7.0, "above", OPEN),
    (1.5, 0.5, 2.5, "above", OPEN), (-4.0, -6.0, -2.0, "above", NO),
    (-3.0, -5.0, -1.0, "below", YES), (-1.0, -1.5, -0.5, "below", NO), (-3.0, -7.0, 1.0, "below", OPEN),
    (4.0, 2.0, 6.0, "below", NO),
    (0.5, -1.0, 1.9, "same", YES), (0.5, -1.0, 2.1, "same", OPEN), (3.0, 2.5, 3.5, "same", NO),
    (-3.0, -3.5, -2.5, "same", NO),
    (5.0, 4.0, 6.0, "not_below", YES), (-1.0, -1.9, 0.0, "not_below", YES), (-1.0, -2.5, 0.5, "not_below", OPEN),
    (-3.0, -4.0, -2.1, "not_below", NO),
    (np.nan, np.nan, np.nan, "above", OPEN), (3.0, np.nan, np.nan, "above", OPEN),
])
def test_verdict_rule(estimate, low, high, direction, expected):
    for n_seeds in (1, 5):
        p_short = ledger.short(estimate, low, high, direction, 2.0, n_seeds)
        assert ledger.verdict(estimate, low, high, direction, 2.0, p_short) == expected


def test_verdict_refuses_an_unknown_direction():
    with pytest.raises(StudyError, match="sideways"):
        ledger.verdict(1, 0, 2, "sideways", 2, 0.5)


@pytest.mark.parametrize("direction, edge, alternative", [
    ("above", 2, "less"), ("below", -2, "greater"), ("not_below", -2, "less"), ("same", -2, "less")])
def test_the_test_against_a_claim_is_the_one_sided_t_test_over_seeds(direction, edge, alternative):
    values = np.array([-1.0, -3.5, -2.0, -4.0, -1.5])
    test = stats.ttest_1samp(values, edge, alternative=alternative)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert ledger.short(values.mean(), low, high, direction, 2.0, 5) == pytest.approx(test.pvalue)


def test_holm_corrects_step_by_step_and_counts_what_is_undefined():
    assert measures.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    corrected = measures.holm([0.6, np.nan, 0.02])
    assert corrected[[0, 2]].tolist() == pytest.approx([1.0, 0.06]) and np.isnan(corrected[1])


NAMES = ["dense", "imp-40", "imp-85", "imp-100", "imp-40 + rmc", "imp-40 + distil", "truncated-3 + rmc", "MiniLM-L6"]


@pytest.mark.parametrize("models, baselines, expected", [
    (["imp-*"], ["dense"], [("imp-40", "dense"), ("imp-85", "dense"), ("imp-100", "dense")]),
    (["highest imp-*"], ["lowest imp-*"], [("imp-100", "imp-40")]),
    (["* + rmc"], ["{base}"], [("imp-40 + rmc", "imp-40")]),
    (["* + rmc"], ["{base} + distil", "{base} + jtt"], [("imp-40 + rmc", "imp-40 + distil")]),
    (["all imp-*"], [], [("imp-40, imp-85, imp-100", "")]),
    (["*minilm*"], ["dense"], [("MiniLM-L6", "dense")]),
    (["imp-*", "imp-40"], ["imp-40"], [("imp-85", "imp-40"), ("imp-100", "imp-40")]),
    (["imp-60"], ["dense"], []), (["all truncated-*"], [], []),
])
def test_patterns_name_pairs(models, baselines, expected):
    assert contrasts.pairs(models, baselines, NAMES) == expected


VARIANTS = ["dense", "dense-after", "dense-2x", "imp-40", "imp-70", "imp-70 + rmc", "imp-70 + rmc-10", "imp-70 + rmc_one_run",
            "imp-60-after", "imp-70-after", "imp-70-2x", "imp-70-2x + rmc", "truncated-3-alternate", "truncated-3-2x"]


@pytest.mark.parametrize("models, baselines, expected", [
    (["imp-*"], ["dense"], [("imp-40", "dense"), ("imp-70", "dense")]),
    (["imp-*-after"], ["dense*"], [("imp-60-after", "dense"), ("imp-70-after", "dense")]),
    (["highest imp-*-after"], ["lowest imp-*"], [("imp-70-after", "imp-40")]),
    (["lowest imp-*-after"], ["lowest imp-*-2x"], [("imp-60-after", "imp-70-2x")]),
    (["all imp-*"], [], [("imp-40, imp-70", "")]),
    (["truncated-*", "truncated-*-2x"], ["dense-2x"], [("truncated-3-alternate", "dense-2x"), ("truncated-3-2x", "dense-2x")]),
    (["* + rmc"], ["{base}"], [("imp-70 + rmc", "imp-70")]), (["*-2x + rmc"], ["{base}"], [("imp-70-2x + rmc", "imp-70-2x")]),
    (["* + rmc_one_run"], ["{base} + rmc"], [("imp-70 + rmc_one_run", "imp-70 + rmc")]),
    (["*"], ["dense-after"], [(m, "dense-after") for m in ("dense", "imp-40", "imp-70", "truncated-3-alternate")]),
])
def test_a_variant_is_named_by_its_own_ending_alone(models, baselines, expected):
    assert contrasts.pairs(models, baselines, VARIANTS) == expected


@pytest.mark.parametrize("claim, expected", [
    ("C1", {("imp-70-after", "imp-70")}), ("C2", {("imp-60-after", "dense"), ("imp-70-after", "dense")}),
    ("C3", {("imp-70-after", "dense-after")}), ("C4", {("dense-after", "dense")}),
    ("C5", {("truncated-3-2x", "dense"), ("imp-70-2x", "dense")}), ("C6", {("truncated-3-2x", "dense-2x"), ("imp-70-2x", "dense-2x")}),
    ("C7", set()), ("C8", {("imp-40, imp-70", "")}), ("C9", {("imp-70 + rmc_one_run", "imp-70 + rmc")}),
    ("C10", {("imp-70 + rmc", "")}), *[(claim, {(m, "") for m in ("imp-40", "imp-70", "truncated-3-alternate")}) for claim in ("C11", "C12")],
])
def test_claims_of_the_evidence_find_their_models(written, claim, expected):
    found = declared.wanted(written, [{"model": name, "task": "micro_facts", "seed": 2} for name in VARIANTS])
    found = found[(found["claim"] == claim) & found["measure"].isin([c.measure for c in written if c.id == claim])]
    assert set(zip(found["model"], found["baseline"])) == expected


def test_contrasts_need_model_and_baseline_on_one_task_and_seed(written):
    records = [{"model": "dense", "task": "micro_nli", "seed": 0}, {"model": "imp-40", "task": "micro_nli", "seed": 0},
               {"model": "imp-70", "task": "micro_nli", "seed": 1}, {"model": "imp-70", "task": "micro_facts", "seed": 0}]
    found = declared.wanted(written, records)
    found = found[found["baseline"] != ""]
    assert set(found["task"]) == {"micro_nli"} and set(found["seed"]) == {0}
    assert set(found["claim"]) == {"A1", "A3", "A4", "A15", "O7", "B5", "P3"}
    a4 = found[found["claim"] == "A4"]
    assert list(a4["measure"]) == ["gap", "f_bias", "skill_kept"] and set(a4["split"]) == {""}
    assert list(found.loc[found["claim"] == "A1", "split"]) == ["test"]


SECOND = ["dense", "dense, other seed", "imp-60", "imp-60 + distil", "imp-60 + distil + ptq8", "truncated-3", "truncated-3 + distil",
          "truncated-3 + pkd", "truncated-3 + tinybert", "scratch-3 + tinybert", "theseus-3", "theseus-3-constant", "heads-20", "heads-20 + ptq8",
          "dense + ptq8", "dense + qat8", "dense + ptq4"]


@pytest.mark.parametrize("claim, expected", [
    *[(claim, {("imp-60 + distil + ptq8", "imp-60")}) for claim in ("B1", "B2", "B3", "B4")],
    ("B5", {(m, "dense") for m in ("imp-60", "truncated-3", "truncated-3 + distil", "theseus-3", "theseus-3-constant", "heads-20")}),
    ("P1", {("dense + ptq8", "dense, other seed")}),
    ("P2", {(m, "dense, other seed") for m in ("imp-60", "truncated-3", "theseus-3", "theseus-3-constant", "heads-20")}),
    ("P3", {(m, "dense") for m in ("imp-60", "truncated-3", "theseus-3", "theseus-3-constant", "heads-20", "dense + ptq8")}),
    ("P4", {("theseus-3", "truncated-3")}), ("P5", {("dense + ptq8", "dense + qat8")}),
    ("P6", {("truncated-3 + pkd", "truncated-3 + distil"), ("truncated-3 + tinybert", "truncated-3 + distil")}),
])
def test_claims_of_the_second_paper_find_their_models(written, claim, expected):
    found = declared.wanted(written, [{"model": name, "task": "qqp", "seed": 2} for name in SECOND])
    found = found[found["claim"] == claim]
    assert set(zip(found["model"], found["baseline"])) == expected


def test_no_claim_takes_the_dense_model_of_another_seed_for_a_model(written):
    found = declared.wanted(written, [{"model": name, "task": "mnli", "seed": 0} for name in SECOND])
    assert "dense, other seed" not in set(found["model"])
    assert set(found.loc[found["baseline"] == "dense, other seed", "claim"]) == {"P1", "P2"}


def rows(id_accuracy, ood_accuracy, easy_accuracy=None, n=200):
    """Rows of measures.rows, right on the first share of each split; half of test and dev is easy."""
    parts = []
    for split, accuracy in (("dev", id_accuracy), ("test", id_accuracy), ("ood", ood_accuracy), ("unseen", 0.0)):
        easy = np.arange(n) % 2 == 0
        correct = np.arange(n) < round(accuracy * n)
        if easy_accuracy is not None and split == "test":
            correct = np.where(easy, np.arange(n) < easy_accuracy * n, correct)
        label = np.arange(n) // 2 % 2
        parts.append(pd.DataFrame({
            "guid": [f"{split}{i}" for i in range(n)], "split": split, "label": label,
            "pred": np.where(correct, label, 1 - label), "correct": correct, "confidence": 0.9,
            "loss": np.where(correct, 0.1, 2.0), "heuristic": "", "subcase": "",
            "is_shortcut": pd.array(easy, dtype="boolean"), "group": "", "easy": easy}))
    return pd.concat(parts, ignore_index=True)


def contrast(measure, model="imp-70", baseline="dense", split=""):
    return pd.Series({"task": "micro_nli", "seed": 0, "measure": measure, "split": split, "model": model,
                      "baseline": baseline})


def measured(wanted, rows_of, n_boot):
    return contrasts.scores(pd.DataFrame([wanted]), rows_of, n_boot=n_boot).iloc[0]


MODELS = {"dense": rows(0.95, 0.90), "imp-60": rows(0.95, 0.80), "imp-70": rows(0.90, 0.70)}


def rows_of(task, seed, model):
    return MODELS[model]


@pytest.mark.parametrize("wanted, expected", [
    (contrast("score", split="test"), -5.0), (contrast("score", split="ood"), -20.0),
    (contrast("gap"), 15.0), (contrast("gap", baseline="imp-60"), 5.0),
    (contrast("f_bias"), (0.20 / 0.90) / (0.05 / 0.95) - 1),
    (contrast("f_bias", baseline="imp-60"), ((0.20 / 0.90) - (0.15 / 0.95)) / (0.05 / 0.95)),
    (contrast("skill_kept"), 0.5 - 1), (contrast("skill_kept", baseline="imp-60"), 0.5 - 0.75),
    (contrast("overconfidence"), 5.0),
])
def test_measures_of_a_contrast(wanted, expected):
    found = measured(wanted, rows_of, n_boot=100)
    assert found["value"] == pytest.approx(expected)
    if not np.isnan(found["low"]):
        assert found["low"] <= found["value"] <= found["high"]


def test_bias_is_undefined_where_the_dense_model_has_no_gap():
    found = measured(contrast("f_bias"), lambda *_: rows(0.9, 0.9), n_boot=100)
    assert np.isnan(found["value"])


def over_seeds(measure, models_of_seed, n_boot=200, **place):
    wanted = pd.DataFrame([contrast(measure, **place) for _ in models_of_seed]).assign(seed=range(len(models_of_seed)))
    return contrasts.scores(wanted, lambda task, seed, model: models_of_seed[seed][model], n_boot=n_boot)


@pytest.mark.parametrize("measure, split", [("score", "test"), ("score", "ood"), ("gap", ""), ("f_bias", ""), ("skill_kept", ""),
                                            ("overconfidence", ""), ("hidden_flips", "test"), ("label_loyalty", "ood")])
def test_several_seeds_have_the_values_of_each_and_no_interval_over_rows(measure, split):
    seeds = [{"dense": followed(200, accuracy=0.95), "imp-70": followed(150, accuracy=a)} for a in (0.6, 0.7, 0.9)]
    for seed in seeds:
        seed["dense"].loc[seed["dense"]["split"] == "ood", "correct"] = np.arange(200) < 160
    alone = [over_seeds(measure, [seed], split=split).iloc[0] for seed in seeds]
    found = over_seeds(measure, seeds, split=split)
    assert found["value"].tolist() == pytest.approx([one["value"] for one in alone]) and found["value"].notna().all()
    assert found[["low", "high", "p"]].isna().all(axis=None) and all(one["low"] <= one["value"] <= one["high"] for one in alone)
    assert [np.isnan(one["p"]) for one in alone] == [measure != "score"] * 3


def test_a_ratio_is_undefined_on_the_seeds_whose_dense_model_has_no_gap(written):
    pruned = {"imp-70": rows(0.9, 0.6)}
    found = over_seeds("f_bias", [pruned | {"dense": rows(0.95, ood)} for ood in (0.5, 0.94, 0.6, 0.95)])
    assert found["value"].isna().tolist() == [False, True, False, True]
    line = ledger.put_together(written, found.assign(claim="A7")).iloc[0]
    assert np.isnan(line["estimate"]) and line["reason"] == "the interval of the dense model's gap holds 0: seed 1, 3"


def test_a_number_of_a_table_is_asked_for_and_left_out_where_there_is_none(written):
    wanted = pd.DataFrame([{"claim": "C11"} | contrast("bias_slope", model, "").to_dict() | {"seed": seed}
                           for model in ("imp-70", "imp-85", "truncated-3") for seed in range(3)])[declared.CONTRAST]
    numbers = {"imp-70": [1.0, 1.2, 1.1], "truncated-3": [0.9, None, None], "imp-85": [None] * 3}
    found = contrasts.scores(wanted, rows_of, lambda task, seed, measure, model: numbers[model][seed])
    assert found["value"].tolist() == [1.0, 1.2, 1.1, 0.9] and found["model"].tolist() == ["imp-70"] * 3 + ["truncated-3"]
    alone = contrasts.scores(wanted[wanted["model"] == "imp-70"], rows_of, lambda t, s, measure, m: 1.0 + s / 10)
    assert entry(written, alone, "C11")["verdict"] == YES
    weakest = entry(written, found, "C11")
    assert weakest["verdict"] == OPEN and weakest["interval"] == "undefined" and weakest["n"] == "1 seed"
    assert "truncated-3, gap beyond dense for ten points of shortcut rate +0.9 points undefined (a table gives one seed no interval) over 1 seed;" in weakest["sentence"]
    assert contrasts.scores(wanted, rows_of).empty
    none = ledger.judged(written, ledger.put_together(written, scored("A4", "imp-70", [4.0]))).set_index("id").loc["C11"]
    assert none["verdict"] == "not measured" and "no bias_slope of imp-*" in none["sentence"] and none["interval"] == ""


def test_paired_tests_are_corrected_within_the_claim_and_seed():
    models = {"dense": rows(0.9, 0.9), "imp-20": rows(0.87, 0.9), "imp-40": rows(0.85, 0.9)}
    wanted = pd.DataFrame([{"claim": claim} | contrast(measure, model, split=split).to_dict() | {"seed": seed}
                           for claim, model, measure, split in (("A1", "imp-20", "score", "test"), ("A1", "imp-40", "score", "test"),
                                                                ("B1", "imp-20", "score", "test"), ("A4", "imp-20", "gap", ""))
                           for seed in range(2)])
    found = contrasts.paired_tests(wanted, lambda task, seed, model: models["dense" if seed and model == "imp-40" else model])
    assert found.set_index(["claim", "model"])[["seeds", "lost", "gained"]].to_dict("index") == {
        ("A1", "imp-20"): {"seeds": 2, "lost": 6, "gained": 0}, ("A1", "imp-40"): {"seeds": 2, "lost": 5, "gained": 0},
        ("B1", "imp-20"): {"seeds": 2, "lost": 6, "gained": 0}}
    p = 2 * 0.5 ** 6  # 0.03125: below 0.05 alone, and beside a lesser one, but not beside a greater one
    assert found["p_median"].tolist() == pytest.approx([p, (2 * 0.5 ** 10 + 1) / 2, p])
    assert found["seeds_significant"].tolist() == [1, 1, 2]


def test_easy_hard_gap():
    models = {"dense": rows(0.9, 0.9), "imp-70": rows(0.6, 0.9, easy_accuracy=0.9)}
    found = measured(contrast("easy_hard"), lambda t, s, m: models[m], n_boot=100)
    assert found["value"] == pytest.approx(30.0) and found["n"] == 200
    with pytest.raises(StudyError, match="easy"):
        measured(contrast("easy_hard"), lambda t, s, m: models[m].drop(columns="easy"), n_boot=10)


def test_variance_that_follows_the_shortcut_agrees_with_it():
    light, heavy = rows(1.0, 1.0), rows(1.0, 1.0)
    heavy.loc[~heavy["easy"], "loss"] = 3.0
    models = {"imp-40": light, "imp-85": heavy}
    of_all = "imp-40, imp-85"
    agreement = measured(contrast("agreement", of_all, ""), lambda t, s, m: models[m], n_boot=50)
    auc = measured(contrast("auc", of_all, ""), lambda t, s, m: models[m], n_boot=50)
    assert agreement["value"] == pytest.approx(50.0) and auc["value"] == pytest.approx(0.5) and auc["n"] == 200


def test_variance_measures_are_those_of_the_difficulty():
    rng = np.random.default_rng(0)
    levels = [rows(1.0, 1.0).assign(loss=lambda f: rng.integers(0, 4, len(f)) / 2 + ~f["easy"] * rng.random(len(f)))
              for _ in range(3)]
    dev = [level[level["split"] == "dev"] for level in levels]
    known = difficulty.threshold_agreement(difficulty.variance(np.stack([d["loss"] for d in dev])), ~dev[0]["easy"])
    models = dict(zip(("imp-20", "imp-40", "imp-85"), levels))
    found = {kind: measured(contrast(kind, ", ".join(models), ""), lambda t, s, m: models[m], n_boot=200)
             for kind in contrasts.OF_ROWS}
    assert found["agreement"]["value"] == pytest.approx(100 * (known["agreement"] - known["majority"]))
    assert found["auc"]["value"] == pytest.approx(known["auc"] - 0.5)
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]


def test_matched_dev_takes_the_dense_checkpoints():
    along = pd.concat([rows(0.8, 0.6).assign(step=1), rows(1.0, 1.0).assign(step=2)])
    models = {contrasts.CHECKPOINTS: along, "imp-70": rows(0.9, 0.7)}
    found = measured(contrast("matched_dev"), lambda t, s, m: models[m], n_boot=50)
    assert found["value"] == pytest.approx(-10.0)


def followed(n_same, p=0.5, accuracy=0.9, attacked=0, broken=0, n=200):
    """Rows of which the first n_same (on ood half of that) have the dense model's label, all loyal to degree p; the first
    `attacked` of test are attacked, and the first `broken` of these fall."""
    frame = rows(accuracy, accuracy, n=n)
    number = frame.groupby("split").cumcount()
    after = pd.Series(np.nan, frame.index, dtype=object)
    is_attacked = (frame["split"] == "test") & (number < attacked)
    after[is_attacked] = number[is_attacked] >= broken
    same = number < np.where(frame["split"] == "ood", n_same // 2, n_same)
    return frame.assign(label_loyalty=same, probability_loyalty=p, after_attack=after)


@pytest.mark.parametrize("wanted, expected, n", [
    (contrast("label_loyalty", split="test"), 100 * (150 - 190) / 200, 200),
    (contrast("label_loyalty", split="ood"), 100 * (75 - 95) / 200, 200),
    (contrast("label_loyalty", baseline="dense, other seed", split="ood"), 100 * (75 - 85) / 200, 200),
    (contrast("probability_loyalty", split="test"), 100 * (0.6 - 0.9), 200),
    (contrast("after_attack"), 100 * (25 - 45) / 50, 50),
])
def test_loyalty_and_attack_are_differences_of_their_shares(wanted, expected, n):
    models = {"dense": followed(190, 0.9, attacked=50, broken=5), "imp-70": followed(150, 0.6, attacked=50, broken=25),
              "dense, other seed": followed(170)}
    found = measured(wanted, lambda t, s, m: models[m], n_boot=200)
    assert found["value"] == pytest.approx(expected) and found["n"] == n
    assert found["low"] - 1e-9 <= found["value"] <= found["high"] + 1e-9
    same = measured(wanted, lambda t, s, m: models["imp-70"], n_boot=50)
    assert same["value"] == same["low"] == same["high"] == 0


def test_loyalty_leaves_the_unseen_subcases_out():
    models = {"dense": followed(200), "imp-70": followed(200)}
    models["imp-70"].loc[models["imp-70"]["split"] == "unseen", "label_loyalty"] = False
    assert measured(contrast("label_loyalty", split="ood"), lambda t, s, m: models[m], n_boot=20)["value"] == 0


@pytest.mark.parametrize("n_same, accuracy, expected", [
    (160, 0.9, 20.0),  # a fifth of the labels changed, the score did not
    (160, 0.7, 0.0),   # the score tells of every change
    (170, 0.8, 5.0),   # 15 % changed, the score shows 10
    (180, 1.0, 0.0),   # all of them gained
    (200, 0.9, 0.0)])
def test_hidden_flips_are_what_the_score_does_not_show(n_same, accuracy, expected):
    models = {"dense": followed(200), "imp-70": followed(n_same, accuracy=accuracy)}
    found = measured(contrast("hidden_flips", split="test"), lambda t, s, m: models[m], n_boot=100)
    assert found["value"] == pytest.approx(expected) and found["n"] == 200


def test_models_that_were_not_attacked_have_no_after_attack_score():
    models = {"dense": followed(200, attacked=50), "imp-70": followed(200)}
    found = measured(contrast("after_attack"), lambda t, s, m: models[m], n_boot=20)
    assert np.isnan(found["value"]) and np.isnan(found["low"]) and found["n"] == 0
    back = measured(contrast("after_attack", "dense", "imp-70"), lambda t, s, m: models[m], n_boot=20)
    assert np.isnan(back["value"])


def test_a_claim_about_attacks_without_attacks_is_inconclusive(written):
    scores = scored("P3", "imp-60", [np.nan], measure="after_attack")
    found = entry(written, scores, "P3")
    assert found["verdict"] == OPEN and "undefined" in found["sentence"]


def test_scores_computes_a_pair_once_and_gives_it_to_every_claim():
    asked = []

    def counted(task, seed, model):
        asked.append(model)
        return MODELS[model]
    row = contrast("gap").to_dict()
    wanted = pd.DataFrame([{"claim": "A4"} | row, {"claim": "A7"} | row])[declared.CONTRAST]
    found = contrasts.scores(wanted, counted, n_boot=20)
    assert list(found["claim"]) == ["A4", "A7"] and (found["value"].round(6) == 15).all() and asked.count("imp-70") == 1
    assert contrasts.scores(wanted.iloc[:0], counted).empty
    with pytest.raises(StudyError, match="'fbias' is not one of"):
        contrasts.scores(wanted.assign(measure="fbias"), counted)
    with pytest.raises(StudyError, match="the rows hold test"):
        contrasts.scores(wanted, lambda *_: MODELS["dense"].query("split == 'test'"), n_boot=5)


def scored(claim, model, values, measure="gap", task="micro_nli", baseline="dense", width=1.0, split="", p=np.nan):
    return pd.DataFrame([{"claim": claim, "task": task, "seed": seed, "measure": measure, "split": split, "model": model,
                          "baseline": baseline, "value": v, "low": v - width, "high": v + width, "n": 400, "p": p,
                          "reason": "the gap holds 0" if np.isnan(v) else ""}
                         for seed, v in enumerate(values)])


def test_evidence_takes_the_t_interval_over_seeds_and_rows_for_one(written):
    found = ledger.put_together(written, pd.concat([scored("A4", "imp-40", [4, 6, 5]), scored("A4", "imp-70", [9.0])]))
    several, one = found.itertuples()
    assert (several.estimate, several.n_seeds, several.unit) == (5.0, 3, "points")
    assert several.high - several.estimate == pytest.approx(4.302653 / np.sqrt(3), rel=1e-5)
    assert (one.low, one.high, one.n_seeds, one.n_rows) == (8.0, 10.0, 1, 400)
    assert list(found.columns) == ledger.EVIDENCE


def test_p_is_of_the_seeds_or_of_the_rows_and_corrected_within_claim_task_and_measure(written):
    values = {"imp-20": [4.0, 6, 5], "imp-40": [1.0, 3, 4], "imp-70": [-1.0, 2, 1]}
    table = pd.concat([scored("A4", m, v) for m, v in values.items()] + [
        scored("A4", "imp-70", [1.0, 2], task="qqp"), scored("A4", "imp-70", [1.0, 2], measure="f_bias"),
        scored("A1", "imp-20", [0.5], measure="score", split="test", p=0.03, width=0.5), scored("A15", "imp-20", [0.5])])
    found = ledger.put_together(written, table)
    known = [stats.ttest_1samp(v, 0).pvalue for v in values.values()]
    assert found["p"][:3].tolist() == pytest.approx(known) and set(found["test"][:5]) == {"t test over seeds"}
    assert found["p_holm"][:3].tolist() == pytest.approx(measures.holm(known))
    assert found["p_holm"][3:].tolist() == found["p"][3:].tolist()
    short = [stats.ttest_1samp(v, 2, alternative="less").pvalue for v in values.values()]
    assert found["p_short"][:3].tolist() == pytest.approx(measures.holm(short)) and np.isnan(found["p_short"][4])
    assert found["test"][5:].tolist() == ["McNemar's exact test", "normal approximation of the bootstrap"]
    assert found["p"][5:].tolist() == pytest.approx([0.03, 2 * stats.norm.sf(0.5 * 1.959964)])


def test_not_replicated_must_hold_after_the_correction_and_replicated_needs_none(written):
    strong, near = np.array([9.0, 8, 10, 9, 9.5]), np.array([0.4, 1.6, 0.9, 1.4, 0.5])
    assert 0.0025 < stats.ttest_1samp(near, 2, alternative="less").pvalue < 0.025
    assert entry(written, scored("A4", "imp-20", near), "A4")["verdict"] == NO
    many = pd.concat([scored("A4", "imp-20", near), *(scored("A4", f"imp-{i}", strong + i) for i in range(30, 39))])
    found = entry(written, many, "A4")
    assert found["verdict"] == OPEN and found["ours"] == pytest.approx(near.mean())
    assert "the interval lies below 2 points, which does not hold after Holm over 10 contrasts" in found["sentence"]
    barely = np.array([1.0, 5, 4, 0.5, 2])  # its interval is barely above 0: Holm over ten would not let it pass
    assert stats.ttest_1samp(barely, 0).pvalue > 0.025
    many = pd.concat([scored("A4", f"imp-{i}", barely) for i in range(30, 40)])
    assert entry(written, many, "A4")["verdict"] == YES


def test_the_ledger_says_how_it_was_tested(written):
    several = entry(written, pd.concat([scored("A4", m, [4.0, 6, 5, 5, 5.5]) for m in ("imp-20", "imp-40")]), "A4")["sentence"]
    assert "over 5 seeds, t interval; p < 0.001 after Holm over 2 contrasts; it decides among 2" in several
    one = entry(written, scored("A12", "heads-20", [0.9], measure="score", split="test", p=0.012, width=0.5), "A12")["sentence"]
    assert "(another seed may differ); p 0.012 (McNemar's exact test);" in one and "Holm" not in one
    against = entry(written, scored("A7", "imp-70", [0.1, 0.2, 0.3]), "A7")["sentence"]
    assert against.startswith("Not replicated") and "; the effect lies below 2 points, one-sided p < 0.001" in against
    few = entry(written, scored("A12", "heads-20", [0.1, 0.1, 0.0], measure="score", split="test"), "A12")["sentence"]
    assert few.startswith("Inconclusive") and "; to call a difference missing takes 5 seeds" in few


def test_the_ledger_takes_the_tasks_of_several_profiles(written):
    both = pd.concat([scored("A7", "imp-70", [4.0, 6, 5], task=task) for task in ("micro_nli", "mnli")] + [
        scored("C11", "imp-70", [1.0, 1.2], task="micro_nli", measure="bias_slope", baseline="")])
    table = ledger.judged(written, ledger.put_together(written, both))
    places = table.groupby("id")["task"].agg(list)
    assert places["A7"] == places["A3"] == ["micro_nli", "mnli"] and places["C11"] == ["micro_nli"]
    assert not table.duplicated(["id", "task"]).any()
    assert (table["interval"] == "").eq(table["verdict"] == "not measured").all(), "no verdict without an interval"


def test_no_scores_are_no_evidence(written):
    none = pd.DataFrame(columns=[*declared.CONTRAST, *contrasts.NUMBERS])
    table = ledger.judged(written, ledger.put_together(written, none))
    assert len(table) == len(written) and set(table["verdict"]) == {"not measured"}


@pytest.mark.parametrize("scores, message", [
    (pd.DataFrame({"claim": ["A4"]}), "missing"), (scored("A44", "imp-40", [1]), "A44.*did you mean"),
    (pd.concat([scored("A4", "imp-40", [1]), scored("A4", "imp-40", [1])]), "twice"),
])
def test_wrong_scores_are_refused(written, scores, message):
    with pytest.raises(StudyError, match=message):
        ledger.put_together(written, scores)


def entry(written, scores, claim):
    table = ledger.judged(written, ledger.put_together(written, scores))
    assert list(table.columns) == ledger.LEDGER
    return table[table["id"] == claim].iloc[0]


def test_ledger_shows_the_contrast_that_decides(written):
    found = entry(written, pd.concat([scored("A4", "imp-40", [0.5]), scored("A4", "imp-70", [9.0])]), "A4")
    assert found["verdict"] == NO and found["ours"] == 0.5 and found["n"] == "1 seed, 400 rows"
    assert "imp-40 against dense" in found["sentence"] and "1 of them replicated" in found["sentence"]
    assert "another seed may differ" in found["sentence"] and "imp-20 against dense" in found["sentence"]
    assert found["paper"] == pytest.approx(4.5) and np.isnan(found["difference"])


def test_ledger_compares_sizes_on_the_papers_own_task_only(written):
    found = entry(written, scored("A7", "imp-70", [6.2, 7.2, 6.7], task="mnli"), "A7")
    assert found["difference"] == pytest.approx(6.7 - 5.2) and found["verdict"] == YES and found["n"] == "3 seeds"


@pytest.mark.parametrize("n_seeds, expected", [(4, OPEN), (5, YES)])
def test_no_difference_needs_five_seeds(written, n_seeds, expected):
    scores = scored("A1", "imp-40", np.linspace(-0.05, 0.05, n_seeds), measure="score", split="test")
    assert entry(written, scores, "A1")["verdict"] == expected


def test_ledger_says_what_was_not_measured_and_why(written):
    table = ledger.judged(written, ledger.put_together(written, scored("A4", "imp-40", [4.0])))
    assert set(table["id"]) == {c.id for c in written}
    left = table.set_index("id")
    assert left.loc["A11", "verdict"] == "not measured" and "heads-19.5 beside dense" in left.loc["A11", "sentence"]
    elsewhere = ledger.judged(written, ledger.put_together(written, scored("A4", "imp-40", [4.0], task="qqp"))).set_index("id")
    assert "none of its tasks (mnli)" in elsewhere.loc["A7", "sentence"] and elsewhere.loc["A7", "task"] == ""


def test_ledger_says_undefined(written):
    scores = scored("A5", "imp-70", [np.nan], measure="f_bias", baseline="imp-40")
    found = entry(written, scores, "A5")
    assert found["verdict"] == OPEN and found["interval"] == "undefined"
    assert "relative bias undefined (the gap holds 0) over 1 seed" in found["sentence"]
    several = scored("A5", "imp-70", [0.2, np.nan, 0.3, np.nan], measure="f_bias", baseline="imp-40")
    assert "undefined (the gap holds 0: seed 1, 3) over 4 seeds" in entry(written, several, "A5")["sentence"]


def test_every_task_of_the_claims_is_a_task_of_the_study(written):
    for claim in written:
        assert all(registry.get(task) for task in claim.tasks)
