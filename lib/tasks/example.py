"""An example of a reader's own task (notebook 11): sentences from templates, and the YAML file that declares them.

A review speaks of two things; asked is what it says of one of them. Most reviews praise both or complain of both, so
that the review alone gives the label: the shortcut. In the mixed ones, few in train and all of the OOD set, it praises
one thing and complains of the other, and every review is asked of both: who does not look at the thing asked scores
chance.
"""

import random
from pathlib import Path

from lib import files
from lib.params.schema import EXAMPLE_TASK

THINGS = ("battery", "screen", "keyboard", "camera", "speaker", "charger", "hinge", "cable", "remote", "stand")
SAYS = {
    "pos": ("works perfectly", "is excellent", "is better than I hoped", "was worth the money", "feels solid",
            "never let me down", "does its job well", "is a pleasure to use"),
    "neg": ("broke within a week", "is terrible", "is worse than I feared", "was a waste of money", "feels cheap",
            "let me down at once", "hardly works", "is a pain to use"),
}
OPENINGS = ("", "It was a present. ", "I bought it in March. ", "I use it every day. ", "We have it in the kitchen. ")
REVIEWS = {"train": 800, "test": 120, "mixed": 120}
COLUMNS = ("review_id", "thing", "review", "opinion")
MIXED = 0.2  # share of mixed reviews in test, and in train unless told: the shortcut is right on nine rows of ten

YAML = f"""\
name: {EXAMPLE_TASK}                        # the name of this file, without .yaml
labels: {{pos: praise, neg: complaint}}     # what the files write: the name of the class
columns:                                  # what the study calls a column: what the files call it
  text_a: thing
  text_b: review
  label: opinion
  group: review_id                        # rows of one group hang together: none is torn apart for dev
files:                                    # .tsv .csv .jsonl .parquet; paths count from this file
  train: train.tsv
  test: test.tsv                          # as train is: the ID score
ood:                                      # one set or several, where the easy way to the label fails
  mixed: {{file: mixed.tsv}}
shortcut: b_only                          # the easy way: text_b alone; or a_only; or overlap, of the words of both
licence: that of this project
source: made by lib.tasks.example
caveats: >-
  Template sentences of this project, an example of the format and no data set. Every review is asked of both \
things that
  it names, so its two rows share a group.
"""


def write(path: Path, mixed: float = MIXED) -> None:
    """Write the task file and, beside it, the three tables that it names; the same ones every time.

    mixed: share of train's reviews in which the shortcut fails.
    """
    rng, seen = random.Random(EXAMPLE_TASK), set()
    for split, share in (("train", mixed), ("test", MIXED), ("mixed", 1.0)):
        lines = ["\t".join(COLUMNS)]
        kinds = ["mixed"] * round(share * REVIEWS[split])
        kinds += [("pos", "neg")[i % 2] for i in range(REVIEWS[split] - len(kinds))]
        rng.shuffle(kinds)
        for number, kind in enumerate(kinds):
            lines += _review(f"{split}-{number}", kind, seen, rng)
        _put(path.parent / f"{split}.tsv", "\n".join(lines) + "\n")
    _put(path, YAML)


def _review(name: str, kind: str, seen: set[str], rng: random.Random) -> list[str]:
    """The two lines of a review that is not `seen` yet: of each thing in it what it says."""
    while True:
        opinions = rng.sample(("pos", "neg"), 2) if kind == "mixed" else (kind, kind)
        things = rng.sample(THINGS, 2)
        clauses = [f"The {thing} {rng.choice(SAYS[opinion])}." for thing, opinion in zip(things, opinions)]
        review = rng.choice(OPENINGS) + " ".join(clauses)
        if review not in seen:
            seen.add(review)
            return ["\t".join((name, thing, review, opinion)) for thing, opinion in zip(things, opinions)]


def _put(path: Path, text: str) -> None:
    with files.whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
