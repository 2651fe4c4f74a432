"""The words on the study's figures: names at lines and points that keep apart, and what a forgetting curve tells."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

from lib.analysis.tables import case_name, with_interval
from lib.figures.theme import GREY, ink, label_of


def end_labels(ax, ends: list[tuple[float, float, str, str]]) -> None:
    """Names right of the axis at their lines' ends (x, y, text, colour), moved up or down as little as is needed."""
    ax.figure.get_layout_engine().execute(ax.figure)
    low, high = ax.get_ylim()
    gap = (high - low) * 12.5 / (ax.get_window_extent().height * 72 / ax.figure.dpi)
    ends = sorted(reversed(ends), key=lambda end: end[1])
    steps = gap * np.arange(len(ends))
    ys = isotonic_regression(np.array([end[1] for end in ends]) - steps).x
    ys = np.clip(ys, low + gap / 2, max(high - gap / 2 - steps[-1], low + gap / 2)) + steps
    for (x, y, text, color), at in zip(ends, ys):
        leader = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)}
        place = {"xytext": (1.05, at), "textcoords": ax.get_yaxis_transform(), "va": "center"}
        ax.annotate(text, (x, y), **place, color=ink(color), fontsize=9, arrowprops=leader)


def point_labels(ax, points: list[tuple], blocked: list[list[tuple]]) -> None:
    """Names beside their points (x, y, text, colour), clear of each other and of the `blocked` segments.

    Points and segments are in the units of the axes.

    Points that coincide share one label of a line a name: at most 3 of them, then how many more.
    """
    ax.figure.get_layout_engine().execute(ax.figure)
    inside, unit = ax.get_window_extent(), ax.figure.dpi / 72
    points = _clusters(ax, points, apart=4 * unit)
    spots = ax.transData.transform([(x, y) for x, y, *_ in points])
    segments = [ax.transData.transform(segment) for segment in blocked]
    dots = np.vstack([np.linspace(*segment, 60) for segment in segments] + [spots])
    angles = np.deg2rad([0, 180, 90, 270, 35, 145, 215, 325, 15, 165, 195, 345])
    sides = np.round(np.column_stack([np.cos(angles), np.sin(angles)]), 6)
    taken: list[Bbox] = []
    for (x, y, text, color), at in zip(points, spots):
        place = {"xytext": (0, 0), "textcoords": "offset points", "va": "bottom"}
        artist = ax.annotate(text, (x, y), **place, color=ink(color), fontsize=9)
        size, candidates = artist.get_window_extent().size, []
        for radius, side in itertools.product((7, 14, 24, 36, 50, 66), sides):
            box = Bbox.from_bounds(*(at + radius * side * unit - size * (1 - np.sign(side)) / 2), *size)
            near = np.clip(at, box.min, box.max)
            leader = np.linspace(at, near, 20)
            out = (box.min < inside.min).any() or (box.max > inside.max).any()
            hits = ((dots > box.min - 2) & (dots < box.max + 2)).all(1).sum()
            covers = sum(box.padded(1).overlaps(other) or other.count_contains(leader) > 0 for other in taken)
            candidates.append((1000 * out + 400 * covers + 4 * hits + radius / 4, radius, box, near))
        _, radius, box, near = min(candidates, key=lambda candidate: candidate[0])
        taken.append(box)
        artist.set_position((box.min - at) / unit)
        if radius > 7:
            ends = ax.transData.inverted().transform([at, near])
            ax.plot(*ends.T, color=color, linewidth=0.6, scalex=False, scaley=False)


def _clusters(ax, points: list[tuple], apart: float) -> list[tuple]:
    """The points with those less than `apart` pixels from an earlier one joined to it; mixed colours become grey."""
    groups: list[tuple[np.ndarray, list[tuple]]] = []
    for point in points:
        at = ax.transData.transform(point[:2])
        near = next((group for head, group in groups if np.hypot(*(at - head)) < apart), None)
        if near is None:
            groups.append((at, [point]))
        else:
            near.append(point)
    return [_joined(group) for _, group in groups]


def _joined(group: list[tuple]) -> tuple:
    (x, y, _, color), names = group[0], [name for _, _, name, _ in group]
    text = "\n".join(names[:3] + [f"+ {len(names) - 3} more"] * (len(names) > 3))
    return x, y, text, color if {point[3] for point in group} == {color} else GREY


def subcase_name(case) -> str:
    """A subcase as a figure's row names it, with its rows in train and its depth where they are known."""
    name = case_name(case.subcase, case.count)
    return f"{name[:-1]}, depth {case.depth:g})" if case.count > 0 else name


def is_compressed(models: pd.Series) -> pd.Series:
    """Which models are neither untrained nor the dense one, trained for as many steps as may be."""
    return ~models.str.fullmatch(r"untrained|dense(-.*)?")


def largest_loss(frame: pd.DataFrame) -> list[str]:
    """The subcase of which train holds rows on which a compressed model loses most, of those on which it surely loses
    on the dense model's own rows, or that there is none; nothing where no model is compressed."""
    seen = frame[(frame["count"] != 0) & is_compressed(frame.model)]
    if seen.empty:
        return []
    sure = seen[seen.lost_low > 0]
    if sure.empty:
        return ["on no subcase does a model surely lose against the dense one on the same rows"]
    worst = sure.loc[sure.lost.idxmax()]
    lost = with_interval(worst.lost, worst.lost_low, worst.lost_high, digits=0)
    where = case_name(worst.subcase, worst["count"])
    return [f"largest loss against dense: {label_of(worst.model)} on {where}, {lost} points"]


def intervals_over(frame: pd.DataFrame) -> str:
    """What the intervals of a table are over: its seeds, or where it has no column of them the rows of one training."""
    seeds = frame["seeds"].max() if "seeds" in frame else 1
    return f"95 % intervals over {f'{seeds:g} seeds' if seeds > 1 else 'the rows of one training'}"
