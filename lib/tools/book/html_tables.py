"""A frame's HTML, as pandas writes it into a notebook, fit to be read in the book."""

import itertools
import re

from bs4 import BeautifulSoup, Tag

CELLS = ["th", "td"]
WORDS = re.compile(r"\.\.\.|[A-Za-z].{0,34}")


def accessible(html: str) -> str:
    """A frame's HTML without its own style sheet, in a box to scroll: heads say what they are of, the heads that tell
    rows apart stay in sight, numbers are as long as they can be read, intervals do not break, sentences get room."""
    page = BeautifulSoup(html, "html.parser")
    for style in page("style"):
        style.decompose()
    del page.table["border"]
    head, body = page.thead("tr"), page.tbody("tr")
    for cell in page.tbody("td"):
        cell.string = _readable(cell.text)
        cell["class"] = ["sentence"] * (len(cell.text) >= 36)
    if head[-1](CELLS)[-1].text == "word":
        for row in [head[-1], *body]:
            row(CELLS)[-1]["class"] = ["word"]
    if names := _names(head, body):
        for cell in [head[0].th, *(row.th for row in body)]:
            cell.decompose()
        for cell in [cell for row in body for cell in row("td", limit=names)]:
            cell.name = "th"
    heads = [row("th") for row in body]
    levels = max(map(len, heads), default=0)  # heads that span rows are told once, so places count from the right
    telling = max(range(levels, 0, -1), key=lambda place: len({row[-place].text for row in heads if len(row) >= place}),
                  default=0)
    for row, place in [(row, levels - telling) for row in head] + [(row, len(row("th")) - telling) for row in body]:
        for cell in row(CELLS)[place:place + 1] if place >= 0 else []:
            cell["class"] = [*cell.get("class", []), "stays"]
    for cell in page("th"):
        cell["scope"] = "col" if cell.find_parent("thead") else "row"
        if not cell.text and cell["scope"] == "col":
            cell.name, cell.attrs = "td", {"class": cell.get("class", [])}
    return f'<div class="frame">{page}</div>'


def _readable(text: str) -> str:
    """A cell's text: a number of four digits that count, a dash for nothing, an interval that does not break."""
    if re.fullmatch(r"-?\d+\.(\d+e[+-]\d+|\d{5,})", text):
        return f"{float(text):,.0f}" if abs(float(text)) >= 1e4 else f"{float(text):.4g}"
    return "–" if text == "NaN" else re.sub(r"\[(-?[\d.]+), (-?[\d.]+)\]", "[\\1,\N{NO-BREAK SPACE}\\2]", text)


def _names(head: list[Tag], body: list[Tag]) -> int:
    """How many columns at the left name a frame's rows where nothing but a count does: the first and the words that
    follow. 0 where the rows have names of their own, or begin with sentences."""
    columns = list(zip(*([cell.text for cell in row(CELLS)] for row in body)))
    if len(head) > 1 or not head[0].th or head[0].th.text or len(columns) < 2 or columns[0][0] != "0":
        return 0
    if not all(re.fullmatch(r"\d+|\.\.\.", count) for count in columns[0]) or max(map(len, columns[1])) > 20:
        return 0
    return 1 + len(list(itertools.takewhile(lambda column: all(map(WORDS.fullmatch, column)), columns[2:])))
