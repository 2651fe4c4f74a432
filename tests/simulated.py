"""Runs made up in memory, for the ledger's tests: rows whose models are right as often as a test says."""
from types import SimpleNamespace

import numpy as np
import pandas as pd

from lib.claims.evidence import GatheredRuns
from lib.claims.study import Study
from lib.names import OTHER_DENSE

SIZES = {"dev": 200, "test": 400, "ood": 400}


def rows(accuracy: dict[str, float], sizes: dict[str, int] = SIZES, **columns) -> pd.DataFrame:
    """Evaluation rows of which the first share of each split is right; every second row is easy, four make a template.

    `columns` replace one of the frame's own: an array, or one value for all.
    """
    split = np.repeat(list(sizes), list(sizes.values()))
    place = np.concatenate([np.arange(n) for n in sizes.values()])
    label = place // 2 % 2
    correct = place < np.repeat([round(accuracy[name] * n) for name, n in sizes.items()], list(sizes.values()))
    correct = np.asarray(columns.pop("correct", correct), dtype=bool)
    frame = pd.DataFrame({
        "guid": [f"{name}{i}" for name, i in zip(split, place)], "split": split, "label": label,
        "pred": np.where(correct, label, 1 - label), "correct": correct, "confidence": 0.9,
        "loss": np.where(correct, 0.1, 2.0), "heuristic": "", "subcase": "", "easy": place % 2 == 0,
        "is_shortcut": pd.array(place % 2 == 0, dtype="boolean"), "group": [f"{name}{i // 4}" for name, i in zip(split, place)],
        "label_loyalty": 1.0, "probability_loyalty": 1.0, "after_attack": np.nan})
    return frame.assign(**columns)


class MadeUp(GatheredRuns):
    """Gathered runs whose rows are handed in, by task and seed."""

    def __init__(self, task, models, along, tables, weights, pilot):
        full = [seed for seed, names in models.items() if set(names) != {"dense"}]
        run = SimpleNamespace(tasks=[task], seeds_of=lambda task: full, pilot=pilot)
        super().__init__(run, {(task, seed): SimpleNamespace(
            items=names["dense"], find=lambda *_: None, train=pd.DataFrame({"split": [], "subcase": [], "is_shortcut": []}))
            for seed, names in models.items()}, {(task, seed): {name: SimpleNamespace(
                name=name, record={"encoder_parameters": weights.get(name, 1)}, predictions=lambda frame=frame: frame)
                for name, frame in names.items()}
                for seed, names in models.items()})
        self.made, self.on_the_way, self.numbers = models, along, tables

    def rows_of(self, task, seed, model):
        rows, dense = self.made[self.other_seed(task, seed)]["dense"] if model == OTHER_DENSE else self.made[seed][model], self.made[seed]["dense"]
        return rows.assign(dense_pred=dense["pred"].to_numpy(), dense_correct=dense["correct"].to_numpy())

    def along(self, task, seed):
        return self.on_the_way[seed]

    def number_of(self, task, seed, measure, model, sets):
        return self.numbers.get((seed, measure, model))


def study(models: dict[int, dict[str, pd.DataFrame]], task: str = "micro_nli", alone: dict[int, pd.DataFrame] | None = None,
          along: dict[int, pd.DataFrame] | None = None, tables: dict | None = None, weights: dict | None = None,
          pilot: tuple[int, ...] = ()) -> Study:
    """A study of one task. models[seed][name]: rows; alone[seed]: those of seeds with a dense model only; along: of the
    dense run's checkpoints; tables[seed, measure, model]: numbers of other notebooks; weights[name]: of the encoder;
    pilot: seeds from which nothing is decided."""
    every = models | {seed: {"dense": frame} for seed, frame in (alone or {}).items()}
    return Study(MadeUp(task, every, along or {}, tables or {}, weights or {}, pilot))
