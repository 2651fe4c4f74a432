"""Which models each notebook asks for, what they cost, which are finished: from the parameters and the store alone."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from lib import code, names, store
from lib.analysis import tables
from lib.files import ROOT
from lib.models import make, recipes
from lib.params.profile import Profile
from lib.params.stages import CHAIN
from lib.tasks import dataset, microworld, registry
from lib.tasks.task import Task
from lib.tools import speeds
from lib.trials import doses, mitigation

TOKENIZER_BYTES, ROW_BYTES = 750_000, 24  # beside a model's weights: its tokenizer, and each row it predicts
COUNTED = ["model", "dose", "n_train", "steps", "rows", "predicted", "along", "train", "predict", "quantized", "bytes",
           "passing", "tokenised"]


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


def all_sizes(profile: Profile) -> dict[str, dict[str, tuple[int, float]]]:
    """`sizes` of each task of a profile."""
    return {task: sizes(profile.run("data", task, 0)) for task in profile.grid.tasks}


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
    tokens = (3 + 1.3 * words).clip(upper=run.max_length).groupby(items["split"]).mean()  # 1.3 pieces a word, about
    return {split: (int(n), float(tokens[split])) for split, n in items["split"].value_counts().items()}


@dataclass(frozen=True)
class Place:
    """One task and seed: its run of the section data, its `sizes`, the names of the models made so far."""

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
class Request:
    """A model that a notebook asks for. extras: how it is made, as far as that is known beforehand. sizes: of the rows
    it reads. dose: what sets them apart from those of notebook 01."""

    name: str
    extras: make.Extras
    sizes: dict[str, tuple[int, float]]
    dose: tuple = ()


# Each gives, in order, what a notebook asks for: run is its checked run, place where it runs.
def of_teacher(run, place: Place) -> Iterator[Request]:
    yield Request("untrained", make.Extras(epochs=0.0), place.sizes)
    yield Request("dense", recipes.teacher(run, place.ood), place.sizes)
    yield from _by_name(run, recipes.shorter(run), place)


def of_pruning(run, place: Place) -> Iterator[Request]:
    made = recipes.pruned(run)
    yield from (Request(name, extras, place.sizes) for name, extras in made.items())
    yield from _by_name(run, recipes.steps_to(run.controls, {*place.earlier, *made}), place)


def of_doses(run, place: Place) -> Iterator[Request]:
    rows = place.train()
    for dose in doses.of_run(run, rows).itertuples():
        sizes, paced = place.drawn_anew(dose.n_train), _paced(run, rows, dose.n_train)
        for name in dict.fromkeys(["dense", *run.models]):
            yield Request(name, doses.asked(paced, name), sizes, (dose.n_train, dose.shortcut_rate))


def of_mitigation(run, place: Place) -> Iterator[Request]:
    mitigation.bases(place.earlier, run.bases)
    return (Request(name, make.Extras(), place.sizes) for name in recipes.mitigated(run))


def of_mends(run, place: Place) -> Iterator[Request]:
    yield from _by_name(run, recipes.steps_to([*run.bases, *run.structures], place.earlier), place)
    rows = place.train()
    for base in run.bases:
        for k in run.more_rows:
            n = len(rows) + k
            yield Request(base, recipes.asked(_paced(run, rows, n), base), place.drawn_anew(n), ("more", k))


OF_SECTION = {"teacher": of_teacher, "pruning": of_pruning, "doses": of_doses, "mitigation": of_mitigation,
              "mends": of_mends, "distillation": lambda run, place: _by_name(run, run.students, place),
              "quantization": lambda run, place: _by_name(run, recipes.steps_to(run.recipes, place.earlier), place)}


def _paced(run, rows: pd.DataFrame, n_train: int):
    return run.model_copy(update={"epochs": doses.steps_kept(run, rows, n_train)})


def _by_name(run, wanted: list[str], place: Place) -> Iterator[Request]:
    return (Request(name, recipes.asked(run, name), place.sizes) for name in wanted)


def places(profile: Profile) -> list[tuple[str, int, list[str]]]:
    """(task, seed, sections) of every task and seed of the grid, as the Snakefile runs them; notebook 09 apart."""
    runs = {section: profile.grid.places(stage) for section, stage in CHAIN.items()}
    return [(*place, [section for section, at in runs.items() if place in at]) for place in runs["data"]]


def wanted(profile: Profile) -> pd.DataFrame:
    """Every model that the notebooks of a profile make, in their order, one row each; one that two ask for once.

    task | seed | section | model | dose | n_train | steps | rows (trained on) | predicted (rows, at the end) | along
    (rows, on the way) | train, predict, quantized (FLOPs of training, of predictions, of those by a quantised model) |
    bytes (that stay on disk) | passing (bytes of weights that go when the seed is done) | tokenised (rows read). Raises
    StudyError for what the notebooks would refuse as they start.
    """
    known, rows = all_sizes(profile), []
    for task, seed, sections in places(profile):
        place = Place(profile.run("data", task, seed), known[task], {})
        for section in (s for s in sections if s in OF_SECTION):
            run = profile.run(section, task, seed)
            for one in OF_SECTION[section](run, place):
                rows.append([task, seed, section, *_counted(one, run)])
                if not one.dose:
                    place.earlier[one.name] = None
    every = pd.DataFrame(rows, columns=["task", "seed", "section", *COUNTED])
    return every.drop_duplicates(["task", "seed", "model", "dose"], ignore_index=True)


def _counted(one: Request, run) -> tuple:
    """The columns COUNTED of a model."""
    recipe, labels, dense = names.parse(one.name), len(registry.get(run.task).labels), speeds.dense_shape(run)
    own, extras = speeds.shape_of(one.name, dense), one.extras
    if speeds.known().encoders.keys().isdisjoint({run.encoder, recipe.structure}):  # no config is needed for those
        make.check(run, one.name)
    n, tokens = one.sizes["train"]
    epochs = run.epochs if extras.epochs is None else extras.epochs
    steps = make.steps_of(epochs, n, run.batch_size) if epochs else 0
    rows, forward, teacher = steps * run.batch_size, own.flops(tokens, labels), dense.flops(tokens, labels)
    training = 3 * rows * forward
    if recipe.loss in names.TRANSFERS:
        training += rows * teacher
    if recipe.family == "heads":
        training += 3 * n * forward  # one pass tells how much each head matters
    if recipe.family == "theseus" and not recipe.quantization:  # layers not replaced yet run, their weights frozen
        rate = run.replace_rate if recipe.structure.endswith("-constant") else (1 + run.replace_start) / 2
        training += rows * run.replace_share * (1 - rate) * (2 * teacher - 3 * forward)
    stops = len({round(share * steps) for share in extras.checkpoints}) + len(extras.run_levels)
    ends = [split for split in one.sizes if split != "train" or extras.predict_train]
    work = {split: rows * own.flops(length, labels) for split, (rows, length) in one.sizes.items()}
    predict = sum(work[split] for split in ends) + stops * sum(work[split] for split in extras.checkpoint_splits)
    predicted = sum(one.sizes[split][0] for split in ends)
    along = stops * sum(one.sizes[split][0] for split in extras.checkpoint_splits)
    weights = 4 * own.parameters(labels) - (3 * own.layers * own.layer_weights if recipe.quantization else 0)
    stored = weights * run.keep_weights + TOKENIZER_BYTES + ROW_BYTES * (predicted + along)
    passing = 0 if run.keep_weights or not recipe.is_built_on else weights
    in_fp32 = sum(work[split] for split in one.sizes if split != "train") if extras.as_teacher else 0.0
    by_precision = (0.0, predict) if recipe.quantization else (predict + in_fp32, in_fp32)  # the norms take a pass too
    return (one.name, one.dose, n, steps, rows, predicted, along, training, *by_precision, stored, passing,
            sum(rows for rows, _ in one.sizes.values()))


def finished(profile: Profile, every: pd.DataFrame) -> pd.Series:
    """Which models of `wanted` lie in the profile's store: made by this code with the same settings, on as many rows,
    from a teacher and a start that lie there too, with their weights where these are kept. Not compared: what their
    rows say, a loss's strengths and weights."""
    made = ROOT / "outputs" / profile.name / "store"
    paths = made.glob("[!.]*/record.json")
    left: dict[tuple, list[dict]] = {}
    source_hash = lru_cache(code.source_hash)
    for record in filter(None, map(_record, sorted(paths, key=lambda path: -path.stat().st_mtime))):
        left.setdefault(tuple(record[key] for key in ("task", "seed", "model", "steps", "n_train")), []).append(record)
    keys, data, done = {None}, {}, []
    for row in every.itertuples():
        recipe, run = names.parse(row.model), profile.run(row.section, row.task, row.seed)
        fields = make.RUN_FIELDS + make.FIELDS_OF_FAMILY.get(recipe.quantization or recipe.family, ())
        settings = {field: getattr(run, field) for field in fields} | {"source": source_hash(*make.key_modules(recipe))}
        candidates = left.get((row.task, row.seed, row.model, row.steps, row.n_train), [])
        place = (row.task, row.seed, row.dose)
        first = row.model in ("untrained", "dense") or row.dose[:1] == ("more",)  # of its rows; the others share them
        match = next((r for r in candidates if {r["teacher"], r["start"]} <= keys
                      and r["data"] == data.get(place, r["data"] if first else None)
                      and bool(r["checkpoints"] or r["run_levels"]) == bool(row.along)
                      and all(r.get(key) == value for key, value in settings.items())
                      and (not run.keep_weights or (made / r["key"] / store.WEIGHTS).exists())), None)
        done.append(match is not None)
        if match:
            candidates.remove(match)
            keys.add(match["key"])
            data[place] = match["data"]
    return pd.Series(done, every.index, dtype=bool)


def _record(path: Path) -> dict | None:
    """A model's record; None where it is damaged, for then the model is made again."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None
