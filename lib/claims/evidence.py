"""What claims are decided on: every model of a profile, over tasks and seeds (notebook 09)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lib import names, store
from lib.analysis import forecast, learned, loyalty, measures, seeds, tables
from lib.claims.runs import OutputRun, ReferenceModel, ReferenceRun
from lib.errors import StudyError
from lib.params import schema
from lib.params.stages import MODEL_STAGES
from lib.tasks import registry

ATTACKED = "08_loyalty_and_attacks"
SHOWN = {"test": "dev", "ood": "ood", "loyalty_test": "label_loyalty", "loyalty_ood": "loyalty_ood",
         "after_attack": "after_attack"}  # what `over_seeds` calls it: what notebook 08 does


@dataclass
class GatheredRuns:
    """The finished models of a profile and, on demand, their rows; everything is read and computed once."""

    run: object
    runs: dict[tuple[str, int], OutputRun | ReferenceRun]
    by_place: dict[tuple[str, int], dict[str, store.Model | ReferenceModel]]
    _read: dict = field(default_factory=dict)

    @property
    def models(self) -> list[store.Model | ReferenceModel]:
        return [model for models in self.by_place.values() for model in models.values()]

    def items(self, task: str, seed: int) -> pd.DataFrame:
        """The evaluation rows of a task without their texts; `easy`: the shortcut-only model gets the row right. A set
        of the panel counts where every model of the task was predicted on it."""
        return self._once(("items", task, seed), lambda: self._items(task, seed))

    def _items(self, task: str, seed: int) -> pd.DataFrame:
        items = self.runs[task, seed].items
        missing = self._once(("panel", task), lambda: self._not_predicted(task))
        return items[~items["split"].isin(missing)].reset_index(drop=True)

    def _not_predicted(self, task: str) -> set[str]:
        """The sets of a task's panel that some seed lacks, or one of its models."""
        panel = set(registry.get(task).panel)
        runs = {seed: run for (of, seed), run in self.runs.items() if of == task}
        there = [panel & set(run.items["split"].unique()) for run in runs.values()]
        if not any(there):
            return set()
        models = [model for seed in runs for model in self.by_place[task, seed].values()]
        there += [set(model.predictions()["split"].unique()) for model in models]
        return panel - set.intersection(*there)

    def train(self, task: str, seed: int) -> pd.DataFrame:
        """What is known of each train row: guid, split, label, subcase, heuristic, is_shortcut, notebook 06's scores
        and `loss:<model>`, `loss:<model>@<step>` (nats) of whatever was predicted on train."""
        return self.runs[task, seed].train

    def written(self, stage: str, name: str) -> pd.DataFrame:
        """A table (CSV) that a stage wrote, of every task and seed that has it: task | seed | its own columns."""
        paths = {place: run.find(stage, name) for place, run in self.runs.items()}
        frames = [pd.read_csv(path).assign(task=task, seed=seed) for (task, seed), path in paths.items() if path]
        table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["task", "seed"])
        return table[["task", "seed", *(column for column in table if column not in ("task", "seed"))]]

    def model(self, task: str, seed: int, name: str) -> store.Model | ReferenceModel:
        """The finished model of that name; `names.OTHER_DENSE` is the dense one of the other seed of the pair."""
        if name == names.OTHER_DENSE:
            seed, name = self.other_seed(task, seed), "dense"
        return self.by_place[task, seed][name]

    def other_seed(self, task: str, seed: int) -> int | None:
        """The seed whose dense model is this one's null (`seeds.partners`); None where there is none."""
        dense = self.dense_seeds(task)
        return seeds.partners([s for s in dense if self.is_full(task, s)],
                              [s for s in dense if not self.is_full(task, s)]).get(seed)

    def is_full(self, task: str, seed: int) -> bool:
        """Whether a seed ran every notebook; others have a dense model alone."""
        return seed in self.run.seeds_of(task)

    def dense_seeds(self, task: str) -> list[int]:
        return [seed for (of, seed), models in self.by_place.items() if of == task and "dense" in models]

    def rows_of(self, task: str, seed: int, model: str) -> pd.DataFrame:
        """`measures.rows` of a model on all splits but train, with easy, label_loyalty, probability_loyalty,
        after_attack, dense_pred, dense_correct (of the dense model of its seed, in the model's own precision)."""
        return self._once(("rows", task, seed, model), lambda: self._rows(task, seed, model))

    def along(self, task: str, seed: int) -> pd.DataFrame:
        """The rows of the dense run's checkpoints on test and OOD, with a column step."""
        return self._once(("along", task, seed), lambda: self._along(task, seed))

    def _along(self, task: str, seed: int) -> pd.DataFrame:
        items = self.items(task, seed)
        rows = tables.trajectory_rows(self.model(task, seed, "dense").checkpoints(), items, registry.get(task))
        return rows.assign(easy=rows["guid"].map(items.set_index("guid")["easy"]))

    def _rows(self, task: str, seed: int, model: str) -> pd.DataFrame:
        items = self.items(task, seed)
        logits = _ordered(store.evaluated(self.model(task, seed, model)), items, model)
        recipe, of_task = names.parse("dense" if model == names.OTHER_DENSE else model), registry.get(task)
        split, label = self._once(
            ("truth", task, seed), lambda: (items["split"].to_numpy(object), items["label"].to_numpy()))
        dense = self._once(("dense", task, seed, bool(recipe.quantization)), lambda: _ordered(
            loyalty.teacher(self.model(task, seed, "dense"), recipe), items, "dense"))
        followed = self._once(("followed", task, seed, bool(recipe.quantization)),
                              lambda: measures.outcomes(dense, split, label, of_task))
        return items.assign(**measures.outcomes(logits, split, label, of_task),
                            dense_pred=followed["pred"], dense_correct=followed["correct"],
                            label_loyalty=loyalty.label_loyalty(logits, dense),
                            probability_loyalty=loyalty.probability_loyalty(logits, dense),
                            after_attack=self._after_attack(task, seed, model))

    def _after_attack(self, task: str, seed: int, model: str) -> np.ndarray | float:
        """Whether each attacked row is right after the attack; missing for the others."""
        attacked = self._once(("attacks", task, seed), lambda: self._attacks(task, seed))
        if model not in attacked:
            return np.nan
        at, survived = attacked[model]
        result = np.full(len(self.items(task, seed)), np.nan, dtype=object)
        result[at] = survived
        return result

    def _attacks(self, task: str, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """model -> numbers of the attacked rows, whether each is right after the attack."""
        path = self.runs[task, seed].file(ATTACKED, "attacks.parquet") if self.is_full(task, seed) else None
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
        """model -> rows, of one task and seed; the dense models trained shorter, which no table compares, left out."""
        return {name: self.rows_of(task, seed, name) for name in self.by_place[task, seed]
                if not names.parse(name).is_shorter}

    def by_run(self) -> dict[tuple[str, int], dict[str, pd.DataFrame]]:
        """(task, seed) -> model -> rows."""
        return {place: self.of_run(*place) for place in self.by_place}

    def over_seeds(self) -> pd.DataFrame:
        """`seeds.means` of the seeds that run every notebook."""
        places = [place for place in self.by_place if self.is_full(*place)]
        return self._once(("over seeds",), lambda: seeds.means(
            {place: self.of_run(*place) for place in places}, self.run.n_boot)).copy()

    def final_table(self) -> pd.DataFrame:
        """Every task and model judged by everything at once: task | model | dev, ood, label_loyalty, loyalty_ood,
        after_attack, each with _low and _high (`over_seeds`; dev is the score on test) | bytes | nonzero_parameters |
        latency_ms (notebook 08's means over the seeds) | seeds | interval."""
        long = self.over_seeds()
        long = long[long["measure"].isin(SHOWN)].replace({"measure": SHOWN})
        keys, order = ["task", "model"], [c for name in SHOWN.values() for c in (name, f"{name}_low", f"{name}_high")]
        wide = seeds.wide(long, keys)
        tests = long[long["measure"] == "dev"].set_index(keys)
        joined = tests[[]].join(wide.reindex(columns=order)).join(self._costs()).join(tests[["seeds", "interval"]])
        return joined.reset_index()

    def _costs(self) -> pd.DataFrame:
        numbers = ["bytes", "nonzero_parameters", "latency_ms"]
        paths = [(task, run.file(ATTACKED, "plane.csv")) for (task, seed), run in self.runs.items()
                 if self.is_full(task, seed)]
        none = pd.DataFrame(columns=["task", "model", *numbers]).astype(dict.fromkeys(numbers, float))
        frames = [pd.read_csv(path).assign(task=task) for task, path in paths if path is not None] or [none]
        return pd.concat(frames, ignore_index=True).groupby(["task", "model"], sort=False)[numbers].mean()

    def dense_churn(self) -> pd.DataFrame:
        """Labels that differ from those of the dense model of the same seed: task | `seeds.churn`.

        The null comes first: the dense model of the other seed of each pair (`other_seed`); none where there is no
        pair.
        """
        frames = []
        for task in self.run.tasks:
            whole = [seed for seed in sorted(self.dense_seeds(task)) if self.is_full(task, seed)]
            null = [(seed, names.OTHER_DENSE) for seed in whole if self.other_seed(task, seed) is not None]
            own = [(seed, name) for seed in whole for name in self.by_place[task, seed] if name != "dense"]
            pairs: dict[str, list] = {}
            for seed, name in null + own:
                rows = self.rows_of(task, seed, name)
                dense = rows.assign(pred=rows["dense_pred"], correct=rows["dense_correct"])
                pairs.setdefault(name, []).append((rows, dense))
            frames.append(seeds.churn(pairs, self.run.n_boot))
        return pd.concat(frames, keys=self.run.tasks, names=["task"]).reset_index("task").reset_index(drop=True)

    def foretold(self) -> pd.DataFrame:
        """How well the dense model alone foretells what is lost: task | `forecast.aucs`, a row a seed; of the tasks and
        seeds for which notebook 06 wrote its predictors."""
        return self._once(("foretold",), self._foretold).copy()

    def _foretold(self) -> pd.DataFrame:
        known = {task: self._at_risk(task) for task in self.run.tasks}
        known = {task: (runs, risk) for task, (runs, risk) in known.items()
                 if risk and any(len(models) > 1 for models in runs.values())}
        frames = [forecast.aucs(*own, elsewhere=[other for name, other in known.items() if name != task])
                  .assign(task=task) for task, own in known.items()]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["task"])

    def _at_risk(self, task: str) -> tuple[forecast.Runs, dict[int, pd.DataFrame]]:
        """What `forecast.aucs` is told of a task. `rarity` is left out, which the micro-world alone knows; learned_at
        is taken from the checkpoints, for what notebook 06 wrote of earlier runs lacks it."""
        paths = {seed: run.find("06_shortcut_samples", "risk.parquet")
                 for (of, seed), run in self.runs.items() if of == task}
        at_risk = {}
        for seed, path in paths.items():
            if path and self.is_full(task, seed):
                table = pd.read_parquet(path).drop(columns="rarity", errors="ignore")
                table = table.astype(dict.fromkeys(table.select_dtypes("float16").columns, float))
                when = learned.learned_at(self.along(task, seed))
                at_risk[seed] = table.assign(learned_at=table["guid"].map(when))
        runs = {seed: self.of_run(task, seed) for seed in paths if seed in at_risk or not self.is_full(task, seed)}
        return runs, at_risk

    def foretold_over_seeds(self) -> pd.DataFrame:
        """`forecast.summary` of every task, with the task in front."""
        table = self.foretold()
        frames = [forecast.summary(part).assign(task=task) for task, part in table.groupby("task", sort=False)]
        columns = ["task", "model", "kind", "split", "predictor", "value", "low", "high", "lost", "n", "seeds"]
        return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)

    def number_of(self, task: str, seed: int, measure: str, model: str, sets: tuple[str, ...]) -> float | None:
        """A number of OF_TABLES in its unit, from what the notebooks wrote; None where they did not. sets: the OOD sets
        of the task's OOD score, of which what is foretold is told."""
        stage, name, column, wanted, scale = {
            "rank_agreement": ("06_shortcut_samples", "rivals.csv", "value",
                               {"score": "v_one_run", "on": "train", "measure": "rank"}, 1),
            "alpha_regret": ("07_mitigation", "regret.csv", "value",
                             {"base": model.removesuffix(" + rmc"), "rule": "by_hard"}, -100),
            "bias_slope": ("06b_dose_and_response", "slopes.csv", "slope", {"model": model}, 1),
            "foretold": ("", "", "value", {"model": model, "predictor": "combined"}, 1),
        }[measure]
        if measure == "foretold":
            return self._foretold_beyond(task, seed, model, sets)
        table = self._once((stage, name), lambda: self.written(stage, name))
        wanted = {"task": task, "seed": seed} | wanted
        if not set(wanted) <= set(table):
            return None
        values = table.loc[(table[list(wanted)] == pd.Series(wanted)).all(axis=1), column].dropna()
        return None if values.empty else float(values.mean()) * scale

    def _foretold_beyond(self, task: str, seed: int, model: str, sets: tuple[str, ...]) -> float | None:
        """AUC of a model's lost OOD rows by the combined predictors, less that of the other dense model's; None where
        one of the two was not told."""
        table = self.foretold()
        if table.empty:
            return None
        here = table[(table["task"] == task) & (table["seed"] == seed) & (table["predictor"] == forecast.COMBINED)
                     & table["split"].isin(sets)].groupby("model")["value"].mean()
        told = {model, names.OTHER_DENSE} <= set(here.dropna().index)
        return float(here[model] - here[names.OTHER_DENSE]) if told else None


def _ordered(table: pd.DataFrame, items: pd.DataFrame, name: str) -> np.ndarray:
    """A model's logits [rows, classes] in the order of `items`. Raises StudyError where they are of other rows."""
    if not table["guid"].array.equals(items["guid"].array):
        table = table.set_index("guid").reindex(items["guid"]).reset_index()
    truth = ["split", "label"]
    other = (table[truth].to_numpy() != items[truth].to_numpy()).any(axis=1)
    if other.any():
        guid = items["guid"][int(np.argmax(other))]
        raise StudyError(f"model {name!r} has no prediction of guid {guid!r} with the split and label of the "
                         "task's row: predictions and data must be of one task and seed")
    return np.concatenate(table["logits"].tolist()).reshape(len(items), -1)


def gather(run, source: str = "outputs") -> GatheredRuns:
    """Every finished model of the grid, from `outputs` or from the committed `reference`.

    Raises StudyError where a stage has not run. Of the reference, which may hold a run as far as it got, what is there
    counts; only a profile without any run is an error.
    """
    kept = run.root / "outputs" / "reference" / run.profile
    runs, by_place = {}, {}
    for task in run.tasks:
        for seed in run.dense_of(task):
            stages = MODEL_STAGES if seed in run.seeds_of(task) else MODEL_STAGES[:1]
            place = f"{schema.task_folder(task)}/seed{seed}"
            if source == "outputs":
                runs[task, seed] = OutputRun(run.outputs / place, task, seed)
            elif (kept / place / "items.parquet").exists():
                runs[task, seed] = ReferenceRun(kept / place)
            else:
                continue
            by_place[task, seed] = runs[task, seed].models(stages)
    if not runs:
        raise StudyError(f"{kept} holds no run of this grid: collect it with `python -m lib.tools.reference "
                         f"{run.profile}` first")
    return GatheredRuns(run, runs, by_place)
