"""The figures of loyalty, attack and cost; fractions are drawn in percent."""

import textwrap
from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lib.analysis import choice
from lib.errors import StudyError
from lib.figures import theme
from lib.figures.placing import point_labels
from lib.figures.theme import GREY, LABELS, check, color_of, dot, label_of, style_of, themed

COSTS = {"bytes": (1e-6, "bytes on disk, MB"), "latency_ms": (1, "latency of one example, ms")}  # column: scale, name
ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
NULL = "#767676"


@themed
def loyalty_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, smoke: bool = False) -> Figure:
    """Label loyalty of each model to its dense teacher, a panel a split, over the band of the dense-vs-dense null.

    table: model and the columns of `loyalty.by_split`; null: those columns for dense models of other seeds, which make
    the first row (their mean, from the lowest end of an interval to the highest) and the band. Both fractions; split
    `dev` is left out, it is for selection.
    """
    table, null = (t[(t["measure"] == "label_loyalty") & (t["split"] != "dev")] if t is not None else None
                   for t in (table, null))
    check(table, "loyalty_figure", ["model", "split"], ["value", "low", "high"])
    models, splits = list(table["model"].unique()), list(table["split"].unique())
    known = null is not None and len(null) > 0
    rows = [*["dense, another seed (null)"] * known, *(label_of(model) for model in models)]
    fig, axes = theme.panels("Does it still answer as its teacher does?", smoke, 1.9 + 0.26 * len(rows), len(splits))
    theme.notes(fig, smoke, "label loyalty: rows labelled as the teacher labels them (higher is closer)",
                *["grey: no more answers changed than by another seed of the dense model"] * known)
    both = pd.concat([table, null])
    low, high = both["low"].min() * 100, both["high"].max() * 100
    for ax, split in zip(axes, splits):
        if known and len(same := null[null["split"] == split]):
            ends = pd.Series({"value": same["value"].mean(), "low": same["low"].min(), "high": same["high"].max()})
            ax.axvspan(ends["low"] * 100, ends["high"] * 100, color="#dedede", linewidth=0, zorder=0)
            dot(ax, ends, 0, NULL, marker="D", markersize=5.5)
        of_split = table[table["split"] == split].set_index("model").reindex(models)
        for y, row in enumerate(of_split.itertuples(), start=int(known)):
            dot(ax, row, y, color_of(row.Index), marker=style_of(row.Index)["marker"], markersize=5.5)
        theme.panel(ax, LABELS.get(split, split), "loyalty, %", bins=4)
        ax.set_xlim(low - 0.05 * (high - low) - 0.5, high + 0.05 * (high - low) + 0.5)
    theme.named_rows(axes[0], rows, "model")
    return fig


@themed
def attack_matrix(matrix: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Do attacks carry over? Accuracy of each model (column) on the adversarial pairs found on each (row), in percent.

    matrix: found_on, model, value (fraction); pairs of models that are not in it stay blank.
    """
    check(matrix, "attack_matrix", ["found_on", "model"], ["value"])
    rows = list(matrix["found_on"].unique())
    columns = sorted(matrix["model"].unique(), key=lambda model: rows.index(model) if model in rows else len(rows))
    values = matrix.pivot(index="found_on", columns="model", values="value").reindex(rows, columns=columns) * 100
    fig, ax = theme.canvas("Do attacks carry over to other models?", smoke, height=2.3 + 0.36 * len(rows))
    ax.imshow(values.to_numpy(float), cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
    ax.set_facecolor("#f2f2f2")
    for (y, x), value in np.ndenumerate(values.to_numpy(float)):
        if not np.isnan(value):
            color = "white" if value > 55 else "black"
            ax.text(x, y, f"{value:.0f}", ha="center", va="center", color=color)
    ax.set_yticks(range(len(rows)), [label_of(model) for model in rows])
    names = [label_of(model) for model in columns]
    ax.set_xticks(range(len(columns)), names, rotation=30, ha="right", rotation_mode="anchor")
    ax.set(xlabel="model judged: accuracy, % (higher is more robust)", ylabel="attack found on")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig


@themed
def practitioner_plane(table: pd.DataFrame, named: Collection[str], *, smoke: bool = False) -> Figure:
    """OOD score against bytes on disk and against latency, a panel each, with the Pareto front drawn.

    table: model, ood (fraction), bytes, latency_ms; where known ood_low and ood_high. named: the models that have a
    name, a colour and an interval, the others are small and grey. A named model without the cost is left out of that
    panel, by name.
    """
    check(table, "practitioner_plane", ["model"], ["ood"])
    costs = [column for column in COSTS if column in table and table[column].notna().any()]
    if not costs:
        raise StudyError("practitioner_plane: no model has bytes or latency_ms; give one of the columns")
    fig, axes = theme.panels("What does a small or fast model cost?", smoke, 0.8 + 3.4 * len(costs), rows=len(costs))
    shown = table[table["model"].isin(named)]
    ends = pd.concat([table["ood"], *(shown[column] for column in ("ood_low", "ood_high") if column in table)]) * 100
    room = max(0.12 * (ends.max() - ends.min()), 1)
    others = ["small grey points: models without a name here"] * (len(shown) < len(table))
    theme.notes(fig, smoke, "grey line: Pareto front, no model is better and cheaper", *others)
    drawn = [_cost_axis(ax, table, shown, cost) for ax, cost in zip(axes, costs)]
    for ax, (points, blocked) in zip(axes, drawn):
        ax.set_ylim(ends.min() - room, ends.max() + room)
        point_labels(ax, points, blocked)
    return fig


def _cost_axis(ax, table: pd.DataFrame, shown: pd.DataFrame, cost: str) -> tuple[list[tuple], list]:
    """One panel of `practitioner_plane` but for its names; returns those and what they must keep clear of."""
    scale, name = COSTS[cost]
    rows = table[table[cost].notna()].assign(x=lambda t: t[cost] * scale, y=lambda t: t["ood"] * 100)
    _log_axis(ax, rows["x"])
    best = rows[choice.front(rows, {"ood": "high", cost: "low"})].sort_values(["x", "y"])
    steps = np.array([*np.repeat(best["x"], 2)[1:], ax.get_xlim()[1]]), np.repeat(best["y"], 2).to_numpy()
    ax.plot(*steps, color="#b0b0b0", linewidth=1.2, zorder=1)
    corners = list(zip(*steps))
    points, blocked = [], [list(pair) for pair in zip(corners, corners[1:])]
    for row in rows.itertuples():
        if row.model not in set(shown["model"]):
            ax.plot(row.x, row.y, color="#b0b0b0", marker="o", markersize=3, zorder=2)
            continue
        color = color_of(row.model)
        if hasattr(row, "ood_low"):
            blocked.append([(row.x, row.ood_low * 100), (row.x, row.ood_high * 100)])
            ax.plot(*zip(*blocked[-1]), color=color, alpha=0.4, linewidth=1.1)
        ax.plot(row.x, row.y, color=color, marker=style_of(row.model)["marker"], markersize=7, zorder=3)
        points.append((row.x, row.y, label_of(row.model), color))
    if missing := [label_of(model) for model in shown.loc[shown[cost].isna(), "model"]]:
        ax.set_title(textwrap.fill(f"not measured: {', '.join(missing)}", 84), color=GREY)
    ax.set(xlabel=f"{name} (log; lower is better)", ylabel="OOD accuracy, % (higher is better)")
    return points, blocked


def _log_axis(ax, values: pd.Series) -> None:
    """A log x axis round the values, with room for names, ticked at round numbers."""
    low, high = np.log10(values.min()), np.log10(values.max())
    room = max(0.12 * (high - low), 0.04)
    ax.set_xscale("log")
    ax.set_xlim(10 ** (low - room), 10 ** (high + room))
    left, right = low - room, high + room
    ticks, last = [], -np.inf
    for tick in (digit * 10.0**power for power in range(int(np.floor(left)), int(np.ceil(right))) for digit in ROUND):
        if left <= np.log10(tick) <= right and np.log10(tick) - last > (right - left) / 9:
            ticks, last = [*ticks, tick], np.log10(tick)
    if len(ticks) < 2:
        ticks = [float(f"{tick:.3g}") for tick in np.logspace(left, right, 5)[1:-1]]
    ax.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
