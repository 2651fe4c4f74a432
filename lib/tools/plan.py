"""What a profile will run and what that will take, told before anything runs: models, steps, rows, FLOPs, hours, disk.

    python -m lib.tools.plan PROFILE [--set section.key=value ...] [--jobs N] [--devices N] [--machine NAME]
                       [--rows-per-second R | --flops-per-second F] [--calibrate]

Seconds of a notebook = what it takes when its models are finished (`fixed` of params/speeds.yaml) + FLOPs of its training,
of its predictions and of its attacks, each over the machine's achieved FLOP/s, counted as `lib.models.encoders.flops` does.
"""

import argparse
import heapq
import json
import sys
import textwrap
from functools import lru_cache
from pathlib import Path

import pandas as pd
import yaml

from lib import code, names
from lib.errors import StudyError
from lib.files import ROOT
from lib.models import make
from lib.params.profile import Profile, load_profile, split_overrides
from lib.params.schema import task_folder
from lib.params.stages import CHAIN, HANDED_ON, STAGES
from lib.tasks import registry
from lib.tools import requests, speeds
from lib.tools.speeds import Machine

TOKENIZER_BYTES, ROW_BYTES = 750_000, 24  # beside a model's weights: its tokenizer, and each row it predicts


COUNTED = ["model", "dose", "n_train", "steps", "rows", "predicted", "along", "train", "predict", "quantized", "bytes",
           "tokenised"]


def wanted(profile: Profile) -> pd.DataFrame:
    """Every model that the notebooks of a profile make, in their order, one row each; one that two ask for once.

    task | seed | section | model | dose | n_train | steps | rows (trained on) | predicted (rows, at the end) | along (rows,
    on the way) | train, predict, quantized (FLOPs of training, of predictions, of those by a quantised model) | bytes (on
    disk) | tokenised (rows read). Raises StudyError for what the notebooks would refuse as they start.
    """
    known, rows = _sizes(profile), []
    for task, seed, sections in requests.places(profile):
        place = requests.Place(profile.run("data", task, seed), known[task], {})
        for section in (s for s in sections if s in requests.OF_SECTION):
            run = profile.run(section, task, seed)
            for one in requests.OF_SECTION[section](run, place):
                rows.append([task, seed, section, *_counted(one, run)])
                if not one.dose:
                    place.earlier[one.name] = None
    every = pd.DataFrame(rows, columns=["task", "seed", "section", *COUNTED])
    return every.drop_duplicates(["task", "seed", "model", "dose"], ignore_index=True)


def _sizes(profile: Profile) -> dict[str, dict]:
    return {task: requests.sizes(profile.run("data", task, 0)) for task in profile.grid.tasks}


def _counted(one: requests.Wanted, run) -> tuple:
    """The columns COUNTED of a model."""
    recipe, labels, dense = names.parse(one.name), len(registry.get(run.task).labels), speeds.dense_shape(run)
    own, extras = speeds.shape_of(one.name, dense), one.extras
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
    predicted, along = (times * sum(one.sizes[split][0] for split in splits)
                        for times, splits in ((1, ends), (stops, extras.checkpoint_splits)))
    weights = 4 * own.parameters(labels) - (3 * own.layers * own.layer_weights if recipe.quantization else 0)
    return (one.name, one.dose, n, steps, rows, predicted, along, training, *((0.0, predict) if recipe.quantization else
            (predict, 0.0)), weights + TOKENIZER_BYTES + ROW_BYTES * (predicted + along),
            sum(rows for rows, _ in one.sizes.values()))


def finished(profile: Profile, every: pd.DataFrame) -> pd.Series:
    """Which models of `wanted` lie in the profile's store: made by this code with the same settings, on as many rows,
    from a teacher and a start that lie there too. Not compared: what their rows say, a loss's strengths and weights."""
    paths = (ROOT / "outputs" / profile.name / "store").glob("[!.]*/record.json")
    left: dict[tuple, list[dict]] = {}
    for record in filter(None, map(_record, sorted(paths, key=lambda path: -path.stat().st_mtime))):
        left.setdefault(tuple(record[key] for key in ("task", "seed", "model", "steps", "n_train")), []).append(record)
    keys, data, done = {None}, {}, []
    for row in every.itertuples():
        recipe, run = names.parse(row.model), profile.run(row.section, row.task, row.seed)
        fields = make.RUN_FIELDS + make.FIELDS_OF_FAMILY.get(recipe.quantization or recipe.family, ())
        settings = {field: getattr(run, field) for field in fields} | {"source": _source_hash(make.sources(recipe))}
        candidates = left.get((row.task, row.seed, row.model, row.steps, row.n_train), [])
        place = (row.task, row.seed, row.dose)
        first = row.model in ("untrained", "dense") or row.dose[:1] == ("more",)  # of its rows; the others share them
        match = next((r for r in candidates if {r["teacher"], r["start"]} <= keys
                      and r["data"] == data.get(place, r["data"] if first else None)
                      and bool(r["checkpoints"] or r["run_levels"]) == bool(row.along)
                      and all(r.get(key) == value for key, value in settings.items())), None)
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


_source_hash = lru_cache(lambda modules: code.source_hash(*modules))


# ---------------------------------------------------------------- seconds
def notebooks(profile: Profile, every: pd.DataFrame, done: pd.Series, on: Machine) -> pd.DataFrame:
    """One row for each notebook: task | seed | section | models | done | steps, rows, bytes, flops (of models still to be
    made) | seconds of one job of that machine. every: `wanted`; done: `finished`."""
    fixed = speeds.known().fixed
    arithmetic = (every["train"] / on.train + every["predict"] / on.predict + every["quantized"] / on.quantized) / 1e9
    every = every.assign(done=done, flops=every[["train", "predict", "quantized"]].sum(axis=1), seconds=(
        every["steps"] * on.step + arithmetic + fixed.model + fixed.tokenised * every["tokenised"] / 1000))
    known, lines = _sizes(profile), []
    for task, seed, sections in requests.places(profile):
        here = every[(every["task"] == task) & (every["seed"] == seed)]
        for section in sections:
            mine = here[here["section"] == section]
            to_do = mine.loc[~mine["done"], ["steps", "rows", "bytes", "flops", "seconds"]].sum()
            seconds, flops = _beside_training(profile.run(section, task, seed), here, known[task], on)
            lines.append([task, seed, section, len(mine), int(mine["done"].sum()), to_do["steps"], to_do["rows"],
                          to_do["bytes"], to_do["flops"] + flops, to_do["seconds"] + seconds])
    floors = sum(fixed.floors * known[task]["train"][0] / 1000 for task, _, _ in requests.places(profile))
    judged = sum(fixed.analysed * requests.evaluated(known[task]) / 1000 * len(part)
                 for task, part in _handed_on(every).groupby("task"))
    lines.append(["", -1, "claims", 0, 0, 0, 0, 0, 0, fixed.notebook + floors + judged])
    return pd.DataFrame(lines, columns=["task", "seed", "section", "models", "done", "steps", "rows", "bytes", "flops",
                                        "seconds"])


def _handed_on(every: pd.DataFrame) -> pd.DataFrame:
    """The models that notebooks 08 and 09 read."""
    return every[every["section"].isin(HANDED_ON) & (every["model"] != "untrained")]


def _beside_training(run, here: pd.DataFrame, sizes: dict, on: Machine) -> tuple[float, float]:
    """Seconds of a notebook whose models are finished, and the FLOPs of what it predicts all the same.

    here: the models of its task and seed.
    """
    fixed, section = speeds.known().fixed, run.section
    if section == "data":
        return fixed.data, 0.0
    labels, dense, handed = len(registry.get(run.task).labels), speeds.dense_shape(run), _handed_on(here)["model"]
    judged = len(handed) if section == "loyalty" else 1 + (here["section"] == section).sum()
    seconds = fixed.notebook + fixed.analysed * judged * requests.evaluated(sizes) / 1000
    if CHAIN[section].floors:
        seconds += fixed.floors * sizes["train"][0] / 1000
    if section == "shortcut_samples":  # reads what the dense model's last layer is fed
        work = sum(n * dense.flops(tokens, labels) for split, (n, tokens) in sizes.items() if split != "train")
        return seconds + work / on.predict / 1e9, work
    if section != "loyalty":
        return seconds, 0.0
    n, tokens = sizes["test"]
    queries, work = min(run.n_attack, n) * fixed.queries[run.attack_source], {True: 0.0, False: 0.0}
    for name in [*handed, "dense", "dense"]:  # the dense model twice more, to tell what batching brings
        work[bool(names.parse(name).quantization)] += queries * speeds.shape_of(name, dense).flops(tokens, labels)
    seconds += fixed.batching + fixed.timed * len(handed) * len(run.cost_paths)
    return seconds + (work[False] / on.predict + work[True] / on.quantized) / 1e9, sum(work.values())


def wall(runs: pd.DataFrame, jobs: int) -> float:
    """Seconds until the last of `notebooks` ends, with so many at a time, those first on which the longest chain waits.

    They wait for each other as the Snakefile's rules do.
    """
    at = {(row.task, row.seed, row.section): row.seconds for row in runs.itertuples()}
    needs = {}
    for task, seed, section in at:
        stage = CHAIN[section]
        needs[task, seed, section] = {other for other in at if other[2] in stage.reads and (
            stage.runs == "profile" or other[:2] == (task, seed)
            or (stage.every_dense and other[0] == task and other[2] == "teacher"))}
    urgency: dict[tuple, float] = {}
    for place in sorted(at, key=lambda p: -list(CHAIN).index(p[2])):
        urgency[place] = at[place] + max((urgency[other] for other in urgency if place in needs[other]), default=0.0)
    waiting, running, ended, now = sorted(at, key=lambda p: -urgency[p]), [], set(), 0.0
    while waiting or running:
        for place in [place for place in waiting if ended.issuperset(needs[place])][:jobs - len(running)]:
            waiting.remove(place)
            heapq.heappush(running, (now + at[place], place))
        now, place = heapq.heappop(running)
        ended.add(place)
    return now


# ---------------------------------------------------------------- telling it
def tell(profile: Profile, on: Machine, jobs: int = 1, devices: int = 1) -> str:
    """The plan in words and tables. jobs: notebooks at a time; devices: accelerators that they share."""
    every = wanted(profile)
    done = finished(profile, every)
    accelerated = on.kind == "accelerator"
    sharing = max(1.0, jobs / devices)
    each = on.slowed(sharing if accelerated else max(1.0, jobs * on.threads / on.cores))
    runs = notebooks(profile, every, done, each)
    cells = runs[runs["section"] != "claims"].groupby(["task", "seed"], sort=False)
    where = f"on {devices} device{'s' * (devices > 1)}" if accelerated else \
        f"of {on.threads} thread{'s' * (on.threads > 1)}"
    told = [f"Wall time: {_time(wall(runs, jobs))} with {jobs} job{'s' * (jobs > 1)} at a time {where}. "
            f"{'Device-hours' if accelerated else 'Hours of one job'}: "
            f"{runs['seconds'].sum() / 3600 / (sharing if accelerated else 1):,.2f}. Arithmetic: "
            f"{runs['flops'].sum() / 1e12:,.0f} TFLOP. New on disk: {runs['bytes'].sum() / 1e9:,.1f} GB."]
    if done.any():
        afresh = notebooks(profile, every, done & False, each)
        told.append(f"{done.sum()} of {len(every)} models count as finished: they lie in outputs/{profile.name}/store with "
                    "these settings and this code (what their rows say is not compared). Afresh: "
                    f"{_time(wall(afresh, jobs))}.")
    if not accelerated and jobs * on.threads > on.cores:
        told.append(f"{jobs} jobs of {on.threads} threads want more than {on.cores} cores: give each job fewer "
                    "(common.threads).")
    tables = [_table({STAGES[section]: part for section, part in runs.groupby("section", sort=False)}, runs),
              _table({f"{task_folder(task)}, seed {seed}": part for (task, seed), part in cells})]
    return "\n\n".join(["\n".join(map(_wrapped, _opening(profile, on))), *tables, "\n".join(map(_wrapped, told))])


def _opening(profile: Profile, on: Machine) -> list[str]:
    run = profile.run("teacher", profile.grid.tasks[0], 0)
    dense, told = speeds.dense_shape(run), []
    told.append(f"Plan of {profile.source}: the dense model is {run.encoder} with {dense.layers} layers of {dense.hidden}, "
                f"{dense.parameters(len(registry.get(run.task).labels)) / 1e6:.0f}M parameters.")
    for task, sizes in _sizes(profile).items():
        told.append(f"{task_folder(task)}: {sizes['train'][0]:,} train and {requests.evaluated(sizes):,} evaluation rows"
                    f"{requests.origin(task)}, {sizes['train'][1]:.0f} tokens each in train.")
    return [*told, f"Speed: {on.train:,.0f} GFLOP/s of training, {on.predict:,.0f} of predictions ({on.origin})."]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _table(parts: dict[str, pd.DataFrame], whole: pd.DataFrame | None = None) -> str:
    lines = {}
    for name, part in (parts if whole is None else parts | {"in all": whole}).items():
        sums = part[["models", "done", "steps", "rows"]].sum().map("{:,.0f}".format).to_dict()
        lines[name] = {"notebooks": len(part), **sums, "TFLOP": f"{part['flops'].sum() / 1e12:,.0f}",
                       "time": _time(part["seconds"].sum()), "GB": f"{part['bytes'].sum() / 1e9:,.1f}"}
    return pd.DataFrame(lines).T.rename(columns={"done": "finished", "rows": "rows trained on"}).to_string()


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def main(arguments: list[str]) -> None:
    """Print the plan of a profile, or with --calibrate an entry of params/speeds.yaml for this machine."""
    parser = argparse.ArgumentParser(prog="python -m lib.tools.plan", description="What a profile will run and what that will take.")
    parser.add_argument("profile")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="section.key=value")
    parser.add_argument("--jobs", type=int, help="notebooks at a time; else one, or one for each device")
    parser.add_argument("--devices", type=int, help="accelerators, of the kind that params/speeds.yaml has first")
    parser.add_argument("--machine", default="", help="an entry of params/speeds.yaml; else as --devices and common.threads say")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--rows-per-second", type=float, help="of the dense model in training, in place of the machine's own")
    speed.add_argument("--flops-per-second", type=float, help="of training, in place of the machine's own")
    parser.add_argument("--calibrate", action="store_true", help="measure this machine in about 20 s and print its entry")
    given = parser.parse_args(arguments)
    try:
        print(_answer(given))
    except StudyError as error:
        parser.exit(2, f"{error}\n")


def _answer(given: argparse.Namespace) -> str:
    for name in ("jobs", "devices", "rows_per_second", "flops_per_second"):
        if (value := getattr(given, name)) is not None and not value > 0:
            raise StudyError(f"--{name.replace('_', '-')} is {value}; give a number above 0")
    profile = load_profile(given.profile, split_overrides(" ".join(given.set)))
    task = profile.grid.tasks[0]
    run, (_, tokens) = profile.run("teacher", task, 0), requests.sizes(profile.run("data", task, 0))["train"]
    if given.calibrate:
        entry = {f"{profile.name}-here": speeds.calibrate(run, tokens).model_dump()}
        return "# for machines: in params/speeds.yaml; taken with --machine\n" + yaml.safe_dump(entry, sort_keys=False).rstrip()
    on = speeds.machine(given.machine, run.threads, given.devices is not None)
    if given.rows_per_second:
        forward = speeds.dense_shape(run).flops(tokens, len(registry.get(task).labels))
        on = on.at(3 * given.rows_per_second * forward / 1e9)
    if given.flops_per_second:
        on = on.at(given.flops_per_second / 1e9)
    devices = given.devices or 1
    return tell(profile, on, given.jobs or (devices if on.kind == "accelerator" else 1), devices)


if __name__ == "__main__":
    main(sys.argv[1:])
