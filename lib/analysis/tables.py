"""The tables that several notebooks show: many models side by side, each from its rows of `measures.rows`; how tables
of several seeds become one; and how a number and a subcase are worded."""

import numpy as np
import pandas as pd

from lib import files, store
from lib.analysis import bootstrap, learned, measures
from lib.tasks import microworld
from lib.tasks.task import Task


def ood_splits(task: Task) -> list[str]:
    """The OOD sets that make up a task's OOD score; `unseen` subcases and the panel are reported apart."""
    return task.scored


def ood_chance(task: Task) -> float:
    """Chance of the task's OOD score."""
    return float(measures.ood_score({s: task.chance(s) for s in ood_splits(task)}))


def train_counts(items: pd.DataFrame) -> dict[str, int]:
    """Train rows of each subcase on which the shortcut fails; empty where the task does not know the truth."""
    return measures.fails_only(items[items["split"] == "train"])["subcase"].value_counts().to_dict()


def depths(task: Task) -> dict[str, int]:
    """Depth of each subcase; empty where the task does not grade them."""
    return {case.name: case.depth for case in microworld.SUBCASES.get(task.name, ())}


def twins(items: pd.DataFrame) -> pd.DataFrame:
    """One pair of twins of each hard subcase among the OOD rows: subcase | text_a | text_b | label | is_shortcut."""
    ood = items[items["split"].isin(["ood", "unseen"])]
    both = ood[ood.groupby(["subcase", "text_b"])["label"].transform("nunique") > 1]
    first = both.groupby("subcase", sort=False)["text_b"].transform("first")
    pairs = both[both["text_b"] == first].drop_duplicates(["subcase", "label"])
    columns = ["subcase", "text_a", "text_b", "label", "is_shortcut"]
    return pairs[columns].sort_values(["subcase", "label"], ignore_index=True)


def sizes(models: list[store.Model]) -> pd.DataFrame:
    """What each model is, one row a model: its record's numbers."""
    return pd.DataFrame([m.record for m in models]).set_index("model").rename_axis(None)


def with_sparsity(table: pd.DataFrame, models: dict[str, store.Model]) -> pd.DataFrame:
    """A table with a column model, joined with each model's achieved sparsity of the encoder; masks only."""
    sparsity = {name: m.record["sparsity_encoder"] for name, m in models.items()
                if name == "dense" or name.startswith("imp-")}
    return table[table["model"].isin(sparsity)].assign(sparsity=lambda t: t["model"].map(sparsity))


def sparsity_per_layer(models: dict[str, store.Model]) -> pd.DataFrame:
    """Achieved sparsity of each encoder layer's attention and feed-forward weights, one column a pruned model."""
    paths = {name: m.folder / "sparsity_per_layer.csv" for name, m in models.items()}
    return pd.DataFrame({name: pd.read_csv(files.checked(path)).set_index(["layer", "part"])["sparsity"]
                         for name, path in paths.items() if path.exists()}).reset_index()


def scores(rows: dict[str, pd.DataFrame], task: Task, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """model | split | value | low | high | n: each split's own score, and `fails-only` of OOD where it is known."""
    frames = []
    for name, frame in rows.items():
        table = measures.accuracy_table(frame[frame["split"] != "train"], task, n_boot=n_boot, seed=seed)
        failing = (table["score"] == "fails_only") & table["split"].isin(task.ood)
        table = table[table["primary"] | failing].assign(model=name)
        table["split"] = table["split"].where(~failing, table["split"] + " fails-only")
        frames.append(table[["model", "split", "value", "low", "high", "n"]])
    return pd.concat(frames, ignore_index=True)


def by_heuristic(rows: dict[str, pd.DataFrame], task: Task, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """OOD accuracy per heuristic and label: model | split | heuristic | label | value | low | high | n; of the sets
    that were predicted, without `unseen`."""
    frames = []
    for name, frame in rows.items():
        for split in (split for split in (*task.scored, *task.panel) if (frame["split"] == split).any()):
            part = frame[frame["split"] == split]
            names = dict(enumerate(task.classes(split)))
            table = measures.by(part, ["heuristic", "label"], n_boot=n_boot, seed=seed).replace({"label": names})
            frames.append(table.assign(model=name, split=split))
    return pd.concat(frames, ignore_index=True)[["model", "split", "heuristic", "label", "value", "low", "high", "n"]]


def relative(rows: dict[str, pd.DataFrame], task: Task, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Every model against `dense`: model | measure | value | low | high | n | flag, differences as shares."""
    return pd.concat([measures.compare(frame, rows["dense"], task, n_boot=n_boot, seed=seed).assign(model=name)
                      for name, frame in rows.items() if name != "dense"], ignore_index=True)


def forgetting(rows: dict[str, pd.DataFrame], items: pd.DataFrame, task: Task, seed: int,
               n_boot: int = 1000) -> pd.DataFrame:
    """The forgetting curves over the OOD rows: model | subcase | count | depth | value | low | high | n | lost |
    lost_low | lost_high.

    rows: of the dense model too. The panel is left out. A set without subcases is taken apart by its labels. count:
    failing rows in train, missing where the task does not know the truth; depth is 0 where it grades nothing; lost: the
    dense model's score less the model's, on the same rows.
    """
    counts, depth = train_counts(items), depths(task)
    sets, frames, ood = [split for split in task.ood if split not in task.panel], [], {}
    for name, frame in rows.items():
        here = frame[frame["split"].isin(sets)]
        ood[name] = here.assign(subcase=_kinds(here, task))
    for name, frame in ood.items():
        frames.append(measures.forgetting(frame, counts, ood["dense"], n_boot, seed).assign(model=name))
    table = pd.concat(frames, ignore_index=True)
    table = table.assign(depth=table["subcase"].map(depth).fillna(0).astype(int))
    if items["is_shortcut"].isna().all():
        table["count"] = np.nan
    return table[["model", "subcase", "count", "depth", "value", "low", "high", "n", "lost", "lost_low", "lost_high"]]


def _kinds(rows: pd.DataFrame, task: Task) -> pd.Series:
    """The subcase of each row; its set and label where it has none."""
    by_label = [f"{split}: {task.classes(split)[label]}" for split, label in zip(rows["split"], rows["label"])]
    return rows["subcase"].where(rows["subcase"] != "", by_label)


def trajectory_rows(checkpoints: pd.DataFrame, items: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Rows of test and OOD of the dense run along its steps: predictions with a column step, the end among them."""
    return measures.rows(checkpoints[checkpoints["split"].isin(["test", *ood_splits(task)])], items, task)


def points(rows: dict[str, pd.DataFrame], task: Task, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Each model as a point: model | loss | dev | dev_low | dev_high | ood | ood_low | ood_high.

    dev is the ID score on `test`, the rows the papers call dev.
    """
    result = []
    for name, frame in rows.items():
        table = measures.overall(frame, task, n_boot=n_boot, seed=seed).set_index("measure")
        result.append({"model": name, "loss": name.partition(" + ")[2] or "vanilla"} | {
            f"{key}{end}": table.loc[measure, column] for key, measure in (("dev", "test"), ("ood", "ood"))
            for end, column in (("", "value"), ("_low", "low"), ("_high", "high"))})
    return pd.DataFrame(result)


def trajectory(along: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The dense run as a line: step | dev | ood, from the rows of `trajectory_rows`."""
    line = [{"step": step} | measures.overall(part, task, n_boot=0).set_index("measure")["value"].to_dict()
            for step, part in along.groupby("step")]
    return pd.DataFrame(line).rename(columns={"test": "dev"})


def learned_by(along: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Of the OOD rows on which the shortcut fails, or of all where that is not known, the share of each subcase that is
    right from a step of the dense run to its end: subcase (the index, first learned first) | a column a step. along:
    the rows of `trajectory_rows`."""
    last = along["step"].max()
    rows = along[(along["step"] == last) & along["split"].isin(ood_splits(task))]
    failing = measures.fails_only(rows)
    rows = failing if len(failing) else rows
    when, kinds = rows["guid"].map(learned.learned_at(along) * last), _kinds(rows, task)
    table = pd.DataFrame({step: (when <= step).groupby(kinds).mean() for step in sorted(set(along["step"]))})
    return table.iloc[table.mean(axis=1).argsort(kind="stable")[::-1]].rename_axis("subcase")


def matched(along: pd.DataFrame, rows: dict[str, pd.DataFrame], task: Task, seed: int,
            n_boot: int = 1000) -> pd.DataFrame:
    """Each model's OOD score less the dense run's at the same ID score, one row a model (`measures.matched_dev`)."""
    return pd.concat([measures.matched_dev(along, frame, task, n_boot=n_boot, seed=seed).assign(model=name)
                      for name, frame in rows.items() if name != "dense"], ignore_index=True).set_index("model")


def gains(rows: dict[str, pd.DataFrame], task: Task, pairs: list[tuple[str, str]], seed: int,
          n_boot: int = 1000) -> pd.DataFrame:
    """Differences model - baseline on the same rows: model | baseline | split | value | low | high | n; of the panel,
    the sets that were predicted."""
    result = []
    for name, baseline in pairs:
        there = set(rows[name]["split"]) & set(rows[baseline]["split"])
        for split in ("test", *(split for split in task.ood if split in there or split not in task.panel)):
            a, b = (rows[m][rows[m]["split"] == split] for m in (name, baseline))
            result.append(measures.difference(a, b, measures.kind_of(task, split), n_boot=n_boot, seed=seed)
                          .assign(model=name, baseline=baseline, split=split))
    columns = ["model", "baseline", "split", "value", "low", "high", "n"]
    return pd.concat(result, ignore_index=True)[columns] if result else pd.DataFrame(columns=columns)


def over_seeds(table: pd.DataFrame, keys: list[str], averaged: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table of several seeds put together: keys | value | low | high | seeds | the mean of the columns `averaged`.

    table: keys, seed, value and, where a seed knows its own interval over rows, low and high. Of several seeds: mean
    and 95 % t interval over them, undefined values left out; of one: its own interval, or none.
    """
    result = []
    known = table[table["value"].notna()] if len(table) else table
    for place, part in known.groupby(keys, sort=False) if len(known) else []:
        own = (part[end].iloc[0] if end in part else np.nan for end in ("low", "high"))
        result.append(dict(zip(keys, place)) | bootstrap.of_seeds(part["value"].to_numpy(float), *own)
                      | part[list(averaged)].mean().to_dict())
    return pd.DataFrame(result, columns=[*keys, "value", "low", "high", "seeds", *averaged])


def with_interval(value: float, low: float, high: float, digits: int = 1, scale: float = 100) -> str:
    """`84.2 [83.1, 85.3]`, in percent unless `scale` says otherwise; `undefined` for a missing value."""
    if pd.isna(value):
        return "undefined"
    text = f"{scale * value:z.{digits}f}"
    return text if pd.isna(low) else f"{text} [{scale * low:z.{digits}f}, {scale * high:z.{digits}f}]"


def case_name(subcase: str, count: float) -> str:
    """A subcase with its rows in train, where they are known: "role swap (5 rows)"."""
    return subcase.replace("_", " ") + ("" if pd.isna(count) else f" ({count:g} row{'' if count == 1 else 's'})")
