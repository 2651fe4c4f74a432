import json
import re
from importlib.util import find_spec
from io import StringIO

import nbformat
import pandas as pd
import pytest

from lib.errors import StudyError
from lib.figures.theme import color_of
from lib.files import ROOT
from lib.tools.book import build, html_tables, slider
from lib.tools.book.pages import Page, citations, is_picture, with_outputs

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FRAME = ('<div>\n<style scoped>\n th {}\n</style>\n<table border="1" class="dataframe">\n'
         "<thead><tr><th></th><th>a</th></tr></thead>"
         "<tbody><tr><th>dense</th><td>9.9 [-1.0, 2.0]</td></tr></tbody></table></div>")
FORGETTING = """model,subcase,count,depth,value,low,high,n,lost,lost_low,lost_high
dense,cleft,5,3,0.9,0.85,0.95,400,0,0,0
dense,role_swap,78,1,1,1,1,400,0,0,0
dense,unseen,0,2,0.8,0.75,0.85,400,0,0,0
imp-85,cleft,5,3,0.52,0.46,0.58,400,0.38,0.34,0.42
imp-85,role_swap,78,1,1,1,1,400,0,0,0
imp-85,unseen,0,2,0.5,0.45,0.55,400,0.3,0.26,0.34
imp-40,cleft,5,3,0.8,0.75,0.85,400,0.1,0.06,0.14
imp-40,role_swap,78,1,1,1,1,400,0,0,0
imp-40,unseen,0,2,0.8,0.75,0.85,400,0,0,0
heads-20,cleft,5,3,0.9,0.85,0.95,400,0,0,0
imp-70-after,cleft,5,3,0.9,0.85,0.95,400,0,0,0
"""
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinxcontrib", "sphinx-mathjax-offline")
needs_sphinx = pytest.mark.skipif(None in map(find_spec, NEEDED), reason="the extra `book` is not installed")


def notebook(*texts, code=()):
    return nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_markdown_cell, texts), *code])


def result(source, data, **metadata):
    made = nbformat.v4.new_code_cell(source, execution_count=1, metadata=metadata)
    made.outputs = [nbformat.v4.new_output("execute_result", data=one, execution_count=1) for one in data]
    return made


NOTEBOOKS = ["02_teacher", "03_distillation", "04_pruning", "09_claims", "10_your_model", "solutions/04_pruning",
             "micro_facts-04_pruning", "micro_facts-02_teacher"]


@pytest.fixture
def page(tmp_path):
    """A page of a book with two tasks, whose notebook would lie in a run."""
    def of(name, works=()):
        return Page(name, tmp_path / "toy" / "micro_nli" / "seed0" / f"{name}.ipynb", NOTEBOOKS, list(works))
    return of


def test_equations_get_labels_that_no_other_page_has(page):
    text = "# T\n\n$$a = b$$\n\n$$c$$ (loss)\n\n$$d$$ (size)\n\nby $x$"
    labels = {name: re.findall(r"\$\$ \((.+)\)", page(name).prose(text)) for name in ("04_pruning", "micro_facts-04_pruning")}
    assert labels["04_pruning"] == ["loss-04_pruning", "size-04_pruning"]
    assert not set(labels["04_pruning"]) & set(labels["micro_facts-04_pruning"])


def test_numbers_of_notebooks_become_links_to_the_page_of_the_same_task(page):
    text = ("# 04\n\n04 compresses it, see notebook 10, 0.04, `04` and 2020-04-05; 02 is [here](02_teacher.ipynb#save), "
            "`04_pruning` too, and 07")
    linked = page("02_teacher").prose(text)
    assert linked.startswith("# 04\n\n[04](04_pruning.ipynb) compresses it, see notebook [10](10_your_model.ipynb), 0.04, `04` ")
    assert linked.endswith("; 02 is [here](02_teacher.ipynb#save), [`04_pruning`](04_pruning.ipynb) too, and 07")
    assert page("micro_facts-02_teacher").prose("04 after 03") == \
        "[04](micro_facts-04_pruning.ipynb) after [03](03_distillation.ipynb)"
    assert page("solutions/04_pruning").prose("04 and 02") == "[04](../04_pruning.ipynb) and [02](../02_teacher.ipynb)"


def test_links_that_lead_out_of_the_book_are_words(page):
    text = "[solution](solutions/04_pruning.ipynb), [it](../04_pruning.ipynb), [x](../params/mini.yaml), [y](https://z.org)"
    assert page("10_your_model").prose(text) == text.replace("[x](../params/mini.yaml)", "x")


def test_works_are_cited_where_prose_names_them_and_the_text_stays(page):
    pytest.importorskip("pybtex")
    text = ("# Du et al.\n\nDu et al. say, and Du et al. prune; (PKD, Sun et al. 2019), Zhu and Gupta (2017), "
            "(Berger, 1982), Sun et al. and `Du et al.`")
    source = page("10_your_model", citations(ROOT / "notebooks" / "book" / "references.bib")).prose(text)
    assert source == ("# Du et al.\n\n{cite:author}`du2023` say, and Du et al. prune; (PKD, {cite:author}`sun2019` 2019), "
                      "{cite:author}`zhu2017` (2017), ({cite:author}`berger1982`, 1982), Sun et al. and `Du et al.`")


def saved(page, *names):
    """Tables and their SVGs in the folder of figures of a page's run."""
    folder = page.source.with_suffix("") / "figures"
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.csv").write_text(FORGETTING)
        (folder / f"{name}.svg").write_text(f"<svg>{name}</svg>")
    return folder


def test_each_picture_is_a_figure_of_its_own_with_caption_and_words_for_it(page):
    outputs = [{"image/png": PIXEL}, {"text/plain": "1"}, {"image/png": PIXEL}]
    cell = result("fig", outputs, caption="The `curve`", label="fig-c")
    _, first, between, second = page("04_pruning").made(notebook("# T", code=[cell])).cells
    assert first.metadata["mystnb"]["figure"] == {"caption": "The `curve`", "name": "fig-c-04_pruning"}
    assert first.metadata["mystnb"]["image"]["alt"] == "Plot: The curve"
    assert "figure" not in between.metadata["mystnb"] and "remove-input" in second.metadata["tags"]
    assert first.metadata["mystnb"]["figure"]["name"] != second.metadata["mystnb"]["figure"]["name"]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("**/[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_every_picture_of_a_notebook_has_a_caption_and_a_label_of_its_own(path):
    drawn = [cell for cell in nbformat.read(path, as_version=4).cells if any(map(is_picture, cell.get("outputs", [])))]
    assert all(cell.metadata.get("caption") for cell in drawn)
    assert len({cell.metadata["label"] for cell in drawn}) == len(drawn)


def test_a_figure_is_the_svg_beside_its_table_with_the_caption_and_label_of_its_cell(page):
    made = page("04_pruning")
    folder = saved(made, "curve")
    source = 'figures.save(fig, t, run.folder("x") / "figures" / "curve")\nfig'
    cell = result(source, [{"image/png": PIXEL, "text/plain": "f"}], caption="Score in 02. Up is better.", label="fig-up")
    (_, shown) = made.made(notebook("# T", code=[cell])).cells
    assert shown.outputs[0].data == {"image/svg+xml": "<svg>curve</svg>"}
    figure = shown.metadata["mystnb"]["figure"]
    assert figure["caption"] == \
        "Score in [02](02_teacher.ipynb). Up is better. ([its table](tables/04_pruning/curve.csv))"
    assert figure["name"] == "fig-up-04_pruning"
    assert "Up is better; its numbers" in shown.metadata["mystnb"]["image"]["alt"]
    (folder / "curve.svg").unlink()
    (_, shown) = made.made(notebook("# T", code=[cell])).cells
    assert shown.outputs[0].data["image/png"] == PIXEL


def test_figures_drawn_in_a_loop_are_told_apart(page):
    made = page("09_claims")
    saved(made, "plane_b", "plane_a", "planets")
    source = 'figures.save(fig, part, folder / "figures" / f"plane_{name}")'
    cell = result(source, [{"image/png": PIXEL}] * 2, caption="P.", label="fig-plane")
    (_, *shown) = made.made(notebook("# T", code=[cell])).cells
    assert [one.outputs[0].data["image/svg+xml"] for one in shown] == ["<svg>plane_a</svg>", "<svg>plane_b</svg>"]
    figures = [one.metadata["mystnb"]["figure"] for one in shown]
    assert figures[1]["caption"] == "P. (`b`, [its table](tables/09_claims/plane_b.csv))"
    assert figures[0]["name"] != figures[1]["name"]
    cell.outputs.pop()
    (_, alone) = made.made(notebook("# T", code=[cell])).cells
    assert "image/png" in alone.outputs[0].data


def test_code_that_draws_is_folded_but_not_in_solutions(page):
    cells = [result("fig", [{"image/png": PIXEL}]), result("1", [{"text/plain": "1"}])]
    _, drawn, other = page("04_pruning").made(notebook("# T", code=cells)).cells
    assert "hide-input" in drawn.metadata["tags"] and "hide-input" not in other.metadata["tags"]
    _, drawn, _ = page("solutions/04_pruning").made(notebook("# T", code=cells)).cells
    assert "hide-input" not in drawn.metadata["tags"]


# ---- the slider

def rows_of(html):
    """subcase -> (count, dense, text of each level) as the slider's table has them."""
    body = html.replace("&nbsp;", "\xa0").partition("<tbody>")[2]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in body.split("<tr>")[1:]]
    return {row[0]: (*row[1:-3], row[-2], *re.findall(r"<span[^>]*>(.*?)</span>", row[-1])) for row in rows}


def test_the_slider_holds_every_value_of_the_table_and_shows_the_last_level():
    table = pd.read_csv(StringIO(FORGETTING))
    html = slider.forgetting(table, chance=0.5)
    assert slider.levels_of(table) == ["dense", "imp-40", "imp-85"]
    assert list(rows_of(html)) == ["role swap", "cleft", "unseen"]
    assert rows_of(html)["cleft"] == (
        "5", "90.0", "90.0 [85.0,\xa095.0]", "80.0 [75.0,\xa085.0]", "52.0 [46.0,\xa058.0]")
    assert 'aria-valuetext="85\xa0%"' in html and '<label for="sparsity">' in html and '<output for="sparsity">' in html
    assert set(re.findall(r'data-level="(\d)" class="shown"', html)) == {"2"}
    assert "on 1 of the 2 subcases that train holds" in html and "38 [34, 42] points, on cleft (5 rows)" in html
    (left,) = re.findall(r'data-left="(\d+)"', html)
    places = [float(place) for place in re.findall(r'class="kept" cx="([\d.]+)%"', html)][3:6]
    assert left == "40" and [round(40 + 0.6 * place, 1) for place in places] == [90.0, 80.0, 52.0]
    assert all(color_of(name) in html for name in ("imp-40", "imp-85"))


def test_the_slider_needs_no_counts_and_no_chance_but_levels_to_move_over():
    table = pd.read_csv(StringIO(FORGETTING))
    html = slider.forgetting(table.assign(count=float("nan")))
    assert list(rows_of(html)) == ["cleft", "role swap", "unseen"] and "rows in" not in html and "chance" not in html
    assert "not a result" in slider.forgetting(table, smoke=True) and "not a result" not in html
    assert slider.forgetting(table[table["model"] != "imp-40"]) == ""
    assert slider.forgetting(table[table["model"] != "dense"]) == ""


def test_a_sentence_of_results_stands_without_its_code_and_the_appendix_is_folded(page):
    made = page("04_pruning").made(notebook("# 04", code=[
        result("here.found(run, told)", [{"text/markdown": "**Here:** it fell."}], tags=["answer"]),
        result("table", [{"text/plain": "1"}], tags=["appendix"])]))
    told, folded = [cell for cell in made.cells if cell.cell_type == "code"]
    assert "remove-input" in told.metadata["tags"] and told.outputs[0].data["text/markdown"] == "**Here:** it fell."
    assert "hide-cell" in folded.metadata["tags"] and folded.metadata["mystnb"]["code_prompt_show"].startswith("Show this")


def test_links_to_written_pages_hold_in_the_book(page):
    text = "[glossary](book/glossary.md) and [a place](../book/map.md#words)"
    assert page("04_pruning").prose(text) == "[glossary](glossary.md) and [a place](map.md#words)"
    assert page("solutions/04_pruning").prose(text) == "[glossary](../glossary.md) and [a place](../map.md#words)"


def test_the_slider_stands_right_under_the_forgetting_curve(page):
    made = page("04_pruning")
    saved(made, "forgetting", "sparsity")
    cells = [result(f'"figures" / "{name}"', [{"image/png": PIXEL}]) for name in ("forgetting", "sparsity")]
    _, curve, under, other = made.made(notebook("# T", code=cells)).cells
    assert "forgetting" in curve.source and "sparsity" in other.source
    assert '<input type="range"' in under.outputs[0].data["text/html"] and under.metadata["tags"] == ["remove-input"]


# ---- tables

def test_tables_say_what_their_heads_are_of_and_bars_are_folded(page):
    bar = nbformat.v4.new_output("stream", name="stdout", text="dense 100%|####| 384/384 [00:01<00:00]\n")
    cell = result("t", [{"text/html": FRAME}, {"text/markdown": "04 < 5"}])
    cell.outputs.append(bar)
    (_, made) = page("02_teacher").made(notebook("# T", code=[cell])).cells
    html = made.outputs[0].data["text/html"]
    assert "<style" not in html and '<td class="stays"></td><th scope="col">a' in html
    assert '<th class="stays" scope="row">dense' in html and "[-1.0,\xa02.0]" in html
    assert made.outputs[1].data["text/markdown"].startswith("[04](04_pruning.ipynb)")
    assert made.outputs[2].data["text/html"].startswith("<details>") and "&lt;00:00" in made.outputs[2].data["text/html"]


def cells_of(html, kind, row):
    return re.findall(rf"<{kind}[^>]*>(.*?)</{kind}>", html.split("<tr")[row])


def test_a_mere_count_of_rows_gives_way_to_their_names():
    frame = pd.DataFrame({"id": ["A1", "A2", "A3"], "task": ["nli"] * 3, "ours": [0.3, 2.5e9, float("nan")],
                          "word": ["holds"] * 3})
    html = html_tables.accessible(frame._repr_html_())
    assert cells_of(html, "th", 1) == ["id", "task", "ours", "word"]
    assert cells_of(html, "th", 3) == ["A2", "nli"] and cells_of(html, "td", 3) == ["2,500,000,000", "holds"]
    assert cells_of(html, "td", 2)[0] == "0.3" and cells_of(html, "td", 4)[0] == "–"
    assert html.count('class="stays"') == 4 and html.count('class="word"') == 4
    sentences = pd.DataFrame({"premise": ["The doctor helped the judge near the lake."], "n": [1]})
    assert cells_of(html_tables.accessible(sentences._repr_html_()), "th", 2) == ["0"]


def test_of_several_levels_the_one_that_tells_rows_apart_stays_in_sight():
    rows = [("nli", "dense", 5), ("nli", "imp-70", 5), ("facts", "imp-85", 5)]
    frame = pd.DataFrame({"test": [1.5, 2.5, 3.5]}, index=pd.MultiIndex.from_tuples(rows, names=["task", "model", "n"]))
    html = html_tables.accessible(frame._repr_html_())
    assert re.findall(r'class="stays"[^>]*>(.*?)<', html) == ["", "model", "dense", "imp-70", "imp-85"]


# ---- what is written now, with the outputs of the run

PARAMETERS = [result("x = 1", [], tags=["parameters"]), result("x = 2", [], tags=["injected-parameters"])]


def ran_and_written(old, new):
    """A run of three cells that show 2, 3 and 4, the first of them `old`, and the notebook now, with `new` in its place."""
    rest = ["pd.DataFrame(x)", "report.versions()"]
    sources = [old, *rest]
    ran = notebook("# old", code=[*PARAMETERS, *(result(s, [{"text/plain": str(n)}]) for n, s in enumerate(sources, 2))])
    now = [new, *rest]
    written = notebook("# new", code=[PARAMETERS[0], *(result(s, [{"text/plain": "smoke"}], caption=s) for s in now)])
    return nbformat.from_dict(ran), nbformat.from_dict(written)


def shows(page):
    return [(cell.source, cell.outputs[0].data["text/plain"]) for cell in page.cells
            if cell.cell_type == "code" and cell.outputs]


def test_the_code_and_prose_of_now_are_shown_with_the_outputs_and_parameters_of_the_run():
    ran, written = ran_and_written("from lib import mitigation\n\nrows = mitigation.pairs(x)",
                                   "from lib.trials import mend\n\nrows = mend.pairs(x)")
    written.cells.insert(2, nbformat.v4.new_markdown_cell("between"))
    page = with_outputs(written, ran)
    assert [cell.source for cell in page.cells][:4] == ["# new", "x = 1", "x = 2", "between"]
    assert shows(page) == [("from lib.trials import mend\n\nrows = mend.pairs(x)", "2"), ("pd.DataFrame(x)", "3"),
                           ("report.versions()", "4")]
    assert page.cells[-1].metadata["caption"] == "report.versions()"


def test_a_cell_that_has_moved_keeps_its_output():
    ran, written = ran_and_written("rows.mean(axis=0)", "rows.mean(axis=0)")
    written.cells.append(written.cells.pop(2))
    assert [output for _, output in shows(with_outputs(written, ran))] == ["3", "4", "2"]


def test_a_new_cell_is_shown_without_output_under_a_note_but_a_method_with_its_own():
    ran, written = ran_and_written("x", "x")
    written.cells[3:3] = [result("by_hand = x ** 2", [{"text/plain": "4"}], tags=["method"]),
                          result("first = earlier.result(x)", [{"text/plain": "smoke"}])]
    page = with_outputs(written, ran)
    assert shows(page) == [("x", "2"), ("by_hand = x ** 2", "4"), ("pd.DataFrame(x)", "3"), ("report.versions()", "4")]
    note = next(place for place, cell in enumerate(page.cells) if "newer than this run" in cell.source)
    assert page.cells[note + 1].source == "first = earlier.result(x)" and not page.cells[note + 1].outputs


def test_a_result_is_found_by_the_line_that_shows_it_though_its_cell_was_split():
    ran, written = ran_and_written("x = 3\ndense = read(x)\nreport.caveats(dense, 1)", "x = 3\ndense = read(x)")
    written.cells.append(result("report.caveats(dense, 2)", [{"text/plain": "smoke"}]))
    assert [output for _, output in shows(with_outputs(written, ran))] == ["3", "4", "2"]


def test_a_run_with_a_result_that_has_no_cell_any_more_is_shown_as_it_was_and_says_so():
    ran, written = ran_and_written("x", "other = pairs.of(x, 3)")
    page = with_outputs(written, ran)
    assert page.cells[0].source == "# old" and "earlier layout" in page.cells[1].source
    assert [text for _, text in shows(page)] == ["2", "3", "4"]
    ran, written = ran_and_written("x", "other = pairs.of(x, 3)")
    ran.cells[3].outputs = [nbformat.v4.new_output("stream", text="100%|###|")]
    assert with_outputs(written, ran).cells[0].source == "# new"


def test_a_run_that_stopped_says_so():
    ran, written = ran_and_written("x", "x")
    assert "not come to its end" not in with_outputs(written, ran).cells[1].source
    ran, written = ran_and_written("x", "x")
    ran.cells[-1].execution_count, ran.cells[-1].outputs = None, []
    page = with_outputs(written, ran)
    assert "not come to its end" in page.cells[1].source and len(shows(page)) == 2


# ---- a toy study, built

@pytest.fixture
def study(tmp_path):
    """A folder with one executed run of two notebooks, what every book needs besides, and the book's own settings."""
    for path in (ROOT / "notebooks" / "book").rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for page in (tmp_path / "notebooks" / "book").glob("*.md"):  # figures that the written pages show
        for place in re.findall(r"\]\(\.\./\.\./(outputs/[^)]+)\)", page.read_text()):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            name = (tmp_path / place).stem
            (tmp_path / place).write_text(
                f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><title>{name}</title></svg>')
    (tmp_path / "notebooks" / "solutions").mkdir()
    for name in ("00_question", "06b_doses", "10_your_model", "solutions/04_pruning"):
        text = f"# {name}\n\n[Question](../00_question.ipynb)." if "/" in name else f"# {name}"
        nbformat.write(notebook(text), tmp_path / "notebooks" / f"{name}.ipynb")
    run = tmp_path / "outputs" / "reference" / "toy"
    (run / "micro_nli" / "seed0").mkdir(parents=True)
    picture = result("fig", [{"image/png": PIXEL}, {"text/html": FRAME}], caption="A fig.", label="fig-it")
    text = ("# 04 · Pruning\n\n## Seen\n\n$$s = 1$$ (schedule)\n\nSo says (Berger, 1982). "
            "[Solutions](solutions/04_pruning.ipynb).")
    nbformat.write(notebook(text, code=[picture]), run / "micro_nli" / "seed0" / "04_pruning.ipynb")
    nbformat.write(notebook("# 09 · Claims\n\nSee 04.", code=[result("1", [])]), run / "09_claims.ipynb")
    return tmp_path


@needs_sphinx
def test_a_book_is_built_with_numbers_links_and_local_scripts_only(study):
    assert build.build_book("toy", study / "html", root=study) == 6
    page = (study / "html" / "04_pruning.html").read_text()
    assert "Figure 4.1" in page and "(4.1)" in page and "references.html#" in page
    assert 'href="solutions/04_pruning.html"' in page and "outputs/reference/toy/micro_nli/seed0" in page
    assert 'href="../00_question.html"' in (study / "html" / "solutions" / "04_pruning.html").read_text()
    assert 'href="04_pruning.html"' in (study / "html" / "09_claims.html").read_text()
    assert "and no result" in (study / "html" / "06b_doses.html").read_text()
    assert "shows the run <code" in (study / "html" / "index.html").read_text().replace("\n", " ")
    assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css)', page)
    assert (study / "html" / "_static" / "tex-svg-full.js").exists()


@needs_sphinx
def test_a_run_of_several_tasks_has_pages_for_each_with_the_same_numbers(study):
    other = study / "outputs" / "reference" / "toy" / "micro_facts" / "seed0"
    other.mkdir(parents=True)
    first = study / "outputs" / "reference" / "toy" / "micro_nli" / "seed0"
    (other / "04_pruning.ipynb").write_bytes((first / "04_pruning.ipynb").read_bytes())
    nbformat.write(notebook("# 02 · Teacher\n\nBefore 04."), first / "02_teacher.ipynb")
    assert build.build_book("toy", study / "html", root=study) == 8
    page = (study / "html" / "micro_facts-04_pruning.html").read_text()
    assert "Figure 4.1" in page and "(4.1)" in page and "micro_facts/seed0" in page
    assert re.search(r"micro_facts</span>.*micro_facts-04_pruning.html", (study / "html" / "index.html").read_text(), re.S)


@needs_sphinx
def test_what_sphinx_warns_about_fails_and_keeps_the_old_book(study, capsys):
    (study / "html").mkdir()
    (study / "html" / "index.html").write_text("old")
    (study / "notebooks" / "book" / "guide.md").write_text("# Guide\n\n{eq}`nowhere`\n")
    with pytest.raises(StudyError, match="not built"):
        build.build_book("toy", study / "html", root=study)
    assert "guide.md" in capsys.readouterr().err and (study / "html" / "index.html").read_text() == "old"


@needs_sphinx
def test_the_first_page_shows_the_answers_figure_from_the_committed_run(study):
    build.build_book("toy", study / "html", root=study)
    shown = re.findall(r'<img[^>]+src="(_images/[^"]+\.svg)"', (study / "html" / "index.html").read_text())
    assert [re.search(r"<title>(.+)</title>", (study / "html" / name).read_text())[1] for name in shown] == ["answer", "answer", "lost_by_time"]


def test_a_figure_that_a_page_shows_and_no_run_has_is_named(study):
    next(study.glob("outputs/reference/*/09_claims/figures/answer.svg")).unlink()
    with pytest.raises(StudyError, match="answer.svg is not there"):
        build.lay_out(study / "source", build.run_of("toy", study), study)


def test_a_profile_that_has_not_run_is_named(study):
    with pytest.raises(StudyError, match="outputs/tooy holds no executed notebook.*did you mean 'toy'"):
        build.run_of("tooy", study)


def test_a_run_of_your_own_comes_before_the_committed_one(study):
    own = study / "outputs" / "toy" / "micro_nli" / "seed3"
    own.mkdir(parents=True)
    assert build.run_of("toy", study) == study / "outputs" / "reference" / "toy"
    (own / "01_data.ipynb").write_text(json.dumps(notebook("# T")))
    assert build.run_of("toy", study) == study / "outputs" / "toy"


def test_the_seed_with_the_most_notebooks_is_shown_and_the_fullest_task_needs_no_name(study):
    run = study / "outputs" / "reference" / "toy"
    for place in ("micro_nli/seed1/01_data", "micro_nli/seed1/04_pruning", "micro_facts/seed0/01_data"):
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / f"{place}.ipynb").write_text(json.dumps(notebook("# T")))
    pages = {name: path.parent for name, path in build.gather(run, study / "notebooks").items() if run in path.parents}
    assert pages == {"01_data": run / "micro_nli" / "seed1", "04_pruning": run / "micro_nli" / "seed1",
                     "micro_facts-01_data": run / "micro_facts" / "seed0", "09_claims": run}
