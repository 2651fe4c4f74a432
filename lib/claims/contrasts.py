"""What a claim compares: the pairs of models that its patterns name, and the one number of each pair.

Every number is a measure of the model minus the same measure of the baseline, paired over rows, OOD scored as the
papers do it (accuracy; PAWS weighted 8000:677, other sets alike, `unseen` left out; loyalty and flips pool the rows):

- score: accuracy on `split`, test or ood. gap: accuracy on test minus accuracy on ood. Both in points.
- f_bias: F_bias, 1 for the dense model. skill_kept: share of the dense model's above-chance OOD skill, 1 for the
  dense model. Undefined (NaN) where the interval of the dense model's gap or skill holds 0.
- easy_hard: accuracy on the easy minus that on the hard rows of test. overconfidence: mean confidence minus accuracy on
  the easy rows of test. Both in points; easy: the shortcut-only model is right.
- matched_dev: OOD score minus that of the dense run when it was as good on test (`measures.matched_dev`), in points.
- label_loyalty, probability_loyalty: of `split`, test or ood (`lib.analysis.loyalty`), each against the dense model of
  its seed; in points. hidden_flips: share of `split` whose label differs from the dense model's, minus the absolute
  difference of the two scores there; in points, of the model alone (of the dense model it is 0).
- after_attack: accuracy on the attacked rows of test after word substitution (`lib.trials.attack`), each model under
  its own attack; in points. Undefined where notebook 08 attacked one of the two models not.
- agreement: on dev, rows split by the variance of their loss over the models (at the best threshold, chosen on
  the same rows, so never below 0) against easy and hard, minus the share of the larger class, in points.
- auc: how well that variance finds the rows of dev on which the shortcut fails, minus 0.5.

Four numbers come from the tables of other notebooks, one a seed, and have no baseline:

- rank_agreement: Spearman's rho, on train, of the difficulty from one pruning run and from a run per level.
- alpha_regret: OOD score of RMC at the alpha chosen without OOD data minus that at the oracle's alpha, in points.
- bias_slope: change of the gap, the dense model's taken off, per 10 points of shortcut_rate; in points.
- foretold: AUC of the rows that a model forgets by the best predictor from the dense model alone, minus 0.5.
"""

import re
from collections.abc import Callable
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from lib.analysis import bootstrap, difficulty, measures, tables
from lib.errors import StudyError
from lib.names import VARIANTS
from lib.tasks import registry
from lib.tasks.task import Task

UNITS = {"score": "points", "gap": "points", "f_bias": "ratio", "skill_kept": "share", "easy_hard": "points",
         "overconfidence": "points", "matched_dev": "points", "label_loyalty": "points",
         "probability_loyalty": "points", "hidden_flips": "points", "after_attack": "points", "agreement": "points",
         "auc": "AUC", "rank_agreement": "rho", "alpha_regret": "points", "bias_slope": "points", "foretold": "AUC"}
OF_SCORES = ("score", "gap", "f_bias", "skill_kept")
OF_ROWS = ("agreement", "auc")
OF_TABLES = ("rank_agreement", "alpha_regret", "bias_slope", "foretold")
ALONE = OF_ROWS + OF_TABLES  # of one model or several, without a baseline
OF_SPLIT = ("score", "label_loyalty", "probability_loyalty", "hidden_flips")
NUMBER = re.compile(r"-(\d+(?:\.\d+)?)(?= |-|$)")
CHECKPOINTS = "dense checkpoints"
NUMBERS = ["value", "low", "high", "n", "p", "reason"]
NOTHING = {"value": np.nan, "low": np.nan, "high": np.nan}
UNDEFINED = {"f_bias": "the interval of the dense model's gap holds 0",
             "after_attack": "one of the two was not attacked",
             "skill_kept": "the interval of the dense model's OOD skill above chance holds 0",
             "easy_hard": "the rows are all easy or all hard", "agreement": "the rows are all easy or all hard",
             "auc": "the rows are all of one kind"}


def pairs(models: list[str], baselines: list[str], names: list[str]) -> list[tuple[str, str]]:
    """Every (model, baseline) of `names` that the patterns name; the baseline is "" where there are no baselines.

    A pattern is `fnmatch`'s, small and capital letters alike, taken apart at " + ": `imp-*` never names `imp-40 + rmc`,
    nor a variant that it does not itself end in: `imp-70-after` and `imp-70-2x` are named by `imp-*-after`, `imp-*-2x`.
    `highest X` and `lowest X` pick by the number in the compression, `all X` joins two or more in rising order with
    ", ", `{base}` is the model's own compression.
    """
    named = []
    for model in (name for pattern in models for name in _find(names, pattern)):
        base = model.split(" + ")[0]
        others = [o for p in baselines for o in _find(names, p.replace("{base}", base))] if baselines else [""]
        named += [(model, other) for other in others if other != model]
    return list(dict.fromkeys(named))


def _find(names: list[str], pattern: str) -> list[str]:
    how, _, rest = pattern.partition(" ")
    if how not in ("highest", "lowest", "all"):
        return [name for name in names if _matches(name, pattern)]
    levels = sorted((n for n in names if _matches(n, rest)), key=lambda n: float(NUMBER.search(n)[1]))
    if how == "all":
        return [", ".join(levels)] if len(levels) > 1 else []
    return levels[-1:] if how == "highest" else levels[:1]


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.lower().split(" + "), pattern.lower().split(" + ")
    variants = {next((v for v in VARIANTS if structure.endswith(f"-{v}")), "") for structure, *_ in (parts, wanted)}
    return len(parts) == len(wanted) and len(variants) == 1 and all(fnmatchcase(p, w) for p, w in zip(parts, wanted))


def scores(contrasts: pd.DataFrame, rows_of: Callable[[str, int, str], pd.DataFrame],
           number_of: Callable[[str, int, str, str], float | None] = lambda *_: None, n_boot: int = 1000,
           seed: int = 0) -> pd.DataFrame:
    """The contrasts with value, low, high (95 % interval over rows; the measure's unit), n (distinct rows), p, reason.

    contrasts: columns task, seed, measure, split, model, baseline, as `declared.wanted` makes them; a pair that several
    claims ask for is computed once. rows_of(task, seed, model): the rows of `measures.rows`, all splits of one model
    and seed, with a boolean column `easy` for easy_hard, overconfidence and agreement, columns `label_loyalty` and
    `probability_loyalty` against the dense model for these, `after_attack` (missing: not attacked); asked for "dense
    checkpoints", those of the dense run's checkpoints, with their `step`, for matched_dev. number_of(task, seed,
    measure, model): the number of one of OF_TABLES, None where it was not measured, whose contrast is left out.

    A pair of one seed has an interval, and for score p, McNemar's exact test. A pair of several seeds has neither: its
    interval is over the seeds (`ledger.put_together`), and of its rows only the dense model's are resampled, once a
    run, to tell whether f_bias and skill_kept are defined. reason: why a value or an interval is undefined. Raises
    StudyError for an unknown measure.
    """
    keys = [c for c in contrasts.columns if c != "claim"]
    distinct = contrasts[keys].drop_duplicates()
    if unknown := set(distinct["measure"]) - set(UNITS):
        raise StudyError(f"measure {sorted(unknown)[0]!r} is not one of {', '.join(UNITS)}")
    several = distinct.duplicated([c for c in keys if c != "seed"], keep=False).rename("several")
    numbers = {}
    for (task, model_seed, many), group in distinct.groupby(["task", "seed", several], sort=False):
        def rows(model: str) -> pd.DataFrame:
            return rows_of(task, model_seed, model)
        drawn = _drawn(group, rows, registry.get(task), 0 if many else n_boot, n_boot, seed)
        for c in group.itertuples():
            known = (_of_table(number_of(task, model_seed, c.measure, c.model)) if c.measure in OF_TABLES
                     else _measure(c, rows, drawn, 0 if many else n_boot, seed))
            numbers |= {c.Index: known} if known else {}
    numbers = pd.DataFrame.from_dict(numbers, "index", columns=NUMBERS)
    return contrasts.merge(distinct.join(numbers, how="inner"), on=keys)


def paired_tests(contrasts: pd.DataFrame, rows_of: Callable[[str, int, str], pd.DataFrame]) -> pd.DataFrame:
    """McNemar's exact test of every `score` contrast, seed by seed; it takes rows as independent and is descriptive.

    Columns: claim, task, split, model, baseline, seeds, lost and gained (rows that only the baseline, only the model
    gets right, mean over seeds; the rows of the OOD sets pooled), p_median (over seeds, uncorrected), seeds_significant
    (p below 0.05 after Holm's correction over the contrasts of the claim within the seed). Arguments as in `scores`.
    """
    wanted = contrasts[contrasts["measure"] == "score"]
    distinct = wanted.drop(columns="claim").drop_duplicates()
    tests = {}
    for c in distinct.itertuples():
        both = (_splits(rows_of(c.task, c.seed, name), c) for name in (c.model, c.baseline))
        tests[c.Index] = measures.mcnemar(*both).iloc[0].to_dict()
    tests = pd.DataFrame.from_dict(tests, "index", columns=["a_only", "b_only", "p"])
    wanted = wanted.merge(distinct.join(tests), on=list(distinct.columns))
    corrected = wanted.groupby(["claim", "task", "seed"])["p"].transform(measures.holm)
    wanted = wanted.assign(significant=corrected < 0.05)
    return wanted.groupby(["claim", "task", "split", "model", "baseline"], sort=False).agg(
        seeds=("seed", "size"), lost=("b_only", "mean"), gained=("a_only", "mean"), p_median=("p", "median"),
        seeds_significant=("significant", "sum")).reset_index()


def _of_table(value: float | None) -> dict | None:
    reason = "its table holds no number" if value is None or np.isnan(value) else "a table gives one seed no interval"
    return None if value is None else NOTHING | {"value": float(value), "n": 0, "p": np.nan, "reason": reason}


def _measure(contrast, rows: Callable[[str], pd.DataFrame], drawn: dict, n_boot: int, seed: int) -> dict:
    kind, p = contrast.measure, np.nan
    both = (_splits(rows(name), contrast) for name in (contrast.model, contrast.baseline))  # lazily: not for all
    if kind in OF_SCORES:
        result = _of_scores(contrast, drawn, registry.get(contrast.task))
        if kind == "score" and n_boot:
            p = measures.mcnemar(*both)["p"].item()
    elif kind in OF_ROWS:
        result = _of_rows(kind, [rows(name) for name in contrast.model.split(", ")], n_boot, seed)
    elif kind == "matched_dev":
        result = measures.matched_dev(rows(CHECKPOINTS), rows(contrast.model), registry.get(contrast.task),
                                      n_boot=n_boot, seed=seed).iloc[0]
    elif kind == "overconfidence":
        result = measures.difference(*(_part(rows(m), True) for m in (contrast.model, contrast.baseline)),
                                     "overconfidence", n_boot, seed).iloc[0]
    elif kind in ("label_loyalty", "probability_loyalty", "after_attack"):
        result = _of_column(contrast, *both, n_boot, seed)
    elif kind == "hidden_flips":
        result = _hidden_flips(*both, n_boot, seed)
    else:
        result = _easy_hard(rows(contrast.model), rows(contrast.baseline), n_boot, seed)
    scale = 100 if UNITS[kind] == "points" else 1
    reason = result.get("reason") or (UNDEFINED.get(kind, "there are no rows") if np.isnan(result["value"]) else "")
    return {name: float(result[name]) * scale for name in ("value", "low", "high")} | {
        "n": int(result["n"]), "p": p, "reason": reason}


def _drawn(group: pd.DataFrame, rows: Callable[[str], pd.DataFrame], task: Task, n_boot: int, n_dense: int,
           seed: int) -> dict:
    """`_draw` of the models that the measures of scores ask for; `resampled`: the dense model drawn n_dense times."""
    group = group[group["measure"].isin(OF_SCORES)]
    names = sorted({"dense", *group["model"], *group["baseline"]}) if len(group) else []
    drawn = _draw({name: rows(name) for name in names}, task, n_boot, seed)
    if n_boot < n_dense and group["measure"].isin(["f_bias", "skill_kept"]).any():
        return drawn | {"resampled": _draw({"dense": rows("dense")}, task, n_dense, seed)["dense"]}
    return drawn | {"resampled": drawn.get("dense")}


def _draw(models: dict[str, pd.DataFrame], task: Task, n_boot: int, seed: int) -> dict:
    """Per model its scores {split: [1 + n_boot]} on test and the OOD sets, all from one draw; rows: of each split."""
    if not models:
        return {}
    dense = models["dense"]
    splits = [s for s in ("test", *task.ood) if s != "unseen" and (dense["split"] == s).any()]
    parts = {name: rows[rows["split"].isin(splits)] for name, rows in models.items()}
    for part in parts.values():
        bootstrap.aligned(part, parts["dense"])
    frame = pd.concat(parts.values(), ignore_index=True).drop(columns="seed", errors="ignore")
    entry = np.repeat(np.arange(len(parts)), len(parts["dense"])) * len(splits)
    entry += pd.Categorical(frame["split"], categories=splits).codes
    values = bootstrap.scores(frame, entry, ["accuracy"] * len(splits) * len(parts), n_boot, seed)
    values = values.reshape(n_boot + 1, len(parts), len(splits))
    return {"rows": parts["dense"]["split"].value_counts()} | {
        name: {split: values[:, m, i] for i, split in enumerate(splits)} for m, name in enumerate(parts)}


def _of_scores(contrast, drawn: dict, task: Task) -> dict:
    counts = drawn["rows"]
    if "test" not in counts or len(counts) < 2:
        raise StudyError(f"{contrast.task}, seed {contrast.seed}: the rows hold "
                         f"{', '.join(counts.index) or 'nothing'}, but a claim needs test and an OOD set")
    four = [drawn[name] for name in (contrast.model, contrast.baseline, "dense", "resampled")]
    at_test = [of["test"] for of in four]
    at_ood = [measures.ood_score({s: v for s, v in of.items() if s != "test"}) for of in four]
    if contrast.measure == "score":
        values, n = (at_test, counts["test"]) if contrast.split == "test" else (at_ood, counts.drop("test").sum())
        return bootstrap.estimate(values[0] - values[1], n)
    if contrast.measure == "skill_kept":
        chance = float(measures.ood_score({s: task.chance(s) for s in counts.index if s != "test"}))
        return bootstrap.share(at_ood[0] - at_ood[1], at_ood[2] - chance, counts.drop("test").sum(), at_ood[3] - chance)
    if contrast.measure == "gap":
        gaps = [measures.gap(*pair) for pair in zip(at_test, at_ood)]
        return bootstrap.estimate(gaps[0] - gaps[1], counts.sum())
    gaps = [measures.relative_gap(*pair) for pair in zip(at_test, at_ood)]
    return bootstrap.share(gaps[0] - gaps[1], gaps[2], counts.sum(), gaps[3])


def _part(rows: pd.DataFrame, easy: bool, split: str = "test") -> pd.DataFrame:
    rows = rows[rows["split"] == split]
    if "easy" not in rows or rows["easy"].isna().any():
        raise StudyError(f"rows of {split} have no column 'easy': join notebook 06's shortcut-only model to them by "
                         "guid")
    return rows[rows["easy"].astype(bool) == easy]


def _splits(rows: pd.DataFrame, contrast) -> pd.DataFrame:
    """The rows of a contrast's split; `ood`: every OOD set but the unseen subcases, after_attack: the attacked rows."""
    if contrast.measure == "after_attack":
        return rows[rows["after_attack"].notna()]
    is_ood = rows["split"].isin(tables.ood_splits(registry.get(contrast.task)))
    return rows[is_ood if contrast.split == "ood" else rows["split"] == contrast.split]


def _of_column(contrast, model: pd.DataFrame, baseline: pd.DataFrame, n_boot: int, seed: int) -> dict:
    if not (len(model) and len(baseline)):
        return NOTHING | {"n": 0}
    frames = (part.assign(correct=part[contrast.measure].astype(float)) for part in (model, baseline))
    return measures.difference(*frames, "accuracy", n_boot, seed).iloc[0]


def _hidden_flips(model: pd.DataFrame, dense: pd.DataFrame, n_boot: int, seed: int) -> dict:
    both, entry = bootstrap.paired(model, dense)
    flipped = both.assign(correct=1 - both["label_loyalty"].astype(float))
    frame = pd.concat([both, flipped[entry == 0]], ignore_index=True)
    entry = np.concatenate([entry, np.full(len(model), 2)])
    drawn = bootstrap.scores(frame, entry, ["accuracy"] * 3, n_boot, seed)
    return bootstrap.estimate(drawn[:, 2] - np.abs(drawn[:, 0] - drawn[:, 1]), len(model))


def _easy_hard(model: pd.DataFrame, baseline: pd.DataFrame, n_boot: int, seed: int) -> dict:
    parts = [_part(rows, easy) for rows in (model, baseline) for easy in (True, False)]
    if not all(len(part) for part in parts):
        return NOTHING | {"n": sum(map(len, parts[:2]))}
    frame, entry = pd.concat(parts, ignore_index=True), np.repeat(np.arange(4), [len(part) for part in parts])
    drawn = bootstrap.scores(frame, entry, ["accuracy"] * 4, n_boot, seed)
    return bootstrap.estimate(drawn[:, 0] - drawn[:, 1] - drawn[:, 2] + drawn[:, 3], sum(map(len, parts[:2])))


def _of_rows(kind: str, levels: list[pd.DataFrame], n_boot: int, seed: int) -> dict:
    levels = [level[level["split"] == "dev"].set_index("guid") for level in levels]
    dev = levels[0].reset_index()
    variance = difficulty.variance(np.stack([level["loss"].reindex(dev["guid"]) for level in levels]))
    if kind == "auc":
        known = dev["is_shortcut"].notna().to_numpy()
        dev, variance = dev[known].reset_index(drop=True), variance[known]
        hard = ~dev["is_shortcut"].astype(bool).to_numpy()
    else:
        hard = dev["guid"].isin(_part(dev, False, "dev")["guid"]).to_numpy()
    if len(set(hard)) < 2:
        return NOTHING | {"n": len(dev)}
    cell = np.unique(-variance, return_inverse=True)[1]
    dev = dev.drop(columns="seed", errors="ignore")
    sums, _ = bootstrap.cell_sums(dev, cell, np.column_stack([hard, ~hard]), n_boot, seed)
    return bootstrap.estimate(_separation(kind, sums[:, 0]), len(dev))


def _separation(kind: str, sums: np.ndarray) -> np.ndarray:
    """`difficulty.threshold_agreement` above its floor, of hard, easy rows [resamples, scores, 2] by falling score."""
    above = np.pad(np.cumsum(sums, axis=1), ((0, 0), (1, 0), (0, 0)))
    hard, easy = above[..., 0], above[..., 1]
    n_hard, n_easy = hard[:, -1], easy[:, -1]
    if kind == "auc":
        return np.trapezoid(hard, easy, axis=1) / (n_hard * n_easy) - 0.5
    right = (hard - easy).max(axis=1) + n_easy
    return (right - np.maximum(n_hard, n_easy)) / (n_hard + n_easy)
