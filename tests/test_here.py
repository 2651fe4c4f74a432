"""What a section found: sentences from this run's tables, and from those of committed runs."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.figures import here

TASK = "micro_nli"
FAR = {"IMP 40 %": "imp-40", "IMP 70 %": "imp-70"}


def ledger(seeds, pilot="", **words):
    rows = [{"id": claim, "task": TASK, "claim": f"Claim {claim} is so.", "word": word, "pilot": pilot, "seeds": seeds,
             "ours": np.nan if word == "not measured" else 2.5, "interval": "[1.0, 4.0]",
             "measured": "imp-40 against dense, ID score", "asked": "above 2",
             "caveat": "without sym1" if word == "holds" else "",
             "finding": "imp-40 against dense, ID score +2.5 points [1.0, 4.0]"} for claim, word in words.items()]
    return pd.DataFrame(rows)


def losses(seeds, planned, *models):
    return pd.DataFrame([{"task": TASK, "model": model, "seeds": seeds, "planned": planned, "id_loss": 0.5,
                          "id_loss_low": 0.1, "id_loss_high": 0.9, "ood_loss": 10.0, "ood_loss_low": 8.0,
                          "ood_loss_high": 12.0, "gate": ""} for model in models])


@pytest.fixture
def run(tmp_path):
    """A run whose committed fellows are a pilot of many seeds, one of enough and one of too few."""
    for name, of_losses, of_ledger in (
            ("wide", losses(9, 9, "imp-40", "imp-70"), ledger(9, "pilot", A1="open", A2="holds", A3="fails")),
            ("decides", losses(5, 16, "imp-40"), ledger(5, A1="holds", A2="not measured")),
            ("small", losses(2, 2, "imp-85"), ledger(2, A4="indication"))):
        folder = tmp_path / "outputs" / "reference" / name / "09_claims"
        folder.mkdir(parents=True)
        of_losses.to_csv(folder / "losses.csv", index=False)
        of_ledger.to_csv(folder / "ledger.csv", index=False)
        for table in ("lost_by_time", "mends"):
            pd.DataFrame(columns=["task", "split"]).to_csv(folder / f"{table}.csv", index=False)
    return SimpleNamespace(root=tmp_path, task=TASK)


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(here, "say", texts.append)
    return texts


def test_each_claim_is_told_by_the_run_that_decides_it(run, said):
    here.found(run, "imp-40 lost much.", "A1", "A2", "A4", "A9")
    first, blank, *claims = said[0].splitlines()
    assert first == "**Here:** imp-40 lost much." and not blank
    assert claims == [
        '- "Claim A1 is so" (`A1`) **holds**: imp-40 against dense, ID score +2.5 points [1.0, 4.0], asked: above 2 '
        "(5 of the 16 planned runs of `decides`; without sym1).",
        '- "Claim A2 is so" (`A2`) **holds**: imp-40 against dense, ID score +2.5 points [1.0, 4.0], asked: above 2 '
        "(9 runs of `wide`, a pilot; without sym1).",
        '- "Claim A4 is so" (`A4`) **indication**: imp-40 against dense, ID score +2.5 points [1.0, 4.0], asked: above 2 (2 runs of `small`).']


def test_models_are_told_by_the_first_run_of_enough_seeds_that_has_them(run, said):
    here.found(run, "So.", models=["imp-40", "imp-70", "imp-85"])
    assert said[0].splitlines()[2:] == [
        "- Points lost against dense, over 5 of the 16 planned runs of `decides`: IMP 40 % 0.5 [0.1, 0.9] ID and 10.0 [8.0, 12.0] OOD.",
        "- Points lost against dense, over 9 runs of `wide`, a pilot: IMP 70 % 0.5 [0.1, 0.9] ID and 10.0 [8.0, 12.0] OOD."]


def test_a_task_without_a_committed_run_gets_its_own_sentence_alone(run, said):
    run.task = "my_task"
    here.found(run, "So.", "A1", models=["imp-40"])
    here.summary(run, "A1")
    assert said == ["**Here:** So.\n", "No committed run asks these claims on this task."]


def test_a_summary_sorts_the_claims_by_their_words(run, said):
    here.summary(run, "A1", "A3", "A4")
    heads = [line for line in said[0].splitlines() if not line.startswith("  ")]
    assert heads == ["- **Firm** (5 of the 16 planned runs of `decides`):", "- **Refuted**: nothing.",
                     "- **Open** (2 runs of `small`):",
                     "- **Seen in a pilot, which decides nothing** (9 runs of `wide`, a pilot):"]
    assert ["`A1`" in line for line in said[0].splitlines()] == [False, True, False, False, False, False, False]
    here.summary(run, "A1")
    assert said[1].splitlines()[2:] == ["- **Refuted**: nothing.", "- **Open**: nothing."], "no pilot, no head of it"


def test_a_table_of_each_seed_comes_from_the_first_run_that_has_it(run):
    for name, seeds in (("small", (3, 4)), ("wide", (0, 1, 10))):
        for seed in seeds:
            folder = run.root / "outputs" / "reference" / name / TASK / f"seed{seed}" / "06_x"
            folder.mkdir(parents=True)
            pd.DataFrame({"value": [seed / 10]}).to_csv(folder / "rivals.csv", index=False)
    over, table = here.by_seed(run, "06_x/rivals.csv")
    assert over == "3 runs of `wide`, a pilot"
    assert sorted(zip(table["seed"], table["value"])) == [(0, 0.0), (1, 0.1), (10, 1.0)]
    (run.root / "outputs" / "reference" / "decides" / TASK / "seed0" / "06_x").mkdir(parents=True)
    (run.root / "outputs" / "reference" / "decides" / TASK / "seed0" / "06_x" / "rivals.csv").write_text("value\n")
    assert here.by_seed(run, "06_x/rivals.csv")[0] == over  # a run that has the file and no row of it is passed by
    over, table = here.by_seed(run, "06_x/none.csv")
    assert over == "" and table.empty


def relative(model, lost_id, lost_ood):
    return pd.DataFrame([{"model": model, "measure": name, "value": -v, "low": -v - 0.01, "high": -v + 0.01}
                         for name, v in (("id_difference", lost_id), ("ood_difference", lost_ood))])


def test_losses_turn_the_sign_of_differences_and_their_ends():
    table = pd.concat([relative("imp-40", 0.0, 0.02), relative("imp-70", 0.015, 0.2)])
    assert here.lost(table, ["dense", "imp-40", "imp-70"]) == (
        "Points lost against dense: IMP 40 % 0.0 [-1.0, 1.0] ID and 2.0 [1.0, 3.0] OOD; "
        "IMP 70 % 1.5 [0.5, 2.5] ID and 20.0 [19.0, 21.0] OOD.")
    assert here.lost(table, ["dense"]) == "No model stands beside the dense one."
    assert here.leaves(table, "ood_difference", FAR.values()) == "IMP 40 %"
    assert here.leaves(table, "id_difference", FAR.values()) == "IMP 70 %"
    assert here.leaves(table[table["model"] == "imp-40"], "id_difference", FAR.values()) == "none"


def test_rows_are_named_one_by_one_in_the_order_asked_for():
    table = pd.DataFrame({"model": ["imp-40", "imp-70"], "pair": ["a_b", "c"], "value": [0.1, 0.2], "low": [0.0, np.nan],
                          "high": [0.2, np.nan]})
    assert here.each(table, of=["imp-70", "imp-40"]) == "IMP 70 % 20.0, IMP 40 % 10.0 [0.0, 20.0]"
    assert here.each(table, "pair", digits=2, scale=1) == "a b 0.10 [0.00, 0.20], c 0.20"
    assert here.each(table, of=["dense"]) == "nothing to compare"
    assert here.each(table.assign(reason=["", "no interval"])) == "IMP 40 % 10.0 [0.0, 20.0], IMP 70 % 20.0 (no interval)"


def test_ends_name_the_largest_and_the_smallest():
    values = pd.Series([3.0, np.nan, -2.0], index=pd.MultiIndex.from_tuples([("a_b", ""), ("c", "d"), ("e", "f")]))
    assert here.ends(values) == ("a b (+3.0 points)", "e, f (-2.0 points)")
    assert here.ends(values, ".0f", " %") == ("a b (3 %)", "e, f (-2 %)")
    assert here.ends(values.iloc[1:2]) == ("nothing", "nothing")


@pytest.mark.parametrize("first, most, kept", [
    (["imp-70"], 2, ["dense", "imp-70"]), (["imp-70", "heads-*"], 3, ["dense", "imp-70", "heads-20"]),
    (["imp-99"], 3, ["dense", "imp-40", "imp-70"]), ([], 9, ["dense", "imp-40", "imp-70", "imp-85", "heads-20"])])
def test_few_takes_the_dense_model_and_those_asked_for_first(first, most, kept):
    assert here.few(["dense", "imp-40", "imp-70", "imp-85", "heads-20", "imp-40"], *first, most=most) == kept


def judged():
    """A ledger of a run of its own: two tasks, one pooled, a pilot, a claim of populations and one not measured."""
    parts = [ledger(5, A1="holds", A2="open", A3="not measured").assign(task=task) for task in (TASK, "fever", "these tasks")]
    of_populations = ledger(1, T14="indication").assign(finding="beyond that between two dense populations, +2.5 points")
    table = pd.concat([*parts, of_populations, ledger(5, A3="not measured").assign(task="")], ignore_index=True)
    return table.assign(word=table["word"].mask((table["id"] == "A1") & (table["task"] == "fever"), "fails"),
                        pilot=np.where(table["task"] == "fever", "pilot", ""))


def test_a_runs_own_ledger_tells_a_claim_once_and_then_each_task(said):
    here.by_ledger(judged(), "much was lost.", "A1", "A3", "T14", "A9")
    assert said[0].splitlines() == [
        "**Here:** much was lost.", "",
        '- "Claim A1 is so" (`A1`: imp-40 against dense, ID score) **holds** in micro_nli, +2.5 points [1.0, 4.0] '
        "(5 runs; without sym1); **fails** in fever, +2.5 points [1.0, 4.0] (5 runs, a pilot; without sym1).",
        '- "Claim T14 is so" (`T14`: imp-40 against dense, ID score) **indication** in micro_nli, +2.5 points [1.0, 4.0] '
        "(1 population)."]


def test_what_was_measured_stands_with_each_task_where_it_differs(said):
    table = judged()
    here.by_ledger(table.assign(measured=table["measured"].mask(table["task"] == "fever", "imp-70 against dense, ID score,")),
                   "much was lost.", "A1")
    assert said[0].splitlines()[2] == (
        '- "Claim A1 is so" (`A1`) **holds** in micro_nli, imp-40 against dense, ID score, +2.5 points [1.0, 4.0] (5 runs; '
        "without sym1); **fails** in fever, imp-70 against dense, ID score, +2.5 points [1.0, 4.0] (5 runs, a pilot; without sym1).")


def test_a_summary_of_a_runs_own_ledger_sorts_task_by_task_and_pilots_apart(said):
    table = pd.concat([judged(), ledger(5, A2="open").assign(task="qqp")], ignore_index=True)
    here.ledger_summary(table, "A1", "A2", "A3", "A9")
    assert said[0].splitlines() == [
        "- **Firm**:", '  - "Claim A1 is so" (`A1`) **holds** in micro_nli',
        "- **Refuted**: nothing.",
        "- **Open**:", '  - "Claim A2 is so" (`A2`) **open** in micro_nli and qqp',
        "- **Seen in a pilot, which decides nothing**:",
        '  - "Claim A1 is so" (`A1`) **fails** in fever', '  - "Claim A2 is so" (`A2`) **open** in fever']
