"""What the notebooks make of predictions: shortcut samples, recipes of mitigation, tables, floors, evidence."""

import numpy as np
import pandas as pd
import pytest

from lib import names, store
from lib.analysis import floors, measures, rmc, shortcuts, tables
from lib.claims import evidence
from lib.claims.study import Study
from lib.errors import StudyError
from lib.figures import report
from lib.models import losses
from lib.params import schema
from lib.params.profile import load_profile
from lib.tasks import microworld, registry
from lib.trials import mitigation

TASK = registry.get("micro_nli")
EASIER, DEEPER = "passive", "relative"  # depths 2 and 3
SIZES = {"train": 8, "dev": 4, "test": 4, "ood": 8, "unseen": 4}
LOSSES = load_profile("smoke").sections["mitigation"]["losses"]


def make_items():
    """28 rows; labels alternate; in each split the shortcut fails on every fourth row, in ood on every second."""
    rows = []
    for split, n in SIZES.items():
        for i in range(n):
            fails = i % 2 == 1 if split in ("ood", "unseen") else i % 4 == 3
            subcase = "tail" if split == "unseen" else EASIER if i < n / 2 else DEEPER
            rows.append({"guid": f"{split}{i}", "split": split, "text_a": f"a premise {i}", "text_b": f"b {i}", "label": i % 2,
                         "heuristic": "lexical overlap", "subcase": subcase if split in ("ood", "unseen") or fails else "",
                         "is_shortcut": not fails, "group": f"{split}-template-{i}"})
    return pd.DataFrame(rows).astype({"label": "int64", "is_shortcut": "boolean"})


@pytest.fixture
def items():
    return make_items()


def logits_of(items, right, margin=2.0):
    """Logits that are `right` [rows] by `margin`, in the order of items."""
    side = np.where(np.asarray(right), items["label"], 1 - items["label"])
    return np.eye(2)[side] * margin


def table_of(items, right, margin=2.0):
    return store.predictions_table(items, logits_of(items, right, margin))


def fake(folder, name, table, along=None, **record):
    """A finished model with these predictions; its rows in another order than the items'."""
    folder.mkdir(parents=True)
    store.write_predictions(folder / "predictions.parquet", table.sample(frac=1, random_state=1))
    if along is not None:
        parts = [part.assign(step=step) for step, part in along.items()]
        store.write_predictions(folder / "checkpoints.parquet", pd.concat(parts).sample(frac=1, random_state=2))
    store.write_json(folder / "record.json", {"model": name, "key": folder.name, "task": "micro_nli", "seed": 0, "steps": 20,
                                              "sparsity_target": 0.0, "checkpoint_sparsity": {}} | record)
    return store.Model(folder)


def softplus(x):
    return np.log1p(np.exp(x))


def wrong_on(items, split, *numbers):
    return ~items["guid"].isin([f"{split}{i}" for i in numbers]).to_numpy()


@pytest.fixture
def train(items):
    return items[items["split"] == "train"]


@pytest.fixture
def pruned(tmp_path, items):
    """Two levels; the sparser one is surer, and both have train row 0 wrong, the sparser one also row 1."""
    sparse = fake(tmp_path / "s", "imp-85", table_of(items, wrong_on(items, "train", 0, 1), 4.0), sparsity_target=0.85)
    light = fake(tmp_path / "l", "imp-9.5", table_of(items, wrong_on(items, "train", 0), 1.0), sparsity_target=0.095)
    other = fake(tmp_path / "h", "heads-20", table_of(items, True))
    return shortcuts.by_sparsity({"imp-85": sparse, "heads-20": other, "imp-9.5": light})


@pytest.fixture
def dense(tmp_path, items, train):
    """A dense run of 20 steps, kept at a quarter and a half; step 5 has train rows 2 and 3 wrong."""
    along = {5: table_of(train, wrong_on(train, "train", 2, 3)), 10: table_of(train, True, 4.0)}
    return fake(tmp_path / "d", "dense", table_of(items, True, 3.0), along)


@pytest.fixture
def shortcut(items):
    """A shortcut-only model that is right where the shortcut is, with probability sigmoid(2)."""
    return table_of(items, items["is_shortcut"].to_numpy(bool)).sample(frac=1, random_state=3)


# --- shortcut samples

def test_levels_come_from_light_to_sparse_and_without_other_models(pruned):
    assert list(pruned) == ["imp-9.5", "imp-85"]


def test_level_losses_are_those_of_each_level_in_the_order_of_the_rows(pruned, items):
    got = shortcuts.level_losses(pruned, items, "train")
    light, sparse = np.full(8, softplus(-1)), np.full(8, softplus(-4))
    light[0], sparse[:2] = softplus(1), softplus(4)
    assert np.allclose(got, [light, sparse], atol=1e-6)
    assert shortcuts.level_losses(pruned, items, "dev").shape == (2, 4)


def test_run_losses_follow_the_sparsest_run_by_the_number_of_its_steps(tmp_path, pruned, items, train):
    along = {10: table_of(train, True, 3.0), 9: table_of(train, True, 1.0)}
    last = fake(tmp_path / "r", "imp-90", table_of(items, True), along, checkpoint_sparsity={"9": 0.4, "10": 0.9},
                sparsity_target=0.9)
    got = shortcuts.run_losses(shortcuts.by_sparsity({"imp-90": last} | pruned), items)
    assert np.allclose(got, np.repeat([[softplus(-1)], [softplus(-3)]], 8, axis=1), atol=1e-6)


def test_run_losses_need_two_recorded_sparsities(tmp_path, pruned, items, train):
    last = fake(tmp_path / "r", "imp-90", table_of(items, True), {9: table_of(train, True)}, checkpoint_sparsity={"9": 0.4})
    for models_ in (pruned, pruned | {"imp-90": last}):
        with pytest.raises(StudyError, match="fewer than two sparsities.*give pruning.run_levels two or more"):
            shortcuts.run_losses(models_, items)


def test_checkpoints_are_found_by_their_share_of_the_steps(dense, items, train):
    got = shortcuts.checkpoint_logits(dense, items, 0.25)
    assert np.allclose(got, logits_of(train, wrong_on(train, "train", 2, 3)))
    with pytest.raises(StudyError, match=r"no checkpoint of 'dense' at 0.75 .*kept \[0.25, 0.5\]"):
        shortcuts.checkpoint_logits(dense, items, 0.75)


def test_rows_wrong_at_every_level_are_those_wrong_at_each(pruned, items):
    assert shortcuts.wrong_at_every_level(pruned, items).tolist() == [True] + [False] * 7


def test_easy_rows_are_those_the_shortcut_solves(items, shortcut):
    easy = shortcuts.easy_rows(shortcut)
    assert easy.loc[items["guid"]].tolist() == items["is_shortcut"].tolist()


def test_the_table_has_the_dynamics_and_the_shortcuts_confidence(dense, items, train, shortcut):
    v = np.arange(8.0)
    table = shortcuts.score_table(items, dense, shortcut, v, v[::-1]).set_index("guid")
    assert table.index.tolist() == train["guid"].tolist() and table["v_one_run"].tolist() == v[::-1].tolist()
    at = {m: 1 / (1 + np.exp(-m)) for m in (-2.0, 2.0, 4.0)}
    for guid, early in (("train0", at[2]), ("train2", at[-2])):
        got = table.loc[guid, ["confidence", "variability"]].tolist()
        assert np.allclose(got, [(early + at[4]) / 2, (at[4] - early) / 2])
    assert np.allclose(table["shortcut_confidence"], np.where(train["is_shortcut"].to_numpy(bool), at[2], at[-2]))


def hard_scores(train):
    """Every score as it should be: high variance and low confidence where the shortcut fails."""
    hard = (~train["is_shortcut"].to_numpy(bool)).astype(float) + np.linspace(0, 0.5, 8)
    return pd.DataFrame({"guid": train["guid"].to_numpy(), "v_levels": hard, "v_one_run": 2 * hard, "confidence": -hard,
                         "variability": hard**2, "shortcut_confidence": 1 - hard})


def test_scores_are_turned_so_that_larger_is_harder(train):
    assert np.allclose(shortcuts.rank_table(hard_scores(train)), 1)


def test_a_perfect_score_finds_the_truth_and_a_reversed_one_misses_it(train):
    scores = hard_scores(train)
    truth = shortcuts.truth_table(scores.assign(v_one_run=-scores["v_one_run"]), train)
    assert truth.drop("v_one_run")["auc"].eq(1).all() and truth.drop("v_one_run")["agreement"].eq(1).all()
    assert truth.loc["v_one_run", "auc"] == 0 and truth["majority"].eq(0.75).all()


def test_the_truth_is_read_where_it_is_known(train):
    some = train.assign(is_shortcut=train["is_shortcut"].mask(train["guid"].isin(["train0", "train1"])))
    scores = hard_scores(train)
    scores.loc[[0, 1], "v_levels"] = 99.0
    assert shortcuts.truth_table(scores, some).loc["v_levels", "auc"] == 1
    unknown = train.assign(is_shortcut=pd.array([pd.NA] * 8, dtype="boolean"))
    assert shortcuts.truth_table(scores, unknown).empty


def test_variance_and_the_shortcut_agree_on_dev(tmp_path, items, shortcut):
    hard = items["guid"] == "dev3"  # where the shortcut fails
    levels = {f"imp-{m}": fake(tmp_path / f"m{m}", f"imp-{m}", store.predictions_table(
        items, logits_of(items, True) * np.where(hard, m, 1)[:, None])) for m in (1, 3)}
    got = shortcuts.agreement_on_dev(levels, items, shortcut).loc["variance"]
    assert got["auc"] == 1 and got["agreement"] == 1 and got["majority"] == 0.75


def test_easy_and_hard_rows_of_test_are_scored_apart(items, shortcut):
    rows = {"dense": measures.rows(table_of(items, True), items, TASK),
            "imp-70": measures.rows(table_of(items, wrong_on(items, "test", 3)), items, TASK)}
    table = shortcuts.easy_hard(rows, shortcut, seed=0, n_boot=20).set_index(["model", "part"])
    order = [("dense", "easy"), ("dense", "hard"), ("imp-70", "easy"), ("imp-70", "hard")]
    assert list(table.index) == order and table["value"].tolist() == [1, 1, 1, 0] and table["n"].tolist() == [3, 1, 3, 1]
    sure = shortcuts.confidence(rows, shortcut).set_index(["model", "part"])
    p = 1 / (1 + np.exp(-2))
    assert np.allclose(sure["over_confidence"], [p - 1, p - 1, p - 1, p])
    assert np.allclose(sure["ece"], np.abs(sure["over_confidence"])) and sure["n"].tolist() == [3, 1, 3, 1]
    all_easy = table_of(items, True)
    assert [shortcuts.easy_hard(rows, all_easy, seed=0, n_boot=20)["part"].unique().tolist(),
            shortcuts.confidence(rows, all_easy)["part"].unique().tolist()] == [["easy"]] * 2


# --- recipes of mitigation

@pytest.fixture
def mitigating():
    return load_profile("smoke").run("mitigation", "micro_nli", 0)


@pytest.fixture
def base(tmp_path, items):
    return fake(tmp_path / "b", "imp-70", table_of(items, True))


@pytest.fixture
def difficulties(train):
    return pd.DataFrame({"guid": train["guid"].to_numpy(), "v_levels": np.arange(8.0), "v_one_run": np.arange(8.0)[::-1],
                         "shortcut_confidence": np.linspace(0.2, 0.9, 8)})


@pytest.fixture
def recipes(mitigating, items, dense, base, difficulties):
    return {loss: mitigation.extras(loss, mitigating.model_copy(update={"jtt_checkpoint": 0.25, "jtt_weight": 5.0}), items,
                                    dense, base, difficulties) for loss in LOSSES}


def test_each_loss_gets_its_teacher(recipes, dense, base):
    assert {loss: r.teacher and r.teacher.name for loss, r in recipes.items()} == {
        loss: {"focal": None, "jtt": None, "confidence_regularisation": "imp-70"}.get(loss, "dense") for loss in LOSSES}
    shares = {loss: r.kd_weight for loss, r in recipes.items()}
    assert shares == {loss: {"focal": None, "jtt": None, "confidence_regularisation": 1.0}.get(loss, 0.9) for loss in LOSSES}


def test_each_loss_gets_its_strength(recipes):
    d = 0.3 + 0.7 * np.arange(8) / 7
    assert np.allclose(recipes["rmc"].strength, d)
    assert recipes["distil"].strength is None and recipes["smooth"].strength == 0.9
    assert np.isclose(recipes["smooth_matched"].strength, d.mean()) and isinstance(recipes["smooth_matched"].strength, float)
    assert 0.3 < recipes["smooth_entropy"].strength < 1
    assert not np.isclose(recipes["smooth_entropy"].strength, recipes["smooth_matched"].strength)
    assert np.allclose(recipes["confidence_regularisation"].strength, 1 - np.linspace(0.2, 0.9, 8))
    shuffled = recipes["rmc_shuffled"].strength
    assert not np.allclose(shuffled, d)
    assert np.allclose(np.sort(shuffled[::2]), d[::2]) and np.allclose(np.sort(shuffled[1::2]), d[1::2])  # within a label


def test_focal_and_jtt_get_their_weights(recipes, mitigating):
    assert recipes["focal"].gamma == mitigating.gamma and recipes["focal"].weights is None
    assert recipes["jtt"].weights.tolist() == [1, 1, 5, 5, 1, 1, 1, 1]  # wrong at a quarter of the dense run


def test_strengths_come_from_the_difficulty_that_is_asked_for(mitigating, items, dense, base, difficulties):
    other = mitigating.model_copy(update={"difficulty": "one_run", "alpha": 0.0})
    assert np.allclose(mitigation.extras("rmc", other, items, dense, base, difficulties).strength, np.arange(8)[::-1] / 7)


def test_every_recipe_is_one_that_its_loss_takes(recipes, items, train):
    for loss, recipe in recipes.items():
        given = {name: getattr(recipe, name) for name in ("strength", "weights", "kd_weight", "gamma")}
        teacher = recipe.teacher.logits(items, "train") if recipe.teacher else None
        losses.objective(names.parse(f"imp-70 + {loss}").loss, train["label"].to_numpy(), teacher_logits=teacher,
                         **{name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize("of", [lambda t: t.iloc[::-1], lambda t: t.iloc[:-1], lambda t: t.assign(guid="x" + t["guid"])],
                         ids=["another order", "fewer rows", "other rows"])
def test_a_difficulty_table_of_other_rows_is_refused(mitigating, items, dense, base, difficulties, of):
    for loss in LOSSES:
        with pytest.raises(StudyError, match="06_shortcut_samples.ipynb again"):
            mitigation.extras(loss, mitigating, items, dense, base, of(difficulties))


def test_the_table_of_strengths(recipes):
    table = mitigation.strengths(recipes)
    assert table.index.tolist() == LOSSES
    assert table.loc[["focal", "jtt"], "uses"].eq("row weights").all()
    assert table.drop(["focal", "jtt"])["uses"].eq("soft targets").all()
    columns = ["mean d", "median d", "min d", "max d"]
    assert table.loc[["focal", "jtt"], columns].isna().all(axis=None)
    assert table.loc["distil", columns].tolist() == [1] * 4 and table.loc["smooth", columns].tolist() == [0.9] * 4
    assert np.allclose(table.loc["rmc", columns].astype(float), [0.65, 0.65, 0.3, 1])


def test_controls_are_paired_with_the_rmc_model_of_their_base():
    names = ["imp-70 + rmc", "imp-70 + distil", "imp-70 + focal", "truncated-1 + distil", "truncated-3 + rmc_shuffled",
             "truncated-3 + smooth_matched", "truncated-3 + rmc"]
    assert rmc.control_pairs(names) == [
        ("imp-70 + rmc", "imp-70 + distil"), ("truncated-3 + rmc", "truncated-3 + smooth_matched"),
        ("truncated-3 + rmc", "truncated-3 + rmc_shuffled")]


# --- tables

@pytest.fixture
def rows(items):
    """dense: all right but ood0; imp-70: also test0 and ood1, ood3, ood5, ood7 (all on which the shortcut fails) wrong."""
    lost = wrong_on(items, "ood", 0, 1, 3, 5, 7) & wrong_on(items, "test", 0)
    return {"dense": measures.rows(table_of(items, wrong_on(items, "ood", 0)), items, TASK),
            "imp-70": measures.rows(table_of(items, lost), items, TASK)}


def test_unseen_is_reported_apart():
    assert tables.ood_splits(TASK) == ["ood"] and tables.ood_chance(TASK) == 0.5
    assert tables.ood_splits(registry.get("qqp")) == ["paws_qqp", "paws_wiki"]


def test_train_counts_are_of_the_rows_on_which_the_shortcut_fails(items):
    assert tables.train_counts(items) == {EASIER: 1, DEEPER: 1}
    assert tables.train_counts(items.assign(is_shortcut=pd.array([pd.NA] * len(items), dtype="boolean"))) == {}


def test_depths_are_graded_for_the_micro_world_alone():
    assert set(tables.depths(TASK)) == {case.name for case in microworld.SUBCASES["micro_nli"]}
    assert tables.depths(registry.get("mnli")) == {}


def test_twins_share_the_hypothesis_and_differ_in_the_label():
    twins = tables.twins(microworld.generate("micro_nli", seed=0, n_train=64, n_eval=20, n_ood=2))
    pairs = twins.groupby("subcase")
    assert len(pairs) == len(microworld.SUBCASES["micro_nli"]) and (pairs.size() == 2).all()
    assert (pairs["text_b"].nunique() == 1).all() and (pairs["label"].nunique() == 2).all()
    assert (pairs["is_shortcut"].sum() == 1).all()


def test_models_are_shown_by_their_record(dense, base):
    assert tables.sizes([dense, base])["key"].to_dict() == {"dense": "d", "imp-70": "b"}


def test_sparsity_is_the_achieved_one_and_of_masks_alone(tmp_path, items):
    made = {name: fake(tmp_path / name, name, table_of(items, True), sparsity_encoder=s)
            for name, s in (("dense", 0.001), ("imp-70", 0.699), ("heads-20", 0.1))}
    table = pd.DataFrame({"model": ["dense", "imp-70", "heads-20"], "value": [1, 2, 3]})
    assert tables.with_sparsity(table, made)["sparsity"].tolist() == [0.001, 0.699]
    store.write_csv(made["imp-70"].folder / "sparsity_per_layer.csv", pd.DataFrame(
        {"layer": [0, 0], "part": ["attention", "feed_forward"], "weights": 4, "pruned": [1, 3], "sparsity": [0.25, 0.75]}))
    per_layer = tables.sparsity_per_layer(made)
    assert list(per_layer.columns) == ["layer", "part", "imp-70"] and per_layer["imp-70"].tolist() == [0.25, 0.75]


def test_scores_of_every_split_and_of_the_rows_on_which_the_shortcut_fails(rows):
    table = tables.scores(rows, TASK, seed=0, n_boot=20)
    assert list(table.columns) == ["model", "split", "value", "low", "high", "n"]
    assert "train" not in set(table["split"]) and not table.duplicated(["model", "split"]).any()
    value = table.set_index(["model", "split"])["value"]
    assert value["dense"].round(3).to_dict() == {"dev": 1, "test": 1, "ood": 0.875, "ood fails-only": 1, "unseen": 1,
                                                 "unseen fails-only": 1}
    assert (value["imp-70", "test"], value["imp-70", "ood"], value["imp-70", "ood fails-only"]) == (0.75, 0.375, 0)
    assert table.set_index(["model", "split"]).loc[("dense", "ood fails-only"), "n"] == 4


def test_relative_is_every_model_against_dense(rows):
    table = tables.relative(rows, TASK, seed=0, n_boot=50).set_index(["model", "measure"])
    assert set(table.index.get_level_values("model")) == {"imp-70"}
    value = table["value"].xs("imp-70")
    assert value["id_difference"] == -0.25 and value["ood_difference"] == -0.5 and value["gap_difference"] == 0.25
    assert np.allclose((table.loc[("imp-70", "skill_kept"), "value"]), (0.375 - 0.5) / (0.875 - 0.5))


def test_points_are_test_and_ood_of_each_model(rows):
    table = tables.points(rows | {"imp-70 + rmc": rows["dense"]}, TASK, seed=0, n_boot=20).set_index("model")
    assert table["loss"].to_dict() == {"dense": "vanilla", "imp-70": "vanilla", "imp-70 + rmc": "rmc"}
    assert table.loc["imp-70", ["dev", "ood"]].tolist() == [0.75, 0.375]
    assert (table["dev_low"] <= table["dev"]).all() and (table["ood"] <= table["ood_high"]).all()


def test_forgetting_is_by_subcase_rarest_first(rows, items):
    more = items.assign(subcase=items["subcase"].mask(items["guid"] == "train0", EASIER),
                        is_shortcut=items["is_shortcut"].mask(items["guid"] == "train0", False))
    table = tables.forgetting(rows, more, TASK, seed=0, n_boot=20)
    mine = table[table["model"] == "imp-70"].set_index("subcase")
    assert mine["count"].to_dict() == {"tail": 0, DEEPER: 1, EASIER: 2} and list(mine.index) == ["tail", DEEPER, EASIER]
    assert mine["value"].to_dict() == {"tail": 1, DEEPER: 0.5, EASIER: 0.25}  # ood4 to 7: label 0 right, label 1 wrong
    assert mine["depth"].to_dict() == {"tail": 0, DEEPER: tables.depths(TASK)[DEEPER], EASIER: tables.depths(TASK)[EASIER]}


def along_of(items):
    """A dense run: test and ood half right at step 3, then test 3 of 4 and ood 5 of 8; at the end all right."""
    first = wrong_on(items, "test", 0, 1) & wrong_on(items, "ood", 0, 1, 2, 3)
    then = wrong_on(items, "test", 0) & wrong_on(items, "ood", 0, 1, 2)
    checkpoints = pd.concat([table_of(items, first).assign(step=3), table_of(items, then).assign(step=7),
                             table_of(items, True).assign(step=8)])
    return tables.trajectory_rows(checkpoints, items, TASK)


def test_the_trajectory_holds_test_and_ood_at_every_step(items):
    along = along_of(items)
    assert set(along["split"]) == {"test", "ood"} and sorted(along["step"].unique()) == [3, 7, 8]
    line = tables.trajectory(along, TASK)
    assert line[["step", "dev", "ood"]].to_numpy().tolist() == [[3, 0.5, 0.5], [7, 0.75, 0.625], [8, 1, 1]]


def test_what_the_dense_run_had_learned_by_each_step_is_told_of_the_rows_where_the_shortcut_fails(items):
    along = along_of(items)
    table = tables.learned_by(along, TASK)
    failing = measures.fails_only(along[(along["split"] == "ood") & (along["step"] == 3)])
    by_case = failing.groupby("subcase")["correct"].mean()
    assert list(table.columns) == [3, 7, 8] and table[3].to_dict() == by_case.to_dict() and (table[8] == 1).all()
    assert table.index.tolist() == table.mean(axis=1).sort_values(ascending=False).index.tolist()
    unknown = along.assign(is_shortcut=pd.array([pd.NA] * len(along), dtype="boolean"), subcase="")
    table = tables.learned_by(unknown, TASK)
    assert set(table.index) == {"ood: entailment", "ood: non-entailment"} and sorted(table[7]) == [0.5, 0.75]


def test_models_are_matched_with_the_dense_run_at_their_own_id_score(rows, items):
    table = tables.matched(along_of(items), rows, TASK, seed=0, n_boot=20)
    assert table.index.tolist() == ["imp-70"]
    assert table.loc["imp-70", ["id", "ood", "dense_ood", "value"]].tolist() == [0.75, 0.375, 0.625, -0.25]


def test_gains_are_model_less_baseline_on_each_split(rows):
    table = tables.gains(rows, TASK, [("dense", "imp-70")], seed=0, n_boot=20)
    assert table["split"].tolist() == ["test", "ood", "unseen"] and table["value"].tolist() == [0.25, 0.5, 0]
    assert table["n"].tolist() == [4, 8, 4] and set(table["baseline"]) == {"imp-70"}
    assert tables.gains(rows, TASK, [], seed=0).empty


# --- floors

def test_the_majority_says_the_commonest_label_of_train(items):
    more = items.assign(label=items["label"].mask(items["guid"].isin(["train0", "train2"]), 1))
    table = floors.majority(more, TASK)
    assert table["guid"].tolist() == items["guid"].tolist()
    assert np.allclose(np.exp(np.stack(table["logits"])), [2 / 8, 6 / 8], atol=1e-6)


def test_the_bag_of_words_knows_which_side_a_word_is_on(items):
    label = items["label"].to_numpy()
    sided = items.assign(text_a=np.where(label, "Cat", "dog"), text_b=np.where(label, "dog", "cat"))
    table = floors.bag_of_words(sided, TASK)
    assert (np.stack(table["logits"]).argmax(1) == label).all()
    said = floors.bag_of_words(items.assign(text_a="same", text_b=np.where(items["split"] == "train", "same", "new")), TASK)
    assert np.allclose(np.exp(np.stack(said["logits"])), 0.5, atol=1e-3)


def test_floors_are_valid_tables_of_all_rows(items):
    made = floors.predictions(items, TASK, seed=0, folds=2)
    assert list(made) == ["majority", "bag of words", "shortcut only"]
    for table in made.values():
        store.check_predictions(table, items)
        assert set(table["guid"]) == set(items["guid"])


def test_the_shortcut_only_model_sees_overlap_alone():
    world = microworld.generate("micro_nli", seed=0, n_train=400, n_eval=100, n_ood=20)
    rows = measures.rows(floors.shortcut_only(world, TASK, folds=5, seed=0), world, TASK)
    right = rows[rows["split"] == "ood"].groupby("is_shortcut")["correct"].mean()
    assert right[True] > 0.8 and right[False] < 0.2
    assert rows[rows["split"] == "train"]["correct"].mean() > 0.7


# --- evidence

MADE = ["dense", "truncated-1", "imp-70", "dense + ptq8", "imp-70 + rmc"]


@pytest.fixture
def grid(tmp_path, monkeypatch, items):
    """A finished profile: seed 0 with every stage, seed 1 with its data and its dense model alone.

    imp-70 is attacked on test rows 0 (broken), 1 and 2 (which it had wrong before); dense holds all three.
    """
    monkeypatch.setattr(schema, "ROOT", tmp_path)
    run = load_profile("smoke").run("claims", "micro_nli", 0).model_copy(
        update={"tasks": ["micro_nli"], "seeds": [0], "dense_seeds": [0, 1]})
    wrong = {("dense", 0): wrong_on(items, "test"), ("dense", 1): wrong_on(items, "test", 0),
             ("truncated-1", 0): wrong_on(items, "test", 0, 1), ("dense + ptq8", 0): wrong_on(items, "ood", 1),
             ("imp-70", 0): wrong_on(items, "ood", 1, 3, 5, 7), ("imp-70 + rmc", 0): wrong_on(items, "test")}
    stages = {"02_teacher": "dense", "03_distillation": "truncated-1", "04_pruning": "imp-70",
              "05_quantization_and_replacing": "dense + ptq8", "07_mitigation": "imp-70 + rmc"}
    train = items["split"] == "train"
    for (name, seed), right in wrong.items():
        along = {5: table_of(items[~train], True)} if name == "dense" else None
        model = fake(run.outputs / "store" / f"{name}{seed}", name, table_of(items, right), along, seed=seed)
        stage = next(stage for stage, made in stages.items() if made == name)
        store.write_stage(run.folder(stage, "micro_nli", seed), [model])
    for seed in (0, 1):
        store.write_items(run.folder("01_data", "micro_nli", seed) / "data.parquet", items)
    attacks_of(run, 0, {"dense": [True, True, True], "imp-70": [False, True, False]})
    plane_of(run, 0, {"dense": 0.9, "imp-70": 0.6}, {"dense": 4.0, "imp-70": 8.0})
    return run


def attacks_of(run, seed, survived):
    """Notebook 08's attacks of a seed on test rows 0, 1 and 2; a row that does not survive is turned, row 2 was wrong before."""
    place = run.folder("08_loyalty_and_attacks", "micro_nli", seed)
    place.mkdir(parents=True, exist_ok=True)
    frames = [pd.DataFrame({"model": model, "guid": ["test0", "test1", "test2"], "correct": [True, True, after[2]],
                            "success": [not after[0], not after[1], False]}) for model, after in survived.items()]
    store.write_items(place / "attacks.parquet", pd.concat(frames))


def plane_of(run, seed, ood, latency):
    """Notebook 08's final table of a seed."""
    frame = pd.DataFrame({"model": list(ood), "ood": list(ood.values()), "latency_ms": list(latency.values()), "path": "eager",
                          "front": True, "dev": 0.9, "label_loyalty": 1.0, "loyalty_ood": 0.5, "after_attack": np.nan,
                          "bytes": 100, "nonzero_parameters": 50})
    store.write_csv(run.folder("08_loyalty_and_attacks", "micro_nli", seed) / "plane.csv", frame)


def test_evidence_is_every_model_of_every_task_and_seed(grid):
    found = evidence.gather(grid)
    assert [(m.record["seed"], m.name) for m in found.models] == [(0, name) for name in MADE] + [(1, "dense")]
    by_run = found.by_run()
    assert {place: list(rows) for place, rows in by_run.items()} == {("micro_nli", 0): MADE, ("micro_nli", 1): ["dense"]}
    rows = by_run["micro_nli", 0]["imp-70"]
    assert "train" not in set(rows["split"]) and rows["easy"].notna().all()
    assert rows.groupby("split")["correct"].mean().to_dict() == {"dev": 1, "test": 1, "ood": 0.5, "unseen": 1}
    assert not by_run["micro_nli", 1]["dense"].set_index("guid").loc["test0", "correct"]


def test_rows_tell_how_closely_a_model_follows_the_dense_one_of_its_seed(grid):
    found = evidence.gather(grid)
    pruned, second = found.rows_of("micro_nli", 0, "imp-70"), found.rows_of("micro_nli", 1, "dense")
    assert pruned.loc[~pruned["label_loyalty"], "guid"].tolist() == ["ood1", "ood3", "ood5", "ood7"]
    assert (pruned["probability_loyalty"] < 1 - 1e-6).tolist() == (~pruned["label_loyalty"]).tolist()
    assert second["label_loyalty"].all() and np.allclose(second["probability_loyalty"], 1), "it is that dense model"


def test_the_dense_model_of_another_seed_stands_beside_each(grid):
    found = evidence.gather(grid)
    assert {place: list(models) for place, models in found.by_place.items()} == {
        ("micro_nli", 0): MADE, ("micro_nli", 1): ["dense"]}
    assert found.other_seed("micro_nli", 0) == 1 and found.other_seed("micro_nli", 1) is None
    rows = found.rows_of("micro_nli", 0, "dense, other seed")
    assert rows.loc[~rows["label_loyalty"], "guid"].tolist() == ["test0"]
    assert not rows.set_index("guid").loc["test0", "correct"], "the other seed's answers"
    assert rows["after_attack"].isna().all()


def test_one_dense_model_has_no_other_beside_it(grid):
    alone = evidence.gather(grid.model_copy(update={"dense_seeds": [0]}))
    assert list(alone.by_place["micro_nli", 0]) == MADE and alone.other_seed("micro_nli", 0) is None


def test_rows_tell_which_survived_the_attack(grid):
    found = evidence.gather(grid)
    after = found.rows_of("micro_nli", 0, "imp-70").set_index("guid")["after_attack"]
    assert after.dropna().to_dict() == {"test0": False, "test1": True, "test2": False}
    assert found.rows_of("micro_nli", 0, "dense").set_index("guid")["after_attack"].dropna().all()
    assert found.rows_of("micro_nli", 0, "truncated-1")["after_attack"].isna().all()
    assert found.rows_of("micro_nli", 1, "dense")["after_attack"].isna().all(), "seed 1 runs no notebook 08"


def test_rows_of_the_evidence_are_what_the_claims_take(grid):
    found = evidence.gather(grid)
    study = Study(found)
    for measure, split, model, baseline, expected in (
            ("label_loyalty", "ood", "imp-70", "dense, other seed", -50.0), ("after_attack", "", "imp-70", "dense", 100 * (1 / 3 - 1)),
            ("hidden_flips", "test", "truncated-1", "dense", 0.0), ("probability_loyalty", "test", "imp-70 + rmc", "dense", 0.0)):
        seeds, numbers, _ = study.numbers(measure, split, [model], [baseline], "micro_nli")
        assert seeds == [0] and numbers[model, baseline][0].value == pytest.approx(expected), measure


def test_the_final_table_is_the_mean_over_seeds(grid):
    table = evidence.gather(grid).final_table().set_index("model")
    assert table["seeds"].eq(1).all() and table["interval"].eq("rows").all() and list(table.index) == MADE
    assert table["ood"].to_dict() == pytest.approx(dict.fromkeys(MADE, 1) | {"imp-70": 0.5, "dense + ptq8": 7 / 8})
    assert table.loc["imp-70", ["label_loyalty", "loyalty_ood", "after_attack"]].tolist() == pytest.approx([1, 0.5, 1 / 3])
    assert (table["ood_low"] <= table["ood"]).all() and table.loc["imp-70", "ood_low"] < 0.5 < table.loc["imp-70", "ood_high"]
    assert table["latency_ms"].dropna().to_dict() == {"dense": 4, "imp-70": 8}
    two = grid.model_copy(update={"seeds": [0, 1]})
    plane_of(two, 1, {"dense": 0.7, "imp-70": 0.2}, {"dense": 6.0, "imp-70": np.nan})
    attacks_of(two, 1, {"dense": [True, True, False]})
    found = evidence.gather(grid)
    table = evidence.GatheredRuns(two, found.runs, found.by_place).final_table().set_index("model")
    assert table["task"].eq("micro_nli").all() and table["seeds"].to_dict() == dict.fromkeys(MADE, 1) | {"dense": 2}
    half = 12.7062 * 0.125  # t of one degree of freedom, and half the difference of the two seeds
    assert table.loc["dense", ["dev", "dev_low", "dev_high"]].tolist() == pytest.approx([0.875, 0.875 - half, 0.875 + half], abs=1e-5)
    assert table.loc["dense", "after_attack"] == pytest.approx((1 + 2 / 3) / 2) and table.loc["dense", "latency_ms"] == 5
    assert table.loc["imp-70", "latency_ms"] == 8 and table.loc["imp-70", "interval"] == "rows"


def test_the_gap_is_set_against_the_dense_model_of_the_same_seed(grid):
    table = evidence.gather(grid).over_seeds().set_index(["model", "measure"])
    assert table.loc[("imp-70", "gap_difference"), "value"] == pytest.approx(0.5)
    assert table.loc[("truncated-1", "gap_difference"), "value"] == pytest.approx(-0.5)
    dense = table.loc[("dense", "gap_difference")]
    assert dense["value"] == dense["low"] == dense["high"] == 0, "paired: each draw has the same rows"
    assert table.loc[("imp-70", "gap_difference"), "low"] > 0
    assert ("truncated-1", "after_attack") not in table.index


@pytest.mark.parametrize("name, asked", [("attacks.parquet", lambda found: found.rows_of("micro_nli", 0, "imp-70")),
                                         ("plane.csv", lambda found: found.final_table())])
def test_what_notebook_08_has_not_written_is_named(grid, name, asked):
    (grid.folder("08_loyalty_and_attacks", "micro_nli", 0) / name).unlink()
    with pytest.raises(StudyError, match=f"{name} is not there: run notebooks/08_loyalty_and_attacks.ipynb"):
        asked(evidence.gather(grid))


def test_the_dense_checkpoints_are_rows_with_a_step(grid):
    rows = evidence.gather(grid).along("micro_nli", 0)
    assert sorted(rows["step"].unique()) == [5] and set(rows["split"]) == {"test", "ood"} and rows["easy"].notna().all()


def test_churn_has_the_dense_models_of_other_seeds_as_its_null(grid):
    churn = evidence.gather(grid).dense_churn().set_index(["model", "split"])
    assert list(churn.index.get_level_values("model").unique()) == ["dense, other seed", *MADE[1:]]
    assert churn.loc[("dense, other seed", "test"), ["value", "lost", "gained"]].tolist() == [0.25, 0.25, 0], "wrong where dense is right"
    assert churn.loc[("truncated-1", "test"), "value"] == 0.5 and churn.loc[("imp-70", "ood"), "value"] == 0.5
    assert churn.loc["imp-70 + rmc"]["value"].eq(0).all() and churn["interval"].eq("rows").all()


def test_churn_of_several_seeds_is_a_mean_with_pairs_of_dense_models_as_its_null(grid):
    found, two = evidence.gather(grid), grid.model_copy(update={"seeds": [0, 1]})
    attacks_of(two, 1, {"dense": [True, True, True]})
    like = {0: 0, 1: 1, 2: 1, 3: 0}  # neighbours would be 0 and 1, 2 and 3; the pairs of the ledger are 0 and 2, 1 and 3
    like[4] = 0  # a dense model too many is in no pair
    runs = {("micro_nli", seed): found.runs["micro_nli", of] for seed, of in like.items()}
    models = {("micro_nli", seed): found.by_place["micro_nli", of] for seed, of in like.items()}
    models["micro_nli", 1] = models["micro_nli", 1] | {"imp-70": models["micro_nli", 0]["imp-70"]}
    churn = evidence.GatheredRuns(two, runs, models).dense_churn().set_index(["model", "split"])
    assert churn.loc[("dense, other seed", "test"), ["value", "low", "high", "seeds", "interval"]].tolist() == [0.25, 0.25, 0.25, 2, "seeds"]
    assert churn.loc[("imp-70", "test"), ["value", "lost", "gained", "seeds"]].tolist() == [0.125, 0, 0.125, 2]
    assert churn.loc[("truncated-1", "test"), ["seeds", "interval"]].tolist() == [1, "rows"]


def test_tables_of_other_stages_are_put_together(grid):
    store.write_csv(grid.folder("06b_dose_and_response", "micro_nli", 0) / "slopes.csv", pd.DataFrame({"slope": [1.5]}))
    found = evidence.gather(grid)
    assert found.written("06b_dose_and_response", "slopes.csv").to_dict("records") == [{"task": "micro_nli", "seed": 0, "slope": 1.5}]
    assert found.written("06b_dose_and_response", "none.csv").empty


@pytest.mark.parametrize("stage", ["05_quantization_and_replacing", "07_mitigation"])
def test_a_stage_that_is_missing_is_named(grid, stage):
    (grid.folder(stage, "micro_nli", 0) / "models.json").unlink()
    with pytest.raises(StudyError, match=f"run notebooks/{stage}.ipynb"):
        evidence.gather(grid)


def test_a_base_that_was_not_made_is_named_with_the_nearest(items):
    with pytest.raises(StudyError, match="'imp-60'.*did you mean 'imp-70'.*sparsity_levels"):
        mitigation.bases({"imp-70": None, "truncated-1": None}, ["imp-60"])
    assert list(mitigation.bases({"imp-70": 1, "truncated-1": 2}, ["truncated-1"])) == ["truncated-1"]


def test_real_sets_have_no_counts_and_labels_stand_in_for_subcases(rows, items):
    unknown = items.assign(is_shortcut=pd.array([pd.NA] * len(items), dtype="boolean"))
    blank = {name: frame.assign(subcase="") for name, frame in rows.items()}
    table = tables.forgetting(blank, unknown, TASK, seed=0, n_boot=20)
    assert table["count"].isna().all() and set(table["subcase"]) >= {"ood: entailment", "ood: non-entailment"}


def test_caveats_are_those_of_the_task_and_of_the_encoder(monkeypatch):
    said = []
    monkeypatch.setattr(report, "say", said.append)
    run = load_profile("smoke").run("pruning", "micro_nli", 0)
    report.caveats(run, TASK)
    report.caveats(run.model_copy(update={"encoder": "bert-base-uncased"}), TASK)
    assert TASK.caveats in said[0] and "itself distilled" in said[0]
    assert TASK.caveats in said[1] and "distilled" not in said[1]
