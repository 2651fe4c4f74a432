"""Candidates: each source gives what it says, best first, and never the word itself or a stop word."""

import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from lib.errors import StudyError
from lib.tasks import microworld
from lib.tasks.grammar import SYNONYMS
from lib.trials import candidates
from lib.trials.candidates import STOP_WORDS, source

# synsets: part of speech, words; each word's senses in the order they stand here, counts in brackets
TINY = ["n big_cat cat(9) feline(3) Felis", "n kitty cat(1)", "n child kid", "n jump(2) bound", "n city town",
        "v jump(7) leap(2) see(1)", "v jump hop stop(1) try", "v kitty", "n pass_word", "r fast(1) quickly not",
        "a fast(3) quick"]
IRREGULAR = {"noun": ["children child"], "verb": ["saw see", "seen see", "stopped stop", "stopping stop", "leapt leap"]}


@pytest.fixture
def tiny(tmp_path):
    """A WordNet folder of the synsets above, in the format of wndb(5WN), without lexnames as Debian's."""
    data, index, counts = defaultdict(str), defaultdict(lambda: defaultdict(list)), []
    numbers = {"n": 1, "v": 2, "a": 3, "r": 4}
    for line in TINY:
        pos, *words = line.split()
        names = [w.partition("(")[0] for w in words]
        offset = len(data[pos].encode())
        listed = " ".join(f"{name} 0" for name in names)
        frames = "01 + 02 00 " if pos == "v" else ""
        data[pos] += f"{offset:08d} 03 {pos} {len(names):02x} {listed} 000 {frames}| a gloss\n"
        for word, name in zip(words, names):
            index[pos][name.lower()].append(offset)
            if "(" in word:
                counts.append(f"{name.lower()}%{numbers[pos]}:03:00:: 1 {word.partition('(')[2][:-1]}")
    for pos, name in candidates.POS.items():
        (tmp_path / f"data.{name}").write_text(data[pos])
        (tmp_path / f"index.{name}").write_text("".join(
            f"{word} {pos} {len(at)} 0 {len(at)} 0 {' '.join(f'{o:08d}' for o in at)}  \n"
            for word, at in sorted(index[pos].items())))
        (tmp_path / f"{name}.exc").write_text("".join(f"{line}\n" for line in sorted(IRREGULAR.get(name, []))))
    (tmp_path / "cntlist.rev").write_text("".join(f"{line}\n" for line in sorted(counts)))
    return str(tmp_path)


def test_synonyms_are_the_lexicons():
    find = source("synonyms", limit=5)
    assert find("doctor") == ["physician"] and find("Physician") == ["doctor"] and find("king") == find("the") == []


def test_each_synonym_keeps_the_label():
    for task in microworld.TASKS:
        rows = microworld.generate(task, seed=0, n_train=64, n_eval=100, n_ood=5, shortcut_rate=0.5)
        for row in rows[rows["split"] != "train"].itertuples():
            for word in set(row.text_b.split()) & set(SYNONYMS):
                for other in source("synonyms", limit=5)(word):
                    text = " ".join(other if w == word else w for w in row.text_b.split())
                    assert microworld.label_of(task, row.text_a, text) == row.label


def test_characters_swap_or_drop_inner_letters():
    find = source("characters", limit=9)
    assert find("Word") == ["wrod", "wrd", "wod"]
    assert find("seen") == ["sen"] and find("dog") == find("1990") == []
    assert source("characters", limit=2)("house") == ["huose", "hosue"]


def test_wordnet_gives_single_words_of_the_commonest_reading(tiny):
    find = source("wordnet", limit=9, wordnet=tiny)
    assert find("cat") == ["feline", "kitty"]
    assert find("jump") == ["leap", "see", "hop", "stop", "try"]  # the verb's count is higher than the noun's
    assert find("fast") == ["quick"]
    assert source("wordnet", limit=9, wordnet=tiny, pos=False)("fast") == ["quick", "quickly"]
    assert source("wordnet", limit=1, wordnet=tiny)("Cat") == ["feline"]
    assert find("unheard") == find("pass_word") == []


def test_wordnet_carries_regular_endings_over_and_no_others(tiny):
    find = source("wordnet", limit=9, wordnet=tiny)
    assert find("cats") == ["felines", "kitties"] and find("cities") == ["towns"]
    assert find("jumping") == ["leaping", "seeing", "hopping", "stopping", "trying"]
    assert find("jumped") == ["hopped", "stopped", "tried"]  # leapt and saw are irregular
    assert find("stopped") == ["jumped", "hopped", "tried"]
    assert find("saw") == find("children") == [] and find("kids") == []


def test_an_installed_wordnet_works():
    if not (candidates.DEBIAN / "data.noun").is_file():
        pytest.skip("no WordNet in /usr/share/wordnet: apt install wordnet-base")
    find = source("wordnet", limit=8, wordnet=str(candidates.DEBIAN))
    assert "physician" in find("doctor") and "physicians" in find("doctors")
    assert "halted" in find("stopped") and find("left") == find("children") == [] and "bank" not in find("banks")


def test_wordnet_is_looked_for_and_named_where_absent(monkeypatch, tmp_path, tiny):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "none")])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    monkeypatch.setattr(candidates, "DEBIAN", Path(tiny))
    assert source("wordnet", limit=1)("cat") == ["feline"]
    monkeypatch.setattr(candidates, "DEBIAN", tmp_path / "absent")
    with pytest.raises(StudyError, match="apt install wordnet-base, or nltk.download.* or give wordnet: FOLDER"):
        source("wordnet", limit=1)
    with pytest.raises(StudyError, match="wordnet: .*absent holds no data.noun"):
        source("wordnet", limit=1, wordnet=str(tmp_path / "absent"))
    Path(tiny, "index.verb").unlink()
    with pytest.raises(StudyError, match="cannot be read"):
        source("wordnet", limit=1, wordnet=tiny)


@pytest.mark.parametrize("zipped", [False, True])
def test_nltks_own_data_come_first(monkeypatch, tmp_path_factory, tmp_path, tiny, zipped):
    nltk = pytest.importorskip("nltk")
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny, home / "corpora" / "wordnet")
    if zipped:
        shutil.make_archive(home / "corpora" / "wordnet", "zip", home / "corpora", "wordnet")
        shutil.rmtree(home / "corpora" / "wordnet")
    monkeypatch.setattr(nltk.data, "path", [str(home)])
    monkeypatch.setattr(candidates, "DEBIAN", tmp_path / "absent")
    assert source("wordnet", limit=2)("cats") == ["felines", "kitties"]


VECTORS = "4 2\ncat 1 0\nFeline 1 0.1\nkitty 1 0.5\ndog 0 1\nnot 1 0\n"


def test_vectors_give_neighbours_by_cosine(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(VECTORS)
    assert source("vectors", limit=5, vectors=str(path))("Cat") == ["feline", "kitty"]
    assert source("vectors", limit=1, vectors=str(path))("cat") == ["feline"]
    assert source("vectors", limit=5, vectors=str(path), min_cosine=0.9)("cat") == ["feline"]
    assert source("vectors", limit=5, vectors=str(path))("horse") == []


@pytest.mark.parametrize("text, match", [("cat 1 0\ndog 1\n", "line 2 of .* has 1 values, not 2"),
                                         ("cat 1 x\n", "line 1 of .* is no `word v1 v2 ...`"), ("", "is empty"),
                                         ("cat 1 0\n\n", "line 2 of .* has 0 values")])
def test_vector_files_at_fault_name_the_line(tmp_path, text, match):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(StudyError, match=match):
        source("vectors", limit=5, vectors=str(path))


def test_mistakes_are_named():
    with pytest.raises(StudyError, match="did you mean 'wordnet'"):
        source("wordnets", limit=5)
    with pytest.raises(StudyError, match="attack_candidates is 0"):
        source("synonyms", limit=0)
    with pytest.raises(StudyError, match="vectors: there is no file ''"):
        source("vectors", limit=5)


def test_negations_are_stop_words():
    assert {"not", "no", "never", "neither", "nor", "if", "before", "unlike"} <= STOP_WORDS
