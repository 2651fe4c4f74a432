"""How long a task's rows are to an encoder, and how many of them lose text."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lib.tasks import tokenised


def cut(items: pd.DataFrame, tokenizer: Callable, max_length: int) -> pd.DataFrame:
    """What of each split (the index) an encoder reads: rows | tokens | cut | share.

    tokenizer: a transformers tokenizer. tokens: mean over the rows, after the cut; cut: rows of more than `max_length`
    tokens, whose longer text loses its end; share: of the rows.
    """
    ids = tokenised.tokens(tokenizer, items, max_length + 1)["input_ids"]
    lengths = pd.Series(np.fromiter(map(len, ids), np.int64, len(items)), items.index)
    splits = items["split"]
    read, is_cut = (one.groupby(splits, sort=False) for one in (lengths.clip(upper=max_length), lengths > max_length))
    return pd.DataFrame({"rows": read.size(), "tokens": read.mean(), "cut": is_cut.sum(), "share": is_cut.mean()})
