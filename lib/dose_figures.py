"""Figures of notebooks 06b and 07b: dose and response, and what a mend costs and gains."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from lib.drawing import GREY, canvas, check, color_of, label_of, style_of, themed
from lib.labels import end_labels, point_labels

AXES = {"shortcut_rate": "train rows on which the shortcut holds", "n_train": "training rows (log scale)"}
KINDS = {"rows": "o", "steps": "s", "weights": "^", "loss": "D"}


@themed
def dose_response(frame: pd.DataFrame, axis: str, chance: float = 0.5, *, smoke: bool = False) -> Figure:
    """OOD score of every model, and its gap beyond the dense model's, against one dose.

    frame: model, axis, dose, measure (`ood`, `gap_difference`), value, low, high in fractions, as `doses.response` gives
    them; `axis`: shortcut_rate or n_train.
    """
    frame = frame[(frame["axis"] == axis) & frame["measure"].isin(["ood", "gap_difference"])]
    check(frame, "dose_response", ["model", "dose", "measure"], ["value"])
    fig, (left, right) = canvas(f"More of {'the shortcut' if axis == 'shortcut_rate' else 'everything'} in train", smoke,
                                height=3.6, panels=2, sharey=False)
    for ax, measure, title in ((left, "ood", "OOD accuracy (%), higher is better"),
                               (right, "gap_difference", "gap beyond dense (points), lower is better")):
        ends = []
        for model, line in frame[frame["measure"] == measure].sort_values("dose").groupby("model", sort=False):
            style = style_of(model)
            ax.fill_between(line["dose"], line["low"] * 100, line["high"] * 100, color=style["color"], alpha=0.14, linewidth=0)
            ax.plot(line["dose"], line["value"] * 100, **style)
            ends.append((line["dose"].iloc[-1], line["value"].iloc[-1] * 100, label_of(model), style["color"]))
        ax.axhline(chance * 100 if measure == "ood" else 0, color=GREY, linestyle=":", linewidth=1)
        ax.set_title(title)
        ax.set_xlabel(AXES[axis])
        if axis == "n_train":
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_locator(FixedLocator(sorted(frame["dose"].unique())))
            ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        else:
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if measure == "gap_difference":
            end_labels(ax, ends)
    left.legend(handles=[plt.Line2D([], [], **style_of("dense"), label="dense")], frameon=False, fontsize=9)
    return fig


@themed
def mends(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """What each mend gains OOD over its base against what it costs, with 95 % intervals: up and left is best.

    frame: one base of `mends.table`: mend, kind, rows, cost, value, low, high. Mends by new rows are named by their number.
    """
    check(frame, "mends", ["mend"], ["cost", "value", "low", "high"])
    base = frame["base"].iloc[0]
    fig, ax = canvas(f"What mends {label_of(base)} most cheaply?", smoke, height=4.2)
    points, spans = [], []
    for row in frame.itertuples():
        color = color_of("dense") if row.kind == "rows" else color_of(row.model)
        ax.vlines(row.cost, row.low * 100, row.high * 100, color=color, linewidth=1)
        ax.plot(row.cost, row.value * 100, marker=KINDS[row.kind], color=color, linestyle="")
        name = f"{row.rows} rows" if row.kind == "rows" else label_of(row.model).removeprefix(f"{label_of(base)} + ")
        points.append((row.cost, row.value * 100, name, color))
        spans.append([(row.cost, row.low * 100), (row.cost, row.high * 100)])
    ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
    ax.set_xscale("log")
    ax.set(xlabel="cost in dense trainings (log scale), lower is better", ylabel="OOD gain over the base (points), higher is better")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.margins(x=0.12)
    point_labels(ax, points, spans)
    return fig


@themed
def more_rows(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Gain on the forgotten subcase and on OOD as a whole against the number of new rows of that subcase, by base.

    frame: the rows of `mends.table` of kind "rows": base, rows, forgotten, value, low, high and forgotten_*.
    """
    check(frame, "more_rows", ["base", "rows"], ["value", "forgotten_value"])
    fig, axes = canvas("A few more rows of what was forgotten", smoke, height=3.4, panels=2, sharey=False)
    for ax, prefix, title in ((axes[0], "forgotten_", "forgotten subcase"), (axes[1], "", "all OOD subcases")):
        ends = []
        for base, line in frame.sort_values("rows").groupby("base", sort=False):
            style = style_of(base)
            ax.fill_between(line["rows"], line[f"{prefix}low"] * 100, line[f"{prefix}high"] * 100, color=style["color"],
                            alpha=0.16, linewidth=0)
            ax.plot(line["rows"], line[f"{prefix}value"] * 100, **style)
            ends.append((line["rows"].iloc[-1], line[f"{prefix}value"].iloc[-1] * 100, label_of(base), style["color"]))
        ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
        ax.set(title=title, xlabel="new training rows", ylabel="gain (points), higher is better" if prefix else "")
        if not prefix:
            end_labels(ax, ends)
    return fig
