"""How a reader's own files are read: quotes, separators, labels in other spellings, rows left out, single texts."""
import gzip

import numpy as np
import pandas as pd
import pytest
import yaml
from test_tasks import SPEC, own, rows, write  # noqa: F401 (own is a fixture)

from lib.analysis import difficulty, floors, measures, risk
from lib.errors import StudyError
from lib.models import batches, pretrained
from lib.tasks import dataset, forms, lengths, registry, sources
from lib.tasks.own import doubts, overview, taken
from lib.trials import attack

PAIR = {"text_a": "premise", "text_b": "hypothesis", "label": "label"}
NLI = {"entailment": 0, "neutral": 1, "contradiction": 2}
WHOLE = dict(seed=0, n_train=0, n_eval=0, n_ood=0)


@pytest.fixture
def read(tmp_path):
    """Read a file of this name and content as a task's; give its texts, labels and record."""
    def of(name, content, labels=NLI, columns=PAIR, **table):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        frame, record = sources.read(sources.Table(str(tmp_path / name), columns, labels, quoted=None, **table))
        return frame[["text_a", "text_b"]].values.tolist(), frame["label"].tolist(), record

    return of


# ---------------------------------------------------------------- quotation marks
HEAD = "premise\thypothesis\tlabel\n"
QUOTED = (HEAD + '"He said ""no"" and left."\tHe left.\tentailment\n"A line\nbroken in two."\tOne line.\tcontradiction\n'
          '"Tab\there, and a comma, too."\tThere is a tab.\tneutral\nPlain.\tPlain.\tentailment\n')
OF_QUOTED = ['He said "no" and left.', "A line\nbroken in two.", "Tab\there, and a comma, too.", "Plain."]
LONE = HEAD + '"No, he said.\tHe said "no".\tentailment\nThe 5" disk"\t"\tneutral\n'
FORMS = {
    "as data frames write it": ("a.tsv", QUOTED, OF_QUOTED, forms.AS_QUOTES),
    "with CRLF": ("a.tsv", QUOTED.replace("\n", "\r\n").replace("line\r\n", "line\n"), OF_QUOTED, forms.AS_QUOTES),
    "with a BOM": ("a.tsv", b"\xef\xbb\xbf" + QUOTED.encode(), OF_QUOTED, forms.AS_QUOTES),
    "packed": ("a.tsv.gz", gzip.compress(QUOTED.encode()), OF_QUOTED, forms.AS_QUOTES),
    "of a .txt": ("a.txt", QUOTED, OF_QUOTED, forms.AS_QUOTES),
    "marks doubled, all fits both ways": ("a.tsv", HEAD + '"He said ""no""."\tHe left.\tentailment\n', ['He said "no".'],
                                          forms.AS_QUOTES),
    "header quoted, as R writes it": ("a.tsv", '"premise"\t"hypothesis"\t"label"\n"A, b."\t"c"\t"neutral"\n', ["A, b."],
                                      forms.AS_QUOTES),
    "all quoted, with a BOM and CRLF": ("a.tsv", b'\xef\xbb\xbf"premise"\t"hypothesis"\t"label"\r\n"A, b."\t"c"\t"neutral"\r\n',
                                        ["A, b."], forms.AS_QUOTES),
    "a bare return in quotes": ("a.tsv", HEAD + '"a\rb"\tc\tneutral\n', ["a\rb"], forms.AS_QUOTES),
    "header quoted, rows not": ("a.tsv", '"premise"\t"hypothesis"\t"label"\nHe said "no".\tc\tneutral\n', ['He said "no".'],
                                forms.AS_QUOTES),
    "a tab in quotes beside lone marks": ("a.tsv", HEAD + '"A\ttab"\t5" disk\tneutral\n', ["A\ttab"], forms.AS_QUOTES),
    "as GLUE has it": ("a.tsv", LONE, ['"No, he said.', 'The 5" disk"'], forms.AS_TEXT),
    "as GLUE has it, with CRLF and a BOM": ("a.tsv", b"\xef\xbb\xbf" + LONE.replace("\n", "\r\n").encode(),
                                            ['"No, he said.', 'The 5" disk"'], forms.AS_TEXT),
    "a text in quotes, of two readings": ("a.tsv", HEAD + '"Come."\tHe came.\tneutral\n', ['"Come."'], forms.AS_TEXT),
    "doubled marks beside lone ones": ("a.tsv", HEAD + '"A ""b"" c"\tx\tneutral\nSay "d"\ty\tneutral\n',
                                       ['"A ""b"" c"', 'Say "d"'], forms.AS_TEXT),
    "marks within texts alone": ("a.tsv", HEAD + 'Say "d"\ty\tneutral\n', ['Say "d"'], forms.AS_TEXT),
    "no mark": ("a.tsv", HEAD + "a\tb\tneutral\n\n \na c\tb\tneutral\n", ["a", "a c"], ""),
    "CSV": ("a.csv", "premise,hypothesis,label\n\"A \"\"b\"\", c.\",d,neutral\n", ['A "b", c.'], ""),
    "breaks that are none": ("a.tsv", HEAD + "a\x0bb\u2028c\x85d\te\tneutral\n", ["a\x0bb\u2028c\x85d"], ""),
}


@pytest.mark.parametrize("name, content, texts, told", list(FORMS.values()), ids=list(FORMS))
def test_quotation_marks_are_read_as_the_file_has_them(read, name, content, texts, told):
    found, _, record = read(name, content)
    assert [first for first, _ in found] == texts and record["marks"] == told


def test_a_table_of_the_study_itself_is_read_as_it_is_declared(read, tmp_path):
    (tmp_path / "a.tsv").write_text(HEAD + '"He said ""no""."\tHe left.\tentailment\n')
    table = sources.Table(str(tmp_path / "a.tsv"), PAIR, NLI)
    assert sources.read(table)[0]["text_a"].tolist() == ['"He said ""no""."']
    assert sources.read(sources.Table(**{**vars(table), "quoted": True}))[0]["text_a"].tolist() == ['He said "no".']


# ---------------------------------------------------------------- separators and labels
SEMICOLON = ("premise;hypothesis;label\nA man sits.;A man is seated.;entailment\nA dog, wet, runs.;An animal runs.;entailment\n"
             "A cook sings.;Nobody sings.;contradiction\n")
BINARY = {"0": 0, "1": 1}


def test_a_separator_that_is_named_is_taken(read):
    texts, labels, _ = read("a.csv", SEMICOLON, separator=";")
    assert texts[1] == ["A dog, wet, runs.", "An animal runs."] and labels == [0, 0, 2]
    assert read("b.csv", SEMICOLON.replace(";", "\t"), separator="\t")[:2] == (texts, labels)
    assert read("c.tsv", SEMICOLON.replace(";", "|"), separator="|")[:2] == (texts, labels)
    assert read("d.csv", "premise;hypothesis;label\na;b;1,0\nc;d;0,0\n", BINARY, separator=";")[1] == [1, 0]
    assert read("e.csv", 'premise;hypothesis;label\n"a; b";"c";"0"\n', BINARY, separator=";")[0] == [["a; b", "c"]]
    assert read("f.jsonl", '{"premise": "a", "hypothesis": "b", "label": "1"}\n', BINARY, separator=";")[1] == [1]


@pytest.mark.parametrize("name, label, labels, read_as", [
    ("a.csv", "1.0", BINARY, 1), ("a.csv", "0.0", BINARY, 0), ("a.csv", "True", BINARY, 1), ("a.csv", "FALSE", BINARY, 0),
    ("a.jsonl", "true", BINARY, 1), ("a.jsonl", "false", BINARY, 0), ("a.jsonl", "1.0", BINARY, 1), ("a.jsonl", '"1.0"', BINARY, 1),
    ("a.jsonl", '"0.0"', BINARY, 0), ("a.jsonl", "1", BINARY, 1), ("a.csv", "-1.00", {"-1": 0, "1": 1}, 0),
    ("a.csv", "1.0", {"1.0": 0, "1": 1}, 0), ("a.jsonl", "true", {"true": 0, "false": 1}, 0), ("a.csv", "True", {"false": 0, "true": 1}, 1)])
def test_labels_in_another_spelling_are_those_of_the_map(read, name, label, labels, read_as):
    row = f"premise,hypothesis,label\na,b,{label}\n" if name.endswith("csv") else \
        f'{{"premise": "a", "hypothesis": "b", "label": {label}}}\n'
    assert read(name, row, labels)[1] == [read_as]


REFUSED = {
    "semicolons": ("a.csv", SEMICOLON, {}, "a.csv: ';' separates its columns, which the task file does not say; set separator: ';' there"),
    "tabs in a CSV": ("a.csv", SEMICOLON.replace(";", "\t"), {}, 'a.csv: a tab separates its columns.*set separator: "\\\\t"'),
    "commas in a TSV": ("a.tsv", "premise,hypothesis,label\na,b,neutral\n", {}, "a.tsv: ',' separates its columns.*set separator: ','"),
    "bars": ("a.csv", SEMICOLON.replace(";", "|"), {}, "set separator: '|'"),
    "semicolons in a quoted header": ("a.csv", '"premise";"hypothesis";"label"\n"a";"b";"neutral"\n', {}, "set separator: ';'"),
    "semicolons and a misspelt column": ("a.csv", SEMICOLON.replace("hypothesis", "hypotesis"), {}, "set separator: ';'"),
    "another than is named": ("a.csv", "premise,hypothesis,label\na,b,neutral\n", {"separator": ";"}, "',' separates its columns, and not ';', as the task file says"),
    "a first row that is longer": ("a.csv", "premise,hypothesis,label\nA dog, wet,b,neutral\n", {}, "a.csv: row 1 \\(line 2\\) has 4 fields, the header 3; put each text that holds ',' in quotes"),
    "a row of a TSV that is longer": ("a.tsv", HEAD + "a\tb\tneutral\na\tb\tc\tneutral\n", {}, "a.tsv: row 2 \\(line 3\\) has 4 fields, the header 3; take a tab out"),
    "a row that fits neither way": ("a.tsv", QUOTED + 'One\tfield too\tmany\tneutral\n', {}, "a.tsv: row 5 \\(line 7\\) has 4 fields, the header 3, with quotation marks read as quotes.*double the marks"),
    "marks escaped as R escapes them": ("a.tsv", '"premise"\t"hypothesis"\t"label"\n"Say \\"a\tb\\"."\t"c"\t"neutral"\n', {}, "a.tsv: row 1 .*quotation marks"),
    "marks escaped as R escapes them, and no tab": ("a.tsv", '"premise"\t"hypothesis"\t"label"\n"Say \\"a\\"."\t"c"\t"neutral"\n', {}, "a.tsv: column 'premise' is missing; did you mean '\"premise\"'"),
    "a mark left open beside a broken line": ("a.tsv", HEAD + 'a\tb\tneutral\n"c\td\tneutral\ne\n', {}, "a.tsv: row 3 \\(line 4\\) has 1 field, the header 3, with quotation marks taken as text"),
    "a label that is none": ("a.csv", "premise,hypothesis,label\na,b,0.5\n", {"labels": BINARY}, "row 1, column 'label': unknown label '0.5'"),
    "a truth value where there are words": ("a.jsonl", '{"premise": "a", "hypothesis": "b", "label": true}\n', {}, "unknown label 'True'; known are 'entailment'"),
    "a truth value of one number": ("a.csv", "premise,hypothesis,label\na,b,true\n", {"labels": {"1": 0, "2": 1}}, "unknown label 'true'"),
    "no gold label": ("a.csv", "premise,hypothesis,label\na,b,neutral\nc,d,-\n", {}, "row 2, column 'label': unknown label '-'.*drop: \\['-'\\] in the task file"),
    "an empty label": ("a.csv", "premise,hypothesis,label\na,b,\n", {}, "the label is missing.*drop: \\[''\\]"),
    "nothing left": ("a.csv", "premise,hypothesis,label\nc,d,-\n", {"drop": ("-",)}, "every row is one of those left out"),
}


@pytest.mark.parametrize("name, content, table, says", list(REFUSED.values()), ids=list(REFUSED))
def test_what_cannot_be_read_is_told_in_one_line(read, name, content, table, says):
    with pytest.raises(StudyError, match=says) as error:
        read(name, content, **table)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- rows left out
NO_GOLD = ("premise,hypothesis,gold\nA man sits.,A man is seated.,yes\nA dog runs.,An animal is near a lake.,-\n"
           "Two girls read.,Nobody reads.,no\nA cook sings.,A cook sings well.,yes\nA bus stops.,A train stops.,-\n")


def test_rows_without_a_gold_label_are_left_out_counted_and_said(own, tmp_path):  # noqa: F811
    (tmp_path / "test.csv").write_text(NO_GOLD)
    task = registry.get(own(columns={key: SPEC["columns"][key] for key in ("text_a", "text_b", "label")}, drop=["-"],
                            caveats="Few rows."))
    items = dataset.load(task, **WHOLE)
    assert items.loc[items["split"] == "test", "guid"].tolist() == ["mine-test-0", "mine-test-2", "mine-test-3"]
    assert taken(items, task) == ["2 of 5 rows of test.csv are left out: their label is '-'."]
    assert task.caveats == "Few rows. Rows whose label is '-' are left out."


def test_numbers_and_empty_labels_can_be_left_out(read):
    labels = "premise,hypothesis,label\na,b,-1\nc,d,-1.0\ne,f,1\ng,h,\n"
    texts, kept, record = read("a.csv", labels, BINARY, drop=("-1", ""))
    assert (texts, kept, record["left_out"], record["rows"]) == ([["e", "f"]], [1], 3, 1)


def test_what_quotation_marks_are_is_said(own, tmp_path):  # noqa: F811
    content = "premise\thypothesis\tgold\ttopic\n" + '"Say ""a""."\tb\tyes\tt1\nc\td\tno\tt2\n'
    (tmp_path / "test.tsv").write_text(content)
    task = registry.get(own(files={"train": "train.csv", "test": "test.tsv"}))
    assert taken(dataset.load(task, **WHOLE), task) == ["Quotation marks in test.tsv are read as quotes."]


def test_a_separator_of_the_task_and_of_one_set(own, tmp_path):  # noqa: F811
    for name, n in (("train", 100), ("test", 10), ("hard", 8)):
        rows(n, name).to_csv(tmp_path / f"{name}.csv", sep="|" if name == "hard" else ";", index=False)
    items = dataset.load(registry.get(own(separator=";", ood={"hard": {"file": "hard.csv", "separator": "|"}})), **WHOLE)
    assert items["split"].value_counts().to_dict() == {"train": 90, "dev": 10, "test": 10, "hard": 8}


SPECS = {
    "drop is no list": ({"drop": "-"}, "drop: give a list of the labels whose rows are left out"),
    "drop of a label": ({"drop": ["no"]}, "drop: 'no' is a label too"),
    "drop of an unquoted no": ({"drop": [False]}, "drop: YAML reads an unquoted"),
    "drop misspelt": ({"dorp": ["-"]}, "unknown key 'dorp'; did you mean 'drop'"),
    "separator misspelt": ({"seperator": ";"}, "unknown key 'seperator'; did you mean 'separator'"),
    "separator of a set misspelt": ({"ood": {"hard": {"file": "hard.csv", "sep": ";"}}}, "unknown key 'ood.hard.sep'; did you mean 'separator'|choose from"),
    "separator of two": ({"separator": "::"}, "separator: is '::'; give the one character"),
    "separator that is a letter": ({"separator": "t"}, "separator: is 't'; give the one character"),
    "separator that is no text": ({"separator": 3}, "separator: is 3; give the one character"),
    "a shortcut of two texts": ({"columns": {"text_a": "premise", "label": "gold"}}, "shortcut: 'overlap' is of two texts, and columns.text_b is missing; add it, or, for single texts, take a_only"),
    "one text, but two in a set": ({"columns": {"text_a": "premise", "label": "gold"}, "shortcut": "a_only",
                                    "ood": {"hard": {"file": "hard.csv", "columns": {"text_a": "premise", "text_b": "hypothesis", "label": "gold"}}}},
                                   "ood.hard.columns: a task has one text in every file or two; take text_b out"),
    "two texts, but one in a set": ({"ood": {"hard": {"file": "hard.csv", "columns": {"text_a": "premise", "label": "gold"}}}},
                                    "ood.hard.columns: a task has one text in every file or two; add text_b"),
    "one column twice": ({"columns": {"text_a": "gold", "label": "gold"}, "shortcut": "a_only"}, "columns: text_a, label must be columns of their own"),
}


@pytest.mark.parametrize("spec, says", list(SPECS.values()), ids=list(SPECS))
def test_a_task_file_that_asks_for_what_cannot_be(own, spec, says):  # noqa: F811
    with pytest.raises(StudyError, match=f"mine.yaml: .*{says}") as error:
        registry.get(own(**spec))
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- single texts
REVIEWS = 'review,label\n"Slow, and far too long.",negative\nA joy from start to end.,positive\n"""Fine"", my mother said.",positive\n'


def test_a_file_of_single_texts_is_read(read):
    texts, labels, _ = read("a.csv", REVIEWS, {"negative": 0, "positive": 1}, {"text_a": "review", "label": "label"})
    assert texts == [["Slow, and far too long.", ""], ["A joy from start to end.", ""], ['"Fine", my mother said.', ""]]
    assert labels == [0, 1, 1]


@pytest.fixture
def single(tmp_path):
    """A task of single texts and its items: `fine` or `poor` tells the label, on `hard` it is turned round."""
    for name, n in (("train", 60), ("test", 20), ("hard", 12)):
        good = [i % 2 == 0 for i in range(n)]
        words = [("fine" if yes != (name == "hard") else "poor") for yes in good]
        write(pd.DataFrame({"review": [f"{name} {i} is a {word} film" for i, word in enumerate(words)],
                            "label": ["positive" if yes else "negative" for yes in good]}), tmp_path / f"{name}.csv")
    spec = {"name": "mine", "labels": ["negative", "positive"], "columns": {"text_a": "review", "label": "label"},
            "files": {"train": "train.csv", "test": "test.csv"}, "ood": {"hard": {"file": "hard.csv"}},
            "shortcut": "a_only", "licence": "CC0"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec))
    task = registry.get(tmp_path / "mine.yaml")
    return task, dataset.load(task, **WHOLE)


def test_all_that_reads_texts_reads_single_ones(single):
    task, items = single
    assert (task.text_a, task.text_b, task.shortcut) == ("review", "", "a_only") and (items["text_b"] == "").all()
    right = {name: measures.rows(table, items, task).groupby("split")["correct"].mean()
             for name, table in floors.predictions(items, task, 0).items()}
    assert right["shortcut only"]["test"] == right["bag of words"]["test"] == 1 and right["shortcut only"]["hard"] == 0
    assert risk.bigram_rarity(items).notna().all()
    assert overview(items, task)["repeated"].eq(0).all()
    first = items[items["split"] == "test"].head(1)
    again = pd.concat([items, first.assign(guid="again", label=1 - first["label"])], ignore_index=True)
    assert [one.partition(":")[0] for one in doubts(again, task)][:2] == [
        "1 of 21 rows of test repeat an earlier text", "2 rows of test hold a text that has two labels"]
    assert set(lengths.cut(items, pretrained.load_tokenizer("offline"), 64)["cut"]) == {0}


def test_the_shortcut_only_model_of_the_first_text_does_not_see_the_second():
    items = pd.DataFrame({"guid": range(40), "text_a": ["up", "down"] * 20, "label": [0, 1] * 20})
    items["text_a"] += [f" {i}" for i in range(40)]
    made = [difficulty.shortcut_only(items.assign(text_b=second), "a_only", 2, 4, 0) for second in ("x", [str(i) for i in range(40)])]
    assert (made[0] == made[1]).all() and (made[0].argmax(axis=1) == items["label"]).all()


def test_single_texts_and_pairs_are_tokenised_side_by_side():
    tokenizer = pretrained.load_tokenizer("offline")
    items = pd.DataFrame({"text_a": ["a cat", "a dog", "a man sits here"], "text_b": ["", "no", ""], "label": 0}, index=[7, 3, 5])
    encoded = batches.encode(tokenizer, items, 16)
    assert [tokenizer.decode(ids) for ids in encoded.input_ids] == ["[CLS] a cat [SEP]", "[CLS] a dog [SEP] no [SEP]", "[CLS] a man sits here [SEP]"]
    assert [types.tolist() for types in encoded.token_type_ids] == [[0] * 4, [0, 0, 0, 0, 1, 1], [0] * 6]
    assert batches.encode(tokenizer, items, 5).lengths.max() == 5


class Counted:
    """A victim that says class 0 while `dog` stands in a single text; it keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def logits(self, text_a, text_b):
        self.asked += zip(text_a, text_b)
        return np.array([[1.0 if "dog" in a else -1.0, 0.0] for a in text_a], np.float32)


def test_of_a_single_text_its_own_words_are_attacked():
    items = pd.DataFrame({"guid": ["g"], "split": "test", "text_a": "a big dog", "text_b": "", "label": 0, "subcase": "", "group": ""})
    victim = Counted()
    found = attack.run(victim, items, lambda word: {"dog": ["hound"]}.get(word, []), max_changed=1, max_candidates=3)
    assert found.loc[0, ["success", "words", "text_b", "adversarial"]].tolist() == [True, 3, "", "a big hound"]
    assert ("a big hound", "") in victim.asked and all(second == "" for _, second in victim.asked)
    again = Counted()
    assert not attack.replay(again, found, items)["g"] and again.asked == [("a big hound", "")]
