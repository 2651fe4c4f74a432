"""The answer in sentences: every number and word comes from the tables, and what they do not hold is left out or named."""

import numpy as np
import pandas as pd
import pytest

from lib.analysis.forecast import ALL
from lib.figures import story
from lib.names import OTHER_DENSE

WORDS = {"A3": "holds", "A4": "holds, size open", "A7": "open", "A20": "reversed", "B1": "no such effect", "T2": "holds", "T4": "open",
         "T5": "holds", "O4": "open", "C5": "no such effect", "C6": "fails", "T6": "not measured"}


def losses(task="micro_nli", gate="", learned=True, seeds=5):
    models = ["dense-0.25x", "truncated-3", "imp-40", "imp-70", "imp-70 + rmc", "dense + ptq8"]
    n = np.arange(6.0)
    return pd.DataFrame({"task": task, "gate": gate, "model": models, "id_loss": n, "id_loss_low": n - 1, "id_loss_high": n + 1,
                         "ood_loss": 10 * n, "ood_loss_low": 9 * n, "ood_loss_high": 11 * n, "seeds": seeds, "planned": 16, "learned": learned,
                         "dense_id": 95.0, "dense_ood": 90.0, "chance": 50.0})


def ledger(task="micro_nli", words=None):
    words = WORDS if words is None else words
    return pd.DataFrame({"id": list(words), "task": task, "word": list(words.values()), "interval": "[-0.5, 1.5]",
                         "ours": 0.5, "pilot": "", "caveat": ""})


def by_time(task="micro_nli", null=True):
    rows = [(task, "ood", at, model, value, value - 0.1, value + 0.1) for at, model, value in (
        (0.25, ALL, 0.1), (1.0, ALL, 0.5), *(((0.25, OTHER_DENSE, 0.1), (1.0, OTHER_DENSE, 0.3)) if null else ()))]
    return pd.DataFrame(rows, columns=["task", "split", "learned_at", "model", "value", "low", "high"])


def mends(lows=(-0.01, 0.02, 0.05), seeds=16):
    return pd.DataFrame({"task": "micro_nli", "base": "imp-70", "mend": ["20 more rows", "imp-60", "imp-70-2x"],
                         "kind": ["rows", "weights", "steps"], "rows": [20, 0, 0], "value": [0.01, 0.06, 0.09], "low": lows,
                         "high": 0.2, "seeds": seeds, "cost": [1.0, 1.0, 2.0]})


def told(*runs) -> dict[str, str]:
    """What the story says under each head."""
    said = story.tell(list(runs))
    return {line.split("**")[1].rstrip(".?"): line.split("** ")[1] for line in said.splitlines() if line.startswith("- **")}


def run(**changes) -> story.Run:
    return story.Run(**{"losses": losses(), "ledger": ledger(), "by_time": by_time(), "mends": mends()} | changes)


def test_the_headline_is_a_table_of_costs_and_a_line_a_question():
    said = story.headline([run()])
    assert story.tell([run()]).startswith(said + "\n- **Where does the loss lie?**")
    table, ends, lines = said.split("\n\n")
    assert table.splitlines()[0] == (
        "| points lost without | micro_nli: dense 95.0 ID, 90.0 OOD (chance 50) |") and "intervals over training runs" in ends
    late, equal, more, papers, sure = (line.split("?** ")[1] for line in lines.splitlines())
    assert "(`T2`): *holds* in micro_nli. " in late and late.endswith("(`T4`): *open* in micro_nli.")
    assert equal.endswith("+0.5 points [-0.5, 1.5], no more is lost (*holds*) in micro_nli.")
    assert "(`C5`): *no such effect* in micro_nli (+0.5 points [-0.5, 1.5]). " in more and "(`C6`): *fails* in" in more
    assert "Du et al." in papers and "training runs" in sure


def test_tasks_of_one_word_stand_together():
    both = ledger(words={"T2": "holds"}), ledger("fever", words={"T2": "holds"}), ledger("qqp", words={"T2": "open"})
    said = told(run(ledger=pd.concat(both)))["Which rows go"]
    assert said.endswith("*holds* in micro_nli and fever; *open* in qqp.")


@pytest.mark.parametrize("word, caveat, told", [
    ("fails", "", "+0.5 points [-0.5, 1.5], more is lost (*fails*) in"), ("not measured", "", None),
    ("open", "too many models lie beyond", "+0.5 points [-0.5, 1.5] (*open*: too many models lie beyond) in"),
    ("no skill to lose", "", "+0.5 points [-0.5, 1.5] (*no skill to lose*) in")])
def test_the_headline_follows_the_ledgers_word_and_says_its_reason(word, caveat, told):
    said = story.headline([run(ledger=ledger(words={"T5": word, "T2": "open"}).assign(caveat=caveat))])
    assert ("trained for fewer steps" in said) == (told is not None) and (told or "*open*") in said


def test_a_gates_word_is_no_word_of_which_rows_go():
    assert "Which rows go" not in told(run(ledger=ledger(words={"T2": "no skill to lose"})))


def test_what_it_rests_on_names_runs_that_are_missing_and_pilots():
    assert "each model: 16 in micro_nli." in told(run(losses=losses(seeds=16)))["How sure is that"]
    assert "6 in micro_nli (of 16 planned: its words are interim)" in told(run(losses=losses(seeds=6)))["How sure is that"]
    pilot = run(losses=losses(seeds=16), ledger=ledger().assign(pilot="pilot"))
    assert "16 in micro_nli (a pilot)" in told(pilot)["How sure is that"]


def cells(said):
    """Model -> the cells of its row in the table of costs."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    return {name.partition("`")[2].strip("`)"): of for name, *of in rows[2:]}


def test_the_cost_of_each_kind_has_its_interval_and_controls_are_not_told():
    assert cells(story.headline([run()])) == {
        "truncated-3": ["1.0 [0.0, 2.0] ID<br>10.0 [9.0, 11.0] OOD"], "imp-70": ["3.0 [2.0, 4.0] ID<br>30.0 [27.0, 33.0] OOD"],
        "imp-40": ["2.0 [1.0, 3.0] ID<br>20.0 [18.0, 22.0] OOD"],
        "dense + ptq8": ["5.0 [4.0, 6.0] ID<br>50.0 [45.0, 55.0] OOD, to chance"]}


def test_where_nothing_was_to_lose_or_nothing_learned_no_number_stands():
    both = pd.concat([losses(gate="no skill to lose"), losses("fever", learned=False).iloc[:4]])
    said = cells(story.headline([run(losses=both)]))
    assert said["imp-70"] == ["no skill to lose", "did not learn"]
    assert said["dense + ptq8"] == ["no skill to lose", ""]
    assert "points lost" not in story.headline([run(losses=losses().iloc[:1])]), "no compression, no table"


def test_the_loss_lies_where_the_dense_run_learned_late_beside_its_null():
    said = told(run())["Where does the loss lie"]
    assert "50 [40, 60] % (30 [20, 40] %) of those learned last and 10 [0, 20] % (10 [0, 20] %) of those learned first" in said
    assert "`T6`" not in said, "what was not measured has no word"
    asked = told(run(ledger=ledger(words={"T6": "holds"})))["Where does the loss lie"]
    assert "That the loss lies where the shortcut fails (`T6`): *holds* in micro_nli." in asked
    alone = told(run(by_time=by_time(null=False)))["Where does the loss lie"]
    assert "50 [40, 60] % of those learned last" in alone
    assert "Where does the loss lie" not in told(run(by_time=by_time().iloc[:0]))
    assert "Where does the loss lie" not in told(run(losses=losses(gate="no skill to lose"))), "nothing was there to lose"


def test_the_papers_claims_are_counted_by_kind_of_word_and_pooled_ones_never():
    said = told(run(ledger=pd.concat([ledger(), ledger("these tasks")])))["Do the papers' claims hold"]
    assert "Du et al.: of 4 in micro_nli 1 held, 1 held, size open or small, 1 failed or reversed, 1 open" in said
    assert "Xu et al.: of 1 in micro_nli 1 surely smaller" in said and "these tasks" not in said


def test_the_cheapest_sure_mend_is_named_and_without_one_that_is_said():
    said = told(run())["What mends it"]
    assert "the cheapest sure mend of IMP 70 % is `imp-60`, 6.0 [2.0, 20.0] OOD points for 1 dense trainings" in said
    assert "indication" not in said and "(`A20`): *reversed*" in said
    assert "no mend of IMP 70 % is sure to help, `imp-70-2x` gave most: 9.0" in told(run(mends=mends([-1, -1, -1])))["What mends it"]
    assert "(an indication: 3 runs)" in told(run(mends=mends(seeds=3)))["What mends it"]


def test_several_runs_stand_beside_each_other_and_tasks_can_be_chosen():
    other = run(losses=losses("fever"), ledger=ledger("fever"), by_time=by_time("fever"), mends=mends().iloc[:0])
    both = told(run(), other)
    assert all("micro_nli" in said and "fever" in said for head, said in both.items() if head != "What mends it")
    assert "micro_nli" not in story.tell([run().of(["fever"]), other.of(["fever"])])


def test_what_stays_open_counts_what_has_no_verdict():
    assert told(run())["What stays open"] == "Claims without a verdict: 3 open, 1 not measured of 12 in micro_nli."


def test_a_run_of_few_seeds_stands_beside_the_largest_that_has_its_task():
    said = story.few_seeds(losses(seeds=1), {"small": losses(seeds=5), "large": losses(seeds=16), "other": losses("fever", seeds=30)})
    assert "1 training run here" in said and "16 runs of `large`" in said and "small" not in said
    row = next(line for line in said.splitlines() if line.startswith("| IMP 70 %"))
    sd = 3 * np.sqrt(16) / 2.13145  # half the interval 27..33, by t of 15 degrees of freedom
    assert row.endswith(f"±{1.95996 * sd:.1f} |") and "3.0 [2.0, 4.0]" in row
    assert "| from" not in said and "RMC" not in said


@pytest.mark.parametrize("others", [{}, {"other": losses("fever")}, {"few": losses(seeds=3)}])
def test_without_a_larger_run_only_the_warning_stands(others):
    said = story.few_seeds(losses(seeds=2), others)
    assert "2 training runs here" in said and "|" not in said


def test_a_run_of_enough_seeds_needs_no_warning():
    assert story.few_seeds(losses(seeds=5), {"large": losses(seeds=16)}) == ""


def test_questions_are_answered_by_the_words_of_their_claims_task_by_task():
    other = ledger("fever", {"A3": "open", "A7": "holds"})
    said = story.answers(pd.concat([ledger(), other, ledger("these tasks")]), {"Is it hidden?": "A3 A4 A7", "Where?": "T6"})
    assert said.splitlines() == [
        "| question | micro_nli | fever |", "| --- | --- | --- |",
        "| Is it hidden? | `A3` *holds*; `A4` *holds, size open*; `A7` *open* | `A3` *open*; `A7` *holds* |",
        "| Where? | not measured | not measured |"]


def test_names_are_listed_as_people_write_them():
    assert [story.listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
