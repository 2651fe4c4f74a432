"""What RMC is read against: rivals of its difficulty and their price, its settings, alpha, and its controls over seeds."""

import itertools

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from lib import store
from lib.analysis import difficulty, measures, rmc, shortcuts, tables
from lib.errors import StudyError
from lib.figures import plot_rmc
from lib.params.profile import load_profile
from lib.tasks import registry
from lib.trials import mitigation

TASK = registry.get("micro_nli")
SIZES = {"train": 40, "dev": 40, "test": 20, "ood": 40}


@pytest.fixture(scope="module")
def items():
    """Labels alternate; the shortcut fails on the last quarter of each split; ten templates of four rows or fewer."""
    rows = [{"guid": f"{split}{i}", "split": split, "text_a": "a", "text_b": "b", "label": i % 2, "heuristic": "h",
             "subcase": "s" if split == "ood" else "", "is_shortcut": i < 0.75 * n, "group": f"{split}-{i % 10}"}
            for split, n in SIZES.items() for i in range(n)]
    return pd.DataFrame(rows).astype({"label": "int64", "is_shortcut": "boolean"})


def table_of(items, margin):
    """Predictions whose logit of the right label leads by `margin` [rows]; below 0 the row is wrong."""
    lead = np.broadcast_to(margin, len(items))
    return store.predictions_table(items, np.eye(2)[items["label"]] * lead[:, None])


def fake(folder, name, table, along=None, **record):
    folder.mkdir(parents=True)
    store.write_predictions(folder / "predictions.parquet", table)
    if along is not None:
        parts = [part.assign(step=step) for step, part in along.items()]
        store.write_predictions(folder / "checkpoints.parquet", pd.concat(parts))
    store.write_json(folder / "record.json", {"model": name, "steps": 20, "sparsity_target": 0.0} | record)
    return store.Model(folder)


def rows_of(items, **wrong):
    """Judged rows of a model that has the first so many rows of each named split wrong."""
    place = items.groupby("split").cumcount()
    return measures.rows(table_of(items, np.where(place < items["split"].map(wrong).fillna(0), -2.0, 2.0)), items, TASK)


# --- rivals of the difficulty, and their price

@pytest.fixture(scope="module")
def studied(tmp_path_factory, items):
    """Two levels and two dense seeds; both part ways on the rows that break the shortcut, the seeds on no others."""
    folder, fails = tmp_path_factory.mktemp("rivals"), ~items["is_shortcut"].to_numpy(bool)
    jitter = np.linspace(0, 0.3, len(items))
    pruned = {f"imp-{n}": fake(folder / f"imp{n}", f"imp-{n}", table_of(items, np.where(fails, sign * 2, 2) + sign * jitter),
                               steps=steps) for n, sign, steps in ((40, 1, 20), (85, -1, 30))}
    train = items[items["split"] == "train"]
    along = {step: table_of(train, np.where(~train["is_shortcut"].to_numpy(bool), slow, 3.0))
             for step, slow in ((3, -3.0), (5, -1.0), (10, 3.0))}
    dense = [fake(folder / "d0", "dense", table_of(items, 3.0), along),
             fake(folder / "d1", "dense", table_of(items, np.where(fails, 1.0, 3.0)))]
    return pruned, dense


@pytest.fixture
def scores(studied, items):
    pruned, dense = studied
    v = difficulty.variance(shortcuts.level_losses(pruned, items, "train"))
    biased = table_of(items, np.where(items["is_shortcut"].to_numpy(bool), 2.0, -2.0))
    return shortcuts.score_table(items, dense[0], biased, v, v[::-1])


def test_only_plain_pruned_models_are_levels(studied):
    pruned, dense = studied
    others = dict.fromkeys(["imp-70-2x", "imp-70-after", "imp-70 + rmc", "imp-70 + ptq8", "truncated-3"], dense[0])
    assert list(shortcuts.by_sparsity(others | {"imp-40": pruned["imp-40"]})) == ["imp-40"]


def test_el2n_is_taken_from_the_first_quarter_of_the_dense_run(scores, items, studied):
    def length(margin):  # of (p - 1, 1 - p)
        return np.sqrt(2) / (1 + np.exp(margin))
    fails = ~items.loc[items["split"] == "train", "is_shortcut"].to_numpy(bool)
    assert np.allclose(scores["el2n"], np.where(fails, (length(-3) + length(-1)) / 2, length(3)), atol=1e-6)
    assert shortcuts.early(studied[1][0], items).shape == (2, SIZES["train"], 2)


def test_where_nothing_was_kept_so_early_the_earliest_checkpoint_stands_in(tmp_path, items):
    train = items[items["split"] == "train"]
    late = fake(tmp_path / "late", "dense", table_of(items, 1.0), {15: table_of(train, 2.0), 10: table_of(train, 1.0)})
    got = shortcuts.early(late, items)
    assert len(got) == 1 and np.allclose(got.max(axis=-1), 1.0)


def test_seed_variance_is_that_of_the_losses_of_the_dense_models_on_dev(studied, items):
    pruned, dense = studied
    table = shortcuts.on_dev(pruned, dense, items)
    fails = ~items.loc[items["split"] == "dev", "is_shortcut"].to_numpy(bool)
    apart = np.log1p(np.exp(-1)) - np.log1p(np.exp(-3))
    assert np.allclose(table["v_seeds"], np.where(fails, apart**2 / 4, 0), atol=1e-6)
    assert table["guid"].tolist() == items.loc[items["split"] == "dev", "guid"].tolist()
    assert shortcuts.on_dev(pruned, dense[:1], items)["v_seeds"].isna().all()


def test_rivals_are_set_against_the_levels_and_the_truth_on_their_own_rows(scores, studied, items):
    table = shortcuts.rivals(scores, shortcuts.on_dev(*studied, items), items, seed=0, n_boot=50)
    by = table.set_index(["score", "on", "measure"]).sort_index()
    assert ("v_levels", "train", "rank") not in by.index and by.loc[("v_levels", "train", "auc"), "value"] == 1
    for name in ("el2n", "shortcut_confidence"):
        assert by.loc[(name, "train", "auc"), "value"] == 1
    # v_one_run holds the same numbers in the reverse order: the truth's rows come last there
    assert by.loc[("v_one_run", "train", "rank"), "value"] < 0
    want = difficulty.threshold_agreement(scores["v_one_run"], np.arange(40) >= 30)["auc"]
    one_run = by.loc[("v_one_run", "train", "auc")]
    assert one_run["value"] == pytest.approx(want) and one_run["low"] <= want <= one_run["high"] and one_run["n"] == 40
    dev = table[table["on"] == "dev"]
    assert dev["score"].unique().tolist() == ["v_levels", "v_seeds"]
    assert by.loc[("v_seeds", "dev", "auc"), "value"] == 1 and 0 < by.loc[("v_seeds", "dev", "rank"), "value"] < 1


def test_a_missing_seed_and_an_unknown_truth_are_told_apart(scores, studied, items):
    pruned, dense = studied
    alone = shortcuts.rivals(scores, shortcuts.on_dev(pruned, dense[:1], items), items, seed=0, n_boot=20)
    assert alone[alone["score"] == "v_seeds"]["value"].isna().tolist() == [True, True]
    real = items.assign(is_shortcut=pd.array([pd.NA] * len(items), dtype="boolean"))
    table = shortcuts.rivals(scores, shortcuts.on_dev(pruned, dense, items), real, seed=0, n_boot=20)
    assert set(table["measure"]) == {"rank"} and table["value"].notna().all()


def test_the_interval_of_an_auc_knows_templates():
    """400 rows of forty templates, each template all hard or all easy: as good as forty rows."""
    rng = np.random.default_rng(0)
    hard = np.repeat(np.arange(40) % 2 == 0, 10)
    score = hard + np.repeat(rng.normal(0, 1, 40), 10) + rng.normal(0, 0.01, 400)
    rows = pd.DataFrame({"guid": np.arange(400).astype(str), "split": "train", "subcase": "", "group": np.arange(400) // 10})
    together = difficulty.auc(score, hard, rows, n_boot=300)
    apart = difficulty.auc(score, hard, rows.assign(group=""), n_boot=300)
    assert together["value"] == apart["value"] == pytest.approx(difficulty.threshold_agreement(score, hard)["auc"])
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])
    assert np.isnan(difficulty.auc(score, np.ones(400, bool), rows)["value"])
    assert difficulty.auc(np.zeros(400), hard, rows, n_boot=20)["low"] == 0.5


def test_costs_count_the_runs_that_are_made_for_a_score_alone(studied):
    pruned, dense = studied
    table = shortcuts.prices(dense, pruned)
    assert table["steps"].to_dict() == {"v_levels": 50, "v_one_run": 30, "variability": 0, "confidence": 0,
                                        "shortcut_confidence": 0, "el2n": 0, "v_seeds": 20}
    assert table.loc["v_levels", "dense_runs"] == 2.5 and table.loc["v_seeds", "note"] == "dense runs of 2 seeds"
    alone = shortcuts.prices(dense[:1], pruned).loc["v_seeds"]
    assert np.isnan(alone["steps"]) and alone["note"] == "one dense seed: not available"


# --- RMC's settings

@pytest.fixture
def strength_of(items, scores, studied):
    run = load_profile("smoke").run("mitigation", "micro_nli", 0)
    return lambda loss, **changed: mitigation.extras(loss, run.model_copy(update=changed), items, studied[1][0], None,
                                                     scores)


def test_rmc_takes_its_difficulty_or_its_alpha_from_its_name(strength_of, scores):
    assert np.array_equal(strength_of("rmc_one_run").strength, difficulty.strength(scores["v_one_run"].to_numpy(), 0.3))
    for name, alpha in (("rmc-10", 0.1), ("rmc-50", 0.5), ("rmc-100", 1.0)):
        assert np.array_equal(strength_of(name).strength, difficulty.strength(scores["v_levels"].to_numpy(), alpha))
    by_one_run = strength_of("rmc-10", difficulty="one_run").strength
    assert np.array_equal(by_one_run, difficulty.strength(scores["v_one_run"].to_numpy(), 0.1))
    assert strength_of("rmc-10").teacher.name == "dense" and strength_of("rmc-10").kd_weight == 0.9


def test_a_setting_changes_no_plain_loss(strength_of):
    assert strength_of("rmc-30").strength.tobytes() == strength_of("rmc").strength.tobytes()
    d = strength_of("rmc").strength
    assert strength_of("smooth_matched").strength == float(np.mean(d))
    assert sorted(strength_of("rmc_shuffled").strength) == sorted(d)


def test_one_run_is_paired_with_rmc():
    names = ["imp-70 + rmc", "imp-70 + rmc_one_run", "imp-70 + rmc-10", "imp-70 + distil"]
    assert rmc.control_pairs(names) == [("imp-70 + rmc", "imp-70 + distil"), ("imp-70 + rmc", "imp-70 + rmc_one_run")]


def test_one_run_serves_where_ranks_agree_and_the_difference_is_shown_to_be_small(items):
    rows = {"imp-70 + rmc": rows_of(items), "imp-70 + rmc_one_run": rows_of(items, ood=4),
            "truncated-3 + rmc": rows_of(items)}
    table = rmc.one_run(rows, TASK, seed=0, n_boot=50)
    assert table["base"].tolist() == ["imp-70"] and table["value"].item() == pytest.approx(-0.1)
    assert table["low"].item() < -0.1 < table["high"].item()
    close = pd.DataFrame({"low": [-0.009], "high": [0.01]})
    assert rmc.one_run_serves(0.8, close)
    assert not rmc.one_run_serves(0.79, close) and not rmc.one_run_serves(0.9, close.iloc[:0])
    assert not rmc.one_run_serves(0.9, close.assign(high=0.011))
    assert not rmc.one_run_serves(0.9, close.assign(low=np.nan))


# --- alpha

@pytest.fixture(scope="module")
def alphas(items):
    """Dev rows 0-9 are the hard ones by variance; alpha 0.1 is best there, 0.3 OOD, 0.5 has the smallest gap."""
    lost = {0.1: range(0, 2), 0.3: range(0, 4), 0.5: [*range(0, 6), *range(10, 28)]}
    ood, place = {0.1: 8, 0.3: 2, 0.5: 10}, items.groupby("split").cumcount()
    rows = {}
    for alpha, wrong in lost.items():
        bad = (items["split"] == "dev") & place.isin(wrong) | (items["split"] == "ood") & (place < ood[alpha])
        rows[alpha] = measures.rows(table_of(items, np.where(bad, -2.0, 2.0)), items, TASK)
    v = pd.Series(np.where(np.arange(40) < 10, 1.0, 0.1), index=[f"dev{i}" for i in range(40)])
    return rows, v.sample(frac=1, random_state=0)


def test_alpha_is_chosen_on_the_hard_part_of_dev_and_set_against_the_oracle(alphas):
    rows, v = alphas
    table = rmc.choose_alpha(rows, v, TASK, threshold=0.5).set_index("alpha")
    assert np.allclose(table["dev_hard"], [0.8, 0.6, 0.4]) and np.allclose(table["dev_easy"], [1, 1, 0.4])
    assert np.allclose(table["dev"], [0.95, 0.9, 0.4]) and np.allclose(table["gap"], [0.2, 0.4, 0])
    assert np.allclose(table["ood"], [0.8, 0.95, 0.75])
    for name in ("dev", "dev_hard", "ood"):
        assert (table[f"{name}_low"] <= table[name]).all() and (table[f"{name}_high"] >= table[name]).all()
    assert table.loc[0.1, "ood_low"] < 0.8 < table.loc[0.1, "ood_high"]
    assert [table.index[table[rule]].tolist() for rule in ("by_hard", "by_gap", "oracle")] == [[0.1], [0.5], [0.3]]
    found = rmc.regret(rows, table.reset_index(), TASK, seed=0, n_boot=50).set_index("rule")
    assert np.allclose(found["value"], [0.15, 0.2]) and (found["oracle"] == 0.3).all()
    assert found["alpha"].tolist() == [0.1, 0.5] and (found["low"] < found["value"]).all()


def test_the_oracle_regrets_nothing(alphas):
    rows, v = alphas
    only = {alpha: rows[0.3] for alpha in (0.1, 0.3)}
    table = rmc.choose_alpha(only, v, TASK, threshold=0.5)
    assert table[["by_hard", "by_gap", "oracle"]].to_numpy().tolist() == [[False] * 3, [True] * 3]  # a tie: the larger alpha
    assert rmc.regret(only, table, TASK, seed=0, n_boot=20)[["value", "low", "high"]].eq(0).all(axis=None)


def test_dev_is_split_at_the_median_unless_told_and_must_split(alphas):
    rows, v = alphas
    halves = pd.Series(np.arange(40.0), index=[f"dev{i}" for i in range(40)])
    table = rmc.choose_alpha(rows, halves, TASK).set_index("alpha")
    assert table.loc[0.5, "dev_hard"] == 12 / 20 and table.loc[0.1, "dev_hard"] == 1
    with pytest.raises(StudyError, match="no dev row is harder"):
        rmc.choose_alpha(rows, v, TASK, threshold=2.0)


def test_models_are_grouped_by_their_alpha():
    names = ["imp-70", "imp-70 + rmc-50", "imp-70 + rmc", "imp-70 + rmc_one_run", "imp-70 + rmc_shuffled",
             "imp-70-2x + rmc-10", "truncated-3 + rmc", "imp-70 + rmc-10 + ptq8"]
    found = rmc.by_alpha({name: name for name in names}, 0.3)
    assert found == {"imp-70": {0.3: "imp-70 + rmc", 0.5: "imp-70 + rmc-50"}} and list(found["imp-70"]) == [0.3, 0.5]


def test_every_base_gets_its_choice_and_its_regret(alphas):
    rows, v = alphas
    models = {"imp-70 + rmc": rows[0.3], "imp-70 + rmc-10": rows[0.1], "truncated-3 + rmc": rows[0.3]}
    choices, regrets = rmc.over_alpha(models, 0.3, v, TASK, seed=0, n_boot=20)
    assert choices["base"].eq("imp-70").all() and choices["alpha"].tolist() == [0.1, 0.3]
    assert regrets["rule"].tolist() == ["by_hard", "by_gap"] and np.allclose(regrets["value"], 0.15)
    assert all(table.empty for table in rmc.over_alpha({"imp-70 + rmc": rows[0.3]}, 0.3, v, TASK, seed=0))


def test_choices_of_several_seeds_have_a_mean_an_interval_and_a_count_a_rule(alphas):
    rows, v = alphas
    one = rmc.choose_alpha(rows, v, TASK, threshold=0.5, n_boot=20)
    two = one.assign(ood=one["ood"] - 0.1, oracle=[True, False, False])
    table = rmc.alpha_over_seeds(pd.concat([one.assign(seed=0), two.assign(seed=1)]).assign(base="imp-70"))
    assert table["alpha"].tolist() == [0.1, 0.3, 0.5] and (table["seeds"] == 2).all()
    assert np.allclose(table["ood"], [0.75, 0.9, 0.7]) and np.allclose(table["dev"], [0.95, 0.9, 0.4])
    assert (table["ood_low"] < table["ood"]).all() and np.allclose(table["dev_high"], table["dev"])
    assert table[["by_hard", "oracle"]].to_numpy().tolist() == [[2, 1], [0, 1], [0, 0]]
    assert rmc.alpha_over_seeds(one.assign(base="", seed=0).iloc[:0]).empty


# --- what the base had lost

def test_what_comes_back_is_set_against_what_the_base_of_the_seed_had_lost():
    scores = {("imp-70", 0): -0.2, ("imp-70 + rmc", 0): -0.05, ("imp-70", 1): 0.01, ("imp-70 + rmc", 1): 0.0,
              ("imp-70 + distil", 1): 0.03, ("truncated-3 + rmc", 1): 0.5}
    table = pd.DataFrame([{"model": model, "seed": seed, "measure": "ood_difference", "value": value}
                          for (model, seed), value in scores.items()])
    found = rmc.regained(pd.concat([table, table.assign(measure="id_difference", value=9.0)]))
    assert found[["base", "loss", "seed"]].to_numpy().tolist() == [["imp-70", "rmc", 0], ["imp-70", "rmc", 1],
                                                                   ["imp-70", "distil", 1]]
    assert np.allclose(found["lost"], [0.2, -0.01, -0.01]) and np.allclose(found["value"], [0.15, -0.01, 0.02])
    assert rmc.regained(table.iloc[:0]).empty


# --- does the instance matter?

def test_effects_are_rmc_less_each_control_that_was_made(items):
    models = {"imp-70 + distil": rows_of(items, ood=6), "imp-70 + rmc": rows_of(items, ood=4),
              "imp-70 + smooth_matched": rows_of(items, ood=2), "imp-70 + rmc_one_run": rows_of(items),
              "truncated-3 + distil": rows_of(items)}
    table = rmc.instance_effects({("micro_nli", 3): models, ("micro_facts", 0): {"imp-70": rows_of(items)}})
    assert table.drop(columns="value").to_numpy().tolist() == [["micro_nli", "imp-70", "smooth_matched", 3],
                                                               ["micro_nli", "imp-70", "distil", 3]]
    assert np.allclose(table["value"], [-0.05, 0.05])


@pytest.fixture(scope="module")
def effects():
    rng = np.random.default_rng(0)
    places = [("micro_nli", "imp-70"), ("micro_nli", "truncated-3"), ("micro_facts", "truncated-3")]
    controls = [*rmc.INSTANCE[:1], *rmc.INSTANCE[2:]]
    rows = [(*place, control, seed, rng.normal(0.02, 0.02)) for place in places for control in controls for seed in range(5)]
    return pd.DataFrame(rows, columns=["task", "base", "control", "seed", "value"])


KEYS = ["task", "base", "control"]


def test_the_interval_over_seeds_is_students(effects):
    table = tables.over_seeds(effects, KEYS)
    one = effects[(effects["base"] == "imp-70") & (effects["control"] == "distil")]["value"]
    known = ttest_1samp(one, 0).confidence_interval(0.95)
    mine = table[(table["base"] == "imp-70") & (table["control"] == "distil")].iloc[0]
    assert np.allclose([mine["value"], mine["low"], mine["high"], mine["seeds"]], [one.mean(), known.low, known.high, 5])
    single = tables.over_seeds(effects[effects["seed"] == 0], KEYS)
    assert single[["low", "high"]].isna().all(axis=None) and single["value"].notna().all() and (single["seeds"] == 1).all()


# --- figures

def drawn(name, effects, smoke=False):
    if name == "instance_effects":
        return plot_rmc.instance_effects(effects, smoke=smoke)
    if name == "price_dots":
        places = [(score, "dev" if score == "v_seeds" else "train") for score in plot_rmc.SCORES]
        rows = pd.DataFrame(places, columns=["score", "on"]).assign(measure="auc", value=0.9, low=0.8, high=0.95)
        rows.loc[rows["score"] == "v_seeds", ["value", "low", "high"]] = np.nan
        costs = pd.DataFrame({"dense_runs": 2.5}, index=list(plot_rmc.SCORES))
        return plot_rmc.price_dots(rows, costs, smoke=smoke)
    if name == "gains":
        return plot_rmc.gains(gained(), "imp-70", smoke=smoke)
    if name == "regained":
        return plot_rmc.regained(back(), smoke=smoke)
    return plot_rmc.alpha_curve(tried(), smoke=smoke)


def tried():
    table = pd.DataFrame({"alpha": [0.5, 0.1, 0.3], "dev": [0.95, 0.96, 0.96], "dev_hard": [0.6, 0.5, 0.7],
                          "ood": [0.8, 0.7, 0.75], "by_hard": [False, False, True], "by_gap": [False, True, False],
                          "oracle": [True, False, False]})
    return table.assign(**{f"{name}{end}": table[name] + by for name in rmc.SCORES for end, by in (("_low", -0.1), ("_high", 0.1))})


def back():
    rows = [(base, loss, seed, 0.1 * seed, 0.05 * seed) for base in ("imp-70", "truncated-3") for seed in range(3)
            for loss in ("rmc", "smooth_matched", "rmc_shuffled")]
    return pd.DataFrame(rows, columns=["base", "loss", "seed", "lost", "value"])


def gained():
    models = ["dense", *(f"imp-70 + {loss}" for loss in ("distil", "rmc", "smooth_matched", "rmc_shuffled"))]
    rows = [(model, split, 0.01 * i) for i, model in enumerate(models) for split in ("test", "ood")]
    return pd.DataFrame(rows, columns=["model", "split", "value"]).assign(
        low=lambda frame: frame["value"] - 0.02, high=lambda frame: frame["value"] + 0.02)


def words(fig):
    return [text.get_text() for text in fig.findobj(plt.Text) if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("name", ["instance_effects", "price_dots", "alpha_curve", "gains", "regained"])
def test_figures_are_named_marked_and_their_texts_keep_apart(name, effects):
    fig = drawn(name, effects, smoke=True)
    assert "smoke: not a result" in words(fig) and "smoke: not a result" not in words(drawn(name, effects))
    assert "better)" in fig.axes[0].get_xlabel() + fig.axes[0].get_ylabel() and fig.get_figwidth() == 6
    fig.draw_without_rendering()
    off = {label for ax in fig.axes for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim()))
           for tick in axis.get_major_ticks() if not min(limits) <= tick.get_loc() <= max(limits)
           for label in (tick.label1, tick.label2)}
    texts = [t for t in fig.findobj(plt.Text) if t.get_text() and t.get_visible() and not t.get_rotation() and t not in off]
    boxes = [text.get_window_extent() for text in texts]
    assert all(text.get_fontsize() >= 9 for text in texts)
    assert all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= fig.bbox.x1 + 1 and b.y1 <= fig.bbox.y1 + 1 for b in boxes)
    assert not any(a.padded(-1.5).overlaps(b.padded(-1.5)) for a, b in itertools.combinations(boxes, 2))
    plt.close("all")


def test_the_effects_figure_draws_each_seed_the_mean_the_interval_and_the_band(effects):
    ax = drawn("instance_effects", effects).axes[0]
    clouds = [line for line in ax.lines if len(line.get_xdata()) == 5]
    assert len(clouds) == 9 and np.allclose(np.sort(clouds[0].get_xdata()), np.sort(effects["value"][:5] * 100))
    means = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1 and line.get_markersize() > 5]
    table = tables.over_seeds(effects, KEYS)
    assert np.allclose(means, table["value"] * 100)
    spans = [bar.get_segments()[0][:, 0] for bar in ax.collections]
    assert np.allclose(spans, table[["low", "high"]] * 100)
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert np.allclose([band.x0, band.x1], [-2, 2])
    assert {"micro_nli, IMP 70 %", "micro_nli, truncated 3", "- RMC (shuffled)"} <= set(words(ax.figure))
    alone = plot_rmc.instance_effects(effects[effects["seed"] == 0])
    assert any("9 of 9 have one seed and so no interval" in text for text in words(alone))
    plt.close("all")


def test_the_gains_stand_in_points_a_panel_a_set_with_dense_named_as_what_to_compare(effects):
    fig = drawn("gains", effects)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["test (ID)", "OOD"]
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == [
        "dense, to compare", "+ distil", "+ RMC", "+ smooth (same mean)", "+ RMC (shuffled)"]
    dots = [line.get_xdata()[0] for line in fig.axes[1].lines if len(line.get_xdata()) == 1]
    assert np.allclose(dots, [0, 1, 2, 3, 4])
    spans = [bar.get_segments()[0][:, 0] for bar in fig.axes[1].collections]
    assert np.allclose(spans, [[x - 2, x + 2] for x in range(5)])
    plt.close("all")


def test_every_score_of_an_alpha_has_its_bar_and_every_rule_its_row():
    scores, rules = plot_rmc.alpha_curve(tried()).axes
    assert [text.get_text() for text in rules.get_yticklabels()] == ["best on hard dev", "least gap on dev", "best OOD (oracle)"]
    assert [list(line.get_xdata()) for line in rules.lines] == [[0.3], [0.1], [0.5]]
    bars = [bar.get_segments() for bar in scores.collections]
    assert [len(of_score) for of_score in bars] == [3, 3, 3] and np.allclose(bars[0][0][:, 1], [60, 80])
    assert any("over the rows of one training" in text for text in words(scores.figure))
    several = plot_rmc.alpha_curve(tried().assign(seeds=5, by_hard=[0, 2, 3], by_gap=[5, 0, 0], oracle=[1, 2, 2]))
    assert {"bars: 95 % intervals over 5 seeds", "3 of 5", "5 of 5"} <= set(words(several))
    plt.close("all")


def test_what_came_back_is_a_dot_a_loss_and_seed_a_panel_a_base():
    fig = plot_rmc.regained(back())
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["IMP 70 %", "truncated 3"]
    dots = [line for line in fig.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(dots) == 3 and np.allclose(dots[0].get_xdata(), [0, 10, 20]) and np.allclose(dots[0].get_ydata(), [0, 5, 10])
    assert {"RMC", "smooth (same mean)", "RMC (shuffled)"} <= set(words(fig))
    plt.close("all")


def test_figures_tell_what_is_missing_and_refuse_what_they_cannot_draw(effects):
    assert any("not available: variance over dense seeds" in text for text in words(drawn("price_dots", effects)))
    with pytest.raises(StudyError, match="two rows for"):
        plot_rmc.instance_effects(pd.concat([effects, effects]))
    with pytest.raises(StudyError, match="instance_effects: the frame has no column 'control'"):
        plot_rmc.instance_effects(effects.drop(columns="control"))
    known = pd.DataFrame([{"score": "el2n", "on": "train", "measure": "rank", "value": 0.9, "low": 0.8, "high": 1.0}])
    without_truth = plot_rmc.price_dots(known, pd.DataFrame({"dense_runs": [0.0]}, index=["el2n"])).axes[0]
    assert without_truth.get_xlabel().startswith("rank agreement")
    with pytest.raises(StudyError, match="costs has no row of score 'el2n'"):
        plot_rmc.price_dots(known, pd.DataFrame({"dense_runs": [1.0]}, index=["v_levels"]))
    plt.close("all")
