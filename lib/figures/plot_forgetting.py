"""The figures of what populations forget and of what foretells it; fractions are drawn in percent, AUCs as they are."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.analysis.forecast import ALL, BEYOND, CHURN, COMBINED, ELSEWHERE, EXCESS, OTHER_DENSE
from lib.analysis.tables import case_name
from lib.errors import StudyError
from lib.figures import theme
from lib.figures.theme import GREY, LABELS, PALETTE, check, color_of, label_of, style_of, themed
from lib.names import MITIGATIONS, parse

NULL = "#9a9a9a"
SCORES = {"test": ("ID", -0.17), "ood": ("OOD", 0.17)}
CHANGED = "rows changed, %\n(lower is better)"
PREDICTORS = {
    "loss": "dense loss", "margin": "dense margin", "el2n": "early error (EL2N)", "loss_variance": "loss variance",
    "variability": "variability", "gradient_norm": "gradient norm", "learned_at": "when it was learned",
    "rarity": "rarity of its kind", "bigram_rarity": "rarity of word pairs", "shortcut_wrong": "shortcut says wrong",
    CHURN: "dense run combined,\nfitted on dense pairs", COMBINED: "dense run combined,\nfitted on compressions",
    CHURN + ELSEWHERE: "the same, dense pairs\nof other tasks",
    COMBINED + ELSEWHERE: "the same, compressions\nof other tasks",
}  # fmt: skip


@themed
def kept_figure(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """What is kept: ID and OOD score of every model that no mitigation trained, a panel a task.

    table: task, model, measure ("test", "ood"), value, low, high, seeds, as `seeds.means` gives it. The lines mark the
    dense model's two scores.
    """
    mitigated = table["model"].map(lambda model: parse(model).loss in MITIGATIONS)
    table = table[table["measure"].isin(SCORES) & ~mitigated]
    check(table, "kept_figure", ["task", "model", "measure"], ["value", "low", "high"])
    tasks, models = list(table["task"].unique()), list(table["model"].unique())
    fig, axes = theme.panels("What a compressed model keeps", smoke, 2.0 + 0.21 * len(models), len(tasks))
    theme.notes(fig, smoke, f"score with its 95 % interval over {_over(table)}; lines: the dense model's")
    for ax, task in zip(axes, tasks):
        for measure, (name, shift) in SCORES.items():
            here = table[(table["task"] == task) & (table["measure"] == measure)].set_index("model").reindex(models)
            face, dashes = ({}, "-") if measure == "ood" else ({"markerfacecolor": "white"}, ":")
            ax.axvline(here["value"].iloc[0] * 100, color=GREY, linewidth=0.9, linestyle=dashes)
            _dots(ax, here, lambda model: (color_of(model), "o"), shift, label=name, **face)
        theme.panel(ax, LABELS.get(task, task), "score, %\n(higher is better)")
        ax.set_xlim(right=min(ax.get_xlim()[1], 101))  # a t interval may reach past 100 %
    theme.named_rows(axes[0], [label_of(model) for model in models])
    theme.legend(fig, axes[0])
    return fig


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
    fig, axes = theme.panels("Which rows does the whole population answer otherwise?", smoke, height, len(splits))
    theme.notes(fig, smoke, *_task(table),
                "dots: modal answer of compressed models against dense ones (95 % over rows)",
                "grey band: dense models of other seeds, the churn that means nothing")
    null = table[(table["measure"] == "null") & (table["model"] == models[0])]
    if spread is not None:
        null = pd.concat([null, spread[spread["pairs"] > 1]])
    for ax, split in zip(axes, splits):
        band = null[null["split"] == split]
        ax.axvspan(band["low"].min() * 100, band["high"].max() * 100, color="#d5d5d5", linewidth=0, zorder=0)
        _dots(ax, pies[pies["split"] == split].set_index("model").reindex(models), _own_look)
        theme.panel(ax, LABELS.get(split, split), CHANGED)
        ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    theme.named_rows(axes[0], [label_of(model) for model in models])
    return fig


@themed
def pie_subcases(table: pd.DataFrame, model: str, counts: dict[str, int] | None = None, *,
                 smoke: bool = False) -> Figure:
    """Share of rows of each subcase whose modal answer a compression changes, beside the churn null; a panel a split.

    table: `populations.by_subcase`. counts: rows in train that teach a subcase (`tables.train_counts`, over seeds their
    mean), rarest last; without them the table's order. Rows without a subcase are called "ordinary".
    """
    table = table[table["model"] == model]
    if table.empty:
        raise StudyError(f"pie_subcases: the table has no model {model!r}")
    kinds = {"null": ("dense, other seeds (null)", NULL, "D", 0.17),
             "pies": (label_of(model), color_of(model), "o", -0.17)}
    for measure in kinds:
        check(table[table["measure"] == measure], "pie_subcases", ["split", "subcase"], ["value", "low", "high"])
    cases, splits = list(table["subcase"].unique()), list(table["split"].unique())
    if counts:
        cases.sort(key=lambda case: (case == "", counts.get(case, 0)), reverse=True)
    fig, axes = theme.panels("Where do the changed answers lie?", smoke, 1.9 + 0.3 * len(cases), len(splits))
    theme.notes(fig, smoke, *_task(table))
    for ax, split in zip(axes, splits):
        for measure, (name, color, marker, shift) in kinds.items():
            here = table[(table["measure"] == measure) & (table["split"] == split)].set_index("subcase").reindex(cases)
            _dots(ax, here, lambda _: (color, marker), shift, label=name)
        theme.panel(ax, LABELS.get(split, split), CHANGED)
    names = [case_name(case, (counts or {}).get(case, np.nan)) if case else "ordinary" for case in cases]
    theme.named_rows(axes[0], names, "subcase")
    theme.legend(fig, axes[0])
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
    height = 2.1 + max(0.16 + 0.08 * len(models), 0.3) * len(names)
    fig, axes = theme.panels("What foretells the rows that are lost?", smoke, height, len(splits))
    theme.notes(fig, smoke, *_task(table),
                f"of the rows that the dense model gets right (95 % over {_over(table)}); dotted: a coin")
    special = {OTHER_DENSE: ("dense, other seed (null)", (NULL, "D")),
               ALL: ("mean of all compressions", (PALETTE["dense"], "s"))}
    for ax, split in zip(axes, splits):
        ax.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
        for i, model in enumerate(models):
            here = table[(table["model"] == model) & (table["split"] == split)].set_index("predictor").reindex(names)
            name, look = special.get(model) or (label_of(model), _own_look(model))
            _dots(ax, here, lambda _: look, 0.7 * ((i + 0.5) / len(models) - 0.5), scale=1, label=name)
        theme.panel(ax, LABELS.get(split, split), "AUC\n(higher foretells better)")
    theme.named_rows(axes[0], [PREDICTORS[name] for name in names], "known before compression")
    theme.legend(fig, axes[0])
    return fig


def _task(table: pd.DataFrame) -> list[str]:
    """The name of a table's task, where it has one."""
    return [LABELS.get(task, task) for task in table["task"].unique()] if "task" in table else []


def _over(table: pd.DataFrame) -> str:
    """What the intervals of a table are over."""
    return f"{int(table['seeds'].max())} seeds" if table["seeds"].max() > 1 else "rows, one seed"


def _own_look(model: str) -> tuple[str, str]:
    return color_of(model), style_of(model)["marker"]


def _dots(ax, rows: pd.DataFrame, look: Callable[[str], tuple[str, str]], shift: float = 0.0, scale: float = 100,
          label: str | None = None, **style) -> None:
    """The rows' values with their intervals, one below the other; look: index -> colour and marker."""
    for y, row in enumerate(rows.itertuples()):
        color, marker = look(row.Index)
        theme.dot(ax, row, y + shift, color, scale, width=1.3, alpha=0.6, marker=marker, markersize=4.5,
                  label=None if y else label, **style)
