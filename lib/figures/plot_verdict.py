"""Figures of judged models: what each lost ID and OOD beside its parent, and on which kinds of rows."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.figures import theme
from lib.figures.theme import GREY, check, themed

SETS = {"id": "in distribution (ID)", "ood": "out of distribution (OOD)"}
MOST = 24  # kinds of rows shown


def _colors(frame: pd.DataFrame) -> dict[str, tuple]:
    """A colour for each model; grey for the parent trained once more (is_null)."""
    named = frame.drop_duplicates("model")
    models = list(named.loc[~named["is_null"], "model"])
    return dict.fromkeys(named["model"], GREY) | dict(zip(models, sns.color_palette("colorblind", len(models))))


@themed
def lost(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Each model's ID and OOD score less its parent's, with its 95 % interval, a panel a score.

    frame: model | is_null | on (id, ood) | value | low | high, of `sheets.differences`, in shares.
    """
    check(frame, "lost", ["model", "on"], ["value", "low", "high"])
    shown = [on for on in SETS if (frame["on"] == on).any()]
    models, colors = list(frame["model"].unique()), _colors(frame)
    fig, axes = theme.panels("Difference from the parent", smoke, 1.7 + 0.34 * len(models), len(shown))
    theme.notes(fig, smoke, "points, with 95 % intervals over rows; left of the dotted line: lost")
    for ax, on in zip(axes, shown):
        for row in frame[frame["on"] == on].itertuples():
            face = {"markerfacecolor": "white"} if row.is_null else {}
            theme.dot(ax, row, models.index(row.model), colors[row.model], marker="o", **face)
        ax.axvline(0, color=GREY, linestyle=":", linewidth=1)
        theme.panel(ax, SETS[on], "points")
    theme.named_rows(axes[0], [_short(name) for name in models])
    left, right = 100 * min(frame["low"].min(), -0.01), 100 * max(frame["high"].max(), 0.01)
    for ax in axes:
        ax.set_xlim(left - 0.06 * (right - left), right + 0.06 * (right - left))
    return fig


@themed
def kinds(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Each model's score on every kind of row less its parent's, the greatest loss first; at most 24 kinds.

    frame: model | is_null | split | part | value | low | high, of `sheets.kinds`, in shares.
    """
    check(frame, "kinds", ["model", "split", "part"], ["value", "low", "high"])
    several = frame["split"].nunique() > 1
    names = frame["part"].str.replace("_", " ") + (" (" + frame["split"] + ")" if several else "")
    frame = frame.assign(name=names)
    order = list(frame.groupby("name", sort=False)["value"].mean().sort_values(kind="stable").index)
    rows, models, colors = order[:MOST], list(frame["model"].unique()), _colors(frame)
    fig, ax = theme.canvas("By kind of row", smoke, 1.9 + len(rows) * max(0.2, 0.11 * len(models)))
    said = ["score less the parent's, points, with 95 % intervals over rows"]
    said += [f"the {MOST} greatest losses of {len(order)} kinds"] * (len(order) > MOST)
    theme.notes(fig, smoke, *said)
    for row in frame[frame["name"].isin(rows)].itertuples():
        lane = (models.index(row.model) - (len(models) - 1) / 2) * 0.7 / len(models)
        theme.dot(ax, row, rows.index(row.name) + lane, colors[row.model], marker="o", markersize=4)
    ax.axvline(0, color=GREY, linestyle=":", linewidth=1)
    theme.panel(ax, "", "points")
    theme.named_rows(ax, [_short(name) for name in rows])
    if len(models) > 1:
        fig.legend(handles=[Line2D([], [], marker="o", color=colors[name], label=_short(name)) for name in models],
                   loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return fig


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:12]}...{name[-11:]}"
