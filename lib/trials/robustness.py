"""Every model of a run under attack: by its own attack, by those found on the others, and what batching brings."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import code, files, names, progress, store
from lib.models import batches, devices, make, pretrained
from lib.models.devices import matrix_peak
from lib.trials import attack, candidates

RELEASED = ["model", "guid", "label", "correct", "success", "queries", "words", "changed"]  # no text of a real set


def chosen_rows(items: pd.DataFrame, n: int) -> pd.DataFrame:
    """The rows under attack: `n` of test, drawn once for all models and seeds."""
    test = items[items["split"] == "test"]
    return test.sample(min(n, len(test)), random_state=0).sort_index()


def source_of(run) -> candidates.Source:
    """Where the run's attack takes its words from. Raises StudyError where that is absent."""
    return candidates.source(run.attack_source, limit=run.attack_candidates, pos=run.attack_pos, wordnet=run.wordnet,
                             vectors=run.vectors, min_cosine=run.attack_cosine)


def with_weights(finished: dict[str, store.Model]) -> dict[str, store.Model]:
    """The models that can be attacked and timed: all but those whose weights are not kept once they are predicted."""
    return {name: model for name, model in finished.items()
            if model.has_weights or names.parse(name).is_built_on}


def victim(model: store.Model, run, batch_size: int | None = None) -> attack.Victim:
    """A finished model, ready to be asked, in the precision that its predictions have."""
    device = devices.device(run.device)
    quantized = names.parse(model.name).quantization
    dtype = "fp32" if quantized else devices.dtype(run.dtype, device)
    return attack.Victim(make.load(model), pretrained.load_tokenizer(str(model.path)), run.max_length, dtype,
                         "cpu" if quantized else device, batch_size)


def attacks(finished: dict[str, store.Model], run, rows: pd.DataFrame, source: candidates.Source) -> pd.DataFrame:
    """The table of `attack.run` for every model, with a column `model` in front.

    Each model's part is kept in the stage's folder as it is found, so that a run that breaks loses one model at most.
    """
    parts = []
    with progress.bar(len(rows) * len(finished), "attack") as bar:
        for name, model in finished.items():
            bar.set_postfix_str(name, refresh=False)
            path, before = run.folder(run.stage) / "attacks" / f"{_key(model, run, rows)}.parquet", bar.n
            found = _once(path, lambda: _attacked(victim(model, run), run, rows, source, bar))
            bar.update(len(rows) - (bar.n - before))
            parts.append(found.assign(model=name))
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *table.columns.drop("model")]]


def _attacked(asked, run, rows: pd.DataFrame, source: candidates.Source, bar=None) -> pd.DataFrame:
    return attack.run(asked, rows, source, max_changed=run.attack_changed, max_candidates=run.attack_candidates,
                      stop_words=run.attack_stop_words, progress=bar)


def _key(model: store.Model, run, rows: pd.DataFrame) -> str:
    settings = {key: value for key, value in run.model_dump().items() if key.startswith("attack_")}
    files_used = [file for file in (run.wordnet, run.vectors) if file and Path(file).exists()]
    changed = [str(Path(file).stat().st_mtime_ns) for file in files_used]
    return store.key(settings | {
        "model": model.record["key"], "rows": rows["guid"].tolist(), "files": [run.wordnet, run.vectors, *changed],
        "source": code.source_hash("trials.attack", "trials.candidates", "tasks.grammar")})


def kept(run, name: str, models: dict[str, store.Model], rows: pd.DataFrame,
         compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table of the stage that takes the weights of models, which may be gone when the notebook runs again: computed
    once, and read while the models, the rows under attack, the run's settings and the code stay."""
    key = store.key({
        "attacks": [_key(model, run, rows) for model in models.values()], "paths": run.cost_paths,
        "runs": run.cost_runs, "threads": run.threads, "device": run.device,
        "source": code.source_hash("trials.costs", "trials.robustness", "trials.runtimes")})
    return _once(run.folder(run.stage) / "kept" / f"{name}-{key}.parquet", compute)


def _once(path: Path, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table that lies there sound, or is computed and put there."""
    if not path.exists() or files.fault(path.parent, path.name):
        store.write_items(path, compute())
    return pd.read_parquet(path)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write the released part of an attacks table: which rows broke, no text."""
    store.write_items(path, table[RELEASED])


def summary(table: pd.DataFrame, items: pd.DataFrame, n_boot: int, seed: int) -> pd.DataFrame:
    """`attack.summary` of every model: model | measure | value | low | high | n."""
    parts = [attack.summary(part.drop(columns="model"), items, n_boot, seed).assign(model=name)
             for name, part in table.groupby("model", sort=False)]
    return pd.concat(parts, ignore_index=True)[["model", "measure", "value", "low", "high", "n"]]


def transfers(finished: dict[str, store.Model], run, table: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Attacks found on one model replayed on another: found_on | model | value (accuracy there) | n (pairs).

    Only pairs that the model judged had right before they were changed, so that a failure is the attack's. Models with
    no successful attack, and pairs of models without such rows, are left out.
    """
    table = table[table["model"].isin(finished)]
    right = {name: set(part.loc[part["correct"], "guid"]) for name, part in table.groupby("model", sort=False)}
    broken = {name: part for name, part in table[table["success"]].groupby("model", sort=False)}
    result = []
    with progress.bar(len(finished), "transfer") as bar:
        for name, model in finished.items():
            asked = victim(model, run)
            for source, part in broken.items():
                part = part[part["guid"].isin(right[name])]
                if source != name and len(part):
                    kept = attack.replay(asked, part, items)
                    result.append({"found_on": source, "model": name, "value": float(kept.mean()), "n": len(kept)})
            bar.update()
    order = {name: i for i, name in enumerate(finished)}
    matrix = pd.DataFrame(result, columns=["found_on", "model", "value", "n"])
    return matrix.sort_values("found_on", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def batching(model: store.Model, run, rows: pd.DataFrame, source: candidates.Source, n_single: int) -> pd.DataFrame:
    """The same attack with all queries of a round at once, and on the first `n_single` rows one query at a time.

    how | rows | queries | forwards (not remembered) | seconds | queries_per_s | gflops (of the forwards, without
    padding, a second) | of_peak (share of the fastest square matrix product in that precision, measured in between).
    """
    def run_with(batched: bool) -> dict:
        asked = victim(model, run) if batched else _OneByOne(victim(model, run, batch_size=1))
        seconds = -time.perf_counter()
        some = rows if batched else rows.head(n_single)
        for part in [some] if batched else [some.iloc[[i]] for i in range(len(some))]:
            _attacked(asked, run, part, source)
        seconds += time.perf_counter()
        inner = asked if batched else asked.victim
        return {"how": "batched" if batched else "one by one", "rows": len(some), "queries": inner.queries,
                "forwards": inner.forwards, "seconds": seconds, "queries_per_s": inner.queries / seconds,
                "gflops": inner.flops / seconds / 1e9}

    torch.set_num_threads(run.threads)
    run_with(batched=True)  # warms up
    first, dtype = run_with(batched=True), "fp32" if names.parse(model.name).quantization else model.record["dtype"]
    peak = matrix_peak(dtype, devices.device(run.device))
    table = pd.DataFrame([first, run_with(batched=False)])
    return table.assign(of_peak=table["gflops"] / peak)


class _OneByOne:
    """A victim that is asked one pair at a time."""

    def __init__(self, inner: attack.Victim):
        self.victim = inner

    def logits(self, text_a: list[str], text_b: list[str]) -> np.ndarray:
        return np.concatenate([self.victim.logits([a], [b]) for a, b in zip(text_a, text_b, strict=True)])


def encoded(model: store.Model, run, rows: pd.DataFrame) -> batches.Encoded:
    """Rows as a finished model reads them."""
    return batches.encode(pretrained.load_tokenizer(str(model.folder / "model")), rows, run.max_length)
