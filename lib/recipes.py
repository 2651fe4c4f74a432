"""Make a model by its name alone: what it builds on is found among the finished models or made first."""

import pandas as pd

from lib import models, names, store
from lib.errors import StudyError


def make(run, items: pd.DataFrame, name: str, finished: dict[str, store.Model]) -> store.Model:
    """The model `name`, trained now unless it is finished.

    finished: models by name, `dense` among them: the teacher of every distilled model, the predecessor of every replaced
    one and the start of an `-after`. run: a checked run with `qat_epochs` where the name ends in qat8. Raises StudyError for a name that is no recipe, or
    whose structure notebook 04 alone makes.
    """
    found, dense = names.parse(name), finished["dense"]
    if name in finished:
        return finished[name]
    distils = found.loss in names.STUDENT_LOSSES
    loss = {"teacher": dense, "kd_weight": run.kd_weight} if distils else {}
    if found.loss in names.TRANSFERS:
        loss["transfer_weight"] = getattr(run, f"{found.loss}_weight")
    if found.quantization:
        parent = make(run, items, found.float_name, finished)
        trained = {"epochs": run.qat_epochs, **loss} if found.quantization == "qat8" else {}
        return models.make(run, items, name, models.Extras(start=parent, **trained))
    if found.family in ("heads", "ffn"):
        raise StudyError(f"{name!r} is made in notebook 04: add its share to pruning."
                         f"{'head' if found.family == 'heads' else 'ffn'}_fractions")
    if found.family == "theseus" or found.variant == "after":
        return models.make(run, items, name, models.Extras(start=dense, **loss))
    if found.variant == "2x":
        return models.make(run, items, name, models.Extras(epochs=2 * run.epochs, **loss))
    return models.make(run, items, name, models.Extras(predict_train=not distils, **loss))


def make_all(run, items: pd.DataFrame, wanted: list[str], finished: dict[str, store.Model]) -> dict[str, store.Model]:
    """The models of these names and every float model that a quantised one is made of, those of `finished` left out."""
    made: dict[str, store.Model] = {}
    for name in wanted:
        for step in dict.fromkeys((names.parse(name).float_name, name)):
            if step not in finished:
                made[step] = make(run, items, step, finished | made)
    return made
