"""A study's numbers for its claims: every contrast on every seed, the groups of its rows, its gates."""

from dataclasses import dataclass, field
from functools import cache, cached_property, partial

import numpy as np
import pandas as pd

from lib import names
from lib.analysis import forecast, learned, tables
from lib.claims import contrasts, gates, rule
from lib.claims.evidence import GatheredRuns
from lib.claims.losing import POPULATION
from lib.claims.place import Number, Place
from lib.tasks import registry

LOSSES = ["task", "gate", "model", "id_loss", "id_loss_low", "id_loss_high", "ood_loss", "ood_loss_low",
          "ood_loss_high", "seeds", "planned", "learned", "dense_id", "dense_ood", "chance"]


@dataclass
class Study:
    """What the ledger asks of gathered runs; each contrast is computed once."""

    runs: GatheredRuns
    _numbers: dict = field(default_factory=dict)
    _places: dict = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for task, _ in self.runs.by_place))

    def seeds(self, task: str) -> list[int]:
        """The seeds that ran every notebook; where some are no pilot's, these alone: a pilot is not topped up."""
        full = sorted(seed for of, seed in self.runs.by_place if of == task and self.runs.is_full(task, seed))
        return [seed for seed in full if seed not in self.runs.run.pilot] or full

    def is_pilot(self, task: str) -> bool:
        """Whether the task has no seeds but those of the pilot, from whose results k and claims were chosen."""
        return set(self.seeds(task)) <= set(self.runs.run.pilot)

    def models(self, task: str) -> list[str]:
        """The models of those seeds."""
        return list(dict.fromkeys(name for seed in self.seeds(task) for name in self.runs.by_place[task, seed]))

    def _having(self, task: str, model: str) -> list[int]:
        return [seed for seed in self.seeds(task) if model in self.runs.by_place[task, seed]]

    def numbers(self, measure: str, split: str, models: list[str], baselines: list[str],
                task: str) -> tuple[list[int], dict[tuple[str, str], dict[int, Number]], list[tuple[str, str]]]:
        """The seeds that have such a number, of each pair that all of them have its number on each, and the pairs that
        only some have."""
        if split in registry.get(task).panel and split not in self.rows(task)["split"].array:
            return [], {}, []
        half = self._half(task)
        named = {seed: contrasts.pairs(models, baselines, self._known(task, seed), half) for seed in self.seeds(task)}
        every: dict[tuple[str, str], dict[int, Number]] = {}
        for seed, pairs in named.items():
            for pair in pairs:
                if (number := self._number(measure, split, task, seed, *pair)) is not None:
                    every.setdefault(pair, {})[seed] = number
        seeds = sorted(set().union(*every.values()))
        whole = {pair: of_seed for pair, of_seed in every.items() if set(of_seed) == set(seeds)}
        return seeds, whole, [pair for pair in every if pair not in whole]

    def _known(self, task: str, seed: int) -> list[str]:
        other = [names.OTHER_DENSE] if self.runs.other_seed(task, seed) is not None else []
        return [*self.runs.by_place[task, seed], *other]

    def _half(self, task: str) -> int | None:
        """Half the number of the dense model's layers: the truncated or replaced model that has half of its weights."""
        for models in (models for (of, _), models in self.runs.by_place.items() if of == task):
            weights = {name: model.record.get("encoder_parameters", 0) for name, model in models.items()}
            for name, number in weights.items():
                if number and name.startswith(("truncated-", "theseus-")) and 2 * number == weights.get("dense"):
                    return int(name.split(" ")[0].split("-")[1])
        return None

    def _number(self, measure: str, split: str, task: str, seed: int, model: str, baseline: str) -> Number | None:
        key = measure, split, task, seed, model, baseline
        if key not in self._numbers:
            self._numbers[key] = contrasts.number(measure, split, self._place(task, seed), model, baseline)
        return self._numbers[key]

    def _place(self, task: str, seed: int) -> Place:
        if (task, seed) not in self._places:
            self._places[task, seed] = self._new_place(task, seed)
        return self._places[task, seed]

    def _new_place(self, task: str, seed: int) -> Place:
        rows, other, sets = partial(self.runs.rows_of, task, seed), self.runs.other_seed(task, seed), self._sets(task)
        return Place(
            registry.get(task), sets, rows, self.runs.by_place[task, seed].__contains__,
            other=lambda: None if other is None else rows(names.OTHER_DENSE),
            population=self._population(task, seed),
            rows_at=lambda at, model: (self.runs.rows_of(task, at, model) if model in self.runs.by_place[task, at]
                                       else None),
            learned_at=cache(lambda: learned.learned_at(self.runs.along(task, seed))),
            rarity=cache(lambda: self._rarity(task, seed)),
            table=lambda measure, model: self.runs.number_of(task, seed, measure, model, sets))

    def _population(self, task: str, seed: int) -> tuple[list[int], list[int]] | None:
        """The seeds from this one on, where a population begins with it, and the other seeds of their pairs."""
        seeds = self.seeds(task)
        place = seeds.index(seed)
        own = seeds[place:place + POPULATION]
        others = [self.runs.other_seed(task, one) for one in own]
        return None if place % POPULATION or len(own) < POPULATION or None in others else (own, others)

    def skill(self, task: str) -> tuple[str, dict[str, str]]:
        """The word of the skill gate where no OOD set of the task passes, else ""; and of a task with some that pass
        the others, each with its word."""
        of, table = registry.get(task), self._skill[task]
        closed = gates.without_skill(of, table)
        there = [name for name in tables.ood_splits(of) if name in set(table["of"])]
        return (closed[there[0]], {}) if len(closed) == len(there) else ("", closed)

    def _sets(self, task: str) -> tuple[str, ...]:
        """The OOD sets of the task's OOD score: those that its dense models have skill on; all where they have none."""
        left_out, there = self.skill(task)[1], set(self._skill[task]["of"])
        return tuple(name for name in tables.ood_splits(registry.get(task)) if name in there and name not in left_out)

    @cached_property
    def _skill(self) -> dict[str, pd.DataFrame]:
        """`gates.skill` of each task, of the dense models of all seeds."""
        return {task: gates.skill(registry.get(task), {
            seed: self.runs.rows_of(task, seed, "dense") for seed in self.runs.dense_seeds(task)}).assign(task=task)
            for task in self.tasks}

    def _rarity(self, task: str, seed: int) -> pd.Series:
        """Minus log of 1 + the train rows of each subcase of the OOD score on which the shortcut fails; empty where
        that is not known."""
        counts = pd.Series(tables.train_counts(self.runs.train(task, seed)), dtype=float)
        if counts.empty:
            return counts
        items = self.runs.items(task, seed)
        subcases = items.loc[items["split"].isin(registry.get(task).scored), "subcase"].unique()
        return -np.log1p(counts.reindex(subcases, fill_value=0.0))

    def rows(self, task: str) -> pd.DataFrame:
        """Split and group of each evaluation row; group: a number for the rows of one template, or that share a claim
        or premise, and one of its own for every other row."""
        items = self.runs.items(task, self.seeds(task)[0])
        name = items["group"].fillna("").astype(str)
        return pd.DataFrame({"split": items["split"].astype(str),
                             "group": pd.factorize(name.where(name != "", "row " + items["guid"].astype(str)))[0]})

    @cached_property
    def gates(self) -> pd.DataFrame:
        """`gates.skill` of the dense models of all seeds and `gates.floor` of every model of the full ones, task by
        task."""
        parts = []
        for task in self.tasks:
            models = {name: {seed: self.runs.rows_of(task, seed, name) for seed in self._having(task, name)}
                      for name in self.models(task)}
            parts += [self._skill[task], gates.floor(registry.get(task), models).assign(task=task)]
        return pd.concat(parts, ignore_index=True)

    def sets(self) -> pd.DataFrame:
        """The OOD sets that the dense models were predicted on: task | set | role | rows | cut (share of them longer
        than max_length; NaN where notebook 01 did not count) | value, bound, word (of the set's skill gate)."""
        known = self.runs.written("01_data", "lengths.csv")
        cut = known.groupby(["task", "split"])["share"].mean().to_dict() if len(known) else {}
        result = []
        for gate in self.gates[self.gates["gate"] == "skill"].itertuples():
            of = registry.get(gate.task)
            if gate.of in of.ood:
                rows = int((self.rows(gate.task)["split"] == gate.of).sum())
                result.append([gate.task, gate.of, of.ood[gate.of].role, rows, cut.get((gate.task, gate.of), np.nan),
                               gate.value, gate.bound, gate.word])
        return pd.DataFrame(result, columns=["task", "set", "role", "rows", "cut", "value", "bound", "word"])

    def keeps_score(self, task: str, model: str) -> bool:
        """`rule.keeps_score` of a model on test, over the seeds that have it."""
        seeds = self._having(task, model)
        scores = [[self._on_test(task, seed, name) for seed in seeds] for name in (model, "dense")]
        return rule.keeps_score(*map(np.array, scores))

    def is_bounded(self, task: str, d: float) -> bool:
        """`rule.is_bounded` by the dense models' error on test, in points."""
        errors = [100 * (1 - self._on_test(task, seed, "dense")) for seed in self.seeds(task)]
        return rule.is_bounded(np.array(errors), d)

    def losses(self) -> pd.DataFrame:
        """What each model loses beside the dense one of its seed, in points: task | gate (the word of the task's skill
        gate) | model | id_loss and ood_loss, each with _low and _high (t interval over the seeds; NaN with one) |
        seeds | planned: seeds that the grid has | learned: whether it passed that gate | dense_id, dense_ood: the dense
        model's scores | chance: of the OOD score."""
        result, table = [], self.gates.set_index(["gate", "task", "of"])
        for task in self.tasks:
            planned = self.runs.run.seeds_of(task)
            planned = len(set(planned) - set(self.runs.run.pilot) or planned)
            if not (places := [self._place(task, seed) for seed in self.seeds(task)]):
                continue
            beside = {f"dense_{name}": 100 * np.mean([place.score(place.rows("dense"), split) for place in places])
                      for name, split in (("id", "test"), ("ood", "ood"))} | {"chance": 100 * places[0].chance()}
            for model in [name for name in self.models(task) if name != "dense"]:
                has = self._having(task, model)
                row = {"task": task, "gate": self.skill(task)[0], "model": model}
                for name, split in (("id_loss", "test"), ("ood_loss", "ood")):
                    values = np.array([-self._number("score", split, task, seed, model, "dense").value for seed in has])
                    mean, low, high = map(float, rule.over_seeds(values))
                    row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
                result.append(row | {"seeds": len(has), "planned": planned,
                                     "learned": bool(table.loc[("floor", task, model), "passed"])} | beside)
        return pd.DataFrame(result, columns=LOSSES)

    def by_label(self) -> pd.DataFrame:
        """What each model gets right of each label: task | split (test and the OOD sets with skill to lose) | label |
        model | value (accuracy) | low | high (t interval over the seeds) | seeds."""
        result = []
        for task in self.tasks:
            of = registry.get(task)
            for seed in self.seeds(task):
                place = self._place(task, seed)
                for name in filter(place.has, self.models(task)):
                    rows = place.rows(name)
                    rows = rows[rows["split"].isin(["test", *place.sets])]
                    result += [[task, split, of.classes(split)[label], name, seed, part.mean()]
                               for (split, label), part in rows.groupby(["split", "label"])["correct"]]
        keys = ["task", "split", "label", "model"]
        return tables.over_seeds(pd.DataFrame(result, columns=[*keys, "seed", "value"]), keys)

    def lost_by_time(self, models: list[str]) -> pd.DataFrame:
        """What is lost of the rows that the dense run learned at each time: task | split | learned_at (share of its
        steps) | model | value (share lost) | low | high (t interval over the seeds) | seeds | n (rows, their mean).

        model: each of `models` that learned its task, their mean `forecast.ALL`, the null `names.OTHER_DENSE` and ALL
        less it. Times at which some seed learned no row are left out.
        """
        low = self.gates[(self.gates["gate"] == "floor") & ~self.gates["passed"]]
        keys, result = ["task", "split", "learned_at", "model"], []
        for task in self.tasks:
            told = [name for name in self.models(task) if name in models]
            told = [name for name in told if name not in set(low.loc[low["task"] == task, "of"])]
            for seed in self.seeds(task):
                place = self._place(task, seed)
                known = {name: place.rows(name) for name in told if place.has(name)}
                if (other := place.other()) is not None:
                    known[names.OTHER_DENSE] = other
                for split, of_split in (("test", ["test"]), ("ood", place.sets)):
                    for name, rows in known.items():
                        table = learned.lost_by_time(place.learned_at(), rows[rows["split"].isin(of_split)])
                        result.append(table.assign(task=task, seed=seed, split=split, model=name))
        if not result:
            return tables.over_seeds(pd.DataFrame(), keys, ("n",))
        long = pd.concat(result, ignore_index=True)
        long["learned_at"] = long["learned_at"].round(3)
        found = tables.over_seeds(pd.concat([long, *_means(long)], ignore_index=True), keys, ("n",))
        return found[found["seeds"] == found.groupby("task")["seeds"].transform("max")].reset_index(drop=True)

    def _on_test(self, task: str, seed: int, model: str) -> float:
        rows = self.runs.rows_of(task, seed, model)
        return float(rows.loc[rows["split"] == "test", "correct"].mean())


def _means(long: pd.DataFrame) -> list[pd.DataFrame]:
    """`forecast.ALL` and `forecast.EXCESS` of each seed, as further rows of what `lost_by_time` begins with."""
    keys = ["task", "seed", "split", "learned_at"]
    is_null = long["model"] == names.OTHER_DENSE
    mean = long[~is_null].groupby(keys, sort=False)[["value", "n"]].mean()
    null = long[is_null].set_index(keys)["value"]
    beyond = mean.assign(value=mean["value"] - null).dropna()
    return [mean.reset_index().assign(model=forecast.ALL), beyond.reset_index().assign(model=forecast.EXCESS)]
