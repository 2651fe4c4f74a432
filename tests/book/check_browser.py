import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.book.visits import dead_links, narrow_faults, slider_faults, visit, watch

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}


def first(visits, kind):
    """The smallest page with such things on it."""
    return min((path for path, seen in visits.items() if getattr(seen, kind)), key=lambda path: path.stat().st_size)


@pytest.fixture(scope="session")
def slides(visits):
    """The pages with a slider over sparsity, and the table that each draws."""
    texts = {path: path.read_text() for path in visits}
    return {path: (path.parent / re.search(r'href="([^"]+/forgetting\.csv)"', text)[1]).resolve()
            for path, text in texts.items() if 'type="range"' in text}


@pytest.fixture(scope="session")
def ledgers(visits):
    """The pages of notebook 09."""
    return [path for path in visits if path.stem == "09_claims"]


@pytest.fixture(scope="session")
def widest(book):
    """The page whose tables are the widest."""
    return book / "08_loyalty_and_attacks.html"


def test_every_page_opens_whole_and_asks_nothing_of_the_network(visits, book):
    faults = {str(path.relative_to(book)): seen.problems for path, seen in visits.items() if seen.problems}
    assert not faults
    assert sum(seen.images for seen in visits.values()) > 0 < sum(seen.equations for seen in visits.values())


def test_figures_of_a_run_are_drawings_not_pixels(visits, slides):
    assert slides
    assert not [path for path in slides if not visits[path].drawings == visits[path].images > 2]


def test_links_lead_somewhere(visits):
    assert not dead_links(visits)


def test_search_finds_a_word(context, book):
    page = context.new_page()
    problems = watch(page)
    page.goto((book / "index.html").as_uri())
    page.keyboard.press("Control+K")
    page.keyboard.type("sparsity")
    page.keyboard.press("Enter")
    results = page.locator("#search-results ul.search li a")
    results.first.wait_for()
    assert results.count() > 1
    results.first.click()
    page.wait_for_load_state()
    assert "sparsity" in page.content().lower() and not problems


def test_the_keyboard_reaches_text_and_navigation(context, book):
    page = context.new_page()
    page.goto((book / "index.html").as_uri())
    focus = []
    for _ in range(25):
        page.keyboard.press("Tab")
        focus.append(page.evaluate("""() => { const e = document.activeElement, s = getComputedStyle(e);
            return {href: e.getAttribute("href") || "", navigation: !!e.closest("nav.bd-links"),
                    seen: s.outlineStyle != "none" || s.boxShadow != "none"} }"""))
        if focus[-1]["navigation"]:
            break
    assert focus[0]["href"] == "#main-content" and focus[-1]["navigation"] and focus[-1]["seen"]
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.endswith(focus[-1]["href"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_structure(browser, book, visits, slides, ledgers, scheme):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    found = []
    most = [max(visits, key=lambda path: getattr(visits[path], kind)) for kind in ("equations", "images")]
    for path in dict.fromkeys([book / "index.html", *most, *list(slides)[:1], *ledgers[:1]]):
        page = context.new_page()
        page.goto(path.as_uri())
        page.evaluate("window.MathJax?.startup?.promise")
        page.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")  # the theme's colours fade in
        for fault in Axe().run(page, options=RULES).response["violations"]:
            found += [f"{path.name}: {fault['id']}: {node['target']}" for node in fault["nodes"]]
    context.close()
    assert not found


def test_the_slider_shows_what_the_table_holds_at_every_level(context, slides):
    assert slides
    assert not {path: faults for path, table in slides.items() if (faults := slider_faults(context, path, table))}


def test_without_a_script_one_level_is_shown_and_no_slider(browser, slides):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(next(iter(slides)).as_uri())
    figure = page.locator("figure.levels")
    assert not figure.locator("input").is_visible()
    assert re.match(r"IMP \d+ %: ", figure.locator("output").inner_text())
    assert all(row.locator("circle.kept:visible").count() == 1 for row in figure.locator("tbody tr").all())
    context.close()


def test_at_half_width_pages_fit_and_wide_tables_scroll_in_their_boxes(context, book, slides, ledgers, widest):
    wide = 0
    for path in (book / "00_question.html", next(iter(slides)), widest, *ledgers):
        tables, faults = narrow_faults(context, path)
        wide += tables
        assert not faults, path
    assert wide


# ---- the checks above can fail: a copy of one page, broken on purpose

@pytest.fixture
def copy(book, tmp_path):
    return shutil.copytree(book, tmp_path / "html")


def change(path, pattern, put):
    """Put something in place of the first match in a page."""
    changed, n = re.subn(pattern, put, path.read_text(), count=1, flags=re.S)
    assert n
    path.write_text(changed)


def said(context, book, copy, path, spoil):
    """The problems of the copied page after `spoil` has had it, in one text."""
    place = copy / path.relative_to(book)
    spoil(place)
    return "\n".join(visit(context, place).problems)


@pytest.mark.parametrize("kind", ["images", "drawings"])
def test_a_picture_that_is_none_is_seen(context, book, visits, copy, kind):
    def spoil(page):
        for picture in (copy / "_images").iterdir():
            picture.write_bytes(b"not a picture")
    assert "no picture" in said(context, book, copy, first(visits, kind), spoil)


def test_a_missing_picture_is_seen(context, book, visits, copy):
    def spoil(page):
        shutil.rmtree(copy / "_images")
    assert "request failed" in said(context, book, copy, first(visits, "images"), spoil)


@pytest.mark.parametrize("wrong", [r"\\frac{1}", r"\\nosuchcommand"])
def test_a_wrong_equation_is_seen(context, book, visits, copy, wrong):
    def spoil(page):
        change(page, r"\\\[.*?\\\]|\\\(.*?\\\)", rf"\\({wrong}\\)")
    assert "equation at fault" in said(context, book, copy, first(visits, "equations"), spoil)


def test_equations_that_stay_source_are_seen(context, book, visits, copy):
    def spoil(page):
        (copy / "_static" / "tex-svg-full.js").unlink()
    assert "equation not rendered" in said(context, book, copy, first(visits, "equations"), spoil)


def test_a_request_that_leaves_is_seen(context, book, copy):
    def spoil(page):
        change(page, "</body>", '<script src="http://book.invalid/x.js"></script></body>')
    assert "request leaves" in said(context, book, copy, book / "index.html", spoil)


def test_a_dead_link_is_seen(context, copy):
    change(copy / "index.html", "</body>", '<a href="gone.html">a</a><a href="references.html#nobody">b</a></body>')
    dead = "\n".join(dead_links({path: visit(context, path) for path in (copy / "index.html", copy / "references.html")}))
    assert "gone.html is not there" in dead and "#nobody has no such place" in dead


@pytest.mark.parametrize(("file", "pattern", "put", "seen"), [
    ("script", r'addEventListener\("input"', 'addEventListener("none"', "moves and what is shown does not"),
    ("page", r'(<circle class="kept" cx=")[\d.]+', r"\g<1>3", "is drawn at"),
    ("page", r"(<td><span data-level=.0.>)[\d.]+", r"\g<1>3.0", "is told as"),
    ("page", r'(?<=<tbody>\n)<tr><th scope="row">[\w ]+</th><td>\d+</td><td class="plot">.*?</tr>\n', "", "other subcases"),
])
def test_a_slider_at_fault_is_seen(context, book, slides, copy, file, pattern, put, seen):
    path, table = next(iter(slides.items()))
    place = copy / path.relative_to(book)
    change(place if file == "page" else copy / "_static" / "book.js", pattern, put)
    assert seen in "\n".join(slider_faults(context, place, table))


@pytest.mark.parametrize(("file", "pattern", "put", "seen"), [
    ("book.css", r"left: 0; z-index: 1;", "", "do not stay in sight"),
    ("book.css", r"\.frame > div {.*?}", "", "does not scroll"),
    ("book.css", r"\.frame > div {.*?}", "div.cell_output .output { overflow: visible !important; }", "px wide"),
    ("book.js", r"hint\.className = .hint.;", "hint.className = 'hint'; hint.hidden = true;", "does not say"),
    ("book.js", r"box\.tabIndex = 0;", ";", "by keyboard"),
])
def test_a_wide_table_at_fault_is_seen(context, book, widest, copy, file, pattern, put, seen):
    change(copy / "_static" / file, pattern, put)
    assert seen in "\n".join(narrow_faults(context, copy / widest.relative_to(book))[1])
