"""What a profile will run and what that will take, told before anything runs: models, steps, rows, FLOPs, hours, disk.

    python -m lib.tools.plan PROFILE [--set section.key=value ...] [--jobs N] [--devices N] [--machine NAME]
                       [--rows-per-second R | --flops-per-second F] [--calibrate]

Seconds of a notebook = what it takes when its models are finished (`fixed` of params/speeds.yaml) + FLOPs of its
training, predictions and attacks, each over the machine's achieved FLOP/s, counted as `lib.models.encoders.flops` does.
"""

import argparse
import heapq
import sys
import textwrap

import pandas as pd
import yaml

from lib import names
from lib.errors import StudyError
from lib.params.profile import Profile, load_profile, split_overrides
from lib.params.schema import task_folder
from lib.params.stages import CHAIN, HANDED_ON, STAGES
from lib.tasks import registry
from lib.tools import requests, speeds
from lib.tools.speeds import Machine


def notebooks(profile: Profile, every: pd.DataFrame, done: pd.Series, on: Machine) -> pd.DataFrame:
    """One row for each notebook: task | seed | section | models | done | steps, rows, bytes, flops (of models still to
    be made) | seconds of one job of that machine. every: `requests.wanted`; done: `requests.finished`."""
    fixed = speeds.known().fixed
    arithmetic = (every["train"] / on.train + every["predict"] / on.predict + every["quantized"] / on.quantized) / 1e9
    every = every.assign(done=done, flops=every[["train", "predict", "quantized"]].sum(axis=1), seconds=(
        every["steps"] * on.step + arithmetic + fixed.model + fixed.tokenised * every["tokenised"] / 1000))
    known, lines = requests.all_sizes(profile), []
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
    dense = {task: [k for t, k, section in at if (t, section) == (task, "teacher")] for task, _, _ in at}
    needs = {(task, seed, section): [(task, k, before) for before in CHAIN[section].reads
                                     for k in CHAIN[section].seeds_read(before, seed, dense[task])]
             for task, seed, section in at if section != "claims"}
    needs |= {place: list(needs) for place in at if place[2] == "claims"}
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
    every = requests.wanted(profile)
    done = requests.finished(profile, every)
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
            f"{runs['flops'].sum() / 1e12:,.0f} TFLOP. New on disk: {runs['bytes'].sum() / 1e9:,.1f} GB"
            f"{_passing(every[~done], jobs)}."]
    if done.any():
        afresh = notebooks(profile, every, done & False, each)
        told.append(f"{done.sum()} of {len(every)} models count as finished: they lie in outputs/{profile.name}/store "
                    "with these settings and this code (what their rows say is not compared). Afresh: "
                    f"{_time(wall(afresh, jobs))}.")
    if not accelerated and jobs * on.threads > on.cores:
        told.append(f"{jobs} jobs of {on.threads} threads want more than {on.cores} cores: give each job fewer "
                    "(common.threads).")
    tables = [_table({STAGES[section]: part for section, part in runs.groupby("section", sort=False)}, runs),
              _table({f"{task_folder(task)}, seed {seed}": part for (task, seed), part in cells})]
    return "\n\n".join(["\n".join(map(_wrapped, _opening(profile, on))), *tables, "\n".join(map(_wrapped, told))])


def _passing(every: pd.DataFrame, jobs: int) -> str:
    """The weights that lie on the disk until their seed is done, of as many seeds at a time as there are jobs."""
    most = every.groupby(["task", "seed"])["passing"].sum().nlargest(jobs).sum()
    return f", and up to {most / 1e9:,.1f} GB of weights until their seed is done" if most else ""


def _opening(profile: Profile, on: Machine) -> list[str]:
    run = profile.run("teacher", profile.grid.tasks[0], 0)
    dense = speeds.dense_shape(run)
    return [f"Plan of {profile.source}: the dense model is {run.encoder} with {dense.layers} layers of {dense.hidden}, "
            f"{dense.parameters(len(registry.get(run.task).labels)) / 1e6:.0f}M parameters.",
            *(f"{task_folder(task)}: {sizes['train'][0]:,} train and {requests.evaluated(sizes):,} evaluation rows"
              f"{requests.origin(task)}, {sizes['train'][1]:.0f} tokens each in train."
              for task, sizes in requests.all_sizes(profile).items()),
            f"Speed: {on.train:,.0f} GFLOP/s of training, {on.predict:,.0f} of predictions ({on.origin})."]


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
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def print_plan(arguments: list[str]) -> None:
    """Print the plan of a profile, or with --calibrate an entry of params/speeds.yaml for this machine."""
    parser = argparse.ArgumentParser(prog="python -m lib.tools.plan", description="What a profile will run and take.")
    parser.add_argument("profile")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="section.key=value")
    parser.add_argument("--jobs", type=int, help="notebooks at a time; else one, or one for each device")
    parser.add_argument("--devices", type=int, help="accelerators, of the kind that params/speeds.yaml has first")
    parser.add_argument("--machine", default="", help="an entry of params/speeds.yaml; else by --devices or threads")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--rows-per-second", type=float, help="of the dense model in training, not the machine's own")
    speed.add_argument("--flops-per-second", type=float, help="of training, not the machine's own")
    parser.add_argument("--calibrate", action="store_true", help="measure this machine in 20 s and print its entry")
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
        entry = yaml.safe_dump({f"{profile.name}-here": speeds.calibrate(run, tokens).model_dump()}, sort_keys=False)
        return f"# for machines: in params/speeds.yaml; taken with --machine\n{entry.rstrip()}"
    hidden = speeds.dense_shape(run).hidden
    on = speeds.machine(given.machine, run.threads, given.devices is not None, hidden)
    if given.rows_per_second:
        forward = speeds.dense_shape(run).flops(tokens, len(registry.get(task).labels))
        on = on.at(3 * given.rows_per_second * forward / 1e9)
    if given.flops_per_second:
        on = on.at(given.flops_per_second / 1e9)
    devices = given.devices or 1
    return tell(profile, on, given.jobs or (devices if on.kind == "accelerator" else 1), devices)


if __name__ == "__main__":
    print_plan(sys.argv[1:])
