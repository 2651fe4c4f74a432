"""A claim on one task, read from a study's numbers: which pairs count, the values of its seeds, the word they get."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from lib import names
from lib.analysis import measures
from lib.claims import gates, rule
from lib.claims.contrasts import OF_OOD, Number
from lib.claims.declared import Claim


@dataclass
class Reading:
    """A claim on one task: numbers[pair][seed]; left_out[pair]: why a pair is not read; gate: the word that comes
    first."""

    claim: Claim
    task: str
    seeds: list[int]
    numbers: dict[tuple[str, str], dict[int, Number]]
    rows: pd.DataFrame | None = None  # the evaluation rows: split, and the number of each row's group
    without: dict[str, str] = field(default_factory=dict)  # OOD sets left out of the score: why
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)
    gate: str = ""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [pair for pair in self.numbers if pair not in self.left_out]

    def values(self, pair: tuple[str, str]) -> np.ndarray:
        """The pair's values [seeds], less the claim's threshold."""
        return np.array([self.numbers[pair][seed].value for seed in self.seeds]) - self.claim.threshold

    @property
    def mean(self) -> np.ndarray:
        """The claim's values [seeds]: the mean over its pairs."""
        return np.mean([self.values(pair) for pair in self.pairs], axis=0)

    @property
    def parts(self) -> np.ndarray | None:
        """How far each group of rows lies off its share of the claim's value, [seeds, groups], split by split; None
        where the measure is not linear in the rows."""
        if any(self.numbers[pair][seed].parts is None for pair in self.pairs for seed in self.seeds):
            return None
        rows = np.mean([[self.numbers[pair][seed].parts for seed in self.seeds] for pair in self.pairs], axis=0)
        split, group = (self.rows[column].to_numpy() for column in ("split", "group"))
        used = np.isin(split, np.unique(split[(rows != 0).any(axis=0)]))
        if not used.any():
            return None
        result = np.zeros((len(rows), group.max() + 1))
        for name in np.unique(split[used]):
            here = split == name
            sizes = np.bincount(group[here], minlength=result.shape[1]) / here.sum()
            for one, of_seed in zip(result, rows):
                one += np.bincount(group[here], of_seed[here], minlength=len(one)) - of_seed[here].sum() * sizes
        return result[:, np.unique(group[used])]

    @property
    def is_flagged(self) -> bool:
        """Whether more matches than `rule.FLAGGED` lie beyond the range of the shorter dense runs."""
        flagged = [self.numbers[pair][seed].flagged for pair in self.pairs for seed in self.seeds]
        return bool(flagged) and float(np.mean(flagged)) > rule.FLAGGED

    @property
    def undefined(self) -> str:
        """Why the claim's number is undefined; "" where it is not, or no pair is left."""
        if not self.pairs:
            return ""
        used = [self.numbers[pair][seed] for pair in self.pairs for seed in self.seeds]
        if not all(np.isfinite(number.value) for number in used):
            return next(filter(None, (number.reason for number in used)), "a number is not known")
        bottoms = np.array([self.numbers[self.pairs[0]][seed].bottom for seed in self.seeds])
        if not np.isnan(bottoms).all():
            low = rule.over_seeds(bottoms)[1] if len(bottoms) > 1 else bottoms.min()
            if not low > 0:
                return "the interval of what it is divided by does not lie above zero"
        return ""


def read(claim: Claim, task: str, study) -> Reading | None:
    """A claim's numbers on a task, gates applied; None where the study has none. study: `evidence.GatheredRuns`."""
    seeds, numbers, partial = study.numbers(claim.measure, claim.split, claim.models, claim.baselines, task)
    if not numbers and not partial:
        return None
    reading = Reading(claim, task, seeds, dict(numbers), study.rows(task),
                      left_out=dict.fromkeys(partial, "not on every seed"))
    if not numbers:
        reading.gate = rule.NOT_MEASURED
        return reading
    table = study.gates
    table = table[table["task"] == task]
    if claim.is_of_panel:
        reading.gate = table[(table["gate"] == "skill") & (table["of"] == claim.split)]["word"].iloc[0]
    elif claim.split == "ood" or claim.measure in OF_OOD:
        reading.gate, reading.without = study.skill(task)
    low = set(table.loc[(table["gate"] == "floor") & ~table["passed"], "of"])
    for model, baseline in numbers:
        sides = {*model.split(", "), *([baseline] if baseline else [])}
        if sides <= low:
            reading.left_out[model, baseline] = gates.NOT_LEARNED
        elif claim.kept_score and not study.keeps_score(task, model):
            reading.left_out[model, baseline] = gates.NOT_KEPT
        elif claim.measure == "hidden_flips" and study.is_bounded(task, claim.smallest_effect):
            reading.left_out[model, baseline] = gates.CEILING
    _match(reading)
    unknown = {pair: next((n.reason for n in of_seed.values() if not np.isfinite(n.value) and n.reason), "")
               for pair, of_seed in reading.numbers.items()}
    if any(not unknown[pair] for pair in reading.pairs):  # some can be read: the others do not undo them
        reading.left_out |= {pair: unknown[pair] for pair in reading.pairs if unknown[pair]}
    idle = [pair for pair in reading.pairs if changes_nothing(pair[0])]
    if idle and len(idle) < len(reading.pairs):
        reading.left_out |= dict.fromkeys(idle, "changes nothing by design")
    if not reading.pairs and not reading.gate:
        reasons = [reading.left_out[pair] for pair in numbers]
        reading.gate = next((reason for reason in reasons if reason != gates.NOT_ALIKE), rule.NOT_MEASURED)
    return reading


def _match(reading: Reading) -> None:
    """Pairs whose models lie apart where they should score alike: compared by the shorter dense runs, or left out."""
    for pair in reading.pairs:
        of_seed = reading.numbers[pair]
        apart = np.array([number.apart for number in of_seed.values()])
        if np.isfinite(apart).all() and abs(apart.mean()) > rule.CALIPER:
            matched = {seed: number.matched for seed, number in of_seed.items()}
            if all(matched.values()):
                reading.numbers[pair] = matched
            else:
                reading.left_out[pair] = gates.NOT_ALIKE


def changes_nothing(model: str) -> bool:
    """Whether a model removes no weight and trains no further: the dense model rounded after training."""
    recipe = names.parse(model.split(", ")[0])
    return recipe.family == "dense" and recipe.quantization == "ptq8"


def one_sided(values: np.ndarray, claim: Claim) -> float:
    """p against what the claim says not: that its effect is not above zero (same: outside +-d; not_below: below -d).
    NaN where it is not known, and where all seeds are alike, which is no proof."""
    k, mean, d = len(values), values.mean(), claim.smallest_effect
    if k < 2 or not np.isfinite(values).all() or not values.std():
        return np.nan
    error = values.std(ddof=1) / np.sqrt(k)
    edges = {"above": [mean], "below": [-mean], "same": [d - mean, d + mean], "not_below": [mean + d]}[claim.direction]
    return max(float(stats.t.sf(edge / error, k - 1)) for edge in edges)


def word_of(values: np.ndarray, claim: Claim) -> str:
    """The word of values [seeds]. A zero width is no proof: seeds that are all alike leave a claim open."""
    _, low, high = map(float, rule.over_seeds(values))
    word = rule.word(low, high, claim.direction, claim.smallest_effect, len(values))
    return rule.OPEN if len(values) >= rule.SEEDS and low == high else word


def borne_out(reading: Reading) -> int:
    """How many pairs bear the claim out by themselves, after Holm; none where a gate came first."""
    if reading.gate or reading.undefined:
        return 0
    p = np.array([one_sided(reading.values(pair), reading.claim) for pair in reading.pairs])
    corrected = measures.holm(p)
    n = 0
    for pair, one in zip(reading.pairs, corrected):
        n += one < 0.025 and word_of(reading.values(pair), reading.claim).startswith("holds")
    return int(n)
