"""The rows that claims are decided on: every model of a profile, over tasks and seeds (notebook 09)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lib import contrasts, floors, loyalty, measures, shortcuts, store, tables, tasks
from lib.errors import StudyError

MODEL_STAGES = ("02_teacher", "03_distillation", "04_pruning", "05_quantization_and_replacing", "07_mitigation")
FOLDS = 5


@dataclass
class Found:
    """The finished models of a profile and, on demand, their rows."""

    run: object
    models: list[store.Model]
    _items: dict = field(default_factory=dict)
    _rows: dict = field(default_factory=dict)
    _read: dict = field(default_factory=dict)  # tables that every model of a run is set against

    def items(self, task: str, seed: int) -> tuple[pd.DataFrame, pd.Series]:
        """The rows of a task and whether the shortcut-only model gets each right, by guid."""
        if (task, seed) not in self._items:
            items = store.read_items(self.run.folder("01_data", task, seed) / "data.parquet")
            shortcut = floors.shortcut_only(items, tasks.get(task), FOLDS, seed)
            self._items[task, seed] = items, shortcuts.easy_rows(shortcut)
        return self._items[task, seed]

    def model(self, task: str, seed: int, name: str) -> store.Model:
        """The finished model of that name; `contrasts.OTHER_DENSE` is the dense one of the first other seed."""
        if name == contrasts.OTHER_DENSE:
            seed, name = min(s for s in self.dense_seeds(task) if s != seed), "dense"
        return next(m for m in self.models if (m.record["task"], m.record["seed"], m.name) == (task, seed, name))

    def dense_seeds(self, task: str) -> list[int]:
        return [m.record["seed"] for m in self.models if (m.record["task"], m.name) == (task, "dense")]

    def records(self) -> list[dict]:
        """The models' records, and one for the dense model of another seed beside each seed, where there is one."""
        records = [m.record for m in self.models]
        dense = [r for r in records if r["model"] == "dense" and len(self.dense_seeds(r["task"])) > 1]
        return records + [r | {"model": contrasts.OTHER_DENSE} for r in dense]

    def rows_of(self, task: str, seed: int, model: str) -> pd.DataFrame:
        """`measures.rows` of a model on all splits but train, with the columns easy, label_loyalty, probability_loyalty
        and after_attack of `contrasts`; `contrasts.CHECKPOINTS` gives those of the dense run with a column step."""
        if (task, seed, model) not in self._rows:
            items, easy = self.items(task, seed)
            if model == contrasts.CHECKPOINTS:
                rows = tables.trajectory_rows(self.model(task, seed, "dense").checkpoints(), items, tasks.get(task))
            else:
                table = evaluated(self.model(task, seed, model))
                dense = self._once(("dense", task, seed), lambda: evaluated(self.model(task, seed, "dense")))
                followed = loyalty.rows(table, dense).drop(columns=["seed", "kl"])
                rows = measures.rows(followed, items, tasks.get(task))
                rows = rows.assign(after_attack=rows["guid"].map(self._after_attack(task, seed, model)))
            self._rows[task, seed, model] = rows.assign(easy=rows["guid"].map(easy))
        return self._rows[task, seed, model]

    def final_table(self) -> pd.DataFrame:
        """Notebook 08's table of every task and model, the mean of its numbers over the seeds: task | model | seeds | ..."""
        numbers = ["dev", "ood", "label_loyalty", "loyalty_ood", "after_attack", "bytes", "nonzero_parameters", "latency_ms"]
        frames = [pd.read_csv(_of_stage(self.run, task, seed, "plane.csv")).assign(task=task)
                  for task in self.run.tasks for seed in self.run.seeds]
        by_model = pd.concat(frames, ignore_index=True).groupby(["task", "model"], sort=False)
        return by_model[numbers].mean().assign(seeds=by_model.size()).reset_index()

    def _after_attack(self, task: str, seed: int, model: str) -> dict[str, bool]:
        if seed not in self.run.seeds:
            return {}
        attacks = self._once(("attacks", task, seed),
                             lambda: pd.read_parquet(_of_stage(self.run, task, seed, "attacks.parquet")))
        found = attacks[attacks["model"] == model]
        return dict(zip(found["guid"], found["correct"] & ~found["success"]))

    def _once(self, key: tuple, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        if key not in self._read:
            self._read[key] = read()
        return self._read[key]

    def by_run(self) -> dict[tuple[str, int], dict[str, pd.DataFrame]]:
        """(task, seed) -> model -> rows."""
        result: dict = {}
        for record in (m.record for m in self.models):
            place = record["task"], record["seed"]
            result.setdefault(place, {})[record["model"]] = self.rows_of(*place, record["model"])
        return result

    def dense_churn(self) -> pd.DataFrame:
        """Flips of each model of the first seed, and of the dense models of other seeds, against its dense model."""
        frames = []
        for task in self.run.tasks:
            seeds = sorted({m.record["seed"] for m in self.models if m.record["task"] == task})
            dense = self.rows_of(task, seeds[0], "dense")
            others = [(seeds[0], m.name) for m in self.models
                      if (m.record["task"], m.record["seed"]) == (task, seeds[0]) and m.name != "dense"]
            for seed, name in [(s, "dense") for s in seeds[1:]] + others:
                shown = f"dense, seed {seed}" if name == "dense" else name
                frames.append(measures.flips(self.rows_of(task, seed, name), dense).assign(task=task, model=shown))
        columns = ["task", "model", "split", "value", "low", "high", "lost", "gained"]
        return pd.concat(frames, ignore_index=True)[columns]


def _of_stage(run, task: str, seed: int, name: str) -> Path:
    path = run.folder("08_loyalty_and_attacks", task, seed) / name
    if not path.exists():
        raise StudyError(f"{path} is not there: run notebooks/08_loyalty_and_attacks.ipynb with the same parameters first")
    return path


def evaluated(model: store.Model) -> pd.DataFrame:
    """A model's predictions of all rows but train's, which differ from seed to seed."""
    table = model.predictions()
    return table[table["split"] != "train"]


def collect(run) -> Found:
    """Every finished model of the grid. Raises StudyError where a stage has not run."""
    models: dict[tuple, store.Model] = {}  # a model that two notebooks ask for counts once
    for task in run.tasks:
        for seed in sorted({*run.seeds, *run.dense_seeds}):
            stages = MODEL_STAGES if seed in run.seeds else MODEL_STAGES[:1]
            for stage in stages:
                models |= {(task, seed, name): m for name, m in store.read_stage(run.folder(stage, task, seed)).items()}
    return Found(run, list(models.values()))
