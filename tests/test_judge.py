"""The command that judges compressed models by what people hand in: verdicts, exit codes, and what it refuses."""
import dataclasses
import json
import os
import re
import shutil

import jsonschema
import numpy as np
import pandas as pd
import pytest

from lib import store
from lib.errors import StudyError
from lib.files import ROOT
from lib.params import notebook
from lib.tasks import handed
from lib.tools import judge
from lib.trials import judging, sheets

CLASSES = ("no", "yes")


def frame(n, split, seed, classes=CLASSES):
    """Labelled rows, each class as often."""
    label = np.resize(classes, n)
    return pd.DataFrame({"guid": [f"{split}-{i}" for i in range(n)], "label": label, "text_a": [f"{split} a {seed} {i}" for i in range(n)],
                         "text_b": [f"b {i}" for i in range(n)]})


def scores(rows, right, seed=0, classes=CLASSES):
    """Probabilities of a model that is right on the first `right` share of each class."""
    rng, out = np.random.default_rng(seed), []
    for name, part in rows.groupby("label", sort=False):
        wrong = np.arange(len(part)) >= round(right * len(part))
        at = (classes.index(name) + wrong) % len(classes)
        sure = rng.uniform(0.6, 0.95, len(part))
        p = np.full((len(part), len(classes)), 0.0)
        p += ((1 - sure) / (len(classes) - 1))[:, None]
        p[np.arange(len(part)), at] = sure
        out.append(pd.DataFrame(p, columns=list(classes)).assign(guid=part["guid"].to_numpy()))
    return pd.concat(out, ignore_index=True)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """400 ID rows and 400 OOD rows; a parent, and a model that lost OOD skill alone."""
    monkeypatch.chdir(tmp_path)
    sets = {"id": frame(400, "id", 0), "ood": frame(400, "ood", 1)}
    for name, rows in sets.items():
        rows.to_csv(f"{name}.csv", index=False)
    for name, shares in {"parent": (0.95, 0.85), "model": (0.94, 0.65), "same": (0.95, 0.85), "again": (0.94, 0.84)}.items():
        write(pd.concat([scores(rows, share, len(name)) for rows, share in zip(sets.values(), shares)]), f"{name}.csv")
    return tmp_path


def write(table, name):
    table.to_csv(name, index=False)


def run(capsys, line):
    """Exit code, stdout, stderr of a command line."""
    status = judge.main_of(line.split() if isinstance(line, str) else line)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_loss_that_both_scores_share_is_said_where_nothing_more_was_forgotten(here, capsys):
    sets = [pd.read_csv(f"{name}.csv") for name in ("id", "ood")]
    write(pd.concat([scores(rows, share, 9) for rows, share in zip(sets, (0.75, 0.65))]), "weak.csv")
    said = run(capsys, f"{FILES} --model weak.csv")[1]
    assert re.search(r"in distribution it lost 20\.0 \[[\d., ]+\] points, which the ID score does show", said)
    assert "which the ID score does show" not in run(capsys, f"{FILES} --model model.csv")[1]


@pytest.mark.parametrize("as_written", [int, float])
def test_whole_number_predictions_are_said_to_be_places(here, capsys, as_written):
    table = pd.read_csv("same.csv")
    write(pd.DataFrame({"guid": table["guid"], "prediction": (table["yes"] > 0.5).astype(as_written)}), "hard.csv")
    status, said, _ = run(capsys, f"{FILES} --model hard.csv")
    assert "whole numbers, read as places among the classes: 0 no, 1 yes" in said and status == 0


FILES = "--split id=id.csv --split ood=ood.csv --parent parent.csv"


SCHEMA = json.loads((ROOT / "notebooks" / "book" / "verdict.schema.json").read_text())


def verdict_of(folder="out"):
    """What was written, held to its schema."""
    found = json.loads(open(f"{folder}/verdict.json").read())
    jsonschema.validate(found, SCHEMA)
    return found


# ---- verdicts and exit codes

def test_a_model_that_lost_ood_skill_alone_forgot_more_than_its_id_score_shows(here, capsys):
    status, out, err = run(capsys, f"{FILES} --model model.csv --out out")
    assert status == 0 and err == "" and len([line for line in out.splitlines() if not line.startswith(("  ", "written"))]) == 10
    of = verdict_of()["models"][0]
    assert of["verdict"] == "forgot more" and of["reasons"] == [] and verdict_of()["rows"] == {"id": 400, "ood": 400}
    assert of["scores"]["ood"]["difference"]["value"] == pytest.approx(-0.2) and of["scores"]["gap"]["difference"]["low"] > 0.1
    assert of["scores"]["id"]["parent"]["value"] == pytest.approx(0.95)
    assert of["scores"]["skill_kept"]["value"] == pytest.approx(0.15 / 0.35, abs=1e-3)
    assert of["changed"]["all"]["value"] == pytest.approx(of["worse"]["all"]["value"] + of["better"]["all"]["value"])
    assert of["kl"]["id"]["value"] > 0 and of["null"] is None


def test_the_same_answers_forgot_no_more_and_a_second_training_is_the_null(here, capsys):
    status, out, _ = run(capsys, f"{FILES} --model same.csv --null again.csv --out out")
    of = verdict_of()["models"][0]
    assert status == 0 and of["verdict"] == "forgot no more" and "the parent trained once more changes" in out
    assert of["null"]["score"]["ood"]["difference"]["value"] == pytest.approx(-0.01)
    assert of["null"]["changed"]["all"]["value"] == pytest.approx(0.01)


def test_several_models_are_judged_at_once(here, capsys):
    status, out, _ = run(capsys, [*FILES.split(), "--model", "model.csv", "--model", "same.csv", "--out", "out", "--fail-if", "ood_drop > 2"])
    assert status == 1 and [of["verdict"] for of in verdict_of()["models"]] == ["forgot more", "forgot no more"]
    told = verdict_of()["conditions"][0]
    assert told["met_by"] == ["model"] and told["on"] == "interval" and told["condition"] == "ood_drop > 2 points"
    assert "fail-if    ood_drop > 2 points: met by model" in out and verdict_of()["exit"] == 1


@pytest.mark.parametrize("condition, on, status", [
    ("ood_drop > 2", "interval", 1), ("ood_drop > 19", "interval", 0), ("ood_drop > 19", "estimate", 1), ("id_drop > 2", "interval", 0),
    ("id_drop > 0.5", "estimate", 1), ("gap > 10", "interval", 1), ("ood_drop > 90 or changed > 5%", "interval", 1), ("changed > 0.05", "interval", 1),
    ("changed > 50", "interval", 0), ("loyalty < 0.99", "interval", 1), ("kl > 0.01", "interval", 1), ("kl < 0.01", "estimate", 0)])
def test_a_build_fails_on_a_condition_at_the_near_end_of_its_interval(here, capsys, condition, on, status):
    assert run(capsys, [*FILES.split(), "--model", "model.csv", "--fail-if", condition, "--on", on])[0] == status


def test_labels_without_scores_are_judged_without_kl(here, capsys):
    table = pd.read_csv("model.csv")
    write(pd.DataFrame({"guid": table["guid"], "prediction": np.where(table["yes"] > 0.5, "Yes", "no")}), "hard.csv")
    status, out, _ = run(capsys, f"{FILES} --model hard.csv --out out")
    of = verdict_of()["models"][0]
    assert status == 0 and of["kl"] is None and of["probability_loyalty"] is None and of["scored"] is False
    assert of["scores"]["ood"]["model"]["value"] == pytest.approx(0.65) and "not measured (no scores)" in out


@pytest.mark.parametrize("change, how", [
    (lambda p: p, "as probabilities"), (lambda p: 100 * p, "as percentages, divided by 100"), (lambda p: np.log(p) + 3, "as logits"),
    (lambda p: p.round(2), "as probabilities"), (lambda p: (100 * p).round(1), "as percentages")])
def test_scores_are_told_apart(here, capsys, change, how):
    table = pd.read_csv("parent.csv")
    write(table.assign(**{name: change(table[name]) for name in CLASSES}), "other.csv")
    status, out, _ = run(capsys, f"{FILES} --model other.csv --out out")
    of = verdict_of()["models"][0]
    assert status == 0 and how in out and of["kl"]["all"]["value"] < 0.01 and of["changed"]["all"]["value"] == 0


@pytest.mark.parametrize("name, put", [
    ("m.tsv", lambda t: t.to_csv("m.tsv", index=False, sep="\t")), ("m.jsonl", lambda t: t.to_json("m.jsonl", orient="records", lines=True)),
    ("m.parquet", lambda t: t.to_parquet("m.parquet")), ("m.csv", lambda t: t.to_csv("m.csv", index=False, sep=";")),
    ("m.parquet", lambda t: t.assign(logits=np.log(t[list(CLASSES)]).to_numpy().tolist(), split="x", label=0)[["guid", "split", "label", "logits"]].to_parquet("m.parquet")),
    ("m.csv.gz", lambda t: t.to_csv("m.csv.gz", index=False)),
    ("m.csv", lambda t: t.rename(columns={"guid": "GUID", "yes": "Yes"}).sample(frac=1, random_state=0).to_csv("m.csv", index=False))])
def test_any_table_in_any_order_is_read(here, capsys, name, put):
    put(pd.read_csv("same.csv"))
    status, _, err = run(capsys, f"{FILES} --model {name} --out out")
    assert (status, err) == (0, "") and verdict_of()["models"][0]["changed"]["all"]["value"] == 0


def test_sets_that_make_no_score_may_be_left_out(here, capsys):
    run(capsys, "--task micro_nli --n-eval 30 --n-ood 2 --rows rows.csv")
    table = pd.read_csv("rows.csv")[["guid"]].assign(prediction=lambda t: np.resize(["entailment", "non-entailment"], len(t)))
    write(table, "p.csv")
    write(table[~table["guid"].str.contains("-unseen-")], "q.csv")
    status, out, _ = run(capsys, "--task micro_nli --n-eval 30 --n-ood 2 --parent p.csv --model q.csv --out out")
    assert status == 3 and set(verdict_of()["rows"]) == {"id", "ood"} and "q: It has no row of unseen" in out
    write(table[~table["guid"].str.contains("-ood-")], "q.csv")
    assert run(capsys, "--task micro_nli --n-eval 30 --n-ood 2 --parent p.csv --model q.csv")[0] == 2


def test_rows_beyond_those_asked_for_are_dropped_and_counted(here, capsys):
    table = pd.read_csv("same.csv")
    write(pd.concat([table, table.tail(7).assign(guid=[f"x{i}" for i in range(7)])]), "more.csv")
    status, out, _ = run(capsys, f"{FILES} --model more.csv")
    assert status == 0 and "7 rows beyond those asked for were dropped" in out


def test_the_rows_to_predict_are_written(here, capsys):
    status, out, _ = run(capsys, "--split id=id.csv --split ood=ood.csv --rows rows.csv")
    table = pd.read_csv("rows.csv")
    assert status == 0 and "800 rows to predict" in out and list(table) == ["guid", "text_a", "text_b"] and len(table) == 800
    assert run(capsys, "--task micro_nli --n-eval 30 --n-ood 2 --rows micro.jsonl")[0] == 0
    micro = pd.read_json("micro.jsonl", lines=True)
    write(micro[["guid"]].assign(prediction="entailment"), "p.csv")
    write(micro[["guid"]].assign(prediction=1), "q.csv")
    status, _, err = run(capsys, "--task micro_nli --n-eval 30 --n-ood 2 --parent p.csv --model q.csv")
    assert (status, err) == (3, "")


def test_a_table_that_is_written_reads_as_the_predictions_it_is_of(here):
    rows = handed.of_files({"id": here / "id.csv", "ood": here / "ood.csv"})
    given = handed.read_predictions(here / "parent.csv", rows).table
    more = pd.concat([given.iloc[[0]].assign(guid="dev-0"), given.iloc[::-1]], ignore_index=True)
    place = judging.write_table(here / "written.csv", more, rows)
    read = handed.read_predictions(place, rows)
    assert read.kind == "logits" and not read.notes and read.table["guid"].tolist() == given["guid"].tolist()
    assert np.stack(read.table["logits"]) == pytest.approx(np.stack(given["logits"]), rel=1e-5)


def test_the_report_is_one_file_that_asks_nothing_of_the_network(here, capsys):
    run(capsys, [*FILES.split(), *"--model model.csv --model same.csv --null again.csv --out out --fail-if ood_drop>2".split()])
    html = open("out/report.html").read()
    assert html.count("data:image/svg+xml;base64,") == 2 and not re.search(r"https?://|<script|<link|src=\"(?!data:)", html)
    for said in ("Forgot more", "met by model", "<h3>same</h3>", "read from model.csv as probabilities", "parent trained once more", 'alt="'):
        assert said in html
    assert not re.search(r"\bnan\b", html) and sorted(os.listdir("out")) == ["report.html", "verdict.json"]


def test_names_of_models_stay_apart_and_are_escaped(here, capsys):
    for name in ("a<b>/p.csv", "c/p.csv"):
        os.makedirs(os.path.dirname(name))
        write(pd.read_csv("same.csv"), name)
    assert run(capsys, [*FILES.split(), "--model", "a<b>/p.csv", "--model", "c/p.csv", "--out", "out"])[0] == 0
    assert [of["name"] for of in verdict_of()["models"]] == ["a<b>-p", "c-p"] and "<b>" not in open("out/report.html").read()


# ---- withheld

def withheld(capsys, line):
    status, out, err = run(capsys, f"{line} --out out")
    of = verdict_of()["models"][0]
    assert status == 3 and err == "" and of["verdict"] == "withheld" and verdict_of()["exit"] == 3
    assert of["sentence"] == f"withheld: {of['reasons'][0]}" and of["scores"]["id"]["model"]["value"] is not None
    return of["reasons"]


def test_two_constant_models_get_no_verdict(here, capsys):
    table = pd.read_csv("parent.csv")
    for name in ("one", "two"):
        write(table.assign(yes=0.9, no=0.1), f"{name}.csv")
    reasons = withheld(capsys, "--split id=id.csv --split ood=ood.csv --parent one.csv --model two.csv")
    assert "one class only: 'yes' on 100.0% of the ID rows" in reasons[0] and reasons[0].startswith("model")
    assert any("the majority class on 50.0%" in reason for reason in reasons) and any("no OOD skill" in reason for reason in reasons)


def test_a_permuted_order_of_labels_is_named_first(here, capsys):
    classes = ("a", "b", "c")
    sets = {"id": frame(300, "id", 0, classes), "ood": frame(300, "ood", 1, classes)}
    for name, rows in sets.items():
        write(rows, f"{name}.csv")
    write(pd.concat([scores(rows, 0.9, 0, classes) for rows in sets.values()]), "parent.csv")
    table = pd.concat([scores(rows, 0.8, 1, classes) for rows in sets.values()])
    write(table.rename(columns={"a": "b", "b": "c", "c": "a"}), "turned.csv")
    reasons = withheld(capsys, f"{FILES} --model turned.csv")
    assert re.match(r"model is right on \d+% of the ID rows and would be right on 80% .* is the order of its labels wrong", reasons[0])


def test_a_small_ood_set_and_one_of_a_single_class_are_named(here, capsys):
    write(frame(400, "ood", 1).head(20), "ood.csv")
    assert withheld(capsys, f"{FILES} --model model.csv")[-1] == "ood has 20 rows; fewer than 100 tell too little"
    write(frame(400, "ood", 1).query("label == 'no'"), "ood.csv")
    assert any("every row of ood has the label 'no'" in reason for reason in withheld(capsys, f"{FILES} --model model.csv"))


def test_a_parent_without_ood_skill_and_rows_of_train_are_named(here, capsys):
    sets = {name: pd.read_csv(f"{name}.csv") for name in ("id", "ood")}
    write(pd.concat([scores(sets["id"], 0.9), scores(sets["ood"], 0.5)]), "parent.csv")
    assert "it has no OOD skill that could be lost" in withheld(capsys, f"{FILES} --model model.csv")[0]
    write(sets["id"].head(40).assign(guid=[f"t{i}" for i in range(40)]), "train.csv")
    assert "40 of 400 rows of id stand in train too" in withheld(capsys, f"{FILES} --split train=train.csv --model model.csv")[-1]


def test_what_a_shortcut_follower_does_ood_is_told_as_such(here, capsys):
    sets = {name: pd.read_csv(f"{name}.csv") for name in ("id", "ood")}
    write(pd.concat([scores(sets["id"], 0.94), scores(sets["ood"], 0.1)]), "model.csv")
    status, _, _ = run(capsys, f"{FILES} --model model.csv --out out")
    of = verdict_of()["models"][0]
    assert status == 0 and of["verdict"] == "forgot more" and "what a follower of the shortcut does" in of["doubts"][0]


def test_too_few_rows_for_the_loss_are_undecided_and_say_how_many_more(here, capsys):
    sets = {name: pd.read_csv(f"{name}.csv") for name in ("id", "ood")}
    write(pd.concat([scores(sets["id"], 0.94), scores(sets["ood"], 0.82)]), "model.csv")
    status, out, _ = run(capsys, f"{FILES} --model model.csv --out out")
    assert status == 0 and verdict_of()["models"][0]["verdict"] == "undecided" and re.search(r"about [\d,]+ more OOD rows would tell", out)


@pytest.mark.parametrize("n, word", [(120, "undecided"), (400, "forgot no more")])
def test_no_change_on_few_rows_is_no_proof(here, capsys, n, word):
    write(frame(400, "ood", 1).head(n), "ood.csv")
    shutil.copy("parent.csv", "copy.csv")
    status, _, _ = run(capsys, f"{FILES} --model copy.csv --out out")
    assert status == 0 and verdict_of()["models"][0]["verdict"] == word


# ---- samples of the lm-evaluation-harness

def sample(doc, target, logps, **more):
    return {"doc_id": doc, "doc": {"question": f"{doc}?", "choices": [f"c{i}" for i in range(len(logps))]}, "target": target,
            "filtered_resps": [[str(x), "False"] for x in logps], "doc_hash": f"h{doc}", **more}


def samples(name, n, wrong, target=str, choices=4, more={}):
    """n questions, those of `wrong` answered with the next choice."""
    lines = []
    for doc in range(n):
        right, width = doc % choices, choices - doc % 2
        right %= width
        logps = np.full(width, -7.0)
        logps[(right + (doc in wrong)) % width] = -5.0
        lines.append(sample(doc, target(right), logps, **more))
    with open(name, "w") as file:
        file.write("\n".join(map(json.dumps, lines)) + "\n")


@pytest.fixture
def logged(here):
    samples("samples_task_dense.jsonl", 12, {0})
    samples("samples_task_int4.jsonl", 12, {9, 11})
    return "--parent samples_task_dense.jsonl --model samples_task_int4.jsonl"


def test_two_sample_files_are_paired_and_twelve_rows_give_no_verdict(logged, capsys):
    assert "12 rows; fewer than 100" in withheld(capsys, logged)[0]
    of = verdict_of()["models"][0]
    assert (of["scores"]["id"]["parent"]["value"], of["scores"]["id"]["model"]["value"]) == (pytest.approx(11 / 12), pytest.approx(10 / 12))
    assert of["changed"]["all"]["value"] == 3 / 12 and of["worse"]["all"]["value"] == pytest.approx(2 / 12, abs=1e-6) and of["kl"]["id"]["value"] > 0
    assert run(capsys, [*logged.split(), "--fail-if", "changed > 0.1", "--on", "estimate"])[0] == 1
    assert run(capsys, [*logged.split(), "--fail-if", "changed > 0.1"])[0] == 3, "its interval holds 0"


def test_folders_pair_tasks_by_name_and_one_may_be_ood(here, capsys):
    for model, wrong in (("dense", range(0, 200, 9)), ("int8", range(0, 200, 3))):
        (here / model / "run").mkdir(parents=True)
        samples(f"{model}/run/samples_easy_2026-01-02T03-04-05.123.jsonl", 200, set(range(0, 200, 20)), int)
        samples(f"{model}/run/samples_hard_2026-01-02T03-04-06.jsonl", 200, set(wrong), lambda right: f"c{right}")
    samples("int8/run/samples_more.jsonl", 5, set())
    status, out, err = run(capsys, "--parent dense --model int8 --ood hard --out out")
    of = verdict_of()["models"][0]
    assert (status, err) == (0, "") and of["verdict"] == "forgot more" and verdict_of()["rows"] == {"id": 200, "hard": 200}
    assert "not all have were left out: more" in out
    assert of["scores"]["skill_kept"]["value"] == pytest.approx((133 / 200 - 7 / 24) / (177 / 200 - 7 / 24), abs=1e-4), "chance of three or four choices"
    status, _, _ = run(capsys, "--parent dense --model int8 --out out")
    assert status == 0 and verdict_of()["models"][0]["verdict"] == "lost" and verdict_of()["rows"] == {"id": 400}


# ---- bad input: one line on stderr that names the culprit and the mend, exit 2, nothing written

def rewritten(name, change):
    def make():
        table = pd.read_csv("model.csv")
        write(change(table), name)
    return make


def put(name, text):
    def make():
        with open(name, "w") as file:
            file.write(text)
    return make


def resampled(change):
    """int4's samples with one line changed."""
    def make():
        samples("samples_task_dense.jsonl", 12, {0})
        samples("samples_task_int4.jsonl", 12, {9})
        lines = open("samples_task_int4.jsonl").read().splitlines()
        lines[4] = json.dumps(change(json.loads(lines[4])))
        put("samples_task_int4.jsonl", "\n".join(lines))()
    return make


def appended(line):
    """int4's samples with a line more."""
    def make():
        resampled(lambda r: r)()
        with open("samples_task_int4.jsonl", "ab") as file:
            file.write(b"\n" + line)
    return make


def two_runs():
    for place in ("dense", "int4/a", "int4/b"):
        os.makedirs(place)
        samples(f"{place}/samples_task.jsonl", 5, set())


M, PAIR = f"{FILES} --model m.csv", "--parent samples_task_dense.jsonl --model samples_task_int4.jsonl"
BAD = {
    "nothing": (None, "", "--parent is missing", "give predictions"),
    "no model": (None, FILES, "--model is missing", "give predictions"),
    "no rows": (None, "--parent parent.csv --model model.csv", "--task is missing", "--split id=FILE"),
    "option misspelt": (None, f"{FILES} --modle model.csv", "--modle", "--help lists the options"),
    "two sources of rows": (None, f"{FILES} --model model.csv --task micro_nli", "--task and --split", "give one"),
    "task misspelt": (None, "--task micro_nil --parent parent.csv --model model.csv", "'micro_nil'", "did you mean 'micro_nli'"),
    "task file absent": (None, "--task no.yaml --parent parent.csv --model model.csv", "no.yaml: no such task file", "mend the path"),
    "one model under two names": (None, f"{FILES} --model ./parent.csv", "parent.csv is given twice", "beside another"),
    "an option cut short": (None, f"{FILES} --mod model.csv", "unrecognized arguments: --mod", "--help"),
    "one model twice": (None, f"{FILES} --model parent.csv", "parent.csv is given twice", "beside another"),
    "file absent": (None, f"{FILES} --model no.csv", "no.csv: no such file", "mend the path"),
    "format": (put("m.json", "[]"), f"{FILES} --model m.json", "m.json", "judge its predictions"),
    "GGUF": (put("m.gguf", "GGUF"), f"{FILES} --model m.gguf", "m.gguf.*llama.cpp", "judge its predictions"),
    "folder without a model": (lambda: os.mkdir("m"), f"{FILES} --model m", "m holds no model.safetensors", "judge its predictions"),
    "empty file": (put("m.csv", ""), M, "m.csv", "put at least one"),
    "header alone": (put("m.csv", "guid,no,yes\n"), M, "m.csv", "put at least one"),
    "not UTF-8": (lambda: open("m.csv", "wb").write(b"guid,no,yes\nid-0,\xff,0.1\n"), M, "m.csv", "UTF-8|not all numbers"),
    "no guid": (rewritten("m.csv", lambda t: t.rename(columns={"guid": "id"})), M, "column 'guid' is missing", "give guid and a column for each class"),
    "class absent": (rewritten("m.csv", lambda t: t.drop(columns="yes")), M, "column 'yes' is missing", "a column for each class: no, yes"),
    "column twice": (rewritten("m.csv", lambda t: t.assign(YES=1)), M, "'yes' and 'YES'", "keep one"),
    "guid twice": (rewritten("m.csv", lambda t: pd.concat([t, t.tail(1)])), M, "row 801: guid 'ood-399' stands there twice", "one row each"),
    "rows missing": (rewritten("m.csv", lambda t: t.iloc[5:]), M, r"guid 'id-0' of split id has no row \(5 of 800", "--split id=id.csv --split ood=ood.csv --rows FILE"),
    "a word for a number": (rewritten("m.csv", lambda t: t.assign(yes=["x", *t["yes"][1:]])), M, "row 1, guid 'id-0'", "not all numbers"),
    "decimal comma": (put("m.csv", "guid;no;yes\n" + "".join(f"{s}-{i};0,2;0,8\n" for s in ("id", "ood") for i in range(400))), M, "'0,2'", "decimals after a point"),
    "a gap": (rewritten("m.csv", lambda t: t.assign(no=t["no"].where(t.index != 3))), M, "row 4", "not all numbers"),
    "infinite": (rewritten("m.csv", lambda t: t.assign(no=t["no"].where(t.index != 3, np.inf))), M, "row 4", "not all numbers"),
    "kinds of score mixed": (rewritten("m.csv", lambda t: t.assign(no=t["no"].where(t.index != 3, 40))), M, "sum to", "give one kind of score"),
    "percent and shares": (rewritten("m.csv", lambda t: t.assign(**{c: t[c].where(t.index > 3, 100 * t[c]) for c in CLASSES})), M, "sum to 100", "give one kind"),
    "unknown prediction": (rewritten("m.csv", lambda t: t[["guid"]].assign(prediction=["yse", *["no"] * 799])), M, "row 1: prediction 'yse'", "did you mean 'yes'"),
    "logits of another width": (lambda: pd.read_csv("model.csv").assign(logits=[[1.0, 2.0, 3.0]] * 800)[["guid", "logits"]].to_parquet("m.parquet"), f"{FILES} --model m.parquet", "row 1: logits holds 3 numbers", "2 classes"),
    "split without a sign": (None, "--split id.csv --parent parent.csv --model model.csv", "--split id.csv", "write NAME=FILE"),
    "split twice": (None, f"{FILES} --split id=ood.csv --model model.csv", "--split id is given twice", "one file"),
    "no ID rows": (None, "--split ood=ood.csv --parent parent.csv --model model.csv", "--split names ood", "id=FILE"),
    "a set called test": (None, f"{FILES} --split test=ood.csv --model model.csv", "cannot be called test", "another name"),
    "rows without labels": (lambda: pd.read_csv("id.csv").drop(columns="label").to_csv("id.csv", index=False), f"{FILES} --model model.csv", "id.csv: column 'label' is missing", "choose from|did you mean"),
    "a label missing": (lambda: pd.read_csv("id.csv").assign(label=lambda t: t["label"].where(t.index != 2)).to_csv("id.csv", index=False), f"{FILES} --model model.csv", "id.csv: row 3: the label is missing", "take the row out"),
    "a label of OOD alone": (lambda: pd.read_csv("ood.csv").assign(label="maybe").to_csv("ood.csv", index=False), f"{FILES} --model model.csv", "ood.csv: row 1: label 'maybe'", "collapse"),
    "one label in ID": (lambda: pd.read_csv("id.csv").assign(label="no").to_csv("id.csv", index=False), f"{FILES} --model model.csv", "id.csv: every row", "two classes or more"),
    "one guid in two sets": (None, f"{FILES} --split more=ood.csv --model model.csv", "guid 'ood-0' of split more", "a guid of its own"),
    "condition unreadable": (None, [*FILES.split(), "--model", "model.csv", "--fail-if", "ood_drop >= 2"], "'ood_drop >= 2' is no condition", "MEASURE > NUMBER"),
    "measure misspelt": (None, [*FILES.split(), "--model", "model.csv", "--fail-if", "odd_drop > 2"], "'odd_drop'", "did you mean 'ood_drop'"),
    "and": (None, [*FILES.split(), "--model", "model.csv", "--fail-if", "gap > 2 and kl > 1"], "no condition", "joined by or"),
    "never met": (None, [*FILES.split(), "--model", "model.csv", "--fail-if", "changed > 1"], "changed > 100 %", "write 1%"),
    "percent of points": (None, [*FILES.split(), "--model", "model.csv", "--fail-if", "gap > 2%"], "gap is in points", "take the % away"),
    "not measured, OOD": (None, "--split id=id.csv --parent parent.csv --model model.csv --fail-if ood_drop>2", "ood_drop was not measured", "no OOD set"),
    "not measured, KL": (rewritten("m.csv", lambda t: t[["guid"]].assign(prediction=["no", "yes"] * 400)), f"{M} --fail-if kl>2", "kl was not measured", "needs scores"),
    "on": (None, f"{FILES} --model model.csv --on point", "point", "--help"),
    "negative rows": (None, f"{FILES} --model model.csv --n-ood -1", "--n-ood is -1", "give 0 or more"),
    "few resamples": (None, f"{FILES} --model model.csv --n-boot 5", "--n-boot is 5", "give 100 or more"),
    "rows of nothing": (None, "--rows r.csv", "--rows", "give --task or --split"),
    "rows in a strange format": (None, "--task micro_nli --n-eval 20 --n-ood 1 --rows r.xlsx", "format '.xlsx'", "take .csv"),
    "a model without texts": (lambda: [pd.read_csv(f"{s}.csv").drop(columns=["text_a", "text_b"]).to_csv(f"{s}.csv", index=False) for s in ("id", "ood")], f"{FILES} --model some/model", "some/model: the rows have no texts", "hand in its predictions"),
    "ood of a task": (None, f"{FILES} --model model.csv --ood hard", "--ood is for samples", "--split, says what is OOD"),
    "samples and predictions": (resampled(lambda r: r), "--parent samples_task_dense.jsonl --model model.csv", "model.csv: holds no samples", "give both sides"),
    "samples, a question missing": (resampled(lambda r: r | {"doc_id": 77}), PAIR, "doc_id 4 is missing", "the same --limit"),
    "samples, another question": (resampled(lambda r: r | {"doc_hash": "x"}), PAIR, "doc_id 4 is another question", "one version of the task"),
    "samples, a question twice": (resampled(lambda r: r | {"doc_id": 3}), PAIR, "line 5: doc_id 3 stands there twice", "one run"),
    "samples of generated text": (resampled(lambda r: r | {"filtered_resps": ["an answer"]}), PAIR, "line 5: filtered_resps holds 'an answer'", "only multiple-choice"),
    "samples, one choice": (resampled(lambda r: r | {"filtered_resps": [["-1", "False"]]}), PAIR, "line 5: filtered_resps holds 1 choice", "two choices or more"),
    "samples, a strange target": (resampled(lambda r: r | {"target": "9"}), PAIR, "line 5: target '9'", "from 0, or its text"),
    "samples, a key missing": (resampled(lambda r: {k: v for k, v in r.items() if k != "doc_hash"}), PAIR, "line 5: 'doc_hash' is missing", "--log_samples"),
    "samples, not JSON": (lambda: (resampled(lambda r: r)(), open("samples_task_int4.jsonl", "a").write("\n{")), PAIR, "line 13: not JSON", "log the samples anew"),
    "samples, an unknown OOD task": (resampled(lambda r: r), f"{PAIR} --ood hard", "--ood hard", "no task of both"),
    "samples, a line that is no sample": (appended(b"[1, 2]\n"), PAIR, "line 13: '\\[1, 2\\]' is no sample", "log the samples anew"),
    "samples, not UTF-8": (appended(b"\xff\xfe\n"), PAIR, "line 13: not JSON", "log the samples anew"),
    "samples, no responses": (resampled(lambda r: r | {"filtered_resps": None}), PAIR, "line 5: filtered_resps holds 'None'", "only multiple-choice"),
    "samples, a raised digit": (resampled(lambda r: r | {"target": "\u00b2"}), PAIR, "line 5: target '\u00b2'", "from 0, or its text"),
    "not gzip": (put("m.csv.gz", "nonsense"), f"{FILES} --model m.csv.gz", "m.csv.gz: not readable", "save it anew"),
    "rows below a file": (put("some", ""), "--split id=id.csv --split ood=ood.csv --rows some/r.csv", "--rows: some is a file", "another place"),
    "rows into a folder": (lambda: os.mkdir("some"), "--split id=id.csv --split ood=ood.csv --rows some", "--rows: some is a folder", "name a file"),
    "an order of labels for tables": (None, f"{FILES} --model model.csv --labels yes,no", "--labels is for models", "by its columns"),
    "samples of two runs": (two_runs, "--parent dense --model int4", "task task has samples in", "one run"),
    "samples without a task in common": (lambda: (two_runs(), samples("dense/samples_other.jsonl", 5, set()), os.remove("dense/samples_task.jsonl")), "--parent dense --model int4/a", "share no task", "the same tasks"),
}


@pytest.mark.parametrize("make, line, culprit, mend", BAD.values(), ids=list(BAD))
def test_bad_input_is_refused_in_one_line(here, capsys, make, line, culprit, mend):
    if make:
        make()
    status, out, err = run(capsys, [*(line.split() if isinstance(line, str) else line), "--out", "out"])
    assert status == 2 and out == "" and err.count("\n") == 1, (status, err)
    assert re.search(culprit, err) and re.search(mend, err), err
    assert not (here / "out").exists() and not list(here.glob("r.*"))


@pytest.mark.parametrize("place", ["some", "some/deeper"])
def test_a_file_where_the_folder_should_be_is_told_before_anything_is_judged(here, capsys, place):
    put("some", "")()
    status, out, err = run(capsys, f"{FILES} --model model.csv --out {place}")
    assert status == 2 and out == "" and err == "--out: some is a file, no folder; name another place\n"


def test_a_fault_of_the_program_has_a_code_of_its_own(here, capsys, monkeypatch):
    monkeypatch.setattr(judge.judging, "judged", lambda *given: 1 / 0)
    status, _, err = run(capsys, f"{FILES} --model model.csv")
    assert status == 4 and err.splitlines()[-1].startswith("a fault of this program, not of your input: ZeroDivisionError")


# ---- models that are run here, and notebook 10

@pytest.fixture(scope="module")
def dense(tmp_path_factory, tiny_encoder):
    """A tiny classifier of micro_nli with random weights, its classes in the other order, and the rows it is asked."""
    from transformers import AutoTokenizer, BertForSequenceClassification

    rows = handed.of_task("micro_nli", n_eval=20, n_ood=1)
    folder = tmp_path_factory.mktemp("models")
    encoder = tiny_encoder(folder / "encoder", [*rows.judged["text_a"], *rows.judged["text_b"]])
    names = dict(enumerate(reversed(rows.task.labels)))
    model = BertForSequenceClassification.from_pretrained(encoder, num_labels=2, id2label=names, label2id={n: i for i, n in names.items()})
    model.save_pretrained(folder / "tiny")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder / "tiny")
    return folder / "tiny"


MICRO = "--task micro_nli --n-eval 20 --n-ood 1"


def test_a_folder_is_judged_beside_a_table(here, capsys, dense):
    run(capsys, f"{MICRO} --rows rows.csv")
    write(pd.read_csv("rows.csv")[["guid"]].assign(prediction="entailment"), "p.csv")
    status, out, err = run(capsys, f"{MICRO} --parent p.csv --model {dense} --device cpu --max-length 48 --out out")
    of = verdict_of()["models"][0]
    assert (status, err) == (3, "") and "run here on cpu in fp32, at most 48 tokens" in of["how"] and of["kl"] is None
    assert {row["condition"] for row in of["noise"]} > {"batches of 1", "batches of 32"} and "run otherwise it changes at most" in out
    assert any("Its classifier is whole" in note for note in of["pair_notes"]) and "answers of tiny that change" in open("out/report.html").read()


def test_two_folders_say_whether_they_read_alike_and_their_classes_are_found_by_name(here, capsys, dense):
    shutil.copytree(dense, "other")
    status, _, err = run(capsys, f"{MICRO} --parent {dense} --model other --device cpu --max-length 48 --out out")
    of = verdict_of()["models"][0]
    assert (status, err) == (3, "") and of["changed"]["all"]["value"] == 0 and "The two tokenizers agree." in of["pair_notes"]
    config = json.loads(open("other/config.json").read())
    open("other/config.json", "w").write(json.dumps(config | {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}))
    status, _, err = run(capsys, f"{MICRO} --parent {dense} --model other --device cpu")
    assert status == 2 and "calls a class 'LABEL_0'" in err and err.count("\n") == 1
    line = f"{MICRO} --parent {dense} --model other --device cpu --max-length 48 --out out"
    assert run(capsys, f"{line} --labels non-entailment,entailment")[0] == 3 and verdict_of()["models"][0]["changed"]["all"]["value"] == 0


def test_a_fault_in_a_table_is_told_before_a_model_runs(here, capsys, dense):
    write(pd.DataFrame({"guid": ["x"], "prediction": ["entailment"]}), "p.csv")
    status, out, err = run(capsys, f"{MICRO} --parent {dense} --model p.csv --device cpu")
    assert status == 2 and out == "" and "--task micro_nli --n-eval 20 --n-ood 1 --rows FILE" in err


def test_nothing_is_overwritten_by_other_answers_under_the_same_name(here):
    rows = handed.of_files({name: here / f"{name}.csv" for name in ("id", "ood")})
    parent, model, same = judging.read_sides(rows, "parent.csv", ["model.csv", "same.csv"])
    one, other = judging.judged(rows, parent, [model, dataclasses.replace(same, name="model")], n_boot=100)
    for judgement, name in ((one, "model"), (other, "model-2"), (one, "model"), (other, "model-2")):
        place = judging.folder_for(here / "kept", judgement)
        assert place.name == name
        store.write_json(place / "verdict.json", sheets.record(rows, parent, [judgement], [], 0))


@pytest.mark.parametrize("given, says", [
    ({"models": ["a.csv"]}, "models and parent belong together"), ({"parent": "a.csv"}, "models and parent belong together"),
    ({"models": ["a.csv"], "parent": "a.csv"}, "'a.csv' is among models too"), ({"models": ["a.csv", "a.csv"], "parent": "b.csv"}, "stands there twice"),
    ({"n_eval": -1}, "greater than or equal to 0"), ({"dtype": "fp16"}, "dtype")])
def test_parameters_of_notebook_10_are_refused_in_one_line(given, says):
    space = dict(profile="smoke", task="micro_nli", seed=0, models=[], parent="", null="", revision="", labels=[], parent_labels=[], dtype="fp32",
                 n_train=0, n_eval=0, n_ood=0, n_attack=5, n_boot=200, device="auto")
    assert notebook.parameters("your_model", space).n_eval == 0
    with pytest.raises(StudyError, match=says) as error:
        notebook.parameters("your_model", space | given)
    assert "\n" not in str(error.value)
