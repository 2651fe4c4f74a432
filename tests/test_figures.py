"""Figures: what they draw, that they are marked, named and coloured alike, and that their files can be trusted."""

import functools
import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.errors import StudyError
from lib.figures import curves, plot_choice, theme

MODELS = ["dense", "truncated-3", "truncated-3 + distil", "imp-40", "imp-70", "imp-85"]
MODELS += ["imp-70 + distil", "imp-70 + rmc"]
FAMILIES = ["dense", "truncated-3", "truncated-3 + distil", "truncated-3 + pkd", "truncated-3 + tinybert", "imp-70"]
FAMILIES += ["heads-20", "dense + ptq8", "dense + qat8", "theseus-3", "theseus-3-constant"]
FAMILIES += [f"{structure} + distil + ptq8" for structure in ("truncated-3", "theseus-3", "imp-60")]
NAMED = ["dense", "truncated-3", "imp-70", "dense + ptq8", "theseus-3", "truncated-3 + distil + ptq8"]
COUNTS = [100, 60, 40, 25, 15, 10, 7, 5]


def scored(rows: list[tuple], columns: list[str]) -> pd.DataFrame:
    """Rows ending in a value, with an interval of 2 points either side."""
    frame = pd.DataFrame(rows, columns=[*columns, "value"])
    return frame.assign(low=frame.value - 0.02, high=(frame.value + 0.02).clip(upper=1))


def levels(column: str, names: tuple[str, str]) -> pd.DataFrame:
    sparsity = {"dense": 0.0, "imp-40": 0.4, "imp-70": 0.7, "imp-85": 0.85}
    rows = [(m, s, name, 0.98 - k * 0.5 * s**3) for m, s in sparsity.items() for k, name in enumerate(names)]
    return scored(rows, ["model", "sparsity", column])


def forgetting() -> pd.DataFrame:
    rows = [(m, f"case_{c}", c, 1 + c % 3, 1 - 0.05 * k * 5 / c) for k, m in enumerate(MODELS) for c in COUNTS]
    rows += [(m, "never_met", 0, 2, 0.5) for m in MODELS]
    return beside_dense(scored(rows, ["model", "subcase", "count", "depth"]))


def beside_dense(frame: pd.DataFrame) -> pd.DataFrame:
    lost = frame["subcase"].map(frame[frame.model == "dense"].set_index("subcase")["value"]) - frame["value"]
    return frame.assign(lost=lost, lost_low=lost - 0.04, lost_high=lost + 0.04)


def difficulty(truth: bool = True) -> pd.DataFrame:
    rng, holds = np.random.default_rng(0), np.arange(400) % 10 > 0
    v = np.exp(rng.normal(np.where(holds, -6, -1), 1))
    v[:5] = 0
    return pd.DataFrame({"v": v, "is_shortcut": pd.array(holds if truth else [pd.NA] * 400, dtype="boolean")})


def plane() -> pd.DataFrame:
    frame = pd.DataFrame({"model": MODELS, "dev": np.linspace(0.999, 0.98, 8), "ood": np.linspace(0.97, 0.7, 8)})
    frame["loss"] = frame.model.str.partition(" + ")[2].replace("", "vanilla")
    for column, half in {"dev": 0.001, "ood": 0.015}.items():
        frame[f"{column}_low"], frame[f"{column}_high"] = frame[column] - half, frame[column] + half
    return frame


def dynamics() -> pd.DataFrame:
    frame = difficulty()
    return frame.assign(confidence=np.exp(-frame.v), variability=np.sqrt(frame.v).clip(upper=0.5))


def trajectory() -> pd.DataFrame:
    return pd.DataFrame({"step": [24, 96, 192, 384], "dev": [0.7, 0.96, 0.99, 1.0], "ood": [0.47, 0.62, 0.83, 0.97]})


def loyal(models: list[str] = FAMILIES[1:]) -> pd.DataFrame:
    rows = [(m, s, "label_loyalty", top - 0.01 * k) for k, m in enumerate(models)
            for s, top in {"dev": 0.99, "test": 0.98, "ood": 0.9, "unseen": 0.8}.items()]  # fmt: skip
    rows += [(m, "test", "kl", 3.0) for m in models]
    return scored(rows, ["model", "split", "measure"])


def null() -> pd.DataFrame:
    return loyal(["one", "two"]).drop(columns="model")


def carried(models: list[str] = FAMILIES) -> pd.DataFrame:
    rows = [(a, b, abs(i - j) / len(models)) for i, a in enumerate(models) for j, b in enumerate(models)]
    return pd.DataFrame(rows, columns=["found_on", "model", "value"])


def costly() -> pd.DataFrame:
    small = [m.endswith("ptq8") or m.endswith("qat8") for m in FAMILIES]
    few = ["-3" in m for m in FAMILIES]
    frame = pd.DataFrame({"model": FAMILIES, "ood": [0.97, 0.6, 0.72, 0.75, 0.79, 0.8, 0.93, 0.95, 0.96, 0.74, 0.7, 0.66, 0.69, 0.64]})
    frame["bytes"] = 90.9e6 * np.where(small, 0.64, 1) * np.where(few, 0.77, 1)
    frame["latency_ms"] = 6.0 * np.where(small, 0.5, 1) * np.where(few, 0.52, 1) * np.linspace(0.98, 1.02, len(FAMILIES))
    return frame.assign(ood_low=frame.ood - 0.02, ood_high=frame.ood + 0.02)


DRAW = {
    "sparsity_curve": lambda **k: curves.sparsity_curve(levels("split", ("test", "ood")), chance=0.5, **k),
    "forgetting": lambda **k: curves.forgetting(forgetting(), **k),
    "easy_hard_gap": lambda **k: curves.easy_hard_gap(levels("part", ("easy", "hard")), **k),
    "difficulty_histogram": lambda **k: curves.difficulty_histogram(difficulty(), 0.05, 0.93, **k),
    "mitigation_plane": lambda **k: curves.mitigation_plane(plane(), **k),
    "dynamics_map": lambda **k: curves.dynamics_map(dynamics(), **k),
    "dense_trajectory": lambda **k: curves.dense_trajectory(trajectory(), plane(), **k),
    "loyalty_figure": lambda **k: plot_choice.loyalty_figure(loyal(), null(), **k),
    "attack_matrix": lambda **k: plot_choice.attack_matrix(carried(), **k),
    "practitioner_plane": lambda **k: plot_choice.practitioner_plane(costly(), NAMED, **k),
}


@functools.cache
def drawn(name: str, smoke: bool = False):
    """A figure of DRAW that tests share: to be read, not changed."""
    return DRAW[name](smoke=smoke)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def words(fig) -> list[str]:
    return [text.get_text() for text in fig.findobj(plt.Text) if text.get_visible() and text.get_text()]


def lines(ax, n: int) -> list:
    """The drawn lines of n points or more (not ticks, leaders or the line of chance)."""
    return [line for line in ax.lines if len(line.get_xdata()) >= n]


@pytest.mark.parametrize("name", DRAW)
def test_every_figure_is_named_readable_and_marked_only_when_smoke(name):
    fig = drawn(name)
    assert fig.axes[0].get_xlabel() and fig.axes[0].get_ylabel()
    assert all(text.get_fontsize() >= 9 for text in fig.findobj(plt.Text) if text.get_text())
    assert fig.get_figwidth() == 6
    assert "smoke: not a result" not in words(fig)
    assert "smoke: not a result" in words(drawn(name, smoke=True))


@pytest.mark.parametrize("name", DRAW)
def test_scores_in_distribution_are_called_id_not_dev(name):
    assert not [text for text in words(drawn(name)) if re.search(r"\bdev\b", text)]
    if name in ("mitigation_plane", "dense_trajectory"):
        assert drawn(name).axes[0].get_xlabel().startswith("ID accuracy, %")


@pytest.mark.parametrize("name", DRAW)
def test_no_text_leaves_the_figure_or_covers_another(name):
    fig = drawn(name, smoke=True)
    fig.draw_without_rendering()
    hidden = off_axis_ticks(fig)
    texts = [t for t in fig.findobj(plt.Text) if t.get_text() and t.get_visible() and not t.get_rotation()]
    boxes = {t: t.get_window_extent() for t in texts if t not in hidden}
    for text, box in boxes.items():
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1, text
    for (a, box), (b, other) in itertools.combinations(boxes.items(), 2):
        assert not box.padded(-1.5).overlaps(other.padded(-1.5)), (a, b)


def off_axis_ticks(fig) -> set:
    """Tick labels outside the limits are kept by matplotlib but not drawn."""
    hidden = set()
    for ax in fig.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not min(limits) <= tick.get_loc() <= max(limits):
                    hidden |= {tick.label1, tick.label2}
    return hidden


def test_sparsity_curve_draws_a_line_per_split_from_dense_on_and_says_the_direction():
    ax = drawn("sparsity_curve").axes[0]
    test, ood = lines(ax, 3)
    assert list(test.get_xdata()) == list(ood.get_xdata()) == [0, 40, 70, 85]
    assert np.allclose(ood.get_ydata(), [98 - 50 * s**3 for s in (0, 0.4, 0.7, 0.85)])
    assert len(ax.collections) == 2
    assert ax.get_ylabel() == "accuracy, % (higher is better)"
    assert {"test (ID)", "OOD", "chance"} <= set(words(ax.figure))


def test_sparsity_curve_keeps_losses_apart_and_starts_each_at_dense():
    frame = levels("split", ("test", "ood"))
    mended = frame[frame.model != "dense"].assign(model=lambda rows: rows.model + " + rmc")
    ax = curves.sparsity_curve(pd.concat([frame, mended])).axes[0]
    drawn_lines = lines(ax, 3)
    assert len(drawn_lines) == 4 and all(line.get_xdata()[0] == 0 for line in drawn_lines)
    assert {line.get_color() for line in drawn_lines} == {theme.PALETTE["imp"], theme.PALETTE["rmc"]}


def test_forgetting_has_a_dot_a_model_and_the_rarest_subcase_below():
    ax = drawn("forgetting").axes[0]
    dots = {line.get_label(): line for line in lines(ax, len(COUNTS) + 1)}
    assert list(dots) == [theme.label_of(model) for model in MODELS]
    assert len(ax.collections) == len(MODELS)
    named = [text.get_text() for text in ax.get_yticklabels()]
    assert named == [f"case {c} ({c} rows, depth {1 + c % 3})" for c in sorted(COUNTS, reverse=True)] + [
        "never met (0 rows)"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_forgetting_tells_the_largest_loss_only_where_one_is_sure_on_the_same_rows():
    worst = "largest loss against dense: IMP 70 % + RMC on case 5 (5 rows), 35 [31, 39] points"
    assert any(worst in text for text in words(drawn("forgetting")))
    frame = forgetting()
    lower = np.where(frame.model == "dense", 0.9, 0.87)
    same = curves.forgetting(beside_dense(frame.assign(value=lower)))
    assert any("on no subcase does a model surely lose against the dense one" in text for text in words(same))
    for names in (["dense"], ["dense", "dense-0.5x", "untrained"]):
        alone = words(curves.forgetting(pd.concat(frame[frame.model == "dense"].assign(model=name) for name in names)))
        assert "What does the dense model know?" in alone and "What does compression forget?" not in alone
        assert not any("loss" in text or "surely" in text for text in alone)


def test_a_legend_stands_above_the_mark_of_a_smoke_run():
    fig = curves.forgetting(forgetting().query("model in @MODELS[:6]"), smoke=True)
    fig.draw_without_rendering()
    (mark,) = (text for text in fig.texts if text.get_text().startswith("smoke"))
    assert mark.get_window_extent().ymax <= fig.legends[0].get_window_extent().ymin


def test_easy_hard_gap_prints_the_gap_in_points():
    fig = drawn("easy_hard_gap")
    assert len(lines(fig.axes[0], 3)) == 2
    assert {"easy", "hard", "3", "17", "31", "gap, points (lower is better)"} <= set(words(fig))


def test_difficulty_histogram_sums_each_group_to_all_its_rows_with_and_without_truth():
    def totals(fig):
        steps = [patch.get_data() for patch in fig.axes[0].patches if patch.get_fill()]
        return [round(step.values.sum(), 6) for step in steps]

    known = drawn("difficulty_histogram")
    assert totals(known) == [100, 100]
    told = " ".join(words(known))
    assert "■ shortcut-breaking (40 rows)" in told and "threshold 0.05" in told and "AUC 0.93" in told
    unknown = curves.difficulty_histogram(difficulty(truth=False))
    assert totals(unknown) == [100] and "■ truth unknown (400 rows)" in words(unknown)


def test_mitigation_plane_points_from_vanilla_to_each_loss():
    ax = drawn("mitigation_plane").axes[0]
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    frame = plane().set_index("model")
    starts = sorted(arrow.xyann for arrow in arrows)
    bases = ["imp-70", "imp-70", "truncated-3"]
    assert np.allclose(starts, sorted((frame.dev[base] * 100, frame.ood[base] * 100) for base in bases))
    assert "higher is better" in ax.get_xlabel() and "higher is better" in ax.get_ylabel()


def test_dynamics_map_draws_every_row_once():
    ax = drawn("dynamics_map").axes[0]
    assert sorted(len(dots.get_offsets()) for dots in ax.collections) == [40, 360]
    assert {"■ shortcut holds (360 rows)", "■ shortcut-breaking (40 rows)", "← learned early"} <= set(words(ax.figure))


def test_dense_trajectory_stays_finite_at_a_perfect_dev_score():
    ax = drawn("dense_trajectory").axes[0]
    path = lines(ax, 4)[0]
    assert np.allclose(path.get_xdata(), [70, 96, 99, 99.975])
    assert np.isfinite(ax.transData.transform(np.column_stack(path.get_data()))).all()


def test_dense_trajectory_has_ticks_wherever_the_scores_lie():
    for low, high in [(0.6, 0.72), (0.98, 0.9999), (0.7, 0.7), (1.0, 1.0)]:
        line = trajectory().assign(dev=[low, low, high, high])
        ax = curves.dense_trajectory(line, plane()[:2].assign(dev=[low, high])).axes[0]
        left, right = ax.get_xlim()
        assert sum(left <= tick <= right for tick in ax.get_xticks()) >= 3, (low, high)


def test_dense_trajectory_holds_every_interval_within_its_limits():
    wide = plane().assign(dev_low=lambda frame: frame.dev - 0.2, dev_high=1.0)
    ax = curves.dense_trajectory(trajectory(), wide).axes[0]
    left, right = ax.get_xlim()
    assert left < wide.dev_low.min() * 100 and 99.97 < right < 100


def test_dense_trajectory_shows_the_whole_run_unless_compressed_models_set_the_frame():
    fig = curves.dense_trajectory(trajectory(), plane())
    assert any("not shown: the dense run up to step 24" in text for text in words(fig))
    runs = plane()[:2].assign(model=["dense", "dense-0.5x"])
    fig = curves.dense_trajectory(trajectory(), runs)
    left, bottom = fig.axes[0].get_xlim()[0], fig.axes[0].get_ylim()[0]
    assert left < 70 and bottom < 47 and "What does the dense model learn first?" in words(fig)
    assert not any("not shown" in text or "compress" in text for text in words(fig))


def test_labels_keep_clear_of_the_intervals():
    for name in ("mitigation_plane", "dense_trajectory"):
        ax = drawn(name).axes[0]
        ax.figure.draw_without_rendering()
        bars = [line for line in ax.lines if line.get_alpha() == 0.5]
        assert len(bars) == 2 * len(MODELS)
        boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
        for bar, box in itertools.product(bars, boxes):
            path = bar.get_path().transformed(ax.transData)
            assert not path.intersects_bbox(box.padded(-1)), name


def test_points_that_coincide_share_one_label():
    same = plane().assign(dev=0.5, dev_low=0.4, dev_high=0.6, ood=0.5, ood_low=0.45, ood_high=0.55)
    for fig in (
        curves.mitigation_plane(same),
        curves.dense_trajectory(trajectory()[:2].assign(dev=0.5, ood=0.5), same),
    ):
        labels = [text.get_text() for text in fig.axes[0].texts if text.get_text()]
        assert len(labels) == 1 and labels[0].splitlines()[0] == "dense" and len(labels[0].splitlines()) == 4
        assert re.fullmatch(r"\+ [56] more", labels[0].splitlines()[-1])
    three = curves.mitigation_plane(same[:3]).axes[0]
    assert [text.get_text() for text in three.texts if text.get_text()] == ["dense\ntruncated 3\ndistil"]


def test_one_colour_and_one_name_per_method():
    assert theme.color_of("imp-70 + rmc") == theme.color_of("truncated-3 + rmc") == theme.PALETTE["rmc"]
    assert theme.color_of("imp-85") == theme.PALETTE["imp"]
    assert theme.color_of("truncated-3-alternate") == theme.PALETTE["truncated-alternate"]
    assert theme.color_of("someone/their-model") == theme.PALETTE["other"]
    runs = [theme.color_of(f"dense{steps}") for steps in ("", "-0.5x", "-0.25x", "-0.125x", "-0.01x")]
    assert runs[0] == theme.PALETTE["dense"] and runs == sorted(runs) and len(set(runs)) == 4, "the fewer steps, the lighter"
    assert theme.label_of("imp-70 + rmc") == "IMP 70 % + RMC"
    assert theme.label_of("truncated-3 + distil") == "truncated 3 + distil"
    assert theme.label_of("distilbert-base-uncased") == "distilbert-base-uncased"


def test_a_chain_of_steps_has_the_colour_of_its_last_and_the_marker_of_its_structure():
    for kind in ("ptq8", "qat8", "ptq4", "pkd", "tinybert"):
        assert theme.color_of(f"dense + {kind}") == theme.color_of(f"imp-60 + distil + {kind}") == theme.PALETTE[kind]
    assert theme.color_of("theseus-3") == theme.PALETTE["theseus"] != theme.color_of("theseus-3-constant")
    assert theme.color_of("heads-19.5") == theme.PALETTE["heads"]
    chains = ["truncated-3 + distil + ptq8", "theseus-3 + distil + ptq8", "imp-60 + distil + ptq8"]
    assert len({theme.style_of(model)["marker"] for model in chains}) == 3
    names = ["truncated 3 + distil + PTQ8", "Theseus 3 + distil + PTQ8", "IMP 60 % + distil + PTQ8"]
    assert [theme.label_of(model) for model in chains] == names
    assert theme.label_of("theseus-3-constant") == "Theseus const. 3"
    assert theme.label_of("heads-19.5") == "heads cut 19.5 %"
    assert theme.label_of("google/some-bert + ptq8") == "google/some-bert + PTQ8"
    assert len({theme.label_of(model) for model in FAMILIES}) == len(FAMILIES)


def test_loyalty_figure_has_a_panel_a_split_a_dot_a_model_and_the_null_band():
    fig = drawn("loyalty_figure")
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["test (ID)", "OOD", "OOD, unseen"]
    for ax, top in zip(fig.axes, (98, 90, 80)):
        dots = [line for line in ax.lines if line.get_marker() not in ("", "None")]
        assert np.allclose([dot.get_xdata()[0] for dot in dots], [top - 0.5, *(top - np.arange(13))])
        (band,) = [patch for patch in ax.patches if patch.get_width() > 0]
        assert np.allclose([band.get_x(), band.get_x() + band.get_width()], [top - 3, min(top + 2, 100)])
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()][:2] == ["dense, another seed (null)", "truncated 3"]
    alone = plot_choice.loyalty_figure(loyal())
    assert not alone.axes[0].patches and not [text for text in words(alone) if "null" in text or "another seed" in text]


def test_attack_matrix_has_the_attacked_in_rows_and_leaves_unknown_pairs_blank():
    ax = drawn("attack_matrix").axes[0]
    assert len(ax.texts) == len(FAMILIES) ** 2
    some = carried(["dense", "imp-70", "imp-85"]).query("found_on == 'dense' or model == 'imp-85'")
    ax = plot_choice.attack_matrix(some).axes[0]
    assert sorted((t.get_position(), t.get_text()) for t in ax.texts) == [
        ((0, 0), "0"), ((1, 0), "33"), ((2, 0), "67"), ((2, 1), "33"), ((2, 2), "0")]  # fmt: skip
    assert [t.get_text() for t in ax.get_xticklabels()] == ["dense", "IMP 70 %", "IMP 85 %"]


def test_practitioner_plane_draws_the_front_of_each_cost_and_says_what_was_not_measured():
    assert len(drawn("practitioner_plane").axes) == 2
    rows = [("dense", 0.9, 8e6, 4.0), ("imp-70", 0.8, 8e6, np.nan), ("truncated-3", 0.7, 4e6, 2.0), ("scratch-3", 0.6, 4e6, 1.0)]
    table = pd.DataFrame(rows, columns=["model", "ood", "bytes", "latency_ms"])
    size, time = plot_choice.practitioner_plane(table, [*table.model[:3]]).axes
    fronts = [next(line for line in ax.lines if len(line.get_xdata()) > 2) for ax in (size, time)]
    assert np.allclose(fronts[0].get_data(), [[4, 8, 8, size.get_xlim()[1]], [70, 70, 90, 90]])
    assert np.allclose(fronts[1].get_data(), [[1, 2, 2, 4, 4, time.get_xlim()[1]], [60, 60, 70, 70, 90, 90]])
    assert "not measured: IMP 70 %" in time.get_title(loc="left") and "not measured" not in size.get_title(loc="left")
    assert "IMP 70 %" in [t.get_text() for t in size.texts] and "IMP 70 %" not in [t.get_text() for t in time.texts]
    grey = [line for line in time.lines if line.get_marker() == "o" and line.get_color() == "#b0b0b0"]
    assert [list(line.get_xydata()[0]) for line in grey] == [[1, 60]] and "from scratch 3" not in words(size.figure)
    assert any("without a name" in text for text in words(size.figure))
    every = plot_choice.practitioner_plane(table.assign(latency_ms=np.nan), table.model)
    assert len(every.axes) == 1 and not any("without a name" in text for text in words(every))


def test_practitioner_plane_stays_readable_where_costs_hardly_differ():
    for costs in ([8e6, 8e6], [8e6, 8.1e6], [8e6, 8e9]):
        table = pd.DataFrame({"model": ["dense", "imp-70"], "ood": [0.9, 0.8], "bytes": costs})
        ax = plot_choice.practitioner_plane(table, table.model).axes[0]
        left, right = ax.get_xlim()
        assert sum(left <= tick <= right for tick in ax.get_xticks()) >= 2


# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
SIGHT = {
    "full": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_methods_differ_for_colour_blind_readers(sight):
    def lab(colour):
        rgb = np.array(matplotlib.colors.to_rgb(colour))
        linear = np.clip(SIGHT[sight] @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
        x, y, z = np.cbrt(xyz / [0.9505, 1, 1.089])
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for (a, one), (b, two) in itertools.combinations(theme.PALETTE.items(), 2):
        assert np.linalg.norm(lab(one) - lab(two)) > 10, (a, b)


def test_save_gives_the_same_bytes_text_as_text_and_the_table(tmp_path):
    table = forgetting().assign(value=lambda frame: frame.value / 3)
    first = curves.save(drawn("forgetting"), table, tmp_path / "one" / "curve")
    second = curves.save(DRAW["forgetting"](), table, str(tmp_path / "two.of.two"))
    assert [path.name for path in first] == ["curve.svg", "curve.csv"]
    assert [path.name for path in second] == ["two.of.two.svg", "two.of.two.csv"]
    for a, b in zip(first, second):
        assert a.read_bytes() == b.read_bytes()
    texts = {node.text for node in ET.parse(first[0]).iter("{http://www.w3.org/2000/svg}text")}
    assert {"What does compression forget?", "IMP 70 % + RMC"} <= texts
    assert b"date" not in first[0].read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(first[1]), table, rtol=1e-5)
    assert "0.333333," in first[1].read_text() and "0.3333333" not in first[1].read_text()
    assert not plt.get_fignums()
    assert sorted(path.name for path in first[0].parent.iterdir()) == ["checksums.json", "curve.csv", "curve.svg"]


@pytest.mark.parametrize("name", ["difficulty_histogram", "dynamics_map", "dense_trajectory", "mitigation_plane", "attack_matrix"])
def test_the_bytes_of_dots_and_arrows_repeat_too(name, tmp_path):
    a, _ = curves.save(drawn(name), plane(), tmp_path / "a")
    with plt.rc_context({"font.size": 20, "svg.fonttype": "path"}):
        b, _ = curves.save(DRAW[name](), plane(), tmp_path / "b")
    assert a.read_bytes() == b.read_bytes()


def test_a_failed_save_leaves_the_old_files_and_no_rest(tmp_path):
    curves.save(plt.figure(), plane(), tmp_path / "gap")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fig = plt.figure()
    fig.savefig = lambda path, **_: (path.write_text("half"), 1 / 0)
    with pytest.raises(ZeroDivisionError):
        curves.save(fig, plane(), tmp_path / "gap")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_mistakes_are_named():
    frame = levels("split", ("test", "ood"))
    with pytest.raises(StudyError, match="sparsity_curve: the frame has no column 'split'; did you mean 'splits'"):
        curves.sparsity_curve(frame.rename(columns={"split": "splits"}))
    with pytest.raises(StudyError, match="dense_trajectory \\(trajectory\\): the frame has no column 'step'; choose from dev, ood"):
        curves.dense_trajectory(trajectory().drop(columns="step"), plane())
    with pytest.raises(StudyError, match="no row"):
        curves.easy_hard_gap(levels("part", ("easy", "hard")).iloc[:0])
    with pytest.raises(StudyError, match="column 'value' holds nan in row 2"):
        curves.sparsity_curve(frame.assign(value=frame.value.where(frame.index != 2)))
    with pytest.raises(StudyError, match="two rows for .*'model': 'dense'.*average over seeds"):
        curves.sparsity_curve(pd.concat([frame, frame]))
    with pytest.raises(StudyError, match="column 'v' must hold variances"):
        curves.difficulty_histogram(difficulty().assign(v=0.5))
    with pytest.raises(StudyError, match="loyalty_figure: two rows for"):
        plot_choice.loyalty_figure(pd.concat([loyal(), loyal()]))
    with pytest.raises(StudyError, match="attack_matrix: column 'value' holds nan"):
        plot_choice.attack_matrix(carried().assign(value=np.nan))
    with pytest.raises(StudyError, match="practitioner_plane: no model has bytes or latency_ms"):
        plot_choice.practitioner_plane(costly().assign(bytes=np.nan).drop(columns="latency_ms"), NAMED)


def test_where_no_count_is_known_every_subcase_gets_a_dot_a_model():
    frame = forgetting().assign(count=np.nan)
    fig = curves.forgetting(frame, 0.5)
    (ax,) = fig.axes
    dots = {line.get_label(): line for line in ax.get_lines() if line.get_marker() != "None"}
    assert set(dots) == {theme.label_of(m) for m in MODELS}
    assert [t.get_text() for t in ax.get_yticklabels()] == [n.replace("_", " ") for n in frame["subcase"].unique()]
    drawn = dots[theme.label_of("imp-85")].get_xdata()
    assert np.allclose(drawn, frame[frame["model"] == "imp-85"]["value"] * 100)
    plt.close(fig)

