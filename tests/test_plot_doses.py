"""The figures of dose and response and of what a mend costs."""
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.errors import StudyError
from lib.figures import plot_doses


@pytest.fixture
def responses():
    rows = []
    for model, drop in (("dense", 0.0), ("truncated-3", 0.1), ("truncated-3 + rmc_one_run", 0.08), ("imp-70", 0.04)):
        for axis, doses in (("shortcut_rate", (0.5, 0.7, 0.9, 0.98)), ("n_train", (512, 2048, 4096))):
            for i, dose in enumerate(doses):
                rows.append((model, axis, dose, "ood", 0.95 - drop - 0.05 * i))
                rows.append((model, axis, dose, "test", 0.97 - drop))
                if model != "dense":
                    rows.append((model, axis, dose, "gap_difference", drop * (1 + i) / 4))
    table = pd.DataFrame(rows, columns=["model", "axis", "dose", "measure", "value"])
    return table.assign(low=table["value"] - 0.02, high=table["value"] + 0.02)


@pytest.fixture
def mends():
    rows = [("5 rows", "rows", "imp-70", 5, 1.0, 0.03), ("20 rows", "rows", "imp-70", 20, 1.0, 0.09),
            ("imp-70-2x", "steps", "imp-70-2x", 0, 2.0, 0.06), ("imp-40", "weights", "imp-40", 0, 1.0, 0.05),
            ("imp-70 + rmc", "loss", "imp-70 + rmc", 0, 6.0, -0.04)]
    table = pd.DataFrame(rows, columns=["mend", "kind", "model", "rows", "cost", "value"]).assign(base="imp-70", forgotten="swap")
    for prefix in ("", "forgotten_"):
        table[f"{prefix}value"] = table["value"] * (1 if not prefix else 2)
        table[f"{prefix}low"], table[f"{prefix}high"] = table[f"{prefix}value"] - 0.02, table[f"{prefix}value"] + 0.03
    return table


def words(fig):
    return [text.get_text() for text in fig.findobj(plt.Text) if text.get_text().strip()]


def test_every_model_has_a_line_with_its_intervals_at_evenly_spaced_doses(responses):
    fig = plot_doses.dose_response(responses, "shortcut_rate")
    left, right = fig.axes
    lines = [line for line in left.lines if len(line.get_xdata()) == 4]
    assert len(lines) == 4 and np.allclose(lines[0].get_ydata(), [95, 90, 85, 80])
    assert np.allclose(np.diff(lines[0].get_xdata()), 1) and len({line.get_xdata()[0] for line in lines}) == 4
    assert len(left.collections) == 4 and len(right.collections) == 3  # the intervals of a model
    assert {"truncated 3", "IMP 70 %", "dense", "50 %", "98 %"} <= set(words(fig))
    assert {"512", "4096"} <= set(words(plot_doses.dose_response(responses, "n_train")))
    plt.close("all")


def test_what_did_not_learn_is_hollow_and_no_line_joins_it(responses):
    lost = (responses["measure"] == "test") & (responses["dose"] == 0.5)
    unsure = responses.assign(low=responses["low"].where(~lost | (responses["model"] != "imp-70"), 0.4))
    assert ("imp-70", 0.5) not in plot_doses.surely_learned(unsure) and ("imp-70", 0.7) in plot_doses.surely_learned(unsure)
    for ax in plot_doses.dose_response(unsure, "shortcut_rate").axes:
        (line,) = [line for line in ax.lines if np.isnan(line.get_ydata()).any()]
        assert np.isnan(line.get_ydata()).tolist() == [True, False, False, False] and line.get_label() == "IMP 70 %"
        assert sum(len(dot.get_xdata()) for dot in ax.lines if dot.get_markerfacecolor() == "white") == 1
    nothing = plot_doses.dose_response(responses.assign(low=responses["low"].where(~lost | (responses["model"] != "dense"), 0.4)),
                                       "shortcut_rate")
    hollow = [dot for dot in nothing.axes[1].lines if dot.get_markerfacecolor() == "white" and len(dot.get_xdata())]
    assert len(hollow) == 3  # without a dense model that learned no gap beyond it can be read
    plt.close("all")


def test_an_interval_of_what_did_not_learn_does_not_stretch_the_axis(responses):
    wide = responses.assign(low=responses["low"].where(responses["dose"] != 0.5, -0.5),
                            high=responses["high"].where(responses["dose"] != 0.5, 1.6), seeds=3)
    fig = plot_doses.dose_response(wide, "shortcut_rate")
    left, right = fig.axes
    assert 40 < left.get_ylim()[0] < 50 and left.get_ylim()[1] < 104 and right.get_ylim()[1] < 20
    assert any("intervals over 3 seeds" in text for text in words(fig))
    everywhere = plot_doses.dose_response(responses.assign(low=-0.5, high=1.6), "shortcut_rate").axes[0]
    assert -3 <= everywhere.get_ylim()[0] and everywhere.get_ylim()[1] <= 103
    plt.close("all")


def test_each_mend_stands_at_its_gain_with_its_interval_and_cost(mends):
    ax = plot_doses.mend_gains(mends).axes[0]
    points = [round(float(line.get_xdata()[0]), 6) for line in ax.lines if len(line.get_xdata()) == 1]
    assert points == [3.0, 9.0, 6.0, 5.0, -4.0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["5 rows", "20 rows", "IMP 70 %, 2x steps", "IMP 40 %", "+ RMC"]
    assert [t for t in words(ax.figure) if t in ("1", "2", "6")] == ["1", "1", "2", "1", "6"]
    assert [tuple(bar.get_segments()[0][:, 0].round(6)) for bar in ax.collections][-1] == (-6.0, -1.0)
    assert any("over the rows of one training" in text for text in words(ax.figure))
    assert any("over 3 seeds" in text for text in words(plot_doses.mend_gains(mends.assign(seeds=3))))
    shuffled = plot_doses.mend_gains(mends.iloc[::-1]).axes[0]
    assert [text.get_text() for text in shuffled.get_yticklabels()][:2] == ["20 rows", "5 rows"]
    plt.close("all")


def test_new_rows_make_a_line_a_base(mends):
    rows = mends[mends["kind"] == "rows"]
    fig = plot_doses.more_rows(pd.concat([rows, rows.assign(base="truncated-3")]))
    assert [len([line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] != 0]) for ax in fig.axes] == [2, 2]
    assert np.allclose(fig.axes[0].lines[0].get_ydata(), [6, 18]) and np.allclose(fig.axes[1].lines[0].get_ydata(), [3, 9])
    plt.close("all")


@pytest.mark.parametrize("draw", ["dose_response", "mend_gains", "more_rows"])
def test_texts_do_not_overlap_or_leave_the_figure_and_smoke_is_marked(responses, mends, draw):
    frame = {"dose_response": (responses, "shortcut_rate"), "mend_gains": (mends,), "more_rows": (mends[mends["kind"] == "rows"],)}[draw]
    fig = getattr(plot_doses, draw)(*frame, smoke=True)
    fig.canvas.draw()
    texts = [t for t in fig.findobj(plt.Text) if t.get_text().strip() and t.get_visible()]
    boxes = [t.get_window_extent() for t in texts]
    ticks = {t for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for t in axis.get_ticklabels(which="both")}
    shown = [(t, b) for t, b in zip(texts, boxes) if t not in ticks]
    assert any("smoke: not a result" in t.get_text() for t in texts)
    assert all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= fig.bbox.x1 + 1 and b.y1 <= fig.bbox.y1 + 1 for _, b in shown)
    assert not any(a.padded(-1.5).overlaps(b.padded(-1.5)) for (_, a), (_, b) in itertools.combinations(shown, 2))
    plt.close("all")


def test_a_frame_without_numbers_is_refused(responses, mends):
    with pytest.raises(StudyError, match="value"):
        plot_doses.dose_response(responses.assign(value=np.nan), "n_train")
    with pytest.raises(StudyError, match="no row"):
        plot_doses.mend_gains(mends.iloc[:0])
