"""The answer as figures: what is shown, what is hollow, which colour a word has."""
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lib.analysis.forecast import ALL, EXCESS
from lib.claims import gates, ledger, rule
from lib.errors import StudyError
from lib.figures import plot_answer
from lib.names import OTHER_DENSE

MODELS = ["imp-20", "imp-85", "truncated-3", "truncated-3 + distil", "dense + ptq8", "dense-0.25x", "scratch-3", "imp-70-2x"]


def losses(models=MODELS, task="micro_nli", gate="", learned=True):
    n = np.arange(len(models), dtype=float)
    return pd.DataFrame({"task": task, "gate": gate, "model": models, "id_loss": n, "id_loss_low": n - 1, "id_loss_high": n + 1,
                         "ood_loss": 2 * n, "ood_loss_low": n, "ood_loss_high": 3 * n, "seeds": 5, "learned": learned})


def test_a_plain_compression_is_one_step_and_no_control():
    assert plot_answer.plain(["dense", *MODELS]) == ["imp-20", "imp-85", "truncated-3", "dense + ptq8"]
    assert plot_answer.plain(["imp-70 + ptq8", "theseus-3-constant", "truncated-3-alternate", "dense-2x", "dense-qat"]) == []


def test_the_answer_has_a_panel_a_task_and_says_where_nothing_was_to_lose():
    table = pd.concat([losses(), losses(task="mnli", gate="no skill to lose (indication)")])
    fig = plot_answer.answer(table)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["micro_nli", "mnli\nno skill to lose"]
    assert any("fewer steps" in text.get_text() for text in fig.texts)
    without = plot_answer.answer(losses(["imp-20"]))
    assert not any("fewer steps" in text.get_text() for text in without.texts)


def test_a_model_that_did_not_learn_is_hollow():
    table = losses(["imp-20", "imp-85"]).assign(learned=[True, False])
    faces = [to_hex(line.get_markerfacecolor()) for line in plot_answer.answer(table).axes[0].lines if line.get_markersize() == 6]
    assert faces[0] != "#ffffff" and faces[1] == "#ffffff"


def test_more_models_than_fit_are_left_to_the_table():
    fig = plot_answer.answer(losses([f"imp-{n}" for n in range(10, 30)]))
    assert any("14 more models" in text.get_text() for text in fig.texts) and len(fig.legends[0].get_texts()) == plot_answer.MOST
    with pytest.raises(StudyError, match="no row"):
        plot_answer.answer(losses(["scratch-3"]))


def test_every_word_that_a_ledger_can_hold_has_a_kind():
    gated = [gates.NO_SKILL, gates.NOT_LEARNED, gates.CEILING, gates.NOT_KEPT, f"{gates.NO_SKILL} ({rule.INDICATION})"]
    assert {plot_answer.kind_of(word) for word in gated} == {"a gate says no"}
    every = {rule.word(low, high, direction, 2.0, k) for direction in rule.DIRECTIONS for k in (1, 5)
             for low in (np.nan, -5, -1, 0.5, 2.5) for high in (-3, -0.5, 1, 5) if np.isnan(low) or low < high}
    assert {"holds", "reversed", "fails", "undefined"} <= every
    assert "a gate says no" not in {plot_answer.kind_of(word) for word in every}
    assert plot_answer.kind_of(ledger.NOT_MEASURED) == "not measured"


def test_the_ledgers_picture_has_a_field_for_each_claim_and_task_and_frames_the_gates():
    table = pd.DataFrame({"id": ["A1", "A1", "A2", "T1"], "task": ["mnli", "fever", "mnli", "mnli"],
                          "word": ["holds", "no skill to lose", "open", "not measured"], "pilot": ["pilot", "", "pilot", ""]})
    fig = plot_answer.words_by_task(table)
    fields = [patch for ax in fig.axes for patch in ax.patches]
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["mnli (pilot)", "fever"]
    assert len(fields) == 4 and [patch.get_linewidth() > 1 for patch in fields] == [False, True, False, False]


def by_time(models, task="micro_nli"):
    rows = [(task, split, at, model, at * share, at * share - 0.05, at * share + 0.05, 5, 100) for split in ("test", "ood")
            for at in (0.25, 1.0) for model, share in models.items()]
    return pd.DataFrame(rows, columns=["task", "split", "learned_at", "model", "value", "low", "high", "seeds", "n"])


def test_each_compression_has_a_line_over_the_null_in_both_panels_and_a_row_a_task():
    shares = {"imp-70": 0.5, OTHER_DENSE: 0.25, ALL: 0.5, EXCESS: 0.25}
    fig = plot_answer.lost_by_time(pd.concat([by_time(shares), by_time(shares, "fever")]))
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["micro_nli: ID", "micro_nli: OOD", "fever: ID", "fever: OOD"]
    for ax in fig.axes:
        assert [line.get_ydata().tolist() for line in ax.lines] == [[6.25, 25.0], [12.5, 50.0]]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["IMP 70 %", "another dense model"]


def test_of_many_compressions_those_that_lose_most_are_drawn():
    many = {f"imp-{n}": n / 100 for n in range(10, 90, 10)} | {OTHER_DENSE: 0.9}
    names = [text.get_text() for text in plot_answer.lost_by_time(by_time(many)).legends[0].get_texts()]
    assert len(names) == plot_answer.LINES + 1 and "IMP 10 %" not in names and "IMP 80 %" in names
