"""Sentences made of results: what they say of losses, attacks, loyalty, speed and choices."""

import numpy as np
import pandas as pd
import pytest

from lib.figures import sentences
from lib.tasks import microworld, registry

TASK = registry.get("micro_nli")


def scored(**models):
    rows = [(model, split, value) for model, of in models.items() for split, value in zip(("test", "ood"), of)]
    table = pd.DataFrame(rows, columns=["model", "split", "value"])
    return table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1)


def test_the_best_floor_is_named_and_those_above_chance():
    assert sentences.best_floor(scored(majority=(0.5, 0.5), words=(0.9, 0.55)), TASK) == (
        "on test words comes furthest, 90.0; surely above chance OOD: none.")
    assert sentences.best_floor(scored(words=(0.9, 0.65)), TASK).endswith("chance OOD: words on ood.")


def test_the_dense_scores_stand_beside_the_best_floor_and_chance_and_over_the_seeds():
    table = scored(majority=(0.5, 0.5), words=(0.9, 0.55), dense=(0.98, 0.8))
    one = "dense scores 98.0 [88.0, 108.0] on test, 8.0 above words; 80.0 [70.0, 90.0] on ood, 30.0 above chance."
    assert sentences.knows(table, TASK) == one
    seeds = pd.concat([scored(dense=(0.9, ood), words=(0, 0)).assign(seed=seed) for seed, ood in enumerate((0.6, 0.7))])
    assert sentences.knows(table, TASK, "2 runs of `micro`", seeds) == (
        f"{one} Over 2 runs of `micro`: 90.0 [90.0, 90.0] on test, 65.0 [1.5, 128.5] on ood.")


def test_where_dense_is_at_chance_there_is_nothing_to_forget():
    table = pd.DataFrame([("dense", "swap", 9, 0.9), ("dense", "a_b", 0, 0.55), ("untrained", "swap", 9, 0.1)],
                         columns=["model", "subcase", "count", "value"]).assign(low=lambda t: t["value"] - 0.1)
    best = "best on swap (9 rows) (90.0 %), worst on a b (0 rows) (55.0 %). Nothing to forget, not surely above chance:"
    assert sentences.nothing_to_forget(table, 0.5) == f"{best} a b (0 rows)."
    assert sentences.nothing_to_forget(table, 0.4) == f"{best} none."


def test_half_of_a_rise_is_counted_from_chance():
    line = pd.DataFrame({"step": [8, 2, 4], "dev": [0.9, 0.75, 0.8], "ood": [0.7, 0.5, 0.65]})
    assert sentences.risen(line, TASK) == (
        "half of what it ends up with above chance was there, ID by step 2 (25.0 of 40.0 points), "
        "OOD by step 4 (15.0 of 20.0 points).")
    assert sentences.risen(line.assign(dev=0.5, ood=0.4), TASK).endswith("there, nowhere, as it ends at chance.")


def test_what_was_learned_first_last_and_never():
    known = pd.DataFrame({4: [0.9, 0.2, 0.1], 8: [0.95, 0.9, 0.2]}, index=["swap", "passive", "a_b"])
    assert sentences.learned_last(known) == (
        "by step 4 of 8 the run had learned the largest share of swap (90 %), the smallest of a b (10 %); "
        "after that the largest of passive (70 %); never the largest of a b (80 %).")


def test_a_model_off_the_dense_line_gets_its_reason():
    table = pd.DataFrame({"value": [0.01, np.nan, 0.3], "low": [0, np.nan, 0.2], "high": [0.02, np.nan, 0.4],
                          "reason": ["", "ID score above", ""]}, index=["imp-40", "imp-70", "imp-85"])
    assert sentences.above_line(table, ["dense", "imp-40", "imp-70"]) == (
        "points above the dense run's line: IMP 40 % 1.0 [0.0, 2.0]; IMP 70 % undefined (ID score above).")
    assert sentences.above_line(table, ["dense"]).endswith("line: nothing to compare.")


@pytest.fixture
def attacked():
    """Rows of the micro-world; dense is turned by a synonym, by a word that changes the truth, and by no word at all."""
    one, two, three = microworld.generate("micro_nli", seed=0, n_train=64, n_eval=200, n_ood=2).query(
        "split == 'test' and label == 0 and text_b.str.contains('doctor')").head(3).to_dict("records")
    rows = pd.DataFrame([one, two, three])
    found = [("dense", one, one["text_b"].replace("doctor", "physician")), ("dense", two, "the physician slept"),
             ("dense", three, "the dcotor slept"), ("imp-70", one, one["text_b"].replace("doctor", "physician")),
             ("imp-70", three, one["text_b"])]
    return rows, pd.DataFrame([{"model": model, "guid": row["guid"], "label": row["label"], "correct": True, "success": True,
                                "text_b": row["text_b"], "adversarial": text} for model, row, text in found]
                              + [{"model": "imp-70", "guid": two["guid"], "label": 0, "correct": True, "success": False,
                                  "text_b": two["text_b"], "adversarial": ""}])


def test_the_grammar_tells_which_pairs_keep_their_label(attacked):
    rows, found = attacked
    true = [microworld.label_of("micro_nli", a, b) for a, b in zip(rows.set_index("guid").loc[found["guid"], "text_a"],
                                                                   found["adversarial"])]
    assert true[0] == true[3] == 0 and true[2] is None, "what this test is about"
    kept = sum(label == 0 for label in true[:5])
    assert sentences.label_kept(TASK, found, rows) == (
        f"By the grammar **{kept} of 5** adversarial pairs keep their true label; 1 hold a word that the grammar does not know.")
    assert sentences.label_kept(TASK, found.iloc[[0, 3, 5]], rows) == (
        "By the grammar **2 of 2** adversarial pairs keep their true label.")
    assert sentences.label_kept(registry.get("mnli"), found, rows).startswith("5 pairs were found. Whether they keep their label nobody")


def test_pairs_are_shown_by_turns_and_none_twice(attacked):
    rows, found = attacked
    table = sentences.side_by_side(TASK, found, rows, n=4)
    assert list(table.columns) == ["premise", "hypothesis", "adversarial", "label"]
    assert table.index.tolist() == ["dense", "imp-70", "dense", "dense"] and set(table["label"]) == {"entailment"}
    assert table["adversarial"].tolist()[1:3] == [rows["text_b"][0], "the physician slept"]
    assert table["premise"].tolist()[1] == rows["text_a"][2]
    assert len(sentences.side_by_side(TASK, found, rows, n=2)) == 2


def test_texts_of_real_sets_are_not_shown(attacked, monkeypatch):
    said = []
    monkeypatch.setattr(sentences, "say", said.append)
    assert sentences.side_by_side(registry.get("mnli"), attacked[1], attacked[0]) is None
    assert "may not be shown" in said[0] and not any(text in said[0] for text in attacked[1]["adversarial"] if text)


def test_notes_say_what_ran_not_and_for_whom():
    table = pd.DataFrame([("dense", "onnx_int8", "not installed"), ("imp-70", "onnx_int8", "not installed"),
                          ("dense", "eager", np.nan), ("dense", "compiled", "no compiler")], columns=["model", "path", "note"])
    assert sentences.notes(table).split("\n") == ["- onnx_int8: not installed (dense, imp-70)", "- compiled: no compiler (dense)"]
    assert sentences.notes(table.assign(note=np.nan)) == "Every path ran for every model."


def test_loyalty_is_read_against_dense_models_of_other_seeds():
    def entries(split, **of):
        return pd.DataFrame([{"model": m.replace("_", ", "), "split": split, "measure": "label_loyalty", "value": v, "low": v - 0.02,
                              "high": v + 0.02} for m, v in of.items()])
    table = pd.concat([entries("test", seed_1=0.9, seed_2=0.94, low=0.85, within=0.87, high=0.99, near=0.97),
                       entries("ood", seed_1=0.5, seed_2=0.5, low=0.49, within=0.5, high=0.5, near=0.5),
                       entries("test", low=1.0, high=0.0).assign(measure="kl")])
    assert sentences.loyal(table, ["seed, 1", "seed, 2"], ["test", "ood"]) == (
        "On test a dense model of another seed gives 92.0 [88.0, 96.0] % of the rows the same label. Surely fewer: low; not "
        "told apart from another seed: within, near; surely more: high. On ood a dense model of another seed gives 50.0 [48.0, "
        "52.0] % of the rows the same label. Surely fewer: none; not told apart from another seed: low, within, high, near; "
        "surely more: none.")
    assert "no null" in sentences.loyal(table, [], ["test"])


def test_the_most_and_the_least_robust_model_are_named():
    rate = {"truncated-3": 0.3, "dense": 0.25, "imp-70": 0.8}
    table = pd.DataFrame([{"model": m, "measure": measure, "value": v} for m, value in rate.items()
                          for measure, v in (("success_rate", value), ("clean_accuracy", 0.0))])
    said = sentences.robust(table)
    assert said == ("the attack turns 25 % of the dense model's right answers. Of these models most easily turned: IMP 70 % "
                    "(80 %); least: dense (25 %).")
    assert "nothing to attack" in sentences.robust(table[table["model"] != "dense"])


def test_costs_are_told_with_their_path_and_only_where_measured():
    table = pd.DataFrame([("dense", 90.9e6, 6.0, "onnx_fp32"), ("dense + ptq8", 59.2e6, 1.5, "onnx_int8"),
                          ("imp-70", 90.9e6, np.nan, ""), ("truncated-3", np.nan, 3.0, "eager")],
                         columns=["model", "bytes", "latency_ms", "path"])
    assert sentences.size_and_speed(table) == (
        "size, and time or speed against dense: dense 90.9 MB and 6.0 ms (`onnx_fp32`); dense + PTQ8 59.2 MB and 4.0x "
        "(`onnx_int8`); IMP 70 % 90.9 MB.")


def test_what_one_run_serves_for_is_said_by_task():
    price = pd.DataFrame([("x", "v_one_run", "train", "rank", 0.85, 0.8, 0.9), ("y", "v_one_run", "train", "rank", 0.4, 0.3, 0.5),
                          ("x", "el2n", "train", "rank", 0.1, 0.0, 0.2)],
                         columns=["task", "score", "on", "measure", "value", "low", "high"])
    one_run = pd.DataFrame([("x", "imp-70", 0.001, -0.005, 0.007), ("y", "imp-70", 0.0, -0.001, 0.001)],
                           columns=["task", "base", "value", "low", "high"])
    first, second = sentences.one_run(one_run, price).split("\n")
    assert "x: rank agreement 0.85 [0.80, 0.90]" in first and "imp-70: 0.1 [-0.5, 0.7]" in first and "**serves**" in first
    assert "**does not serve**" in second
    wider = one_run.assign(high=0.02)
    assert sentences.one_run(wider, price).count("**does not serve**") == 2
    assert "not trained" in sentences.one_run(one_run.iloc[:0], price)


def test_regret_is_said_with_its_seeds():
    table = pd.DataFrame([("x", "imp-70", "by_hard", 0.01, -0.002, 0.022, 5)],
                         columns=["task", "base", "rule", "value", "low", "high", "seeds"])
    assert "1.0 [-0.2, 2.2] OOD points" in sentences.regret(table) and "5 seeds" in sentences.regret(table)
    assert "nothing to choose" in sentences.regret(table.iloc[:0])


def rivals(**auc):
    rows = [{"score": score, "on": "train", "measure": "auc", "value": value, "low": value - 0.1, "high": value + 0.1}
            for score, value in auc.items()]
    return pd.DataFrame([*rows, {"score": "v_one_run", "on": "train", "measure": "rank", "value": 0.3},
                         {"score": "v_seeds", "on": "dev", "measure": "auc", "value": 0.9}])


def test_scores_are_told_best_first_with_their_prices_and_the_free_ones_difference():
    costs = pd.DataFrame({"dense_runs": {"v_levels": 3.0, "el2n": 0.0}})
    one = rivals(v_levels=0.7, shortcut_confidence=1.0, el2n=0.75, confidence=0.6)
    assert sentences.finders(one, costs) == (
        "AUC, best first, each with its price in dense trainings: EL2N 0.75 [0.65, 0.85] for 0, variance over levels 0.70 [0.60, 0.80] for 3, dynamics: confidence 0.60 [0.50, 0.70]. "
        "EL2N, from the dense run alone, less the variance over levels: 0.05.")
    seeds = pd.concat([one.assign(seed=0), rivals(v_levels=0.6, el2n=0.75, confidence=0.6).assign(seed=1)])
    assert sentences.finders(seeds).startswith("AUC, best first: EL2N 0.75 [0.75, 0.75], variance over levels 0.65 [0.01, 1.29]")
    assert sentences.finders(seeds).endswith("less the variance over levels: 0.10 [-0.54, 0.74].")
    assert sentences.finders(one[one["measure"] == "rank"]).startswith("the data do not record")


def test_the_gap_beyond_dense_is_told_where_the_models_had_learned():
    rows = [{"axis": "shortcut_rate", "dose": dose, "model": model, "measure": "test", "value": 0.9, "low": low}
            for model in ("dense", "imp-70") for dose, low in ((0.5, 0.5 if model == "imp-70" else 0.6), (0.8, 0.8), (0.9, 0.8))]
    rows += [{"axis": "shortcut_rate", "dose": dose, "model": "imp-70", "measure": "gap_difference", "value": gap,
              "low": gap - 0.01, "high": gap + 0.01} for dose, gap in ((0.9, 0.2), (0.5, 0.3), (0.8, 0.1))]
    table = pd.DataFrame(rows)
    assert sentences.beyond_dense(table, "shortcut_rate") == (
        "IMP 70 % 10.0 [9.0, 11.0] at 0.8 and 20.0 [19.0, 21.0] at 0.9. Not surely learned: IMP 70 % at 0.5.")
    once = sentences.beyond_dense(table[table["dose"] == 0.8], "shortcut_rate")
    assert once == "IMP 70 % 10.0 [9.0, 11.0] at 0.8."
    assert sentences.beyond_dense(table.assign(low=0.4), "shortcut_rate").startswith("none can be read. Not surely learned")


def test_gains_are_told_set_by_set_without_the_name_of_the_base():
    rows = [(model, split, value) for model, value in (("dense", 0.2), ("imp-70 + rmc", 0.1)) for split in ("test", "ood")]
    table = pd.DataFrame(rows, columns=["model", "split", "value"]).assign(low=0.0, high=0.3)
    assert sentences.gained(table, "imp-70") == (
        "test (ID) dense 20.0 [0.0, 30.0], RMC 10.0 [0.0, 30.0]; OOD dense 20.0 [0.0, 30.0], RMC 10.0 [0.0, 30.0]")


def test_what_came_back_is_told_over_the_seeds_and_where_most_was_lost():
    table = pd.DataFrame([("imp-70", "rmc", 0, 0.1, 0.1), ("imp-70", "rmc", 1, 0.3, 0.1), ("imp-70", "distil", 1, 0.3, 0.02)],
                         columns=["base", "loss", "seed", "lost", "value"])
    assert sentences.regained(table) == (
        "IMP 70 % had lost 20.0 [-107.1, 147.1] OOD points, given back: RMC 10.0 [10.0, 10.0], distil 2.0; "
        "where it had lost most, 30.0: RMC 10.0, distil 2.0")
    assert sentences.regained(table.iloc[:0]) == ""


def test_the_best_alpha_is_counted_and_how_often_dev_finds_it():
    table = pd.DataFrame([("imp-70", seed, alpha, alpha == best, alpha == 0.3, alpha == best)
                          for seed, best in enumerate((0.1, 0.3, 0.3)) for alpha in (0.1, 0.3)],
                         columns=["base", "seed", "alpha", "by_hard", "by_gap", "oracle"])
    assert sentences.chosen_alpha(table) == (
        "the alpha that is best OOD for IMP 70 % is 0.1 at 1 and 0.3 at 2 of 3 seeds; dev chooses it by its hard part at 3 and "
        "by the gap at 2 of them")
