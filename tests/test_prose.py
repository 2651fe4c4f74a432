"""The text of the notebooks and of the book: no number typed by hand in it, and the shape of each notebook."""

import re
from pathlib import Path
from statistics import median

import nbformat
import pytest

from lib.files import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("[0-9]*.ipynb"))
PAGES = sorted((ROOT / "notebooks" / "book").glob("*.md"))
PLACES = "[Tt]able|[Ff]igure|[Ss]ection|[Ee]quation|[Aa]ppendix|[Cc]laim|[Ee]xercise"
MORE = r"(?:(?:, | and | or | to |-|–)\(?[A-Z]?\d+(?:\.\d+)*[a-z]?\)?)*"
ALLOWED = [re.compile(pattern, re.M | re.S) for pattern in (
    r"^(```+|~~~+).*?^\1", r"(`+)(?:(?!\n\n).)+?\1", r"\$\$.*?\$\$", r"\$[^$\n]+\$",
    r"<!-- found:.*?<!-- end -->", r"<!--.*?-->",  # the first is read from results by lib.tools.findings
    r"\[1[01]\]\([^)\s]*1[01]_\w+\.ipynb[^)\s]*\)", r"\]\([^)\s]*\)", r"<?https?://[^>\s)]*>?",
    r"^\([\w:-]+\)=$",  # the name of a place
    r"\barXiv[: ]?\d{4}\.\d{4,5}(?:v\d)?",
    rf"\b(?:{PLACES})s? \(?[A-Z]?\d+(?:\.\d+)*[a-z]?\)?{MORE}",
    r"\bPython \d+(?:\.\d+)*",
    r"\b(?:[Nn]otebooks? )?(?<![\w.,/:-])0\d[a-z]?\b(?:(?:, | and | or | to )(?:0\d|1[01])[a-z]?\b)*(?!%|[-/:.,]\d| %)",
    r"\b[Nn]otebooks? 1[01]\b", r"^#+ [^\n]*?\b1[01](?= ·)",  # 10 and 11 are numbers of rows elsewhere
    r"\b(?:19\d\d|20(?:0[1-9]|[123]\d))\b(?! *(?:rows|steps|examples|pairs|items|%))",
    r"(?<![\w.])[A-Za-z]\w*(?:[-.+]\w+)*",  # a name: imp-70, int8, A7, MiniLM-L6-v2
    r"^(?:#+ |\s*(?:> *)?)\d+[.)] ")]


def typed(text: str) -> list[str]:
    """The words of a Markdown text that hold a digit which no rule of ALLOWED takes for something else than a number."""
    for pattern in ALLOWED:
        text = pattern.sub(lambda match: "\n" * match[0].count("\n") + " . ", text)
    return [word.strip(".,;:()*_|") for word in text.split() if re.search(r"\d", word)]


def numbers(notebook) -> list[str]:
    """A line for each text cell, and each caption, with digits typed by hand."""
    found = []
    for place, cell in enumerate(notebook.cells):
        text = cell.metadata.get("caption", "") if cell.cell_type == "code" else cell.source
        if words := typed(text):
            found.append(f"cell {place} ({' '.join(text.split())[:40]!r}): {', '.join(words)}")
    return found


def silent(notebook) -> list[str]:
    """The sections that show a result of the run and do not end by saying what it is (`here.found`). A cell whose last
    line is an assignment shows nothing."""
    sections = {}
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (new := re.search(r"^## (.+)", cell.source, re.M)):
            heading = new[1]
        elif cell.cell_type == "code":
            sections.setdefault(heading, []).append(cell)
    told = {heading for heading, cells in sections.items() if any("here." in cell.source for cell in cells)}
    shows = {heading for heading, cells in sections.items() for cell in cells
             if not {"method", "appendix", "parameters", "nbval-check-output"} & set(cell.metadata.get("tags", []))
             and not re.match(r"[\w, ]+ = ", cell.source.splitlines()[-1])}
    return [heading for heading in sections if heading in shows - told - {"", "Parameters", "Appendix"}]


def faults(notebook, solutions: set[str], name: str) -> list[str]:
    """Where a notebook's shape is not what a reader and a teacher count on; a line each."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    told = [cell for cell in code if not {"answer", "appendix"} & set(cell.metadata.get("tags", []))]  # others are
    # sentences made of results, or tables without words
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    lengths = [len(cell.source.splitlines()) for cell in code if "parameters" not in cell.metadata.get("tags", [])]
    whole = "\n\n".join(cell.source for cell in texts)
    headings = re.findall(r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", whole, flags=re.M | re.S), re.M)
    tasks = re.findall(r"^\d+\. ", whole.rpartition("## Exercises")[2].partition("## Appendix")[0], re.M)
    answers = [cell.source for cell in texts if "answer" in cell.metadata.get("tags", [])]
    rules = {
        f"{len(texts)} text cells for {len(told)} code cells: 1.2 or more for each": len(texts) >= 1.2 * len(told),
        f"the median code cell has {median(lengths or [0])} lines: 8 at most": median(lengths or [0]) <= 8,
        f"the longest code cell has {max(lengths, default=0)} lines: 20 at most": max(lengths, default=0) <= 20,
        "the first cell has no question in bold": re.search(r"^\*\*[^*]+\?\*\*$", texts[0].source if texts else "", re.M),
        f"it ends with {headings[-3:]}, not with Summary, Exercises and at most an Appendix":
            [name for name in headings if name != "Appendix"][-2:] == ["Summary", "Exercises"]
            and headings[-1] in ("Exercises", "Appendix"),
        f"{len(tasks)} exercises: two to four": 2 <= len(tasks) <= 4,
        f"no link [Solutions](solutions/{name}.ipynb)": f"](solutions/{name}.ipynb)" in whole,
        f"notebooks/solutions has no {name}.ipynb": name in solutions,
        "no text cell is tagged `answer`": answers,
        "an answer cell holds an equation, or a heading other than Summary":
            not any("$$" in text or set(re.findall(r"^#+ +(.+)", text, re.M)) - {"Summary"} for text in answers),
    }
    return [fault for fault, kept in rules.items() if not kept]


# ---- the rules themselves

@pytest.mark.parametrize("text, words", [
    ("It fell by 5 points.", ["5"]), ("a 95 % interval", ["95"]), ("kept (0.84), not 1.", ["0.84", "1"]),
    ("of 2,048 rows", ["2,048"]), ("2048 steps, then 2001 rows", ["2048", "2001"]), ("in 10 rows and 11", ["10", "11"]),
    ("nearly 70% of it", ["70%"]), ("seeds 0 and 1", ["0", "1"]), ("05 % of them", ["05"]), ("| imp-70 | 97.2 |", ["97.2"]),
    ("-4.1 points", ["-4.1"]), ("about +3 and 2x", ["+3", "2x"]), ("- 3 of 4", ["3", "4"]), ("Table 3 has 5 rows", ["5"]),
    ("`0.5`, or 0.5", ["0.5"])])
def test_numbers_typed_by_hand_are_found(text, words):
    assert typed(text) == words


@pytest.mark.parametrize("text", [
    "Liu et al. (NeurIPS 2022)", "arXiv 2110.08419, [arXiv:2109.03228v2](https://arxiv.org/abs/2109.03228)",
    "(paper A, Table 3), Tables 3 and 4, Figure 2, Section 4.1, equation (2), claim A7 or claims O3, P1", "A7 stands in 09",
    "# 04 · Pruning", "# 10 · Your model", "# Solutions to 11 · Your task", "06b, 05, 06 and 07; notebooks 09 to 11",
    "`sparsity_levels = [0.5]`, `04_pruning` and ``a ` 5``", "$x_1 = 0.5$ and\n\n$$y = 2\n\n+ 3$$ (loss)", "Python 3.11",
    "```bash\npapermill -p n 5\n\nmake 3\n```", "imp-70, truncated-3 + ptq8, int8, Sym1, MiniLM-L6-v2, CC-BY-4.0",
    "1. Do it.\n2. Do it.\n   1. Twice.", "## 3. Do it", "[the data](../params/x2.yaml#3)", "half of three rows in ten",
    "(fig-2)=\n", "[10](../10_your_model.ipynb)", "<!-- 5 -->",
    "<!-- found: mini A7 -->It fell by 5 points.<!-- end -->"])
def test_what_is_no_number_of_a_result_is_allowed(text):
    assert typed(text) == []


def made(*cells):
    """A notebook of cells written as "TAGS|TEXT", code where the text begins with %."""
    new = {True: nbformat.v4.new_code_cell, False: nbformat.v4.new_markdown_cell}
    parts = [cell.partition("|")[::2] for cell in cells]
    return nbformat.v4.new_notebook(cells=[
        new[text.startswith("%")](text.removeprefix("%"), metadata={"tags": tags.split()}) for tags, text in parts])


WELL = ("|# 04 · Pruning\n\n**What goes?**", "|## Parameters", "parameters|%" + "a = 1\n" * 30, "|Look.", "|%a",
        "answer|It fell.", "answer|## Summary\n\nIt fell.",
        "|## Exercises\n\n1. Do.\n2. Try.\n\n[Solutions](solutions/04_x.ipynb)")


def test_a_notebook_as_it_should_be_has_no_fault():
    assert faults(made(*WELL), {"04_x"}, "04_x") == [] and numbers(made(*WELL)) == []


@pytest.mark.parametrize("place, cell, fault", [
    (4, "|%" + "a\n" * 9, "median code cell has 9"), (4, "|%" + "a\n" * 21, "longest code cell has 21"),
    (0, "|# 04 · Pruning\n\nWhat goes?", "no question in bold"), (6, "|## End", "not with Summary, Exercises"),
    (7, "|## Exercises\n\n1. Do.\n\n[Solutions](solutions/04_x.ipynb)", "1 exercises"),
    (7, "|## Exercises\n\n1. Do.\n2. Try.", "no link"), (5, "answer|$$a$$", "an answer cell holds an equation"),
    (5, "answer|### Next", "an answer cell holds an equation, or a heading")])
def test_each_fault_of_shape_is_named(place, cell, fault):
    cells = [*WELL[:place], cell, *WELL[place + 1:]]
    assert any(fault in found for found in faults(made(*cells), {"04_x"}, "04_x"))


def test_a_section_that_shows_a_result_and_says_nothing_is_named():
    cells = ("|## Parameters", "parameters|%a = 1", "|## Shown", "|%table", "|## Told", "|%table", "answer|%here.found(run, said)",
             "|## Made", "|%made = train()", "|## By hand", "method|%1 + 1", "|## Appendix", "appendix|%table")
    assert silent(made(*cells)) == ["Shown"]


def test_code_with_too_little_text_is_named():
    bare = made(*WELL[:4], *["|%a"] * 4, *WELL[4:])
    assert faults(bare, {"04_x"}, "04_x") == ["6 text cells for 6 code cells: 1.2 or more for each"]


def test_a_notebook_without_answers_or_solutions_is_named():
    bare = made(*(cell.replace("answer|", "|") for cell in WELL))
    assert [fault.split()[0] for fault in faults(bare, set(), "04_x")] == ["notebooks/solutions", "no"]


def test_the_message_names_the_cell_and_the_caption_counts():
    notebook = made("|Fine.", "|It fell by 5 points.", "|%plot")
    notebook.cells[2].metadata["caption"] = "Over 3 seeds."
    assert numbers(notebook) == ["cell 1 ('It fell by 5 points.'): 5", "cell 2 ('Over 3 seeds.'): 3"]


# ---- what is committed

@pytest.mark.parametrize("path", NOTEBOOKS + SOLUTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_number_is_typed_by_hand_in_a_notebook(path: Path):
    found = numbers(nbformat.read(path, as_version=4))
    told = "read numbers from results, write small counts as words"
    assert not found, f"{path.relative_to(ROOT)}: {told}:\n" + "\n".join(found)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_number_is_typed_by_hand_in_a_page_of_the_book(path: Path):
    found = typed(path.read_text())
    assert not found, f"{path.relative_to(ROOT)}: write it as a word, or leave it to a result: {', '.join(found)}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_can_be_read_and_taught(path: Path):
    found = faults(nbformat.read(path, as_version=4), {solution.stem for solution in SOLUTIONS}, path.stem)
    assert not found, f"{path.relative_to(ROOT)}:\n" + "\n".join(found)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if "02" <= path.stem < "10"], ids=lambda path: path.stem)
def test_every_section_that_shows_a_result_says_what_it_is(path: Path):
    assert not silent(nbformat.read(path, as_version=4)), "end the section with here.found"


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem != "09_claims"],  # 09 draws what its runs hold
                         ids=lambda path: path.stem)
def test_a_cell_with_a_caption_shows_something(path: Path):
    cells = nbformat.read(path, 4).cells
    assert not [cell.metadata.label for cell in cells if "caption" in cell.metadata and not cell.outputs]


@pytest.mark.parametrize("path", sorted((ROOT / "outputs" / "reference" / "mini").rglob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_the_committed_mini_ran_todays_notebooks(path: Path):
    ran, today = ([cell.source for cell in nbformat.read(of, 4).cells if not {"parameters", "injected-parameters"} & {
        *cell.metadata.get("tags", [])}] for of in (path, ROOT / "notebooks" / path.name))
    assert ran == today, (f"{path.relative_to(ROOT)} is of another form of {path.name}: run `make study PROFILE=mini`, then "
                          "`python -m lib.tools.reference mini`")
