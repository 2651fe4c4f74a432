import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.book.visits import dead_links, stuck_sliders, visit, watch

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}


def first(visits, kind):
    """The smallest page with such things on it."""
    return min((path for path, seen in visits.items() if getattr(seen, kind)), key=lambda path: path.stat().st_size)


def test_every_page_opens_whole_and_asks_nothing_of_the_network(visits, book):
    faults = {str(path.relative_to(book)): seen.problems for path, seen in visits.items() if seen.problems}
    assert not faults
    assert sum(seen.images for seen in visits.values()) > 0 < sum(seen.equations for seen in visits.values())


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
def test_contrast_and_structure(browser, book, visits, scheme):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    found = []
    most = [max(visits, key=lambda path: getattr(visits[path], kind)) for kind in ("equations", "images")]
    for path in (book / "index.html", *most):
        page = context.new_page()
        page.goto(path.as_uri())
        page.evaluate("window.MathJax?.startup?.promise")
        for fault in Axe().run(page, options=RULES).response["violations"]:
            found += [f"{path.name}: {fault['id']}: {node['target']}" for node in fault["nodes"]]
    context.close()
    assert not found


def test_sliders_move_what_they_stand_beside(context, visits):
    slides = [path for path in visits if re.search(r"<input[^>]+type=.range", path.read_text())]
    if not slides:
        pytest.skip("this book has no slider")
    assert not [problem for path in slides for problem in stuck_sliders(context, path)]


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


def test_a_picture_that_is_none_is_seen(context, book, visits, copy):
    def spoil(page):
        for picture in (copy / "_images").iterdir():
            picture.write_bytes(b"not a picture")
    assert "no picture" in said(context, book, copy, first(visits, "images"), spoil)


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
        shutil.rmtree(copy / "_static" / "mathjax")
    assert "equation not rendered" in said(context, book, copy, first(visits, "equations"), spoil)


def test_a_request_that_leaves_is_seen(context, book, copy):
    def spoil(page):
        change(page, "</body>", '<script src="http://book.invalid/x.js"></script></body>')
    assert "request leaves" in said(context, book, copy, book / "index.html", spoil)


def test_a_dead_link_is_seen(context, copy):
    change(copy / "index.html", "</body>", '<a href="gone.html">a</a><a href="references.html#nobody">b</a></body>')
    dead = "\n".join(dead_links({path: visit(context, path) for path in (copy / "index.html", copy / "references.html")}))
    assert "gone.html is not there" in dead and "#nobody has no such place" in dead


@pytest.mark.parametrize(("script", "stuck"), [("", 1), ("this.nextElementSibling.textContent = this.value", 0)])
def test_a_slider_that_does_nothing_is_seen(context, copy, script, stuck):
    slider = f'<div class="output"><input type="range" max="3" oninput="{script}"><b>1</b></div></body>'
    change(copy / "index.html", "</body>", slider)
    assert len(stuck_sliders(context, copy / "index.html")) == stuck
