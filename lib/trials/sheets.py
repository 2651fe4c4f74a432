"""What is said of judged models, for people and for builds: lines to print, and the record of `verdict.json`."""

from collections.abc import Sequence
from importlib.metadata import version

import pandas as pd

from lib.analysis.tables import with_interval
from lib.analysis.verdict import Verdict
from lib.tasks.handed import Rows
from lib.tasks.task import set_name
from lib.trials.judging import Judgement, Side

SCHEMA = "1"
PACKAGES = ("numpy", "pandas", "scipy")
CHANGES = ("changed", "worse", "better")
LOYAL = ("label_loyalty", "probability_loyalty", "kl")


def lines(rows: Rows, parent: Side, judgement: Judgement) -> list[str]:
    """The ten lines on a model: what, verdict, ID, OOD, gap, skill kept, answers changed, loyalty, what chance changes,
    how the numbers came about."""
    v, side = judgement.verdict, judgement.side
    sizes = parent.table["split"].value_counts(sort=False)
    told = ", ".join(f"{n:,} {set_name(split)}" for split, n in sizes.items())
    skill, all_of, loyal, kl = (v.at(*at) for at in (("skill_kept", "ood"), ("changed",), ("probability_loyalty",),
                                                     ("kl",)))
    worse, better = (v.at(name) for name in ("worse", "better"))
    return [
        f"{side.name} beside {parent.name}, {rows.task.name}: {told} rows",
        f"verdict    {v.sentence}",
        *(f"{on:<10} {_three(v, on)}" for on in ("id", "ood", "gap")),
        f"skill kept {'not measured' if 'ood' not in set(v.numbers['on']) else _ratio(skill)}",
        f"changed    {_percent(all_of)} of answers ({round(all_of['value'] * all_of['n']):,} of {all_of['n']:,}): "
        f"{100 * worse['value']:.1f} % for the worse, {100 * better['value']:.1f} % for the better",
        f"loyalty    labels {_percent(v.at('label_loyalty'))}, probabilities "
        + (f"{_percent(loyal)}, KL {with_interval(kl['value'], kl['low'], kl['high'], 3, 1)} nats"
           if pd.notna(kl["value"]) else "not measured (no scores)"),
        f"by chance  {_by_chance(v, side)}",
        f"from       {side.name} {side.how}; {parent.name} {parent.how}",
    ]


def asides(rows: Rows, parent: Side, judgement: Judgement) -> list[str]:
    """Further reasons, doubts and notes, a line each."""
    v = judgement.verdict
    notes = [*rows.notes, *(f"{one.name}: {note}" for one in (parent, judgement.side) for note in one.notes)]
    return [*(f"also: {reason}" for reason in v.reasons[1:]), *v.doubts, *notes, *judgement.notes]


def record(rows: Rows, parent: Side, judgements: Sequence[Judgement], conditions: Sequence[dict], status: int) -> dict:
    """The content of verdict.json: shares from 0 to 1, KL in nats, null for what was not measured."""
    sizes = parent.table["split"].value_counts(sort=False)
    return {
        "schema": SCHEMA, "task": rows.task.name, "classes": list(rows.task.labels) if rows.named else None,
        "rows": {set_name(split): int(n) for split, n in sizes.items()},
        "row_notes": list(rows.notes), "parent": _side(parent),
        "models": [_model(one) for one in judgements], "conditions": list(conditions), "exit": status,
        "versions": {name: version(name) for name in PACKAGES},
    }


def differences(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Each model's score less its parent's: model | is_null | on (id, ood) | value | low | high; last, where there is
    one, the parent trained once more."""
    again = [("parent, trained once more", True, one.verdict, "null difference") for one in judgements[:1]]
    rows = [{"model": name, "is_null": is_null, "on": on} | v.at("score", on, of)[["value", "low", "high"]].to_dict()
            for name, is_null, v, of in [*((one.side.name, False, one.verdict, "difference") for one in judgements),
                                         *again] for on in ("id", "ood")]
    return pd.DataFrame(rows).dropna(subset="value").reset_index(drop=True)


def kinds(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """What each model scores on every kind of row: model | is_null | split | part | parent | value | low | high | n."""
    tables = [one.verdict.parts.drop(columns="model").assign(model=one.side.name, is_null=False) for one in judgements]
    return pd.concat(tables, ignore_index=True)


def _side(side: Side) -> dict:
    noise = None if side.noise is None else [
        {"condition": row.condition, "set": set_name(row.split), "changed": _number(row.changed),
         "n": int(row.n)} for row in side.noise.itertuples()]
    return {"name": side.name, "place": side.place, "how": side.how, "scored": side.scored, "notes": list(side.notes),
            "noise": noise}


def _model(judgement: Judgement) -> dict:
    v = judgement.verdict
    scores, changes, null = {}, {}, {}
    for row in v.numbers.to_dict("records"):
        told = {key: _number(row[key]) for key in ("value", "low", "high")} | {"n": int(row["n"])}
        if row["measure"] == "skill_kept":
            scores["skill_kept"] = told
        elif row["of"].startswith("null"):
            null.setdefault(row["measure"], {}).setdefault(row["on"], {})[row["of"].removeprefix("null ")] = told
        elif row["measure"] == "score":
            scores.setdefault(row["on"], {})[row["of"]] = told
        else:
            changes.setdefault(row["measure"], {})[row["on"]] = told
    null = {measure: sets if measure == "score" else {on: of["null"] for on, of in sets.items()}
            for measure, sets in null.items()}
    parts = [{key: (value if isinstance(value, str) else _number(value)) for key, value in row.items()} | {
        "n": int(row["n"])} for row in v.parts.to_dict("records")]
    return _side(judgement.side) | {
        "key": judgement.key, "verdict": v.word, "sentence": v.sentence, "reasons": list(v.reasons),
        "doubts": list(v.doubts), "pair_notes": list(judgement.notes), "scores": scores,
        **{name: changes.get(name) for name in (*CHANGES, *LOYAL)}, "null": null or None, "parts": parts}


def _number(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 6)


def _three(v: Verdict, on: str) -> str:
    """A score of the parent, of the model, and their difference."""
    parent, model, difference = (v.at("score", on, of) for of in ("parent", "model", "difference"))
    if pd.isna(parent["value"]):
        return "not measured: no OOD set was given"
    return (f"{100 * parent['value']:.1f} -> {100 * model['value']:.1f}, difference "
            f"{with_interval(*difference[['value', 'low', 'high']])} points")


def _ratio(found: pd.Series) -> str:
    if pd.isna(found["value"]):
        return "undefined: the parent's OOD score is not surely above chance"
    return with_interval(found["value"], found["low"], found["high"], 2, 1)


def _percent(found: pd.Series) -> str:
    return f"{with_interval(found['value'], found['low'], found['high'])} %"


def _by_chance(v: Verdict, side: Side) -> str:
    """What the parent trained once more changes, and what running this model otherwise does."""
    null = v.at("changed", "all", "null")
    said = [f"the parent trained once more changes {_percent(null)} of answers"] if pd.notna(null["value"]) else []
    if side.noise is not None and side.noise["changed"].notna().any():
        most = side.noise.loc[side.noise["changed"].idxmax()]
        said.append(f"run otherwise it changes at most {100 * most['changed']:.1f} % ({most['condition']})")
    return "; ".join(said) or "not known: no second training of the parent was given (--null)"
