"""The papers' claims, written before the runs, and the ledger that sets each beside what the study found.

Every claim is about one number: a measure of a model minus the same measure of a baseline, 0 where there is nothing to
see (`lib.claims.contrasts` names the measures). `declared.wanted` lists the pairs that a profile's models allow,
`contrasts.scores` computes them, `put_together` puts the seeds together and `judged` gives the verdicts. The rule:

- above (below): *replicated* if the 95 % interval lies wholly above (below) 0 and the estimate reaches the smallest
  effect of interest; *not replicated* if the effect falls short of the smallest effect; else *inconclusive*.
- same: *replicated* if the interval lies inside plus or minus the smallest effect; *not replicated* if the effect lies
  outside. not_below: *replicated* if the interval lies wholly above minus the smallest effect; *not replicated* if the
  effect lies below. Both call a missing difference a finding: with fewer than five seeds they are at best inconclusive.
- a claim that names several models holds only if it holds for each: one contrast not replicated decides, then one
  inconclusive. The ledger shows the contrast that decides, the weakest of those with that verdict.
- *replicated* so needs every one of a claim's m contrasts: an intersection-union test, which needs no correction for
  their number (Berger 1982). *Not replicated* may rest on any one of the m: its one-sided test that the effect falls
  short (`short`) must hold at 2.5 % after Holm's correction over the m; for one contrast that is the 95 % interval's
  own end.
- an undefined number or interval is *inconclusive*, with the reason; *not measured* where a profile lacks the models.

The interval is a t interval over k seeds, or with one seed a bootstrap interval over rows. `p` is of the mean being 0:
a t test over seeds; with one seed McNemar's exact test of the rows for `score` (which takes rows as independent, as the
interval does not), else the normal approximation of the bootstrap. It is told beside the verdict and does not enter it.
"""

import numpy as np
import pandas as pd
from scipy import stats

from lib.analysis import bootstrap, measures
from lib.claims.contrasts import NUMBERS, OF_TABLES, UNITS
from lib.claims.declared import CONTRAST, Claim, Direction, applies
from lib.claims.printed import COUNTERPART, number_of, strength
from lib.errors import StudyError, nearest

SEEDS_FOR_SAME = 5
LEVEL = 0.025  # of a one-sided test, as an end of the 95 % interval has it
EVIDENCE = ["claim", "measure", "task", "split", "model", "baseline", "estimate", "low", "high", "n_seeds", "n_rows",
            "unit", "p", "test", "p_holm", "p_short", "reason"]
LEDGER = ["id", "task", "claim", "where", "paper", "ours", "interval", "n", "difference", "verdict", "finding",
          "sentence"]
SPLITS = {"test": "ID", "ood": "OOD", "": ""}
WORDS = {  # what a sentence calls a measure; the split goes in front
    "score": "score", "gap": "gap between ID and OOD", "f_bias": "relative bias",
    "skill_kept": "share of the dense OOD skill kept", "easy_hard": "gap between easy and hard rows",
    "overconfidence": "over-confidence on easy rows",
    "matched_dev": "OOD score beside the dense run at the same ID score", "label_loyalty": "label loyalty",
    "probability_loyalty": "probability loyalty", "hidden_flips": "answers changed beyond what the score tells",
    "after_attack": "accuracy after the attack",
    "agreement": "agreement with the easy-hard split beyond the larger class", "auc": "AUC above a coin's",
    "rank_agreement": "rank agreement", "alpha_regret": "OOD score beside the oracle's alpha",
    "bias_slope": "gap beyond dense for ten points of shortcut rate", "foretold": "AUC above a coin's",
}


def put_together(claims: list[Claim], scores: pd.DataFrame) -> pd.DataFrame:
    """One row per claim, measure, task, model and baseline, the seeds put together.

    scores: the frame of `contrasts` with the columns value, low, high, n, p, reason, as `lib.claims.contrasts.scores`
    gives it. Several seeds: mean and 95 % t interval over the seeds (which holds the draw of train, the order and the
    new weights, not the draw of the test rows). One seed: its interval over rows. A value undefined on any seed stays
    undefined. Columns: claim, measure, task, split, model, baseline, estimate, low, high, n_seeds, n_rows (of one
    seed), unit, p (two-sided, of the mean being 0), test (which one), p_holm (p after Holm over the contrasts of that
    claim, task and measure), p_short (`short` after the same correction; of the claim's own measure alone), reason (of
    what is undefined).
    """
    missing = [c for c in [*CONTRAST, *NUMBERS] if c not in scores.columns]
    if missing:
        raise StudyError(f"scores: columns {missing} are missing; make them with lib.claims.contrasts.scores")
    by_id = {claim.id: claim for claim in claims}
    unknown = set(scores["claim"]) - set(by_id)
    if unknown:
        name = sorted(unknown)[0]
        raise StudyError(f"scores: no claim is called {name!r}{nearest(name, by_id)}")
    rows = []
    for keys, group in scores.groupby([c for c in CONTRAST if c != "seed"], sort=False):
        place = dict(zip([c for c in CONTRAST if c != "seed"], keys))
        if group["seed"].duplicated().any():
            raise StudyError(f"scores: {place['claim']}, {place['task']}, {place['model']}: a seed stands there twice")
        claim, whole = by_id[place["claim"]], _over_seeds(group)
        p_short = short(whole["estimate"], whole["low"], whole["high"], claim.direction, claim.smallest_effect,
                        len(group))
        rows.append(place | whole | {"p_short": p_short if place["measure"] == claim.measure else np.nan})
    table = pd.DataFrame(rows, columns=[c for c in EVIDENCE if c not in ("unit", "p_holm")])
    for name, of in (("p_holm", "p"), ("p_short", "p_short")):
        table[name] = table.groupby(["claim", "task", "measure"])[of].transform(measures.holm)
    return table.assign(unit=table["measure"].map(UNITS))[EVIDENCE]


def _over_seeds(group: pd.DataFrame) -> dict:
    """The columns of the evidence that one contrast's scores give, one score a seed."""
    values, first = group["value"].to_numpy(float), group.iloc[0]
    estimate, low, high, k = bootstrap.of_seeds(values, first["low"], first["high"]).values()
    p, test = first["p"], "McNemar's exact test"
    if k > 1:
        test = "t test over seeds"
    elif np.isnan(p):
        test = "normal approximation of the bootstrap"
    if k > 1 or np.isnan(p):
        p = min(1.0, 2 * np.fmin(_below(estimate, high, 0, k), _below(-estimate, -low, 0, k)))
    undefined = not np.isfinite([estimate, low, high]).all()
    at_fault = group[group["value"].isna()] if np.isnan(estimate) else group
    reasons = [f"{reason}: seed {', '.join(map(str, part['seed']))}" if k > 1 else reason
               for reason, part in at_fault.groupby("reason", sort=False)]
    return {"estimate": estimate, "low": low, "high": high, "n_seeds": k, "n_rows": int(group["n"].min()), "p": p,
            "test": "" if np.isnan(p) else test, "reason": "; ".join(reasons) if undefined else ""}


def _below(estimate: float, high: float, edge: float, n_seeds: int) -> float:
    """One-sided p of the hypothesis that the effect is `edge` or more; the standard error is read off the interval, of
    which `high` is an end: a t interval over several seeds, a normal one with one. Below 2.5 % where the interval is
    below the edge.
    """
    if not np.isfinite([estimate, high]).all():
        return np.nan
    df = n_seeds - 1 if n_seeds > 1 else np.inf
    error = max(high - estimate, 0) / stats.t.ppf(0.975, df)
    return float(stats.t.cdf((estimate - edge) / error, df)) if error else float(estimate >= edge)


def short(estimate: float, low: float, high: float, direction: Direction, smallest_effect: float,
          n_seeds: int) -> float:
    """One-sided p against a claim: the smaller, the surer the effect falls short of what the claim asks for.

    above (below): of the hypothesis that the effect reaches the smallest effect; not_below: that it is above minus
    that; same: that it lies within plus or minus that, the lesser of the p of the two sides. NaN where anything is
    undefined.
    """
    if direction == "below":
        estimate, low, high = -estimate, -high, -low
    if direction in ("above", "below"):
        return _below(estimate, high, smallest_effect, n_seeds)
    under = _below(estimate, high, -smallest_effect, n_seeds)
    return under if direction == "not_below" else min(under, _below(-estimate, -low, -smallest_effect, n_seeds))


def verdict(estimate: float, low: float, high: float, direction: Direction, smallest_effect: float,
            p_short: float) -> str:
    """`replicated`, `not replicated` or `inconclusive` by the rule at the head of this module.

    p_short: `short`, corrected for the contrasts of the claim. An undefined estimate or interval is inconclusive.
    Raises StudyError on an unknown direction.
    """
    if direction not in ("above", "below", "same", "not_below"):
        raise StudyError(f"direction {direction!r} is not one of above, below, same, not_below")
    if not np.isfinite([estimate, low, high]).all():
        return "inconclusive"
    if direction == "below":
        estimate, low, high = -estimate, -high, -low
    yes = {"same": -smallest_effect < low and high < smallest_effect, "not_below": low > -smallest_effect}.get(
        direction, low > 0 and estimate >= smallest_effect)
    return "replicated" if yes else "not replicated" if p_short < LEVEL else "inconclusive"


def rule(claim: Claim) -> str:
    """The claim's rule in words, to stand beside it before any result does."""
    size = f"{claim.smallest_effect:g} {UNITS[claim.measure]}"
    return {"above": f"interval above 0 and mean at least {size}",
            "below": f"interval below 0 and mean at most -{size}",
            "same": f"interval inside +-{size}, {SEEDS_FOR_SAME} seeds or more",
            "not_below": f"interval above -{size}, {SEEDS_FOR_SAME} seeds or more"}[claim.direction]


def judged(claims: list[Claim], evidence: pd.DataFrame) -> pd.DataFrame:
    """One row per claim and task of the evidence, plus one for each claim that could not be measured.

    The evidence may be of several profiles, as long as each has its own tasks. Columns: id, task, claim, where, paper,
    ours, interval, n, difference, verdict, finding (the contrast that decides, in words), sentence (the same with its
    tests and the paper's number). interval: empty where nothing was measured, `undefined` where it is. `paper` is of
    the task the paper used; `difference` (ours minus paper) is left empty for the micro-world, whose size of effect is
    its own.
    """
    tasks = list(dict.fromkeys(evidence["task"]))
    rows = []
    for claim in claims:
        mine = evidence[(evidence["claim"] == claim.id) & (evidence["measure"] == claim.measure)]
        for task in [t for t in tasks if applies(claim, t)] or [""]:
            rows.append(_entry(claim, task, mine[mine["task"] == task]))
    return pd.DataFrame(rows, columns=LEDGER)


def _entry(claim: Claim, task: str, contrasts: pd.DataFrame) -> dict:
    paper = number_of(claim, task or claim.tasks[0])
    row = {"id": claim.id, "task": task, "claim": claim.claim, "where": claim.where,
           "paper": paper[0] if paper else np.nan, "ours": np.nan, "interval": "", "n": "", "difference": np.nan}
    if contrasts.empty:
        lacking = f"there is {_lacking(claim, task)}"
        return row | {"verdict": "not measured", "finding": lacking, "sentence": f"Not measured: {lacking}."}
    verdicts = [_of_evidence(claim, line) for line in contrasts.itertuples()]
    worst = next(v for v in ("not replicated", "inconclusive", "replicated") if v in verdicts)
    line = min((e for e, v in zip(contrasts.itertuples(), verdicts) if v == worst),
               key=lambda e: strength(e.estimate, claim.direction))
    if paper and task not in COUNTERPART:
        row["difference"] = line.estimate - paper[0]
    digits = 1 if line.unit == "points" else 3
    unit = " points" if line.unit == "points" else ""
    interval = "undefined" if np.isnan(line.low) else f"[{line.low:.{digits}f}, {line.high:.{digits}f}]"
    ours = "" if np.isnan(line.estimate) else f"{line.estimate:+.{digits}f}{unit} "
    because = f" ({line.reason})" if line.reason else ""
    n = f"{line.n_seeds} seeds" if line.n_seeds > 1 else f"1 seed, {line.n_rows} rows" if line.n_rows else "1 seed"
    pair = f"{line.model} against {line.baseline}" if line.baseline else line.model
    what = f"{SPLITS[claim.split]} {WORDS[claim.measure]}".strip()
    finding = f"{pair}, {what} {ours}{interval}{because} over {n}"
    sentence = f"{worst.capitalize()}: {finding}"
    if not np.isnan(line.low):
        sentence += ", t interval" if line.n_seeds > 1 else ", bootstrap interval over rows (another seed may differ)"
        sentence += _tested(line, len(contrasts)) + _why(claim, line, worst, len(contrasts))
    if len(contrasts) > 1:
        sentence += f"; it decides among {len(contrasts)} contrasts, {verdicts.count('replicated')} of them replicated"
    if paper:
        against = f"{paper[1]} against {paper[2]}"
        sentence += f"; the paper has {paper[0]:+.{digits}f} ({COUNTERPART.get(task, task)}, {against})"
    return row | {"ours": line.estimate, "interval": interval, "n": n, "verdict": worst, "finding": finding,
                  "sentence": sentence + "."}


def _lacking(claim: Claim, task: str) -> str:
    if not task:
        return f"none of its tasks ({', '.join(claim.tasks)})"
    models = " or ".join(claim.models)
    if claim.measure in OF_TABLES:
        return f"no {claim.measure} of {models}"
    beside = " or ".join(claim.baselines).replace("{base}", "the same compression")
    return f"no {models} beside {beside}" if beside else f"no {models}"


def _tested(line, m: int) -> str:
    corrected = f" after Holm over {m} contrasts" if m > 1 else ""
    test = "" if line.n_seeds > 1 else f" ({line.test})"
    return f"; p {_p(line.p_holm)}{test}{corrected}"


def _why(claim: Claim, line, said: str, m: int) -> str:
    """What decided, where the interval does not show it: the test against the claim, its correction, or few seeds."""
    points = f" point{'s' * (claim.smallest_effect != 1)}" if line.unit == "points" else ""
    size = f"{claim.smallest_effect:g}{points}"
    side = {"below": f"above -{size}", "same": f"outside +-{size}", "not_below": f"below -{size}"}.get(
        claim.direction, f"below {size}")
    if said == "not replicated":
        return f"; the effect lies {side}, one-sided p {_p(line.p_short)}"
    values = line.estimate, line.low, line.high
    asked = claim.direction, claim.smallest_effect
    if said == "inconclusive" and short(*values, *asked, line.n_seeds) < LEVEL:
        return f"; the interval lies {side}, which does not hold after Holm over {m} contrasts"
    if said == "inconclusive" and verdict(*values, *asked, line.p_short) == "replicated":
        return f"; to call a difference missing takes {SEEDS_FOR_SAME} seeds"
    return ""


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _of_evidence(claim: Claim, line) -> str:
    said = verdict(line.estimate, line.low, line.high, claim.direction, claim.smallest_effect, line.p_short)
    few = claim.direction in ("same", "not_below") and line.n_seeds < SEEDS_FOR_SAME
    return "inconclusive" if few and said == "replicated" else said
