"""Typed parameters: profiles from YAML, overrides, and the check of what papermill injects.

A profile (params/NAME.yaml) has a `grid`, a `common` section and one section per notebook. A notebook is handed
`common` and its own section, flat. A key that a profile leaves out is as in params/smoke.yaml; a section may set a
key of `common` for its own notebook; `per_task: {TASK: {section.key: value}}` sets what one task needs otherwise.
This module imports nothing heavy: it is the first thing every notebook and the Snakefile load.
"""
from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Literal, Mapping, get_origin

import yaml
from pydantic import ValidationError

from lib import safe_yaml
from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.params import agreement
from lib.params.schema import Grid, Run, Strict, seeds_for
from lib.params.sections import RUNS

IDENTITY = ("profile", "task", "seed")
SECTIONS = ("grid", "common", *RUNS)
PARTS = ("grid", "common", "per_task", *RUNS)
GONE = {"processes": "one model is trained by one process; run several models side by side (JOBS=2, "
                     "SET=common.threads=1)"}
Layer = tuple[str, Mapping[str, Any]]


def _own(section: str) -> set[str]:
    """Keys that a profile's section may hold."""
    if section == "grid":
        return set(Grid.model_fields)
    if section == "common":
        return set(Run.model_fields)
    return set(RUNS[section].model_fields) - set(IDENTITY) - set(Grid.model_fields)


def _check_key(key: str, where: str, section: str) -> None:
    """Raise StudyError for a key that a section does not hold, telling where it belongs."""
    if key in _own(section):
        return
    if key in GONE:
        raise StudyError(f"{where}: '{section}.{key}' is no longer there: {GONE[key]}; take it out")
    valid = sorted(_own(section), key=lambda name: (name in Run.model_fields, name))
    homes = [name for name in SECTIONS if name != section and key in _own(name)]
    moved = "" if not homes else f"; '{key}' belongs to section '{homes[0]}'"
    raise StudyError(f"{where}: unknown key '{section}.{key}'{moved or nearest(key, valid)}")


def _typed(value: Any, key: str, model: type[Strict]) -> Any:
    """`papermill -p` hands lists over as text, and YAML 1.1 reads 2e-4 as text: read again where no text is wanted."""
    wanted = model.model_fields[key].annotation if key in model.model_fields else str
    if not isinstance(value, str) or wanted is str or get_origin(wanted) is Literal:
        return value
    return safe_yaml.parse(value, f"parameter '{key}' = {value!r}")


def validated(model: type[Strict], name: str, layers: Iterable[Layer]) -> Any:
    """Merge the layers, later ones winning, and check them against the model; errors name key, place and value."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for where, layer in layers:
        values.update({key: _typed(value, key, model) for key, value in layer.items()})
        origin.update(dict.fromkeys(layer, where))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key, value = first["loc"][0], first["input"]
        if first["type"] == "missing":
            raise StudyError(f"{name}: parameter '{key}' is missing; give it a value") from None
        said = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        if first["type"] == "too_short":
            said = "must hold " + str(first["ctx"]["min_length"]) + " or more"
        if first["type"] == "literal_error" and isinstance(value, str):
            choices = re.findall(r"'([^']+)'", first["ctx"]["expected"])
            said = f"no choice is called '{value}'{nearest(value, choices)}"
        home = "common" if key in Run.model_fields else name
        raise StudyError(f"{origin[key]}: {home}.{key} = {values[key]!r}: {said}") from None


@dataclass(frozen=True)
class Profile:
    """A complete, checked profile. `sections` holds `common` and one dict per notebook."""

    name: str
    grid: Grid
    sections: dict[str, dict[str, Any]]
    per_task: dict[str, dict[str, Any]]
    source: str

    def run(self, section: str, task: str, seed: int) -> Run:
        """The typed parameters of one notebook for one task and seed."""
        if section not in RUNS:
            raise StudyError(f"no section '{section}'{nearest(section, RUNS)}")
        layers = [(self.source, self.sections["common"]), (self.source, self.sections[section])]
        layers += [(f"{self.source}, per_task {task}", for_task(self.per_task, task, section))]
        layers.append((self.source, grid_of(section, self.grid.model_dump(), task)))
        return validated(RUNS[section], section, [*layers, (self.source, {"task": task, "seed": seed})])

    def runs(self, task: str) -> dict[str, Run]:
        """section -> the typed parameters of its notebook for a task, whatever the seed."""
        return {section: self.run(section, task, 0) for section in RUNS}

    def flat(self, section: str, task: str, seed: int) -> dict[str, Any]:
        """The same as a plain dict: what `papermill -p` would be given one by one."""
        return self.run(section, task, seed).model_dump()

    def as_dict(self) -> dict[str, Any]:
        """The whole profile as nested plain values, to be written as YAML and given to `papermill -f`."""
        per_task = {"per_task": self.per_task} if self.per_task else {}
        return {"grid": self.grid.model_dump(), **self.sections, **per_task}


def grid_of(section: str, grid: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The part of the grid that this section's notebook is handed: of those that look over several seeds the seeds of
    its task, of the one that looks over tasks too all of it."""
    over_tasks = issubclass(RUNS[section], Grid)
    return {key: value if over_tasks else seeds_for(task, value) for key, value in grid.items()
            if key in RUNS[section].model_fields}


def for_task(per_task: Mapping[str, Mapping[str, Any]], task: str, section: str) -> dict[str, Any]:
    """per_task values that reach this section's notebook: those of `common` first, then its own."""
    return {key.split(".", 1)[1]: value for home in ("common", section)
            for key, value in per_task.get(task, {}).items() if key.startswith(f"{home}.")}


def _laid_over(section: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A section with changes. Of new grid.tasks or grid.seeds, those of doses and mends keep what is still there."""
    merged = {**section, **changes}
    for whole in {"tasks", "seeds"} & set(changes):
        for key in (f"dose_{whole}", f"mend_{whole}"):
            if key not in changes and isinstance(merged.get(key), list) and isinstance(merged[whole], list):
                merged[key] = [one for one in merged[key] if one in merged[whole]]
    return merged


def checked_profile(raw: Any, base: Mapping[str, Any], source: str) -> Profile:
    """Check every section and key of a raw profile and lay it over the base (the smoke profile)."""
    if not isinstance(raw, Mapping):
        raise StudyError(f"{source}: a profile is a mapping of sections {', '.join(('grid', 'common', *RUNS))}")
    for name in raw:
        if name not in PARTS:
            raise StudyError(f"{source}: unknown section '{name}'{nearest(str(name), PARTS)}")
    sections = {}
    for name in SECTIONS:
        given = raw.get(name) or {}
        if not isinstance(given, Mapping):
            raise StudyError(f"{source}: section '{name}' must be a mapping of keys, not {given!r}")
        for key in given:
            _check_key(str(key), source, name)
        sections[name] = _laid_over(base.get(name, {}), given)
    if "profile" not in (raw.get("common") or {}):
        raise StudyError(f"{source}: common.profile is missing; it names the folder under outputs")
    per_task = raw.get("per_task") or {}
    if not (isinstance(per_task, Mapping) and all(isinstance(changes, Mapping) for changes in per_task.values())):
        raise StudyError(f"{source}: per_task must be a mapping such as {{fever: {{mitigation.alpha: 0.3}}}}")
    for task, changes in per_task.items():
        for path in changes:
            section, _, key = str(path).partition(".")
            if section not in ("common", *RUNS):
                raise StudyError(f"{source}: per_task {task}: '{path}' must read section.key{nearest(section, RUNS)}")
            if key in IDENTITY:
                raise StudyError(f"{source}: per_task {task}: '{path}' cannot differ from task to task; take it out")
            _check_key(key, f"{source}: per_task {task}", section)
    grid = validated(Grid, "grid", [(source, sections.pop("grid"))])
    common = validated(Run, "common", [(source, sections["common"])])
    profile = Profile(common.profile, grid, sections, dict(per_task), source)
    for task in dict.fromkeys((*grid.tasks, *per_task, common.task)):
        agreement.of_notebooks(profile.runs(task), source)
    return profile


def _read(path: Path) -> tuple[Any, str]:
    shown = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    return safe_yaml.read(path, shown), shown


def smoke_values() -> tuple[Any, str]:
    """The profile that every other is laid over."""
    return _read(ROOT / "params" / "smoke.yaml")


def _set(raw: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    section, dot, key = path.strip().partition(".")
    where = f"override '{override}'"
    if not (equals and dot):
        raise StudyError(f"{where}: must read section.key=value, such as mitigation.alpha=0.3")
    if section not in SECTIONS:
        raise StudyError(f"{where}: unknown section '{section}'{nearest(section, SECTIONS)}")
    _check_key(key, where, section)
    raw[section] = _laid_over(raw.get(section) or {}, {key: safe_yaml.parse(value, where)})
    for changes in (raw.get("per_task") or {}).values():
        changes.pop(path.strip(), None)


def split_overrides(text: str) -> list[str]:
    """The overrides of a line: `mitigation.losses=[rmc, distil] mitigation.alpha=0.3`; spaces may stand in values."""
    return [one for one in re.split(r"\s+(?=[a-z_]+\.[a-z_]+=)", text.strip()) if one]


def load_profile(profile: str | Path, overrides: Iterable[str] = ()) -> Profile:
    """A profile by name (params/NAME.yaml) or path, with `section.key=value` overrides, which win over per_task too.

    Raises StudyError naming the key, the file and the nearest valid name, before anything runs.
    """
    named = str(profile)
    path = Path(named) if named.endswith((".yaml", ".yml")) else ROOT / "params" / f"{named}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in (ROOT / "params").glob("*.yaml") if file.stem not in ("claims", "speeds"))
        raise StudyError(f"no profile '{profile}' in params{nearest(named, known)}")
    base, _ = smoke_values()
    raw, shown = _read(path.resolve())
    own_name = checked_profile(raw, base, shown).name
    if own_name != path.stem:
        raise StudyError(f"{shown}: common.profile = '{own_name}' should be '{path.stem}', the file's own name, "
                         "so that it writes into a folder of its own")
    overrides = list(overrides)
    for override in overrides:
        _set(raw, override)
    shown = " with ".join([shown, *overrides])
    profile = checked_profile(raw, base, shown)
    for task in profile.grid.tasks:
        agreement.with_files(profile.runs(task), shown)
    return profile


def changes(ran: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the parameters of a run (`Profile.as_dict`, or its params.yaml) differ from others: the task that a value
    of `per_task` is for, or "", and `section.key=value` with the run's value. Left out are keys that only one of the
    two knows; `per_task` may name other keys in each, there those of the run count.
    """
    changed = [("", f"{name}.{key}={_written(value)}") for name, keys in ran.items() if name != "per_task"
               for key, value in keys.items() if value != now.get(name, {}).get(key, value)]
    other = now.get("per_task", {})
    return changed + [(task, f"{key}={_written(value)}") for task, keys in ran.get("per_task", {}).items()
                      for key, value in keys.items() if value != other.get(task, {}).get(key)]


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def print_parameters(arguments: list[str]) -> None:
    """Print one notebook's parameters as flat YAML: PROFILE SECTION [--task T] [--seed K] [--set section.key=value]."""
    parser = argparse.ArgumentParser(prog="python -m lib.params.profile", description="Print a notebook's parameters.")
    parser.add_argument("profile")
    parser.add_argument("section", help=", ".join(RUNS))
    parser.add_argument("--task")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="section.key=value")
    given = parser.parse_args(arguments)
    try:
        profile = load_profile(given.profile, split_overrides(" ".join(given.set)))
        task = given.task or profile.sections["common"]["task"]
        seed = profile.sections["common"]["seed"] if given.seed is None else given.seed
        sys.stdout.write(yaml.safe_dump(profile.flat(given.section, task, seed), sort_keys=False))
    except StudyError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    print_parameters(sys.argv[1:])
