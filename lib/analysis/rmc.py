"""What RMC is read against: its controls, what its base had lost, itself with the difficulty of one run, and itself
over several alpha.

Scores and their differences are shares in [0, 1] (a point is 0.01).
"""

import pandas as pd

from lib import names
from lib.analysis import bootstrap, measures
from lib.errors import StudyError
from lib.tasks import registry
from lib.tasks.task import Task

INSTANCE = ("smooth_matched", "smooth_entropy", "rmc_shuffled", "distil")  # as RMC, but for the row's own difficulty
CONTROLS = {"rmc": (*INSTANCE, "rmc_one_run")}
RANK, MARGIN = 0.8, 0.01  # one run serves as well as several: least rank agreement, largest OOD difference
RULES = ("by_hard", "by_gap", "oracle")  # ways to choose alpha
SCORES = ("dev", "dev_hard", "ood")  # what is shown for each alpha
ENDS = [f"{name}{end}" for name in SCORES for end in ("", "_low", "_high")]
CHOICES = ["base", "alpha", *ENDS, "dev_easy", "gap", *RULES]
REGRETS = ["base", "rule", "alpha", "oracle", "value", "low", "high", "n"]


def control_pairs(made: list[str]) -> list[tuple[str, str]]:
    """(model, baseline) for every RMC model and those of its controls that were made."""
    pairs = []
    for name in made:
        base, _, loss = name.partition(" + ")
        pairs += [(name, f"{base} + {c}") for c in CONTROLS.get(loss, ()) if f"{base} + {c}" in made]
    return pairs


def one_run(rows: dict[str, pd.DataFrame], task: Task, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """OOD score of `base + rmc_one_run` less that of `base + rmc`, paired: base | value | low | high | n."""
    differences = [
        {"base": base} | _ood_difference(rows[f"{base} + rmc_one_run"], rows[f"{base} + rmc"], task, seed, n_boot)
        for base in _rmc_bases(rows) if f"{base} + rmc_one_run" in rows]
    return pd.DataFrame(differences, columns=["base", "value", "low", "high", "n"])


def one_run_serves(rank: float, differences: pd.DataFrame) -> bool:
    """Whether one pruning run may stand in for several: rank agreement of RANK or more with them, and every OOD
    difference of `one_run` shown to be smaller than MARGIN (its interval lies within)."""
    within = (differences["low"] >= -MARGIN) & (differences["high"] <= MARGIN)
    return bool(rank >= RANK and len(differences) and within.all())


def by_alpha(rows: dict[str, pd.DataFrame], alpha: float) -> dict[str, dict[float, pd.DataFrame]]:
    """base -> {alpha: rows}, alpha rising, of the bases that RMC mended with two alphas or more; `rmc` has `alpha`."""
    of_base: dict[str, dict[float, pd.DataFrame]] = {}
    for name, frame in rows.items():
        recipe = names.parse(name)
        if recipe.loss == "rmc" and recipe.setting != "one_run" and not recipe.quantization:
            of_base.setdefault(recipe.base, {})[int(recipe.setting) / 100 if recipe.setting else alpha] = frame
    return {base: dict(sorted(frames.items())) for base, frames in of_base.items() if len(frames) > 1}


def regained(relative: pd.DataFrame) -> pd.DataFrame:
    """What each base had lost OOD against the dense model, and what each loss gave back of it: base | loss | seed |
    lost | value. relative: `tables.relative` of bases and of bases with a loss, with a column seed."""
    ood = relative[relative["measure"] == "ood_difference"].set_index(["model", "seed"])["value"]
    found = []
    for (model, seed), score in ood.items():
        base, _, loss = model.partition(" + ")
        if loss and (base, seed) in ood.index:
            found.append({"base": base, "loss": loss, "seed": seed, "lost": -ood[base, seed],
                          "value": score - ood[base, seed]})
    return pd.DataFrame(found, columns=["base", "loss", "seed", "lost", "value"])


def choose_alpha(rows: dict[float, pd.DataFrame], v_dev: pd.Series, task: Task, threshold: float | None = None,
                 seed: int = 0, n_boot: int = 1000) -> pd.DataFrame:
    """alpha | dev, dev_hard, ood, with _low and _high | dev_easy | gap | by_hard | by_gap | oracle, one row an alpha.

    rows: of the model of each alpha. v_dev: variance of each dev row's loss over sparsities, by guid; rows at or above
    `threshold` are hard (None: those above the median). Du et al. tune alpha on these two parts and do not say how.
    by_hard: highest accuracy on the hard part, ties by dev, taken as the paper's rule. by_gap: smallest distance
    between the parts. oracle: highest OOD score. What still ties goes to the larger alpha, which smooths less.
    """
    hard = v_dev > v_dev.median() if threshold is None else v_dev >= threshold
    if hard.all() or not hard.any():
        raise StudyError("mitigation: no dev row is harder than the others, so dev has no easy and hard part; give "
                         "another threshold, or sparsity levels that differ more")
    choices = []
    for alpha, frame in rows.items():
        dev = frame[frame["split"] == "dev"]
        is_hard = hard.loc[dev["guid"]].to_numpy()
        parts = {"dev": dev, "dev_hard": dev[is_hard], "dev_easy": dev[~is_hard]}
        found = bootstrap.intervals([({"on": name}, part, "accuracy") for name, part in parts.items()], n_boot, seed)
        whole = measures.overall(frame, task, n_boot=n_boot, seed=seed).rename(columns={"measure": "on"})
        found = pd.concat([found, whole]).set_index("on")
        row = {f"{name}{end}": found.loc[name, column] for name in SCORES
               for end, column in (("", "value"), ("_low", "low"), ("_high", "high"))}
        easy = found.loc["dev_easy", "value"]
        choices.append({"alpha": alpha, **row, "dev_easy": easy, "gap": easy - row["dev_hard"]})
    table = pd.DataFrame(choices)
    best = {"by_hard": table.sort_values(["dev_hard", "dev", "alpha"]).index[-1],
            "by_gap": table.assign(gap=-table["gap"].abs()).sort_values(["gap", "dev", "alpha"]).index[-1],
            "oracle": table.sort_values(["ood", "alpha"]).index[-1]}
    return table.assign(**{rule: table.index == at for rule, at in best.items()})


def regret(rows: dict[float, pd.DataFrame], table: pd.DataFrame, task: Task, seed: int,
           n_boot: int = 1000) -> pd.DataFrame:
    """OOD score of the oracle's alpha less that of the one each rule of `choose_alpha` takes.

    rule | alpha | oracle | value | low | high | n; the interval is paired over rows and holds both choices fixed.
    """
    oracle = table.loc[table["oracle"], "alpha"].item()
    chosen = {rule: table.loc[table[rule], "alpha"].item() for rule in ("by_hard", "by_gap")}
    return pd.DataFrame([{"rule": rule, "alpha": alpha, "oracle": oracle}
                         | _ood_difference(rows[oracle], rows[alpha], task, seed, n_boot)
                         for rule, alpha in chosen.items()])


def over_alpha(rows: dict[str, pd.DataFrame], alpha: float, v_dev: pd.Series, task: Task, seed: int,
               n_boot: int = 1000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`choose_alpha` and `regret` of every base of `by_alpha`, with a first column base; both empty where none is."""
    choices, regrets = [pd.DataFrame(columns=CHOICES)], [pd.DataFrame(columns=REGRETS)]
    for base, models_of in by_alpha(rows, alpha).items():
        table = choose_alpha(models_of, v_dev, task, seed=seed, n_boot=n_boot)
        lost = regret(models_of, table, task, seed, n_boot)
        for frames, part in ((choices, table), (regrets, lost)):
            part.insert(0, "base", base)
            frames.append(part)
    return tuple(pd.concat(frames[1:] or frames, ignore_index=True) for frames in (choices, regrets))


def alpha_over_seeds(choices: pd.DataFrame) -> pd.DataFrame:
    """`choose_alpha` of several seeds put together, base by base: means and 95 % t intervals over them, and how many
    of them choose the alpha by_hard, by_gap and as the oracle. choices: with columns base and seed."""
    table = []
    for (base, alpha), part in choices.groupby(["base", "alpha"]):
        row = {"base": base, "alpha": alpha, "seeds": len(part)} | part[list(RULES)].sum().to_dict()
        for name in SCORES:
            over = bootstrap.of_seeds(part[name].to_numpy(float))
            row |= {name: over["value"], f"{name}_low": over["low"], f"{name}_high": over["high"]}
        table.append(row)
    return pd.DataFrame(table, columns=["base", "alpha", "seeds", *ENDS, *RULES])


def instance_effects(runs: dict[tuple[str, int], dict[str, pd.DataFrame]]) -> pd.DataFrame:
    """OOD score of RMC less that of each control that was made: task | base | control | seed | value.

    runs: (task, seed) -> model -> rows.
    """
    effects = []
    for (task, seed), rows in runs.items():
        for base in _rmc_bases(rows):
            controls = [control for control in INSTANCE if f"{base} + {control}" in rows]
            ood = {loss: _ood(rows[f"{base} + {loss}"], registry.get(task)) for loss in ("rmc", *controls)}
            effects += [{"task": task, "base": base, "control": control, "seed": seed,
                         "value": ood["rmc"] - ood[control]} for control in controls]
    return pd.DataFrame(effects, columns=["task", "base", "control", "seed", "value"])


def _rmc_bases(rows: dict[str, pd.DataFrame]) -> list[str]:
    return [name.removesuffix(" + rmc") for name in rows if name.endswith(" + rmc")]


def _ood(rows: pd.DataFrame, task: Task) -> float:
    return float(measures.overall(rows, task, n_boot=0).set_index("measure").loc["ood", "value"])


def _ood_difference(a: pd.DataFrame, b: pd.DataFrame, task: Task, seed: int, n_boot: int) -> dict:
    table = measures.compare(a, b, task, n_boot=n_boot, seed=seed).set_index("measure")
    return {name: table.loc["ood_difference", name] for name in ("value", "low", "high", "n")}
