"""A compressed model beside its parent, from the predictions of both alone: what they score, what changed, and a word.

Everything is about these two models on these rows; intervals are over rows, paired (`lib.analysis.bootstrap`). The
words are none of the ledger's (`lib.claims.rule`), whose unit is a training run.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib.analysis import bootstrap, loyalty, measures, withholding
from lib.analysis.tables import with_interval
from lib.tasks.task import Task, set_name

MARGIN = 0.02  # the smallest difference of note, as a share
MOST = 1000  # times as many rows: beyond that more of them are no advice
FORGOT, KEPT, UNDECIDED, WITHHELD = "forgot more", "forgot no more", "undecided", "withheld"
LOST, HELD = "lost", "kept"  # where no OOD set is given
NUMBERS = ["measure", "on", "of", "value", "low", "high", "n"]


@dataclass(frozen=True)
class Verdict:
    """word: one of the six above; sentence: the same in full. reasons: why it is withheld, the first first, else empty.
    doubts: what makes the numbers mean less than they seem. numbers: measure | on | of | value | low | high | n, shares
    and nats. parts: split | part | parent | model | value | low | high | n, differences of the kinds of rows."""

    word: str
    sentence: str
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]
    numbers: pd.DataFrame
    parts: pd.DataFrame

    def at(self, measure: str, on: str = "all", of: str = "model") -> pd.Series:
        """value, low, high, n of a number; NaN where it was not measured."""
        return at(self.numbers, measure, on, of)


def at(numbers: pd.DataFrame, measure: str, on: str, of: str) -> pd.Series:
    found = numbers[(numbers["measure"] == measure) & (numbers["on"] == on) & (numbers["of"] == of)]
    return found.iloc[0] if len(found) else pd.Series({"value": np.nan, "low": np.nan, "high": np.nan, "n": 0})


def of_pair(model: pd.DataFrame, parent: pd.DataFrame, items: pd.DataFrame, task: Task, *,
            null: pd.DataFrame | None = None, scored: bool = True, named: bool = True, n_boot: int = 1000,
            seed: int = 0) -> Verdict:
    """The verdict on a model. model, parent, null: predictions tables on the same rows, null of the parent trained once
    more. items: the task's rows, train's too where they are known. scored: whether both come with scores (else their
    answers alone are compared); named: whether a class means the same in every row.

    Raises StudyError unless the tables hold the same rows, all of them the task's.
    """
    rows = {name: measures.rows(table, items, task) for name, table in (("model", model), ("parent", parent))}
    numbers = _numbers(rows["model"], rows["parent"], task, n_boot, seed)
    numbers += _changes(model, parent, rows["model"], rows["parent"], items, task, scored, n_boot, seed)
    if null is not None:
        again = measures.rows(null, items, task)
        numbers += [row | {"of": NULLS[row["of"]]} for row in _numbers(again, rows["parent"], task, n_boot, seed)
                    if row["of"] in NULLS and row["measure"] == "score"]
        numbers += [row | {"of": "null"} for row in
                    _changes(null, parent, again, rows["parent"], items, task, scored, n_boot, seed)]
    table = pd.DataFrame(numbers)[NUMBERS]
    reasons = withholding.reasons(rows, items, task, table, named)
    doubts = withholding.doubts(rows, items, task, named)
    word, sentence = _decided(table, bool(_sets(rows["parent"], task)))
    if reasons:
        word, sentence = WITHHELD, "withheld: " + reasons[0]
    return Verdict(word, sentence, tuple(reasons), tuple(doubts), table,
                   _parts(rows["model"], rows["parent"], task, n_boot, seed))


NULLS = {"model": "null", "difference": "null difference"}


def _sets(rows: pd.DataFrame, task: Task) -> list[str]:
    """The OOD sets among the rows that make up the OOD score."""
    return [name for name in task.scored if (rows["split"] == name).any()]


def _numbers(model: pd.DataFrame, parent: pd.DataFrame, task: Task, n_boot: int, seed: int) -> list[dict]:
    """Scores of both and their difference: ID, OOD, the gap between the two, and each OOD set; skill kept."""
    ood = _sets(parent, task)
    model_rows, parent_rows = (rows[rows["split"].isin(["test", *ood])] for rows in (model, parent))
    both, code = bootstrap.paired(model_rows, parent_rows)
    (id_m, ood_m), (id_p, ood_p) = measures.id_and_ood(both, code, task, ood, n_boot, seed)
    n = parent_rows.groupby(parent_rows["split"] == "test")["guid"].nunique()
    told = [("id", id_m, id_p, n[True])]
    if ood:
        told += [("ood", ood_m, ood_p, n[False]),
                 ("gap", measures.gap(id_m, ood_m), measures.gap(id_p, ood_p), len(parent_rows))]
    others = [name for name in task.ood if (parent["split"] == name).any() and [name] != ood]
    for name in others:
        pair, of = bootstrap.paired(*(rows[rows["split"] == name] for rows in (model, parent)))
        drawn = bootstrap.scores(pair, of, [measures.kind_of(task, name)] * 2, n_boot, seed)
        told.append((name, drawn[:, 0], drawn[:, 1], len(pair) // 2))
    table = [{"measure": "score", "on": on, "of": of, **bootstrap.estimate(values, count)}
             for on, m, p, count in told for of, values in (("parent", p), ("model", m), ("difference", m - p))]
    if ood:
        chance = float(measures.ood_score({name: task.chance(name) for name in ood}))
        kept = bootstrap.share(ood_m - chance, ood_p - chance, n[False])
        table.append({"measure": "skill_kept", "on": "ood", "of": "model", **kept})
    return table


def _changes(predictions: pd.DataFrame, parent_predictions: pd.DataFrame, model: pd.DataFrame, parent: pd.DataFrame,
             items: pd.DataFrame, task: Task, scored: bool, n_boot: int, seed: int) -> list[dict]:
    """Shares of answers changed, for the worse and for the better, and loyalty: of ID, OOD, each OOD set, and all rows
    of the two scores."""
    flipped = measures.flipped(parent, model)
    frames = {"changed": (flipped, "accuracy"), "worse": (flipped.assign(correct=flipped["lost"]), "accuracy"),
              "better": (flipped.assign(correct=flipped["gained"]), "accuracy")}
    followed = measures.rows(loyalty.rows(predictions, parent_predictions), items, task)
    followed = followed.drop(columns=list(loyalty.COLUMNS.values())).rename(columns=loyalty.COLUMNS)
    frames |= {name: (followed, kind) for name, kind in loyalty.SCORES.items() if scored or name == "label_loyalty"}
    ood = _sets(parent, task)
    sets = {"all": ["test", *ood], "id": ["test"]} | ({"ood": ood} if ood else {})
    sets |= {name: [name] for name in task.ood if (parent["split"] == name).any() and [name] != ood}
    entries = [({"measure": name, "on": on, "of": "model"}, frame[frame["split"].isin(splits)], kind)
               for name, (frame, kind) in frames.items() for on, splits in sets.items()]
    return bootstrap.intervals(entries, n_boot, seed).to_dict("records")


def _parts(model: pd.DataFrame, parent: pd.DataFrame, task: Task, n_boot: int, seed: int) -> pd.DataFrame:
    """Each kind of OOD row, by subcase or, where there is none, by label; of ID rows where no OOD set is given."""
    shown = [name for name in task.ood if name not in task.panel and (parent["split"] == name).any()] or ["test"]
    table = []
    for split in shown:
        here = parent[parent["split"] == split]
        names = here["subcase"].where(here["subcase"] != "", [task.classes(split)[label] for label in here["label"]])
        for part, guids in here["guid"].groupby(names, sort=False):
            pair, of = bootstrap.paired(*(rows[rows["guid"].isin(guids)] for rows in (model, parent)))
            kind = "balanced" if split in task.ood else "accuracy"
            drawn = bootstrap.scores(pair, of, [kind] * 2, n_boot, seed)
            table.append({"split": set_name(split), "part": part, "parent": drawn[0, 1],
                          "model": drawn[0, 0], **bootstrap.estimate(drawn[:, 0] - drawn[:, 1], len(guids))})
    return pd.DataFrame(table)


def _decided(numbers: pd.DataFrame, has_ood: bool) -> tuple[str, str]:
    """The word and its sentence, from the interval of the gap's growth, or of the ID loss where there is no OOD set."""
    margin = f"{100 * MARGIN:g} points"
    if not has_ood:
        drop = -_interval(numbers, "id")[[0, 2, 1]]
        told = f"it scores {_points(-drop[[0, 2, 1]])} in distribution; no OOD set was given"
        if drop[1] > 0 and drop[0] >= MARGIN:
            return LOST, f"lost ID skill: {told}"
        if drop[2] < MARGIN:
            return HELD, f"kept its ID score, to within {margin}: {told}"
        return UNDECIDED, f"undecided, {_more(numbers, drop, 'id')}: {told}"
    grown = _interval(numbers, "gap")
    told = f"the gap between ID and OOD grew by {_points(grown)}"
    lost = -_interval(numbers, "id")[[0, 2, 1]]
    if lost[1] > 0 and lost[0] >= MARGIN:
        told += f"; in distribution it lost {_points(lost)}, which the ID score does show"
    if grown[1] > 0 and grown[0] >= MARGIN:
        return FORGOT, f"forgot more than its ID score shows: {told}"
    if grown[2] < MARGIN:
        return KEPT, f"did not forget more than its ID score shows, to within {margin}: {told}"
    return UNDECIDED, ("undecided whether it forgot more than its ID score shows, "
                       f"{_more(numbers, grown, 'ood')}: {told}")


def _interval(numbers: pd.DataFrame, on: str) -> np.ndarray:
    """value, low, high of a difference. Where no row differs, 3 / n to either side, n the rows of the smaller set: what
    as many rows without a change leave possible (Hanley and Lippman-Hand 1983)."""
    found = at(numbers, "score", on, "difference")
    value, low, high = found[["value", "low", "high"]].to_numpy(float)
    sets = numbers[(numbers["measure"] == "score") & numbers["on"].isin(["id", "ood"] if on == "gap" else [on])]
    room = 3 / sets["n"].min() if low == high else 0
    return np.array([value, low - room, high + room])


def _more(numbers: pd.DataFrame, interval: np.ndarray, on: str) -> str:
    """About how many more rows of a set would bring the interval clear of 0, or of the margin, if its middle stayed."""
    value, low, high = interval
    wanted = value if value >= MARGIN else MARGIN - value
    half = value - low if value >= MARGIN else high - value
    own, ends = at(numbers, "score", on, "difference"), _interval(numbers, on)
    mine = (ends[2] - ends[1]) / 2
    rest = max(half**2 - mine**2, 0.0) if on == "ood" else 0.0
    if wanted**2 <= rest or mine**2 > MOST * (wanted**2 - rest):
        return "more rows of both kinds would tell" if on == "ood" else "many more rows would tell"
    more = own["n"] * (mine**2 / (wanted**2 - rest) - 1)
    return f"about {float(f'{max(more, 1):.1g}'):,.0f} more {on.upper()} rows would tell"


def _points(interval: np.ndarray) -> str:
    return f"{with_interval(*interval)} points"
