"""Twelve claims of the committed ledger recomputed by another way: numpy, pandas and the files, nothing of lib but a path."""
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from lib.files import ROOT

RUN = ROOT / "outputs" / "reference" / "micro_wide"
TASK = RUN / "micro_nli"
SEEDS, OTHERS = range(5), range(5, 10)
IMP = ["imp-20", "imp-40", "imp-60", "imp-70", "imp-85"]
MADE_SMALL = [*IMP, "truncated-3", "truncated-3-alternate", "heads-20"]
REMOVED = [*MADE_SMALL[:-1], "theseus-3", "theseus-3-constant", "heads-20"]


def classes(column):
    """The predicted class of each row of a column of logits, which are less the first class's."""
    beside_first = column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)
    return np.pad(beside_first, ((0, 0), (1, 0))).argmax(axis=1)


@pytest.fixture(scope="module")
def tables():
    """seed -> evaluation rows with one column of predicted classes a model."""
    found = {}
    for seed in (*SEEDS, *OTHERS):
        arrow = pq.read_table(TASK / f"seed{seed}" / "predictions.parquet")
        frame = pd.DataFrame({"guid": arrow["guid"].to_pandas()})
        frame = frame.assign(**{name: classes(arrow[name]) for name in arrow.column_names if name != "guid"})
        found[seed] = pd.read_parquet(TASK / f"seed{seed}" / "items.parquet").merge(frame, on="guid", validate="1:1")
    return found


@pytest.fixture(scope="module")
def ledger():
    table = pd.read_csv(RUN / "09_claims" / "ledger.csv", keep_default_na=False)
    return table[table["task"] == "micro_nli"].set_index("id")


def right(table, model, split):
    part = table[table["split"] == split]
    return 100 * (part[model] == part["label"]).mean()


def kind(table, model, split, follows):
    """Score on the rows of a split that follow the shortcut, or on those that break it."""
    part = table[(table["split"] == split) & (table["is_shortcut"].astype(bool) == follows)]
    return 100 * (part[model] == part["label"]).mean()


def lost_where_it_fails(seed, tables, names):
    """Points lost on rule-breaking OOD rows, the mean over the models that keep the others of dev within a point."""
    apart = {name: np.mean([kind(tables[s], name, "dev", True) - kind(tables[s], "dense", "dev", True) for s in SEEDS]) for name in names}
    return np.mean([kind(tables[seed], "dense", "ood", False) - kind(tables[seed], name, "ood", False)
                    for name in names if abs(apart[name]) <= 1])


def same(table, other, model, split, baseline="dense"):
    """Share of equal labels of a model and a dense model, whose rows may lie in another table."""
    both = table.loc[table["split"] == split, ["guid", model]].merge(other[["guid", baseline]], on="guid", suffixes=("", "_dense"))
    return 100 * (both[model] == both.iloc[:, 2]).mean()


def hidden(table, other, model):
    part = table[table["split"] == "test"].merge(other[["guid", "dense"]].rename(columns={"dense": "answer"}), on="guid")
    lost = abs((part["dense"] == part["label"]).mean() - (part[model] == part["label"]).mean())
    lost_other = abs((part["dense"] == part["label"]).mean() - (part["answer"] == part["label"]).mean())
    return 100 * (((part[model] != part["dense"]).mean() - lost) - ((part["answer"] != part["dense"]).mean() - lost_other))


def attacked(seed, rows, model):
    table = pd.read_parquet(TASK / f"seed{seed}" / "08_loyalty_and_attacks" / "attacks.parquet")
    part = table[table["model"] == model].merge(rows[["guid", "label", model]], on=["guid", "label"])
    was_right = part[part[model] == part["label"]]
    return 100 * (1 - (was_right["correct"] & ~was_right["success"]).mean())


def late(seed, table, models):
    """How often a lost row was learned later than a kept one, by counting all pairs; the mean over models."""
    ood, learned = learned_at(seed, table)
    found = []
    for model in models:
        lost = (ood[model] != ood["label"])[learned.index]
        later, kept = learned[lost].to_numpy()[:, None], learned[~lost].to_numpy()[None]
        found.append(((later > kept) + 0.5 * (later == kept)).mean() - 0.5)
    return np.mean(found)


def rare(seed, table, other, models):
    """Of pairs of a lost and a kept row learned at one time, how often the lost one's kind is the rarer in train; the
    mean over models, less the same of what the other dense model loses."""
    ood, learned = learned_at(seed, table)
    train = pd.read_parquet(TASK / f"seed{seed}" / "train.parquet")
    counts = train[~train["is_shortcut"].astype(bool)]["subcase"].value_counts()
    count = ood["subcase"].map(counts)[learned.index].to_numpy()
    answers = {name: ood[name] for name in models} | {"null": other.set_index("guid")["dense"].reindex(ood.index)}
    found = {}
    for name, answer in answers.items():
        lost, above, pairs = (answer != ood["label"])[learned.index].to_numpy(), 0, 0
        for time in learned.unique():
            here = (learned == time).to_numpy()
            a, b = count[here & lost][:, None], count[here & ~lost][None]
            above, pairs = above + ((a < b) + 0.5 * (a == b)).sum(), pairs + a.size * b.size
        found[name] = above / pairs
    return np.mean([found[name] for name in models]) - found["null"]


def learned_at(seed, table):
    """The OOD rows by guid, and the step from which the dense run has each of those right for good."""
    arrow = pq.read_table(TASK / f"seed{seed}" / "predictions.parquet")
    ood = table[table["split"] == "ood"].set_index("guid")
    guids = arrow["guid"].to_pandas()
    steps = sorted((int(name.split("@")[1]), name) for name in arrow.column_names[1:] if name.startswith("dense@"))
    path = pd.DataFrame({step: classes(arrow[name]) for step, name in steps}, index=guids).reindex(ood.index)
    correct = path.eq(ood["label"], axis=0)
    last = correct.columns[-1]
    learned = pd.Series({guid: min(step for step in correct if row.loc[step:].all())
                         for guid, row in correct[correct[last]].iterrows()})
    return ood, learned


def keep_their_score(tables):
    """The models that lose two points of the ID score at most, in the mean over the seeds."""
    lost = {name: np.mean([right(tables[seed], "dense", "test") - right(tables[seed], name, "test") for seed in SEEDS])
            for name in [*REMOVED, "truncated-3 + distil"]}
    return [name for name, points in lost.items() if points <= 2]


def value(claim, seed, tables):
    table, other = tables[seed], tables[seed + 5]
    def beside(names, baseline, split):
        return np.mean([right(table, name, split) - right(table, baseline, split) for name in names])
    return {
        "A1": lambda: beside(["imp-20", "imp-40"], "dense", "test"),
        "A3": lambda: beside(IMP, "dense", "ood"),
        "A4": lambda: lost_where_it_fails(seed, tables, MADE_SMALL),
        "A7": lambda: lost_where_it_fails(seed, tables, ["imp-70"]),
        "A20": lambda: kind(table, "truncated-3", "ood", False) - kind(table, "truncated-3 + rmc", "ood", False),
        "P1": lambda: same(table, table, "dense + ptq8", "ood") - same(other, table, "dense", "ood"),
        "P2": lambda: np.mean([same(table, table, name, "ood") for name in REMOVED]) - same(other, table, "dense", "ood"),
        "P3": lambda: np.mean([attacked(seed, table, name) - attacked(seed, table, "dense") for name in REMOVED]),
        "B5": lambda: np.mean([hidden(table, other, name) for name in keep_their_score(tables)]),
        "C6": lambda: beside(["truncated-3-2x", "imp-70-2x"], "dense-2x", "ood"),
        "T2": lambda: late(seed, table, [*REMOVED, "ffn-50"]),
        "T9": lambda: rare(seed, table, other, [*REMOVED, "ffn-50"]),
    }[claim]()


@pytest.mark.parametrize("claim", ["A1", "A3", "A4", "A7", "A20", "P1", "P2", "P3", "B5", "C6", "T2", "T9"])
def test_a_second_path_finds_the_same_number_and_interval(claim, tables, ledger):
    values = np.array([value(claim, seed, tables) for seed in SEEDS])
    line = ledger.loc[claim]
    assert values.mean() == pytest.approx(float(line["ours"]), rel=1e-5, abs=1e-6)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    digits = 3 if claim in ("T2", "T9") else 1
    assert line["interval"] == f"[{low:.{digits}f}, {high:.{digits}f}]"
