"""The forgetting curve with a slider over sparsity, for the book: HTML that is whole without a script or the network.

Every level is written out here, numbers and drawing; the few lines in notebooks/book/_static/book.js only choose which of
them is seen, by the class `shown`. Without a script the most pruned level stands there, and no slider.
"""

from html import escape

import numpy as np
import pandas as pd

from lib.analysis.tables import case_name
from lib.figures.theme import color_of, ink, label_of, parts_of

NBSP = "\N{NO-BREAK SPACE}"


def levels_of(table: pd.DataFrame) -> list[str]:
    """The dense model and the models pruned by magnitude alone, least pruned first; empty without dense and two of these."""
    parts = {model: parts_of(model) for model in table["model"].unique()}
    pruned = {model: level for model, (family, level, steps) in parts.items() if family == "imp" and not steps}
    return ["dense", *sorted(pruned, key=pruned.get)] if len(pruned) > 1 and "dense" in parts else []


def forgetting(table: pd.DataFrame, chance: float | None = None, *, smoke: bool = False) -> str:
    """HTML of what each subcase keeps at each sparsity, a row a subcase, the commonest in train first.

    table: model, subcase, count (rows in train, missing where not known), value, low, high (fractions), as
    `curves.forgetting` draws it; `smoke=True` marks it as no result. "" where there is too little to move (`levels_of`).
    """
    levels = levels_of(table)
    if not levels:
        return ""
    shown = table[table["model"].isin(levels)].sort_values("count", ascending=False, kind="stable")
    models = {name: rows.set_index("subcase") for name, rows in shown.groupby("model")}
    cases = list(models["dense"].index)
    counted = bool(models["dense"]["count"].notna().all())
    lowest = min(shown["low"].min(), 0.8 if chance is None else chance)
    left = np.floor(lowest * 5 + 1e-9) / 5  # the axis starts at a tick, a multiple of 20 %
    ticks = np.arange(left, 1.01, max(0.2, (1 - left) / 4))

    def at(value: float) -> str:
        return f"{100 * (value - left) / (1 - left):.2f}%"

    names, stops = [label_of(name) for name in levels], ["dense", *(f"{parts_of(name)[1]:g}{NBSP}%" for name in levels[1:])]
    scale = "".join(f'<text x="{at(tick)}" y="12" text-anchor="middle">{100 * tick:.0f}</text>' for tick in ticks)
    grid = "".join(f'<line class="grid" x1="{at(tick)}" x2="{at(tick)}" y1="0" y2="100%"/>' for tick in ticks)
    if chance is not None:
        grid += f'<line class="chance" x1="{at(chance)}" x2="{at(chance)}" y1="0" y2="100%"/>'
    body = "".join(_row(case, [models[name].loc[case] for name in levels], levels, grid, at, counted) for case in cases)
    order = " Subcases run from the commonest in train down to the rarest." if counted else ""
    dotted = " Dotted: chance." if chance is not None else ""
    marked = " <strong>smoke: not a result</strong>" if smoke else ""
    last = len(levels) - 1
    return f"""<figure class="levels" data-left="{100 * left:.0f}">
<figcaption>The forgetting curve, one sparsity at a time. Filled dots: the pruned model, with its 95{NBSP}% interval; \
rings: the dense model. Further right is better.{dotted}{order}{marked}</figcaption>
<div class="choose" hidden><label for="sparsity">Weights pruned</label>
<div><input type="range" id="sparsity" min="0" max="{last}" step="1" value="{last}" \
aria-valuetext="{stops[-1]}">
<div class="stops" aria-hidden="true">{"".join(f"<span>{stop}</span>" for stop in stops)}</div></div></div>
<p><output for="sparsity">{_choice([_told(name, models, counted) for name in levels])}</output></p>
<table><thead><tr><th scope="col">subcase</th>{f'<th scope="col">rows in{NBSP}train</th>' * counted}\
<th scope="col" class="plot">OOD accuracy, %<svg aria-hidden="true" width="100%" height="15">{scale}</svg></th>\
<th scope="col">dense</th><th scope="col">{_choice(names)}</th></tr></thead>
<tbody>
{body}</tbody></table>
</figure>"""


def _row(case: str, rows: list[pd.Series], levels: list[str], grid: str, at, counted: bool) -> str:
    dense, marks = rows[0], []
    for level, (name, row) in enumerate(zip(levels, rows)):
        fill, edge = color_of(name), ink(color_of(name))
        marks.append(
            f'<g{_of(level, levels)}><line class="lost" x1="{at(dense.value)}" x2="{at(row.value)}" y1="50%" y2="50%"/>'
            f'<line x1="{at(row.low)}" x2="{at(row.high)}" y1="50%" y2="50%" stroke="{edge}" stroke-width="2"/>'
            f'<circle class="kept" cx="{at(row.value)}" cy="50%" r="5" fill="{fill}" stroke="{edge}"/></g>')
    told = _choice([f"{_percent(row.value)} [{_percent(row.low)},{NBSP}{_percent(row.high)}]" for row in rows])
    count = f"<td>{dense['count']:g}</td>" if counted else ""
    return (f'<tr><th scope="row">{escape(case_name(case, np.nan))}</th>{count}'
            f'<td class="plot"><svg aria-hidden="true" width="100%" height="24">{grid}{"".join(marks)}'
            f'<circle class="dense" cx="{at(dense.value)}" cy="50%" r="5"/></svg></td>'
            f"<td>{_percent(dense.value)}</td><td>{told}</td></tr>\n")


def _choice(texts: list[str]) -> str:
    """One text a level, of which one is seen."""
    return "".join(f"<span{_of(level, texts)}>{escape(text, quote=False)}</span>" for level, text in enumerate(texts))


def _of(level: int, levels: list) -> str:
    return f' data-level="{level}"' + ' class="shown"' * (level == len(levels) - 1)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _told(model: str, models: dict[str, pd.DataFrame], counted: bool) -> str:
    """A sentence: on how many subcases the model's interval lies below that of dense, and on which it loses most."""
    if model == "dense":
        return "dense: nothing is pruned."
    known = models["dense"]["count"] > 0 if counted else models["dense"]["count"].isna()
    dense = models["dense"][known]
    rows = models[model].reindex(dense.index)
    apart = rows[rows["high"] < dense["low"]]
    if apart.empty:
        return f"{label_of(model)}: on no subcase does its interval lie below the dense model's."
    lost = (dense["value"] - rows["value"])[apart.index]
    where = case_name(lost.idxmax(), rows.loc[lost.idxmax(), "count"])
    cases = f"{len(apart)} of the {len(dense)} subcases{' that train holds' * counted}"
    return (f"{label_of(model)}: on {cases} its interval lies below the dense model's; "
            f"it loses most, {100 * lost.max():.0f} points, on {where}.")
