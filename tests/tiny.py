"""Tiny classifiers of every known family, and rows for them to read."""

import numpy as np
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from lib.models import batches

FAMILIES = ["bert", "roberta", "distilbert"]  # of every test of the parts; tests/test_families.py takes them all
EVERY = [*FAMILIES, "mpnet", "electra", "albert", "deberta-v2", "deberta-v3", "modernbert"]


def classifier(family="bert", *, layers=2, width=16, ffn=24, heads=2, labels=2, dropout=0.0, vocabulary=40, positions=40):
    """A classifier in eval mode, the same weights each time."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        config(family, layers, width, ffn, heads, dropout, vocab_size=vocabulary, max_position_embeddings=positions,
               num_labels=labels, pad_token_id=0))
    with torch.no_grad():  # the usual start (0.02, biases 0) leaves the layers next to no effect
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower() and "embeddings" not in name:
                parameter.normal_(0, 0.3)
    return model.eval()


def config(family, layers, width, ffn, heads, dropout, **common):
    if family == "distilbert":
        return DistilBertConfig(dim=width, hidden_dim=ffn, n_heads=heads, n_layers=layers, dropout=dropout,
                                attention_dropout=dropout, seq_classif_dropout=dropout, **common)
    sizes = dict(hidden_size=width, intermediate_size=ffn, num_attention_heads=heads, num_hidden_layers=layers)
    if family == "modernbert":  # layers attend to all, to 5 tokens, to 5, to all
        return ModernBertConfig(embedding_dropout=dropout, attention_dropout=dropout, mlp_dropout=dropout,
                                classifier_dropout=dropout, local_attention=4, **sizes, **common)
    kind, own = {
        "bert": (BertConfig, {}), "roberta": (RobertaConfig, {"type_vocab_size": 1}), "mpnet": (MPNetConfig, {}),
        "electra": (ElectraConfig, {"embedding_size": 8}), "albert": (AlbertConfig, {"embedding_size": 8}),
        "deberta-v2": (DebertaV2Config, {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
        "deberta-v3": (DebertaV2Config, {"relative_attention": True, "pos_att_type": "p2c|c2p", "share_att_key": True,
                                         "position_buckets": 4, "norm_rel_ebd": "layer_norm",
                                         "position_biased_input": False})}[family]
    return kind(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **sizes, **own, **common)


def rows(n=32):
    """Random rows of two labels for a vocabulary of 40."""
    draw = np.random.default_rng(0)
    ids = [np.concatenate([[1], draw.integers(4, 40, draw.integers(2, 9)), [2]]) for _ in range(n)]
    return batches.Encoded(ids, None, draw.integers(0, 2, n), np.array([len(row) for row in ids]), 0)
