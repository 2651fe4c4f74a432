"""What claims are decided on: every model of a profile, over tasks and seeds (notebook 09)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from lib import bootstrap, contrasts, loyalty, measures, reference, schema, store, tables, tasks
from lib.errors import StudyError

MODEL_STAGES = reference.MODEL_STAGES
PLACE = "08_loyalty_and_attacks"
JUDGED = ["pred", "correct", "confidence", "loss"]
OF_ENTRY = ["guid", "split", "subcase", "group", "label", "correct", "confidence", "loss"]
OVER_SEEDS = ("test", "ood", "gap_difference", "loyalty_test", "loyalty_ood", "after_attack")
SHOWN = {"test": "dev", "ood": "ood", "loyalty_test": "label_loyalty", "loyalty_ood": "loyalty_ood",
            "after_attack": "after_attack"}  # `over_seeds`' word: notebook 08's


@dataclass
class Found:
    """The finished models of a profile and, on demand, their rows; everything is read and computed once."""

    run: object
    runs: dict[tuple[str, int], reference.Made | reference.Kept]
    by_place: dict[tuple[str, int], dict[str, store.Model | reference.Model]]
    _read: dict = field(default_factory=dict)

    @property
    def models(self) -> list[store.Model | reference.Model]:
        return [model for models in self.by_place.values() for model in models.values()]

    def items(self, task: str, seed: int) -> pd.DataFrame:
        """The evaluation rows of a task without their texts; `easy`: the shortcut-only model gets the row right."""
        return self.runs[task, seed].items

    def train(self, task: str, seed: int) -> pd.DataFrame:
        """What is known of each train row: guid, split, label, subcase, heuristic, is_shortcut, notebook 06's scores and
        `loss:<model>`, `loss:<model>@<step>` (nats) of whatever was predicted on train."""
        return self.runs[task, seed].train

    def written(self, stage: str, name: str) -> pd.DataFrame:
        """A table (CSV) that a stage wrote, of every task and seed that has it: task | seed | its own columns."""
        paths = {place: run.folder / stage / name for place, run in self.runs.items()}
        frames = [pd.read_csv(path).assign(task=task, seed=seed) for (task, seed), path in paths.items() if path.exists()]
        table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["task", "seed"])
        return table[["task", "seed", *(column for column in table if column not in ("task", "seed"))]]

    def model(self, task: str, seed: int, name: str) -> store.Model | reference.Model:
        """The finished model of that name; `contrasts.OTHER_DENSE` is the dense one of the first other seed."""
        if name == contrasts.OTHER_DENSE:
            seed, name = min(s for s in self.dense_seeds(task) if s != seed), "dense"
        return self.by_place[task, seed][name]

    def dense_seeds(self, task: str) -> list[int]:
        return [seed for (of, seed), models in self.by_place.items() if of == task and "dense" in models]

    def records(self) -> list[dict]:
        """The models' records, and one for the dense model of another seed beside each seed, where there is one."""
        records = [m.record for m in self.models]
        dense = [r for r in records if r["model"] == "dense" and len(self.dense_seeds(r["task"])) > 1]
        return records + [r | {"model": contrasts.OTHER_DENSE} for r in dense]

    def rows_of(self, task: str, seed: int, model: str) -> pd.DataFrame:
        """`measures.rows` of a model on all splits but train, with the columns easy, label_loyalty, probability_loyalty
        and after_attack of `contrasts`; `contrasts.CHECKPOINTS` gives those of the dense run with a column step."""
        if model == contrasts.CHECKPOINTS:
            return self._once(("along", task, seed), lambda: self._along(task, seed))
        return self._once(("rows", task, seed, model), lambda: self._rows(task, seed, model))

    def _along(self, task: str, seed: int) -> pd.DataFrame:
        items = self.items(task, seed)
        rows = tables.trajectory_rows(self.model(task, seed, "dense").checkpoints(), items, tasks.get(task))
        return rows.assign(easy=rows["guid"].map(items.set_index("guid")["easy"]))

    def _rows(self, task: str, seed: int, model: str) -> pd.DataFrame:
        items = self.items(task, seed)
        logits = _logits(self.model(task, seed, model), items)
        dense = self._once(("dense", task, seed), lambda: _logits(self.model(task, seed, "dense"), items))
        # Rows are told apart by their number: to join them by guid would take longer than all else.
        numbered = self._once(("numbered", task, seed), lambda: items.assign(guid=np.arange(len(items))))
        table = numbered[["guid", "split", "label"]].assign(logits=list(logits))
        judged = measures.rows(table, numbered, tasks.get(task)).sort_values("guid", ignore_index=True)
        return items.assign(**judged[JUDGED], label_loyalty=loyalty.label_loyalty(logits, dense),
                            probability_loyalty=loyalty.probability_loyalty(logits, dense),
                            after_attack=self._after_attack(task, seed, model))

    def _after_attack(self, task: str, seed: int, model: str) -> np.ndarray | float:
        """Whether each attacked row is right after the attack; missing for the others."""
        found = self._once(("attacks", task, seed), lambda: self._attacks(task, seed)).get(model)
        if found is None:
            return np.nan
        at, survived = found
        result = np.full(len(self.items(task, seed)), np.nan, dtype=object)
        result[at] = survived
        return result

    def _attacks(self, task: str, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """model -> numbers of the attacked rows, whether each is right after the attack."""
        path = self.runs[task, seed].file(PLACE, "attacks.parquet") if seed in self.run.seeds else None
        if path is None:
            return {}
        guids = pd.Index(self.items(task, seed)["guid"])
        return {model: (guids.get_indexer(part["guid"]), (part["correct"] & ~part["success"]).to_numpy())
                for model, part in pd.read_parquet(path).groupby("model", sort=False)}

    def _once(self, key: tuple, read: Callable):
        if key not in self._read:
            self._read[key] = read()
        return self._read[key]

    def of_run(self, task: str, seed: int) -> dict[str, pd.DataFrame]:
        """model -> rows, of one task and seed."""
        return {name: self.rows_of(task, seed, name) for name in self.by_place[task, seed]}

    def by_run(self) -> dict[tuple[str, int], dict[str, pd.DataFrame]]:
        """(task, seed) -> model -> rows."""
        return {place: self.of_run(*place) for place in self.by_place}

    def over_seeds(self) -> pd.DataFrame:
        """Each model's numbers over the seeds that ran every notebook: task | model | measure | value | low | high | seeds
        | interval.

        measure: test and ood (the scores of `measures.overall`), gap_difference (test - ood, less the dense model's of the
        same seed), loyalty_test and loyalty_ood (label loyalty; OOD rows pooled), after_attack; shares in [0, 1]. Of several
        seeds: their mean and the t interval over them (interval: "seeds"); of one: the bootstrap over rows ("rows").
        """
        return self._once(("over seeds",), self._over_seeds).copy()

    def _over_seeds(self) -> pd.DataFrame:
        found: dict[tuple, dict[int, float]] = {}
        for (task, seed), models in self.by_place.items():
            if seed in self.run.seeds:
                drawn = _drawn({name: self.rows_of(task, seed, name) for name in models}, tasks.get(task), n_boot=0)
                for key, value in drawn.items():
                    found.setdefault((task, *key), {})[seed] = float(value[0])
        alone: dict[tuple, list[str]] = {}  # models of one seed, whose rows have to tell how sure the numbers are
        for (task, model, _), values in found.items():
            if len(values) == 1:
                alone.setdefault((task, *values), []).append(model)
        drawn = {}
        for (task, seed), names in alone.items():
            rows = {name: self.rows_of(task, seed, name) for name in dict.fromkeys(("dense", *names))}
            of_task = _drawn(rows, tasks.get(task), self.run.n_boot)
            drawn |= {(task, *key): values for key, values in of_task.items()}
        return pd.DataFrame([dict(zip(("task", "model", "measure"), key)) | _summary(list(values.values()), drawn.get(key))
                             for key, values in found.items()])

    def final_table(self) -> pd.DataFrame:
        """Every task and model judged by everything at once: task | model | dev, ood, label_loyalty, loyalty_ood,
        after_attack, each with _low and _high (`over_seeds`; dev is the score on test) | bytes | nonzero_parameters |
        latency_ms (notebook 08's means over the seeds) | seeds | interval."""
        long = self.over_seeds()
        long = long[long["measure"].isin(SHOWN)].replace({"measure": SHOWN})
        keys, order = ["task", "model"], [c for name in SHOWN.values() for c in (name, f"{name}_low", f"{name}_high")]
        wide = long.pivot(index=keys, columns="measure", values=["value", "low", "high"])
        wide.columns = [name if end == "value" else f"{name}_{end}" for end, name in wide.columns]
        tests = long[long["measure"] == "dev"].set_index(keys)
        joined = tests[[]].join(wide.reindex(columns=order)).join(self._costs()).join(tests[["seeds", "interval"]])
        return joined.reset_index()

    def _costs(self) -> pd.DataFrame:
        numbers = ["bytes", "nonzero_parameters", "latency_ms"]
        paths = {(task, seed): run.file(PLACE, "plane.csv") for (task, seed), run in self.runs.items() if seed in self.run.seeds}
        frames = [pd.read_csv(path).assign(task=task) for (task, _), path in paths.items() if path is not None]
        if not frames:
            return pd.DataFrame(columns=numbers, index=pd.MultiIndex.from_arrays([[], []], names=["task", "model"]), dtype=float)
        return pd.concat(frames, ignore_index=True).groupby(["task", "model"], sort=False)[numbers].mean()

    def dense_churn(self) -> pd.DataFrame:
        """Flips of each model against the dense one of its seed: task | model | split | value | low | high | lost | gained
        | seeds | interval (`measures.flips`; intervals as `over_seeds`).

        The null comes first: dense models of different seeds against each other. With several seeds these are pairs of
        which no two share a model, and `seeds` counts them; with one, each other seed's against this one's.
        """
        frames = []
        for task in self.run.tasks:
            seeds = [seed for seed in self.run.seeds if (task, seed) in self.by_place]
            dense = sorted(self.dense_seeds(task))
            pairs = [((task, seed, name), (task, seed, "dense"), name) for seed in seeds
                     for name in self.by_place[task, seed] if name != "dense"]
            if len(seeds) > 1:
                null = [((task, b, "dense"), (task, a, "dense"), contrasts.OTHER_DENSE) for a, b in zip(dense[::2], dense[1::2])]
            else:
                null = [((task, seed, "dense"), (task, seeds[0], "dense"), f"dense, seed {seed}")
                        for seed in dense if seeds and seed != seeds[0]]
            by_model: dict[str, list] = {}
            for one, other, shown in null + pairs:
                by_model.setdefault(shown, []).append(_flipped(self.rows_of(*one), self.rows_of(*other)))
            frames.append(_churn(by_model, self.run.n_boot).assign(task=task))
        columns = ["task", "model", "split", "value", "low", "high", "lost", "gained", "seeds", "interval"]
        return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _drawn(models: dict[str, pd.DataFrame], task: tasks.Task, n_boot: int) -> dict[tuple[str, str], np.ndarray]:
    """(model, measure) -> its values [1 + n_boot], all from one draw; a measure that was not taken is left out."""
    ood = [split for split in tables.ood_splits(task) if (models["dense"]["split"] == split).any()]
    parts = {}
    for name, rows in models.items():
        loyal, attacked = rows.assign(correct=rows["label_loyalty"]), rows[rows["after_attack"].notna()]
        parts |= {(name, split): rows[rows["split"] == split] for split in ("test", *ood)}
        parts |= {(name, "loyalty_test"): loyal[loyal["split"] == "test"],
                  (name, "loyalty_ood"): loyal[loyal["split"].isin(ood)]}
        if len(attacked):
            parts[name, "after_attack"] = attacked.assign(correct=attacked["after_attack"].astype(bool))
    values = _bootstrapped(parts, [measures.kind_of(task, part) for _, part in parts], n_boot)
    result = {}
    for name in models:
        values[name, "ood"] = measures.ood_score({split: values[name, split] for split in ood})
        values[name, "gap"] = measures.gap(values[name, "test"], values[name, "ood"])
    for name in models:
        values[name, "gap_difference"] = values[name, "gap"] - values["dense", "gap"]
        result |= {(name, measure): values[name, measure] for measure in OVER_SEEDS if (name, measure) in values}
    return result


def _summary(values: list[float], drawn: np.ndarray | None) -> dict:
    """value, low, high, seeds, interval of the seeds' values, or of a bootstrap [1 + n_boot] where there is one seed."""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        low, high = (np.nan, np.nan) if drawn is None else map(float, bootstrap.interval(drawn))
    else:
        half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
        low, high = mean - half, mean + half
    return {"value": mean, "low": low, "high": high, "seeds": n, "interval": "rows" if n == 1 else "seeds"}


def _flipped(rows: pd.DataFrame, dense: pd.DataFrame) -> pd.DataFrame:
    """Rows whose `correct` says that the label differs from the dense model's; lost, gained: which of the two is right."""
    if not rows["guid"].array.equals(dense["guid"].array):
        dense = dense.set_index("guid").reindex(rows["guid"]).reset_index()
    right, was = rows["correct"].to_numpy(bool), dense["correct"].to_numpy(bool)
    return rows[OF_ENTRY].assign(correct=rows["pred"] != dense["pred"], lost=was & ~right, gained=right & ~was)


def _churn(flipped: dict[str, list[pd.DataFrame]], n_boot: int) -> pd.DataFrame:
    """model | split | value | low | high | lost | gained | seeds | interval of each model's flipped rows, a frame a seed."""
    alone = {(model, split): part for model, frames in flipped.items() if len(frames) == 1
             for split, part in frames[0].groupby("split", sort=False)}
    drawn = _bootstrapped(alone, ["accuracy"] * len(alone), n_boot)
    table = []
    for model, frames in flipped.items():
        means = pd.concat([frame.groupby("split", sort=False)[["correct", "lost", "gained"]].mean() for frame in frames])
        for split, part in means.groupby(level=0, sort=False):
            table.append({"model": model, "split": split, "lost": part["lost"].mean(), "gained": part["gained"].mean()}
                         | _summary(part["correct"].tolist(), drawn.get((model, split))))
    return pd.DataFrame(table)


def _bootstrapped(parts: dict[tuple, pd.DataFrame], kinds: list[str], n_boot: int) -> dict[tuple, np.ndarray]:
    """The score [1 + n_boot] of each part, all from one draw."""
    if not parts:
        return {}
    entry = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    frame = pd.concat([part[OF_ENTRY] for part in parts.values()], ignore_index=True)
    return dict(zip(parts, bootstrap.scores(frame, entry, kinds, n_boot, seed=0).T))


def _logits(model: store.Model | reference.Model, items: pd.DataFrame) -> np.ndarray:
    """A model's logits [rows, classes] in the order of `items`. Raises StudyError where they are of other rows."""
    table = evaluated(model)
    if not table["guid"].array.equals(items["guid"].array):
        table = table.set_index("guid").reindex(items["guid"]).reset_index()
    other = (table["label"].to_numpy() != items["label"].to_numpy()) | (table["split"].to_numpy() != items["split"].to_numpy())
    if other.any():
        raise StudyError(f"model {model.name!r} has no prediction of guid {items['guid'][int(np.argmax(other))]!r} with the "
                         "split and label of the task's row: predictions and data must be of one task and seed")
    return np.concatenate(table["logits"].tolist()).reshape(len(items), -1)


def evaluated(model: store.Model | reference.Model) -> pd.DataFrame:
    """A model's predictions of all rows but train's, which differ from seed to seed."""
    table = model.predictions()
    return table[table["split"] != "train"].reset_index(drop=True)


def collect(run, source: str = "outputs") -> Found:
    """Every finished model of the grid, from `outputs` or from the committed `reference`.

    Raises StudyError where a stage has not run. Of the reference, which may hold a run as far as it got, what is there
    counts; only a profile without any run is an error.
    """
    kept = run.root / "outputs" / "reference" / run.profile
    runs, by_place = {}, {}
    for task in run.tasks:
        for seed in sorted({*run.seeds, *run.dense_seeds}):
            stages = MODEL_STAGES if seed in run.seeds else MODEL_STAGES[:1]
            place = f"{schema.task_folder(task)}/seed{seed}"
            if source == "outputs":
                runs[task, seed] = reference.Made(run.outputs / place, task, seed)
            elif (kept / place / "items.parquet").exists():
                runs[task, seed] = reference.Kept(kept / place)
            else:
                continue
            by_place[task, seed] = runs[task, seed].models(stages)
    if not runs:
        raise StudyError(f"{kept} holds no run of this grid: collect it with `python -m lib.reference {run.profile}` first")
    return Found(run, runs, by_place)
