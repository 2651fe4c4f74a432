"""Pairs of texts, and single ones, whose second text is "", as an encoder reads them."""

from collections.abc import Callable

import pandas as pd


def tokens(tokenizer: Callable, items: pd.DataFrame, max_length: int) -> dict[str, list[list[int]]]:
    """What a tokenizer of transformers makes of the rows, without padding: input_ids and, where it has them,
    token_type_ids, a list for each row. A row whose `text_b` is "" is one text, any other a pair of `text_a` and
    `text_b`; of a row above `max_length` tokens the longer text is cut."""
    columns: dict[str, list] = {}
    kinds = items[["text_a", "text_b"]].reset_index(drop=True).groupby((items["text_b"] == "").to_numpy(), sort=False)
    for is_single, part in kinds:
        texts = [part["text_a"].tolist()] if is_single else [part["text_a"].tolist(), part["text_b"].tolist()]
        read = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)
        for name, rows in read.items():
            column = columns.setdefault(name, [[]] * len(items))
            for at, row in zip(part.index, rows, strict=True):
                column[at] = row
    return columns
