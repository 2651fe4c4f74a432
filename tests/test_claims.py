from datetime import date

import numpy as np
import pandas as pd
import pytest
import yaml

from lib.analysis import measures
from lib.claims import contrasts, declared, printed
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
    counts = {"A": 23, "O": 9, "B": 5, "P": 6, "C": 12, "T": 16}  # A, B: the papers'; O, P, C, T: ours
    assert [c.id for c in written] == [f"{letter}{i}" for letter, n in counts.items() for i in range(1, n + 1)]
    assert all(c.where.startswith("ours") == (c.id[0] in "OPCT") for c in written)
    assert all(c.published == [] for c in written if c.id[0] in "BPCT"), "B has no table of these tasks"
    assert all(c.written <= (c.changed or c.written) for c in written)


GOOD = {"id": "A1", "claim": "It falls.", "where": "table", "tasks": ["mnli"], "measure": "gap", "models": ["imp-*"],
        "baselines": ["dense"], "direction": "below", "smallest_effect": 2.0, "published": [],
        "written": date(2026, 11, 21)}


@pytest.mark.parametrize("change, message", [
    ({"directon": "above"}, "unknown key 'directon'; did you mean 'direction'?"),
    ({"direction": "abve"}, "direction is 'abve'; did you mean 'above'?"),
    ({"measure": "fbias"}, "measure is 'fbias'; did you mean 'f_bias'?"),
    ({"tasks": ["mnlii"]}, "tasks.0 is 'mnlii'; did you mean 'mnli'?"),
    ({"smallest_effect": "2"}, "smallest_effect"),
    ({"smallest_effect": -1.0}, "smallest_effect"), ({"smallest_effect": 0.0}, "smallest_effect must be above 0, and 0 beside a threshold"),
    ({"threshold": 0.8}, "0 beside a threshold"), ({"written": "soon"}, "written"),
    ({"split": "ood"}, "split belongs to the measures score, label_loyalty,"),
    ({"measure": "after_attack", "split": "test"}, "split belongs to the measures"),
    ({"measure": "score"}, "these need it"), ({"measure": "hidden_flips"}, "these need it"),
    ({"measure": "label_loyalty", "split": "dev"}, "split is 'dev'"),
    ({"measure": "label_loyalti", "split": "ood"}, "did you mean 'label_loyalty'?"),
    ({"measure": "label_loyalty", "split": "ood", "published": ["a_compression"]}, "do not print"),
    ({"baselines": []}, "baselines must be named"), ({"measure": "bias_slope"}, "left empty for agreement, .*bias_slope"),
    ({"published": ["a_mitigatoin"]}, "a_mitigatoin.*did you mean 'a_mitigation'?"),
    ({"measure": "overconfidence", "published": ["a_analysis"]}, "do not print"),
    ({"measure": "f_bias", "micro": {"measure": "lost_fails", "smallest_effect": 5.0}}, "micro belongs to claims of the gap"),
    ({"micro": {"measure": "score", "smallest_effect": 5.0}}, "micro.measure must need no split"),
    ({"micro": {"measure": "lost_fail", "smallest_effect": 5.0}}, "micro.measure is 'lost_fail'; did you mean 'lost_fails'?"),
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


def named(written, claim, known):
    claim = next(one for one in written if one.id == claim)
    return contrasts.pairs(claim.models, claim.baselines, known, half=3)


@pytest.mark.parametrize("claim, expected", [
    ("C1", {("imp-70-after", "imp-70")}), ("C2", {("imp-60-after", "dense"), ("imp-70-after", "dense")}),
    ("C3", {("imp-70-after", "dense-after")}), ("C4", {("dense-after", "dense")}),
    ("C5", {("truncated-3-2x", "dense"), ("imp-70-2x", "dense")}), ("C6", {("truncated-3-2x", "dense-2x"), ("imp-70-2x", "dense-2x")}),
    ("C7", set()), ("C8", {("imp-40, imp-70", "")}), ("C9", {("imp-70 + rmc_one_run", "imp-70 + rmc")}),
    ("C10", {("imp-70 + rmc", "")}), *[(claim, {(m, "") for m in ("imp-40", "imp-70", "truncated-3-alternate")}) for claim in ("C11", "C12")],
])
def test_claims_of_the_evidence_find_their_models(written, claim, expected):
    assert set(named(written, claim, VARIANTS)) == expected


SECOND = ["dense", "dense, other seed", "imp-60", "imp-60 + distil", "imp-60 + distil + ptq8", "truncated-3", "truncated-3 + distil",
          "truncated-3 + pkd", "truncated-3 + tinybert", "scratch-3 + tinybert", "theseus-3", "theseus-3-constant", "heads-20", "heads-20 + ptq8",
          "dense + ptq8", "dense + qat8", "dense-qat", "dense + ptq4"]


@pytest.mark.parametrize("claim, expected", [
    *[(claim, {("imp-60 + distil + ptq8", "imp-60")}) for claim in ("B1", "B2", "B3", "B4")],
    ("B5", {(m, "dense") for m in ("imp-60", "truncated-3", "truncated-3 + distil", "theseus-3", "theseus-3-constant", "heads-20")}),
    ("P1", {("dense + ptq8", "dense, other seed")}),
    ("P2", {(m, "dense, other seed") for m in ("imp-60", "truncated-3", "theseus-3", "theseus-3-constant", "heads-20")}),
    ("P3", {(m, "dense") for m in ("imp-60", "truncated-3", "theseus-3", "theseus-3-constant", "heads-20", "dense + ptq8")}),
    ("P4", {("theseus-3", "truncated-3")}), ("P5", {("dense + qat8", "dense-qat")}),
    ("P6", {("truncated-3 + pkd", "truncated-3 + distil"), ("truncated-3 + tinybert", "truncated-3 + distil")}),
])
def test_claims_of_the_second_paper_find_their_models(written, claim, expected):
    assert set(named(written, claim, SECOND)) == expected


@pytest.mark.parametrize("claim, expected", [
    *[(claim, {(m, "dense") for m in ("imp-60", "truncated-3", "theseus-3", "theseus-3-constant", "heads-20")}) for claim in ("T1", "T4", "T5", "T9")],
    ("T8", {("imp-60", m) for m in ("truncated-3", "theseus-3", "heads-20")}),
    ("T12", {(m, "dense") for m in ("imp-60 + distil", "truncated-3 + distil")}),
    ("T13", {("imp-60 + distil", "imp-60"), ("truncated-3 + distil", "truncated-3")}),
])
def test_claims_of_what_is_forgotten_find_their_models(written, claim, expected):
    assert set(named(written, claim, SECOND)) == expected


def test_no_claim_takes_the_dense_model_of_another_seed_for_a_model(written):
    pairs = [(claim.id, *pair) for claim in written for pair in named(written, claim.id, SECOND)]
    assert "dense, other seed" not in {model for _, model, _ in pairs}
    assert {claim for claim, _, baseline in pairs if baseline == "dense, other seed"} == {"P1", "P2"}


def test_every_task_of_the_claims_is_a_task_of_the_study(written):
    for claim in written:
        assert all(registry.get(task) for task in claim.tasks if task != declared.ANY)


def test_a_claim_of_the_gap_is_decided_otherwise_in_the_micro_world_alone(written):
    by_id = {claim.id: claim for claim in written}
    here = by_id["A4"].on("micro_nli")
    assert (here.measure, here.smallest_effect, here.beside[:2]) == ("lost_fails", 5.0, ["gap", "lost_fails_odds"])
    assert by_id["A4"].on("mnli") == by_id["A4"] and by_id["A3"].on("micro_nli") == by_id["A3"]
    assert all(claim.micro and claim.micro.smallest_effect == 2.5 * claim.smallest_effect
               for claim in written if claim.measure == "gap" and not claim.is_of_panel), "no gap decides where it is algebra"


def test_our_claims_are_about_a_readers_own_task_too_where_they_need_no_other(written):
    own = {claim.id for claim in written if declared.applies(claim, "shop.yaml")}
    assert {"T1", "T5", "T14", "O3", "P1", "C5"} <= own and not own & {"A4", "B1", "T6", "T9", "O9", "C11"}
    assert all(claim.id in own or not declared.applies(claim, "qqp") for claim in written if claim.id[0] in "OPCT")
