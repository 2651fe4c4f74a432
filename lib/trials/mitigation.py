"""What each mitigation of notebook 07 hands to the training loop: strengths, weights and teachers."""

import numpy as np
import pandas as pd

from lib import names, store
from lib.analysis import difficulty, shortcuts
from lib.errors import StudyError, nearest
from lib.models import losses, make


def bases(earlier: dict[str, store.Model], wanted: list[str]) -> dict[str, store.Model]:
    """The compressed models to mend, by name. Raises StudyError for one that 03 and 04 have not made."""
    for name in wanted:
        if name not in earlier:
            raise StudyError(f"mitigation.bases names {name!r}, which notebooks 03 and 04 have not made"
                             f"{nearest(name, earlier)}; add it to distillation.students or pruning.sparsity_levels")
    return {name: earlier[name] for name in wanted}


def extras(loss: str, run, items: pd.DataFrame, dense: store.Model, base: store.Model,
           scores: pd.DataFrame) -> make.Extras:
    """The extras of `base + loss`; loss may carry RMC's setting (`rmc_one_run`, `rmc-10` of alpha 0.10).

    run: the mitigation run. scores: notebook 06's difficulty table, one row per train row, in the order of train.
    The teacher is the dense model; confidence regularisation distils the base model into a new one of its own kind.
    Raises StudyError where the table is of other rows.
    """
    train = items[items["split"] == "train"]
    if not np.array_equal(train["guid"].to_numpy(), scores["guid"].to_numpy()):
        raise StudyError("difficulty.parquet is not of these train rows: run notebooks/06_shortcut_samples.ipynb again")
    if loss == "focal":
        return make.Extras(gamma=run.gamma)
    if loss == "jtt":
        first = shortcuts.checkpoint_logits(dense, items, run.jtt_checkpoint)
        return make.Extras(weights=losses.jtt_weights(first, train["label"].to_numpy(), run.jtt_weight).numpy())
    if loss == "confidence_regularisation":
        strength = difficulty.biased_strength(scores["shortcut_confidence"].to_numpy())
        return make.Extras(teacher=base, strength=strength, kd_weight=1.0)
    strength = _strength(loss, run, train, dense.logits(items, "train"), scores)
    return make.Extras(teacher=dense, strength=strength, kd_weight=run.kd_weight)


def _strength(loss: str, run, train: pd.DataFrame, teacher_logits: np.ndarray,
              scores: pd.DataFrame) -> np.ndarray | float | None:
    if loss == "distil":
        return None
    if loss == "smooth":
        return run.smooth
    recipe = names.parse(f"dense + {loss}")
    score = "one_run" if recipe.setting == "one_run" else run.difficulty
    alpha = int(recipe.setting) / 100 if recipe.setting.isdigit() else run.alpha
    d = difficulty.strength(scores[f"v_{score}"].to_numpy(), alpha)
    if recipe.loss == "rmc":
        return d
    if loss == "smooth_matched":
        return float(difficulty.matched(d))
    if loss == "smooth_entropy":
        return float(difficulty.entropy_matched(teacher_logits, d))
    return difficulty.shuffled(d, train["label"].to_numpy(), run.seed)


def strengths(recipes: dict[str, make.Extras]) -> pd.DataFrame:
    """How soft each recipe makes the targets: mean, median, least and largest d, and the kind of input it uses."""
    table = {}
    for name, recipe in recipes.items():
        d = 1.0 if recipe.teacher is not None and recipe.strength is None else recipe.strength
        values = np.atleast_1d(np.nan if d is None else d).astype(float)
        uses = "soft targets" if recipe.teacher is not None else "row weights"
        table[name] = {"uses": uses, "mean d": values.mean(), "median d": np.median(values),
                       "min d": values.min(), "max d": values.max()}
    return pd.DataFrame(table).T.rename_axis("model")
