"""The noise floor: how many answers of one and the same model change with how it is run.

Floats add up in another order in another batch, with padding or in bf16; where two classes are nearly even the answer
can turn. Changes between a model and its parent mean nothing below this share.
"""

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from lib.models import batches, devices, loop
from lib.trials import your_model

COLUMNS = ["condition", "split", "changed", "n"]
MOST = 100  # rows of a split


def floor(subject: your_model.Subject, items: pd.DataFrame, max_length: int, device: str = "cpu",
          most: int = MOST) -> pd.DataFrame:
    """Share of answers that differ from those of `your_model.predict`, whose batches are sorted by length and padded
    to their longest row: one row each time, in batches of 32 as they come, these padded to max_length, in
    the other precision.

    condition | split | changed (0 to 1; NaN: this device or model has no other precision) | n (rows compared: all of a
    split but train, or `most` of it, spread evenly).
    """
    some = items[items["split"] != "train"].groupby("split", sort=False, group_keys=False)
    some = pd.concat([part.iloc[_spread(len(part), most)] for _, part in some]).reset_index(drop=True)
    where, length = your_model.place_of(subject, device), your_model.cap(subject, max_length)
    encoded = batches.encode(subject.tokenizer, some, length)
    usual = loop.predict(subject.model, encoded, dtype=subject.dtype, device=where)
    answers = {"batches of 1": _run(subject, encoded, where, 1), "batches of 32": _run(subject, encoded, where, 32),
               f"batches of 32, padded to {length}": _run(subject, encoded, where, 32, length)}
    other = "fp32" if subject.dtype == "bf16" else "bf16"
    answers[f"in {other}"] = _otherwise(subject, encoded, where, other)
    rows = []
    for condition, logits in answers.items():
        changed = logits.argmax(1) != usual.argmax(1) if logits is not None else np.full(len(some), np.nan)
        shares = pd.Series(changed, dtype=float).groupby(some["split"], sort=False)
        rows += [(condition, split, share.mean(), int(share.count())) for split, share in shares]
    return pd.DataFrame(rows, columns=COLUMNS)


def _otherwise(subject: your_model.Subject, encoded: batches.Encoded, device: str, dtype: str) -> np.ndarray | None:
    """Logits in another precision; None where the model is quantised, or it or the device does not have it."""
    if your_model.is_quantized(subject.model) or "bf16" not in (subject.dtype, devices.dtype("auto", device)):
        return None
    try:
        return loop.predict(subject.model, encoded, dtype=dtype, device=device)
    except RuntimeError:  # some operations, such as FNet's, are not there in bf16
        return None


def _spread(n: int, most: int) -> np.ndarray:
    return np.linspace(0, n - 1, min(n, most)).round().astype(int)


def _run(subject: your_model.Subject, encoded: batches.Encoded, device: str, size: int,
         length: int | None = None) -> np.ndarray:
    """Logits [rows, classes] in batches of `size` rows as they come, padded to their longest or to `length` tokens."""
    model = (loop.bf16_copy(subject.model) if subject.dtype == "bf16" else subject.model).to(device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(encoded.lengths), size):
            inputs = loop.inputs(model, encoded, np.arange(start, min(start + size, len(encoded.lengths))), device)
            if length:
                short = length - inputs["input_ids"].shape[1]
                sides = (short, 0) if encoded.pads_left else (0, short)
                inputs = {name: F.pad(table, sides, value=encoded.pad_id if name == "input_ids" else 0)
                          for name, table in inputs.items()}
            parts.append(model(**inputs).logits.float().cpu().numpy())
    return np.concatenate(parts)
