"""The ledger: each claim beside what the study found, one word by one rule (`lib.claims.rule`).

A claim's number is, on each seed, the mean over its models: those that every seed of the task has, that learned their
task together with or against their baseline (gates), and, where others remove weights, without those that change
nothing by design. The interval is a t interval over seeds, and the word is about these test rows; `rows` says what it
would be if other rows were drawn. Each pair is judged beneath, and `borne_out` counts those that bear the claim out
after Holm.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from lib.claims import rule, wording
from lib.claims.declared import Claim, applies
from lib.claims.losing import POPULATION
from lib.claims.printed import COUNTERPART, number_of
from lib.claims.reading import Reading, borne_out, one_sided, read, word_of

LEDGER = ["id", "task", "claim", "where", "written", "changed", "word", "pilot", "ours", "interval", "seeds", "models",
          "borne_out", "rows", "paper", "difference", "p", "q", "effect", "sd", "needs", "measured", "asked",
          "caveat", "finding"]
EVIDENCE = ["claim", "measure", "task", "split", "model", "baseline", "estimate", "low", "high", "seeds", "p", "word",
            "left_out"]
NOT_MEASURED, UNDECIDABLE, PILOT = rule.NOT_MEASURED, "not decidable here", "pilot"
UNDECIDED = (rule.OPEN, rule.INDICATION, "holds, size open", "not of that size")
POOLED = "these tasks"


def by_pair(claims: list[Claim], study) -> pd.DataFrame:
    """One row per claim, measure, task and pair, the seeds put together: EVIDENCE. A claim's own measure and those
    beside."""
    result = []
    for claim in claims:
        for task in (task for task in study.tasks if applies(claim, task)):
            here = claim.on(task)
            for measure in (here.measure, *here.beside):
                asked = here if measure == here.measure else here.beside_as(measure)
                reading = read(asked, task, study)
                for model, baseline in reading.numbers if reading else ():
                    values = reading.values((model, baseline))
                    mean, low, high = map(float, rule.over_seeds(values))
                    closed = reading.gate or _undefined(reading, (model, baseline))
                    p = np.nan if closed else one_sided(values, asked)
                    word = "" if closed or measure != here.measure else word_of(values, asked)
                    result.append([claim.id, measure, task, asked.split, model, baseline, mean, low, high, len(values),
                                   p, word, reading.left_out.get((model, baseline), "")])
    return pd.DataFrame(result, columns=EVIDENCE)


def judged(claims: list[Claim], study) -> pd.DataFrame:
    """One row per claim and task, and one for each claim that could not be measured: LEDGER.

    word: of the rule, of a gate that came first, or *not measured*. pilot: it rests on the profile's pilot seeds alone,
    from whose results claims and the number of seeds were chosen, and so decides nothing. ours, interval: the mean over
    models and its t interval over seeds, in the claim's unit. models: pairs in the mean; borne_out: of them, after
    Holm. rows: the word if other rows were drawn, where that is another. paper: its own number by the same mean (of its
    own measure, where a micro-world task has another); difference: ours less paper, on the paper's tasks. q:
    false-discovery rate over the ledger. effect: the smallest; needs: seeds that would decide one twice that at the SD
    seen. measured: models, baselines and measure of the number; asked: where its interval must lie for *holds*; caveat:
    what may speak against the word; finding: all but asked in a sentence.
    """
    rows = []
    for claim in claims:
        tasks = [task for task in study.tasks if applies(claim, task)]
        readings = {task: read(claim.on(task), task, study) for task in tasks}
        rows += [_entry(claim, task, readings[task], study.is_pilot(task)) for task in tasks] or [
            _entry(claim, "", None)]
        rows += [pooled] if (pooled := _pooled([one for one in readings.values() if one], study.is_pilot)) else []
    table = pd.DataFrame(rows, columns=LEDGER)
    return table.assign(q=rule.q_values(table["p"].where(table["seeds"] >= rule.SEEDS).to_numpy(float)))


def _entry(claim: Claim, task: str, reading: Reading | None, pilot: bool = False) -> dict:
    paper, claim = number_of(claim, task or claim.tasks[0]), claim.on(task)
    row = dict.fromkeys(LEDGER, np.nan) | {
        "id": claim.id, "task": task, "claim": claim.claim, "where": claim.where, "written": str(claim.written),
        "changed": str(claim.changed or ""), "paper": paper[0] if paper else np.nan, "interval": "", "rows": "",
        "measured": "", "asked": "", "caveat": "", "pilot": "", "effect": claim.smallest_effect, "seeds": 0,
        "models": 0, "borne_out": 0}
    if reading is None:
        return row | {"word": NOT_MEASURED, "finding": wording.lacking(claim, task)}
    row["pilot"] = PILOT if pilot else ""
    if not reading.pairs:
        said = wording.left(reading)
        return row | {"word": reading.gate, "seeds": len(reading.seeds), "caveat": said, "finding": said}
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
            "needs": _needs(claim, sd)}
    if paper and task not in COUNTERPART:
        row["difference"] = mean - paper[0]
    return row | wording.told(reading, mean, low, high, undefined, sd)


def _needs(claim: Claim, sd: float) -> float:
    """Seeds from which an effect twice the smallest (none, of what should not differ) gets *holds* with a probability
    of 80 %; NaN where there is no SD or no smallest effect, and infinite above `rule.MOST_SEEDS`."""
    if not claim.smallest_effect or not sd > 0:
        return np.nan
    units = rule.seeds_needed(sd, claim.smallest_effect, claim.direction)
    seeds = np.inf if units is None else units * (POPULATION if claim.measure == "pie_excess" else 1)
    return float(seeds) if seeds <= rule.MOST_SEEDS else np.inf


def _undefined(reading: Reading, pair: tuple[str, str]) -> bool:
    """Whether a pair's number, or what it is divided by, is not known."""
    return bool(replace(reading, left_out={other: "" for other in reading.numbers if other != pair}).undefined)


def _pooled(readings: list[Reading], is_pilot: Callable[[str], bool]) -> dict | None:
    """The micro-world tasks together, as they are and not as drawn from others: on each seed the mean over the tasks
    that no gate closed; None where there are fewer than two, or other seeds in one than in another."""
    read = [one for one in readings if one.task in COUNTERPART and one.pairs and not one.gate and not one.undefined
            and not one.is_flagged]
    if len(read) < 2 or len({tuple(one.seeds) for one in read}) > 1:
        return None
    claim, values, k = read[0].claim, np.mean([one.mean for one in read], axis=0), len(read[0].seeds)
    mean, low, high = map(float, rule.over_seeds(values))
    tasks = [one.task for one in read]
    measured = f"mean of {', '.join(tasks)}, which are not drawn from other tasks"
    return _entry(claim, tasks[0], None) | {
        "task": POOLED, "pilot": PILOT if all(map(is_pilot, tasks)) else "", "paper": np.nan,
        "word": word_of(values, claim), "ours": mean, "seeds": k, "interval": wording.interval(claim, low, high),
        "models": sum(len(one.pairs) for one in read),
        "measured": measured, "asked": wording.asked(claim),
        "finding": f"{measured}: {wording.number(claim, mean, low, high)} {wording.over(claim, k)}"}


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


def power(table: pd.DataFrame) -> pd.DataFrame:
    """How many seeds would decide each open claim: id | task | word | ours | sd | seeds | needs. table: `judged`.

    needs: seeds at which a true effect of twice the smallest (of nothing, for claims that nothing differs) gets *holds*
    with a probability of 80 %, at the SD over seeds seen here; *not decidable here* where that takes more than
    `rule.MOST_SEEDS`; "" where seeds do not differ, and for claims with a threshold.
    """
    table = table[table["word"].isin(UNDECIDED) & (table["seeds"] > 1) & (table["task"] != POOLED)]
    return table[["id", "task", "word", "ours", "sd", "seeds"]].assign(
        needs=table["needs"].map(_told)).reset_index(drop=True)


def planned(table: pd.DataFrame) -> pd.DataFrame:
    """How many seeds a study should have, claim by claim: id | task | effect | sd | seeds | k. table: `judged`.

    sd: of the seeds here, the pilot; k: as `needs` of `power`. Claims that no gate closed, with a smallest effect and
    seeds that differ, decided here or not: the seeds that decide are to be new ones.
    """
    table = table[table["p"].notna() & table["needs"].notna() & (table["task"] != POOLED)]
    return table[["id", "task", "effect", "sd", "seeds"]].assign(k=table["needs"].map(_told)).reset_index(drop=True)


def planned_by_task(table: pd.DataFrame) -> pd.DataFrame:
    """`planned` in a line a task: task | claims | decidable (of them, with `rule.MOST_SEEDS`) | half, all: k that
    decides half of the claims, and all that are decidable."""
    k = pd.to_numeric(table["k"].replace(UNDECIDABLE, np.inf))
    rows = [{"task": task, "claims": len(part), "decidable": int(np.isfinite(part).sum()),
             "half": _told(np.sort(part)[(len(part) - 1) // 2]), "all": _told(part[np.isfinite(part)].max())}
            for task, part in k.groupby(table["task"], sort=False)]
    return pd.DataFrame(rows, columns=["task", "claims", "decidable", "half", "all"])


def _told(k: float) -> str:
    return "" if np.isnan(k) else UNDECIDABLE if np.isinf(k) else f"{k:.0f}"
