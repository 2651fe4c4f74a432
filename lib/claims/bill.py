"""What a study cost: the bill of the finished models of a profile, from their records and cost tables (notebook 09)."""

import pandas as pd

from lib import store
from lib.claims import evidence, runs
from lib.params.stages import MODEL_STAGES

COLUMNS = ["models", "steps", "rows", "minutes", "rows_per_s", "tflop", "memory_gb", "disk_gb"]
TOTAL = "in all"


def by_stage(gathered: evidence.GatheredRuns) -> pd.DataFrame:
    """One row a stage, in order, and one in all; index stage, columns COLUMNS.

    rows: trained on, every epoch's counted. minutes: of training and of the predictions at the end, and for models
    whose cost table has `wall_seconds` all that their making took. rows_per_s: of training alone. tflop: three forward
    passes for a row trained on and one for a row predicted, of the mean length of train and of test. memory_gb: the
    highest peak of a process or an accelerator. disk_gb: of the weights. A model that two stages list is the first
    one's. The models of notebooks 06b and 07b are not counted.
    """
    lines = pd.DataFrame([{"stage": stage} | _line(model) for stage, model in _listed(gathered)])
    if lines.empty:
        return pd.DataFrame(columns=COLUMNS).rename_axis("stage")
    sums = {stage: _sum(part) for stage, part in lines.groupby("stage")}
    return pd.DataFrame(sums | {TOTAL: _sum(lines)}, index=COLUMNS).T.rename_axis("stage")


def sentence(bill: pd.DataFrame) -> str:
    """The last row of `by_stage` in words."""
    total = bill.loc[TOTAL]
    minutes = total["minutes"]
    took = f"{minutes / 60:.1f} hours" if minutes >= 100 else f"{minutes:.0f} minutes"
    return (f"This study made **{total['models']:.0f} models** in **{took}** of training and prediction: "
            f"{total['steps']:,.0f} steps, {total['rows']:,.0f} rows trained on at {total['rows_per_s']:,.0f} a "
            f"second, {total['tflop'] / 1000:,.2f} PFLOP, at most {total['memory_gb']:.1f} GB of memory, "
            f"{total['disk_gb']:.1f} GB of weights.")


def _listed(gathered: evidence.GatheredRuns) -> list[tuple[str, store.Model | runs.ReferenceModel]]:
    """Every model once, with the first stage that lists it."""
    listed, seen = [], set()
    for (task, seed), run in gathered.runs.items():
        for stage in (stage for stage in MODEL_STAGES if (run.folder / stage / "models.json").exists()):
            for name, model in run.models([stage]).items():
                if (task, seed, name) not in seen:
                    seen.add((task, seed, name))
                    listed.append((stage, model))
    return listed


def _line(model: store.Model | runs.ReferenceModel) -> dict:
    record, cost = model.record, model.cost
    rows = record["steps"] * record["batch_size"]
    training = cost.get("seconds", 0.0)
    flops = cost.get("flops", (3 * rows + cost["predicted_rows"]) * record["flops_per_example"])
    seconds = cost.get("wall_seconds", training + cost["predict_seconds"])
    return {"steps": record["steps"], "rows": rows, "training": training, "flops": flops, "bytes": record["bytes"],
            "seconds": seconds, "memory": cost.get("peak_memory_bytes")}


def _sum(lines: pd.DataFrame) -> dict[str, float]:
    total = lines[["steps", "rows", "training", "flops", "bytes", "seconds"]].sum()
    speed = total["rows"] / total["training"] if total["training"] else float("nan")
    memory = pd.to_numeric(lines["memory"]).max()
    numbers = (len(lines), total["steps"], total["rows"], total["seconds"] / 60, speed, total["flops"] / 1e12,
               memory / 1e9, total["bytes"] / 1e9)
    return dict(zip(COLUMNS, numbers, strict=True))
