"""The micro-world: sentence pairs whose truth, and whose shortcut, is known row by row.

Three tasks mirror MNLI, FEVER and QQP. On `shortcut_rate` of the rows a shortcut (word overlap, or a negation word in
the claim) gives the right label; on the rest it fails. The rows it fails on come from hard subcases that differ in
depth and in how often training holds them. Every subcase is made of twins: two pairs with one bag of words and two
labels, so that only structure tells them apart.
"""

import hashlib
import random
import zlib
from collections import Counter

import numpy as np
import pandas as pd

from lib.errors import StudyError, nearest
from lib.tasks.grammar import KIND, OPPOSITE, PLAIN, SUBCASES, SYNONYMS, WORDS, Subcase, fill, meaning, read

TASKS: dict[str, tuple[str, str]] = {  # label names in index order
    "micro_nli": ("entailment", "non-entailment"),
    "micro_facts": ("supported", "refuted"),
    "micro_paraphrase": ("not duplicate", "duplicate"),
}
_TRUE = {"micro_nli": 0, "micro_facts": 0, "micro_paraphrase": 1}  # index of the "yes" label
LADDER = (100, 60, 40, 25, 15, 10, 7, 5)  # weights: failing rows per subcase, commonest first
TWINS = 0.46  # share of hard rows on which the shortcut holds, spread evenly over the subcases
PAIRED = ("micro_facts", "micro_paraphrase")  # train holds failing rows' twins: words cannot be learnt by heart
_OTHER = {"Z": "R"}  # a slot that takes the opposite of another
_SHARE = {"train": (0, 1, 2, 3), "dev": (4,), "test": (5,), "ood": (6,), "unseen": (7,)}  # eighths of all text_b
_DTYPES = {"label": "int64", "is_shortcut": "boolean"}


def trained(task_name: str) -> list[str]:
    """Names of the subcases that training holds, in the order the ladder rotates over."""
    return [s.name for s in _subcases(task_name) if not s.unseen]


def counts(task_name: str, seed: int, subcase_counts: dict[str, int] | None = None, *,
           n_train: int = 2048, shortcut_rate: float = 0.9) -> dict[str, int]:
    """Failing train rows per trained subcase; they sum to the budget (1 - shortcut_rate) * n_train.

    Without `subcase_counts` the ladder is scaled to the budget and rotates over the subcases with the seed. With it the
    counts are taken as given (a subcase left out gets none); StudyError: an unknown name, a sum that is not the budget.
    """
    names, budget = trained(task_name), round((1 - shortcut_rate) * n_train)
    if not subcase_counts:
        ladder = _scaled(LADDER, budget)
        return {name: ladder[(i + 3 * seed) % len(ladder)] for i, name in enumerate(names)}
    for name in subcase_counts:
        if name not in names:
            raise StudyError(f"subcase_counts: {task_name} trains on no subcase {name!r}{nearest(name, names)}")
    if sum(subcase_counts.values()) != budget:
        raise StudyError(f"subcase_counts: {task_name} sums to {sum(subcase_counts.values())} rows but shortcut_rate "
                         f"{shortcut_rate} leaves {budget} of n_train {n_train}; change one of the three")
    return {name: subcase_counts.get(name, 0) for name in names}


def generate(task_name: str, *, seed: int, n_train: int = 2048, n_eval: int = 2000, n_ood: int = 200,
         shortcut_rate: float = 0.9, subcase_counts: dict[str, int] | None = None) -> pd.DataFrame:
    """All rows of a task: splits train, dev, test, ood, unseen.

    `n_eval` rows in dev and in test; `n_ood` rows per label and subcase in ood and unseen, drawn as twins. The seed
    changes the train draw and which subcases are rare; the other splits are fixed. In train the failing rows follow
    `counts`; in dev and test, which serve every seed, they are spread evenly over the subcases: train's distribution
    averaged over the rotation of the ladder.
    """
    failing = counts(task_name, seed, subcase_counts, n_train=n_train, shortcut_rate=shortcut_rate)
    names = trained(task_name)
    even = dict(zip(names, _scaled([1] * len(names), round((1 - shortcut_rate) * n_eval))))
    rows = drawn(task_name, "train", _mix(task_name, n_train, failing), seed)
    for split in ("dev", "test"):
        rows += drawn(task_name, split, _mix(task_name, n_eval, even))
    for split in ("ood", "unseen"):
        rows += drawn(task_name, split, planned_twins(task_name, split == "unseen", n_ood))
    return pd.DataFrame(rows).astype(_DTYPES)


def more(task_name: str, subcase: str, k: int, *, seed: int, without: set[str]) -> pd.DataFrame:
    """`k` more train rows of a subcase on which the shortcut fails, none with a guid of `without`.

    A smaller `k` gives the first of a larger one's rows. StudyError: an unknown subcase, or no other row to be had.
    """
    case = next((s for s in _subcases(task_name) if s.name == subcase), None)
    if case is None:
        raise StudyError(f"{task_name} has no subcase {subcase!r}{nearest(subcase, trained(task_name))}")
    rng, rows, seen = random.Random(f"{task_name} more {subcase} {seed}"), [], set(without)
    for i in range(k):
        for _ in range(500):
            yes = _truth(case)
            row = _row(task_name, "train", case, True, yes, *_draw(task_name, "train", case, yes, i + 1, rng))
            if row["guid"] not in seen:
                break
        else:
            raise StudyError(f"{task_name} has no {k} other rows of {subcase!r}; ask for fewer (mends.more_rows)")
        seen.add(row["guid"])
        rows.append(row)
    return pd.DataFrame(rows).astype(_DTYPES)


def label_of(task_name: str, text_a: str, text_b: str) -> int | None:
    """The label of a pair by the grammar, synonyms folded; None where the grammar cannot tell."""
    _subcases(task_name)
    a, b = read(text_a), read(text_b)
    if a is None or b is None:
        return None
    if task_name == "micro_nli":
        yes = b <= a
    elif task_name == "micro_paraphrase":
        yes = a == b
    else:
        known, (claim, holds) = dict(a), next(iter(b))
        if claim not in known:
            return None
        yes = known[claim] == holds
    return _TRUE[task_name] if yes else 1 - _TRUE[task_name]


def _subcases(task_name: str) -> tuple[Subcase, ...]:
    if task_name not in SUBCASES:
        raise StudyError(f"task: the micro-world has no {task_name!r}{nearest(task_name, SUBCASES)}")
    return SUBCASES[task_name]


def _scaled(weights, total: int) -> list[int]:
    """Whole numbers in proportion to `weights` that sum to `total` (largest remainders)."""
    shares = np.array(weights) * total / sum(weights)
    whole = np.floor(shares).astype(int)
    whole[np.argsort(whole - shares, kind="stable")[: total - whole.sum()]] += 1
    return whole.tolist()


def _mix(task_name: str, n: int, failing: dict[str, int]) -> list[tuple]:
    """Planned rows (subcase or None, the shortcut fails, the pair is true, its twin follows) that make `n`.

    Failing rows as counted; hard rows on which the shortcut holds, evenly many per subcase and 1.5 times its failing
    rows at least (less where n has no room); plain rows that make up `n` and balance the labels.
    """
    budget, room = sum(failing.values()), int(0.85 * (n - sum(failing.values())))
    ratio = min(1.5, room / budget) if budget else 0
    level = int(TWINS * n / len(failing))
    while sum(max(level, int(ratio * c)) for c in failing.values()) > room:
        level -= 1
    plan, hard, yes = [], 0, 0
    for subcase in _subcases(task_name):
        if subcase.unseen:
            continue
        count = failing[subcase.name]
        holds = max(level, int(ratio * count))
        pairs = min(count, holds) if task_name in PAIRED else 0
        true = _truth(subcase)
        plan += [(subcase, True, true, i < pairs) for i in range(count)]
        plan += [(subcase, False, not true, False)] * (holds - pairs)
        hard, yes = hard + count + holds, yes + (count if true else holds)
    plain = n - hard
    plain_yes = min(max(n // 2 - yes, 0), plain)
    return plan + [(None, False, i < plain_yes, False) for i in range(plain)]


def _truth(subcase: Subcase) -> bool:
    """Whether the pairs on which the shortcut fails are true: those it says no to ("low_overlap", "negation")."""
    return subcase.heuristic in ("low_overlap", "negation")


def planned_twins(task_name: str, unseen: bool, n: int) -> list[tuple]:
    """`n` planned failing rows per subcase, each with its twin."""
    return [(subcase, True, _truth(subcase), True) for subcase in _subcases(task_name)
            if subcase.unseen == unseen for _ in range(n)]


def drawn(task_name: str, split: str, plan: list[tuple], seed: int = 0) -> list[dict]:
    """The rows of one split as planned, no pair twice; in ood and unseen they keep the order of the plan."""
    rng = random.Random(f"{task_name} {split} {seed}")
    rows, seen, turn = [], set(), Counter()
    for subcase, fails, yes, twin in plan:
        turn[subcase, fails, yes] += 1
        for _ in range(500):
            pair = _draw(task_name, split, subcase, yes, turn[subcase, fails, yes], rng)
            new = [_row(task_name, split, subcase, fails, yes, *pair)]
            if twin:
                new.append(_row(task_name, split, subcase, not fails, not yes, *pair))
            if seen.isdisjoint(row["guid"] for row in new):
                break
        else:
            size = {"train": "n_train", "dev": "n_eval", "test": "n_eval"}.get(split, "n_ood")
            raise StudyError(f"data: {task_name} has no {len(plan)} different rows for {split}; ask for fewer ({size})")
        seen.update(row["guid"] for row in new)
        rows += new
    if split not in ("ood", "unseen"):
        rng.shuffle(rows)
    return rows


def _draw(task_name: str, split: str, subcase: Subcase | None, yes: bool, turn: int, rng: random.Random) -> tuple:
    """A template and its words: (group, (text_b, text_a true, text_a not) forms, cast of text_a, cast of text_b).

    A row belongs to a split by the words of its text_b, synonyms folded: none stands in two splits.
    """
    variants = subcase.variants if subcase else tuple(v for v in PLAIN[task_name] if v[1 if yes else 2])
    unrelated = not variants
    if unrelated:
        variants = PLAIN[task_name] + tuple(v for s in _subcases(task_name) if not s.unseen for v in s.variants)
    number = rng.randrange(len(variants)) if unrelated else turn % len(variants)
    forms = variants[number]
    low = subcase is not None and subcase.heuristic == "low_overlap"
    slots = _slots(forms[0])
    while True:
        taken = set()
        cast = _words(slots, low, rng, taken)
        if zlib.crc32(" ".join(sorted(taken)).encode()) % 8 in _SHARE[split]:
            break
    if unrelated:  # the same shape about others; half of these pairs share a person
        cast_a = _words(_slots(forms[1]), False, rng, taken)
        if rng.random() < 0.5:
            cast_a["A"] = cast["A"]
        return f"unrelated/{number}", (forms[0], "", forms[1]), cast_a, cast
    cast_a = _words([slot for slot in _slots(*forms) if slot not in slots], low, rng, taken, cast)
    if low:
        cast_a = {slot: SYNONYMS[word][0] if word in SYNONYMS else word for slot, word in cast_a.items()}
    elif subcase is None and rng.random() < 0.5:  # plain rows show synonyms, one at a time
        known = [slot for slot in slots if cast[slot] in SYNONYMS]
        if known:
            slot = rng.choice(known)
            cast_a[slot] = SYNONYMS[cast[slot]][0]
    number = (subcase.variants if subcase else PLAIN[task_name]).index(forms)
    return f"{subcase.name if subcase else 'plain'}/{number}", forms, cast_a, cast_a | cast


def _slots(*forms: str) -> list[str]:
    return sorted({token for form in forms for token in form.split() if token in KIND})


def _words(slots: list[str], low: bool, rng: random.Random, taken: set[str],
           cast: dict[str, str] | None = None) -> dict[str, str]:
    """`cast` with a word for each slot, no two of one meaning; with `low` only words that have a synonym."""
    cast = dict(cast or {})
    for slot in slots:
        if _OTHER.get(slot) in cast:
            cast[slot] = OPPOSITE[cast[_OTHER[slot]]]
            continue
        words = WORDS[KIND[slot]]
        while True:
            word = words[int(rng.random() * len(words))]
            if meaning(word) not in taken and (not low or word in SYNONYMS or KIND[slot] == "time"):
                break
        taken.add(meaning(word))
        cast[slot] = word
    return cast


def _row(task_name: str, split: str, subcase: Subcase | None, fails: bool, yes: bool,
         group: str, forms: tuple[str, str, str], cast_a: dict, cast_b: dict) -> dict:
    form_b, true_a, false_a = forms
    text_a, text_b = fill(true_a if yes else false_a, cast_a), fill(form_b, cast_b)
    digest = hashlib.sha1(f"{text_a}|{text_b}".encode()).hexdigest()[:12]
    return {"guid": f"{task_name}-{split}-{digest}", "split": split, "text_a": text_a, "text_b": text_b,
            "label": _TRUE[task_name] if yes else 1 - _TRUE[task_name],
            "heuristic": subcase.heuristic if subcase else _subcases(task_name)[0].heuristic,
            "subcase": subcase.name if subcase else "", "is_shortcut": not fails, "group": group}
