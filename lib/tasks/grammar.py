"""The micro-world's language: a small lexicon, sentence forms, and what each form asserts.

A form is a sentence with slots (`the A V the B`) and the facts it asserts (`A V B`, a leading `-` denies one). Reading
a sentence gives those facts in the words of the lexicon, synonyms folded together, so that the truth of a pair can be
worked out again from its two strings alone.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

PEOPLE_PAIRS = (
    "doctor physician, lawyer attorney, writer author, student pupil, child kid, woman lady, boy lad, thief robber, "
    "teacher instructor, singer vocalist, sailor seaman, wizard sorcerer, scientist researcher, reporter journalist, "
    "father dad, mother mom, stranger outsider, enemy foe, winner victor, pilot aviator, infant baby")
PEOPLE_ALONE = "king queen poet priest banker judge farmer baker guard nurse cook artist clown spy knight butcher"
VERB_PAIRS = (
    "helped aided, hit struck, pulled dragged, scared frightened, picked selected, hired employed, pushed shoved, "
    "saved rescued, followed trailed, noticed spotted, attacked assaulted, praised lauded, hated despised, "
    "loved adored, tricked fooled, annoyed irritated, chased pursued, caught captured")
VERBS_ALONE = "watched trusted admired visited blamed greeted called copied ignored welcomed"
ACT_PAIRS = ("smiled grinned, cried wept, shouted yelled, screamed shrieked, left departed, vanished disappeared, "
             "stumbled tripped")
ACTS_ALONE = "slept danced sang arrived coughed prayed laughed waited"
QUALITY_PAIRS = ("rich wealthy, happy glad, sad unhappy, sick ill, dirty filthy, old elderly, thin slim, quiet silent, "
                 "fat plump, nervous anxious")
OPPOSITES = ("rich poor, tall short, old young, happy sad, strong weak, dirty clean, loud quiet, nervous calm, "
             "busy idle, sick healthy, fat thin, drunk sober, guilty innocent")
DEGREES = ("taller shorter, older younger, richer poorer, stronger weaker, faster slower, bigger smaller, "
           "heavier lighter")


def _pairs(text: str) -> list[tuple[str, str]]:
    return [tuple(pair.split()) for pair in text.split(",")]


_SYNONYM_PAIRS = [p for text in (PEOPLE_PAIRS, VERB_PAIRS, ACT_PAIRS, QUALITY_PAIRS) for p in _pairs(text)]
# word -> its true synonyms in the lexicon; putting one for the other changes no label
SYNONYMS: dict[str, tuple[str, ...]] = {a: (b,) for a, b in _SYNONYM_PAIRS} | {b: (a,) for a, b in _SYNONYM_PAIRS}
_FOLD = {b: a for a, b in _SYNONYM_PAIRS}
_DENIES = {b: a for a, b in _pairs(OPPOSITES)}  # "is short" denies "is tall"
_TURNS = {b: a for a, b in _pairs(DEGREES)}  # "shorter" is "taller" with its two nouns turned round
OPPOSITE = {**_DENIES, **_TURNS} | {a: b for b, a in {**_DENIES, **_TURNS}.items()}

WORDS: dict[str, tuple[str, ...]] = {
    "person": tuple(re.split(r",?\s+", PEOPLE_PAIRS)) + tuple(PEOPLE_ALONE.split()),
    "verb": tuple(re.split(r",?\s+", VERB_PAIRS)) + tuple(VERBS_ALONE.split()),
    "act": tuple(re.split(r",?\s+", ACT_PAIRS)) + tuple(ACTS_ALONE.split()),
    "quality": tuple(re.split(r",?\s+", OPPOSITES)),
    "degree": tuple(re.split(r",?\s+", DEGREES)),
    "time": ("today", "yesterday", "again", "once"),
    "thing": ("book", "car", "house", "boat", "ring", "horse", "piano", "watch"),
}
_SLOTS = {"person": "ABCD", "verb": "VW", "act": "STU", "quality": "P", "degree": "RZ", "time": "N", "thing": "G"}
KIND = {slot: kind for kind, slots in _SLOTS.items() for slot in slots}  # what a slot of a form takes

# form -> facts. Only what is asserted stands here: nothing said under "if" does.
FORMS: dict[str, str] = {
    # events
    "the A V the B": "A V B",
    "N the A V the B": "A V B, N A V B",
    "the A V the B N": "A V B, N A V B",
    "the A S": "A S",
    "the A S N": "A S, N A S",
    "N the A S": "A S, N A S",
    "the A S and the B T": "A S, B T",
    "the B was V by the A": "A V B",
    "it was the A that V the B": "A V B",
    "it was the B that was V by the A": "A V B",
    "it was true that the A V the B": "A V B",
    "the B was the one that was V by the A": "A V B",
    "it was the B that the A V": "A V B",
    "the A near the B V the C": "A V C, A near B",
    "the A V the B near the C": "A V B, B near C",
    "the A that W the B V the C": "A W B, A V C",
    "the C V the A that W the B": "C V A, A W B",
    "the A that the B W V the C": "B W A, A V C",
    "the C V the A that the B W": "C V A, B W A",
    "the A sold the G to the B": "A sold G B",
    "the A sold the B the G": "A sold G B",
    "the A forced the B to help the C": "A forced B, B had C",
    "the B was forced by the A to help the C": "A forced B, B had C",
    "the A had to help the B": "A had B",
    # order and condition: what stands under "if" is not asserted by itself
    "the A S and if the B T the C U": "A S, if B T C U",
    "if the A S the B T but the C U": "C U, if A S B T",
    "if the A S the B T": "if A S B T",
    "the B T if the A S": "if A S B T",
    # states
    "the A was P": "A was P",
    "the A was not P": "-A was P",
    "the A was P N": "A was P, N A was P",
    "N the A was P": "A was P, N A was P",
    "the A was P and the B S": "A was P, B S",
    "the B S and the A was P": "A was P, B S",
    "the A was P but the B was not": "A was P, -B was P",
    "the A was P and the B was not": "A was P, -B was P",
    "the A was P not the B": "A was P, -B was P",
    "the C knew that the A was P but the B was not": "A was P, -B was P",
    "the A that was P V the B that was not": "A was P, -B was P, A V B",
    "the A that the C V was P but the B was not": "A was P, -B was P, C V A",
    "unlike the B the A was P": "A was P, -B was P",
    "it was the A not the B that was P": "A was P, -B was P",
    "the A was not P but the B was": "-A was P, B was P",
    "it was true that the A was P but false that the B was": "A was P, -B was P",
    "the A was R than the B": "A R B",
}


@dataclass(frozen=True)
class Subcase:
    """A hard template. Each variant is (text_b, text_a that makes it true, its twin that does not)."""

    name: str
    depth: int
    heuristic: str  # "overlap": true when the shortcut holds; "low_overlap", "negation": false then
    variants: tuple[tuple[str, str, str], ...]
    unseen: bool = False


_AVB = "the A V the B"
_AWP = "the A was P"
_NOT = "the B was not P"
_HAD = "the A had to help the B"
SUBCASES: dict[str, tuple[Subcase, ...]] = {
    "micro_nli": (
        Subcase("swap", 1, "overlap", (
            (_AVB, "N the A V the B", "N the B V the A"),
            (_AVB, "the A V the B N", "the B V the A N"))),
        Subcase("relative", 3, "overlap", (
            (_AVB, "the A that W the C V the B", "the C that W the A V the B"),
            (_AVB, "the C W the A that V the B", "the A W the C that V the B"))),
        Subcase("synonym", 1, "low_overlap", (
            (_AVB, "N the A V the B", "N the B V the A"),
            (_AVB, "the A V the B N", "the B V the A N"))),
        Subcase("conditional", 3, "overlap", (
            ("the A S", "the A S and if the C T the D U", "the D S and if the A T the C U"),
            ("the A S", "if the C T the D U but the A S", "if the A S the C U but the D T"))),
        Subcase("preposition", 2, "overlap", (
            (_AVB, "the A near the C V the B", "the C near the A V the B"),
            (_AVB, "the A V the B near the C", "the A V the C near the B"))),
        Subcase("object_relative", 4, "overlap", (
            (_AVB, "the A that the C W V the B", "the C that the A W V the B"),
            (_AVB, "the C W the B that the A V", "the C W the A that the B V"))),
        Subcase("passive", 2, "overlap", (
            (_AVB, "the B was V by the A", "the A was V by the B"),)),
        Subcase("synonym_passive", 3, "low_overlap", (
            (_AVB, "the B was V by the A", "the A was V by the B"),)),
        Subcase("cleft", 3, "overlap", (
            (_AVB, "it was the A that V the B", "it was the B that V the A"),
            (_AVB, "it was the B that the A V", "it was the A that the B V")), unseen=True),
        Subcase("control", 4, "overlap", (
            (_HAD, "the C forced the A to help the B", "the A forced the C to help the B"),
            (_HAD, "the A was forced by the C to help the B", "the C was forced by the A to help the B")), unseen=True),
    ),
    "micro_facts": (
        Subcase("conjunction", 1, "negation", (
            (_NOT, "the A was P and the B was not", "the B was P and the A was not"),)),
        Subcase("relative", 3, "negation", (
            (_NOT, "the A that was P V the B that was not", "the B that was P V the A that was not"),)),
        Subcase("contrast", 2, "negation", (
            (_NOT, "unlike the B the A was P", "unlike the A the B was P"),)),
        Subcase("object_relative", 4, "negation", (
            (_NOT, "the A that the C V was P but the B was not", "the B that the C V was P but the A was not"),)),
        Subcase("gapping", 2, "negation", (
            (_NOT, "the A was P not the B", "the B was P not the A"),)),
        Subcase("cleft", 3, "negation", (
            (_NOT, "it was the A not the B that was P", "it was the B not the A that was P"),)),
        Subcase("ellipsis", 1, "negation", (
            (_NOT, "the A was P but the B was not", "the B was P but the A was not"),)),
        Subcase("factive", 4, "negation", (
            (_NOT, "the C knew that the A was P but the B was not", "the C knew that the B was P but the A was not"),)),
        Subcase("reversed", 2, "negation", (  # the one who was not comes first: word order alone does not serve
            (_NOT, "the B was not P but the A was", "the A was not P but the B was"),), unseen=True),
        Subcase("complement", 4, "negation", (
            (_NOT, "it was true that the A was P but false that the B was",
             "it was true that the B was P but false that the A was"),), unseen=True),
    ),
    "micro_paraphrase": (
        Subcase("swap", 1, "overlap", (
            ("the A V the B N", "N the A V the B", "N the B V the A"),
            ("N the A V the B", "the A V the B N", "the B V the A N"))),
        Subcase("passive", 2, "overlap", (
            (_AVB, "the B was V by the A", "the A was V by the B"),)),
        Subcase("passive_equative", 3, "overlap", (
            (_AVB, "the B was the one that was V by the A", "the A was the one that was V by the B"),)),
        Subcase("cleft", 3, "overlap", (
            (_AVB, "it was the A that V the B", "it was the B that V the A"),)),
        Subcase("comparative", 2, "overlap", (
            ("the A was R than the B", "the B was Z than the A", "the A was Z than the B"),)),
        Subcase("synonym", 1, "low_overlap", (
            (_AVB, _AVB, "the B V the A"),)),
        Subcase("complement", 2, "overlap", (
            (_AVB, "it was true that the A V the B", "it was true that the B V the A"),)),
        Subcase("passive_cleft", 4, "overlap", (
            (_AVB, "it was the B that was V by the A", "it was the A that was V by the B"),)),
        Subcase("dative", 3, "overlap", (
            ("the A sold the B the G", "the A sold the G to the B", "the B sold the G to the A"),
            ("the A sold the G to the B", "the A sold the B the G", "the B sold the A the G")), unseen=True),
        Subcase("conditional", 3, "overlap", (
            ("if the A S the B T", "the B T if the A S", "the A S if the B T"),
            ("the B T if the A S", "if the A S the B T", "if the B T the A S")), unseen=True),
    ),
}
# pairs that hold no trap, as in Subcase.variants; no twin. Where no form makes text_b false, others' words do
PLAIN: dict[str, tuple[tuple[str, str, str], ...]] = {
    "micro_nli": (
        (_AVB, "the A V the B N", ""), (_AVB, "N the A V the B", ""),
        ("the A S", "the A S N", ""), ("the A S", "the A S and the B T", "")),
    "micro_facts": (
        (_AWP, "the A was P N", ""), (_AWP, "N the A was P", ""),
        (_AWP, "the A was P and the B S", ""), (_AWP, "the B S and the A was P", ""),
        ("the A was not P", "", "the A was P N"), ("the A was not P", "", "N the A was P"),
        ("the A was not P", "", "the A was P and the B S"), ("the A was not P", "", "the B S and the A was P")),
    "micro_paraphrase": (
        ("the A S N", "N the A S", ""), ("N the A S", "the A S N", ""),
        ("the A was P N", "N the A was P", ""), ("N the A was P", "the A was P N", "")),
}


def meaning(word: str) -> str:
    """The word that stands for `word` and its synonyms."""
    return _FOLD.get(word, word)


def _fact(words: tuple[str, ...], holds: bool) -> tuple[tuple[str, ...], bool]:
    """One fact in canonical words with its truth value."""
    words = tuple(meaning(w) for w in words)
    if words[-1] in _DENIES:
        words, holds = (*words[:-1], _DENIES[words[-1]]), not holds
    if words[1] in WORDS["degree"]:  # of two, one is the taller: "A taller B" is "not B taller A"
        first, degree, second = words if words[1] not in _TURNS else (words[2], _TURNS[words[1]], words[0])
        words, holds = ((first, degree, second), holds) if first < second else ((second, degree, first), not holds)
    return words, holds


@lru_cache(maxsize=None)
def _reader(form: str) -> re.Pattern:
    def slot(token: str) -> str:
        if token not in KIND:
            return token
        words = {same for word in WORDS[KIND[token]] for same in (word, *SYNONYMS.get(word, ()))}
        return f"(?P<{token}>{'|'.join(sorted(words))})"
    return re.compile(" ".join(slot(t) for t in form.split()))


@lru_cache(maxsize=65536)
def read(sentence: str) -> frozenset | None:
    """Facts that `sentence` asserts: a set of ((word, ...), holds), or None outside the grammar."""
    for form, facts in FORMS.items():
        match = _reader(form).fullmatch(sentence)
        if match:
            cast = match.groupdict()
            return frozenset(_fact(tuple(cast.get(token, token) for token in fact.lstrip("-").split()), fact[0] != "-")
                             for fact in facts.split(", "))
    return None


def fill(form: str, cast: dict[str, str]) -> str:
    """The sentence that puts the words of `cast` (slot -> word) in the slots of `form`."""
    return " ".join(cast.get(token, token) for token in form.split())
