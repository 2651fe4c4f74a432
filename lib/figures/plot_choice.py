"""The figures of loyalty, attack and cost, over many models at once; fractions are drawn in percent."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from lib.analysis import choice
from lib.errors import StudyError
from lib.figures import theme
from lib.figures.placing import point_labels
from lib.figures.theme import GREY, LABELS, check, color_of, label_of, style_of, themed

COSTS = {"bytes": (1e-6, "bytes on disk, MB"), "latency_ms": (1, "latency of one example, ms")}  # column: scale, name
ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)


@themed
def loyalty_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, smoke: bool = False) -> Figure:
    """Label loyalty of each model to its dense teacher, a panel a split, over the band of the dense-vs-dense null.

    table: model and the columns of `loyalty.by_split`; null: those columns for pairs of dense models of different seeds
    (the band spans all of their intervals). Both fractions; split `dev` is left out, it is for selection.
    """
    table, null = (t[(t["measure"] == "label_loyalty") & (t["split"] != "dev")] if t is not None else None
                   for t in (table, null))
    check(table, "loyalty_figure", ["model", "split"], ["value", "low", "high"])
    models, splits = list(table["model"].unique()), list(table["split"].unique())
    fig, axes = theme.panels("Does it still answer as its teacher does?", smoke, 1.8 + 0.21 * len(models), len(splits))
    about_band = ["grey band: dense models of two seeds (95 %), the churn that means nothing"]
    theme.notes(fig, smoke, "label loyalty: rows labelled as the teacher labels them (higher is closer)",
                *(about_band if null is not None and len(null) else []))
    both = pd.concat([table, null])
    low, high = both["low"].min() * 100, both["high"].max() * 100
    for ax, split in zip(axes, splits):
        rows = table[table["split"] == split].set_index("model").reindex(models)
        if null is not None and split in set(null["split"]):
            same = null[null["split"] == split]
            ax.axvspan(same["low"].min() * 100, same["high"].max() * 100, color="#c9c9c9", linewidth=0, zorder=0)
        for y, row in enumerate(rows.itertuples()):
            color = color_of(row.Index)
            ax.hlines(y, row.low * 100, row.high * 100, color=color, linewidth=1.4, alpha=0.6)
            ax.plot(row.value * 100, y, marker=style_of(row.Index)["marker"], markersize=5.5, color=color)
        theme.panel(ax, LABELS.get(split, split), "loyalty, %", bins=4)
        ax.set_xlim(low - 0.05 * (high - low) - 0.5, high + 0.05 * (high - low) + 0.5)
    theme.named_rows(axes[0], [label_of(model) for model in models], "model")
    return fig


@themed
def attack_matrix(matrix: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Do attacks carry over? Accuracy of each model (column) on the adversarial pairs found on each (row), in percent.

    matrix: found_on, model, value (fraction); pairs of models that are not in it stay blank.
    """
    check(matrix, "attack_matrix", ["found_on", "model"], ["value"])
    rows, columns = list(matrix["found_on"].unique()), list(matrix["model"].unique())
    values = matrix.pivot(index="found_on", columns="model", values="value").reindex(rows, columns=columns) * 100
    fig, ax = theme.canvas("Do attacks carry over to other models?", smoke, height=2.6 + 0.25 * len(rows))
    size, slant = (9, 40) if len(columns) <= 14 else (6, 90)
    ax.imshow(values.to_numpy(float), cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
    ax.set_facecolor("#f2f2f2")
    for (y, x), value in np.ndenumerate(values.to_numpy(float)):
        if not np.isnan(value):
            color = "white" if value > 55 else "black"
            ax.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=size, color=color)
    ax.set_yticks(range(len(rows)), [label_of(model) for model in rows])
    names = [label_of(model) for model in columns]
    ax.set_xticks(range(len(columns)), names, rotation=slant, ha="right", rotation_mode="anchor", fontsize=size)
    ax.set(xlabel="model judged: accuracy, % (higher is more robust)", ylabel="attack found on")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig


@themed
def practitioner_plane(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """OOD score against bytes on disk and against latency, a panel each, with the Pareto front drawn.

    table: model, ood (fraction), bytes, latency_ms; where known ood_low, ood_high and after_attack (fractions), which
    is the area of a point, hollow where it is NaN. A model without the cost is left out of that panel, by name.
    """
    check(table, "practitioner_plane", ["model"], ["ood"])
    costs = [column for column in COSTS if column in table and table[column].notna().any()]
    if not costs:
        raise StudyError("practitioner_plane: no model has bytes or latency_ms; give one of the columns")
    fig, axes = theme.panels("What does a small or fast model cost?", smoke, 0.7 + 3.9 * len(costs), rows=len(costs))
    bounds = table[[column for column in ("ood", "ood_low", "ood_high") if column in table]] * 100
    low, high = bounds.min(axis=None), bounds.max(axis=None)
    room = max(0.1 * (high - low), 1)
    if "after_attack" in table and table["after_attack"].notna().any():
        _area_legend(fig, theme.room_under_title(fig, 1, smoke))
    drawn = [_cost_axis(ax, table, cost, (low - room, high + room)) for ax, cost in zip(axes, costs)]
    for ax, (points, blocked) in zip(axes, drawn):
        point_labels(ax, points, blocked)
    return fig


def _area_legend(fig: Figure, top: float) -> None:
    """What the area of a point says, in one line."""
    dot = {"marker": "o", "linestyle": "", "color": GREY}
    handles = [Line2D([], [], linestyle="", label="accuracy after the attack:")]
    handles += [Line2D([], [], markersize=_size(share), label=f"{share:.0%}", **dot) for share in (0.1, 0.5, 0.9)]
    handles += [Line2D([], [], markersize=_size(np.nan), label="not attacked", markerfacecolor="white", **dot)]
    fig.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.03, top), ncols=5, frameon=False, borderpad=0,
               borderaxespad=0, handletextpad=0.1, columnspacing=1)


def _cost_axis(ax, table: pd.DataFrame, cost: str, limits: tuple[float, float]) -> tuple[list[tuple], list]:
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
        color, attacked = color_of(row.model), getattr(row, "after_attack", 0.3)
        if hasattr(row, "ood_low"):
            blocked.append([(row.x, row.ood_low * 100), (row.x, row.ood_high * 100)])
            ax.plot(*zip(*blocked[-1]), color=color, alpha=0.4, linewidth=1.1)
        face = "white" if np.isnan(attacked) else color
        ax.plot(row.x, row.y, color=color, markerfacecolor=face, marker=style_of(row.model)["marker"], zorder=3,
                markersize=_size(attacked))
        points.append((row.x, row.y, label_of(row.model), color))
    missing = [label_of(model) for model in table.loc[table[cost].isna(), "model"]]
    told = "grey line: Pareto front, no model is better and cheaper"
    told += f"; not measured: {', '.join(missing)}" if missing else ""
    ax.set_title(textwrap.fill(told, 84), color=GREY)
    ax.set(xlabel=f"{name} (log; lower is better)", ylabel="OOD accuracy, % (higher is better)", ylim=limits)
    return points, blocked


def _size(share: float) -> float:
    """Marker size whose area grows with the share."""
    return 5.0 if np.isnan(share) else float(np.sqrt(12 + 110 * share))


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
