"""The figures of scores, of difficulty and of training, and how a figure is saved; fractions are drawn in percent."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import logit

from lib import files, store
from lib.analysis.measures import dense_curve
from lib.errors import StudyError
from lib.figures import theme
from lib.figures.placing import end_labels, is_compressed, largest_loss, point_labels, subcase_name
from lib.figures.theme import GREY, LABELS, PALETTE, canvas, check, color_of, ink, label_of, style_of, themed

ID_SPLITS = ("train", "dev", "test")
ACCURACY = "accuracy, % (higher is better)"
SPARSITY = "weights pruned from the encoder, % (sparsity)"


def save(fig: Figure, table: pd.DataFrame, path: str | Path) -> tuple[Path, Path]:
    """Write `path`.svg and, as its data, `path`.csv (6 significant digits), each whole or not at all; close `fig`.

    The same figure gives the same bytes. Returns the two paths.
    """
    svg, csv = Path(f"{path}.svg"), Path(f"{path}.csv")
    try:
        with files.recorded(svg) as temporary, plt.rc_context(theme.rc()):
            fig.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        store.write_csv(csv, table)
    finally:
        plt.close(fig)
    return svg, csv


@themed
def sparsity_curve(frame: pd.DataFrame, chance: float | None = None, *, smoke: bool = False) -> Figure:
    """Score against sparsity, one line and band per method and split; every line starts at the dense model.

    frame: model, sparsity (0..1), split, value, low, high (fractions). Levels of a method (imp-40, imp-70) make a line.
    """
    check(frame, "sparsity_curve", ["model", "sparsity", "split"], ["value", "low", "high"])
    methods, ends = theme.by_method(frame), []
    fig, ax = canvas("What pruning costs, in and out of distribution", smoke)
    for method, rows in methods.items():
        for split, line in rows.sort_values("sparsity").groupby("split", sort=False):
            name = LABELS.get(split, split) + (f", {label_of(method)}" if len(methods) > 1 else "")
            ends.append(theme.level_line(ax, line, method, split in ID_SPLITS, name))
    ax.set(xlabel=SPARSITY, ylabel=ACCURACY)
    theme.percent_axis(ax, frame, chance)
    end_labels(ax, ends)
    return fig


@themed
def forgetting(frame: pd.DataFrame, chance: float = 0.5, *, smoke: bool = False) -> Figure:
    """OOD score of each subcase, a dot a model: what does compression forget, or what does the dense model know?

    frame: model, subcase, value, low, high, lost and lost_low, lost_high (against dense; fractions) and, where the
    truth of train is known, count (rows in train that break the shortcut) and depth. With counts the commonest subcase
    stands at the top and the rarest, then those that train never holds, at the bottom; without them they stand in the
    frame's order.
    """
    check(frame, "forgetting", ["model", "subcase"], ["value", "low", "high", "lost", "lost_low", "lost_high"])
    counted = bool(frame["count"].notna().all())
    cases = frame.drop_duplicates("subcase")
    cases = cases.sort_values(["count", "depth"], ascending=[False, True], kind="stable") if counted else cases
    models = list(frame["model"].unique())
    asked = "What does compression forget?" if is_compressed(frame.model).any() else "What does the dense model know?"
    fig, ax = canvas(asked, smoke, height=1.8 + max(0.3, 0.075 * len(models)) * len(cases))
    theme.notes(fig, smoke, *["rarer in train from the top down"] * counted, *largest_loss(frame))
    for i, model in enumerate(models):
        rows, style = frame[frame["model"] == model].set_index("subcase").reindex(cases["subcase"]), style_of(model)
        y = np.arange(len(cases)) + 0.66 * ((i + 0.5) / len(models) - 0.5)
        ax.hlines(y, rows.low * 100, rows.high * 100, color=style["color"], linewidth=1, alpha=0.5)
        ax.plot(rows.value * 100, y, style["marker"], markersize=4.5, color=style["color"], label=label_of(model))
    ax.axvline(chance * 100, color=GREY, linestyle=":", linewidth=1)
    theme.named_rows(ax, [subcase_name(case) for case in cases.itertuples()], "kind of OOD rows")
    ax.set(xlabel="OOD " + ACCURACY, xlim=(-3, 103))
    theme.grid(ax, "both")
    theme.legend(fig, ax)
    return fig


@themed
def easy_hard_gap(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Accuracy on easy and on hard rows against sparsity, one panel per method, with the gap in points below.

    frame: model, sparsity (0..1), part ("easy" or "hard"), value, low, high (fractions).
    """
    check(frame, "easy_hard_gap", ["model", "sparsity", "part"], ["value", "low", "high"])
    methods = theme.by_method(frame)
    fig, axes = theme.panels("What pruning costs easy and hard rows", smoke, columns=len(methods))
    for ax, (method, rows) in zip(axes, methods.items()):
        parts = rows.sort_values("sparsity").groupby("part")
        ends = [theme.level_line(ax, line, method, part == "easy", part) for part, line in parts]
        ax.set_title(label_of(method), color=ink(color_of(method)))
        ax.set_xlabel("sparsity, %" if len(methods) > 1 else SPARSITY)
        theme.percent_axis(ax, frame, None, room=0.16)
        gap = rows.pivot_table(index="sparsity", columns="part", values="value").reindex(columns=["easy", "hard"])
        small = {"transform": ax.get_xaxis_transform(), "color": GREY, "fontsize": 9}
        for at, points in ((gap.easy - gap.hard) * 100).dropna().items():
            ax.text(at * 100, 0.02, f"{points:.0f}", ha="center", **small)
        ax.text(0, 0.09, "gap, points (lower is better)", **small)
        end_labels(ax, ends)
    axes[0].set_ylabel(ACCURACY)
    return fig


@themed
def difficulty_histogram(
    frame: pd.DataFrame, threshold: float | None = None, auc: float | None = None, *, smoke: bool = False
) -> Figure:
    """Difficulty of the rows in log bins, each group's shares adding to 100 %, coloured by the truth where it is known.

    frame: v (variance of the loss, >= 0), is_shortcut (boolean or <NA>). The first bin also holds all smaller v.
    """
    check(frame, "difficulty_histogram", [], ["v", "is_shortcut"])
    v = frame.v.to_numpy(float)
    if v.min() < 0 or v.max() == v.min():
        raise StudyError("difficulty_histogram: column 'v' must hold variances >= 0 that differ between rows")
    floor = max(np.quantile(v[v > 0], 0.005), v.max() * 1e-7)
    edges = np.geomspace(min(floor, v.max() / 2), v.max(), 37)
    fig, ax = canvas("Which rows does the difficulty score find?", smoke)
    for name, mask in theme.truth_groups(ax, frame).items():
        share = np.histogram(np.clip(v[mask], edges[0], edges[-1]), edges)[0] * 100 / mask.sum()
        ax.stairs(share, edges, fill=True, color=theme.TRUTH[name], alpha=0.35)
        ax.stairs(share, edges, color=theme.TRUTH[name], linewidth=1.4)
    ax.set(xscale="log", xlabel="difficulty v, variance of the loss (log; right: more difficult)", ylim=(0, None))
    ax.set_ylabel("rows of the group, %")
    q = np.quantile(v, [0.5, 0.9, 0.99])
    how_good = "" if auc is None else f"; AUC {auc:.2f}"
    ax.set_title(f"median of v {q[0]:.2g}, 90 % below {q[1]:.2g}, 99 % below {q[2]:.2g}{how_good}", color=GREY, pad=20)
    if threshold is not None:
        ax.axvline(threshold, color="black", linewidth=1, linestyle=":")
        beside, ha = (-5, "right") if threshold > np.sqrt(edges[0] * edges[-1]) else (5, "left")
        at = {"xycoords": ax.get_xaxis_transform(), "xytext": (beside, 0), "textcoords": "offset points"}
        ax.annotate(f"threshold {threshold:.2g}", (threshold, 0.97), **at, va="top", ha=ha)
    return fig


@themed
def mitigation_plane(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Each model's OOD score against its ID score; arrows lead from the vanilla model of the same compression.

    frame: model, loss, dev, ood, dev_low, dev_high, ood_low, ood_high (fractions). dev is the ID score on the split
    `test`, which the papers call dev.
    """
    values = ["loss", "dev", "ood", "dev_low", "dev_high", "ood_low", "ood_high"]
    check(frame, "mitigation_plane", ["model"], values)
    fig, ax = canvas("Can what was forgotten be mended?", smoke, height=4.4)
    ax.set_title("arrows start at the same model without a mitigation; up and right is better", color=GREY)
    vanilla = frame[frame.loss == "vanilla"].set_index("model")
    mended = {model.partition(" + ")[0] for model in frame.model[frame.loss != "vanilla"]}
    points, blocked = [], []
    for row in frame.itertuples():
        blocked += theme.cross(ax, row)
        base, color = row.model.partition(" + ")[0], color_of(row.model)
        short = row.loss != "vanilla" and len(mended) == 1
        name = LABELS.get(row.loss, row.loss) if short else label_of(row.model)
        points.append((row.dev * 100, row.ood * 100, name, color))
        if row.loss != "vanilla" and base in vanilla.index:
            start, end = (vanilla.dev[base] * 100, vanilla.ood[base] * 100), (row.dev * 100, row.ood * 100)
            arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 1.5, "shrinkA": 4, "shrinkB": 4}
            ax.annotate("", end, start, arrowprops=arrow)
            blocked.append([start, end])
    ax.set(xlabel="ID " + ACCURACY, ylabel="OOD " + ACCURACY)
    ax.margins(0.12)
    point_labels(ax, points, blocked)
    return fig


@themed
def dynamics_map(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """The training-dynamics map (Swayamdipta et al. 2020), one dot per row, coloured by the truth where it is known.

    frame: confidence (mean probability of the true label), variability (its standard deviation), is_shortcut.
    """
    check(frame, "dynamics_map", [], ["confidence", "variability", "is_shortcut"])
    fig, ax = canvas("Where do the rows that break the shortcut lie?", smoke)
    for name, mask in theme.truth_groups(ax, frame).items():
        size, alpha = (13, 0.75) if name == "shortcut-breaking" else (7, 0.35)
        dots = {"s": size, "color": theme.TRUTH[name], "alpha": alpha, "linewidth": 0}
        ax.scatter(frame.variability[mask], frame.confidence[mask], **dots, rasterized=True)
    ax.set(xlabel="variability (standard deviation over training)", ylim=(-0.04, 1.04))
    ax.set_ylabel("confidence in the true label (mean)")
    ax.set_xlim(-0.02 * frame.variability.max(), frame.variability.max() * 1.05)
    # Where no row can lie: a mean near 0 or 1 leaves no room for a wide spread.
    regions = {"← learned early": (0.4, 0.97), "← never learned": (0.4, 0.03), "learned late →": (0.78, 0.92)}
    for name, (x, y) in regions.items():
        side = "right" if x > 0.5 else "left"
        ax.text(x, y, name, transform=ax.transAxes, va="center", ha=side, style="italic")
    return fig


@themed
def dense_trajectory(trajectory: pd.DataFrame, models: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """OOD against ID score while the dense model trains (line), and the compressed models, or shorter runs (points).

    trajectory: step, dev, ood; models: model, dev, ood, ood_low, ood_high and, where known, dev_low, dev_high
    (fractions). dev is the ID score on the split `test`, which the papers call dev. Effective robustness after Taori
    et al. 2020, the ID score on a logit scale as there: a model below the line lost more OOD than its ID score tells.
    Beside dense models alone the whole run is drawn, checkpoint to checkpoint; beside compressed ones the stretch that
    they can be compared with, and the line is `measures.dense_curve`.
    """
    check(trajectory, "dense_trajectory (trajectory)", ["step"], ["dev", "ood"])
    check(models, "dense_trajectory (models)", ["model"], ["dev", "ood", "ood_low", "ood_high"])
    # Half an error in 2,000 rows stands for none, which a logit scale cannot hold.
    tables = (trajectory.sort_values("step"), models)
    line, models = (table.assign(**table.filter(like="dev").clip(0.00025, 0.99975)) for table in tables)
    alone = not is_compressed(models.model).any()
    asked = "What does the dense model learn first?" if alone else "Is it more than an early stop of the dense model?"
    fig, ax = canvas(asked, smoke, height=4.4)
    x, y = line.dev.to_numpy(), line.ood.to_numpy()
    ax.plot(x * 100, y * 100, ".", color=PALETTE["dense"], zorder=2)
    if not alone:
        knots, fit = dense_curve(x, y)
        x = np.unique([*np.linspace(knots[0], knots[-1], 50), *knots])
        y = np.interp(x, knots, fit)
    ax.plot(x * 100, y * 100, color=PALETTE["dense"], zorder=2)
    path = list(zip(x * 100, y * 100))
    points, blocked = [], [list(pair) for pair in zip(path, path[1:])]
    for row in models.itertuples():
        blocked += theme.cross(ax, row)
        points.append((row.dev * 100, row.ood * 100, label_of(row.model), color_of(row.model)))
    ids = models.filter(like="dev")
    low, high = ids.min(axis=None), max(ids.max(axis=None), line.dev.max())
    low, high = logit([min(low, line.dev.min()) if alone else low, high])
    left, right = low - 0.15 * (high - low) - 0.05, high + 0.08 * (high - low) + 0.05
    theme.logit_axis(ax, left, right)
    ax.set(xlabel="ID accuracy, % (logit scale; higher is better)", ylabel="OOD " + ACCURACY)
    shown, hidden = line[logit(line.dev) >= left], line[logit(line.dev) < left]
    told = "points: runs to their end, of all and of fewer steps" if alone else \
        "below the line: more OOD lost than the ID score tells"
    if len(hidden):
        told += f"\nfurther left, not shown: the dense run up to step {hidden.step.max():g}"
    if not alone and (models.dev > knots[-1]).any():
        told += "\nright of the line's end: no dense run to compare with"
    ax.set_title(told, color=GREY)
    ys = [*models.ood_low, *models.ood_high, *shown.ood]
    ax.set_ylim((min(ys) - 0.04) * 100, (max(ys) + 0.04) * 100)
    steps = shown.iloc[np.unique(np.linspace(0, len(shown) - 2, 3).round().astype(int))] if len(shown) > 1 else shown
    for row in steps.itertuples():
        points.append((row.dev * 100, row.ood * 100, f"dense at step {row.step:g}", PALETTE["dense"]))
    point_labels(ax, points, blocked)
    return fig
