"""What a reading found, in words: measures by name, the number with its interval, what was left out and why."""

import numpy as np

from lib.claims import rule
from lib.claims.contrasts import OF_TABLES, UNITS
from lib.claims.declared import Claim
from lib.claims.losing import POPULATION
from lib.claims.reading import Reading, borne_out

WORDS = {  # what a finding calls a measure; the split goes in front
    "score": "score", "gap": "gap between ID and OOD", "f_bias": "relative bias",
    "skill_kept": "share of the dense OOD skill kept",
    "easy_hard": "gap between easy and hard rows", "overconfidence": "over-confidence on easy rows",
    "matched": "OOD score beside shorter dense runs of the same ID score",
    "matched_fails": "score where the shortcut fails, beside shorter dense runs of the same score where it holds",
    "matched_rest": "score on the other OOD rows, beside shorter dense runs of the same score where it holds",
    "matched_fails_odds": "log-odds of the score where the shortcut fails, beside those dense runs",
    "matched_rest_odds": "log-odds of the score on the other OOD rows, beside those dense runs",
    "lost_fails": "loss where the shortcut fails, at a matched score where it holds,",
    "lost_fails_odds": "loss in log-odds where the shortcut fails, at a matched score where it holds,",
    "label_loyalty": "label loyalty", "probability_loyalty": "probability loyalty",
    "hidden_flips": "answers changed beyond what the score tells and what another dense model changes",
    "learned_late": "AUC above a coin's of when the dense run learned what is lost",
    "learned_excess": "AUC of when the dense run learned what is lost, beyond the one of what another dense model "
                      "loses",
    "lost_alike": "agreement on what is lost beyond the one with another dense model",
    "rarity_beyond": "AUC of rarity for what is lost of the rows learned at one time, beyond another dense model's",
    "depth_beyond": "AUC of depth for what is lost of the rows learned at one time, beyond another dense model's",
    "pie_excess": "share of rows whose modal answer changes, beyond that between two dense populations,",
    "attack_success": "share of right answers that the attack turns", "after_attack": "accuracy after the attack",
    "agreement": "agreement with the easy-hard split beyond the larger class",
    "auc": "AUC above a coin's", "rank_agreement": "rank agreement less the {asked:g} asked",
    "alpha_regret": "OOD score beside the oracle's alpha",
    "bias_slope": "gap beyond dense for ten points of shortcut rate",
    "foretold": "AUC beyond the one for another dense model",
}
SPLITS = {"test": "ID", "ood": "OOD", "": ""}


def interval(claim: Claim, low: float, high: float) -> str:
    """`[low, high]`, with a digit for points and three for all else; "" where it is not known."""
    digits = 1 if UNITS[claim.measure] == "points" else 3
    return f"[{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite([low, high]).all() else ""


def number(claim: Claim, mean: float, low: float, high: float) -> str:
    """A value with its unit and interval."""
    told = f"{mean:+.1f} points" if UNITS[claim.measure] == "points" else f"{mean:+.3f}"
    return f"{told} {interval(claim, low, high)}".strip()


def asked(claim: Claim) -> str:
    """What an interval must show for *holds*: `below -2`, `within 0.5 of zero`."""
    d = f"{claim.smallest_effect:g}"
    zero = not claim.smallest_effect
    return {"above": "above zero" if zero else f"above {d}", "below": "below zero" if zero else f"below -{d}",
            "same": f"within {d} of zero", "not_below": f"not below -{d}"}[claim.direction]


def over(claim: Claim, k: int) -> str:
    """What k numbers of a claim are over."""
    if claim.measure == "pie_excess":
        return f"over {k} population{'s' * (k > 1)} of {POPULATION} seeds"
    return f"over {k} seed{'s' * (k > 1)}"


def told(reading: Reading, mean: float, low: float, high: float, undefined: str, sd: float) -> dict[str, str]:
    """What the ledger says beside a word: measured, asked, caveat, and finding: what was measured, the number, what is
    borne out, the caveat."""
    claim, k = reading.claim, len(reading.seeds)
    what, against = measured(reading), caveat(reading, sd)
    value = f"undefined ({undefined})" if undefined else number(claim, mean, low, high)
    said = f"{what} {value} {over(claim, k)}"
    if len(reading.pairs) > 1 and not undefined:
        means = {model: float(reading.values((model, baseline)).mean()) for model, baseline in reading.pairs}
        least, most = (pick(means, key=means.get) for pick in (min, max))
        digits = 1 if UNITS[claim.measure] == "points" else 3
        said += f", from {means[least]:+.{digits}f} ({least}) to {means[most]:+.{digits}f} ({most})"
    if len(reading.pairs) > 1 and k >= rule.SEEDS and not reading.gate and not undefined:
        said += f"; {borne_out(reading)} of {len(reading.pairs)} bear it out one by one"
    return {"measured": what, "asked": asked(claim), "caveat": against,
            "finding": "; ".join(filter(None, (said, against)))}


def measured(reading: Reading) -> str:
    """What a claim's number is of: `mean of 4 pairs against dense, OOD score`."""
    models, baselines = (list(dict.fromkeys(pair[side] for pair in reading.pairs if pair[side])) for side in (0, 1))
    told = ", ".join(models) if len(models) < 4 else f"mean of {len(reading.pairs)} pairs"
    against = f" against {', '.join(baselines)}" if 0 < len(baselines) < 3 else ""
    measure = WORDS[reading.claim.measure].format(asked=reading.claim.threshold)
    return f"{told}{against}, {f'{SPLITS.get(reading.claim.split, reading.claim.split)} {measure}'.strip()}"


def caveat(reading: Reading, sd: float) -> str:
    """What a claim's number does not rest on, and what may speak against its word; "" where there is nothing."""
    said, k = [], len(reading.seeds)
    if reading.is_flagged:
        said.append("too many models lie beyond the shorter dense runs")
    if reading.without:
        said.append("without " + ", ".join(f"{name}: {word}" for name, word in reading.without.items()))
    if sd == 0:
        said.append(f"{k} of {k} seeds alike, which proves a share of {rule.all_of(k):.0%} or more")
    return "; ".join(said + [f"left out: {left(reading)}"] * bool(reading.left_out))


def left(reading: Reading) -> str:
    """The models that were left out, by reason."""
    models: dict[str, list[str]] = {}
    for (model, _), reason in reading.left_out.items():
        models.setdefault(reason, []).append(model)
    return "; ".join(f"{', '.join(dict.fromkeys(names))} ({reason})" for reason, names in models.items())


def lacking(claim: Claim, task: str) -> str:
    """What a profile has not, in words."""
    if not task:
        return f"there is none of its tasks ({', '.join(claim.tasks)})"
    models = " or ".join(claim.models)
    if claim.is_of_panel:
        return f"there are no predictions of {claim.split} by {models} and {' or '.join(claim.baselines)}"
    if claim.measure in OF_TABLES:
        return f"there is no {claim.measure} of {models}"
    if claim.measure == "pie_excess":
        return f"there are no {POPULATION} seeds with as many more of a dense model alone (grid.dense_seeds)"
    if claim.measure.startswith("matched"):
        return "there are no shorter dense runs on full schedules (teacher.shorter)"
    beside = " or ".join(claim.baselines).replace("{base}", "the same compression")
    return f"there is no {models} beside {beside}" if beside else f"there is no {models}"
