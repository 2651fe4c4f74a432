"""README's blocks: made from the ledger, and whatever is stale, unknown or typed by hand is told with its line."""

import shutil

import pandas as pd
import pytest

from lib.errors import StudyError
from lib.tools import findings
from lib.tools.statements import statement

ROWS = [("A3", "micro_nli", "OOD falls.", "holds", "imp-70 against dense, -5.3 points"),
        ("A3", "micro_facts", "OOD falls.", "not of that size", "imp-20 against dense, -0.4 points"),
        ("A8", "micro_nli", "It is biased.", "not measured", "this profile has no *minilm* or *distil*"),
        ("B1", "micro_nli", "Combining helps.", "open", "+1.2 points"),
        ("O4", "micro_nli", "RMC wins.", "holds", "+9.5 points"),
        ("P1", "micro_nli", "Int8 is loyal.", "holds", "+9.3 points"),
        ("O9", "", "It is found.", "not measured", "this profile has none of its tasks")]
PROSE = "# Study\n\nTwo commands, 20 minutes.\n\n## What was found\n\n{}\n\n## Next\n\nIn 2 cores.\n"


MEASURED = "imp-70 against dense, OOD score, asked: below -2"


@pytest.fixture
def reference(tmp_path):
    folder = tmp_path / "reference" / "micro" / "09_claims"
    folder.mkdir(parents=True)
    ledger = pd.DataFrame(ROWS, columns=["id", "task", "claim", "word", "finding"])
    ledger.assign(pilot="", measured="imp-70 against dense, OOD score", asked="below -2").to_csv(folder / "ledger.csv", index=False)
    pd.DataFrame({"task": ["micro_nli", "micro_nli", "micro_facts"], "model": ["dense", "imp-70 + rmc", "dense"],
                  "test": [0.987, 0.97, 0.9], "test_low": [0.98, 0.96, 0.8], "test_high": [0.99, 0.98, 1.0],
                  "bytes": [90868000.0, 90868000.0, 5.0], "ms": [3.5586, 2.2, 1.0], "seeds": [5, 5, 5],
                  "note": ["", "one path", ""]}).to_csv(folder / "over_seeds.csv", index=False)
    pd.DataFrame({"model": ["dense"], "value": [-0.0001], "low": [-0.02], "high": [0.03]}).to_csv(
        folder / "scores.csv", index=False)
    return tmp_path / "reference"


def change(reference, old, new):
    path = reference / "micro" / "09_claims" / "ledger.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_claim_says_its_own_text_first_then_word_and_evidence(reference):
    assert statement("micro A3 micro_nli", reference) == (
        "OOD falls (A3): **holds** in micro_nli (`micro`): imp-70 against dense, -5.3 points.")


def test_a_word_of_the_pilot_is_called_so(reference):
    change(reference, '-5.3 points",', '-5.3 points",pilot')
    assert "**holds** in micro_nli (`micro`, pilot): imp-70" in statement("micro A3 micro_nli", reference)


def test_tasks_share_the_text_of_their_claim_and_may_come_from_another_profile(reference):
    both = statement("micro A3 micro_nli micro_facts", reference)
    assert both == statement("micro A3", reference)
    assert both.count("OOD falls") == 1
    assert both.endswith("-5.3 points. **Not of that size** in micro_facts (`micro`): imp-20 against dense, -0.4 points.")
    (reference / "micro").rename(reference / "real")
    assert "in micro_facts (`real`): imp-20" in statement("real A3 real/micro_facts", reference)


def test_a_claim_without_a_task_and_patterns_with_stars_read_well(reference):
    assert statement("micro O9", reference).endswith("in `micro`: this profile has none of its tasks.")
    assert statement("micro A8 micro_nli", reference).endswith(r"no \*minilm\* or \*distil\*.")


def test_claims_stand_beside_each_other_task_by_task(reference):
    change(reference, "-5.3 points", "OOD score -5.3 points [-7.0, -3.1] over 5 seeds")
    change(reference, "-0.4 points", "OOD score undefined (too few) over 5 seeds")
    assert statement("micro claims A3; O4 tasks=micro_nli", reference).splitlines() == [
        "| claim | measured | micro_nli |",
        "| --- | --- | --- |",
        f"| OOD falls. (A3) | {MEASURED} | **holds** -5.3 points [-7.0, -3.1] |",
        f"| RMC wins. (O4) | {MEASURED} | holds |"]
    assert statement("micro claims A3 tasks=micro_nli; micro/micro_facts", reference).splitlines()[::2] == [
        "| claim | measured | micro_nli | micro_facts |",
        f"| OOD falls. (A3) | {MEASURED} | **holds** -5.3 points [-7.0, -3.1] | not of that size |"]
    assert statement("micro claims A8 tasks=micro_nli", reference).endswith(f"| It is biased. (A8) | {MEASURED} | not measured |")
    assert statement("micro claims A8 tasks=micro_facts; micro_nli", reference).endswith(
        f"| It is biased. (A8) | {MEASURED} | not claimed | not measured |")


def test_of_two_runs_the_claims_whose_word_differs_are_set_side_by_side(reference):
    shutil.copytree(reference / "micro", reference / "pilot")
    change(reference, "OOD falls.,holds,", "OOD falls.,open,")
    change(reference, "It is biased.,not measured", "It is biased.,holds")
    change(reference, "-5.3 points", "OOD score -5.3 points [-7.0, 3.1] over 5 seeds")
    assert statement("micro against pilot", reference).splitlines() == [
        "| claim | measured, in `micro` | task | `pilot` | `micro` |",
        "| --- | --- | --- | --- | --- |",
        f"| OOD falls. (A3) | {MEASURED} | micro_nli | holds | **open** -5.3 points [-7.0, 3.1] |",
        "| the other 4 that both measured |  |  | the same word | the same word |"]
    assert statement("micro against pilot tasks=micro_facts", reference).splitlines()[2:] == [
        "| all 1 that both measured |  |  | the same word | the same word |"]
    with pytest.raises(StudyError, match="micro and pilot have measured no claim"):
        statement("micro against pilot tasks=fever", reference)


def test_the_answer_is_told_from_a_runs_tables_and_of_chosen_tasks(reference):
    folder = reference / "micro" / "09_claims"
    ledger = pd.read_csv(folder / "ledger.csv").assign(ours=1.5, interval="[1.0, 2.0]")
    ledger.to_csv(folder / "ledger.csv", index=False)
    pd.DataFrame({"task": ["micro_nli"], "gate": [""], "model": ["imp-70"], "id_loss": [2.0], "id_loss_low": [1.0], "id_loss_high": [3.0],
                  "ood_loss": [8.0], "ood_loss_low": [7.0], "ood_loss_high": [9.0], "seeds": [5], "planned": [5], "learned": [True],
                  "dense_id": [95.0], "dense_ood": [90.0], "chance": [50.0]}).to_csv(
        folder / "losses.csv", index=False)
    pd.DataFrame(columns=["task", "split", "learned_at", "model", "value", "low", "high"]).to_csv(folder / "lost_by_time.csv", index=False)
    pd.DataFrame(columns=["task", "base", "mend", "kind", "value", "low", "high", "seeds", "cost"]).to_csv(folder / "mends.csv", index=False)
    made = statement("micro answer", reference)
    assert "5 in micro_nli" in made
    assert "| 70 % of the encoder's weights (`imp-70`) | 2.0 [1.0, 3.0] ID<br>8.0 [7.0, 9.0] OOD |" in made
    assert made.startswith(statement("micro headline", reference)) and "stays open" not in statement("micro headline", reference)
    assert "micro_facts" in made and "micro_facts" not in statement("micro answer tasks=micro_nli", reference)
    text = PROSE.format("<!-- found: micro answer tasks=micro_nli -->\n<!-- end -->")
    assert findings.faults(findings.rewrite(text, reference), reference) == []
    with pytest.raises(StudyError, match="no task 'micro_nil'; did you mean 'micro_nli'"):
        statement("micro answer tasks=micro_nil", reference)


def test_a_table_has_intervals_units_and_only_the_keys_that_differ(reference):
    asked = "task=micro_nli model=imp-70 + rmc; dense columns=test %; bytes MB; ms; seeds; note"
    assert statement(f"micro csv 09_claims/over_seeds.csv {asked}", reference).splitlines() == [
        "| model | ID (%) | bytes (MB) | ms | seeds | note |",
        "| --- | --- | --- | --- | --- | --- |",
        "| imp-70 + rmc | 97.0 [96.0, 98.0] | 90.9 | 2.20 | 5 | one path |",
        "| dense | 98.7 [98.0, 99.0] | 90.9 | 3.56 | 5 |  |"]
    assert statement("micro csv 09_claims/scores.csv model=dense columns=value %", reference).endswith(
        "| dense | 0.0 [-2.0, 3.0] |")
    assert "| 90,868,000 |" in statement(
        "micro csv 09_claims/over_seeds.csv model=dense task=micro_nli columns=bytes", reference)


def test_rewriting_fills_every_block_keeps_all_else_and_is_idempotent(reference):
    text = PROSE.format("- Lost? <!-- found: micro A3 micro_nli --><!-- end --> And\n"
                        "  won? <!-- found: micro B1 -->stale<!-- end -->.\n\n"
                        "<!-- found: micro claims A3 tasks=micro_nli -->\n<!-- end -->\n\nMore.")
    once = findings.rewrite(text, reference)
    assert "stale" not in once and "-5.3 points.<!-- end --> And\n  won? <!-- found: micro B1 -->Combining helps (B1)" in once
    assert "tasks=micro_nli -->\n\n| claim |" in once and " |\n\n<!-- end -->\n\nMore." in once
    assert findings.rewrite(once, reference) == once and findings.faults(once, reference) == []
    assert once.startswith(text[:text.index("<!-- end")]) and once.endswith("More.\n\n## Next\n\nIn 2 cores.\n")


def test_check_names_the_stale_block_alone_with_its_line_and_writes_nothing(reference, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(PROSE.format("Lost? <!-- found: micro A3 micro_nli --><!-- end -->\n\n"
                                   "Won? <!-- found: micro B1 --><!-- end -->"))
    findings.write_or_check([], (readme,), reference)
    findings.write_or_check(["--check"], (readme,), reference)
    change(reference, "+1.2 points", "+1.3 points")
    before = readme.read_text()
    with pytest.raises(SystemExit) as stopped:
        findings.write_or_check(["--check"], (readme,), reference)
    assert stopped.value.code == 1 and readme.read_text() == before
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith("README.md: line 9: 'micro B1' is not what outputs/reference says")
    findings.write_or_check([], (readme,), reference)
    assert "+1.3 points" in readme.read_text()


@pytest.mark.parametrize("asked, told", [
    ("mikro A3 micro_nli", "a profile 'mikro'; did you mean 'micro'"),
    ("micro A33 micro_nli", "no claim 'A33'; did you mean 'A3'"),
    ("micro anser", "no claim 'anser'; did you mean 'answer'"),
    ("micro A3 micro_fact", "no task 'micro_fact' of claim A3; did you mean 'micro_facts'"),
    ("micro A3 mikro/micro_nli", "a profile 'mikro'; did you mean 'micro'"),
    ("micro", "must read PROFILE CLAIM TASK"),
    ("micro claims A3", "must read PROFILE claims CLAIM"),
    ("micro claims A33 tasks=micro_nli", "no claim 'A33'; did you mean 'A3'"),
    ("micro claims A8 tasks=micro_facts", "claim A8 is about none of micro_facts"),
    ("micro claims A3 tasks=micro_nil", "no task 'micro_nil' of claim A3; did you mean 'micro_nli'"),
    ("micro csv over_seeds.csv model=dense columns=test", "did you mean '09_claims/over_seeds.csv'"),
    ("micro csv 09_claims/over_seeds.csv modle=dense columns=test", "no column 'modle'; did you mean 'model'"),
    ("micro csv 09_claims/over_seeds.csv model=dense columns=tset %", "no column 'tset'; did you mean 'test'"),
    ("micro csv 09_claims/over_seeds.csv model=imp-70 columns=test", "model 'imp-70'; did you mean 'imp-70 + rmc'"),
    ("micro csv 09_claims/over_seeds.csv model=dense columns=test", "has 2 rows with"),
    ("micro csv 09_claims/over_seeds.csv model=dense columns=test percent", "unit 'percent' is unknown"),
    ("micro csv 09_claims/over_seeds.csv model=dense", "must read PROFILE csv FILE"),
])
def test_unknown_names_fail_with_the_line_and_the_nearest(reference, asked, told):
    text = PROSE.format(f"See <!-- found: micro B1 --><!-- end -->\n\nand <!-- found: {asked} --><!-- end -->")
    for call in (findings.rewrite, findings.faults):
        with pytest.raises(StudyError) as error:
            call(text, reference)
        assert str(error.value).startswith("line 9: ") and told in str(error.value)


def test_an_unknown_name_ends_the_command_and_leaves_the_file(reference, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(PROSE.format("See <!-- found: mikro B1 --><!-- end -->"))
    with pytest.raises(SystemExit) as stopped:
        findings.write_or_check([], (readme,), reference)
    assert stopped.value.code == 1 and "README.md: line 7:" in capsys.readouterr().err
    assert readme.read_text() == PROSE.format("See <!-- found: mikro B1 --><!-- end -->")


@pytest.mark.parametrize("body, line, told", [
    ("See <!-- found: micro B1 -->x", 7, "has no <!-- end -->"),
    ("See <!-- found: micro B1 -->x\n\n<!-- found: micro A3 --><!-- end -->", 7, "has no <!-- end -->"),
    ("See\nx<!-- end -->", 8, "before it"),
    ("See\n- <!-- found: micro B1 --><!-- end -->", 8, "put a word before"),
    ("See <!-- found: micro claims A3 tasks=micro_nli --><!-- end -->", 7, "begin a line"),
])
def test_marks_that_cannot_work_are_refused_with_their_line(reference, body, line, told):
    with pytest.raises(StudyError, match=f"^line {line}: .*{told}"):
        findings.rewrite(PROSE.format(body), reference)


def test_digits_outside_blocks_fail_in_the_section_alone(reference):
    body = "It loses 7.6 points.\nSee <!-- found: micro B1 --><!-- end --> and 84%\n\nof ½, 3 [rows 9](x)."
    text = findings.rewrite(PROSE.format(body), reference)
    assert [fault.split(" is typed")[0] for fault in findings.faults(text, reference)] == [
        "line 7: '7.6'", "line 8: '84%'", "line 10: '3'", "line 10: '9'"]


def test_names_code_and_addresses_may_hold_digits(reference):
    allowed = PROSE.format("[claims](outputs/micro/09_claims.ipynb), `seed 0`, ``a`1``, <https://arxiv.org/abs/2110.08419>\n"
                           "IMP 40, imp-70-after, truncated-3-alternate, dense-2x, rmc-30, int8, fp32, ptq8, A3.")
    assert findings.faults(allowed, reference) == []
    for typed in ("IMP 40.5", "imp-70.5", "imp-70x", "A100", "int7", "x-A3"):
        assert len(findings.faults(PROSE.format(typed), reference)) == 1, typed


def test_a_readme_without_the_section_is_refused(reference):
    with pytest.raises(StudyError, match="no section '## What was found'"):
        findings.faults("# Study\n\n## What we found\n\n84.2\n", reference)


def test_the_projects_own_documents_say_what_the_reference_says():
    for document in findings.DOCUMENTS:
        assert findings.faults(document.read_text(encoding="utf-8")) == [], document
