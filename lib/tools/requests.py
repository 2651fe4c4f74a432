"""Which models each notebook asks for, and the rows they read, from the parameters alone: what `lib.tools.plan` counts."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.analysis import tables
from lib.files import ROOT
from lib.models import make, recipes
from lib.params.profile import Profile
from lib.params.stages import CHAIN
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
        unseen = [subcase.unseen for subcase in microworld.SUBCASES[task.name]]
        rows = {"train": run.n_train, "dev": run.n_eval, "test": run.n_eval,
                "ood": 2 * run.n_ood * unseen.count(False), "unseen": 2 * run.n_ood * unseen.count(True)}
        return {split: (n, known[split].tokens) for split, n in rows.items()}
    whole = {split: one.mirror if _is_local(task.tables[split].path) else one.rows for split, one in known.items()}
    dev = min(dataset.DEV_ROWS, whole["train"] // 10)
    rows = {"train": _capped(whole["train"] - dev, run.n_train), "dev": _capped(dev, run.n_eval),
            "test": _capped(whole["test"], run.n_eval)}
    rows |= {split: _capped(whole[split], run.n_ood * known[split].cells) for split in task.ood}
    return {split: (n, known[split if split in known else "train"].tokens) for split, n in rows.items()}


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
    def ood(self) -> list[str]:
        """The sets that make up the task's OOD score."""
        return tables.ood_splits(registry.get(self.data.task))

    def drawn_anew(self, n_train: int) -> dict[str, tuple[int, float]]:
        """The sizes with another train draw, of the splits that notebooks 06b and 07b keep."""
        kept = {split: self.sizes[split] for split in ("train", "test", *self.ood)}
        return kept | {"train": (n_train, self.sizes["train"][1])}

    def train(self) -> pd.DataFrame:
        """Train rows of the micro-world without their texts, with the shortcut on as many as in the run's own."""
        data, n = self.data, self.sizes["train"][0]
        failing = sum(microworld.counts(data.task, data.seed, data.subcase_counts, n_train=n,
                                        shortcut_rate=data.shortcut_rate).values())
        return pd.DataFrame({"split": "train", "is_shortcut": [True] * (n - failing) + [False] * failing})


@dataclass(frozen=True)
class Wanted:
    """A model that a notebook asks for. extras: how it is made, as far as that is known before anything is made. sizes: of
    the rows it reads. dose: what sets its rows apart from those of notebook 01."""

    name: str
    extras: make.Extras
    sizes: dict[str, tuple[int, float]]
    dose: tuple = ()


# Each gives, in order, what a notebook asks for: run is its checked run, place where it runs.
def of_teacher(run, place: Place) -> Iterator[Wanted]:
    yield Wanted("untrained", make.Extras(epochs=0.0), place.sizes)
    yield Wanted("dense", recipes.teacher(run, place.ood), place.sizes)


def of_pruning(run, place: Place) -> Iterator[Wanted]:
    made = recipes.pruned(run)
    yield from (Wanted(name, extras, place.sizes) for name, extras in made.items())
    yield from _by_name(run, recipes.steps_to(run.controls, {*place.earlier, *made}), place)


def of_doses(run, place: Place) -> Iterator[Wanted]:
    rows = place.train()
    for dose in doses.plan(run, rows).itertuples():
        paced = run.model_copy(update={"epochs": doses.steps_kept(run, rows, dose.n_train)})
        for name in dict.fromkeys(["dense", *run.models]):
            yield Wanted(name, doses.asked(paced, name), place.drawn_anew(dose.n_train), (dose.n_train, dose.shortcut_rate))


def of_mitigation(run, place: Place) -> Iterator[Wanted]:
    mitigation.bases(place.earlier, run.bases)
    return (Wanted(name, make.Extras(), place.sizes) for name in recipes.mitigated(run))


def of_mends(run, place: Place) -> Iterator[Wanted]:
    yield from _by_name(run, recipes.steps_to([*run.bases, *run.structures], place.earlier), place)
    rows = place.train()
    for base in run.bases:
        for k in run.more_rows:
            n = len(rows) + k
            paced = run.model_copy(update={"epochs": doses.steps_kept(run, rows, n)})
            yield Wanted(base, recipes.asked(paced, base), place.drawn_anew(n), ("more", k))


OF_SECTION = {"teacher": of_teacher, "pruning": of_pruning, "doses": of_doses, "mitigation": of_mitigation, "mends": of_mends,
              "distillation": lambda run, place: _by_name(run, run.students, place),
              "quantization": lambda run, place: _by_name(run, recipes.steps_to(run.recipes, place.earlier), place)}


def _by_name(run, wanted: list[str], place: Place) -> Iterator[Wanted]:
    return (Wanted(name, recipes.asked(run, name), place.sizes) for name in wanted)


def places(profile: Profile) -> list[tuple[str, int, list[str]]]:
    """(task, seed, sections) of every task and seed of the grid, as the Snakefile runs them; notebook 09 apart."""
    runs = {section: profile.grid.places(stage) for section, stage in CHAIN.items()}
    return [(*place, [section for section, at in runs.items() if place in at]) for place in runs["data"]]
