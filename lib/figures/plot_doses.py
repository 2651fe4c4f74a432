"""Figures of notebooks 06b and 07b: dose and response, and what a mend costs and gains."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from lib.figures import theme
from lib.figures.placing import end_labels
from lib.figures.theme import GREY, check, color_of, ink, label_of, themed

AXES = {"shortcut_rate": "train rows on which the shortcut holds", "n_train": "training rows (log scale)"}
KINDS = {"rows": "o", "steps": "s", "weights": "^", "loss": "D"}


@themed
def dose_response(frame: pd.DataFrame, axis: str, chance: float = 0.5, *, smoke: bool = False) -> Figure:
    """OOD score of every model, and its gap beyond the dense model's, against one dose.

    frame: model, axis, dose, measure (`ood`, `gap_difference`), value, low, high in fractions, of `doses.response`;
    `axis`: shortcut_rate or n_train.
    """
    frame = frame[(frame["axis"] == axis) & frame["measure"].isin(["ood", "gap_difference"])]
    check(frame, "dose_response", ["model", "dose", "measure"], ["value"])
    title = "More of the shortcut in train" if axis == "shortcut_rate" else "More rows in train"
    fig, (left, right) = theme.panels(title, smoke, columns=2, sharey=False)
    for ax, measure, title in ((left, "ood", "OOD accuracy (%)\nhigher is better"),
                               (right, "gap_difference", "gap beyond dense (points)\nlower is better")):
        ends = []
        for model, line in frame[frame["measure"] == measure].sort_values("dose").groupby("model", sort=False):
            ends.append(theme.model_band(ax, line["dose"], line, model, alpha=0.14))
        ax.axhline(chance * 100 if measure == "ood" else 0, color=GREY, linestyle=":", linewidth=1)
        ax.set_title(title)
        if axis == "n_train":
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_locator(FixedLocator(sorted(frame["dose"].unique())))
            ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        else:
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if measure == "gap_difference":
            end_labels(ax, ends)
    fig.supxlabel(AXES[axis], fontsize=9.5)
    dense = frame[(frame["measure"] == "ood") & (frame["model"] == "dense")]
    top = dense.loc[dense["value"].idxmax()]
    left.margins(y=0.12)
    low, high = left.get_ylim()
    left.set_ylim(max(low, 0), min(high, 107))  # few seeds: an interval of t may leave what an accuracy can be
    left.annotate("dense", (top["dose"], top["value"] * 100), (0, 7), textcoords="offset points",
                  ha="right" if top["dose"] == dense["dose"].max() else "center", fontsize=9)
    return fig


@themed
def mend_gains(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """What each mend gains OOD over its base, with its 95 % interval and, right of it, what it costs.

    frame: one base of `mends.gains`: base, mend, kind, rows, cost, value, low, high. The kinds stand apart.
    """
    check(frame, "mends", ["mend"], ["cost", "value", "low", "high"])
    base = label_of(frame["base"].iloc[0])
    frame = frame.assign(kind=pd.Categorical(frame["kind"], KINDS)).sort_values("kind", kind="stable")
    places = frame.groupby("kind", observed=True).ngroup().to_numpy() * 0.6 + range(len(frame))
    fig, ax = theme.canvas(f"What mends {base} most cheaply?", smoke, height=1.6 + 0.24 * places[-1])
    names = []
    for at, row in zip(places, frame.itertuples()):
        color = color_of("dense") if row.kind == "rows" else ink(color_of(row.model))
        theme.dot(ax, row, at, color, marker=KINDS[row.kind])
        ax.annotate(f"{row.cost:.2g}", (1.02, at), xycoords=ax.get_yaxis_transform(), va="center", fontsize=9)
        names.append(row.mend if row.kind == "rows" else label_of(row.model).removeprefix(f"{base} "))
    ax.axvline(0, color=GREY, linestyle=":", linewidth=1)
    ax.set_yticks(places, names)
    ax.set_ylim(places[-1] + 0.7, -0.7)
    ax.annotate("cost", (1.02, 1), xycoords="axes fraction", va="bottom", fontsize=9, weight="bold")
    ax.set_xlabel("OOD gain over the base (points, right is better); cost in dense trainings")
    return fig


@themed
def more_rows(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Gain on the forgotten subcase and on OOD as a whole against the number of new rows of that subcase, by base.

    frame: the rows of `mends.gains` of kind "rows": base, rows, forgotten, value, low, high and forgotten_*.
    """
    check(frame, "more_rows", ["base", "rows"], ["value", "forgotten_value"])
    interval = ["value", "low", "high"]
    fig, axes = theme.panels("A few more rows of what was forgotten", smoke, height=3.4, columns=2, sharey=False)
    for ax, prefix, title in ((axes[0], "forgotten_", "forgotten subcase"), (axes[1], "", "all OOD subcases")):
        ends = []
        for base, line in frame.sort_values("rows").groupby("base", sort=False):
            gain = line[[f"{prefix}{end}" for end in interval]].set_axis(interval, axis="columns")
            ends.append(theme.model_band(ax, line["rows"], gain, base))
        ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
        ax.set(title=title, xlabel="new training rows", ylabel="gain (points), higher is better" if prefix else "")
        if not prefix:
            end_labels(ax, ends)
    return fig
