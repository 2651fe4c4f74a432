"""The study's figures: each takes a tidy frame and returns a matplotlib Figure.

One theme and one colour per method. A model's colour is that of its loss where it has one, else that of its
compression (`color_of`); its marker and dashes are those of its compression. Scores come as fractions in [0, 1] and are
drawn in percent. `smoke=True` marks a figure as no result.
"""

import difflib
import functools
import os
import re
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from lib.errors import StudyError

# Okabe & Ito's and Tol's colours, chosen so that methods drawn together differ for colour-blind readers too.
# A control has the hue of what it controls, lighter.
PALETTE = {
    "dense": "#000000", "truncated": "#d55e00", "truncated-alternate": "#8c3d00", "scratch": "#767676",
    "imp": "#004c86", "heads": "#4c0099", "ffn": "#882255", "other": "#4a5a2a",
    "distil": "#e69f00", "smooth": "#56b4e9", "focal": "#c832d8", "jtt": "#661100", "rmc": "#009e73",
    "smooth_matched": "#b5e3f7", "smooth_entropy": "#117a8b", "rmc_shuffled": "#86dbc0",
    "confidence_regularisation": "#b9bb55",
}  # fmt: skip
LABELS = {
    "dense": "dense", "truncated": "truncated", "truncated-alternate": "alternate", "scratch": "from scratch",
    "imp": "IMP", "heads": "heads cut", "ffn": "FFN cut",
    "distil": "distil", "smooth": "smooth", "focal": "focal", "jtt": "JTT", "rmc": "RMC",
    "smooth_matched": "smooth (same mean)", "smooth_entropy": "smooth (same entropy)",
    "rmc_shuffled": "RMC (shuffled)", "confidence_regularisation": "conf. reg.",
    "train": "train", "dev": "dev (ID)", "test": "test (ID)", "ood": "OOD", "unseen": "OOD, unseen", "hans": "HANS",
    "sym1": "FEVER-Sym1", "sym2": "FEVER-Sym2", "paws_qqp": "PAWS-QQP", "paws_wiki": "PAWS-Wiki",
}  # fmt: skip
MARKERS = {"truncated": "^", "truncated-alternate": "v", "scratch": "X", "heads": "s", "ffn": "D", "other": "P"}
DASHES = {"truncated": (0, (5, 1.5)), "truncated-alternate": (0, (1, 1)), "scratch": (0, (3, 1, 1, 1))}
TRUTH = {"shortcut holds": "#9a9a9a", "shortcut fails": "#b21b3f", "all": "#9a9a9a"}
WORDS = {"model", "split", "part", "subcase", "loss", "is_shortcut"}
ID_SPLITS = ("train", "dev", "test")
ACCURACY = "accuracy, % (higher is better)"
GREY = "#444444"
SPARSITY = "weights pruned from the encoder, % (sparsity)"


def theme() -> dict:
    """The rcParams of every figure of the study: `with plt.rc_context(theme()): ...`."""
    return sns.axes_style("ticks") | {
        "font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5,
        "axes.labelsize": 9.5, "axes.titlesize": 9.5, "xtick.labelsize": 9, "ytick.labelsize": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
        "axes.titlelocation": "left", "axes.grid": False,
        "lines.linewidth": 1.7, "lines.markersize": 5, "figure.dpi": 120, "figure.facecolor": "white",
        "svg.fonttype": "none", "svg.hashsalt": "study",
    }  # fmt: skip


def color_of(model: str) -> str:
    """Hex colour of a model name ("imp-70", "imp-70 + rmc"); the more is pruned, the darker. Unknown names: "other"."""
    family, level, loss = _parts(model)
    if loss in PALETTE:
        return PALETTE[loss]
    white = 0.7 * (1 - (min(level, 85) / 85) ** 2) if family == "imp" and level is not None else 0.0
    return to_hex(white + (1 - white) * np.array(to_rgb(PALETTE[family])))


def label_of(model: str) -> str:
    """A model's name as figures print it: "imp-70 + rmc" -> "IMP 70 % + RMC"."""
    family, level, loss = _parts(model)
    name = LABELS.get(family, model.partition(" + ")[0])
    if level is not None:
        name += f" {level} %" if family in ("imp", "heads", "ffn") else f" {level}"
    return name + (f" + {LABELS.get(loss, loss)}" if loss else "")


def save(fig: Figure, table: pd.DataFrame, path: str | Path) -> tuple[Path, Path]:
    """Write `path`.svg and, as its data, `path`.csv (6 significant digits), each whole or not at all; close `fig`.

    The same figure gives the same bytes. Returns the two paths.
    """
    svg, csv = Path(f"{path}.svg"), Path(f"{path}.csv")
    svg.parent.mkdir(parents=True, exist_ok=True)
    temporary = svg.with_name(f".{svg.name}.{os.getpid()}.tmp")
    try:
        with plt.rc_context(theme()):
            fig.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        os.replace(temporary, svg)
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        os.replace(temporary, csv)
    finally:
        temporary.unlink(missing_ok=True)
        plt.close(fig)
    return svg, csv


def _themed(draw):
    """Run a figure function in the study's theme, whatever the caller's rcParams are."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with plt.rc_context(theme()):
            return draw(*args, **kwargs)

    return wrapper


@_themed
def sparsity_curve(frame: pd.DataFrame, chance: float | None = None, *, smoke: bool = False) -> Figure:
    """Score against sparsity, one line and band per method and split; every line starts at the dense model.

    frame: model, sparsity (0..1), split, value, low, high (fractions). Levels of a method (imp-40, imp-70) make a line.
    """
    columns = ["model", "sparsity", "split", "value", "low", "high"]
    _check(frame, "sparsity_curve", columns, ["model", "sparsity", "split"])
    methods, ends = _methods(frame), []
    fig, ax = _figure("What pruning costs, in and out of distribution", smoke)
    for key, rows in methods.items():
        for split, line in rows.sort_values("sparsity").groupby("split", sort=False):
            name = LABELS.get(split, split) + (f", {_series_label(key)}" if len(methods) > 1 else "")
            ends.append(_level_line(ax, line, key, split in ID_SPLITS, name))
    ax.set(xlabel=SPARSITY, ylabel=ACCURACY)
    _percent_axis(ax, frame, chance)
    _end_labels(ax, ends)
    return _freeze(fig)


@_themed
def forgetting_curve(frame: pd.DataFrame, chance: float = 0.5, *, smoke: bool = False) -> Figure:
    """OOD score of each subcase against its count of shortcut-breaking rows in train: what does compression forget?

    frame: model, subcase, count (rows in train), depth, value, low, high (fractions). Subcases of count 0 (unseen)
    are told in words. Where subcases share a count, line and band go through the means of their scores and bounds.
    """
    columns = ["model", "subcase", "count", "depth", "value", "low", "high"]
    _check(frame, "forgetting_curve", columns, ["model", "subcase", "count"])
    seen = frame[frame["count"] > 0]
    if seen.empty:
        raise StudyError("forgetting_curve: no subcase has a count above 0; give the subcases that train holds")
    fig, ax = _figure("What does compression forget?", smoke, height=4.7)
    notes = [_largest_loss(seen), *_unseen_ranges(frame[frame["count"] == 0])]
    fig.text(0.012, 0.935, "\n".join(notes), color=GREY, va="top")
    fig.get_layout_engine().set(rect=(0, 0.05 * smoke, 1, 1 - 0.045 * len(notes) - 0.05 * smoke))
    ends = []
    for model, rows in seen.groupby("model", sort=False):
        line = rows.groupby("count")[["value", "low", "high"]].mean().sort_index(ascending=False)
        style = _style(model)
        _band(ax, line.index, line, alpha=0.1, **style)
        ends.append((line.index[-1], line.value.iloc[-1] * 100, label_of(model), style["color"]))
    names = seen.groupby("count").apply(_subcase_name, include_groups=False)
    names.iloc[-1] = names.iloc[-1].replace("(", "(depth ")
    ax.set_xscale("log")
    ax.set_xlim(names.index.max() * 1.1, names.index.min() / 1.08)
    ax.xaxis.set_major_locator(FixedLocator(names.index))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([f"{count:g}" for count in names.index])
    ax.set(xlabel="rows in train that break the shortcut (log; rarer to the right)", ylabel="OOD " + ACCURACY)
    ax.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    _top_names(ax, names.index, names)
    _percent_axis(ax, seen, chance)
    _end_labels(ax, ends)
    return _freeze(fig)


@_themed
def easy_hard_gap(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Accuracy on easy and on hard rows against sparsity, one panel per method, with the gap in points below.

    frame: model, sparsity (0..1), part ("easy" or "hard"), value, low, high (fractions).
    """
    columns = ["model", "sparsity", "part", "value", "low", "high"]
    _check(frame, "easy_hard_gap", columns, ["model", "sparsity", "part"])
    methods = _methods(frame)
    fig, axes = _figure("Easy rows keep their score; do hard rows?", smoke, panels=len(methods))
    for ax, (key, rows) in zip(np.atleast_1d(axes), methods.items()):
        parts = rows.sort_values("sparsity").groupby("part")
        ends = [_level_line(ax, line, key, part == "easy", part) for part, line in parts]
        ax.set_title(_series_label(key), color=_ink(_series_color(key)))
        ax.set_xlabel("sparsity, %" if len(methods) > 1 else SPARSITY)
        _percent_axis(ax, frame, None, room=0.16)
        gap = rows.pivot_table(index="sparsity", columns="part", values="value").reindex(columns=["easy", "hard"])
        below = ax.get_xaxis_transform()
        for at, points in ((gap.easy - gap.hard) * 100).dropna().items():
            ax.text(at * 100, 0.02, f"{points:.0f}", transform=below, ha="center", color=GREY, fontsize=9)
        ax.text(0, 0.09, "gap, points (lower is better)", transform=below, color=GREY, fontsize=9)
        _end_labels(ax, ends)
    np.atleast_1d(axes)[0].set_ylabel(ACCURACY)
    return _freeze(fig)


@_themed
def difficulty_histogram(
    frame: pd.DataFrame, threshold: float | None = None, auc: float | None = None, *, smoke: bool = False
) -> Figure:
    """Difficulty of the rows in log bins, each group's shares adding to 100 %, coloured by the truth where it is known.

    frame: v (variance of the loss, >= 0), is_shortcut (boolean or <NA>). The first bin also holds all smaller v.
    """
    _check(frame, "difficulty_histogram", ["v", "is_shortcut"])
    v = frame.v.to_numpy(float)
    if v.min() < 0 or v.max() == v.min():
        raise StudyError("difficulty_histogram: column 'v' must hold variances >= 0 that differ between rows")
    floor = max(np.quantile(v[v > 0], 0.005), v.max() * 1e-7)
    edges = np.geomspace(min(floor, v.max() / 2), v.max(), 37)
    fig, ax = _figure("Which rows does the difficulty score find?", smoke)
    for name, mask in _truth(frame).items():
        share = np.histogram(np.clip(v[mask], edges[0], edges[-1]), edges)[0] * 100 / mask.sum()
        ax.stairs(share, edges, fill=True, color=TRUTH[name], alpha=0.35)
        ax.stairs(share, edges, color=TRUTH[name], linewidth=1.4)
    ax.set(xscale="log", xlabel="difficulty v, variance of the loss (log; higher is harder)", ylim=(0, None))
    ax.set_ylabel("rows of the group, %")
    q = np.quantile(v, [0.5, 0.9, 0.99])
    found = "" if auc is None else f"; AUC {auc:.2f}"
    quantiles = f"median of v {q[0]:.2g}, 90 % below {q[1]:.2g}, 99 % below {q[2]:.2g}"
    ax.set_title(quantiles + found, color=GREY, pad=20)
    _words(ax, _truth(frame))
    if threshold is not None:
        ax.axvline(threshold, color="black", linewidth=1, linestyle=":")
        beside, ha = (-5, "right") if threshold > np.sqrt(edges[0] * edges[-1]) else (5, "left")
        at = {"xycoords": ax.get_xaxis_transform(), "xytext": (beside, 0), "textcoords": "offset points"}
        ax.annotate(f"threshold {threshold:.2g}", (threshold, 0.97), **at, va="top", ha=ha)
    return _freeze(fig)


@_themed
def mitigation_plane(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """Each model's OOD score against its dev score; arrows lead from the vanilla model of the same compression.

    frame: model, loss, dev, ood, dev_low, dev_high, ood_low, ood_high (fractions).
    """
    columns = ["model", "loss", "dev", "ood", "dev_low", "dev_high", "ood_low", "ood_high"]
    _check(frame, "mitigation_plane", columns, ["model"])
    fig, ax = _figure("Can what was forgotten be mended?", smoke, height=4.4)
    ax.set_title("arrows start at the same model without a mitigation; up and right is better", color=GREY)
    bases = frame.model.str.partition(" + ")[0]
    vanilla = frame[frame.loss == "vanilla"].set_index("model")
    blocked = []
    for row, base in zip(frame.itertuples(), bases):
        _cross(ax, row, color_of(row.model))
        blocked.append([(row.dev_low, row.ood), (row.dev_high, row.ood)])
        blocked.append([(row.dev, row.ood_low), (row.dev, row.ood_high)])
        if row.loss != "vanilla" and base in vanilla.index:
            start = (vanilla.dev[base], vanilla.ood[base])
            arrow = {"arrowstyle": "-|>", "color": color_of(row.model), "linewidth": 1.5, "shrinkA": 4, "shrinkB": 4}
            ax.annotate("", (row.dev * 100, row.ood * 100), tuple(100 * s for s in start), arrowprops=arrow)
            blocked.append([start, (row.dev, row.ood)])
    ax.set(xlabel="dev " + ACCURACY, ylabel="OOD " + ACCURACY)
    ax.margins(0.12)
    losses = frame.loss.map(lambda loss: LABELS.get(loss, loss))
    names = losses.where(frame.loss != "vanilla", frame.model.map(label_of))
    _place(ax, _named(frame, names), blocked)
    return _freeze(fig)


@_themed
def dynamics_map(frame: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """The training-dynamics map (Swayamdipta et al. 2020), one dot per row, coloured by the truth where it is known.

    frame: confidence (mean probability of the true label), variability (its standard deviation), is_shortcut.
    """
    _check(frame, "dynamics_map", ["confidence", "variability", "is_shortcut"])
    fig, ax = _figure("Where do the rows that break the shortcut lie?", smoke)
    for name, mask in _truth(frame).items():
        size, alpha = (13, 0.75) if name == "shortcut fails" else (7, 0.35)
        dots = {"s": size, "color": TRUTH[name], "alpha": alpha, "linewidth": 0}
        ax.scatter(frame.variability[mask], frame.confidence[mask], **dots, rasterized=True)
    ax.set(xlabel="variability (standard deviation over training)", ylim=(-0.04, 1.04))
    ax.set_ylabel("confidence in the true label (mean)")
    ax.set_xlim(-0.02 * frame.variability.max(), frame.variability.max() * 1.05)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    regions = {"easy to learn": (0.03, 0.9), "hard to learn": (0.03, 0.08), "ambiguous": (0.82, 0.5)}
    for name, at in regions.items():
        ax.text(*at, name, transform=ax.transAxes, va="center", style="italic", bbox=box)
    _words(ax, _truth(frame))
    return _freeze(fig)


@_themed
def dense_trajectory(trajectory: pd.DataFrame, models: pd.DataFrame, *, smoke: bool = False) -> Figure:
    """OOD against dev while the dense model trains (line), and the compressed models (points): effective robustness.

    trajectory: step, dev, ood; models: model, dev, ood, ood_low, ood_high (fractions). After Taori et al. 2020, dev on
    a logit scale as there: a model below the line has lost more OOD than its dev score tells.
    """
    _check(trajectory, "dense_trajectory (trajectory)", ["step", "dev", "ood"], ["step"])
    _check(models, "dense_trajectory (models)", ["model", "dev", "ood", "ood_low", "ood_high"], ["model"])
    # Half an error in 2,000 rows stands for none, which a logit scale cannot hold.
    line, models = (table.assign(dev=table.dev.clip(0.00025, 0.99975)) for table in (trajectory, models))
    line = line.sort_values("step")
    fig, ax = _figure("Is it more than an early stop of the dense model?", smoke, height=4.4)
    ax.set_title("below the line: more OOD lost than the dev score tells", color=GREY)
    ax.plot(line.dev * 100, line.ood * 100, color=PALETTE["dense"], marker=".", zorder=2)
    for row in models.itertuples():
        _cross(ax, row, color_of(row.model))
    # Only the stretch of the run that the models can be compared with: the early steps would squeeze it to nothing.
    low, high = logit(models.dev.min()), logit(max(models.dev.max(), line.dev.max()))
    left, right = low - 0.15 * (high - low) - 0.05, high + 0.08 * (high - low) + 0.05
    shown = line[logit(line.dev) >= left]
    ax.set_xscale("function", functions=(lambda x: logit(np.clip(x / 100, 1e-6, 1 - 1e-6)), lambda x: 100 * expit(x)))
    ax.set(xlim=(100 * expit(left), 100 * expit(right)), ylabel="OOD " + ACCURACY)
    ax.set_xlabel("dev accuracy, % (logit scale; higher is better)")
    ticks = _logit_ticks(left, right)
    ax.set_xticks(ticks, [f"{tick:.6g}" for tick in ticks])
    ys = [*models.ood_low, *models.ood_high, *shown.ood]
    ax.set_ylim((min(ys) - 0.04) * 100, (max(ys) + 0.04) * 100)
    steps = shown.iloc[np.unique(np.linspace(0, len(shown) - 2, 3).round().astype(int))] if len(shown) > 1 else shown
    texts = [(row.dev, row.ood, f"dense, step {row.step:g}", PALETTE["dense"]) for row in steps.itertuples()]
    blocked = [[(row.dev, row.ood_low), (row.dev, row.ood_high)] for row in models.itertuples()]
    path = list(zip(line.dev, line.ood))
    _place(ax, _named(models, models.model.map(label_of)) + texts, blocked + [list(s) for s in zip(path, path[1:])])
    return _freeze(fig)


def _parts(model: str) -> tuple[str, int | None, str]:
    """(family, level, loss) of a model name; a family that the palette lacks is "other"."""
    compression, _, loss = model.partition(" + ")
    found = re.fullmatch(r"([a-z]+)-(\d+)(-alternate)?", compression)
    family = found[1] + (found[3] or "") if found else compression
    return (family, int(found[2]) if found else None, loss) if family in LABELS else ("other", None, loss)


def _check(frame: pd.DataFrame, figure: str, columns: list[str], key: list[str] | None = None) -> None:
    for column in columns:
        if column not in frame:
            near = difflib.get_close_matches(column, map(str, frame.columns), 1)
            hint = f"rename {near[0]!r}" if near else f"the frame has {', '.join(map(str, frame.columns)) or 'none'}"
            raise StudyError(f"{figure}: the column {column!r} is missing; {hint}")
    if frame.empty:
        raise StudyError(f"{figure}: the frame has no row; give at least one")
    for column in set(columns) - WORDS:
        values = pd.to_numeric(frame[column], errors="coerce").to_numpy(float, na_value=np.nan)
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            found = frame[column].iloc[row]
            raise StudyError(f"{figure}: column {column!r} holds {found} in row {row}; give a finite number")
    if key and frame.duplicated(key).any():
        where = frame.loc[frame.duplicated(key), key].iloc[0].to_dict()
        raise StudyError(f"{figure}: two rows for {where}; average over seeds first")


def _figure(title: str, smoke: bool, height: float = 3.8, panels: int = 1):
    fig, axes = plt.subplots(1, panels, sharey=True, figsize=(6, height), layout="constrained")
    fig.suptitle(title, x=0.012, ha="left", weight="bold", fontsize=11)
    if smoke:
        fig.get_layout_engine().set(rect=(0, 0.05, 1, 0.95))
        fig.text(0.988, 0.012, "smoke: not a result", color="#b00020", ha="right", weight="bold")
    return fig, axes


def _freeze(fig: Figure) -> Figure:
    """Lay the figure out once: labels were placed for this layout."""
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    return fig


def _methods(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Rows by (family, loss), the dense rows at the head of each; dense alone where there is nothing else."""
    keys = frame.model.map(lambda model: _parts(model)[::2])
    dense, others = frame[frame.model == "dense"], [key for key in dict.fromkeys(keys) if key != ("dense", "")]
    return {key: pd.concat([dense, frame[keys == key]]) for key in others} or {("dense", ""): dense}


def _series_color(key: tuple[str, str]) -> str:
    return PALETTE.get(key[1], PALETTE[key[0]])


def _series_label(key: tuple[str, str]) -> str:
    return LABELS.get(key[0], key[0]) + (f" + {LABELS.get(key[1], key[1])}" if key[1] else "")


def _style(model: str) -> dict:
    family = _parts(model)[0]
    return {"color": color_of(model), "marker": MARKERS.get(family, "o"), "linestyle": DASHES.get(family, "-")}


def _band(ax, x, line: pd.DataFrame, color: str, alpha: float = 0.16, **style) -> None:
    ax.fill_between(x, line.low * 100, line.high * 100, color=color, alpha=alpha, linewidth=0)
    ax.plot(x, line.value * 100, **{"color": color} | style)


def _level_line(ax, line: pd.DataFrame, key: tuple[str, str], solid: bool, name: str) -> tuple:
    """One method's line over sparsity (dense in its own colour at the head), and what its end label needs."""
    x, color = line.sparsity * 100, _series_color(key)
    dashes, face = ("-", color) if solid else ((0, (4, 1.5)), "white")
    _band(ax, x, line, color, linestyle=dashes, marker=MARKERS.get(key[0], "o"), markerfacecolor=face)
    dense = line[line.model == "dense"]
    face = PALETTE["dense"] if solid else "white"
    ax.plot(dense.sparsity * 100, dense.value * 100, "o", color=PALETTE["dense"], markerfacecolor=face, zorder=3)
    return x.iloc[-1], line.value.iloc[-1] * 100, name, color


def _ink(color: str) -> str:
    """The colour dark enough to be read as text on white: contrast of 4.5 (WCAG 2.2) or more."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    shade = min(1.0, (1.05 / 4.5 - 0.05) / max(luminance, 1e-9))
    return to_hex(rgb * shade ** (1 / 2.4))


def _cross(ax, row, color: str) -> None:
    """One model as a point with the intervals that its row holds."""
    ax.plot([row.dev * 100] * 2, [row.ood_low * 100, row.ood_high * 100], color=color, alpha=0.5, linewidth=1.1)
    if hasattr(row, "dev_low"):
        ax.plot([row.dev_low * 100, row.dev_high * 100], [row.ood * 100] * 2, color=color, alpha=0.5, linewidth=1.1)
    ax.plot(row.dev * 100, row.ood * 100, color=color, marker=_style(row.model)["marker"], markersize=7, zorder=3)


def _percent_axis(ax, frame: pd.DataFrame, chance: float | None, room: float = 0.0) -> None:
    """y limits round all intervals (and chance, drawn dotted), with `room` of the axis left free below."""
    bottom = min(frame.low.min(), frame.value.min(), 1 if chance is None else chance) * 100
    top = max(frame.high.max(), frame.value.max()) * 100
    span = max(top - bottom, 2)
    ax.set_ylim(bottom - (0.04 + room / (1 - room)) * span, top + 0.03 * span)
    if chance is not None:
        ax.axhline(chance * 100, color="#777777", linewidth=0.9, linestyle=":")
        at = {"transform": ax.get_yaxis_transform(), "va": "bottom"}
        ax.text(0.01, chance * 100, "chance", **at, color="#666666", fontsize=9)


def _end_labels(ax, ends: list[tuple[float, float, str, str]]) -> None:
    """Names right of the axis at their lines' ends (x, y, text, colour), moved up or down as little as is needed."""
    ax.figure.draw_without_rendering()
    low, high = ax.get_ylim()
    gap = (high - low) * 12.5 / (ax.get_window_extent().height * 72 / ax.figure.dpi)
    ends = sorted(reversed(ends), key=lambda end: end[1])
    steps = gap * np.arange(len(ends))
    ys = isotonic_regression(np.array([end[1] for end in ends]) - steps).x
    ys = np.clip(ys, low + gap / 2, max(high - gap / 2 - steps[-1], low + gap / 2)) + steps
    for (x, y, text, color), at in zip(ends, ys):
        leader = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)}
        place = {"xytext": (1.05, at), "textcoords": ax.get_yaxis_transform(), "va": "center"}
        ax.annotate(text, (x, y), **place, color=_ink(color), fontsize=9, arrowprops=leader)


def _place(ax, points: list[tuple], blocked: list[list[tuple]]) -> None:
    """Names beside their points (x, y, text, colour; fractions), clear of each other and of the `blocked` segments."""
    fig = ax.figure
    fig.draw_without_rendering()
    inside, unit = ax.get_window_extent(), fig.dpi / 72
    spots = [ax.transData.transform((x * 100, y * 100)) for x, y, *_ in points]
    segments = [ax.transData.transform(np.array(segment) * 100) for segment in blocked]
    dots = np.vstack([a + (b - a) * np.linspace(0, 1, 60)[:, None] for a, b in segments] + [spots])
    taken: list[Bbox] = []
    for (x, y, text, color), at in zip(points, spots):
        artist = ax.annotate(text, (x * 100, y * 100), xytext=(0, 0), textcoords="offset points", va="bottom")
        artist.set(color=_ink(color), fontsize=9)
        size = artist.get_window_extent()
        best = None
        for radius in (7, 14, 24, 36, 50, 66):
            for angle in np.deg2rad([0, 180, 90, 270, 35, 145, 215, 325, 15, 165, 195, 345]):
                right, up = np.round([np.cos(angle), np.sin(angle)], 6)
                dx, dy = radius * right, radius * up
                left = at[0] + dx * unit - size.width * (1 - np.sign(right)) / 2
                under = at[1] + dy * unit - size.height * (1 - np.sign(up)) / 2
                box = Bbox.from_bounds(left, under, size.width, size.height)
                out = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
                hits = ((dots > box.min - 2) & (dots < box.max + 2)).all(1).sum()
                leader = np.linspace(at, np.clip(at, box.min, box.max), 20)
                covers = sum(box.padded(1).overlaps(other) or other.count_contains(leader) > 0 for other in taken)
                cost = 1000 * out + 400 * covers + 4 * hits + radius / 4
                if best is None or cost < best[0]:
                    best = (cost, box, radius)
        taken.append(best[1])
        artist.set_position((best[1].min - at) / unit)
        if best[2] > 7:
            near = np.clip(at, best[1].min, best[1].max)
            ends = ax.transData.inverted().transform([at, near])
            ax.plot(*ends.T, color=color, linewidth=0.6, scalex=False, scaley=False)


def _logit_ticks(left: float, right: float) -> list[float]:
    """Percentages between two logits, the roundest that give four ticks at a readable distance."""
    even = np.round(100 * expit(np.linspace(left, right, 6)[1:-1]), 4)
    for candidates in ([*range(5, 96, 5), 98, 99, 99.5, 99.8, 99.9], range(1, 100), even):
        ticks, last = [], -np.inf
        for tick in candidates:
            at = logit(tick / 100)
            if left < at < right and at - last > (right - left) / 11:
                ticks, last = [*ticks, tick], at
        if len(ticks) >= 4:
            break
    return ticks


def _named(frame: pd.DataFrame, names) -> list[tuple[float, float, str, str]]:
    return [(row.dev, row.ood, name, color_of(row.model)) for row, name in zip(frame.itertuples(), names)]


def _truth(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Masks of the groups that the frame holds: shortcut holds, shortcut fails, all (truth unknown)."""
    truth = frame.is_shortcut.astype("boolean")
    masks = {"all": truth.isna(), "shortcut holds": truth.fillna(False), "shortcut fails": ~truth.fillna(True)}
    return {name: mask.to_numpy(bool) for name, mask in masks.items() if mask.any()}


def _words(ax, groups: dict[str, np.ndarray]) -> None:
    """The groups' names and sizes in their colours, above the axis."""
    texts = []
    for name, mask in groups.items():
        text = f"{'truth unknown' if name == 'all' else name} ({mask.sum():,} rows)"
        texts.append(TextArea(text, textprops={"color": _ink(TRUTH[name]), "weight": "bold"}))
    row = HPacker(children=texts, pad=0, sep=14)
    above = {"bbox_to_anchor": (0, 1.01), "bbox_transform": ax.transAxes}
    ax.add_artist(AnchoredOffsetbox("lower left", child=row, pad=0, borderpad=0, frameon=False, **above))


def _subcase_name(rows: pd.DataFrame) -> str:
    names = rows.drop_duplicates("subcase")
    if len(names) > 1:
        return f"{len(names)} subcases"
    return f"{names.subcase.iloc[0].replace('_', ' ')} ({names.depth.iloc[0]:g})"


def _top_names(ax, at, names) -> None:
    top = ax.secondary_xaxis("top")
    top.xaxis.set_major_locator(FixedLocator(list(at)))
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xticklabels(list(names), rotation=32, ha="left", rotation_mode="anchor", fontsize=9, color=GREY)
    top.tick_params(length=0, pad=2)
    top.spines["top"].set_visible(False)


def _largest_loss(frame: pd.DataFrame) -> str:
    """The subcase on which a model falls furthest below dense, or that no interval leaves that of dense."""
    dense = frame[frame.model == "dense"][["subcase", "count", "value", "low"]]
    both = frame[frame.model != "dense"].merge(dense, on=["subcase", "count"], suffixes=("", "_dense"))
    apart = both[both.high < both.low_dense]
    if both.empty:
        return "give the dense model too, to see what each model lost"
    if apart.empty:
        return "no model's interval lies below that of the dense model on any subcase"
    worst = apart.loc[(apart.value_dense - apart.value).idxmax()]
    points = 100 * (worst.value_dense - worst.value)
    where = f"{worst.subcase.replace('_', ' ')} ({worst['count']:g} rows)"
    return f"largest loss against dense: {label_of(worst.model)} on {where}, {points:.0f} points"


def _unseen_ranges(unseen: pd.DataFrame) -> list[str]:
    """One sentence: the lowest and the highest model on each subcase of which train holds no row."""
    if unseen.empty:
        return []
    ranges = unseen.groupby("subcase", sort=False).value.agg(["min", "max"]) * 100
    spans = ranges.map("{:.0f}".format).apply(lambda row: "-".join(dict.fromkeys(row)), axis=1)
    cases = [f"{case.replace('_', ' ')} {span}%" for case, span in spans.items()]
    return textwrap.wrap(f"unseen (0 rows; lowest to highest model): {', '.join(cases)}", 84, break_on_hyphens=False)
