"""Conditions on a verdict's numbers, such as `ood_drop > 2 or changed > 10%`: what a build fails on.

`ood_drop`, `id_drop` (parent less model) and `gap` (its growth) are in points. `changed` (share of answers that are not
the parent's) and `loyalty` (probability loyalty) are over all rows of the ID and the OOD score: a number up to 1 is a
share, above 1, or with a % behind it, a percentage. `kl` is in nats.
"""

import re
from dataclasses import dataclass

import numpy as np

from lib.analysis.verdict import Verdict
from lib.errors import StudyError, nearest

MEASURES = {"ood_drop": ("score", "ood", "difference", -100, "points"),
            "id_drop": ("score", "id", "difference", -100, "points"),
            "gap": ("score", "gap", "difference", 100, "points"),
            "changed": ("changed", "all", "model", 100, "%"),
            "loyalty": ("probability_loyalty", "all", "model", 100, "%"),
            "kl": ("kl", "all", "model", 1, "nats")}
ABSENT = {"ood_drop": "no OOD set was given", "gap": "no OOD set was given"}
FORM = re.compile(r"([a-z_]+)\s*([<>])\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+))\s*(%?)")


@dataclass(frozen=True)
class Condition:
    """One comparison; limit in the measure's unit."""

    measure: str
    is_above: bool
    limit: float

    def __str__(self) -> str:
        unit = MEASURES[self.measure][4]
        return f"{self.measure} {'>' if self.is_above else '<'} {self.limit:g} {unit}"

    def value(self, verdict: Verdict, on: str) -> float:
        """The number that is compared. on: `estimate`, or `interval`: the end of it that is nearer to the limit."""
        measure, where, of, scale, _ = MEASURES[self.measure]
        found = verdict.at(measure, where, of)
        ends = np.sort(scale * np.array([found["low"], found["high"]], dtype=float))
        return scale * float(found["value"]) if on == "estimate" else float(ends[0 if self.is_above else 1])

    def is_met(self, verdict: Verdict, on: str) -> bool:
        """StudyError where the number was not measured."""
        value = self.value(verdict, on)
        if np.isnan(value):
            why = ABSENT.get(self.measure, "it needs scores of both models, not labels alone")
            raise StudyError(f"--fail-if '{self}': {self.measure} was not measured: {why}; take another condition")
        return value > self.limit if self.is_above else value < self.limit


def parse(text: str) -> list[Condition]:
    """The conditions of a text, of which one must be met. StudyError: not readable, or one that can never be met."""
    return [_one(part.strip(), text) for part in re.split(r"\bor\b", text)]


def _one(part: str, text: str) -> Condition:
    form = FORM.fullmatch(part)
    if not form:
        raise StudyError(f"--fail-if '{text}': '{part}' is no condition; write MEASURE > NUMBER or MEASURE < NUMBER, "
                         f"joined by or, with a measure of {', '.join(MEASURES)}")
    measure, sign, number, percent = form.groups()
    if measure not in MEASURES:
        raise StudyError(f"--fail-if '{text}': no measure is called '{measure}'{nearest(measure, MEASURES)}")
    limit, is_share = float(number), MEASURES[measure][4] == "%"
    if percent and not is_share:
        raise StudyError(f"--fail-if '{text}': {measure} is in {MEASURES[measure][4]}; take the % away")
    if is_share and not percent and limit <= 1:
        limit *= 100
    if is_share and not (0 <= limit < 100 if sign == ">" else 0 < limit <= 100):
        raise StudyError(f"--fail-if '{text}': {measure} {sign} {limit:g} % is met never or always; numbers up to 1 "
                         "are shares, for one percent write 1%")
    return Condition(measure, sign == ">", limit)
