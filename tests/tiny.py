"""Tiny classifiers of the three known kinds, and rows for them to read."""

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lib.models import batches

FAMILIES = ["bert", "roberta", "distilbert"]


def classifier(family="bert", *, layers=2, width=16, ffn=24, heads=2, labels=2, dropout=0.0, vocabulary=40, positions=40):
    """A classifier in eval mode, the same weights each time."""
    torch.manual_seed(0)
    common = dict(vocab_size=vocabulary, max_position_embeddings=positions, num_labels=labels, pad_token_id=0)
    if family == "distilbert":
        model = DistilBertForSequenceClassification(DistilBertConfig(
            dim=width, hidden_dim=ffn, n_heads=heads, n_layers=layers, dropout=dropout, attention_dropout=dropout,
            seq_classif_dropout=dropout, **common))
    else:
        kind, make = {"bert": (BertForSequenceClassification, BertConfig),
                      "roberta": (RobertaForSequenceClassification, RobertaConfig)}[family]
        model = kind(make(hidden_size=width, intermediate_size=ffn, num_attention_heads=heads, num_hidden_layers=layers,
                          hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
                          type_vocab_size=1 if family == "roberta" else 2, **common))
    with torch.no_grad():  # the usual start (0.02, biases 0) leaves the layers next to no effect
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower() and "embeddings" not in name:
                parameter.normal_(0, 0.3)
    return model.eval()


def rows(n=32):
    """Random rows of two labels for a vocabulary of 40."""
    draw = np.random.default_rng(0)
    ids = [np.concatenate([[1], draw.integers(4, 40, draw.integers(2, 9)), [2]]) for _ in range(n)]
    return batches.Encoded(ids, None, draw.integers(0, 2, n), np.array([len(row) for row in ids]), 0)
