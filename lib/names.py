"""The names of models, which are their recipes: STRUCTURE [+ LOSS] [+ QUANTISATION].

`truncated-3 + distil + ptq8` is the first three layers, distilled, then quantised after training. A structure that is
none of the families below is an encoder of its own: a hub id or a folder. A structure of a family may end in a variant:
`imp-70-after` starts from the finished dense model and takes as many steps again, `imp-70-2x` takes twice the steps,
`dense-0.25x` a quarter, on a full schedule; `dense-qat` goes on from the dense model for the steps of a qat8,
unrounded. RMC has settings: `rmc_one_run` (difficulty along one pruning run), `rmc-30` (alpha 0.30 whatever the profile
says).
"""

import difflib
import re
from typing import NamedTuple

from lib.errors import StudyError, nearest

FAMILIES = ("dense", "untrained", "truncated", "scratch", "theseus", "imp", "heads", "ffn")
TRANSFERS = ("pkd", "tinybert")  # copy hidden states too
STUDENT_LOSSES = ("distil", *TRANSFERS)
MITIGATIONS = ("smooth", "focal", "jtt", "rmc", "smooth_matched", "smooth_entropy", "rmc_shuffled",
               "confidence_regularisation")
LOSSES = (*STUDENT_LOSSES, *MITIGATIONS)
QUANTIZATIONS = ("ptq8", "qat8", "ptq4")  # after training, while training on, weights alone to 4 bits
VARIANTS = ("after", "2x", "qat")
SHORTER = re.compile(r"0\.\d*[1-9]x")  # variants of the dense model: the share of its steps
OTHER_DENSE = "dense, other seed"  # the null of churn-like measures: a dense model that shares nothing but the task
_FORM = re.compile(r"(dense|untrained|truncated-\d+(?:-alternate)?|scratch-\d+|theseus-\d+(?:-constant)?|"
                   r"(?:imp|heads|ffn)-\d+(?:\.\d+)?)(?:-(after|2x|qat|0\.\d*[1-9]x))?")
_PLACE = re.compile(r"[\w-][\w./-]*|[~./].*")  # a hub id, or a folder
_RMC = re.compile(r"(rmc)(?:_(one_run)|-(\d{1,2}|100))")


class Name(NamedTuple):
    """A model's recipe; `loss` is "vanilla" and the others "" where the name says none."""

    structure: str
    loss: str
    quantization: str
    variant: str = ""  # of the structure: one of VARIANTS, or SHORTER
    setting: str = ""  # of RMC: "one_run", or its alpha in percent

    @property
    def family(self) -> str:
        """`imp` of imp-70; the structure itself where it is an encoder of its own."""
        stem = self.structure.split("-")[0]
        return stem if stem in FAMILIES else self.structure

    @property
    def is_shorter(self) -> bool:
        """Whether it is the dense model trained for a share of its steps: the reference at a lower ID score."""
        return bool(SHORTER.fullmatch(self.variant))

    @property
    def is_built_on(self) -> bool:
        """Whether later models may start from its weights, or notebook 08 asks it; else they need not be kept."""
        return not (self.is_shorter or self.family == "untrained" or self.loss in MITIGATIONS)

    @property
    def float_name(self) -> str:
        """The name of the model before it was quantised."""
        return self.base if self.loss == "vanilla" else f"{self.base} + {self.loss_name}"

    @property
    def base(self) -> str:
        """The structure with its variant: the name of the model fine-tuned without a loss of its own."""
        return f"{self.structure}-{self.variant}" if self.variant else self.structure

    @property
    def loss_name(self) -> str:
        """The loss with its setting."""
        return self.loss + (self.setting and f"{'_' if self.setting == 'one_run' else '-'}{self.setting}")


def percent(family: str, fraction: float) -> str:
    """`imp-70` from ("imp", 0.7)."""
    return f"{family}-{fraction * 100:g}"


def parse(name: str) -> Name:
    """A name taken apart. Raises StudyError, with the nearest valid word, for one that is no recipe."""
    structure, *steps = name.split(" + ")
    stem = structure.split("-")[0]
    alike = difflib.get_close_matches(stem, FAMILIES, 1, 0.8)
    form = _FORM.fullmatch(structure)
    if not form and (not _PLACE.fullmatch(structure) or stem in FAMILIES or alike):
        raise StudyError(f"'{name}' is not a model name such as truncated-3, imp-70, theseus-3 or a hub id"
                         f"{nearest(stem, FAMILIES)}")
    structure, variant = (form[1], form[2] or "") if form else (structure, "")
    if structure != "dense" and (variant == "qat" or SHORTER.fullmatch(variant)):
        raise StudyError(f"'{name}': -{variant} is a variant of dense alone; take dense-{variant}")
    _check_number(name, structure)
    setting = ""
    for place, step in enumerate(steps):
        if rmc := _RMC.fullmatch(step):
            steps[place], setting = "rmc", rmc[2] or rmc[3]
        elif step not in (*LOSSES, *QUANTIZATIONS):
            raise StudyError(f"'{name}': '{step}' is no loss and no quantisation of this study"
                             f"{nearest(step, (*LOSSES, 'rmc_one_run', *QUANTIZATIONS))}")
    losses, kinds = ([step for step in steps if step in known] for known in (LOSSES, QUANTIZATIONS))
    if len(losses) > 1 or len(kinds) > 1 or steps != losses + kinds:
        raise StudyError(f"'{name}' must read STRUCTURE [+ LOSS] [+ QUANTISATION], such as truncated-3 + distil + ptq8")
    return Name(structure, losses[0] if losses else "vanilla", kinds[0] if kinds else "", variant, setting)


def _check_number(name: str, structure: str) -> None:
    """Raise StudyError for a structure of a family whose number says no layer, or all the weights."""
    family, _, number = structure.partition("-")
    if family in ("truncated", "scratch", "theseus") and int(number.split("-")[0]) < 1:
        raise StudyError(f"'{name}': {structure} has no layer; give 1 or more, such as {family}-3")
    if family in ("imp", "heads", "ffn") and float(number) >= 100:
        raise StudyError(f"'{name}': {structure} leaves nothing; the number is the percentage taken away and must be "
                         "below 100")
