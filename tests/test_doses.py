"""Dose and response, and what mends a compressed model: draws, costs and tables."""
import re

import numpy as np
import pandas as pd
import pytest

from lib import names, store
from lib.errors import StudyError
from lib.models import make
from lib.params.profile import load_profile
from lib.tasks import dataset, registry
from lib.trials import doses, mends

TASK = registry.get("micro_nli")


@pytest.fixture(scope="module")
def run(tiny_run):
    fields = {name: getattr(tiny_run, name) for name in ("encoder", "encoder_layers", "epochs", "batch_size", "learning_rate",
                                                         "dropout", "max_length", "dtype", "device", "threads")}
    profile = load_profile("smoke", ["doses.models=[truncated-1, imp-50, truncated-1 + rmc_one_run, truncated-1 + distil]",
                             "doses.run_levels=[0.2, 0.5, 0.8]", "doses.train_sizes=[48]",
                             "mends.bases=[truncated-1]", "mends.structures=[imp-50]", "mends.more_rows=[3]"])
    return {section: profile.run(section, "micro_nli", 0).model_copy(update=fields) for section in ("doses", "mends")}


@pytest.fixture(scope="module")
def made(run, micro):
    drawn = doses.draw(micro, TASK, 0, 64, 0.75)
    return drawn, doses.train(run["doses"], drawn, 1.5)


def test_the_profiles_own_draw_is_a_dose_of_both_axes(run, micro):
    plan = doses.of_run(run["doses"], micro)
    own = micro.loc[micro["split"] == "train", "is_shortcut"].mean()
    assert plan["axis"].tolist() == ["shortcut_rate"] * 2 + ["n_train"] * 2
    assert plan["shortcut_rate"].tolist() == pytest.approx([0.8, own, own, own]) and plan["n_train"].tolist() == [64, 64, 48, 64]


@pytest.mark.parametrize("rate", [0.5, 0.75, 0.95])
def test_a_draw_changes_the_train_rows_alone(micro, rate):
    drawn = doses.draw(micro, TASK, 0, 40, rate)
    train = drawn[drawn["split"] == "train"]
    assert len(train) == 40 and (~train["is_shortcut"].astype(bool)).sum() == round((1 - rate) * 40)
    for split in ("test", "ood"):
        assert set(drawn.loc[drawn["split"] == split, "guid"]) == set(micro.loc[micro["split"] == split, "guid"])
    assert set(drawn["split"]) == {"train", "test", "ood"}


@pytest.mark.parametrize("n", [16, 48, 64, 200])
def test_the_steps_stay_whatever_the_rows(run, micro, n):
    epochs = doses.steps_kept(run["doses"], micro, n)
    assert make.steps_of(epochs, n, run["doses"].batch_size) == make.steps_of(run["doses"].epochs, 64, run["doses"].batch_size)


def test_every_model_of_a_dose_is_made_on_its_rows(made):
    drawn, found = made
    assert set(found) == {"dense", "truncated-1", "imp-50", "truncated-1 + rmc_one_run", "truncated-1 + distil"}
    assert {m.record["data"] for m in found.values()} == {dataset.fingerprint(drawn)}
    assert found["truncated-1 + rmc_one_run"].record["teacher"] == found["dense"].record["key"]
    assert found["truncated-1 + rmc_one_run"].record["strength"] and len(found["imp-50"].record["checkpoint_sparsity"]) == 2


def test_a_response_is_read_against_the_dense_model_of_its_dose(made):
    drawn, found = made
    rows = doses.judged(found, drawn, TASK)
    table = doses.response(rows, TASK, seed=0, n_boot=100).set_index(["model", "measure"])["value"]
    gap = {name: table[name, "test"] - table[name, "ood"] for name in found}
    assert table["imp-50", "gap_difference"] == pytest.approx(gap["imp-50"] - gap["dense"])
    assert ("dense", "gap_difference") not in table.index and ("dense", "fails_only") in table.index
    lost = doses.first_to_go(rows, drawn, TASK, seed=0)
    assert lost["lost"].is_monotonic_decreasing and "dense" not in set(lost["model"])
    one = lost[(lost["model"] == "imp-50") & (lost["subcase"] == "swap")].iloc[0]
    right = {name: rows[name].query("split == 'ood' and subcase == 'swap'")["correct"].mean() for name in ("dense", "imp-50")}
    assert one["lost"] == pytest.approx(100 * (right["dense"] - right["imp-50"]))
    assert one["count"] == (drawn.query("split == 'train' and subcase == 'swap'")["is_shortcut"] == False).sum()  # noqa: E712


def test_the_slope_is_in_points_for_ten_points():
    table = pd.DataFrame({"model": "imp-70", "axis": "shortcut_rate", "measure": "gap_difference",
                          "dose": [0.5, 0.7, 0.9], "value": [0.01, 0.05, 0.09]})
    other = table.assign(axis="n_train", value=[9.0, 0.0, -9.0])
    slopes = doses.slopes(pd.concat([table, other]))
    assert slopes[["model", "n"]].values.tolist() == [["imp-70", 3]] and slopes["slope"].iloc[0] == pytest.approx(2.0)
    assert doses.slopes(table.head(1)).empty


def test_what_is_forgotten_is_the_largest_fall():
    rows = pd.DataFrame({"split": ["ood"] * 4 + ["unseen"] * 2, "subcase": ["a", "a", "b", "b", "c", "c"], "correct": True})
    worse = rows.assign(correct=[True, False, False, False, False, False])
    assert mends.forgotten(rows, worse) == "b"


def test_more_rows_are_new_failing_rows_of_that_subcase(micro):
    wider = mends.with_more(micro, TASK, "passive", 5, seed=0)
    new = wider[~wider["guid"].isin(micro["guid"])]
    assert len(new) == 5 and set(new["split"]) == {"train"} and set(new["subcase"]) == {"passive"}
    assert not new["is_shortcut"].astype(bool).any() and wider["guid"].is_unique
    again = mends.with_more(micro, TASK, "passive", 5, seed=0)
    assert again.equals(wider) and not mends.with_more(micro, TASK, "passive", 5, seed=1).equals(wider)
    fewer = mends.with_more(micro, TASK, "passive", 2, seed=0)
    assert set(fewer["guid"]) < set(wider["guid"]), "two rows are the first two of five"


def test_models_of_doses_and_mends_keep_no_weights_where_the_profile_keeps_none(run, micro):
    lean = {section: one.model_copy(update={"keep_weights": False, "profile": "lean"}) for section, one in run.items()}
    trained = doses.train(lean["doses"].model_copy(update={"models": ["truncated-1"]}), micro, 0.3)
    more = mends.more_rows(lean["mends"], micro, TASK, "truncated-1", "passive", trained["dense"])
    assert len(trained) == 2 and not any(model.has_weights for model in [*trained.values(), *more.values()])


def test_mends_are_priced_and_read_against_the_base(run, micro, made):
    dense = make.model(run["mends"], micro, "dense", make.Extras(predict_train=True))
    base = make.model(run["mends"], micro, "truncated-1", make.Extras())
    pruned = [make.model(run["mends"], micro, name, make.Extras()) for name in ("imp-20", "imp-50")]
    more = mends.more_rows(run["mends"], micro, TASK, "truncated-1", "passive", dense)
    assert more[3].record["steps"] == base.record["steps"] and more[3].record["n_train"] == 67
    rows = doses.judged({"base": base, "more": more[3]}, micro, TASK)
    table = mends.gains("truncated-1", {"3 rows": ("rows", 3, more[3], rows["more"])}, rows["base"], "passive", dense, pruned,
                        TASK, 0, 100)
    (line,) = table.itertuples()
    right = {name: part.query("split == 'ood'")["correct"].mean() for name, part in rows.items()}
    assert line.value == pytest.approx(right["more"] - right["base"]) and line.low <= line.value <= line.high
    assert line.cost == pytest.approx(base.record["flops_per_example"] / dense.record["flops_per_example"])
    assert line.rows == 3 and line.forgotten == "passive"


@pytest.mark.parametrize("name, extra", [("imp-50", 0), ("imp-50 + rmc_one_run", 1), ("imp-50 + rmc", 3), ("imp-50 + jtt", 0),
                                         ("imp-50 + smooth_matched", 3), ("imp-50-2x", 1)])
def test_a_loss_that_must_know_the_difficulty_pays_for_it(tmp_path, name, extra):
    def model(name, steps=10):
        folder = tmp_path / names.parse(name).loss_name / name.replace(" ", "_")
        store.write_json(folder / "record.json", {"model": name, "steps": steps, "batch_size": 4, "flops_per_example": 100})
        return store.Model(folder)
    pruned = [model(f"imp-{level}") for level in (20, 40, 60)]
    found = mends.cost(model(name, 20 if name.endswith("2x") else 10), model("dense"), pruned)
    assert found == pytest.approx(1 + extra)


def test_mends_of_a_base_are_told_from_others():
    have = dict.fromkeys(["imp-70", "imp-70-2x", "imp-40", "imp-70 + rmc", "imp-70 + distil + ptq8", "truncated-3",
                          "truncated-3 + rmc", "imp-70-after"])
    found = mends.others("imp-70", ["imp-40", "truncated-4", "imp-70"], have)
    assert {mend: kind for mend, (kind, _) in found.items()} == {
        "imp-70-2x": "steps", "imp-40": "weights", "imp-70 + rmc": "loss"}


@pytest.mark.parametrize("override, says", [
    ("doses.models=[truncated-2 + rmc_one_run]", "pruning run"), ("doses.models=[heads-20]", "heads-20"),
    ("doses.shortcut_rates=[0.3]", "shortcut_rates"), ("mends.bases=[imp-70 + rmc]", "without a loss"),
    ("grid.dose_seeds=[7]", "grid.seeds"), ("grid.dose_tasks=[mnli]", "dose_tasks"),
    ("grid.mend_seeds=[7]", "grid.seeds"), ("grid.mend_tasks=[mnli]", "mend_tasks"),
    ("pruning.controls=[imp-70]", "-after"), ("pruning.controls=[truncated-1-after]", "truncated-*-2x"),
    ("mitigation.losses=[rmc_onerun]", "did you mean 'rmc_one_run'"), ("mitigation.losses=[rmc-200]", "rmc-200")])
def test_a_bad_parameter_is_named(override, says):
    with pytest.raises(StudyError, match=re.escape(says)) as error:
        load_profile("smoke", [override])
    assert "\n" not in str(error.value)


def test_the_costs_of_a_run_are_finite(made):
    _, found = made
    assert all(np.isfinite(mends.cost(model, found["dense"], [found["imp-50"]])) for model in found.values())


def tried(seed: int, shift: float) -> pd.DataFrame:
    rows = [("1 more row", "rows", 1), ("5 more rows", "rows", 5), ("imp-70-2x", "steps", 0), ("imp-60", "weights", 0),
            ("imp-40", "weights", 0), ("imp-70 + distil", "loss", 0), ("imp-70 + focal", "loss", 0), ("imp-70 + rmc", "loss", 0),
            ("imp-70 + rmc-10", "loss", 0), ("imp-70 + rmc_one_run", "loss", 0)]
    table = pd.DataFrame(rows, columns=["mend", "kind", "rows"]).assign(base="imp-70", cost=1.0, seed=seed, forgotten=str(seed))
    ends = {"value": shift, "low": shift - 0.1, "high": shift + 0.1}
    return table.assign(**ends, **{f"forgotten_{end}": 2 * value for end, value in ends.items()})


def test_few_mends_are_one_of_a_kind_and_three_losses():
    told = ["5 more rows", "imp-70-2x", "imp-60", "imp-70 + distil", "imp-70 + rmc", "imp-70 + rmc_one_run"]
    assert mends.few(tried(0, 0.1))["mend"].tolist() == told


def test_mends_of_several_seeds_are_put_together_with_their_own_forgotten_subcase():
    table = mends.over_seeds(pd.concat([tried(0, 0.1), tried(1, 0.3)], ignore_index=True))
    assert len(table) == 10 and (table["seeds"] == 2).all() and (table["cost"] == 1).all()
    assert np.allclose(table["value"], 0.2) and np.allclose(table["forgotten_value"], 0.4)
    assert (table["low"] < 0.1).all() and (table["forgotten_high"] > 0.6).all()
    assert mends.few(table)["mend"].tolist() == mends.few(tried(0, 0.1))["mend"].tolist()
