"""What a task is: its labels, its splits, its OOD sets and where their rows come from."""

from dataclasses import dataclass, field
from typing import Literal

from lib.tasks.sources import Table

Shortcut = Literal["overlap", "b_only", "a_only"]


@dataclass(frozen=True)
class Ood:
    """An OOD set: its labels, how a task class becomes one of them after the argmax, its main score, its role.

    role: "scored" sets make up the task's OOD score, and the papers' claims are about them; those of the "panel" stand
    beside, each by itself; "unseen" subcases show what the shortcut does, not what compression does.
    """

    labels: tuple[str, ...]
    collapse: tuple[int, ...] | None = None
    score: Literal["accuracy", "balanced"] = "accuracy"
    role: Literal["scored", "panel", "unseen"] = "scored"


@dataclass(frozen=True)
class Task:
    """What a task is; `text_a` and `text_b` are the field's words for the two texts, `caveats` what its data are not.

    A task of single texts has no word for the second, "", and its rows hold "" there. `shortcut`: what the
    shortcut-only model sees, the words that the two texts share, text_b alone, or text_a alone.
    `tables` names the file of each split (none for the micro-world, which is made, not read);
    train rows whose group occurs in a split of `train_without` are dropped.
    """

    name: str
    labels: tuple[str, ...]
    text_a: str
    text_b: str
    ood: dict[str, Ood]
    shortcut: Shortcut
    licence: str
    source: str
    caveats: str
    tables: dict[str, Table] = field(default_factory=dict, repr=False)
    train_without: tuple[str, ...] = ()

    @property
    def scored(self) -> list[str]:
        """The OOD sets that make up the task's OOD score."""
        return [name for name, of in self.ood.items() if of.role == "scored"]

    @property
    def panel(self) -> list[str]:
        """The OOD sets that stand beside the OOD score and never enter it."""
        return [name for name, of in self.ood.items() if of.role == "panel"]

    def classes(self, split: str) -> tuple[str, ...]:
        """Label names of a split, by class id."""
        return self.ood[split].labels if split in self.ood else self.labels

    def chance(self, split: str) -> float:
        """Accuracy of a uniform guess on a split, after the collapse."""
        return 1 / len(self.classes(split))


def set_name(split: str) -> str:
    """What a person who hands in a model calls a split: the ID rows, split `test`, are the set `id`."""
    return "id" if split == "test" else split
