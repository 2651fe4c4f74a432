"""One page of the book as a browser sees it, and what is wrong with it."""

import csv
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOOK = """async () => {
  await window.MathJax?.startup?.promise;
  const said = element => element.textContent.trim().slice(0, 60);
  const problems = [];
  for (const image of document.images) {
    if (!(image.complete && image.naturalWidth)) problems.push("no picture: " + image.getAttribute("src"));
    if (!image.hasAttribute("alt")) problems.push("no alternative text: " + image.getAttribute("src"));
  }
  for (const place of document.querySelectorAll(".math")) {
    const drawn = place.querySelector("mjx-container svg");
    const size = drawn ? drawn.getBoundingClientRect().width : 0;
    if (!drawn || (place.checkVisibility() && !size)) problems.push("equation not rendered: " + said(place));
    else if (place.querySelector("[data-mml-node=merror]")) problems.push("equation at fault: " + said(place));
  }
  return {problems, equations: document.querySelectorAll("mjx-container svg").length, images: document.images.length,
          drawings: [...document.images].filter(image => image.src.endsWith(".svg") && image.naturalWidth).length,
          links: [...document.querySelectorAll("a[href]")].map(link => link.href),
          ids: [...document.querySelectorAll("[id]")].map(element => element.id)};
}"""


@dataclass(frozen=True)
class Visit:
    problems: list[str]
    equations: int
    images: int
    drawings: int
    links: list[str]
    ids: list[str]


def watch(page) -> list[str]:
    """A list that fills with every console error, failed request and request that is not for a file."""
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"request failed: {request.url}"))
    page.on("request", lambda request: None if urlsplit(request.url).scheme in ("file", "data", "blob")
            else problems.append(f"request leaves: {request.url}"))
    return problems


def visit(context, path: Path) -> Visit:
    """Open a page of the book from disk and look at it."""
    page = context.new_page()
    problems = watch(page)
    page.goto(path.as_uri(), wait_until="load")
    seen = page.evaluate(LOOK)
    page.close()
    return Visit(**seen | {"problems": [*problems, *seen["problems"]]})


LEVEL = """figure => {
  const input = figure.querySelector("input"), left = figure.dataset.left / 100;
  return {at: input.value, said: input.getAttribute("aria-valuetext"), output: figure.querySelector("output").innerText,
          rows: [...figure.querySelectorAll("tbody tr")].map(row => {
    const dots = [...row.querySelectorAll("circle.kept")].filter(dot => dot.getClientRects().length);
    const axis = row.querySelector("svg").getBoundingClientRect(), dot = dots[0]?.getBoundingClientRect();
    const place = dot ? (dot.x + dot.width / 2 - axis.x) / axis.width : NaN;
    return {dots: dots.length, drawn: left + place * (1 - left), told: row.lastElementChild.innerText.trim(),
            subcase: row.firstElementChild.innerText};
  })};
}"""


def slider_faults(context, path: Path, table: Path) -> list[str]:
    """What is wrong with a page's slider over sparsity, moved by keyboard from dense to its end: every level must show
    the values of the table beneath it, in its numbers and in its dots."""
    with table.open() as file:
        known = {(row["model"], row["subcase"].replace("_", " ")): row for row in csv.DictReader(file)}
    page = context.new_page()
    faults = watch(page)
    page.goto(path.as_uri())
    figure = page.locator("figure.levels")
    slider = figure.get_by_role("slider", name="Weights pruned")
    slider.focus()
    page.keyboard.press("Home")
    seen = [figure.evaluate(LEVEL)]
    for _ in range(int(slider.get_attribute("max"))):
        page.keyboard.press("ArrowRight")
        seen.append(figure.evaluate(LEVEL))
    page.close()
    if len({str(level["rows"]) for level in seen}) < len(seen) or len({level["output"] for level in seen}) < len(seen):
        faults.append("the slider moves and what is shown does not")
    for level in seen:
        model = level["said"] if level["said"] == "dense" else f"imp-{level['said'].split()[0]}"
        if {row["subcase"] for row in level["rows"]} != {case for name, case in known if name == model}:
            faults.append(f"{level['said']}: other subcases than the table has")
            continue
        for row in level["rows"]:
            value, low, high = (100 * float(known[model, row["subcase"]][key]) for key in ("value", "low", "high"))
            if row["told"].replace("\N{NO-BREAK SPACE}", " ") != f"{value:.1f} [{low:.1f}, {high:.1f}]":
                faults.append(f"{level['said']}: {row['subcase']} is told as {row['told']}, the table has {value:.1f}")
            if row["dots"] != 1 or abs(100 * row["drawn"] - value) > 0.5:
                at = f"{100 * row['drawn']:.1f} ({row['dots']} dots)"
                faults.append(f"{level['said']}: {row['subcase']} is drawn at {at}, the table has {value:.1f}")
    return faults


SCROLLED = """() => [...document.querySelectorAll(".frame")].filter(frame => frame.checkVisibility()).map(frame => {
  const box = frame.firstElementChild, hint = frame.previousElementSibling, kept = box.querySelectorAll("tr > .stays");
  box.scrollLeft = box.scrollWidth;
  const moved = box.scrollLeft, edge = box.getBoundingClientRect().x, last = kept[kept.length - 1];
  return {wide: box.scrollWidth - box.clientWidth > 1, moved, hint: hint.checkVisibility() ? hint.innerText : "",
          focus: box.tabIndex, strays: last ? edge - last.getBoundingClientRect().x : Infinity};
})"""


def narrow_faults(context, path: Path) -> tuple[int, list[str]]:
    """How many of a page's tables are wider than a page of 600 px, and what is wrong there: such a table scrolls in a box
    of its own, says so, takes the keyboard and keeps its rows' names in sight; the page itself does not scroll."""
    page = context.new_page()
    page.set_viewport_size({"width": 600, "height": 900})
    page.goto(path.as_uri())
    page.locator(".hint").first.wait_for(state="attached")
    page.wait_for_timeout(200)  # the boxes are measured when they have been laid out
    width, tables = page.evaluate("document.scrollingElement.scrollWidth"), page.evaluate(SCROLLED)
    page.close()
    faults = [f"the page is {width} px wide"] if width > 600 else []
    for place, table in enumerate(tables, 1):
        if table["wide"]:
            faults += [f"table {place} does not scroll"] * (not table["moved"])
            faults += [f"table {place} does not say that it scrolls"] * ("columns" not in table["hint"])
            faults += [f"table {place} cannot be reached by keyboard"] * (table["focus"] != 0)
            faults += [f"table {place}: the rows' names do not stay in sight"] * (table["strays"] > 1)
    return sum(table["wide"] for table in tables), faults


def dead_links(visits: dict[Path, Visit]) -> list[str]:
    """Links between the pages, or to files beside them, that lead nowhere."""
    dead = []
    for path, seen in visits.items():
        for link in sorted(set(seen.links)):
            parts = urlsplit(link)
            target = Path(unquote(parts.path))
            if parts.scheme != "file":
                continue
            if not target.is_file():
                dead.append(f"{path.name}: {link} is not there")
            elif parts.fragment and target in visits and unquote(parts.fragment) not in visits[target].ids:
                dead.append(f"{path.name}: {link} has no such place")
    return dead
