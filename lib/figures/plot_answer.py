"""The answer in two figures: what each compression loses OOD beside what it loses in distribution, and the ledger."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from lib.analysis.forecast import ALL, EXCESS
from lib.figures import theme
from lib.figures.theme import GREY, LABELS, check, label_of, style_of, themed
from lib.names import OTHER_DENSE, parse

MOST = 6  # compressions
NULL = "#b0b0b0"
LINES = 5  # of one panel, beside the null
GATE = "a gate says no"
KINDS = {  # what words a colour stands for, in the order of the key
    "holds": ("#1b6e3c", ("holds",)),
    "holds, size open or small": ("#8cc79f", ("holds, size open", "holds, but small")),
    "no such effect, or not of that size": ("#e3b7a0", ("no such effect", "not of that size")),
    "fails, reversed": ("#a8321f", ("fails", "reversed")),
    "open, undefined, indication": ("#d9d9d9", ("open", "undefined", "indication")),
    GATE: ("#6a5a8c", ()),
    "not measured": ("#ffffff", ("not measured",)),
}


def removing(models: list[str]) -> list[str]:
    """The `plain` models that removed weights, layers, heads or width: without those that only round."""
    return [name for name in plain(models) if not parse(name).quantization]


def plain(models: list[str]) -> list[str]:
    """The models that one step made smaller: no loss of its own, no control, not one from scratch."""
    told = []
    for name in models:
        recipe = parse(name)
        one = (recipe.family == "dense") == bool(recipe.quantization)
        control = recipe.variant or recipe.structure.endswith(("-alternate", "-constant")) or recipe.family in (
            "scratch", "untrained")
        if name != "dense" and recipe.loss == "vanilla" and one and not control:
            told.append(name)
    return told


@themed
def answer(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """OOD loss against ID loss of every `plain` compression, a panel a task, beside shorter dense runs.

    table: `claims.study.Study.losses`: task, gate, model, id_loss and ood_loss with _low and _high, learned. In points.
    Above the dotted line more is lost OOD than in distribution; the black line is the dense model trained shorter, on
    full schedules, where the runs have it. The first `MOST` models are shown.
    """
    every = plain(list(table["model"].unique()))
    shown = every[:MOST]
    short = [name for name in table["model"].unique() if parse(name).is_shorter]
    check(table[table["model"].isin(shown)], "answer", ["task", "model"], ["id_loss", "ood_loss"])
    tasks = list(table["task"].unique())
    lines = ["95 % intervals over seeds (none of one seed); hollow: did not learn its task",
             "dotted: as much lost OOD as ID" + "; black: the dense model, trained for fewer steps" * bool(short)]
    lines += [f"{len(every) - MOST} more models stand in the figure's table"] * (len(every) > MOST)
    columns = min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    fig, axes = theme.panels("What does a compressed model forget?", smoke, 1.9 + 2.3 * rows, columns, rows)
    theme.notes(fig, smoke, *lines)
    for ax, task in zip(axes, tasks):
        here = table[table["task"] == task].set_index("model")
        for model in [name for name in shown if name in here.index]:
            _point(ax, here.loc[model], style_of(model))
        if at := [name for name in short if name in here.index]:
            along = here.loc[at, ["id_loss", "ood_loss"]].sort_values("id_loss")
            ax.plot([0, *along["id_loss"]], [0, *along["ood_loss"]], "k-o", markersize=3, linewidth=1.1, zorder=1)
        right = max(here.loc[[m for m in shown if m in here.index], "id_loss"].max(), 1) * 1.12
        ax.set_xlim(-0.12 * right, right)
        ax.axline((0, 0), slope=1, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
        gate = here["gate"].fillna("").iloc[0].partition(" (")[0]
        ax.set_title(LABELS.get(task, task) + f"\n{gate}" * bool(gate), color=GREY)
        ax.set_xlabel("ID loss, points")
        theme.grid(ax, "both")
    for ax in axes[::columns]:
        ax.set_ylabel("OOD loss, points\n(lower is better)")
    for ax in axes[len(tasks):]:
        ax.set_visible(False)
    learned = table.groupby("model")["learned"].any()
    handles = [Line2D([], [], marker=style["marker"], color=style["color"], linestyle="", label=label_of(model),
                      mfc=style["color"] if learned[model] else "white")
               for model in shown for style in [style_of(model)]]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return fig


def _point(ax, row: pd.Series, style: dict) -> None:
    color = style["color"]
    ax.hlines(row["ood_loss"], row["id_loss_low"], row["id_loss_high"], color=color, alpha=0.5, linewidth=1.1)
    ax.vlines(row["id_loss"], row["ood_loss_low"], row["ood_loss_high"], color=color, alpha=0.5, linewidth=1.1)
    face = color if row["learned"] else "white"
    ax.plot(row["id_loss"], row["ood_loss"], style["marker"], color=color, mfc=face, markersize=6)


@themed
def lost_by_time(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """What each compression loses of the rows that the dense run learned at each time, a row a task, ID and OOD.

    table: `claims.study.Study.lost_by_time`; grey: what another dense model loses. Of more than `LINES` compressions
    of a task those are drawn that lose most of the OOD rows learned last.
    """
    check(table, "lost_by_time", ["task", "split", "learned_at", "model"], [])
    tasks, used = list(table["task"].unique()), {}
    fig, axes = theme.panels("Last learned, first lost?", smoke, 1.6 + 2.1 * len(tasks), 2, len(tasks), sharey="row")
    theme.notes(fig, smoke, "of the rows that the dense model gets right: share lost, by when its run had learned them",
                "grey: what another dense model loses; 95 % intervals over seeds")
    for task, pair in zip(tasks, axes.reshape(-1, 2)):
        of_task = table[table["task"] == task]
        drawn = _most_lost(of_task)
        for ax, (split, name) in zip(pair, (("test", "ID"), ("ood", "OOD"))):
            here = of_task[of_task["split"] == split].sort_values("learned_at")
            null = here[here["model"] == OTHER_DENSE]
            theme.band(ax, null["learned_at"] * 100, null, 0.3, color=NULL, linewidth=3)
            for i, model in enumerate(drawn):
                line = here[here["model"] == model]
                x = line["learned_at"] * 100 + 1.2 * (i - (len(drawn) - 1) / 2)
                used[model] = style = style_of(model)
                ax.vlines(x, line["low"] * 100, line["high"] * 100, color=style["color"], linewidth=1, alpha=0.45)
                ax.plot(x, line["value"] * 100, **style)
            theme.panel(ax, f"{LABELS.get(task, task)}: {name}", "", 5)
            ax.set_xlim(0, 107)
        top = of_task.loc[of_task["model"].isin([*drawn, OTHER_DENSE]), "value"].max() * 100
        pair[0].set_ylim(-2, min(1.25 * top, 102) if top > 0 else 10)
        pair[0].set_ylabel("lost, %\n(lower is better)")
    for ax in axes[-2:]:
        ax.set_xlabel("learned by, % of the dense run")
    handles = [Line2D([], [], **style, label=label_of(model)) for model, style in used.items()]
    handles.append(Line2D([], [], color=NULL, linewidth=3, label="another dense model"))
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return fig


def _most_lost(table: pd.DataFrame) -> list[str]:
    """The compressions of a task that are drawn, in the order in which they stand in the table."""
    own = table[(table["split"] == "ood") & ~table["model"].isin([OTHER_DENSE, ALL, EXCESS])]
    last = own.sort_values("learned_at").groupby("model", sort=False)["value"].last()
    shown = set(last.nlargest(LINES).index)
    return [model for model in own["model"].unique() if model in shown]


@themed
def words_by_task(table: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """The ledger as a picture: claims from the top down, a column a task, one colour a kind of word; gates are marked.

    table: `claims.ledger.judged`: id, task, word, pilot. A claim that is not about a task leaves its field empty, one
    that is about none of them is left out.
    """
    check(table, "words_by_task", [], [])
    table = table[table["task"] != ""]
    tasks = list(table["task"].unique())
    ids = list(table["id"].unique())
    halves = [ids[:-(-len(ids) // 2)], ids[-(-len(ids) // 2):]]
    fig, axes = theme.panels("The ledger", smoke, 1.5 + 0.17 * len(halves[0]), 2, sharey=False)
    theme.notes(fig, smoke, "claims (A, B: of the papers; O, P, C, T: ours) by task; bold frame: a gate came first")
    pilot = {task: " (pilot)" * ("pilot" in set(table.loc[table["task"] == task, "pilot"])) for task in tasks}
    used = {}
    for ax, part in zip(axes, halves):
        for row in table[table["id"].isin(part)].itertuples():
            kind = kind_of(row.word)
            used[kind] = KINDS[kind][0]
            at = tasks.index(row.task) - 0.44, part.index(row.id) - 0.4
            gate = kind == "a gate says no"
            ax.add_patch(Rectangle(at, 0.88, 0.8, facecolor=KINDS[kind][0], linewidth=1.4 if gate else 0.6,
                                   edgecolor="#000000" if gate else "#bbbbbb"))
        ax.set_xlim(-0.6, len(tasks) - 0.4)
        ax.set_xticks(range(len(tasks)), [LABELS.get(task, task) + pilot[task] for task in tasks], rotation=30,
                      ha="right")
        theme.named_rows(ax, part)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    keys = [Patch(facecolor=KINDS[kind][0], edgecolor="#bbbbbb", label=kind) for kind in KINDS if kind in used]
    fig.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return fig


def kind_of(word: str) -> str:
    """The kind of a ledger's word, a key of KINDS."""
    bare = word.removesuffix(" (indication)")
    return next((kind for kind, (_, words) in KINDS.items() if bare in words), GATE)
