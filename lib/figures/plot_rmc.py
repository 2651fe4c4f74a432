"""What RMC is read against: its controls, the price of its difficulty, its alpha; fractions are drawn in percent."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.analysis import rmc, tables
from lib.errors import StudyError
from lib.figures import theme
from lib.figures.curves import ACCURACY
from lib.figures.placing import end_labels, intervals_over
from lib.figures.theme import GREY, LABELS, PALETTE, canvas, check, ink, label_of, notes, themed

SCORES = {
    "v_levels": "variance over levels", "v_one_run": "variance along one run", "v_seeds": "variance over dense seeds",
    "el2n": "EL2N", "variability": "dynamics: variability", "confidence": "dynamics: confidence",
    "shortcut_confidence": "shortcut-only model",
}
BAND = "#d9d9d9"


@themed
def instance_effects(effects: pd.DataFrame, smallest: float = 0.02, *, smoke: bool = False) -> Figure:
    """Does the instance matter in RMC? RMC less each control, OOD: a dot a seed, the mean and its 95 % t interval.

    effects: task, base, control, seed, value (fraction), as `rmc.instance_effects` makes it. The band shows
    differences below the smallest effect of interest, `smallest` to either side.
    """
    keys = ["task", "base", "control"]
    check(effects, "instance_effects", [*keys, "seed"], ["value"])
    groups = tables.over_seeds(effects, keys)
    places, heads, y = [], [], 0.0
    for (task, base), part in groups.groupby(keys[:2], sort=False):
        heads.append((y, f"{task}, {label_of(base)}"))
        places += [(y + 1 + i, row) for i, row in enumerate(part.itertuples())]
        y += 1.6 + len(part)
    fig, ax = canvas("Does the instance matter in RMC?", smoke, height=1.9 + 0.21 * y)
    alone = (groups["seeds"] == 1).sum()
    notes(fig, smoke, f"grey band: smaller than the smallest effect of interest, {100 * smallest:g} points",
          "small dots: one seed each; large: their mean and its 95 % t interval",
          *([f"{alone} of {len(groups)} have one seed and so no interval"] if alone else []))
    ax.axvspan(-100 * smallest, 100 * smallest, color=BAND, linewidth=0, zorder=0)
    ax.axvline(0, color="black", linewidth=0.9)
    for at, row in places:
        color = ink(PALETTE[row.control])
        mine = effects[(effects[keys] == [row.task, row.base, row.control]).all(axis=1)]["value"] * 100
        ax.plot(mine, np.full(len(mine), at + 0.25), "o", markersize=3, color=color, alpha=0.6, linewidth=0)
        theme.dot(ax, row, at, color, width=1.8, marker="o", markersize=6.5)
    ticks = [*heads, *((at, "- " + LABELS[row.control]) for at, row in places)]
    ax.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    for label in ax.get_yticklabels()[:len(heads)]:
        label.set_weight("bold")
    ax.tick_params(axis="y", length=0)
    theme.grid(ax)
    ax.set_axisbelow(True)
    ax.set(ylim=(y - 1, -0.6), ylabel="RMC less its control", xlabel="OOD score, points (right: RMC is better)")
    return fig


@themed
def price_dots(rivals: pd.DataFrame, costs: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """How well each difficulty score finds the rows on which the shortcut fails, and what it costs in dense runs.

    rivals: `shortcuts.rivals`, of which its auc is drawn, or its rank where the truth is not known; costs:
    `shortcuts.prices`. A score that is missing is named.
    """
    measure, name, zero, asked = (
        ("auc", "AUC against the truth", 0.5, "find the shortcut-breaking rows") if (rivals["measure"] == "auc").any()
        else ("rank", "rank agreement with the variance over levels", 0, "rank the rows by difficulty"))
    table = rivals[rivals["measure"] == measure]
    known = table.dropna(subset="value")
    check(known, "price_dots", ["score", "on"], ["value", "low", "high"])
    unknown = costs["dense_runs"].reindex(known["score"]).isna()
    if unknown.any():
        score = unknown.index[unknown.argmax()]
        raise StudyError(f"price_dots: costs has no row of score {score!r}; give shortcuts.prices")
    fig, ax = canvas(f"What does it cost to {asked}?", smoke, height=2.1 + 0.27 * len(known))
    left_out = [SCORES[name] for name in table.loc[table["value"].isna(), "score"]]
    notes(fig, smoke, "at the right: cost beyond the dense run, in dense runs (lower is better)",
          "green: needs models trained for it alone; dark: nothing beyond the dense run",
          *([f"not available: {', '.join(left_out)}"] if left_out else []))
    ax.axvline(zero, color="#777777", linewidth=0.9, linestyle=":")
    for y, row in enumerate(known.itertuples()):
        color = PALETTE["rmc" if row.score.startswith("v_") else "other"]
        theme.dot(ax, row, y, color, scale=1, width=1.6, marker="o", markersize=6)
        ax.text(1.02, y, f"{costs.loc[row.score, 'dense_runs']:.3g}", transform=ax.get_yaxis_transform(), va="center")
    names = [f"{SCORES[row.score]} ({row.on})" for row in known.itertuples()]
    theme.named_rows(ax, names, "difficulty score (rows)")
    theme.grid(ax)
    ax.set_axisbelow(True)
    ax.set_xlabel(f"{name} (higher is better)")
    return fig


@themed
def gains(table: pd.DataFrame, base: str, *, smoke: bool = False) -> Figure:
    """Points that each loss gains over the model `base`, a panel a set, and what the dense model has more than it.

    table: model, split, value, low, high (fractions), differences from `base`: of dense and of `base + loss`.
    """
    check(table, "gains", ["model", "split"], ["value", "low", "high"])
    models, splits = list(table["model"].unique()), list(table["split"].unique())
    fig, axes = theme.panels(f"Can what {label_of(base)} forgot be mended?", smoke, 1.7 + 0.34 * len(models),
                             len(splits))
    notes(fig, smoke, f"score less that of {label_of(base)} on the same rows; bars: 95 % over rows, not over seeds")
    for ax, split in zip(axes, splits):
        rows = table[table["split"] == split].set_index("model")
        ax.axvline(0, color=GREY, linewidth=0.9)
        for y, model in enumerate(models):
            theme.dot(ax, rows.loc[model], y, theme.color_of(model), width=1.8, marker="s" if model == "dense" else "o",
                      markersize=6)
        theme.panel(ax, LABELS.get(split, split), "points (right is better)", bins=4)
    names = ["dense, to compare" if model == "dense" else label_of(model).removeprefix(f"{label_of(base)} ")
             for model in models]
    theme.named_rows(axes[0], names, "loss")
    return fig


def loss_label(model: str, base: str) -> str:
    """The label of a model without its base's: `imp-70 + rmc` of `imp-70` is RMC."""
    return label_of(model).removeprefix(f"{label_of(base)} + ")


@themed
def regained(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """What each loss gave back OOD against what its base had lost, a dot a loss and seed, a panel a base.

    table: `rmc.regained` (fractions). On the dashed line all that was lost is back.
    """
    check(table, "regained", ["base", "loss", "seed"], ["lost", "value"])
    bases = list(table["base"].unique())
    fig, axes = theme.panels("Is it the loss, or an unlucky base?", smoke, 4.3, len(bases), sharey=False)
    notes(fig, smoke, "a dot: one loss at one seed; dashed line: all that the base had lost is back")
    for ax, base in zip(axes, bases):
        rows = table[table["base"] == base]
        ends = 100 * np.array([min(0, rows["lost"].min()), rows["lost"].max()])
        ax.axhline(0, color=GREY, linewidth=0.9)
        ax.plot(ends, ends, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)))
        for marker, (loss, part) in zip("oDs^vPX<>*hd", rows.groupby("loss", sort=False)):
            color = theme.color_of(f"{base} + {loss}")
            ax.plot(100 * part["lost"], 100 * part["value"], marker, color=color, markeredgecolor=ink(color),
                    markersize=6, label=loss_label(f"{base} + {loss}", base))
        theme.panel(ax, label_of(base), "lost by the base (OOD points)")
    axes[0].set_ylabel("given back (OOD points, higher is better)")
    theme.legend(fig, max(axes, key=lambda ax: len(ax.lines)))
    return fig


@themed
def alpha_curve(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Score against alpha on the hard part of dev, on all of dev and OOD, with 95 % intervals, and below them the alpha
    that each rule chooses.

    table: one base of `rmc.choose_alpha`, or of `rmc.alpha_over_seeds` (with a column seeds).
    """
    check(table, "alpha_curve", ["alpha"], [*rmc.SCORES, *rmc.RULES])
    fig, (ax, foot) = theme.panels("Can alpha be chosen without OOD rows?", smoke, 5, rows=2, sharey=False)
    foot.get_gridspec().set_height_ratios([3, 1])
    rows, ends = table.sort_values("alpha"), []
    seeds = int(rows["seeds"].max()) if "seeds" in rows else 1
    notes(fig, smoke, f"bars: {intervals_over(rows)}")
    lines = {"ood": ("OOD", PALETTE["rmc"], "-"), "dev": ("dev (ID)", PALETTE["dense"], (0, (1, 1))),
             "dev_hard": ("dev, hard part", PALETTE["truncated"], (0, (4, 1.5)))}
    apart = 0.012 * (rows["alpha"].max() - rows["alpha"].min())
    for place, (column, (name, color, dashes)) in enumerate(lines.items()):
        x = rows["alpha"] + apart * (place - 1)
        ax.vlines(x, rows[f"{column}_low"] * 100, rows[f"{column}_high"] * 100, color=color, linewidth=1, alpha=0.6)
        ax.plot(x, rows[column] * 100, color=color, linestyle=dashes, marker=".")
        ends.append((x.iloc[-1], rows[column].iloc[-1] * 100, name, color))
    ax.set(ylabel=ACCURACY, xticklabels=[])
    ax.margins(y=0.08)
    rules = {"by_hard": "best on hard dev", "by_gap": "least gap on dev", "oracle": "best OOD (oracle)"}
    for y, rule in enumerate(rules):
        chosen = rows[rows[rule] > 0]
        foot.plot(chosen["alpha"], [y] * len(chosen), "o", color=GREY, markersize=6)
        for at, times in zip(chosen["alpha"], chosen[rule]):
            if seeds > 1:
                foot.annotate(f"{int(times)} of {seeds}", (at, y), (7, 0), textcoords="offset points", va="center",
                              fontsize=9, color=GREY)
    foot.set_title("the alpha that each rule chooses", color=GREY)
    foot.set(xlim=ax.get_xlim(), xlabel="alpha, the least strength of a target (1: plain distillation)")
    theme.named_rows(foot, list(rules.values()))
    for panel in (ax, foot):
        panel.set_xticks(rows["alpha"])
        theme.grid(panel)
    end_labels(ax, ends)
    return fig
