"""Whether a profile's sections fit each other and name what is there: raises StudyError before anything runs."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Mapping

from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.names import FAMILIES, parse, percent
from lib.params.schema import TASKS, Run


def of_notebooks(runs: Mapping[str, Run], source: str) -> None:
    """No notebook is asked to build on what no earlier one is asked to make. runs: by section, of one task."""
    mitigation, kept = runs["mitigation"], runs["teacher"].checkpoints
    if "jtt" in mitigation.losses and mitigation.jtt_checkpoint not in kept:
        raise StudyError(f"{source}: mitigation.jtt_checkpoint = {mitigation.jtt_checkpoint} must be one of "
                         f"teacher.checkpoints, which are {kept}")
    pruning, last = runs["pruning"], max(runs["pruning"].sparsity_levels)
    if sum(level <= last for level in pruning.run_levels) < 2:
        raise StudyError(f"{source}: pruning.run_levels = {pruning.run_levels} must hold two or more up to {last}, the "
                         "highest of pruning.sparsity_levels, whose run passes them; 06_shortcut_samples reads the "
                         "difficulty there")
    if len(pruning.sparsity_levels) < 2:
        raise StudyError(f"{source}: pruning.sparsity_levels = {pruning.sparsity_levels} must hold two or more, for "
                         "06_shortcut_samples reads the difficulty of a row off them; add one")
    if not runs["quantization"].recipes:
        raise StudyError(f"{source}: quantization.recipes is empty, and 05_quantization_and_replacing compares what it "
                         "makes; name one, such as [dense + ptq8]")
    made = [*runs["distillation"].students, *(percent("imp", level) for level in pruning.sparsity_levels),
            *pruning.controls]
    for base in mitigation.bases:
        if base not in made:
            raise StudyError(f"{source}: mitigation.bases names '{base}', which neither distillation.students nor "
                             f"pruning.sparsity_levels makes; add it there{nearest(base, made)}")
    for name in runs["quantization"].recipes:
        recipe = parse(name)
        shares = {"heads": "head_fractions", "ffn": "ffn_fractions"}.get(recipe.family)
        if shares and recipe.base not in {percent(recipe.family, share) for share in getattr(pruning, shares)}:
            raise StudyError(f"{source}: quantization.recipes names '{name}', but {recipe.base} is not made; add its "
                             f"share to pruning.{shares}")


def encoders_named(runs: Mapping[str, Run]) -> list[tuple[str, str]]:
    """(section.key, encoder) of the encoders that the notebooks ask for: the dense model's, and structures that are
    none of the families. runs: by section, of one task."""
    named = [("common.encoder", runs["teacher"].encoder)]
    for section, key in (("distillation", "students"), ("mitigation", "bases"), ("quantization", "recipes")):
        named += [(f"{section}.{key}", recipe.structure) for recipe in map(parse, getattr(runs[section], key))
                  if recipe.family not in FAMILIES]
    return named


def with_files(runs: Mapping[str, Run], source: str) -> None:
    """Every file and folder that a profile names is here. runs: by section, of one task of its grid."""
    task, attack = runs["data"].task, runs["loyalty"]
    if task not in TASKS and not (ROOT / task).is_file():
        raise StudyError(f"{source}: grid.tasks: there is no task file {ROOT / task}; mend the path, which counts from "
                         "the project's folder")
    for key, encoder in encoders_named(runs):
        folder = ROOT / Path(encoder).expanduser()
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", encoder) and not folder.is_dir():
            raise StudyError(f"{source}: {key} names '{encoder}', which is no hub id, and there is no folder {folder}; "
                             "mend the path, or give a hub id")
    if attack.attack_source == "vectors" and not Path(attack.vectors).is_file():
        raise StudyError(f"{source}: loyalty.vectors: there is no file {attack.vectors}; give the path of a file of "
                         "word vectors")
