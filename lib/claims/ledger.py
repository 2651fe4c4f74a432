"""The ledger: each claim beside what the study found, one word by one rule (`lib.claims.rule`).

A claim's number is, on each seed, the mean over its models: those that every seed of the task has, that learned their
task together with or against their baseline (gates), and, where others remove weights, without those that change
nothing by design. The interval is a t interval over seeds, and the word is about these test rows; `rows` says what it
would be if other rows were drawn. Each pair is judged beneath, and `borne_out` counts those that bear the claim out
after Holm.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from lib.claims import rule, wording
from lib.claims.declared import Claim, applies
from lib.claims.printed import COUNTERPART, number_of
from lib.claims.reading import Reading, borne_out, one_sided, read, word_of

LEDGER = ["id", "task", "claim", "where", "written", "changed", "word", "ours", "interval", "seeds", "models",
          "borne_out", "rows", "paper", "difference", "p", "q", "sd", "needs", "finding"]
EVIDENCE = ["claim", "measure", "task", "split", "model", "baseline", "estimate", "low", "high", "seeds", "p", "word",
            "left_out"]
NOT_MEASURED, UNDECIDABLE = rule.NOT_MEASURED, "not decidable here"
UNDECIDED = (rule.OPEN, rule.INDICATION, "holds, size open", "not of that size")
POOLED = "these tasks"


def by_pair(claims: list[Claim], study) -> pd.DataFrame:
    """One row per claim, measure, task and pair, the seeds put together: EVIDENCE. A claim's own measure and those
    beside."""
    result = []
    for claim in claims:
        for task in (task for task in study.tasks if applies(claim, task)):
            for measure in (claim.measure, *claim.beside):
                asked = claim if measure == claim.measure else claim.beside_as(measure)
                reading = read(asked, task, study)
                for model, baseline in reading.numbers if reading else ():
                    values = reading.values((model, baseline))
                    mean, low, high = map(float, rule.over_seeds(values))
                    closed = reading.gate or _undefined(reading, (model, baseline))
                    p = np.nan if closed else one_sided(values, claim)
                    word = "" if closed or measure != claim.measure else word_of(values, claim)
                    result.append([claim.id, measure, task, asked.split, model, baseline, mean, low, high, len(values),
                                   p, word, reading.left_out.get((model, baseline), "")])
    return pd.DataFrame(result, columns=EVIDENCE)


def judged(claims: list[Claim], study) -> pd.DataFrame:
    """One row per claim and task, and one for each claim that could not be measured: LEDGER.

    word: of the rule, of a gate that came first, or *not measured*. ours, interval: the mean over models and its t
    interval over seeds, in the claim's unit. models: pairs in the mean; borne_out: of them, after Holm. rows: the word
    if other rows were drawn, where that is another. paper: its own number by the same mean; difference: ours less
    paper, on the paper's tasks. q: false-discovery rate over the ledger. needs: seeds that would decide an effect twice
    the smallest at the SD seen.
    """
    rows = []
    for claim in claims:
        tasks = [task for task in study.tasks if applies(claim, task)]
        readings = {task: read(claim, task, study) for task in tasks}
        rows += [_entry(claim, task, readings[task]) for task in tasks] or [_entry(claim, "", None)]
        rows += [pooled] if (pooled := _pooled(claim, [one for one in readings.values() if one])) else []
    table = pd.DataFrame(rows, columns=LEDGER)
    return table.assign(q=rule.q_values(table["p"].where(table["seeds"] >= rule.SEEDS).to_numpy(float)))


def _entry(claim: Claim, task: str, reading: Reading | None) -> dict:
    paper = number_of(claim, task or claim.tasks[0])
    row = dict.fromkeys(LEDGER, np.nan) | {
        "id": claim.id, "task": task, "claim": claim.claim, "where": claim.where, "written": str(claim.written),
        "changed": str(claim.changed or ""), "paper": paper[0] if paper else np.nan, "interval": "", "rows": "",
        "seeds": 0, "models": 0, "borne_out": 0}
    if reading is None:
        return row | {"word": NOT_MEASURED, "finding": wording.lacking(claim, task)}
    if not reading.pairs:
        return row | {"word": reading.gate, "seeds": len(reading.seeds), "finding": wording.left(reading)}
    values, k, d = reading.mean, len(reading.seeds), claim.smallest_effect
    undefined = reading.undefined
    mean, low, high = map(float, rule.over_seeds(values)) if not undefined else (np.nan,) * 3
    word = reading.gate or (word_of(values, claim) if not undefined else rule.word(low, high, claim.direction, d, k))
    p = np.nan if undefined or reading.gate else one_sided(values, claim)
    sd = float(values.std(ddof=1)) if k > 1 else np.nan
    if not reading.gate and not undefined and reading.is_flagged and k >= rule.SEEDS:
        word = rule.OPEN
    row |= {"word": word, "ours": mean, "interval": wording.interval(claim, low, high), "seeds": k, "p": p, "sd": sd,
            "models": len(reading.pairs), "borne_out": borne_out(reading),
            "rows": "" if undefined else _with_rows(reading, word),
            "needs": rule.seeds_needed(sd, d, claim.direction) if d and sd > 0 else np.nan}
    if paper and task not in COUNTERPART:
        row["difference"] = mean - paper[0]
    return row | {"finding": wording.finding(reading, mean, low, high, undefined, sd)}


def _undefined(reading: Reading, pair: tuple[str, str]) -> bool:
    """Whether a pair's number, or what it is divided by, is not known."""
    return bool(replace(reading, left_out={other: "" for other in reading.numbers if other != pair}).undefined)


def _pooled(claim: Claim, readings: list[Reading]) -> dict | None:
    """The micro-world tasks together, as they are and not as drawn from others: on each seed the mean over the tasks
    that no gate closed; None where there are fewer than two, or other seeds in one than in another."""
    read = [one for one in readings if one.task in COUNTERPART and one.pairs and not one.gate and not one.undefined
            and not one.is_flagged]
    if len(read) < 2 or len({tuple(one.seeds) for one in read}) > 1:
        return None
    values, k = np.mean([one.mean for one in read], axis=0), len(read[0].seeds)
    mean, low, high = map(float, rule.over_seeds(values))
    tasks = ", ".join(one.task for one in read)
    return _entry(claim, claim.tasks[0], None) | {
        "task": POOLED, "paper": np.nan, "word": word_of(values, claim), "ours": mean, "seeds": k,
        "interval": wording.interval(claim, low, high), "models": sum(len(one.pairs) for one in read),
        "finding": f"mean of {tasks}, which are not drawn from other tasks: "
                   f"{wording.number(claim, mean, low, high)} over {k} seeds"}


def _with_rows(reading: Reading, word: str) -> str:
    """What the word would be if other rows were drawn, where it is another."""
    if len(reading.seeds) < rule.SEEDS or reading.gate or (parts := reading.parts) is None:
        return ""
    _, low, high = rule.with_rows(reading.mean, parts)
    _, inner, outer = rule.over_seeds(reading.mean)
    if high - low <= outer - inner:  # drawing rows too adds nothing
        return ""
    claim = reading.claim
    other = rule.word(float(low), float(high), claim.direction, claim.smallest_effect, len(reading.seeds))
    return "" if other == word else other


def unmeasured(table: pd.DataFrame) -> pd.DataFrame:
    """The claims that a profile cannot measure on its tasks, and why: id | task | claim | why. table: `judged`."""
    table = table[table["word"] == NOT_MEASURED]
    return table[["id", "task", "claim", "finding"]].rename(columns={"finding": "why"}).reset_index(drop=True)


def power(table: pd.DataFrame, claims: list[Claim]) -> pd.DataFrame:
    """How many seeds would decide each open claim: id | task | word | ours | sd | seeds | needs. table: `judged`.

    needs: seeds at which a true effect of twice the smallest (of nothing, for claims that nothing differs) gets *holds*
    with a probability of 80 %, at the SD over seeds seen here; *not decidable here* where that takes more than
    `rule.MOST_SEEDS`; "" where seeds do not differ, and for claims with a threshold.
    """
    thresholds = {claim.id for claim in claims if claim.threshold}
    table = table[table["word"].isin(UNDECIDED) & (table["seeds"] > 1) & (table["task"] != POOLED)]
    needs = [("" if not sd > 0 or whole else UNDECIDABLE) if np.isnan(n) else f"{n:.0f}"
             for n, sd, whole in zip(table["needs"], table["sd"], table["id"].isin(thresholds))]
    return table[["id", "task", "word", "ours", "sd", "seeds"]].assign(needs=needs).reset_index(drop=True)
