"""The figures of what populations forget and of what foretells it; theme, colours and names as in `lib.figures.curves`.

Shares come as fractions in [0, 1] and are drawn in percent, AUCs as they are. `smoke=True` marks a figure as no result.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.analysis.forecast import ALL, BEYOND, CHURN, COMBINED, EXCESS, OTHER_DENSE
from lib.analysis.tables import case_name
from lib.errors import StudyError
from lib.figures.theme import GREY, LABELS, PALETTE, canvas, check, color_of, label_of, notes, style_of, themed
from lib.names import MITIGATIONS, parse

NULL = "#9a9a9a"
SCORES = {"test": ("ID", -0.17), "ood": ("OOD", 0.17)}
CHANGED = "rows changed, %\n(lower is better)"
PREDICTORS = {
    "loss": "dense loss", "margin": "dense margin", "el2n": "early error (EL2N)", "loss_variance": "loss variance",
    "variability": "variability", "gradient_norm": "gradient norm", "rarity": "rarity of its kind",
    "bigram_rarity": "rarity of word pairs", "shortcut_wrong": "shortcut says wrong", COMBINED: "all combined",
    CHURN: "all, fitted on churn",
}  # fmt: skip


@themed
def kept_figure(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """What is kept: ID and OOD score of every model that no mitigation trained, a panel a task.

    table: task, model, measure ("test", "ood"), value, low, high, seeds, as `Evidence.over_seeds` gives it. The lines mark
    the dense model's two scores.
    """
    table = table[table["measure"].isin(SCORES) & ~table["model"].map(_mitigated)]
    check(table, "kept_figure", ["task", "model", "measure"], ["value", "low", "high"])
    tasks, models = list(table["task"].unique()), list(table["model"].unique())
    fig, axes = canvas("What a compressed model keeps", smoke, 2.0 + 0.21 * len(models), len(tasks))
    over = f"{int(table['seeds'].max())} seeds" if table["seeds"].max() > 1 else "rows, one seed"
    notes(fig, smoke, f"score with its 95 % interval over {over}; lines: the dense model's")
    for ax, task in zip(np.atleast_1d(axes), tasks):
        for measure, (name, shift) in SCORES.items():
            here = table[(table["task"] == task) & (table["measure"] == measure)].set_index("model").reindex(models)
            face = {} if measure == "ood" else {"markerfacecolor": "white"}
            ax.axvline(here["value"].iloc[0] * 100, color=GREY, linewidth=0.9, linestyle="-" if measure == "ood" else ":")
            for y, row in enumerate(here.itertuples()):
                _dot(ax, row, y + shift, 100, "o", color_of(row.Index), name if y == 0 else None, **face)
        _finish(ax, task, "score, %\n(higher is better)")
        ax.set_xlim(right=min(ax.get_xlim()[1], 101))  # a t interval may reach past 100 %
    _rows(axes, [label_of(model) for model in models], "")
    _legend(fig, axes)
    return fig


def _mitigated(model: str) -> bool:
    return parse(model).loss in MITIGATIONS


@themed
def pie_figure(table: pd.DataFrame, spread: pd.DataFrame | None = None, *, smoke: bool = False) -> Figure:
    """Share of rows whose modal answer compression changes, a dot a model and a panel a split, over the churn null.

    table: `populations.shares`. The band is the null's 95 % interval over rows, with `populations.spread` (of more than
    one pair) where that reaches further.
    """
    pies = table[table["measure"] == "pies"]
    check(pies, "pie_figure", ["model", "split"], ["value", "low", "high"])
    models, splits = list(pies["model"].unique()), list(pies["split"].unique())
    height = 1.9 + 0.21 * len(models)
    fig, axes = canvas("Which rows does the whole population answer otherwise?", smoke, height, len(splits))
    notes(fig, smoke, "dots: modal answer of compressed models against dense ones (95 % over rows)",
          "grey band: dense models of other seeds, the churn that means nothing")
    null = table[(table["measure"] == "null") & (table["model"] == models[0])]
    if spread is not None:
        null = pd.concat([null, spread[spread["pairs"] > 1]])
    for ax, split in zip(np.atleast_1d(axes), splits):
        band = null[null["split"] == split]
        ax.axvspan(band["low"].min() * 100, band["high"].max() * 100, color="#d5d5d5", linewidth=0, zorder=0)
        for y, row in enumerate(pies[pies["split"] == split].set_index("model").reindex(models).itertuples()):
            _dot(ax, row, y, 100, style_of(row.Index)["marker"], color_of(row.Index))
        _finish(ax, split, CHANGED)
        ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    _rows(axes, [label_of(model) for model in models], "")
    return fig


@themed
def pie_subcases(table: pd.DataFrame, model: str, counts: dict[str, int] | None = None, *, smoke: bool = False) -> Figure:
    """Share of rows of each subcase whose modal answer a compression changes, beside the churn null; a panel a split.

    table: `populations.by_subcase`. counts: rows in train that teach a subcase (`tables.train_counts`, over several seeds
    their mean), rarest last; without them the table's order. Rows without a subcase are called "ordinary".
    """
    table = table[table["model"] == model]
    if table.empty:
        raise StudyError(f"pie_subcases: the table has no model {model!r}")
    kinds = {"null": ("dense, other seeds (null)", NULL, "D", 0.17), "pies": (label_of(model), color_of(model), "o", -0.17)}
    for measure in kinds:
        check(table[table["measure"] == measure], "pie_subcases", ["split", "subcase"], ["value", "low", "high"])
    cases, splits = list(table["subcase"].unique()), list(table["split"].unique())
    if counts:
        cases.sort(key=lambda case: (case == "", counts.get(case, 0)), reverse=True)
    fig, axes = canvas("Where do the changed answers lie?", smoke, 1.9 + 0.3 * len(cases), len(splits))
    for ax, split in zip(np.atleast_1d(axes), splits):
        for measure, (name, color, marker, shift) in kinds.items():
            here = table[(table["measure"] == measure) & (table["split"] == split)].set_index("subcase").reindex(cases)
            for y, row in enumerate(here.itertuples()):
                _dot(ax, row, y + shift, 100, marker, color, name if y == 0 else None)
        _finish(ax, split, CHANGED)
    _rows(axes, [case_name(case, (counts or {}).get(case, np.nan)) if case else "ordinary" for case in cases], "subcase")
    _legend(fig, axes)
    return fig


@themed
def foretold_figure(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """AUC of each predictor of what is lost, a panel a split: the models of the table, their mean, and the churn null.

    table: `forecast.summary` of the models to be shown; differences in it (`EXCESS`, `BEYOND`) are left out, and so
    is what has no interval.
    """
    table = table[(table["model"] != EXCESS) & (table["predictor"] != BEYOND)].dropna(subset=["low", "high"])
    for _, rows in table.groupby("predictor"):
        check(rows, "foretold_figure", ["model", "split"], ["value", "low", "high"])
    models, splits = list(table["model"].unique()), list(table["split"].unique())
    if not models:
        raise StudyError("foretold_figure: no AUC of the table has an interval; give one seed, or two and more")
    names = [name for name in PREDICTORS if name in set(table["predictor"])]
    height = 2.1 + (0.16 + 0.08 * len(models)) * len(names)
    fig, axes = canvas("What foretells the rows that are lost?", smoke, height, len(splits))
    seeds = int(table["seeds"].max())
    over = f"{seeds} seeds" if seeds > 1 else "rows, one seed"
    notes(fig, smoke, f"of the rows that the dense model gets right (95 % over {over}); dotted: a coin")
    for ax, split in zip(np.atleast_1d(axes), splits):
        ax.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
        for i, model in enumerate(models):
            here = table[(table["model"] == model) & (table["split"] == split)].set_index("predictor").reindex(names)
            name, color, marker = _look(model)
            for y, row in enumerate(here.itertuples()):
                _dot(ax, row, y + 0.7 * ((i + 0.5) / len(models) - 0.5), 1, marker, color, name if y == 0 else None)
        _finish(ax, split, "AUC\n(higher foretells better)")
    _rows(axes, [PREDICTORS[name] for name in names], "known before compression")
    _legend(fig, axes)
    return fig


def _look(model: str) -> tuple[str, str, str]:
    """Name, colour and marker of a model, of the mean of the compressions and of the null."""
    if model == OTHER_DENSE:
        return "dense, other seed (null)", NULL, "D"
    if model == ALL:
        return "mean of all compressions", PALETTE["dense"], "s"
    return label_of(model), color_of(model), style_of(model)["marker"]


def _dot(ax, row, y: float, scale: float, marker: str, color: str, name: str | None = None, **style) -> None:
    ax.hlines(y, row.low * scale, row.high * scale, color=color, linewidth=1.3, alpha=0.6)
    ax.plot(row.value * scale, y, marker=marker, markersize=4.5, color=color, linestyle="", label=name, **style)


def _finish(ax, split: str, xlabel: str) -> None:
    ax.set_title(LABELS.get(split, split), color=GREY)
    ax.set_xlabel(xlabel)
    ax.locator_params(axis="x", nbins=5)
    ax.grid(axis="x", color="#e6e6e6", linewidth=0.7)


def _rows(axes, names: list[str], ylabel: str) -> None:
    first = np.atleast_1d(axes)[0]
    first.set(ylabel=ylabel, ylim=(len(names) - 0.4, -0.6))
    first.set_yticks(range(len(names)), names)


def _legend(fig: Figure, axes) -> None:
    handles, names = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)), frameon=False)
