"""What a notebook runs with: its parameters cell and what papermill injected, merged and checked."""

from __future__ import annotations

import ast
from typing import Any, Mapping

from lib.errors import StudyError, nearest
from lib.params.profile import IDENTITY, PARTS, Layer, checked_profile, for_task, grid_of, smoke_values, validated
from lib.params.schema import Placed
from lib.params.sections import OWN, RUNS
from lib.params.stages import OWN_STAGES, STAGES


def _assigned(source: str) -> list[str]:
    """Names that a cell assigns at top level; none where the cell is not plain Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _cells(namespace: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names assigned by the notebook's own parameters cell and by the cell that papermill injected after it."""
    own: list[str] = []
    injected: list[str] = []
    for source in namespace.get("In", []):
        names = _assigned(source)
        if source.startswith("# Parameters"):
            injected = names
        elif set(IDENTITY) <= set(names):
            own, injected = names, []
    return own, injected


def parameters(section: str, namespace: Mapping[str, Any]) -> Placed:
    """The second cell of every notebook: `run = notebook.parameters("pruning", globals())`.

    The parameters cell names what its reader may want to change, with smoke's values; all others are as in
    params/smoke.yaml. What papermill injected goes over both: a whole profile (`-f params/mini.yaml`) by its sections,
    single names (`-p sparsity_levels "[0.5]"`, also such as the cell leaves out) last. Any unknown name, unknown key or
    wrong type raises StudyError before anything is trained.
    """
    if section not in (known := RUNS | OWN):
        raise StudyError(f"no section '{section}'{nearest(section, known)}")
    model, name = known[section], f"{(STAGES | OWN_STAGES)[section]}.ipynb"
    homes = [home for home, run in RUNS.items() if issubclass(model, run)]  # sections of a profile that it is handed
    fields, parts = set(model.model_fields), set(PARTS) if homes else set()
    own, injected = _cells(namespace)
    for keys, allowed in ((own, fields), (injected, fields | parts)):
        for key in keys:
            if key not in allowed:
                raise StudyError(f"{name}: unknown parameter '{key}'{nearest(key, sorted(allowed))}")
    layers: list[Layer] = []
    smoke, shown = smoke_values()
    for home in homes:
        layers += [(shown, smoke["common"]), (shown, grid_of(home, smoke["grid"], "")), (shown, smoke[home])]
    layers.append((name, {key: namespace[key] for key in fields - set(injected) if key in namespace}))
    flat = {key: namespace[key] for key in injected if key in fields}
    raw = {key: namespace[key] or {} for key in injected if key in PARTS}
    if raw:
        injector = f"{name}, injected profile"
        checked_profile(raw, smoke, injector)
        of_profile = {key: value for key, value in raw["common"].items() if key != "task" or section in RUNS}
        task = flat.get("task", of_profile.get("task", namespace.get("task")))
        layers.append((injector, of_profile))
        for home in homes:
            layers += [(injector, raw.get(home, {})), (injector, grid_of(home, raw.get("grid", {}), task)),
                       (f"{injector}, per_task {task}", for_task(raw.get("per_task", {}), task, home))]
    return validated(model, section, [*layers, (f"{name}, injected parameters", flat)])
