"""What results say, in sentences whose numbers are read from them."""

import numpy as np
import pandas as pd

from lib.analysis import bootstrap, rmc, tables
from lib.analysis.tables import case_name, with_interval
from lib.figures import plot_doses
from lib.figures.here import each, ends
from lib.figures.plot_rmc import SCORES, loss_label
from lib.figures.report import say
from lib.figures.theme import LABELS, label_of
from lib.tasks import microworld
from lib.tasks.task import Task


def best_floor(scores: pd.DataFrame, task: Task) -> str:
    """Which floor comes furthest on test, and which is surely above chance OOD. scores: `tables.scores` of floors."""
    best, score = _best_on_test(scores)
    above = [f"{row.model} on {row.split}" for row in scores[scores["split"].isin(task.scored)].itertuples()
             if row.low > task.chance(row.split)]
    return f"on test {best} comes furthest, {score:.1f}; surely above chance OOD: {', '.join(above) or 'none'}."


def knows(scores: pd.DataFrame, task: Task, over: str = "", seeds: pd.DataFrame | None = None) -> str:
    """The dense model's scores beside the best floor and chance; and over the seeds. scores: `tables.scores` of the
    floors and of dense; over, seeds: the same table of committed runs, as `here.by_seed` gives them."""
    best, floor = _best_on_test(scores[scores["model"] != "dense"])
    dense = scores[scores["model"] == "dense"].set_index("split")
    beside = {"test": (best, floor)} | {split: ("chance", 100 * task.chance(split)) for split in task.scored}
    told = "; ".join(f"{_score(dense, split)} on {split}, {100 * dense.loc[split, 'value'] - level:.1f} above {name}"
                     for split, (name, level) in beside.items())
    if not over:
        return f"dense scores {told}."
    known = tables.over_seeds(seeds[seeds["model"] == "dense"], ["split"]).set_index("split")
    return f"dense scores {told}. Over {over}: {', '.join(f'{_score(known, split)} on {split}' for split in beside)}."


def _best_on_test(scores: pd.DataFrame) -> tuple[str, float]:
    test = scores[scores["split"] == "test"].set_index("model")["value"]
    return test.idxmax(), 100 * test.max()


def _score(scores: pd.DataFrame, split: str) -> str:
    return with_interval(*scores.loc[split, ["value", "low", "high"]])


def nothing_to_forget(forgetting: pd.DataFrame, chance: float) -> str:
    """Where the dense model is at chance, and where it is best and worst. forgetting: `tables.forgetting`."""
    dense = forgetting[forgetting["model"] == "dense"]
    dense = dense.assign(case=[case_name(*row) for row in zip(dense["subcase"], dense["count"])]).set_index("case")
    best, worst = ends(100 * dense["value"], ".1f", " %")
    unknown = ", ".join(dense.index[dense["low"] <= chance])
    return f"best on {best}, worst on {worst}. Nothing to forget, not surely above chance: {unknown or 'none'}."


def risen(trajectory: pd.DataFrame, task: Task) -> str:
    """The first checkpoint of the dense run with half of what its end has above chance, ID and OOD. trajectory:
    `tables.trajectory`."""
    told, line = [], trajectory.sort_values("step").set_index("step")
    for name, column, chance in (("ID", "dev", task.chance("test")), ("OOD", "ood", tables.ood_chance(task))):
        above = 100 * (line[column] - chance)
        if above.iloc[-1] > 0:
            half = above.index[2 * above >= above.iloc[-1]][0]
            told.append(f"{name} by step {half:g} ({above[half]:.1f} of {above.iloc[-1]:.1f} points)")
    return f"half of what it ends up with above chance was there, {', '.join(told) or 'nowhere, as it ends at chance'}."


def learned_last(known: pd.DataFrame) -> str:
    """What the dense run learned first, last and never. known: `tables.learned_by`."""
    before, last = known.columns[-2:]
    first, slow = ends(100 * known[before], ".0f", " %")
    late, never = (ends(100 * shares, ".0f", " %")[0] for shares in (known[last] - known[before], 1 - known[last]))
    return (f"by step {before:g} of {last:g} the run had learned the largest share of {first}, the smallest of {slow}; "
            f"after that the largest of {late}; never the largest of {never}.")


def above_line(matched: pd.DataFrame, models: list[str]) -> str:
    """How far each model lies above the dense run's line, or why that is not known. matched: `tables.matched`."""
    told = [f"{label_of(model)} {with_interval(row.value, row.low, row.high)}" + f" ({row.reason})" * bool(row.reason)
            for model, row in matched.iterrows() if model in models]
    return f"points above the dense run's line: {'; '.join(told) or 'nothing to compare'}."


def label_kept(task, attacks: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Whether the attacked pairs keep their true label, as far as can be known. rows: the originals, with text_a."""
    pairs = attacks[attacks["success"]].merge(rows[["guid", "text_a"]], on="guid")
    if task.name not in microworld.TASKS:
        return (f"{len(pairs)} pairs were found. Whether they keep their label nobody has checked: only the "
                "micro-world can tell.")
    labels = [microworld.label_of(task.name, a, b) for a, b in zip(pairs["text_a"], pairs["adversarial"])]
    kept = sum(label == true for label, true in zip(labels, pairs["label"]))
    unread = sum(label is None for label in labels)
    said = f"By the grammar **{kept} of {len(pairs)}** adversarial pairs keep their true label"
    return said + (f"; {unread} hold a word that the grammar does not know." if unread else ".")


def side_by_side(task, attacks: pd.DataFrame, rows: pd.DataFrame, n: int = 6) -> pd.DataFrame | None:
    """Originals beside what broke them, one of each model in turn; none of real sets, whose terms forbid it."""
    if task.name not in microworld.TASKS:
        say("Texts of this set may not be shown here. In your own run they stand in "
            "`08_loyalty_and_attacks/attacks/*.parquet`.")
        return None
    pairs = attacks[attacks["success"]].merge(rows[["guid", "text_a"]], on="guid")
    pairs = pairs.drop_duplicates(["guid", "adversarial"])
    pairs = pairs.assign(turn=pairs.groupby("model", sort=False).cumcount()).sort_values("turn", kind="stable").head(n)
    pairs = pairs.assign(label=[task.labels[label] for label in pairs["label"]])
    names = {"text_a": task.text_a, "text_b": task.text_b}
    return pairs[["model", "text_a", "text_b", "adversarial", "label"]].rename(columns=names).set_index("model")


def notes(table: pd.DataFrame) -> str:
    """One line for each different note of `costs.measure`, with the models it is about."""
    lines = [f"- {path}: {note} ({', '.join(group['model'])})"
             for (path, note), group in table.groupby(["path", "note"], sort=False)]
    return "\n".join(lines) or "Every path ran for every model."


def loyal(table: pd.DataFrame, null: list[str], splits: list[str]) -> str:
    """Which models follow the dense one less and more than dense models of other seeds do, by intervals apart.

    table: `loyalty.by_split` with a column model; null: the names of the other seeds there.
    """
    if not null:
        return "this run has one dense model only: no null to read loyalty against."
    lines = []
    for split in splits:
        labels = table[(table["measure"] == "label_loyalty") & (table["split"] == split)].set_index("model")
        ends = labels.loc[null, "value"].mean(), labels.loc[null, "low"].min(), labels.loc[null, "high"].max()
        others = labels.drop(index=null)
        less, more = others["high"] < ends[1], others["low"] > ends[2]
        lines.append(f"On {split} a dense model of another seed gives {with_interval(*ends)} % of the rows the same "
                     f"label. Surely fewer: {_names(others[less])}; not told apart from another seed: "
                     f"{_names(others[~less & ~more])}; surely more: {_names(others[more])}.")
    return " ".join(lines)


def _names(rows: pd.DataFrame) -> str:
    return ", ".join(label_of(model) for model in rows.index) or "none"


def robust(broken: pd.DataFrame) -> str:
    """Which model's right answers the attack turns most easily, and which least; `broken`: summaries by model."""
    rate = broken[broken["measure"] == "success_rate"].set_index("model")["value"].dropna().sort_values(ascending=False)
    if "dense" not in rate:
        return "the dense model has none of these rows right: there was nothing to attack."
    ends = [f"{label_of(name)} ({100 * rate[name]:.0f} %)" for name in (rate.index[0], rate.index[-1])]
    return (f"the attack turns {100 * rate['dense']:.0f} % of the dense model's right answers. Of these models most "
            f"easily turned: {ends[0]}; least: {ends[1]}.")


def size_and_speed(table: pd.DataFrame) -> str:
    """What the models of `choice.combine` take on disk, and how many times as fast as dense they answer one example,
    each in its fastest own path; what was not measured is left out."""
    table = table[table["bytes"].notna()].set_index("model")
    dense = table.loc["dense"]
    told = []
    for model, row in table.iterrows():
        timed = pd.notna(row["latency_ms"]) and pd.notna(dense["latency_ms"])
        fast = f"{row['latency_ms']:.1f} ms" if model == "dense" else f"{dense['latency_ms'] / row['latency_ms']:.1f}x"
        told.append(f"{label_of(model)} {row['bytes'] / 1e6:.1f} MB" + f" and {fast} (`{row['path']}`)" * timed)
    return f"size, and time or speed against dense: {'; '.join(told)}."


def one_run(one_run: pd.DataFrame, price: pd.DataFrame) -> str:
    """Whether the difficulty of one pruning run may stand for that of several, task by task, by the rule of
    `rmc.one_run_serves`; both tables over seeds."""
    lines = []
    ranks = price[(price["score"] == "v_one_run") & (price["on"] == "train") & (price["measure"] == "rank")]
    for row in ranks.itertuples():
        differences = one_run[one_run["task"] == row.task]
        ood = ", ".join(f"{base.base}: {with_interval(base.value, base.low, base.high)} OOD points"
                        for base in differences.itertuples())
        serves = "serves" if rmc.one_run_serves(row.value, differences) else "does not serve"
        lines.append(f"- {row.task}: rank agreement {with_interval(row.value, row.low, row.high, 2, 1)}; RMC from one "
                     f"run less RMC from several, {ood or 'not trained'}. One run **{serves}** by the rule (agreement "
                     "of 0.8, difference within a point).")
    return "\n".join(lines) or "No difficulty was measured."


def gained(gains: pd.DataFrame, base: str) -> str:
    """Points that each loss, and the dense model, have more than a base, set by set. gains: `tables.gains`."""
    named = gains.assign(loss=[loss_label(model, base) for model in gains["model"]]).groupby("split", sort=False)
    return "; ".join(f"{LABELS.get(split, split)} {each(part, 'loss')}" for split, part in named)


def regained(table: pd.DataFrame) -> str:
    """How many OOD points each base had lost over the seeds and how many each loss gave back, over them all and at the
    seed where the base had lost most. table: `rmc.regained`."""
    told = []
    for base, part in table.groupby("base", sort=False):
        named = part.assign(loss=[loss_label(f"{base} + {loss}", base) for loss in part["loss"]])
        back = tables.over_seeds(named, ["base", "loss"])
        had = bootstrap.of_seeds(named.drop_duplicates("seed")["lost"].to_numpy(float))
        lost = with_interval(had["value"], had["low"], had["high"])
        worst = named[named["lost"] == named["lost"].max()]
        there = ", ".join(f"{row.loss} {100 * row.value:.1f}" for row in worst.itertuples())
        told.append(f"{label_of(base)} had lost {lost} OOD points, given back: {each(back, 'loss')}; where it had lost "
                    f"most, {100 * worst['lost'].iloc[0]:.1f}: {there}")
    return ". ".join(told)


def chosen_alpha(choices: pd.DataFrame) -> str:
    """At how many seeds each rule on dev chooses the oracle's alpha, and which alpha the oracle chooses at how many.
    choices: `rmc.choose_alpha` of several seeds, with columns base and seed."""
    told = []
    for base, part in choices.groupby("base", sort=False):
        oracle = part[part["oracle"]]
        places = " and ".join(f"{alpha:g} at {n}" for alpha, n in oracle["alpha"].value_counts().sort_index().items())
        rules = " and ".join(f"{name} at {int(oracle[rule].sum())}" for rule, name in (
            ("by_hard", "by its hard part"), ("by_gap", "by the gap")))
        told.append(f"the alpha that is best OOD for {label_of(base)} is {places} of {len(oracle)} seeds; dev chooses "
                    f"it {rules} of them")
    return "; ".join(told)


def regret(regret: pd.DataFrame) -> str:
    """What choosing alpha without OOD data loses to the oracle, from regrets over seeds."""
    lines = [f"- {row.task}, {row.base}, rule {row.rule}: {with_interval(row.value, row.low, row.high)} OOD points "
             f"lost to the oracle's alpha over {row.seeds} seed{'s' * (row.seeds > 1)}" for row in regret.itertuples()]
    return "\n".join(lines) or "This profile tries one alpha: nothing to choose."


FREE = ("variability", "confidence", "el2n")  # scores that need nothing beyond the dense run


def finders(rivals: pd.DataFrame, costs: pd.DataFrame | None = None) -> str:
    """How well each score finds the shortcut-breaking rows of train, the best first, with its price in dense trainings,
    and how the best free one stands to the variance over levels. The shortcut-only model is left out: it is handed the
    shortcut. rivals: `shortcuts.rivals`, of several seeds with a column seed; costs: `shortcuts.prices`."""
    found = rivals[(rivals["measure"] == "auc") & (rivals["on"] == "train")].dropna(subset="value")
    found = found[found["score"] != "shortcut_confidence"]
    found = found if "seed" in found else found.assign(seed=0)
    if found.empty:
        return "the data do not record which rows break the shortcut: no score can be held against the truth."
    over = tables.over_seeds(found, ["score"]).sort_values("value", ascending=False, kind="stable")
    price = {} if costs is None else {name: f" for {runs:.3g}" for name, runs in costs["dense_runs"].items()}
    told = [f"{SCORES[row.score]} {with_interval(row.value, row.low, row.high, 2, 1)}{price.get(row.score, '')}"
            for row in over.itertuples()]
    best = next(score for score in over["score"] if score in FREE)
    auc = found.pivot(index="seed", columns="score", values="value")
    apart = bootstrap.of_seeds((auc[best] - auc["v_levels"]).to_numpy())
    beyond = with_interval(apart["value"], apart["low"], apart["high"], 2, 1)
    head = "AUC, best first" + ", each with its price in dense trainings" * (costs is not None)
    return (f"{head}: {', '.join(told)}. {SCORES[best]}, from the dense run alone, less the variance over levels: "
            f"{beyond}.")


def beyond_dense(responses: pd.DataFrame, axis: str, chance: float = 0.5) -> str:
    """Each model's gap beyond dense, in points, at the least and at the greatest dose at which it can be read
    (`plot_doses.surely_learned`), and where it cannot. responses: `doses.response` of every dose, or of seeds."""
    part = responses[responses["axis"] == axis]
    read = plot_doses.surely_learned(part, chance)
    gaps = part[part["measure"] == "gap_difference"].sort_values("dose", kind="stable")
    sure = [{(row.model, row.dose), ("dense", row.dose)} <= read for row in gaps.itertuples()]
    told = []
    for model, rows in gaps[sure].groupby("model", sort=False):
        ends = [f"{with_interval(row.value, row.low, row.high)} at {row.dose:g}" for row in rows.itertuples()]
        told.append(f"{label_of(model)} " + " and ".join(dict.fromkeys([ends[0], ends[-1]])))
    blank = [f"{', '.join(label_of(model) for model in rows['model'])} at {dose:g}"
             for dose, rows in gaps[~np.array(sure, bool)].groupby("dose")]
    return f"{'; '.join(told) or 'none can be read'}." + f" Not surely learned: {'; '.join(blank)}." * bool(blank)
