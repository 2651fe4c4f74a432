"""Which models each notebook asks for, and the rows they read, from the parameters alone: what `lib.tools.plan` counts."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib import names
from lib.analysis import tables
from lib.files import ROOT
from lib.models import make, recipes
from lib.params.profile import Profile
from lib.params.sections import RUNS
from lib.tasks import dataset, microworld, registry
from lib.tasks.task import Task
from lib.tools import speeds
from lib.trials import doses, mitigation


def sizes(run) -> dict[str, tuple[int, float]]:
    """split -> (rows, mean tokens), of a run of the section data. A task file of the reader's own is read for it."""
    task = registry.get(run.task)
    if task.name not in speeds.known().tasks:
        return _sizes_of_file(run, task)
    known = speeds.known().tasks[task.name]
    if task.name in microworld.SUBCASES:
        cases = [subcase.unseen for subcase in microworld.SUBCASES[task.name]]
        rows = {"train": run.n_train, "dev": run.n_eval, "test": run.n_eval,
                "ood": 2 * run.n_ood * cases.count(False), "unseen": 2 * run.n_ood * cases.count(True)}
        return {split: (n, known[split].tokens) for split, n in rows.items()}
    whole = {split: one.mirror if _is_local(task.tables[split].path) else one.rows for split, one in known.items()}
    dev = min(dataset.DEV_ROWS, whole["train"] // 10)
    found = {"train": _capped(whole["train"] - dev, run.n_train), "dev": _capped(dev, run.n_eval),
             "test": _capped(whole["test"], run.n_eval)}
    for split in task.ood:
        found[split] = _capped(whole[split], run.n_ood * known[split].cells)
    return {split: (n, known[split if split in known else "train"].tokens) for split, n in found.items()}


def _capped(rows: int, most: int) -> int:
    return min(rows, most) if most else rows


def evaluated(sizes: dict[str, tuple[int, float]]) -> int:
    """Rows of all splits but train."""
    return sum(n for split, (n, _) in sizes.items() if split != "train")


def origin(task: str) -> str:
    """Where a task's train rows are counted, in words; nothing of the micro-world, whose rows are made."""
    files = registry.get(task).tables
    return "" if not files else " (a local file)" if _is_local(files["train"].path) else " (upstream)"


def _is_local(path: str) -> bool:
    named = os.environ.get("STUDY_DATA") or ""
    return bool(named or Path(path).is_absolute()) and (ROOT / Path(named).expanduser() / path).is_file()


def _sizes_of_file(run, task: Task) -> dict[str, tuple[int, float]]:
    items = dataset.load(task, seed=0, n_train=run.n_train, n_eval=run.n_eval, n_ood=run.n_ood)
    words = (items["text_a"] + " " + items["text_b"]).str.count(r"\S+")
    tokens = (3 + 1.3 * words).clip(upper=run.max_length).groupby(items["split"]).mean()  # about 1.3 pieces of word a word
    return {split: (int(n), float(tokens[split])) for split, n in items["split"].value_counts().items()}


@dataclass(frozen=True)
class Place:
    """One task and seed: its run of the section data, split -> (rows, mean tokens), the names of the models made so far."""

    data: object
    sizes: dict[str, tuple[int, float]]
    earlier: dict[str, None]

    @property
    def n_train(self) -> int:
        return self.sizes["train"][0]

    @property
    def scored(self) -> tuple[str, ...]:
        """The splits of a train draw of its own: test and those of the OOD score beside it."""
        return "train", "test", *tables.ood_splits(registry.get(self.data.task))

    def drawn_anew(self, n_train: int) -> dict[str, tuple[int, float]]:
        """The sizes with another train draw, of the splits that notebooks 06b and 07b keep."""
        return {split: self.sizes[split] for split in self.scored} | {"train": (n_train, self.sizes["train"][1])}

    def train(self) -> pd.DataFrame:
        """Train rows of the micro-world without their texts, with the shortcut on as many as in the run's own."""
        data, n = self.data, self.n_train
        failing = sum(microworld.counts(data.task, data.seed, data.subcase_counts, n_train=n,
                                        shortcut_rate=data.shortcut_rate).values())
        return pd.DataFrame({"split": "train", "is_shortcut": [True] * (n - failing) + [False] * failing})


@dataclass(frozen=True)
class Wanted:
    """A model that a notebook asks for. sizes: of the rows it reads. stops: how often it is predicted along its run, each
    time on `along`. dose: what sets its rows apart from those of notebook 01."""

    name: str
    epochs: float
    sizes: dict[str, tuple[int, float]]
    predicts_train: bool = False
    stops: int = 0
    along: tuple[str, ...] = ()
    dose: tuple = ()


# Each gives, in order, what a notebook asks for: run is its checked run, place where it runs.
def of_teacher(run, place: Place) -> Iterator[Wanted]:
    steps = make.steps_of(run.epochs, place.n_train, run.batch_size)
    yield Wanted("untrained", 0.0, place.sizes)
    yield Wanted("dense", run.epochs, place.sizes, True, len({round(share * steps) for share in run.checkpoints}),
                 place.scored)


def of_distillation(run, place: Place) -> Iterator[Wanted]:
    return (_by_name(run, name, place) for name in run.students)


def of_pruning(run, place: Place) -> Iterator[Wanted]:
    made, highest = recipes.pruned(run), names.percent("imp", max(run.sparsity_levels))
    for name in made:
        yield Wanted(name, recipes.epochs(run, name), place.sizes, _is_magnitude(name),
                     _levels(run, name) if name == highest else 0, ("train",))
    yield from (_by_name(run, name, place) for name in recipes.steps_to(run.controls, {*place.earlier, *made}))


def of_quantization(run, place: Place) -> Iterator[Wanted]:
    return (_by_name(run, name, place) for name in recipes.steps_to(run.recipes, place.earlier))


def of_doses(run, place: Place) -> Iterator[Wanted]:
    rows = place.train()
    for dose in doses.plan(run, rows).itertuples():
        epochs, sizes = doses.steps_kept(run, rows, dose.n_train), place.drawn_anew(dose.n_train)
        for name in dict.fromkeys(["dense", *run.models]):
            yield Wanted(name, epochs, sizes, not _is_magnitude(name) and recipes.predicts_train(name),
                         _levels(run, name) if _is_magnitude(name) else 0, ("train",), (dose.n_train, dose.shortcut_rate))


def of_mitigation(run, place: Place) -> Iterator[Wanted]:
    mitigation.bases(place.earlier, run.bases)
    return (Wanted(name, run.epochs, place.sizes) for name in recipes.mitigated(run))


def of_mends(run, place: Place) -> Iterator[Wanted]:
    yield from (_by_name(run, name, place) for name in recipes.steps_to([*run.bases, *run.structures], place.earlier))
    rows = place.train()
    for base in run.bases:
        for k in run.more_rows:
            n = place.n_train + k
            yield Wanted(base, doses.steps_kept(run, rows, n), place.drawn_anew(n), recipes.predicts_train(base),
                         dose=("more", k))


OF_SECTION = {"teacher": of_teacher, "distillation": of_distillation, "pruning": of_pruning, "quantization": of_quantization,
              "doses": of_doses, "mitigation": of_mitigation, "mends": of_mends}


def _by_name(run, name: str, place: Place) -> Wanted:
    return Wanted(name, recipes.epochs(run, name), place.sizes, recipes.predicts_train(name))


def _is_magnitude(name: str) -> bool:
    """A pruned model trained with the labels, whose run is predicted on train at its sparsities."""
    return names.parse(name).family == "imp" and recipes.predicts_train(name)


def _levels(run, name: str) -> int:
    level = float(names.parse(name).structure.split("-")[1]) / 100
    return len({share for share in run.run_levels if share <= level})


def places(profile: Profile) -> list[tuple[str, int, list[str]]]:
    """(task, seed, sections) of every task and seed of the grid, as the Snakefile runs them; notebook 09 apart."""
    grid, found = profile.grid, []
    for task in grid.tasks:
        for seed in sorted({*grid.seeds, *grid.dense_seeds}):
            dosed = task in grid.dose_tasks and seed in grid.dose_seeds
            every = [s for s in RUNS if s != "claims" and (dosed or s not in ("doses", "mends"))]
            found.append((task, seed, every if seed in grid.seeds else ["data", "teacher"]))
    return found
