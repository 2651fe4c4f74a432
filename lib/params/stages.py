"""The stages of the study, in one table: which notebook reads what others wrote, and when it is done."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

MODELS = "models.json"  # lists the models that a stage made


class Stage(NamedTuple):
    """A notebook.

    section: of a profile, and its rule in the Snakefile. done: the last file in its folder, by which others tell that
    it has run. reads: sections of the stages whose files it reads; every_dense: of `teacher` those of every seed.
    runs: for which tasks and seeds of the grid ("dense": `dense_seeds` too), or once a profile. floors: it fits models
    without an encoder.
    """

    section: str
    notebook: str
    done: str
    reads: tuple[str, ...] = ()
    runs: Literal["dense", "seeds", "doses", "mends", "profile"] = "seeds"
    every_dense: bool = False
    floors: bool = False

    def seeds_read(self, section: str, own: Any, dense: list) -> list:
        """Of which seeds it reads a stage: its own, or all that have a dense model."""
        return dense if self.every_dense and section == "teacher" else [own]


_TO_PRUNING = ("data", "teacher", "distillation", "pruning")
CHAIN = {stage.section: stage for stage in (
    Stage("data", "01_data", "data.parquet", runs="dense"),
    Stage("teacher", "02_teacher", MODELS, ("data",), runs="dense", floors=True),
    Stage("distillation", "03_distillation", MODELS, ("data", "teacher")),
    Stage("pruning", "04_pruning", MODELS, ("data", "teacher")),
    Stage("quantization", "05_quantization_and_replacing", MODELS, _TO_PRUNING),
    Stage("shortcut_samples", "06_shortcut_samples", "difficulty.parquet", ("data", "teacher", "pruning"),
          every_dense=True, floors=True),
    Stage("doses", "06b_dose_and_response", "responses.csv", ("data",), runs="doses"),
    Stage("mitigation", "07_mitigation", MODELS, (*_TO_PRUNING, "shortcut_samples"), floors=True),
    Stage("mends", "07b_what_mends_it", "mends.csv", (*_TO_PRUNING, "mitigation"), runs="mends"),
    Stage("loyalty", "08_loyalty_and_attacks", "attacks.parquet", (*_TO_PRUNING, "quantization", "mitigation"),
          every_dense=True),
    Stage("claims", "09_claims", "ledger.csv", ("teacher", "distillation", "pruning", "quantization",
          "shortcut_samples", "doses", "mitigation", "mends", "loyalty"), runs="profile"),
)}
HANDED_ON = tuple(section for section, stage in CHAIN.items() if stage.done == MODELS)  # whose models 08 and 09 read
STAGES = {section: stage.notebook for section, stage in CHAIN.items()}
MODEL_STAGES = tuple(STAGES[section] for section in HANDED_ON)
OWN_STAGES = {"your_model": "10_your_model", "your_task": "11_your_task"}  # of a reader's own, outside the chain
