"""What a notebook shows: versions, the echo of a run, sentences whose numbers are read from results."""

import platform
from importlib.metadata import version

import pandas as pd
from IPython.display import Markdown, display

from lib.analysis.tables import with_interval
from lib.files import ROOT
from lib.offline import OFFLINE
from lib.params.profile import load_profile
from lib.params.sections import RUNS

PACKAGES = ("torch", "transformers", "torchao", "datasets", "pandas", "scikit-learn", "seaborn")


def versions() -> pd.DataFrame:
    """The versions a result was made with, one row a package."""
    rows = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return pd.DataFrame({"version": rows})


def is_smoke(run) -> bool:
    return run.profile == "smoke"


def echo(run) -> pd.DataFrame | None:
    """What this run was given otherwise than its profile says: parameter (the index) | here | profile; a sentence where
    that is nothing, and all parameters where params has no such profile. A smoke run says that it is no result."""
    if is_smoke(run):
        say("> **smoke: not a result.** A few hundred rows, three layers, a few steps: this run only shows that the "
            "chain works. For a true result take `-f params/mini.yaml` or read `outputs/reference/mini`.")
    here = {name: str(value) for name, value in run.model_dump().items()}
    path = ROOT / "params" / f"{run.profile}.yaml"
    if run.section not in RUNS or not path.is_file():
        return pd.DataFrame({"value": here})
    asked = {name: str(value) for name, value in load_profile(path).flat(run.section, run.task, run.seed).items()}
    other = {name: {"here": value, "profile": asked[name]} for name, value in here.items() if value != asked[name]}
    if other:
        return pd.DataFrame.from_dict(other, orient="index")
    say(f"Parameters: as in `params/{run.profile}.yaml`, sections `common` and `{run.section}`.")
    return None


def caveats(run, task) -> None:
    """Say what the task's data and the encoder are not."""
    notes = [task.caveats]
    if run.encoder in OFFLINE:
        notes.append(OFFLINE[run.encoder].caveat)
    say("> **Caveats.** " + " ".join(note for note in notes if note))


def say(markdown: str) -> None:
    """Show a sentence built from results."""
    display(Markdown(markdown))


def wide(table: pd.DataFrame, index: str | list[str], columns: str, digits: int = 1,
         scale: float = 100) -> pd.DataFrame:
    """A long table with value, low, high as a wide one of texts, rows and columns in order of appearance."""
    text = [with_interval(v, lo, hi, digits, scale) for v, lo, hi in zip(table["value"], table["low"], table["high"])]
    return _pivoted(table, text, [index] if isinstance(index, str) else list(index), columns).fillna("")


def relative(table: pd.DataFrame) -> pd.DataFrame:
    """`tables.relative` for reading: differences in points, F_bias and skill kept as ratios, or why undefined."""
    text = []
    for row in table.itertuples():
        how = {} if row.measure.endswith("_difference") else {"digits": 2, "scale": 1}
        text.append(row.flag or with_interval(row.value, row.low, row.high, **how))
    return _pivoted(table, text, "model", "measure").rename_axis(index=None)


def _pivoted(table: pd.DataFrame, text: list[str], index: str | list[str], columns: str) -> pd.DataFrame:
    table = table.assign(text=text)
    return table.pivot_table("text", index, columns, aggfunc="first", sort=False).rename_axis(columns=None)
