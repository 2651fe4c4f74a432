"""`python -m lib.tools.judge`: what a compressed model forgot, beside its parent, from predictions or the models
themselves. notebooks/book/judge.md says how it is used, and what verdict.json holds.

Exit codes: 0 verdicts given and no condition met, 1 a condition of --fail-if met, 2 bad input, 3 a verdict withheld,
4 a fault of this program.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lib import files
from lib.analysis import conditions
from lib.errors import StudyError
from lib.tasks import handed, harness
from lib.trials import judging, sheets
from lib.trials.judging import Side

MET, BAD, HELD_BACK, OURS = 1, 2, 3, 4


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StudyError(f"{message}; --help lists the options")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    line = _Parser(prog="python -m lib.tools.judge", description="What did a compressed model forget?",
                   allow_abbrev=False)
    line.add_argument("--task", default="", help="a task of the study, or a task file (*.yaml)")
    line.add_argument("--split", action="append", default=[], metavar="NAME=FILE",
                      help="without a task: labelled rows, id=FILE and an OOD set each; train=FILE is looked at")
    line.add_argument("--parent", default="", metavar="PLACE", help="predictions, samples, or a model folder or hub id")
    line.add_argument("--model", action="append", default=[], metavar="PLACE", help="the same; may be given again")
    line.add_argument("--null", default="", metavar="PLACE", help="the parent trained once more")
    line.add_argument("--ood", action="append", default=[], metavar="TASK", help="of samples: this task is OOD")
    line.add_argument("--out", type=Path, metavar="FOLDER", help="for verdict.json and report.html")
    line.add_argument("--rows", type=Path, metavar="FILE", help="write the rows to predict, and stop")
    line.add_argument("--fail-if", default="", metavar="CONDITION", help="such as 'ood_drop > 2 or changed > 10%%'")
    line.add_argument("--on", choices=("interval", "estimate"), default="interval", help="where a condition is held")
    line.add_argument("--labels", default="", metavar="A,B", help="the task's classes in the models' order")
    line.add_argument("--parent-labels", default="", metavar="A,B", help="the same for the parent")
    line.add_argument("--revision", default="", help="commit of the models on the hub")
    line.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="in which models are run, all alike")
    line.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    line.add_argument("--max-length", type=int, default=128, help="tokens at which rows are cut")
    line.add_argument("--n-eval", type=int, default=0, help="ID rows; 0: all, of a made task 2,000")
    line.add_argument("--n-ood", type=int, default=0, help="OOD rows of each subcase and label; 0: all, of a made 200")
    line.add_argument("--n-boot", type=int, default=1000, help="resamples behind an interval")
    return line


def main_of(arguments: Sequence[str]) -> int:
    """Run the command line; returns its exit code. What it says goes to stdout, an error's one line to stderr."""
    try:
        return _judge(parser().parse_args(arguments))
    except StudyError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return BAD
    except Exception as error:  # whatever it is, it is not the reader's fault
        traceback.print_exc()
        sys.stderr.write(f"a fault of this program, not of your input: {type(error).__name__}: {error}\n")
        return OURS


def _judge(given: argparse.Namespace) -> int:
    _check(given)
    wanted = conditions.parse(given.fail_if) if given.fail_if else []
    if given.rows:
        sys.stdout.write(f"{handed.write_rows(given.rows, _rows(given))} rows to predict in {given.rows}\n")
        return 0
    rows, parent, models, null = _sides(given)
    judged = judging.judged(rows, parent, models, null, given.n_boot)
    told = [{"condition": str(one), "on": given.on,
             "values": {j.side.name: round(one.value(j.verdict, given.on), 6) for j in judged},
             "met_by": [j.side.name for j in judged if one.is_met(j.verdict, given.on)]} for one in wanted]
    status = MET if any(one["met_by"] for one in told) else \
        HELD_BACK if any(j.verdict.reasons for j in judged) else 0
    record = sheets.record(rows, parent, judged, told, status)
    if given.out:
        from lib.tools import judge_page  # draws, so it is imported for those who ask for it

        with files.whole(given.out / "verdict.json") as path:
            path.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        with files.whole(given.out / "report.html") as path:
            path.write_text(judge_page.page(rows, parent, judged, told), encoding="utf-8")
    for one in judged:
        sys.stdout.write("\n".join([*sheets.lines(rows, parent, one), *map("  {}".format, sheets.asides(
            rows, parent, one))]) + "\n")
    for one in told:
        sys.stdout.write(f"fail-if    {one['condition']}: " + (f"met by {', '.join(one['met_by'])}" if one["met_by"]
                                                                else "not met") + f", on the {given.on}\n")
    if given.out:
        sys.stdout.write(f"written    {given.out / 'verdict.json'}, {given.out / 'report.html'}\n")
    return status


def _check(given: argparse.Namespace) -> None:
    """StudyError for options that do not go together."""
    for name, least in (("n_eval", 0), ("n_ood", 0), ("n_boot", 100), ("max_length", 8)):
        if getattr(given, name) < least:
            raise StudyError(f"--{name.replace('_', '-')} is {getattr(given, name)}; give {least} or more")
    if given.task and given.split:
        raise StudyError("--task and --split both name the rows; give one of them")
    for name, place in (("out", given.out), ("rows", given.rows and given.rows.parent)):
        above = next((one for one in (place, *place.parents) if one.exists()), None) if place else None
        if above and not above.is_dir():
            raise StudyError(f"--{name}: {above} is a file, no folder; name another place")
    if given.rows and given.rows.is_dir():
        raise StudyError(f"--rows: {given.rows} is a folder; name a file")
    if given.rows and not (given.task or given.split):
        raise StudyError("--rows: nothing says which rows; give --task or --split")
    if not given.rows and not (given.parent and given.model):
        missing = "--model" if given.parent else "--parent"
        raise StudyError(f"{missing} is missing; give predictions, samples of the lm-evaluation-harness, a folder or a "
                         "hub id of each (the rows to predict: --rows FILE)")
    places = list(filter(None, [given.parent, *given.model, given.null]))
    meant = [Path(place).resolve() if Path(place).exists() else place for place in places]
    if twice := [place for place, one in zip(places, meant) if meant.count(one) > 1]:
        raise StudyError(f"{twice[0]} is given twice; a model is judged beside another one")
    for name, order, sides in (("labels", given.labels, given.model),
                               ("parent-labels", given.parent_labels, [given.parent, given.null])):
        if order and not given.rows and all(judging.is_table(place) for place in sides if place):
            raise StudyError(f"--{name} is for models that are run here; a table names its classes by its columns")


def _rows(given: argparse.Namespace) -> handed.Rows:
    if given.task:
        return handed.of_task(given.task, given.n_eval, given.n_ood)
    splits: dict[str, Path] = {}
    for one in given.split:
        name, sign, path = one.partition("=")
        if not (name and sign and path):
            raise StudyError(f"--split {one}: write NAME=FILE, such as id=test.csv")
        if name in splits:
            raise StudyError(f"--split {name} is given twice; give each set one file")
        splits[name] = judging.found(path)
    return handed.of_files(splits)


def _sides(given: argparse.Namespace) -> tuple[handed.Rows, Side, list[Side], Side | None]:
    """The rows, the parent, the models and the null, read or run."""
    places = [given.parent, *given.model, *([given.null] if given.null else [])]
    if not (given.task or given.split):
        if not any(harness.is_harness(judging.found(place)) for place in places):
            raise StudyError(f"--task is missing: nothing says what the rows of {given.parent} are; give --task, or "
                             "--split id=FILE --split ood=FILE (samples of the lm-evaluation-harness need neither)")
        rows, sides = judging.read_samples(given.parent, given.model, given.null, given.ood)
    else:
        if given.ood:
            raise StudyError("--ood is for samples of the lm-evaluation-harness; a task, or --split, says what is OOD")
        rows = _rows(given)
        own, labels = ([name.strip() for name in one.split(",") if name] for one in (given.parent_labels, given.labels))
        how = judging.How(given.revision, given.dtype, given.max_length, given.device, labels)
        sides = judging.read_sides(rows, given.parent, given.model, given.null, how, own)
    return rows, sides[0], sides[1:1 + len(given.model)], sides[-1] if given.null else None


if __name__ == "__main__":
    sys.exit(main_of(sys.argv[1:]))
