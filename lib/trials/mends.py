"""What mends a compressed model most cheaply: more rows of what it forgot, more steps, more weights, another loss
(notebook 07b)."""

import pandas as pd

from lib import names, store
from lib.analysis import measures, tables
from lib.models import recipes
from lib.tasks import microworld
from lib.tasks.task import Task
from lib.trials import doses

ALL_LEVELS = ("rmc", "smooth_matched", "smooth_entropy", "rmc_shuffled")  # losses that need the difficulty of 06
TABLE = ["base", "mend", "kind", "model", "rows", "cost", "nonzero_parameters", "test", "ood", "value", "low", "high",
         "forgotten", "forgotten_value", "forgotten_low", "forgotten_high"]


def forgotten(dense: pd.DataFrame, base: pd.DataFrame) -> str:
    """The trained OOD subcase on which the base falls furthest below the dense model. Both: `measures.rows`."""
    right = [rows[rows["split"] == "ood"].groupby("subcase")["correct"].mean() for rows in (dense, base)]
    return str((right[0] - right[1]).idxmax())


def with_more(items: pd.DataFrame, task: Task, subcase: str, k: int, seed: int) -> pd.DataFrame:
    """Test and OOD rows, and train with k new rows of a subcase on which the shortcut fails."""
    kept = items[items["split"].isin(["train", "test", *tables.ood_splits(task)])]
    new = microworld.more(task.name, subcase, k, seed=seed, without=set(items["guid"]))
    return pd.concat([kept, new], ignore_index=True)


def more_rows(run, items: pd.DataFrame, task: Task, base: str, subcase: str,
              dense: store.Model) -> dict[int, store.Model]:
    """The base trained again, for as many steps, with k more rows of the subcase, for every k of `run.more_rows`."""
    made = {}
    for k in run.more_rows:
        wider = with_more(items, task, subcase, k, run.seed)
        n = int((wider["split"] == "train").sum())
        paced = run.model_copy(update={"epochs": doses.steps_kept(run, items, n)})
        made[k] = recipes.follow(paced, wider, base, {"dense": dense})
    if not run.keep_weights:
        store.let_go(made.values())
    return made


def others(base: str, structures: list[str], available: dict[str, store.Model]) -> dict[str, tuple[str, store.Model]]:
    """Every finished mend of a base but more rows: mend -> (kind, model).

    kind: steps (the base for twice as long), weights (a larger structure of its family), loss (notebooks 03 and 07).
    """
    kinds = {f"{base}-2x": "steps"}
    kinds |= {name: "weights" for name in structures if names.parse(name).family == names.parse(base).family}
    kinds |= {name: "loss" for name in available
              if name.startswith(f"{base} + ") and not names.parse(name).quantization}
    return {name: (kind, available[name]) for name, kind in kinds.items() if name in available and name != base}


def cost(model: store.Model, dense: store.Model, pruned: list[store.Model]) -> float:
    """Price of a mended model in dense trainings, by floating-point operations: its own training and, for a loss that
    is told how hard each row is, the pruned runs that tell it (`pruned`, all of them, or the sparsest for one run)."""
    recipe = names.parse(model.name)
    needed = [model]
    if recipe.setting == "one_run":
        needed += pruned[-1:]
    elif recipe.loss in ALL_LEVELS:
        needed += pruned
    return sum(_work(one) for one in needed) / _work(dense)


def _work(model: store.Model) -> float:
    return model.record["steps"] * model.record["batch_size"] * model.record["flops_per_example"]


def gains(base: str, mends: dict[str, tuple[str, int, store.Model, pd.DataFrame]], base_rows: pd.DataFrame,
          subcase: str, dense: store.Model, pruned: list[store.Model], task: Task, seed: int,
          n_boot: int = 1000) -> pd.DataFrame:
    """One row a mend, columns TABLE: what it costs and what it gives over the base, paired over rows.

    mends: name -> (kind, new labelled rows, model, its `measures.rows`). value: OOD difference to the base;
    forgotten_*: the same on the rows of the forgotten subcase alone. rows: new labelled rows. cost: `cost`.
    """
    result = []
    for mend, (kind, k, model, rows) in mends.items():
        whole = measures.overall(rows, task, n_boot=0).set_index("measure")["value"]
        ends, pair = {}, [judged[judged["split"] == "ood"] for judged in (rows, base_rows)]
        for prefix in ("", "forgotten_"):
            difference = measures.difference(*pair, "accuracy", n_boot=n_boot, seed=seed).iloc[0]
            ends |= {f"{prefix}{end}": difference[end] for end in ("value", "low", "high")}
            pair = [ood[ood["subcase"] == subcase] for ood in pair]
        result.append({"base": base, "mend": mend, "kind": kind, "model": model.name, "rows": k,
                       "cost": cost(model, dense, pruned), "nonzero_parameters": model.record["nonzero_parameters"],
                       "test": whole["test"], "ood": whole["ood"], "forgotten": subcase, **ends})
    return pd.DataFrame(result, columns=TABLE)


def few(table: pd.DataFrame) -> pd.DataFrame:
    """At most six mends of each base, for a figure: the largest number of rows, more steps, the least change of
    structure, and of the losses distillation and RMC with either difficulty."""
    losses = table["mend"].str.endswith(("+ distil", "+ rmc", "+ rmc_one_run"))
    first = table.sort_values("rows", ascending=False, kind="stable").groupby(["base", "kind"]).head(1)
    return table[table.index.isin(first.index) & (table["kind"] != "loss") | (table["kind"] == "loss") & losses]


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """`gains` of several seeds put together: base | mend | kind | rows | value, low, high | seeds | cost | forgotten_*,
    these of each seed's own forgotten subcase. table: with a column seed."""
    ends, keys = ["value", "low", "high"], ["base", "mend", "kind", "rows"]
    whole = tables.over_seeds(table, keys, ("cost",))
    own = tables.over_seeds(table.assign(**{end: table[f"forgotten_{end}"] for end in ends}), keys)
    return whole.join(own[ends].add_prefix("forgotten_"))
