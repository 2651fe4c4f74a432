"""The report on judged models as one HTML file: figures inside, nothing asked of the network, opens from disk."""

import base64
import io
from collections.abc import Sequence
from html import escape

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lib.analysis import verdict
from lib.analysis.tables import with_interval
from lib.figures import plot_verdict
from lib.tasks.handed import Rows
from lib.trials import sheets
from lib.trials.judging import Judgement, Side

COLORS = {verdict.FORGOT: "#a8321f", verdict.LOST: "#a8321f", verdict.KEPT: "#1b6e3c", verdict.HELD: "#1b6e3c",
          verdict.UNDECIDED: "#6b5900", verdict.WITHHELD: "#444444"}
STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem clamp(0.8rem, 3vw, 2rem) 3rem; color: #1a1a1a; background: #fff;
  font: 1rem/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; } h3 { font-size: 1.05rem; }
.card { border: 1px solid #ccc; border-left: 0.5rem solid var(--word); border-radius: 0.3rem; padding: 0.6rem 1rem;
  margin: 1rem 0; } .card h2 { margin: 0; } .word { color: var(--word); font-weight: 700; margin: 0.2rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.93rem; }
.scroll { margin: 0.8rem 0; } td small { color: #555; font-size: 0.87rem; white-space: nowrap; }
th, td { text-align: right; padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: nowrap; }
table { overflow-wrap: normal; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.figures figure { margin: 0; flex: 1 1 26rem; min-width: 0; } img { max-width: 100%; height: auto; }
dt { font-weight: 600; } dd { margin: 0 0 0.5rem 0; } figcaption, footer { color: #555; font-size: 0.9rem; }
"""
CHANGES = {"changed": "answers changed, %", "worse": "for the worse, %", "better": "for the better, %",
           "label_loyalty": "label loyalty, %", "probability_loyalty": "probability loyalty, %", "kl": "KL, nats"}
WORDS = {
    verdict.FORGOT: "the gap between ID and OOD score grew: by 2 points or more, and its interval lies above 0",
    verdict.KEPT: "that growth is below 2 points, its whole interval too; what ID and OOD lost alike stands in the "
                  "table",
    verdict.UNDECIDED: "neither: more rows would tell",
    f"{verdict.LOST}, {verdict.HELD}": "without an OOD set: the ID loss is held against the same 2 points",
    verdict.WITHHELD: "the numbers stand here, but a verdict would mean nothing, for the reasons named"}


def page(rows: Rows, parent: Side, judgements: Sequence[Judgement], conditions: Sequence[dict]) -> str:
    """The report's HTML. conditions: as `sheets.record` takes them."""
    names = ", ".join(one.side.name for one in judgements)
    sizes = parent.table["split"].value_counts(sort=False)
    told = ", ".join(f"{n:,} {_upper(split)} rows" for split, n in sizes.items())
    body = [f"<h1>What did {escape(names)} forget?</h1>",
            f"<p>Beside {escape(parent.name)}, on {told} of <em>{escape(rows.task.name)}</em>. It is about these "
            "models on these rows; intervals are 95 %, over rows, paired.</p>"]
    body += [_card(one) for one in judgements]
    body += ["<h2>Conditions</h2>", _list(_condition(one) for one in conditions)] * bool(conditions)
    body += ["<h2>Lost ID and OOD, and on which rows</h2>", _figures(judgements), "<h2>Numbers</h2>"]
    body += [part for one in judgements for part in (f"<h3>{escape(one.side.name)}</h3>", _numbers(one))]
    body += ["<h2>How the numbers came about</h2>", _origins(rows, parent, judgements), "<h2>The words</h2>",
             "<dl>" + "".join(f"<dt>{word}</dt><dd>{escape(text)}</dd>" for word, text in WORDS.items()) + "</dl>",
             "<footer>Made by <code>python -m lib.tools.judge</code>; the same numbers, for programs, are in "
             "verdict.json.</footer>"]
    return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
            f"content=\"width=device-width, initial-scale=1\"><title>Judged: {escape(names)}</title>"
            f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n")


def _card(one: Judgement) -> str:
    v = one.verdict
    more = [*(f"Also: {reason}." for reason in v.reasons[1:]), *v.doubts]
    sentence = v.sentence.removeprefix("withheld: ")
    return (f"<section class=\"card\" style=\"--word: {COLORS[v.word]}\"><h2>{escape(one.side.name)}</h2>"
            f"<p class=\"word\">{escape(v.word.capitalize())}</p>"
            f"<p>{escape(sentence[:1].upper() + sentence[1:])}.</p>"
            + _list(more) + "</section>")


def _condition(one: dict) -> str:
    values = ", ".join(f"{name} {value:.3g}" for name, value in one["values"].items())
    met = f"met by {', '.join(one['met_by'])}" if one["met_by"] else "not met"
    return f"{one['condition']}: {met}, on the {one['on']} ({values})"


def _figures(judgements: Sequence[Judgement]) -> str:
    differences, kinds = sheets.differences(judgements), sheets.kinds(judgements)
    shown = [(plot_verdict.lost(differences), "Each model's score less its parent's, ID and OOD", differences)]
    if len(kinds):
        shown.append((plot_verdict.kinds(kinds), "The same by kind of row", kinds))
    return "<div class=\"figures\">" + "".join(_figure(*one) for one in shown) + "</div>"


def _figure(fig: Figure, caption: str, table) -> str:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(fig)
    where = [" ".join(str(row[key]) for key in ("on", "split", "part") if key in row)
             for row in table.to_dict("records")]
    alt = "; ".join(f"{model}, {place}: {100 * value:+.1f}" for model, place, value in
                    zip(table["model"][:40], where, table["value"]))
    data = base64.b64encode(buffer.getvalue()).decode()
    return (f"<figure><img src=\"data:image/svg+xml;base64,{data}\" alt=\"{escape(f'{caption}, in points: {alt}')}\">"
            f"<figcaption>{caption}.</figcaption></figure>")


def _numbers(one: Judgement) -> str:
    """Scores, then what changed, set by set."""
    v = one.verdict
    measured = v.numbers[v.numbers["of"].isin(["model", "parent", "difference"])]
    has_null = bool(v.at("changed", "all", "null")["n"])
    rows = [["", "parent", one.side.name, "difference", *["parent, trained once more: difference"] * has_null]]
    for on in measured.loc[measured["measure"] == "score", "on"].unique():
        shown = ("parent", "model", "difference", *("null difference",) * has_null)
        cells = [_cell(v, "score", on, of) for of in shown]
        rows.append([f"{_upper(on)}, points", *cells])
    html = _table(rows)
    sets = list(measured.loc[measured["measure"] == "changed", "on"].unique())
    rows = [["", *map(_upper, sets),
             *["all, parent trained once more"] * has_null]]
    for measure, name in CHANGES.items():
        rows.append([name, *(_cell(v, measure, on, "model") for on in sets),
                     *[_cell(v, measure, "all", "null")] * has_null])
    kept = v.at("skill_kept", "ood")
    skill = _cell(v, "skill_kept", "ood", "model") if kept["n"] else "not measured"
    return html + _table(rows) + f"<p>OOD skill kept, of the parent's above chance: {skill}.</p>"


def _cell(v: verdict.Verdict, measure: str, on: str, of: str) -> str:
    found = v.at(measure, on, of)
    if not found["n"]:
        return ""
    digits, scale = (3, 1) if measure == "kl" else (2, 1) if measure == "skill_kept" else (1, 100)
    return with_interval(found["value"], found["low"], found["high"], digits, scale)


def _origins(rows: Rows, parent: Side, judgements: Sequence[Judgement]) -> str:
    said = [f"{one.name}: {one.how}." for one in (parent, *(one.side for one in judgements))]
    said += rows.notes
    said += [f"{one.name}: {note}" for one in (parent, *(j.side for j in judgements)) for note in one.notes]
    said += [note for one in judgements for note in one.notes]
    return _list(said) + "".join(_noise(one.side) for one in judgements if one.side.noise is not None)


def _noise(side: Side) -> str:
    rows = [[f"answers of {side.name} that change", "rows of", "%", "of"]]
    rows += [[row.condition, _upper(row.split),
              "not run" if row.changed != row.changed else f"{100 * row.changed:.1f}", str(row.n)]
             for row in side.noise.itertuples()]
    return _table(rows)


def _list(items) -> str:
    items = list(items)
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def _table(rows: list[list[str]]) -> str:
    head = "".join(f"<th scope=\"col\">{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_spaced(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return ("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>" + head + "</tr></thead><tbody>" + body
            + "</tbody></table></div>")


def _spaced(cell: str) -> str:
    """A cell whose interval may go below its value, but does not break."""
    value, mark, interval = cell.partition(" [")
    return escape(value) + f" <small>[{escape(interval)}</small>" * bool(mark)


def _upper(split: str) -> str:
    return {"test": "ID", "id": "ID", "ood": "OOD"}.get(split, split)
