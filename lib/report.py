"""What a notebook shows: versions, the echo of a run, sentences whose numbers are read from results."""

import platform
from importlib.metadata import version

import pandas as pd
from IPython.display import Markdown, display

PACKAGES = ("torch", "transformers", "datasets", "pandas", "scikit-learn", "seaborn")


def versions() -> pd.DataFrame:
    """The versions a result was made with, one row a package."""
    rows = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return pd.DataFrame({"version": rows})


def is_smoke(run) -> bool:
    return run.profile == "smoke"


def echo(run) -> pd.DataFrame:
    """The parameters in force, one row each; a smoke run says first that it is no result."""
    if is_smoke(run):
        say("> **smoke: not a result.** A few hundred rows, two layers, a few steps: this run only shows that the "
            "chain works. For a true result take `-f params/mini.yaml` or read `outputs/reference/mini`.")
    values = {name: str(value) for name, value in run.model_dump().items()}
    return pd.DataFrame({"value": values})


def caveats(run, task) -> None:
    """Say what the task's data and the encoder are not."""
    notes = [task.caveats]
    if run.encoder == "offline":
        notes.append("The offline encoder (all-MiniLM-L6-v2) is itself distilled, and its second training stage saw NLI "
                     "pairs and Quora duplicates: NLI and QQP are not new to it.")
    say("> **Caveats.** " + " ".join(note for note in notes if note))


def say(markdown: str) -> None:
    """Show a sentence built from results."""
    display(Markdown(markdown))


def interval(value: float, low: float, high: float, digits: int = 1, scale: float = 100) -> str:
    """`84.2 [83.1, 85.3]`, in percent unless `scale` says otherwise; `undefined` for a missing value."""
    if pd.isna(value):
        return "undefined"
    text = f"{scale * value:.{digits}f}"
    return text if pd.isna(low) else f"{text} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def wide(table: pd.DataFrame, index: str | list[str], columns: str, digits: int = 1, scale: float = 100) -> pd.DataFrame:
    """A long table with value, low, high as a wide one of texts, rows and columns in order of appearance."""
    text = [interval(v, lo, hi, digits, scale) for v, lo, hi in zip(table["value"], table["low"], table["high"])]
    keys = [index] if isinstance(index, str) else list(index)
    result = table.assign(text=text).pivot_table(index=keys, columns=columns, values="text", aggfunc="first", sort=False)
    return result.fillna("").rename_axis(columns=None)


def relative(table: pd.DataFrame) -> pd.DataFrame:
    """`tables.relative` for reading: differences in points, F_bias and skill kept as ratios, or why they are undefined."""
    points = table["measure"].str.endswith("_difference")
    text = [row.flag or (interval(row.value, row.low, row.high) if in_points else
                         interval(row.value, row.low, row.high, digits=2, scale=1))
            for row, in_points in zip(table.itertuples(), points)]
    columns = table.assign(text=text).pivot_table(index="model", columns="measure", values="text", aggfunc="first", sort=False)
    return columns.rename_axis(index=None, columns=None)


def losses(table: pd.DataFrame) -> str:
    """What `tables.relative` says in a sentence a model: points lost ID and OOD."""
    lines = []
    for model, part in table.groupby("model", sort=False):
        by = part.set_index("measure")
        say_id, say_ood = (interval(*by.loc[f"{name}_difference", ["value", "low", "high"]]) for name in ("id", "ood"))
        lines.append(f"- **{model}**: {say_id} points ID, {say_ood} points OOD against dense")
    return "\n".join(lines)
