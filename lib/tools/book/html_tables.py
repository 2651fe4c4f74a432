"""A frame's HTML, as pandas writes it into a notebook, fit to be read in the book."""

import itertools
import re


def accessible(html: str) -> str:
    """A frame's HTML without its own style sheet, in a box to scroll: heads say what they are of, the heads that tell the
    rows apart stay in sight, numbers are as long as they can be read, intervals do not break, sentences get room."""
    html = re.sub(r"<style scoped>.*?</style>\s*", "", html, flags=re.S)
    html = re.sub(r"\[(-?[\d.]+), (-?[\d.]+)\]", r"[\1,&nbsp;\2]", html)
    html = html.replace(' border="1"', "").replace("<td>NaN</td>", "<td>–</td>")
    html = re.sub(r"<td>(-?\d+\.(?:\d+e[+-]\d+|\d{5,}))</td>", lambda cell: f"<td>{_number(float(cell[1]))}</td>", html)
    if re.search(r"<th>verdict</th>\s*</tr>", html):
        html = re.sub(r"<(t[hd])>([^<]*</t[hd]>\s*</tr>)", r'<\1 class="verdict">\2', html)
    html = re.sub(r"<td>(?=[^<]{36})", '<td class="sentence">', html)
    head, ends, body = html.partition("</thead>")
    if names := _names(head, body):
        head = head.replace("<th></th>", "", 1)
        body = re.sub(r"<th>.*?</th>", "", body)
        body = re.sub(rf"(<tr>)((?:\s*<td>[^<]*</td>){{{names}}})", lambda row: row[1] + row[2].replace("td>", "th>"), body)
    levels, telling = _levels(body)
    head = re.sub(r"<tr.*?</tr>", lambda row: _stays(row[0], telling), head.replace("<th></th>", "<td></td>"), flags=re.S)
    body = re.sub(r"<tr.*?</tr>", lambda row: _stays(row[0], telling - levels + row[0].count("<th")), body, flags=re.S)
    head, body = re.sub(r"<th\b", '<th scope="col"', head), re.sub(r"<th\b", '<th scope="row"', body)
    return f'<div class="frame">{head}{ends}{body}</div>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _names(head: str, body: str) -> int:
    """How many columns at the left name a frame's rows where nothing but a count does: the first and the words that
    follow. 0 where the rows have names of their own, or begin with sentences."""
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in body.split("<tr")[1:]]
    if head.count("<tr") > 1 or "<th></th>" not in head or not rows or rows[0][0] != "0" or len(rows[0]) < 2:
        return 0
    if not all(re.fullmatch(r"\d+|\.\.\.", row[0]) and len(row[1]) <= 20 for row in rows):
        return 0
    words = ([re.fullmatch(r"\.\.\.|[A-Za-z].{0,34}", row[place]) for row in rows] for place in range(2, len(rows[0])))
    return 1 + len(list(itertools.takewhile(all, words)))


def _levels(body: str) -> tuple[int, int]:
    """How many heads a frame's rows have, and which of them has the most names. Heads that span rows are told once."""
    rows = [re.findall(r"<th[^>]*>(.*?)</th>", row, re.S) for row in body.split("<tr")]
    levels = max(map(len, rows))
    names = [{row[place - levels] for row in rows if len(row) >= levels - place} for place in range(levels)]
    return levels, max(range(levels), key=lambda place: len(names[place]), default=0)


def _stays(row: str, place: int) -> str:
    """A row whose cell at a place is marked to stay in sight; as it is where the row has no such cell."""
    cells = [cell.end() for cell in re.finditer(r"<t[hd]\b", row)]
    if not 0 <= place < len(cells):
        return row
    return f'{row[:cells[place]]} class="stays"{row[cells[place]:]}'

