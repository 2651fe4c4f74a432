"""The papers' printed numbers, and what they say to a claim by its own measure."""

import numpy as np
import pandas as pd

from lib.analysis import measures
from lib.claims.contrasts import pairs
from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.tasks import registry

FOLDER = ROOT / "params" / "published"
COUNTERPART = {"micro_nli": "mnli", "micro_facts": "fever", "micro_paraphrase": "qqp"}
PRINTED = ("score", "gap", "f_bias", "easy_hard", "agreement")


def rows_of(table: str) -> pd.DataFrame:
    """The rows of params/published/<table>.csv: model, paper_name, task, split, measure, value, status, note."""
    path = FOLDER / f"{table}.csv"
    if not path.exists():
        known = sorted(p.stem for p in path.parent.glob("*.csv"))
        raise StudyError(f"no published table is called {table!r}{nearest(table, known)}")
    return pd.read_csv(path, keep_default_na=False)


def number_of(claim, task: str) -> tuple[float, str, str] | None:
    """The paper's own number for a claim: the claim's measure and rule on the printed figures.

    Returns (value, models, baselines): the mean over the contrasts in the paper's tables, or None where they hold none.
    A micro-world task gets the number of the task it stands for. F_bias is taken as printed; scores and gaps are
    differences of printed accuracies, F_OOD weighted as in params/published/README.md.
    """
    if not claim.published:
        return None
    task = COUNTERPART.get(task, task)
    rows = pd.concat([rows_of(table) for table in claim.published])
    rows = rows[rows["task"] == task]
    if claim.measure == "agreement":
        values = rows.set_index("measure")["value"]
        return float(values["agreement"] - values["majority"]), "variance", "larger class"
    cells = rows.pivot_table(index="model", columns=["measure", "split"], values="value", aggfunc="mean")
    values = _printed_values(claim, task, cells).dropna()
    contrasts = [(float(values[model] - values[baseline]), model, baseline)
                 for model, baseline in pairs(claim.models, claim.baselines, list(values.index))]
    if not contrasts:
        return None
    values, models, baselines = zip(*contrasts)
    return float(np.mean(values)), ", ".join(dict.fromkeys(models)), ", ".join(dict.fromkeys(baselines))


def _printed_values(claim, task: str, cells: pd.DataFrame) -> pd.Series:
    if claim.measure == "easy_hard":
        return cells["easy_hard_gap", "test"]
    if claim.measure == "f_bias":
        return cells["f_bias", ""].where(cells.index != "dense", 1.0)
    accuracies = {split: cells["accuracy", split] for split in registry.get(task).scored}
    ood = pd.Series(measures.ood_score(accuracies), cells.index)
    if claim.measure == "gap":
        return cells["accuracy", "test"] - ood
    return ood if claim.split == "ood" else cells["accuracy", "test"]

