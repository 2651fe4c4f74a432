"""Figures of notebooks 06b and 07b: dose and response, and what a mend costs and gains."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.figures import theme
from lib.figures.placing import end_labels, intervals_over
from lib.figures.theme import GREY, check, color_of, ink, label_of, style_of, themed

AXES = {"shortcut_rate": "train rows on which\nthe shortcut holds", "n_train": "training rows"}
KINDS = {"rows": "o", "steps": "s", "weights": "^", "loss": "D"}


def surely_learned(frame: pd.DataFrame, chance: float = 0.5) -> set[tuple[str, float]]:
    """The (model, dose) of which the ID score is surely above chance; of the others no response can be read.

    frame: model, dose, measure (`test`), value, low: one axis of `doses.response`, or of seeds put together.
    """
    rows = frame[frame["measure"] == "test"]
    rows = rows[rows["low"].fillna(rows["value"]) > chance]
    return set(zip(rows["model"], rows["dose"]))


@themed
def dose_response(frame: pd.DataFrame, axis: str, chance: float = 0.5, *, smoke: bool = False) -> Figure:
    """OOD score of every model, and its gap beyond the dense model's, at each dose; the doses stand evenly apart.

    frame: model, axis, dose, measure (`test`, `ood`, `gap_difference`), value, low, high in fractions, of
    `doses.response`, and, of seeds put together, seeds; `axis`: shortcut_rate or n_train. What cannot be read
    (`surely_learned`; of a gap, where the dense model did not learn either) is hollow, and no line joins it.
    """
    frame = frame[(frame["axis"] == axis) & frame["measure"].isin(["test", "ood", "gap_difference"])]
    check(frame, "dose_response", ["model", "dose", "measure"], ["value"])
    title = "More of the shortcut in train" if axis == "shortcut_rate" else "More rows in train"
    fig, (left, right) = theme.panels(title, smoke, columns=2, height=4.6, sharey=False)
    over = f" over {frame['seeds'].max():g} seeds" if "seeds" in frame else ""
    theme.notes(fig, smoke, f"thin lines: 95 % intervals{over}, cut where they leave the panel",
                "hollow, not joined: the ID score is not surely above chance, so nothing can be read")
    read = surely_learned(frame, chance)
    beyond = {(model, dose) for model, dose in read if ("dense", dose) in read}
    _by_dose(left, frame[frame["measure"] == "ood"], read, 100 * chance)
    _by_dose(right, frame[frame["measure"] == "gap_difference"], beyond, 0)
    left.set(title="OOD accuracy, %\n(higher is better)", xlabel=AXES[axis])
    right.set(title="gap beyond dense, points\n(lower is better)", xlabel=AXES[axis])
    low, high = left.get_ylim()
    left.set_ylim(max(low, -3), min(high, 103))
    theme.legend(fig, left)
    return fig


def _by_dose(ax, part: pd.DataFrame, read: set[tuple[str, float]], zero: float) -> None:
    """A dot and its interval for each model and dose, those not in `read` hollow; a line through the others.

    The axis reaches as far as all values and the intervals of what can be read (all, where nothing can).
    """
    doses, models = sorted(part["dose"].unique()), list(part["model"].unique())
    none = not read & set(zip(part["model"], part["dose"]))
    reach = [zero]
    for i, model in enumerate(models):
        rows, style = part[part["model"] == model].set_index("dose").reindex(doses), style_of(model)
        x = np.arange(len(doses)) + 0.6 * ((i + 0.5) / len(models) - 0.5)
        sure = np.array([(model, dose) in read for dose in doses])
        value, low, high = (100 * rows[end].to_numpy(float) for end in ("value", "low", "high"))
        ax.vlines(x, low, high, color=style["color"], linewidth=1, alpha=0.5)
        ax.plot(x, np.where(sure, value, np.nan), label=label_of(model), **style)
        ax.plot(x[~sure], value[~sure], **style | {"linestyle": "", "markerfacecolor": "white"})
        reach += [*value, *low[sure | none], *high[sure | none]]
    room = 0.06 * (np.nanmax(reach) - np.nanmin(reach))
    ax.set_ylim(np.nanmin(reach) - room, np.nanmax(reach) + room)
    ax.set_xticks(range(len(doses)), [f"{100 * dose:g} %" if dose <= 1 else f"{dose:g}" for dose in doses])
    ax.axhline(zero, color=GREY, linestyle=":", linewidth=1)


@themed
def mend_gains(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """What each mend gains OOD over its base, with its 95 % interval and, right of it, what it costs.

    frame: one base of `mends.gains`: base, mend, kind, rows, cost, value, low, high; of seeds put together, seeds. The
    kinds stand apart.
    """
    check(frame, "mends", ["mend"], ["cost", "value", "low", "high"])
    base = label_of(frame["base"].iloc[0])
    frame = frame.assign(kind=pd.Categorical(frame["kind"], KINDS)).sort_values("kind", kind="stable")
    places = frame.groupby("kind", observed=True).ngroup().to_numpy() * 0.6 + range(len(frame))
    fig, ax = theme.canvas(f"What mends {base} most cheaply?", smoke, height=2.1 + 0.24 * places[-1])
    theme.notes(fig, smoke, intervals_over(frame), "cost: dense trainings, by floating-point operations")
    names = []
    for at, row in zip(places, frame.itertuples()):
        color = color_of("dense") if row.kind == "rows" else ink(color_of(row.mend))
        theme.dot(ax, row, at, color, marker=KINDS[row.kind])
        ax.annotate(f"{row.cost:.2g}", (1.02, at), xycoords=ax.get_yaxis_transform(), va="center", fontsize=9)
        names.append(row.mend if row.kind == "rows" else label_of(row.mend).removeprefix(f"{base} "))
    ax.axvline(0, color=GREY, linestyle=":", linewidth=1)
    ax.set_yticks(places, names)
    ax.set_ylim(places[-1] + 0.7, -0.7)
    ax.annotate("cost", (1.02, 1), xycoords="axes fraction", va="bottom", fontsize=9, weight="bold")
    ax.set_xlabel("OOD gain over the base (points, right is better)")
    return fig


@themed
def more_rows(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Gain on the forgotten subcase and on OOD as a whole against the number of new rows of that subcase, by base.

    frame: the rows of `mends.gains`, or of `mends.over_seeds`, of kind "rows": base, rows, value, low, high and
    forgotten_*.
    """
    check(frame, "more_rows", ["base", "rows"], ["value", "forgotten_value"])
    interval = ["value", "low", "high"]
    fig, axes = theme.panels("A few more rows of what was forgotten", smoke, height=3.8, columns=2, sharey=False)
    theme.notes(fig, smoke, intervals_over(frame))
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
