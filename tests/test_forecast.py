"""Predictors worked out by hand, AUCs against scikit-learn's, combinations that must not have seen what they foretell."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from lib.analysis import forecast, risk
from lib.analysis.forecast import ALL, BEYOND, CHURN, COMBINED, ELSEWHERE, EXCESS
from lib.errors import StudyError
from lib.models import batches, last_layer, loop, make, pretrained
from lib.names import OTHER_DENSE
from lib.tasks import registry
from lib.tasks.task import Ood, Task

TASK = Task(name="toy", labels=("e", "n", "c"), text_a="a", text_b="b", ood={"hans": Ood(("e", "not"), (0, 1, 1))},
            shortcut="overlap", licence="", source="", caveats="")
ITEMS = pd.DataFrame({
    "guid": ["t0", "t1", "t2", "a", "b"], "split": ["train"] * 3 + ["test", "hans"], "label": [0, 1, 0, 2, 1],
    "text_a": ["the cat sat", "the cat ran", "a dog sat", "the cat ran", "a bird flew"], "text_b": ["cat sat"] * 5,
    "heuristic": "", "subcase": ["x", "x", "y", "x", "z"], "group": "",
    "is_shortcut": pd.array([True, False, True, True, False], dtype="boolean")})  # fmt: skip


def along(*steps) -> pd.DataFrame:
    """Checkpoints of the rows a and b of ITEMS: (step, probabilities of a, of b)."""
    rows = ("a", "test", 2), ("b", "hans", 1)
    return pd.DataFrame([{"guid": guid, "split": split, "label": label, "step": step, "logits": np.log(p)}
                         for step, *both in steps for (guid, split, label), p in zip(rows, both)])


def test_predictors_are_those_of_their_formulas_after_the_collapse():
    table = along((2, [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]), (6, [0.1, 0.5, 0.4], [0.2, 0.2, 0.6]),
                  (8, [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]))
    shortcut = ITEMS[["guid", "split", "label"]].assign(logits=[np.log([0.3, 0.6, 0.1])] * 5)
    got = risk.predictors(table, ITEMS, TASK, shortcut, pd.Series({"a": 2.0, "b": 3.0})).set_index("guid")
    assert got["right"].tolist() == [True, False]  # the argmax comes before the collapse
    assert got["loss"].tolist() == pytest.approx([-np.log(0.7), -np.log(0.6)])
    assert got["margin"].tolist() == pytest.approx([np.log(0.2 / 0.7), np.log(0.4 / 0.6)])
    assert got["el2n"].tolist() == pytest.approx([np.sqrt(0.04 + 0.04 + 0.16), np.sqrt(2) * 0.5])  # step 2 alone is early
    assert got["loss_variance"].tolist() == pytest.approx([np.var(np.log([0.6, 0.4, 0.7])), np.var(np.log([0.5, 0.8, 0.6]))])
    assert got["variability"].tolist() == pytest.approx([np.std([0.6, 0.4, 0.7]), np.std([0.5, 0.8, 0.6])])
    assert got["gradient_norm"].tolist() == pytest.approx([2 * np.sqrt(0.01 + 0.04 + 0.09), 3 * np.sqrt(2) * 0.4])
    assert got["shortcut_wrong"].tolist() == pytest.approx([0.9, 0.3])
    assert got["learned_at"]["a"] == 1 and np.isnan(got["learned_at"]["b"])  # b ends wrong
    assert got["rarity"].tolist() == pytest.approx([-np.log(2), 0])


def test_what_cannot_be_known_has_no_column():
    table = along((2, [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]), (8, [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]))
    bare = ITEMS.drop(columns=["text_a", "text_b"]).assign(is_shortcut=pd.array([pd.NA] * 5, dtype="boolean"))
    got = risk.predictors(table, bare, TASK)
    assert not {"rarity", "bigram_rarity", "gradient_norm", "shortcut_wrong"} & set(got) and "el2n" in got
    with pytest.raises(StudyError, match="first half"):
        risk.predictors(table[table["step"] == 8], ITEMS, TASK)


def test_rare_word_pairs_are_counted_in_train_within_each_text():
    got = risk.bigram_rarity(ITEMS)
    held = {"the cat": 2, "cat ran": 1, "cat sat": 4, "a bird": 0, "bird flew": 0}

    def rare(*pairs: str) -> float:
        return np.mean([-np.log((held[pair] + 1) / 7) for pair in pairs])
    assert got[3] == pytest.approx(rare("the cat", "cat ran", "cat sat"))
    assert got[4] == pytest.approx(rare("a bird", "bird flew", "cat sat")) and got[4] > got[3]


def test_the_gradient_norm_is_that_of_the_last_layer(tiny_run, micro):
    model = make.model(tiny_run, micro, "dense", make.Extras(checkpoints=(0.5,), checkpoint_splits=("test", "ood"), as_teacher=True))
    evaluated = micro[micro["split"].isin(["test", "ood"])]
    norms = model.norms()
    assert set(norms.index) == set(micro.loc[micro["split"] != "train", "guid"])
    tokens = {"ood": batches.encode(pretrained.load_tokenizer(str(model.path)), micro[micro["split"] == "ood"], 48)}
    in_bf16 = last_layer.input_norms(make.load(model), tokens, micro, "bf16", "cpu").set_index("guid")["norm"]
    assert in_bf16.to_numpy() == pytest.approx(norms[in_bf16.index].to_numpy(), rel=0.02)
    got = risk.predictors(model.checkpoints(), micro, registry.get(tiny_run.task), norms=norms).set_index("guid")
    network, few = make.load(model), evaluated.iloc[[0, 5, -1]]
    encoded = batches.encode(pretrained.load_tokenizer(str(model.path)), few, 48)
    for row, guid in enumerate(few["guid"]):
        logits = network(**loop.inputs(network, encoded, np.array([row]), "cpu")).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(encoded.labels[[row]]))
        gradient = torch.autograd.grad(loss, network.classifier.weight)[0]
        assert got.loc[guid, "gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-3)


def test_the_kind_of_a_model_is_what_made_it_small():
    kinds = {"imp-70 + rmc": "imp", "imp-85": "imp", "truncated-3 + distil + ptq8": "truncated", "dense + ptq8": "ptq8",
             "dense": "", "scratch-3": "", "some/encoder": "some/encoder"}
    assert {name: forecast.kind(name) for name in kinds} == kinds


# --- AUCs

def side(n: int, seed: int) -> pd.DataFrame:
    """Rows at risk with two independent predictors."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"guid": [f"r{i}" for i in range(n)], "split": "test", "subcase": "", "group": "", "right": True,
                         "loss": rng.normal(size=n), "el2n": rng.normal(size=n)})


def losing(risk: pd.DataFrame, score, seed: int) -> pd.DataFrame:
    """The rows of a model that loses the likelier what `score` says."""
    lost = np.random.default_rng(seed).random(len(risk)) < 1 / (1 + np.exp(1 - 2 * np.asarray(score)))
    return pd.DataFrame({"guid": risk["guid"], "correct": ~lost})


def study(score_of: dict, n: int = 400, seeds: int = 3) -> tuple[dict, dict]:
    """Runs of `seeds` seeds whose models lose by score_of[model](risk), and what is known of their rows."""
    at_risk = {s: side(n, s) for s in range(seeds)}
    runs = {s: {"dense": pd.DataFrame({"guid": r["guid"], "correct": True})} | {
        name: losing(r, score(r), 100 * s + i) for i, (name, score) in enumerate(score_of.items())}
        for s, r in at_risk.items()}
    return runs, at_risk


def with_null(runs: dict, at_risk: dict, score) -> dict:
    """One more dense model for each seed, the null, that loses by `score`."""
    return runs | {50 + s: {"dense": losing(r, score(r), 900 + s)} for s, r in at_risk.items()}


def value_of(table: pd.DataFrame, model: str, predictor: str, seed: int = 0) -> float:
    return table[(table["model"] == model) & (table["predictor"] == predictor) & (table["seed"] == seed)]["value"].item()


def test_aucs_are_those_of_the_rows_that_dense_gets_right():
    runs, at_risk = study({"imp-70": lambda r: r["loss"]})
    at_risk[1]["right"] = np.arange(400) % 4 > 0
    at_risk[1]["loss"] = at_risk[1]["loss"].round(1)  # ties
    got = forecast.aucs(runs, at_risk)
    for s in (0, 1):
        part = at_risk[s][at_risk[s]["right"]]
        lost = ~runs[s]["imp-70"]["correct"][part.index]
        assert value_of(got, "imp-70", "loss", s) == pytest.approx(roc_auc_score(lost, part["loss"]))
        line = got[(got["model"] == "imp-70") & (got["seed"] == s)].iloc[0]
        assert (line["lost"], line["n"]) == (lost.sum(), len(part))
    assert value_of(got, "imp-70", "loss") > 0.7 and abs(value_of(got, "imp-70", "el2n") - 0.5) < 0.1


def test_an_auc_of_few_lost_rows_is_not_told_nor_averaged():
    runs, at_risk = study({"imp-70": lambda r: r["loss"], "imp-40": lambda r: r["loss"]}, seeds=2)
    runs[1]["imp-40"]["correct"] = np.arange(400) >= forecast.FEWEST - 1
    got = forecast.aucs(runs, at_risk)
    assert np.isnan(value_of(got, "imp-40", "loss", 1)) and value_of(got, "imp-40", "loss", 0) > 0.5
    for s in (0, 1):
        assert value_of(got, ALL, "loss", s) == value_of(got, "imp-70", "loss", s)
    assert forecast.summary(got).query("model == 'imp-40' and predictor == 'loss'")["seeds"].item() == 1
    assert forecast.summary(got[got["value"].isna()]).empty


def test_the_combination_has_seen_neither_the_kind_nor_the_seed():
    runs, at_risk = study({"imp-70": lambda r: r["loss"], "imp-85 + rmc": lambda r: r["loss"],
                           "truncated-3": lambda r: -r["loss"], "scratch-3": lambda r: 3 * r["el2n"]})
    got = forecast.aucs(runs, at_risk)
    for s in range(3):  # each kind is foretold by what the other teaches, which is its contrary
        assert value_of(got, "imp-70", COMBINED, s) < 0.35 and value_of(got, "imp-85 + rmc", COMBINED, s) < 0.35
        assert value_of(got, "truncated-3", COMBINED, s) < 0.35
    alike, at_risk = study({"imp-70": lambda r: r["loss"] + r["el2n"], "truncated-3": lambda r: r["loss"] + r["el2n"]})
    at_risk[0][["loss", "el2n"]] *= -1  # a seed by its own rows would see this
    got = forecast.aucs(alike, at_risk)
    assert value_of(got, "imp-70", COMBINED, 0) < 0.3 < 0.7 < value_of(got, "imp-70", "loss", 1)


def test_another_task_foretells_where_the_same_predictors_matter_and_misleads_where_others_do():
    def one(r):
        return r["loss"]
    runs, at_risk = study({"imp-70": one, "truncated-3": one})
    alike = with_null(*study({"imp-40": one, "ffn-50": one}, n=300), one)
    contrary = with_null(*study({"imp-40": lambda r: -one(r), "ffn-50": lambda r: -one(r)}), lambda r: -one(r))
    for other, good in ((alike, True), (contrary, False)):
        of_other = {s: side(len(other[s]["dense"]), s) for s in range(3)}
        got = forecast.aucs(runs, at_risk, elsewhere=[(other, of_other)])
        for predictor in (COMBINED + ELSEWHERE, CHURN + ELSEWHERE):
            assert (value_of(got, ALL, predictor) > 0.7) is good and (value_of(got, ALL, predictor) < 0.3) is not good
        assert value_of(got, "imp-70", COMBINED) > 0.7, "its own task's other seeds are not touched by it"
        assert value_of(got, "imp-70", "loss") == value_of(forecast.aucs(runs, at_risk), "imp-70", "loss")


def test_a_predictor_that_another_task_lacks_is_in_no_combination_across():
    runs, at_risk = study({"imp-70": lambda r: r["loss"], "truncated-3": lambda r: r["loss"]})
    other, of_other = study({"imp-40": lambda r: r["loss"], "ffn-50": lambda r: r["loss"]})
    got = forecast.aucs(runs, at_risk, elsewhere=[(other, {s: f.drop(columns="el2n") for s, f in of_other.items()})])
    assert value_of(got, "imp-70", COMBINED + ELSEWHERE) == pytest.approx(value_of(got, "imp-70", "loss"))


def test_of_ood_rows_the_ood_rows_of_another_task_tell_and_not_its_id_rows():
    def both(r):
        return np.where(r["split"] == "test", r["loss"], -r["loss"])

    def two(n):
        return {s: pd.concat([side(n, s), side(n, s + 10).assign(split="ood")], ignore_index=True)
                .assign(guid=lambda f: [f"g{i}" for i in range(len(f))]) for s in range(2)}
    at_risk = two(300)
    runs = {s: {"dense": pd.DataFrame({"guid": r["guid"], "correct": True}), "imp-70": losing(r, both(r), s),
                "truncated-3": losing(r, both(r), 10 + s)} for s, r in at_risk.items()}
    got = forecast.aucs(runs, at_risk, elsewhere=[(runs, at_risk)])
    across = got[(got["predictor"] == COMBINED + ELSEWHERE) & (got["model"] == ALL)].set_index(["split", "seed"])["value"]
    assert (across > 0.7).all() and len(across) == 4


def test_the_combination_beats_each_of_its_parts_where_both_matter():
    runs, at_risk = study({"imp-70": lambda r: r["loss"] + r["el2n"], "truncated-3": lambda r: r["loss"] + r["el2n"]})
    got = forecast.summary(forecast.aucs(runs, at_risk)).set_index(["model", "predictor"])["value"]
    assert got["imp-70", COMBINED] > max(got["imp-70", "loss"], got["imp-70", "el2n"]) + 0.03


def test_compression_is_told_from_hardness_by_the_null():
    def forgets(r):
        return r["el2n"]

    def hard(r):
        return r["loss"]
    runs, at_risk = study({"imp-70": forgets, "truncated-3": forgets})
    got = forecast.aucs(with_null(runs, at_risk, hard), at_risk)
    for s in range(3):
        assert value_of(got, OTHER_DENSE, CHURN, s) > 0.65 > 0.6 > value_of(got, OTHER_DENSE, COMBINED, s)
        assert value_of(got, ALL, BEYOND, s) == pytest.approx(value_of(got, ALL, COMBINED, s) - value_of(got, ALL, CHURN, s))
        assert value_of(got, ALL, BEYOND, s) > 0.1
        excess = value_of(got, ALL, "el2n", s) - value_of(got, OTHER_DENSE, "el2n", s)
        assert value_of(got, EXCESS, "el2n", s) == pytest.approx(excess)
    same = forecast.aucs(with_null(study({"imp-70": hard, "truncated-3": hard})[0], at_risk, hard), at_risk)
    assert abs(same[(same["model"] == ALL) & (same["predictor"] == BEYOND)]["value"].mean()) < 0.03


def test_the_null_is_each_seeds_own_dense_model():
    runs, at_risk = study({"imp-70": lambda r: r["loss"]}, seeds=2)
    more = with_null(runs, at_risk, lambda r: r["loss"])
    got = forecast.aucs(more, at_risk)
    for s in (0, 1):
        own = roc_auc_score(~more[50 + s]["dense"]["correct"], at_risk[s]["loss"])
        assert value_of(got, OTHER_DENSE, "loss", s) == pytest.approx(own)
    del more[51]  # one other dense model is the null of one seed and never of two
    fewer = forecast.aucs(more, at_risk)
    assert set(fewer.loc[fewer["model"] == OTHER_DENSE, "seed"]) == {0}
    assert OTHER_DENSE not in set(forecast.aucs(runs, at_risk)["model"]), "full seeds are no null for each other"
    alone = forecast.aucs({0: runs[0]}, {0: at_risk[0]})
    assert not {OTHER_DENSE, EXCESS} & set(alone["model"]) and not {COMBINED, CHURN, BEYOND} & set(alone["predictor"])


def test_one_seed_has_the_interval_over_rows():
    runs, at_risk = study({"imp-70": lambda r: r["loss"] / 2, "imp-85": lambda r: r["loss"] / 2}, n=800, seeds=1)
    got = forecast.summary(forecast.aucs(runs, at_risk, n_boot=2000)).set_index(["model", "predictor"])
    lost, x = ~runs[0]["imp-70"]["correct"].to_numpy(), at_risk[0]["loss"].to_numpy()
    rng = np.random.default_rng(0)
    drawn = [roc_auc_score(lost[at], x[at]) for at in rng.integers(0, 800, (400, 800))]
    line, mean = got.loc[("imp-70", "loss")], got.loc[(ALL, "loss")]
    assert line["high"] - line["low"] == pytest.approx(np.subtract(*np.quantile(drawn, [0.975, 0.025])), rel=0.15)
    assert line["low"] < line["value"] < line["high"] and mean["high"] - mean["low"] < line["high"] - line["low"]


def test_rows_of_one_template_count_as_one():
    runs, at_risk = study({"imp-70": lambda r: r["loss"]}, n=80, seeds=1)
    risk, lost = (pd.concat([frame] * 9, ignore_index=True).assign(guid=[f"r{i}" for i in range(720)])
                  for frame in (at_risk[0], runs[0]["imp-70"]))
    many, width = {0: {"dense": lost.assign(correct=True), "imp-70": lost}}, []
    for group in ("", [f"t{i}" for i in [*range(80)] * 9]):
        got = forecast.aucs(many, {0: risk.assign(group=group)}, n_boot=1000).iloc[0]
        width.append(got["high"] - got["low"])
    assert width[1] == pytest.approx(3 * width[0], rel=0.2)


def test_several_seeds_have_a_t_interval_over_seeds():
    runs, at_risk = study({"imp-70": lambda r: r["loss"], "truncated-3": lambda r: r["loss"]})
    table = forecast.aucs(runs, at_risk)
    values = table[(table["model"] == "imp-70") & (table["predictor"] == "loss")]["value"]
    got = forecast.summary(table).set_index(["model", "predictor"]).loc[("imp-70", "loss")]
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (got["value"], got["low"], got["high"], got["seeds"]) == pytest.approx((values.mean(), low, high, 3))


def test_a_missing_row_is_named():
    runs, at_risk = study({"imp-70": lambda r: r["loss"]}, seeds=1)
    runs[0]["imp-70"] = runs[0]["imp-70"].iloc[1:]
    with pytest.raises(StudyError, match="'imp-70' of seed 0 .*'r0'"):
        forecast.aucs(runs, at_risk)
