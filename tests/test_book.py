import importlib.util
import json
import re
from io import StringIO

import nbformat
import pandas as pd
import pytest
import yaml

from lib.errors import StudyError
from lib.figures.theme import color_of
from lib.files import ROOT
from lib.params.profile import load_profile
from lib.tools.book import build, html_tables, pages, slider
from lib.tools.book.pages import Page, Writer, labels_of, with_prose

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WORKS = pages.citations({
    "du2023": (["Du", "Hu", "Awadallah"], "2023", "2110.08419", True),
    "sun2019": (["Sun", "Cheng", "Liu"], "2019", "", False),
    "zhu2017": (["Zhu", "Gupta"], "2017", "", False), "berger1982": (["Berger"], "1982", "", False)})
FRAME = ('<div>\n<style scoped>\n th {}\n</style>\n<table border="1" class="dataframe">\n'
         "<thead><tr><th></th><th>a</th></tr></thead>"
         "<tbody><tr><th>dense</th><td>9.9 [-1.0, 2.0]</td></tr></tbody></table></div>")
FORGETTING = """model,subcase,count,depth,value,low,high,n
dense,cleft,5,3,0.9,0.85,0.95,400
dense,role_swap,78,1,1,1,1,400
dense,unseen,0,2,0.8,0.75,0.85,400
imp-85,cleft,5,3,0.52,0.46,0.58,400
imp-85,role_swap,78,1,1,1,1,400
imp-85,unseen,0,2,0.5,0.45,0.55,400
imp-40,cleft,5,3,0.8,0.75,0.85,400
imp-40,role_swap,78,1,1,1,1,400
imp-40,unseen,0,2,0.8,0.75,0.85,400
heads-20,cleft,5,3,0.9,0.85,0.95,400
imp-70-after,cleft,5,3,0.9,0.85,0.95,400
"""
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
needs_sphinx = pytest.mark.skipif(any(importlib.util.find_spec(name.split(".")[0]) is None for name in build.NEEDED),
                                  reason="the extra `book` is not installed")


def notebook(*texts, code=()):
    return nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_markdown_cell, texts), *code])


def result(source, data, **metadata):
    made = nbformat.v4.new_code_cell(source, execution_count=1, metadata=metadata)
    made.outputs = [nbformat.v4.new_output("execute_result", data=one, execution_count=1) for one in data]
    return made


@pytest.fixture
def pages(tmp_path):
    names = ("mini/09_claims", "mini/micro_nli/02_teacher", "mini/micro_nli/04_pruning", "real/mnli/04_pruning",
             "10_your_model", "solutions/04_pruning")
    return [Page(name, tmp_path / f"{name}.ipynb") for name in names]


def writer(pages, name, labels=None):
    by_name = {page.name: page for page in pages}
    return Writer(by_name[name], pages, {page.name: set() for page in pages} | (labels or {}), WORKS)


def test_equations_and_references_get_labels_that_no_other_page_has(pages):
    text = "# T\n\n$$a = b$$\n\n$$c$$ (loss)\n\nby {eq}`loss` and {eq}`the loss <loss>`"
    labels = {name: {"loss"} for name in ("mini/micro_nli/04_pruning", "real/mnli/04_pruning")}
    (cell,) = writer(pages, "mini/micro_nli/04_pruning", labels).write(notebook(text)).cells
    first, second = re.findall(r"\$\$ \(([\w-]+)\)", cell.source)
    assert first != second and f"{{eq}}`{second}`" in cell.source
    (elsewhere,) = writer(pages, "real/mnli/04_pruning", labels).write(notebook(text)).cells
    assert second not in elsewhere.source
    (from_far,) = writer(pages, "mini/09_claims", labels).write(notebook("# T\n\n{eq}`loss`")).cells
    assert f"{{eq}}`{second}`" in from_far.source


def test_titles_say_the_run_and_levels_do_not_jump(pages):
    toy = notebook("# 04 · Pruning\n\n### deep", "# again\n```\n# a comment\n```")
    cells = writer(pages, "mini/micro_nli/04_pruning").write(toy).cells
    assert cells[0].source == "# 04 · Pruning (mini, micro_nli)\n\n## deep"
    assert cells[1].source == "## again\n```\n# a comment\n```"


def test_numbers_of_notebooks_become_links_to_the_nearest_copy(pages):
    text = ("# T\n\n04 compresses it, see notebook 10, 0.04, `04` and 2020-04-05; 02 is [here](02_teacher.ipynb#save), "
            "`04_pruning` too")
    (near,) = writer(pages, "mini/micro_nli/02_teacher").write(notebook(text)).cells
    assert "[04](04_pruning.ipynb) compresses" in near.source and "[10](../../10_your_model.ipynb)" in near.source
    assert ", 0.04, `04` and 2020-04-05; 02 is [here](02_teacher.ipynb#save), " in near.source
    assert near.source.endswith("[`04_pruning`](04_pruning.ipynb) too")
    text = "# T\n\n[teacher](02_teacher.ipynb), [x](../params/mini.yaml)"
    (far,) = writer(pages, "real/mnli/04_pruning").write(notebook(text)).cells
    assert "[teacher](../../mini/micro_nli/02_teacher.ipynb), x" in far.source


def test_solutions_are_linked_only_by_their_folder(pages):
    text = "# T\n\n[solution](solutions/04_pruning.ipynb) of [it](04_pruning.ipynb)"
    (cell,) = writer(pages, "10_your_model").write(notebook(text)).cells
    assert "[solution](solutions/04_pruning.ipynb) of [it](mini/micro_nli/04_pruning.ipynb)" in cell.source


def test_works_are_cited_where_prose_names_them_and_the_text_stays(pages):
    text = ("# Du et al.\n\nDu et al. say, and Du et al. prune; (PKD, Sun et al. 2019), Zhu and Gupta (2017), "
            "(Berger, 1982), Sun et al. and `Du et al.`")
    source = writer(pages, "10_your_model").write(notebook(text)).cells[0].source
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


def test_each_picture_is_a_figure_of_its_own_with_caption_and_words_for_it(pages):
    cell = result("fig", [{"image/png": PIXEL}, {"text/plain": "1"}, {"image/png": PIXEL}])
    _, first, between, second = writer(pages, pages[2].name).write(notebook("# T\n\n## The `curve`", code=[cell])).cells
    assert first.metadata["mystnb"]["figure"]["caption"] == "The `curve`"
    assert first.metadata["mystnb"]["image"]["alt"] == "Plot: The curve"
    assert "figure" not in between.metadata["mystnb"] and "remove-input" in second.metadata["tags"]
    assert first.metadata["mystnb"]["figure"]["name"] != second.metadata["mystnb"]["figure"]["name"]


def test_a_figure_is_the_svg_beside_its_table_with_the_caption_and_label_of_its_cell(pages):
    folder = saved(pages[2], "curve")
    source = 'figures.save(fig, t, run.folder("x") / "figures" / "curve")\nfig'
    cell = result(source, [{"image/png": PIXEL, "text/plain": "f"}], caption="Score in 04. Up is better.", label="fig-up")
    made = writer(pages, pages[2].name)
    (_, shown) = made.write(notebook("# T", code=[cell])).cells
    assert shown.outputs[0].data == {"image/svg+xml": "<svg>curve</svg>"}
    figure = shown.metadata["mystnb"]["figure"]
    assert figure["caption"] == "Score in 04. Up is better. ([its table](tables/04_pruning-curve.csv))"
    assert figure["name"].startswith("fig-up-") and labels_of(notebook(code=[cell])) == {"fig-up"}
    assert "Up is better; its numbers" in shown.metadata["mystnb"]["image"]["alt"]
    assert made.tables == {folder / "curve.csv": "tables/04_pruning-curve.csv"}
    (folder / "curve.svg").unlink()
    (_, shown) = writer(pages, pages[2].name).write(notebook("# T", code=[cell])).cells
    assert shown.outputs[0].data["image/png"] == PIXEL


def test_figures_drawn_in_a_loop_are_told_apart(pages):
    saved(pages[0], "plane_b", "plane_a", "planets")
    cell = result('figures.save(fig, part, folder / "figures" / f"plane_{name}")', [{"image/png": PIXEL}] * 2, caption="P.")
    (_, *shown) = writer(pages, pages[0].name).write(notebook("# T", code=[cell])).cells
    assert [one.outputs[0].data["image/svg+xml"] for one in shown] == ["<svg>plane_a</svg>", "<svg>plane_b</svg>"]
    captions = [one.metadata["mystnb"]["figure"]["caption"] for one in shown]
    assert captions[1] == "P. (`b`, [its table](tables/09_claims-plane_b.csv))"
    assert labels_of(notebook(code=[cell])) == {"fig-plane"}
    cell.outputs.pop()
    (_, alone) = writer(pages, pages[0].name).write(notebook("# T", code=[cell])).cells
    assert "image/png" in alone.outputs[0].data


def test_code_that_draws_is_folded_but_not_in_solutions(pages):
    cells = [result("fig", [{"image/png": PIXEL}]), result("1", [{"text/plain": "1"}])]
    _, drawn, other = writer(pages, pages[2].name).write(notebook("# T", code=cells)).cells
    assert "hide-input" in drawn.metadata["tags"] and "hide-input" not in other.metadata["tags"]
    _, drawn, _ = writer(pages, "solutions/04_pruning").write(notebook("# T", code=cells)).cells
    assert "hide-input" not in drawn.metadata["tags"]


# ---- the slider

def rows_of(html):
    """subcase -> (count, dense, text of each level) as the slider's table has them."""
    body = html.partition("<tbody>")[2]
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
    assert "on 1 of the 2 subcases that train holds" in html and "38 points, on cleft (5 rows)" in html
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


def test_the_slider_stands_right_under_the_forgetting_curve(pages):
    saved(pages[2], "forgetting", "sparsity")
    cells = [result(f'"figures" / "{name}"', [{"image/png": PIXEL}]) for name in ("forgetting", "sparsity")]
    _, curve, under, other = writer(pages, pages[2].name).write(notebook("# T", code=cells)).cells
    assert "forgetting" in curve.source and "sparsity" in other.source
    assert '<input type="range"' in under.outputs[0].data["text/html"] and under.metadata["tags"] == ["remove-input"]


# ---- tables

def test_tables_say_what_their_heads_are_of_and_bars_are_folded(pages):
    bar = nbformat.v4.new_output("stream", name="stdout", text="dense 100%|####| 384/384 [00:01<00:00]\n")
    cell = result("t", [{"text/html": FRAME}, {"text/markdown": "### So\n\n04 < 5"}])
    cell.outputs.append(bar)
    (_, made) = writer(pages, "mini/micro_nli/02_teacher").write(notebook("# T", code=[cell])).cells
    html = made.outputs[0].data["text/html"]
    assert "<style" not in html and '<td class="stays"></td><th scope="col">a' in html
    assert '<th scope="row" class="stays">dense' in html and "[-1.0,&nbsp;2.0]" in html
    assert made.outputs[1].data["text/markdown"].startswith("**So**\n\n[04](04_pruning.ipynb)")
    assert made.outputs[2].data["text/html"].startswith("<details>") and "&lt;00:00" in made.outputs[2].data["text/html"]


def cells_of(html, kind, row):
    return re.findall(rf"<{kind}[^>]*>(.*?)</{kind}>", html.split("<tr")[row])


def test_a_mere_count_of_rows_gives_way_to_their_names():
    frame = pd.DataFrame({"id": ["A1", "A2", "A3"], "task": ["nli"] * 3, "ours": [0.3, 2.5e9, float("nan")],
                          "verdict": ["replicated"] * 3})
    html = html_tables.accessible(frame._repr_html_())
    assert cells_of(html, "th", 1) == ["id", "task", "ours", "verdict"]
    assert cells_of(html, "th", 3) == ["A2", "nli"] and cells_of(html, "td", 3) == ["2,500,000,000", "replicated"]
    assert cells_of(html, "td", 2)[0] == "0.3" and cells_of(html, "td", 4)[0] == "–"
    assert html.count('class="stays"') == 4 and html.count('class="verdict"') == 4
    sentences = pd.DataFrame({"premise": ["The doctor helped the judge near the lake."], "n": [1]})
    assert cells_of(html_tables.accessible(sentences._repr_html_()), "th", 2) == ["0"]


def test_of_several_levels_the_one_that_tells_rows_apart_stays_in_sight():
    rows = [("nli", "dense", 5), ("nli", "imp-70", 5), ("facts", "imp-85", 5)]
    frame = pd.DataFrame({"test": [1.5, 2.5, 3.5]}, index=pd.MultiIndex.from_tuples(rows, names=["task", "model", "n"]))
    html = html_tables.accessible(frame._repr_html_())
    assert re.findall(r'class="stays"[^>]*>(.*?)<', html) == ["", "model", "dense", "imp-70", "imp-85"]


def test_prose_written_after_the_run_is_shown_where_the_code_is_the_same():
    parameters = [result("x = 1", [], tags=["parameters"]), result("x = 2", [], tags=["injected-parameters"])]
    ran = notebook("# old", code=[*parameters, result("x", [{"text/plain": "2"}])])
    written = notebook("# new", code=[result("x = 1", [], tags=["parameters"]), result("x", [], tags=["hide-input"])])
    written.cells.insert(2, nbformat.v4.new_markdown_cell("between"))
    shown = with_prose(ran, written)
    assert [cell.source for cell in shown.cells] == ["# new", "x = 1", "x = 2", "between", "x"]
    assert shown.cells[-1].outputs[0].data == {"text/plain": "2"} and shown.cells[-1].metadata["tags"] == ["hide-input"]
    written.cells[-1].metadata["caption"] = "What x is."
    ran.cells[-1].source, written.cells[-1].source = "rows = mitigation.pairs(x)", "rows = mitigations.pairs(x)"
    shown = with_prose(ran, written)
    assert shown.cells[0].source == "# new" and shown.cells[-1].source == "rows = mitigation.pairs(x)"
    written.cells[-1].source = "other = pairs.of(x, 3)"
    assert with_prose(ran, written).cells[0].source == "# old"
    written.cells[-1].source = ran.cells[-1].source
    written.cells.append(result("x + 1", []))
    shown = with_prose(ran, written)
    assert shown.cells[0].source == "# old" and shown.cells[-1].metadata["caption"] == "What x is."


def test_a_run_that_stopped_says_so(pages):
    half = notebook("# T", code=[result("1", []), nbformat.v4.new_code_cell("2")])
    assert "not come to its end" in writer(pages, "10_your_model").write(half).cells[1].source


# ---- a toy study, built

@pytest.fixture
def study(tmp_path):
    """A folder with one executed run of two notebooks and the book's own settings."""
    for name in ("book", "solutions"):
        (tmp_path / "notebooks" / name).mkdir(parents=True)
    for path in (ROOT / "notebooks" / "book").rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    run = tmp_path / "outputs" / "reference" / "toy"
    (run / "micro_nli" / "seed0").mkdir(parents=True)
    picture = result("fig", [{"image/png": PIXEL}, {"text/html": FRAME}])
    text = "# 04 · Pruning\n\n## Seen\n\n$$s = 1$$ (schedule)\n\nAs {eq}`schedule` says (Berger, 1982)."
    nbformat.write(notebook(text, code=[picture]), run / "micro_nli" / "seed0" / "04_pruning.ipynb")
    nbformat.write(notebook("# 09 · Claims\n\nSee 04 and {eq}`schedule`.", code=[result("1", [])]), run / "09_claims.ipynb")
    return tmp_path


@needs_sphinx
def test_a_book_is_built_with_numbers_links_and_local_scripts_only(study):
    assert build.build([], study / "html", root=study) == 2
    page = (study / "html" / "toy" / "micro_nli" / "04_pruning.html").read_text()
    assert "Figure 4.1" in page and "(4.1)" in page and "references.html#" in page
    claims = (study / "html" / "toy" / "09_claims.html").read_text()
    assert 'href="micro_nli/04_pruning.html"' in claims and "(4.1)" in claims
    assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css)', page)
    assert (study / "html" / "_static" / "mathjax" / build.MATHJAX[-1]).exists()


@needs_sphinx
def test_the_page_of_a_run_names_what_its_profile_has_otherwise(study):
    (study / "params").mkdir()
    text = (ROOT / "params" / "mini.yaml").read_text().replace("profile: mini", "profile: toy")
    (study / "params" / "toy.yaml").write_text(text)
    cut = load_profile(study / "params" / "toy.yaml", ["data.n_train=512", "distillation.students=[truncated-3]"]).as_dict()
    del cut["common"]["dropout"]
    cut["per_task"] = {"micro_nli": {"mitigation.alpha": 0.3}}
    ran = study / "outputs" / "reference" / "toy" / "params.yaml"
    ran.write_text(yaml.safe_dump(cut))
    build.build([], study / "html", root=study)
    page = (study / "html" / "toy" / "index.html").read_text()
    named = re.findall(r'<code[^>]*><span class="pre">(.*?)</span></code>', page)
    assert named == ["params/toy.yaml", "data.n_train=512", "distillation.students=[truncated-3]", "mitigation.alpha=0.3"]
    assert "other values than" in page and "for micro_nli" in page


@needs_sphinx
def test_what_sphinx_warns_about_fails_and_keeps_the_old_book(study, capsys):
    (study / "html").mkdir()
    (study / "html" / "index.html").write_text("old")
    (study / "notebooks" / "book" / "guide.md").write_text("# Guide\n\n{eq}`nowhere`\n")
    with pytest.raises(StudyError, match="not built"):
        build.build(["toy"], study / "html", root=study)
    assert "guide.md" in capsys.readouterr().err and (study / "html" / "index.html").read_text() == "old"


def test_a_profile_that_has_not_run_is_named(study):
    with pytest.raises(StudyError, match="outputs/tooy holds no executed notebook.*did you mean 'toy'"):
        build.build(["tooy"], study / "html", root=study)


def test_the_seed_with_the_most_notebooks_is_shown(study):
    more = study / "outputs" / "reference" / "toy" / "micro_nli" / "seed1"
    more.mkdir()
    for name in ("01_data", "04_pruning"):
        (more / f"{name}.ipynb").write_text(json.dumps(notebook("# T")))
    shown = build.gather([study / "outputs" / "reference" / "toy"], study / "notebooks")
    assert {page.source.parent.name for page in shown if page.folder == "toy/micro_nli"} == {"seed1"}
