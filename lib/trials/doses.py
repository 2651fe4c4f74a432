"""Dose and response: the same models trained where the shortcut holds more or less often, or on more or fewer rows
(notebook 06b). One thing varies at a time; test and OOD rows, and the number of steps, stay."""

import numpy as np
import pandas as pd
from scipy import stats

from lib import names, store
from lib.analysis import difficulty, measures, shortcuts, tables
from lib.models import make, recipes
from lib.tasks import microworld
from lib.tasks.task import Task
from lib.trials import mitigation

RATE, SIZE = "shortcut_rate", "n_train"


def of_run(run, items: pd.DataFrame) -> pd.DataFrame:
    """The doses: axis | dose | n_train | shortcut_rate, the profile's own draw among those of each axis.

    items: the task's rows; the share of train rows on which the shortcut holds is the profile's own rate.
    """
    train = items[items["split"] == "train"]
    size, rate = len(train), float(train["is_shortcut"].mean())
    rates = sorted({*run.shortcut_rates, rate}) if run.shortcut_rates else []
    sizes = sorted({*run.train_sizes, size}) if run.train_sizes else []
    rows = [(RATE, round(r, 3), size, r) for r in rates] + [(SIZE, float(n), n, rate) for n in sizes]
    return pd.DataFrame(rows, columns=["axis", "dose", SIZE, RATE])


def draw(items: pd.DataFrame, task: Task, seed: int, n_train: int, shortcut_rate: float) -> pd.DataFrame:
    """The task's test and OOD rows beside a train draw at that dose. StudyError: a dose the grammar cannot fill."""
    fresh = microworld.generate(task.name, seed=seed, n_train=n_train, n_eval=100, n_ood=2, shortcut_rate=shortcut_rate)
    kept = items[items["split"].isin(["test", *tables.ood_splits(task)])]
    return pd.concat([fresh[fresh["split"] == "train"], kept], ignore_index=True)


def train(run, items: pd.DataFrame, epochs: float) -> dict[str, store.Model]:
    """The dense model and every model of `run.models` on these rows, each for that many epochs.

    The difficulty of RMC comes from the sparsities along the first pruned model's own run.
    """
    paced = run.model_copy(update={"epochs": epochs})
    made = {"dense": make.model(paced, items, "dense", make.Extras(predict_train=True))}
    for name in sorted(run.models, key=lambda name: names.parse(name).loss == "rmc"):
        recipe = names.parse(name)
        if recipe.loss == "rmc":
            extras = mitigation.extras(recipe.loss_name, paced, items, made["dense"], made.get(recipe.base),
                                       _scores(made, items))
            made[name] = make.model(paced, items, name, extras)
        elif recipe.family == "imp" and recipe.loss == "vanilla":
            made[name] = make.model(paced, items, name, asked(paced, name))
        else:
            made[name] = recipes.follow(paced, items, name, made)
    if not run.keep_weights:
        store.let_go(made.values())
    return made


def asked(run, name: str) -> make.Extras:
    """How a model is made, but for what it takes from others; a pruned one is predicted on train along its run."""
    recipe = names.parse(name)
    if recipe.family != "imp" or recipe.loss != "vanilla":
        return recipes.asked(run, name)
    levels = tuple(level for level in run.run_levels if level <= float(recipe.structure.split("-")[1]) / 100)
    return make.Extras(epochs=run.epochs, run_levels=levels, checkpoint_splits=("train",))


def _scores(made: dict[str, store.Model], items: pd.DataFrame) -> pd.DataFrame:
    pruned = dict(list(shortcuts.by_sparsity(made).items())[-1:])
    v = difficulty.variance(shortcuts.run_losses(pruned, items))
    return pd.DataFrame({"guid": items.loc[items["split"] == "train", "guid"].to_numpy(), "v_one_run": v})


def response(rows: dict[str, pd.DataFrame], task: Task, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """What one dose does to each model: model | measure | value | low | high.

    measure: test, ood and fails_only (scores); for compressed models gap_difference, f_bias and skill_kept against the
    dense model of the same dose (`measures.compare`). Intervals over rows.
    """
    scored = tables.scores(rows, task, seed=seed, n_boot=n_boot)
    scored = scored[scored["split"].isin(["test", "ood", "ood fails-only"])]
    against = tables.relative(rows, task, seed=seed, n_boot=n_boot)
    against = against[against["measure"].isin(["gap_difference", "f_bias", "skill_kept"])]
    scored = scored.rename(columns={"split": "measure"}).replace({"measure": {"ood fails-only": "fails_only"}})
    return pd.concat([scored, against], ignore_index=True)[["model", "measure", "value", "low", "high"]]


def slopes(responses: pd.DataFrame) -> pd.DataFrame:
    """How the gap against dense grows with the shortcut rate: model | slope | n, points for each 10 points of the rate.

    responses: `response` of every dose with columns axis and dose; a least-squares line through the doses of the rate.
    """
    gaps = responses[(responses["axis"] == RATE) & (responses["measure"] == "gap_difference")]
    rows = [{"model": model, "slope": stats.linregress(part["dose"] * 10, part["value"] * 100).slope, "n": len(part)}
            for model, part in gaps.groupby("model", sort=False) if part["dose"].nunique() > 1]
    return pd.DataFrame(rows, columns=["model", "slope", "n"])


def first_to_go(rows: dict[str, pd.DataFrame], items: pd.DataFrame, task: Task, seed: int) -> pd.DataFrame:
    """Points lost against the dense model of the same dose on each trained subcase: model | subcase | count | depth |
    lost, largest loss first. items: the rows of the dose, whose train draw gives the counts."""
    table = tables.forgetting(rows, items, task, seed=seed, n_boot=0)
    table = table[table["model"] != "dense"].assign(lost=lambda t: t["lost"] * 100)
    columns = ["model", "subcase", "count", "depth", "lost"]
    return table.sort_values("lost", ascending=False, ignore_index=True)[columns]


def judged(made: dict[str, store.Model], items: pd.DataFrame, task: Task) -> dict[str, pd.DataFrame]:
    """The rows of each model on test and OOD (`measures.rows`)."""
    return {name: measures.rows(store.evaluated(model), items, task) for name, model in made.items()}


def steps_kept(run, items: pd.DataFrame, n_train: int) -> float:
    """Epochs that make as many steps of `n_train` rows as the profile's own epochs make of its own train rows."""
    own = int((items["split"] == "train").sum())
    return float(np.ceil(run.epochs * own / run.batch_size) * run.batch_size / n_train)
