"""What the study's figures share: one theme, one colour and name per method, lines and axes.

A figure takes a tidy frame and returns a matplotlib Figure; `smoke=True` marks it as no result. A model's colour is
that of its loss where it has one, else that of its compression; its marker and dashes are those of its compression.
"""

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
    "cad_nli": "CAD-NLI", "cad_nli_original": "CAD-NLI, originals", "monli": "MoNLI",
    "anli_r1": "ANLI R1", "anli_r2": "ANLI R2", "anli_r3": "ANLI R3",
    "sym1": "FEVER-Sym1", "sym2": "FEVER-Sym2", "paws_qqp": "PAWS-QQP", "paws_wiki": "PAWS-Wiki",
}  # fmt: skip
ALPHA = re.compile(r"^rmc-(\d+)$")  # a loss with its setting
VARIANTS = {"after": "after", "qat": "after, as QAT8"}  # and -2x, -0.25x: so many steps
MARKERS = {
    "truncated": "^", "truncated-alternate": "v", "scratch": "X", "heads": "s", "ffn": "D", "other": "P",
    "theseus": "<", "theseus-constant": ">",
}  # fmt: skip
DASHES = {
    "truncated": (0, (5, 1.5)), "truncated-alternate": (0, (1, 1)), "scratch": (0, (3, 1, 1, 1)),
    "theseus": (0, (7, 1.5, 1, 1.5)), "theseus-constant": (0, (2, 1.5)),
}  # fmt: skip
TRUTH = {"shortcut holds": "#9a9a9a", "shortcut-breaking": "#b21b3f", "all": "#9a9a9a"}
WORDS = {"task", "model", "split", "part", "subcase", "loss", "is_shortcut", "found_on", "measure", "base", "mend",
         "control", "score", "on"}  # columns of names; all others hold numbers
GREY = "#444444"


def rc() -> dict:
    """The rcParams of every figure of the study."""
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


def panels(title: str, smoke: bool, height: float = 3.8, columns: int = 1, rows: int = 1, sharey=True) -> tuple:
    """A figure 6 inches wide and its axes [rows x columns], titled and, for a smoke run, marked."""
    fig, axes = plt.subplots(rows, columns, sharey=sharey, squeeze=False, figsize=(6, height), layout="constrained")
    fig.suptitle(title, x=0.012, ha="left", weight="bold", fontsize=11)
    if smoke:
        fig.get_layout_engine().set(rect=(0, 0.05, 1, 0.95))
        fig.text(0.988, 0.012, "smoke: not a result", color="#b00020", ha="right", weight="bold")
    return fig, axes.ravel()


def canvas(title: str, smoke: bool, height: float = 3.8) -> tuple:
    """`panels` of a single one: the figure and its axes."""
    fig, (ax,) = panels(title, smoke, height)
    return fig, ax


def room_under_title(fig, lines: int, smoke: bool) -> float:
    """Keep room for that many lines under the title of a figure; returns the height at which they start."""
    height = fig.get_figheight()
    fig.get_layout_engine().set(rect=(0, 0.05 * smoke, 1, 1 - 0.05 * smoke - 0.19 * lines / height))
    return 1 - 0.28 / height


def notes(fig, smoke: bool, *lines: str) -> None:
    """Lines under the title of a figure, and the room for them."""
    fig.text(0.012, room_under_title(fig, len(lines), smoke), "\n".join(lines), color=GREY, va="top")


def panel(ax, title: str, xlabel: str, bins: int = 5) -> None:
    """What a panel of dots is called, and its grid of about `bins` ticks."""
    ax.set_title(title, color=GREY)
    ax.set_xlabel(xlabel)
    ax.locator_params(axis="x", nbins=bins)
    grid(ax)


def grid(ax, axis: str = "x") -> None:
    ax.grid(axis=axis, color="#e6e6e6", linewidth=0.7)


def named_rows(ax, names: list[str], ylabel: str = "") -> None:
    """Rows 0, 1, ... from the top down, each with its name."""
    ax.set(ylabel=ylabel, ylim=(len(names) - 0.4, -0.6))
    ax.set_yticks(range(len(names)), names)


def legend(fig, ax) -> None:
    """The names in one panel, below the figure and above what marks a smoke run."""
    pad = 0.5 + fig.get_layout_engine().get()["rect"][1] * fig.get_figheight() * 72 / plt.rcParams["font.size"]
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, borderaxespad=pad)


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
            value, row = frame[column].iloc[finite.argmin()], finite.argmin()
            raise StudyError(f"{figure}: column {column!r} holds {value} in row {row}; give a finite number")
    if key and frame.duplicated(key).any():
        where = frame.loc[frame.duplicated(key), key].iloc[0].to_dict()
        raise StudyError(f"{figure}: two rows for {where}; average over seeds first")


def parts_of(model: str) -> tuple[str, float | None, tuple[str, ...]]:
    """(family, level, steps) of a model name; steps: variant, loss, quantisation. A family unknown here is "other"."""
    structure, *steps = model.split(" + ")
    parsed = re.fullmatch(r"([a-z]+)(?:-(\d+(?:\.\d+)?))?(-alternate|-constant)?(?:-(after|2x|qat|0\.\d+x))?",
                          structure)
    family = parsed[1] + (parsed[3] or "") if parsed else structure
    if family not in LABELS:
        return "other", None, tuple(steps)
    return family, float(parsed[2]) if parsed[2] else None, (*filter(None, [parsed[4]]), *steps)


def color_of(model: str) -> str:
    """Hex colour of a model name: that of its last step ("imp-70 + rmc": rmc), else of its structure, an unknown one
    being "other"; the darker, the more is pruned or the longer a dense model was trained."""
    family, level, steps = parts_of(model)
    last = ALPHA.sub("rmc", steps[-1]) if steps else ""
    if last in PALETTE:
        return PALETTE[last]
    white = 0.7 * (1 - (min(level, 85) / 85) ** 2) if family == "imp" and level is not None else 0.0
    if last.startswith("0."):  # a share of the steps
        white = min(-0.27 * np.log2(float(last[:-1])), 0.75)
    return to_hex(white + (1 - white) * np.array(to_rgb(PALETTE[family])))


def label_of(model: str) -> str:
    """A model's name as figures print it: "imp-70 + rmc" -> "IMP 70 % + RMC"."""
    family, level, steps = parts_of(model)
    name = LABELS.get(family, model.partition(" + ")[0])
    if level is not None:
        name += f" {level:g} %" if family in ("imp", "heads", "ffn") else f" {level:g}"
    if steps and (steps[0] in VARIANTS or steps[0].endswith("x")):
        name, steps = f"{name}, {VARIANTS.get(steps[0], f'{steps[0]} steps')}", steps[1:]
    return " + ".join([name, *(LABELS.get(step) or ALPHA.sub(_alpha, step) for step in steps)])


def _alpha(setting: re.Match) -> str:
    return f"RMC α {int(setting[1]) / 100:g}"


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


def model_band(ax, x, line: pd.DataFrame, model: str, alpha: float = 0.16) -> tuple:
    """A model's `band`; returns its entry for `placing.end_labels`."""
    band(ax, x, line, alpha, **style_of(model))
    return np.asarray(x)[-1], line.value.iloc[-1] * 100, label_of(model), color_of(model)


def dot(ax, row, y: float, color: str, scale: float = 100, width: float = 1.5, alpha: float = 1, **marker) -> None:
    """A row's value with its interval from low to high, lying at height y."""
    ax.hlines(y, row.low * scale, row.high * scale, color=color, linewidth=width, alpha=alpha)
    ax.plot(row.value * scale, y, color=color, linestyle="", **marker)


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
    for candidates in ([*range(5, 96, 5), 98, 99, 99.5, 99.8, 99.9], range(1, 100), np.arange(5, 1000) / 10,
                       np.arange(9000, 10000) / 100):
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
    masks = {"all": truth.isna(), "shortcut holds": truth.fillna(False), "shortcut-breaking": ~truth.fillna(True)}
    groups = {name: mask.to_numpy(bool) for name, mask in masks.items() if mask.any()}
    texts = []
    for name, mask in groups.items():
        text = f"■ {'truth unknown' if name == 'all' else name} ({mask.sum():,} rows)"
        texts.append(TextArea(text, textprops={"color": ink(TRUTH[name]), "weight": "bold"}))
    above = {"bbox_to_anchor": (0, 1.01), "bbox_transform": ax.transAxes, "frameon": False, "pad": 0, "borderpad": 0}
    ax.add_artist(AnchoredOffsetbox("lower left", child=HPacker(children=texts, pad=0, sep=14), **above))
    return groups
