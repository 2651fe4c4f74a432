"""What the study's figures share: one theme, one colour and name per method, lines and axes."""

import functools
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from scipy.special import expit, logit

from lib.errors import StudyError, nearest

# Okabe & Ito's and Tol's colours, chosen so that methods drawn together differ for colour-blind readers too.
# A control has the hue of what it controls, lighter.
PALETTE = {
    "dense": "#000000", "truncated": "#d55e00", "truncated-alternate": "#8c3d00", "scratch": "#767676",
    "imp": "#004c86", "heads": "#4c0099", "ffn": "#882255", "other": "#4a5a2a",
    "distil": "#e69f00", "smooth": "#56b4e9", "focal": "#c832d8", "jtt": "#661100", "rmc": "#009e73",
    "smooth_matched": "#b5e3f7", "smooth_entropy": "#117a8b", "rmc_shuffled": "#86dbc0", "rmc_one_run": "#005939",
    "confidence_regularisation": "#b9bb55",
    "theseus": "#0000ff", "theseus-constant": "#7d8cff", "pkd": "#4bd287", "tinybert": "#4b0f1e",
    "ptq8": "#ff4bc3", "qat8": "#873cff", "ptq4": "#b4874b",
}  # fmt: skip
LABELS = {
    "dense": "dense", "truncated": "truncated", "truncated-alternate": "alternate", "scratch": "from scratch",
    "imp": "IMP", "heads": "heads cut", "ffn": "FFN cut",
    "distil": "distil", "smooth": "smooth", "focal": "focal", "jtt": "JTT", "rmc": "RMC",
    "smooth_matched": "smooth (same mean)", "smooth_entropy": "smooth (same entropy)",
    "rmc_shuffled": "RMC (shuffled)", "rmc_one_run": "RMC (one run)", "confidence_regularisation": "conf. reg.",
    "theseus": "Theseus", "theseus-constant": "Theseus const.", "pkd": "PKD", "tinybert": "TinyBERT",
    "ptq8": "PTQ8", "qat8": "QAT8", "ptq4": "PTQ4",
    "train": "train", "dev": "dev (ID)", "test": "test (ID)", "ood": "OOD", "unseen": "OOD, unseen", "hans": "HANS",
    "sym1": "FEVER-Sym1", "sym2": "FEVER-Sym2", "paws_qqp": "PAWS-QQP", "paws_wiki": "PAWS-Wiki",
}  # fmt: skip
VARIANTS = {"after": "after", "2x": "2x steps"}
MARKERS = {
    "truncated": "^", "truncated-alternate": "v", "scratch": "X", "heads": "s", "ffn": "D", "other": "P",
    "theseus": "<", "theseus-constant": ">",
}  # fmt: skip
DASHES = {
    "truncated": (0, (5, 1.5)), "truncated-alternate": (0, (1, 1)), "scratch": (0, (3, 1, 1, 1)),
    "theseus": (0, (7, 1.5, 1, 1.5)), "theseus-constant": (0, (2, 1.5)),
}  # fmt: skip
TRUTH = {"shortcut holds": "#9a9a9a", "shortcut fails": "#b21b3f", "all": "#9a9a9a"}
WORDS = {"task", "model", "split", "part", "subcase", "loss", "is_shortcut", "found_on", "measure", "base", "mend"}
GREY = "#444444"


def rc() -> dict:
    """The rcParams of every figure of the study: `with plt.rc_context(theme()): ...`."""
    return sns.axes_style("ticks") | {
        "font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5,
        "axes.labelsize": 9.5, "axes.titlesize": 9.5, "xtick.labelsize": 9, "ytick.labelsize": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
        "axes.titlelocation": "left", "axes.grid": False,
        "lines.linewidth": 1.7, "lines.markersize": 5, "figure.dpi": 120, "figure.facecolor": "white",
        "svg.fonttype": "none", "svg.hashsalt": "study",
    }  # fmt: skip


def themed(draw):
    """Run a figure function in the study's theme, and lay its figure out for good: its labels are placed for that."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with plt.rc_context(rc()):
            fig = draw(*args, **kwargs)
            fig.get_layout_engine().execute(fig)
            fig.set_layout_engine("none")
            return fig

    return wrapper


def canvas(title: str, smoke: bool, height: float = 3.8, panels: int = 1, rows: int = 1, sharey: bool = True) -> tuple:
    """Figure and axes 6 inches wide, titled and, for a smoke run, marked."""
    fig, axes = plt.subplots(rows, panels, sharey=sharey, figsize=(6, height), layout="constrained")
    fig.suptitle(title, x=0.012, ha="left", weight="bold", fontsize=11)
    if smoke:
        fig.get_layout_engine().set(rect=(0, 0.05, 1, 0.95))
        fig.text(0.988, 0.012, "smoke: not a result", color="#b00020", ha="right", weight="bold")
    return fig, axes


def notes(fig, smoke: bool, *lines: str) -> None:
    """Lines under the title of a figure of `canvas`, and the room for them."""
    height = fig.get_figheight()
    fig.get_layout_engine().set(rect=(0, 0.05 * smoke, 1, 1 - 0.05 * smoke - 0.19 * len(lines) / height))
    fig.text(0.012, 1 - 0.28 / height, "\n".join(lines), color=GREY, va="top")


def check(frame: pd.DataFrame, figure: str, key: list[str], values: list[str]) -> None:
    """StudyError naming `figure` unless the frame has rows, one for each `key`, and finite numbers in its columns."""
    for column in key + values:
        if column not in frame:
            raise StudyError(f"{figure}: the frame has no column {column!r}{nearest(column, frame.columns)}")
    if frame.empty:
        raise StudyError(f"{figure}: the frame has no row; give at least one")
    for column in [column for column in key + values if column not in WORDS]:
        finite = np.isfinite(pd.to_numeric(frame[column], errors="coerce").to_numpy(float, na_value=np.nan))
        if not finite.all():
            found = f"{frame[column].iloc[finite.argmin()]} in row {finite.argmin()}"
            raise StudyError(f"{figure}: column {column!r} holds {found}; give a finite number")
    if key and frame.duplicated(key).any():
        where = frame.loc[frame.duplicated(key), key].iloc[0].to_dict()
        raise StudyError(f"{figure}: two rows for {where}; average over seeds first")


def parts_of(model: str) -> tuple[str, float | None, tuple[str, ...]]:
    """(family, level, steps) of a model name; steps: its variant, loss and quantisation. A family unknown here is "other"."""
    structure, *steps = model.split(" + ")
    found = re.fullmatch(r"([a-z]+)(?:-(\d+(?:\.\d+)?))?(-alternate|-constant)?(?:-(after|2x))?", structure)
    family = found[1] + (found[3] or "") if found else structure
    if family not in LABELS:
        return "other", None, tuple(steps)
    return family, float(found[2]) if found[2] else None, (*([found[4]] if found[4] else []), *steps)


def color_of(model: str) -> str:
    """Hex colour of a model name: that of its last step ("imp-70 + rmc": rmc), else of its structure.

    The more is pruned, the darker. Unknown names: "other".
    """
    family, level, steps = parts_of(model)
    last = _plain(steps[-1]) if steps else ""
    if last in PALETTE:
        return PALETTE[last]
    white = 0.7 * (1 - (min(level, 85) / 85) ** 2) if family == "imp" and level is not None else 0.0
    return to_hex(white + (1 - white) * np.array(to_rgb(PALETTE[family])))


def label_of(model: str) -> str:
    """A model's name as figures print it: "imp-70 + rmc" -> "IMP 70 % + RMC"."""
    family, level, steps = parts_of(model)
    name = LABELS.get(family, model.partition(" + ")[0])
    if level is not None:
        name += f" {level:g} %" if family in ("imp", "heads", "ffn") else f" {level:g}"
    if steps and steps[0] in VARIANTS:
        name, steps = f"{name}, {VARIANTS[steps[0]]}", steps[1:]
    return " + ".join([name, *(LABELS.get(step) or _setting(step) for step in steps)])


def _plain(step: str) -> str:
    """The loss of a step without its setting: rmc of rmc-30."""
    return "rmc" if re.fullmatch(r"rmc-\d+", step) else step


def _setting(step: str) -> str:
    return f"RMC α {int(step[4:]) / 100:g}" if _plain(step) == "rmc" else step


def style_of(model: str) -> dict:
    """Colour, marker and dashes of a model's line."""
    family = parts_of(model)[0]
    return {"color": color_of(model), "marker": MARKERS.get(family, "o"), "linestyle": DASHES.get(family, "-")}


def ink(color: str) -> str:
    """The colour dark enough to be read as text on white: contrast of 4.5 (WCAG 2.2) or more."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    shade = min(1.0, (1.05 / 4.5 - 0.05) / max(luminance, 1e-9))
    return to_hex(rgb * shade ** (1 / 2.4))


def by_method(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by method ("imp", "imp + rmc"), the dense rows at the head of each; dense alone if there is nothing else."""
    parts = frame.model.map(parts_of)
    methods = parts.map(lambda part: " + ".join([part[0], *part[2]]))
    dense = frame[frame.model == "dense"]
    others = [method for method in methods.unique() if method != "dense"]
    return {method: pd.concat([dense, frame[methods == method]]) for method in others} or {"dense": dense}


def band(ax, x, line: pd.DataFrame, alpha: float = 0.16, **style) -> None:
    """A line through `value` and its interval from `low` to `high`, in percent."""
    ax.fill_between(x, line.low * 100, line.high * 100, color=style["color"], alpha=alpha, linewidth=0)
    ax.plot(x, line.value * 100, **style)


def level_line(ax, line: pd.DataFrame, method: str, solid: bool, name: str) -> tuple:
    """One method's line over sparsity (dense in its own colour at the head); returns its entry for `end_labels`."""
    style = style_of(method) | {"linestyle": "-" if solid else (0, (4, 1.5))}
    band(ax, line.sparsity * 100, line, **style, markerfacecolor=style["color"] if solid else "white")
    dense, color = line[line.model == "dense"], PALETTE["dense"]
    face = color if solid else "white"
    ax.plot(dense.sparsity * 100, dense.value * 100, "o", color=color, markerfacecolor=face, zorder=3)
    return line.sparsity.iloc[-1] * 100, line.value.iloc[-1] * 100, name, style["color"]


def cross(ax, row) -> list[np.ndarray]:
    """One model (model, dev, ood and their _low and _high) as a point with the intervals that its row holds.

    Returns the intervals' segments (percent), which `placing.point_labels` keeps clear of.
    """
    segments = [100 * np.array([(row.dev, row.ood_low), (row.dev, row.ood_high)])]
    if hasattr(row, "dev_low"):
        segments.append(100 * np.array([(row.dev_low, row.ood), (row.dev_high, row.ood)]))
    color = color_of(row.model)
    for segment in segments:
        ax.plot(*segment.T, color=color, alpha=0.5, linewidth=1.1)
    ax.plot(row.dev * 100, row.ood * 100, color=color, marker=style_of(row.model)["marker"], markersize=7, zorder=3)
    return segments


def percent_axis(ax, frame: pd.DataFrame, chance: float | None, room: float = 0.0) -> None:
    """y limits round all intervals (and chance, drawn dotted), with `room` of the axis left free below."""
    bottom = min(frame.low.min(), frame.value.min(), 1 if chance is None else chance) * 100
    top = max(frame.high.max(), frame.value.max()) * 100
    span = max(top - bottom, 2)
    ax.set_ylim(bottom - (0.04 + room / (1 - room)) * span, top + 0.03 * span)
    if chance is not None:
        ax.axhline(chance * 100, color="#777777", linewidth=0.9, linestyle=":")
        at = {"transform": ax.get_yaxis_transform(), "va": "bottom"}
        ax.text(0.01, chance * 100, "chance", **at, color="#666666", fontsize=9)


def logit_axis(ax, left: float, right: float) -> None:
    """An x axis of percentages between two logits, ticked at the roundest that give four at a readable distance."""
    ax.set_xscale("function", functions=(lambda x: logit(np.clip(x / 100, 1e-6, 1 - 1e-6)), lambda x: 100 * expit(x)))
    ax.set_xlim(100 * expit(left), 100 * expit(right))
    even = np.round(100 * expit(np.linspace(left, right, 6)[1:-1]), 4)
    for candidates in ([*range(5, 96, 5), 98, 99, 99.5, 99.8, 99.9], range(1, 100), even):
        ticks, last = [], -np.inf
        for tick in candidates:
            at = logit(tick / 100)
            if left < at < right and at - last > (right - left) / 11:
                ticks, last = [*ticks, tick], at
        if len(ticks) >= 4:
            break
    ax.set_xticks(ticks, [f"{tick:.6g}" for tick in ticks])


def truth_groups(ax, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Masks of the groups by `is_shortcut` (all: truth unknown); their names and sizes go in colour above the axis."""
    truth = frame.is_shortcut.astype("boolean")
    masks = {"all": truth.isna(), "shortcut holds": truth.fillna(False), "shortcut fails": ~truth.fillna(True)}
    groups = {name: mask.to_numpy(bool) for name, mask in masks.items() if mask.any()}
    texts = []
    for name, mask in groups.items():
        text = f"{'truth unknown' if name == 'all' else name} ({mask.sum():,} rows)"
        texts.append(TextArea(text, textprops={"color": ink(TRUTH[name]), "weight": "bold"}))
    above = {"bbox_to_anchor": (0, 1.01), "bbox_transform": ax.transAxes, "frameon": False, "pad": 0, "borderpad": 0}
    ax.add_artist(AnchoredOffsetbox("lower left", child=HPacker(children=texts, pad=0, sep=14), **above))
    return groups
