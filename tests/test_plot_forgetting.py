"""The figures of populations and of foretelling: what they draw, and that they are named and marked as the others."""

import itertools

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.analysis import forecast
from lib.errors import StudyError
from lib.figures import plot_forgetting
from lib.names import OTHER_DENSE

MODELS = ["imp-40", "imp-70", "imp-85", "truncated-3", "truncated-3 + distil", "truncated-3 + rmc_shuffled + ptq8"]
CASES = {"": 0, "swap": 78, "relative": 47, "object_relative": 8, "synonym_passive": 5}


def pies() -> pd.DataFrame:
    rows = [(m, s, measure, 0.02 + 0.02 * k * (measure == "pies") + 0.1 * (s == "ood")) for k, m in enumerate(MODELS)
            for s in ("test", "ood") for measure in ("pies", "null")]
    frame = pd.DataFrame(rows, columns=["model", "split", "measure", "value"])
    return frame.assign(low=frame["value"] - 0.01, high=frame["value"] + 0.01)


def cases() -> pd.DataFrame:
    rows = [("imp-70", s, c, measure, 0.05 * k) for k, c in enumerate(CASES) for s in ("test", "ood") if c or s == "test"
            for measure in ("pies", "null", "excess")]
    frame = pd.DataFrame(rows, columns=["model", "split", "subcase", "measure", "value"])
    return frame.assign(low=frame["value"] - 0.01, high=frame["value"] + 0.04)


def foretold() -> pd.DataFrame:
    models = [*MODELS[:3], forecast.ALL, forecast.EXCESS, OTHER_DENSE]
    names = [*plot_forgetting.PREDICTORS, forecast.BEYOND]
    rows = [(m, s, p, 0.5 + 0.03 * k) for m in models for s in ("test", "ood") for k, p in enumerate(names)]
    frame = pd.DataFrame(rows, columns=["model", "split", "predictor", "value"])
    return frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.05, seeds=5)


def kept() -> pd.DataFrame:
    rows = [(task, m, measure, 0.9 - 0.02 * k - 0.1 * (measure == "ood")) for task in ("micro_nli", "micro_facts", "micro_paraphrase")
            for k, m in enumerate(["dense", *MODELS]) for measure in ("test", "ood", "loyalty_test")]
    frame = pd.DataFrame(rows, columns=["task", "model", "measure", "value"])
    return frame.assign(low=frame["value"] - 0.02, high=frame["value"] + 0.3, seeds=5)


DRAW = {
    "kept_figure": lambda **k: plot_forgetting.kept_figure(kept(), **k),
    "pie_figure": lambda **k: plot_forgetting.pie_figure(pies(), **k),
    "pie_subcases": lambda **k: plot_forgetting.pie_subcases(cases(), "imp-70", CASES, **k),
    "foretold_figure": lambda **k: plot_forgetting.foretold_figure(foretold(), **k),
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def dots(ax) -> list[float]:
    found = [line.get_xdata()[0] for line in ax.lines if line.get_marker() not in ("", "None")]
    return [x for x in found if not np.isnan(x)]


@pytest.mark.parametrize("name", DRAW)
def test_figures_are_readable_say_what_is_better_and_are_marked_when_smoke(name):
    for smoke in (False, True):
        fig = DRAW[name](smoke=smoke)
        fig.draw_without_rendering()
        texts = [t for t in fig.findobj(plt.Text) if t.get_text() and t.get_visible()]
        assert ("smoke: not a result" in [t.get_text() for t in texts]) == smoke
        assert all(t.get_fontsize() >= 9 for t in texts) and fig.get_figwidth() == 6
        ticks = [tick for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_major_ticks()]
        hidden = {label for tick in ticks for label in (tick.label1, tick.label2)}
        assert all("better" in ax.get_xlabel() for ax in fig.axes)
        boxes = {t: t.get_window_extent() for t in texts if t not in hidden}
        for text, box in boxes.items():
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1, text
        for (a, box), (b, other) in itertools.combinations(boxes.items(), 2):
            assert not box.padded(-1.5).overlaps(other.padded(-1.5)), (a, b)


def test_pies_stand_over_the_band_of_the_null():
    test, ood = DRAW["pie_figure"]().axes
    assert np.allclose(dots(test), 2 + 2 * np.arange(6)) and np.allclose(dots(ood), 12 + 2 * np.arange(6))
    assert [t.get_text() for t in test.get_yticklabels()][:2] == ["IMP 40 %", "IMP 70 %"]
    (band,) = [p for p in test.patches if p.get_width() > 0]
    assert np.allclose([band.get_x(), band.get_width()], [1, 2])
    spread = pd.DataFrame({"split": ["test", "ood"], "low": 0.0, "high": [0.05, 0.1], "pairs": 126})
    (wider,) = [p for p in plot_forgetting.pie_figure(pies(), spread).axes[0].patches if p.get_width() > 0]
    assert np.allclose([wider.get_x(), wider.get_width()], [0, 5])


def test_subcases_stand_by_their_train_rows_rarest_last():
    ax = DRAW["pie_subcases"]().axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "ordinary", "swap (78 rows)", "relative (47 rows)", "object relative (8 rows)", "synonym passive (5 rows)"]
    assert sorted(dots(ax)) == pytest.approx(sorted([0, 5, 10, 15, 20] * 2))
    with pytest.raises(StudyError, match="imp-20"):
        plot_forgetting.pie_subcases(cases(), "imp-20")


def test_differences_are_no_aucs_and_are_not_drawn():
    ax = DRAW["foretold_figure"]().axes[0]
    assert len(dots(ax)) == 5 * len(plot_forgetting.PREDICTORS)
    with pytest.raises(StudyError, match="interval"):
        plot_forgetting.foretold_figure(foretold().assign(low=np.nan))


def test_what_is_kept_stands_beside_the_dense_models_two_scores_and_leaves_mitigations_out():
    first, *_ = DRAW["kept_figure"]().axes
    names = [t.get_text() for t in first.get_yticklabels()]
    assert names == ["dense", "IMP 40 %", "IMP 70 %", "IMP 85 %", "truncated 3", "truncated 3 + distil"]
    assert sorted(dots(first)) == pytest.approx(sorted([*(90 - 2.0 * k for k in range(6)), *(80 - 2.0 * k for k in range(6))]))
    lines = [line.get_xdata()[0] for line in first.lines if len(line.get_xdata()) == 2]
    assert lines == pytest.approx([90, 80])
