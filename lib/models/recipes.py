"""Make a model by its name alone: what it builds on is found among the finished models or made first.

What a name implies (`steps_to`, `epochs`, `predicts_train`) and what a notebook's parameters ask for (`teacher`,
`pruned`, `mitigated`) stand here once, for the notebooks and for `lib.tools.plan`, which counts before anything runs.
"""

from collections.abc import Container, Iterable
from dataclasses import replace

import pandas as pd

from lib import names, store
from lib.errors import StudyError
from lib.models import make


def follow(run, items: pd.DataFrame, name: str, finished: dict[str, store.Model]) -> store.Model:
    """The model `name`, trained now unless it is finished.

    finished: models by name, `dense` among them: the teacher of every distilled model, the predecessor of every
    replaced one and the start of an `-after`. run: a checked run with `qat_epochs` where the name ends in qat8. Raises
    StudyError for a name that is no recipe, or whose structure notebook 04 alone makes.
    """
    recipe, dense = names.parse(name), finished["dense"]
    if name in finished:
        return finished[name]
    loss = {"teacher": dense, "kd_weight": run.kd_weight} if recipe.loss in names.STUDENT_LOSSES else {}
    if recipe.loss in names.TRANSFERS:
        loss["transfer_weight"] = getattr(run, f"{recipe.loss}_weight")
    if recipe.quantization:
        parent = follow(run, items, recipe.float_name, finished)
        trained = {"epochs": epochs(run, name), **loss} if recipe.quantization == "qat8" else {}
        return make.model(run, items, name, make.Extras(start=parent, **trained))
    _check_made_here(name)
    start = dense if recipe.family == "theseus" or recipe.variant in ("after", "qat") else None
    return make.model(run, items, name, replace(asked(run, name), start=start, **loss))


def asked(run, name: str) -> make.Extras:
    """What the name of a model asks for by itself: its teacher, start and weights come beside."""
    return make.Extras(epochs=epochs(run, name), predict_train=predicts_train(name))


def epochs(run, name: str) -> float:
    """Passes over the train rows by which this run trains the model of that name; 0 where nothing is trained."""
    recipe = names.parse(name)
    if recipe.family == "untrained" or recipe.quantization.startswith("ptq"):
        return 0.0
    if recipe.quantization == "qat8":
        return run.qat_epochs
    if recipe.family in ("heads", "ffn"):
        return run.recovery_epochs
    if recipe.variant == "qat":
        return run.qat_epochs
    return run.epochs * float(recipe.variant[:-1]) if recipe.variant.endswith("x") else run.epochs


def predicts_train(name: str) -> bool:
    """Whether a model made by its name is predicted on train too: of a plain structure, trained with the labels."""
    recipe = names.parse(name)
    return recipe.base == name and not recipe.variant and recipe.family != "theseus"


def steps_to(wanted: list[str], finished: Container[str]) -> list[str]:
    """Names in the order of making: each quantised model after the float one that it is made of; none of `finished`.

    Raises StudyError for a name that is no recipe, or whose structure notebook 04 alone makes.
    """
    chain = dict.fromkeys(step for name in wanted for step in (names.parse(name).float_name, name))
    left = [step for step in chain if step not in finished]
    for step in left:
        if not names.parse(step).quantization:
            _check_made_here(step)
    return left


def _check_made_here(name: str) -> None:
    family = names.parse(name).family
    if family in ("heads", "ffn"):
        raise StudyError(f"{name!r} is made in notebook 04: add its share to pruning."
                         f"{'head' if family == 'heads' else 'ffn'}_fractions")


def check(run, wanted: list[str]) -> None:
    """StudyError, from configs alone, for a model of these names, or one that it is made of, that this run's encoder
    cannot be made into, or that is made in notebook 04: before anything is trained."""
    for name in steps_to(wanted, ()):
        make.check(run, name)


def follow_all(run, items: pd.DataFrame, wanted: list[str], finished: dict[str, store.Model]) -> dict[str, store.Model]:
    """The models of these names and every float model that a quantised one is made of, those of `finished` left out."""
    made: dict[str, store.Model] = {}
    for name in steps_to(wanted, finished):
        made[name] = follow(run, items, name, finished | made)
    return made


def teacher(run, ood: Iterable[str]) -> make.Extras:
    """How notebook 02 makes the dense model. ood: the sets that make up its task's OOD score. Where a seed has a dense
    model alone no notebook asks what it knew of train on the way."""
    is_full = run.seed in run.seeds
    return make.Extras(checkpoints=tuple(run.checkpoints), predict_train=True, as_teacher=is_full,
                       checkpoint_splits=(*(["train"] if is_full else []), "test", *ood))


def shorter(run) -> list[str]:
    """The dense models that notebook 02 trains for a share of the steps, each on a full schedule, fewest steps first:
    the reference at a lower ID score. None for a seed that has a dense model alone."""
    return [f"dense-{share:g}x" for share in sorted(run.shorter)] if run.seed in run.seeds else []


def pruned(run, start: store.Model | None = None) -> dict[str, make.Extras]:
    """The models that notebook 04 makes besides its controls: each sparsity, then heads, then feed-forward width.

    The run of the highest sparsity is predicted along its way. start: the dense model, whose heads and width are cut.
    """
    highest = max(run.sparsity_levels)
    passed = tuple(level for level in run.run_levels if level <= highest)
    sparse = {names.percent("imp", level): make.Extras(run_levels=passed if level == highest else (),
                                                       checkpoint_splits=("train",), predict_train=True)
              for level in run.sparsity_levels}
    cut = make.Extras(start=start, epochs=run.recovery_epochs)
    return sparse | {names.percent(kind, share): cut for kind, shares in (
        ("heads", run.head_fractions), ("ffn", run.ffn_fractions)) for share in shares}


def mitigated(run) -> list[str]:
    """The models that notebook 07 makes: every base with every loss."""
    return [f"{base} + {loss}" for base in run.bases for loss in run.losses]
