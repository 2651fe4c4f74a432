"""The forgetting curve with a slider over sparsity, for the book: HTML that is whole without a script or the network.

notebooks/book/slider.html writes out every level, numbers and drawing; the few lines in _static/book.js only choose
which of them is seen, by the class `shown`. Without a script the most pruned level stands there, and no slider.
"""

import jinja2
import numpy as np
import pandas as pd

from lib.analysis.tables import case_name, with_interval
from lib.figures.theme import color_of, ink, label_of, parts_of
from lib.files import ROOT


def levels_of(table: pd.DataFrame) -> list[str]:
    """The dense model and those pruned by magnitude alone, least pruned first; empty without dense and two of these."""
    parts = {model: parts_of(model) for model in table["model"].unique()}
    pruned = {model: level for model, (family, level, steps) in parts.items() if family == "imp" and not steps}
    return ["dense", *sorted(pruned, key=pruned.get)] if len(pruned) > 1 and "dense" in parts else []


def forgetting(table: pd.DataFrame, chance: float | None = None, *, smoke: bool = False) -> str:
    """HTML of what each subcase keeps at each sparsity, a row a subcase, the commonest in train first.

    table: model, subcase, count (rows in train, missing where not known), value, low, high, lost, lost_low, lost_high
    (fractions), as `curves.forgetting` draws it; `smoke=True` marks it as no result. "" where there is too little to
    move.
    """
    levels = levels_of(table)
    if not levels:
        return ""
    colors = table["model"].map(color_of)
    shown = table.assign(fill=colors, edge=colors.map(ink)).query("model in @levels")
    shown = shown.sort_values("count", ascending=False, kind="stable")
    models = {name: rows.set_index("subcase") for name, rows in shown.groupby("model")}
    counted = bool(models["dense"]["count"].notna().all())
    left = np.floor(min(shown["low"].min(), 0.8 if chance is None else chance) * 5 + 1e-9) / 5  # at a multiple of 20 %
    page = jinja2.Environment(autoescape=True)
    page.filters["percent"] = lambda value: f"{100 * value:.1f}"
    return page.from_string((ROOT / "notebooks" / "book" / "slider.html").read_text()).render(
        at=lambda value: f"{100 * (value - left) / (1 - left):.2f}%", left=left, chance=chance, smoke=smoke,
        ticks=np.arange(left, 1.01, max(0.2, (1 - left) / 4)), counted=counted,
        names=[label_of(name) for name in levels], told=[_told(name, models, counted) for name in levels],
        stops=["dense", *(f"{parts_of(name)[1]:g}\N{NO-BREAK SPACE}%" for name in levels[1:])],
        subcases=[(case_name(case, np.nan), [models[name].loc[case] for name in levels])
                  for case in models["dense"].index])


def _told(model: str, models: dict[str, pd.DataFrame], counted: bool) -> str:
    """A sentence: on how many subcases the model surely loses against dense on the same rows, and on which most."""
    if model == "dense":
        return "dense: nothing is pruned."
    counts = models["dense"]["count"]
    dense = models["dense"][counts > 0 if counted else counts.isna()]
    rows = models[model].reindex(dense.index)
    sure = rows[rows["lost_low"] > 0]
    if sure.empty:
        return f"{label_of(model)}: on no subcase does it surely lose against the dense model on the same rows."
    most = sure.loc[sure["lost"].idxmax()]
    cases = f"{len(sure)} of the {len(dense)} subcases{' that train holds' * counted}"
    lost = with_interval(most["lost"], most["lost_low"], most["lost_high"], digits=0)
    return (f"{label_of(model)}: on {cases} it surely loses against the dense model on the same rows; most, {lost} "
            f"points, on {case_name(most.name, most['count'])}.")
