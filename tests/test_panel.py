"""The OOD panel: sets read in their authors' formats, scored for themselves, and never part of the OOD score."""

import dataclasses
from datetime import date
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from lib.analysis import measures, seeds, tables
from lib.claims import declared, gates, ledger, place
from lib.claims.declared import Claim
from lib.errors import StudyError
from lib.tasks import dataset, lengths, registry
from lib.tasks.sources import Table
from tests.simulated import SIZES, rows, study
from tests.test_measures import judged, task
from tests.test_tasks import PAIR, own, rows as texts, write  # noqa: F401

MNLI = registry.get("mnli")
NAMES = ["dev", "test", "hans", "cad_nli"]


def read(split: str, folder) -> pd.DataFrame:
    """The rows of a set of the panel, from made files that have no digest to be held to."""
    def free(table):
        return dataclasses.replace(table, local={}, url_digest="", also=tuple(map(free, table.also)))

    files = {name: Table(f"{name}.tsv", PAIR, {"yes": 0, "no": 1}) for name in ("train", "test")}
    for name in files:
        write(texts(40, name), folder / f"{name}.tsv")
    alone = dataclasses.replace(MNLI, ood={split: MNLI.ood[split]}, tables=files | {split: free(MNLI.tables[split])})
    items = dataset.load(alone, seed=0, n_train=0, n_eval=0, n_ood=1, data_dir=folder)
    return items[items["split"] == split].reset_index(drop=True)


# --- the authors' formats -----------------------------------------------------------------------

def test_cad_nli_is_quoted_and_four_edits_of_one_pair_make_a_group(tmp_path):
    (folder := tmp_path / "cad_nli" / "revised_combined").mkdir(parents=True)
    lines = ['"He says ""NA"".\tTwice"\tHe talks.\tentailment', *(f"A {i}.\tB {i}.\tneutral" for i in range(7))]
    for name, part in (("dev", lines[:4]), ("test", lines[4:])):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tgold_label", *part]) + "\n")
    items = read("cad_nli", tmp_path)
    assert items["text_a"].tolist()[:2] == ['He says "NA".\tTwice', "A 0."] and items["label"].tolist() == [0] + 7 * [1]
    assert items["group"].tolist() == ["dev-0"] * 4 + ["test-0"] * 4
    assert items["guid"].tolist() == [f"mnli-cad_nli-{i}" for i in range(8)]


def test_monli_is_whole_with_a_case_for_each_file_and_pairs_that_share_a_text_in_a_group(tmp_path):
    (tmp_path / "monli").mkdir()
    pairs = {"pmonli": ["car taxi", "taxi car", "car van", "dog pug"], "nmonli_train": ["no-pug no-dog"], "nmonli_test": ["no-car no-van"]}
    for name, part in pairs.items():
        a, b = zip(*(pair.split() for pair in part))
        write(pd.DataFrame({"sentence1": a, "sentence2": b, "gold_label": ["neutral", "entailment"][:1] * len(part),
                            "depth": 1, "sentence1_lex": a, "sentence2_lex": b}), tmp_path / "monli" / f"{name}.jsonl")
    items = read("monli", tmp_path)
    assert items["subcase"].tolist() == items["heuristic"].tolist() == ["pmonli"] * 4 + ["nmonli"] * 2, "n_ood=1 cuts nothing"
    assert items.groupby("group", sort=False).size().tolist() == [3, 1, 1, 1] and set(items["label"]) == {1}
    assert not items["group"].str.contains("car").any() and items["guid"].is_unique


def test_anli_is_read_over_line_breaks_and_its_other_columns_are_left(tmp_path):
    (tmp_path / "anli").mkdir()
    write(pd.DataFrame({"context": ["A long\n\ncontext", "A long\n\ncontext", 'He said "so", twice'], "reason": "why\nnot",
                        "statement": ["x", "None", "z"], "gold_label": ["e", "n", "c"], "preds-bert": "c", "uid": "u"}),
          tmp_path / "anli" / "ANLI_analysis_r2_dev.csv")
    items = read("anli_r2", tmp_path)
    assert items["label"].tolist() == [0, 1, 2] and items["text_b"].tolist() == ["x", "None", "z"]
    assert items["text_a"].tolist()[1:] == ["A long\n\ncontext", 'He said "so", twice'] and items["group"].nunique() == 2


def test_rows_that_lose_text_are_counted():
    def tokenizer(a, b, truncation, max_length, return_attention_mask):
        return {"input_ids": [[1] * min(max_length, len(x.split()) + len(y.split())) for x, y in zip(a, b)]}

    items = pd.DataFrame({"split": ["test", "hans", "test"], "text_a": ["a b c", "a", "a b c d"], "text_b": ["d", "b", "e"]}, index=[5, 6, 7])
    assert lengths.cut(items, tokenizer, 4).to_dict("index") == {
        "test": {"rows": 2, "tokens": 4, "cut": 1, "share": 0.5}, "hans": {"rows": 1, "tokens": 2, "cut": 0, "share": 0}}


# --- a reader's own -----------------------------------------------------------------------------

def test_a_readers_set_may_be_of_the_panel(own, tmp_path):  # noqa: F811
    write(texts(8, "side").assign(case="x"), tmp_path / "side.csv")
    side = {"file": "side.csv", "role": "panel", "columns": {**PAIR, "subcase": "case"}}
    path = own(ood={"hard": {"file": "hard.csv"}, "side": side})
    mine = registry.get(path)
    assert (mine.scored, mine.panel) == (["hard"], ["side"])
    items = dataset.load(mine, seed=0, n_train=0, n_eval=0, n_ood=1)
    assert (items["split"] == "side").sum() == 8, "a set of the panel is taken whole"
    with pytest.raises(StudyError, match="ood: every set has the role panel"):
        registry.get(own(ood={"side": side}))
    with pytest.raises(StudyError, match="ood.side.role"):
        registry.get(own(ood={"hard": {"file": "hard.csv"}, "side": side | {"role": "pannel"}}))


# --- it never enters the OOD score --------------------------------------------------------------

def two(right: float, panel: float, n: int = 100) -> pd.DataFrame:
    """Rows that are right so often, on ID and OOD alike, and on the panel."""
    parts = {"test": right, "hans": right, "cad_nli": panel, "monli": panel}
    return pd.concat([judged(np.arange(n) < share * n, guid=[f"{split}{i}" for i in range(n)], split=split, label=np.arange(n) % 2)
                      for split, share in parts.items()], ignore_index=True)


def test_the_panel_never_enters_the_ood_score():
    dense, small = two(0.9, 0.9), two(0.8, 0.1)
    without = [rows[rows["split"].isin(["test", "hans"])] for rows in (small, dense)]
    for one, other in ((measures.overall(small, MNLI, 50), measures.overall(without[0], MNLI, 50)),
                       (measures.compare(small, dense, MNLI, 50), measures.compare(*without, MNLI, 50))):
        pd.testing.assert_frame_equal(one, other)
    assert tables.ood_splits(MNLI) == ["hans"] and tables.ood_chance(MNLI) == 0.5
    here = place.Place(MNLI, tuple(tables.ood_splits(MNLI)), *[None] * 8)
    weights = here.score_weights(small, "ood")
    assert weights[small["split"] == "hans"].sum() == pytest.approx(1) and not weights[small["split"] != "hans"].any()
    assert here.split_weights(small, "ood")[small["split"] == "hans"].sum() == pytest.approx(1)
    both = {name: rows.assign(label_loyalty=rows["split"] != "monli", after_attack=np.nan) for name, rows in (("dense", dense), ("imp-70", small))}
    means = seeds.means({("mnli", 0): both}, n_boot=20).set_index(["model", "measure"])["value"]
    assert means["imp-70", "ood"] == 0.8 and means["imp-70", "gap_difference"] == 0 and means["imp-70", "loyalty_ood"] == 1


def test_tables_of_sets_show_the_panel_and_curves_do_not():
    judged_rows = {"dense": two(0.9, 0.7).assign(heuristic="h", subcase="s")}
    assert tables.scores(judged_rows, MNLI, 0, 20)["split"].tolist() == ["test", "hans", "cad_nli", "monli"]
    assert set(tables.by_heuristic(judged_rows, MNLI, 0, 20)["split"]) == {"hans", "cad_nli", "monli"}
    items = pd.DataFrame({"split": ["train"], "is_shortcut": pd.array([pd.NA], "boolean"), "subcase": [""]})
    assert tables.forgetting(judged_rows, items, MNLI, 0, 20)["n"].tolist() == [100]
    twice = judged_rows | {"imp-70": judged_rows["dense"]}
    assert tables.gains(twice, MNLI, [("imp-70", "dense")], 0, 20)["split"].tolist() == ["test", "hans", "cad_nli", "monli"]


def test_each_set_has_a_gate_and_none_of_the_panel_moves_that_of_the_score():
    table = gates.skill(MNLI, {k: two(0.9, 0.34) for k in range(5)}).set_index("of")
    assert list(table.index) == ["hans", "cad_nli", "monli"]
    assert table.loc["hans", "value"] == pytest.approx(0.9) and gates.without_skill(MNLI, table.reset_index()) == {}
    assert table.loc["cad_nli", "bound"] == pytest.approx(1 / 3) and table.loc["cad_nli", "word"] == gates.NO_SKILL


def test_unseen_is_told_by_its_role():
    assert registry.get("micro_nli").scored == ["ood"] and task(a=MNLI.ood["hans"], b=MNLI.ood["monli"]).scored == ["a"]


# --- claims of its own --------------------------------------------------------------------------

def claim(**changes) -> Claim:
    return Claim(**{"id": "T14", "claim": "It falls there.", "where": "here", "tasks": ["mnli"], "measure": "gap", "split": "cad_nli",
                    "models": ["imp-*"], "baselines": ["dense"], "direction": "above", "smallest_effect": 2.0, "published": [],
                    "beside": ["score"], "written": date(2026, 11, 28)} | changes)


def made(panel: float, dense: float = 0.8, sets=NAMES, task="mnli", **more):
    """Five seeds whose pruned model is as good as the dense one but on the panel."""
    def model(share, k):
        frame = rows({"dev": 0.95, "test": 0.95, "hans": 0.9, "ood": 0.9, "cad_nli": share + k / 200}, SIZES | dict.fromkeys(NAMES, 400))
        return frame[frame["split"].isin(sets)].reset_index(drop=True)

    return study({k: {"dense": model(dense, k), "imp-70": model(panel - k / 400, k)} for k in range(5)}, task, **more)


def test_a_claim_reads_its_set_of_the_panel_and_those_of_the_score_do_not():
    of = made(0.6)
    found = ledger.judged([claim(), claim(id="A3", measure="score", split="ood", direction="same", beside=[])], of).set_index("id")
    assert found["word"].tolist() == ["holds", "open"], "five alike are no proof"
    assert found.loc["T14", "ours"] == pytest.approx(20.5, abs=0.3) and found.loc["A3", "ours"] == 0
    assert "cad_nli gap between ID and OOD +20" in found.loc["T14", "finding"]
    beside = ledger.by_pair([claim()], of).set_index("measure")
    assert beside["split"].tolist() == ["cad_nli", "cad_nli"] and beside.loc["score", "estimate"] == pytest.approx(-beside.loc["gap", "estimate"])
    table = of.sets().set_index("set")
    assert table["role"].to_dict() == {"hans": "scored", "cad_nli": "panel"} and table["rows"].tolist() == [400, 400] and table["cut"].isna().all()


def test_a_set_without_skill_closes_its_own_claim_alone():
    found = ledger.judged([claim(), claim(id="A3", measure="score", split="ood", beside=[])], made(0.2, dense=0.33)).set_index("id")
    assert found.loc["T14", "word"] == gates.NO_SKILL and found.loc["A3", "word"] != gates.NO_SKILL


def test_without_predictions_of_the_panel_its_claims_are_not_measured():
    for of, why in ((made(0.6, sets=NAMES[:3]), "no predictions of cad_nli"), (made(0.6, sets=["dev", "test", "ood"], task="micro_nli"), "none of its tasks")):
        found = ledger.judged([claim()], of)
        assert found["word"].tolist() == ["not measured"] and why in found["finding"].item()
        assert ledger.by_pair([claim()], of).empty


def test_a_set_that_one_model_was_not_predicted_on_counts_for_none():
    of = made(0.6)
    of.runs.by_place["mnli", 3]["imp-70"] = SimpleNamespace(name="imp-70", record={}, predictions=lambda: pd.DataFrame({"split": NAMES[:3]}))
    assert set(of.runs.items("mnli", 0)["split"]) == set(NAMES[:3])
    assert ledger.judged([claim()], of)["word"].item() == "not measured"
    seed = made(0.6)
    seed.runs.runs["mnli", 2].items = seed.runs.runs["mnli", 2].items.query("split != 'cad_nli'")
    assert set(seed.runs.items("mnli", 0)["split"]) == set(NAMES[:3]), "all seeds have the same rows"


@pytest.mark.parametrize("changes, told", [
    ({"measure": "f_bias", "beside": []}, "belongs to the measures"), ({"beside": ["skill_kept"]}, "belongs to the measures"),
    ({"tasks": ["mnli", "fever"]}, "fever has no set cad_nli"), ({"published": ["a_compression"]}, "published"),
    ({"split": "cad"}, "split")])
def test_a_claim_that_asks_amiss_of_the_panel_is_refused(changes, told):
    with pytest.raises(ValidationError, match=told):
        claim(**changes)


def test_the_study_claims_something_of_the_panel_and_the_papers_do_not():
    of_panel = [one for one in declared.load() if one.is_of_panel]
    assert [one.id for one in of_panel] == ["T15", "T16"] and all(one.where.startswith("ours") for one in of_panel)
