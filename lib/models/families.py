"""The families of encoders that the study can train and compress: where each keeps its parts, one record for each.

A family is told by `model_type` in a model's config. All paths are those of transformers 5. Further families are a
further record in FAMILIES, as long as their layers read and give hidden states [batch, length, width].
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from lib import names
from lib.errors import StudyError

Scores = Callable[[nn.Module, Tensor, Tensor, dict, int], Tensor]
KNOWN = "BERT, RoBERTa, DistilBERT, MPNet, ELECTRA, ALBERT, DeBERTa-v2/v3 or ModernBERT"
WITHOUT_LAYERS = "dense, imp-*, any loss but pkd and tinybert, and ptq8, qat8, ptq4"  # what shared layers allow


def attention_scores(query: Tensor, key: Tensor, n_heads: int) -> Tensor:
    """Unnormalised attention Q K^T / sqrt(d), [batch, heads, length, length], from two [batch, length, width]."""
    q, k = _by_head(query, n_heads), _by_head(key, n_heads)
    return q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5


def _by_head(x: Tensor, n_heads: int) -> Tensor:
    return x.float().unflatten(-1, (n_heads, -1)).transpose(1, 2)


# Attention scores of families whose positions are told to each layer: `given` is what its attention is called with.
def _biased(attention: nn.Module, query: Tensor, key: Tensor, given: dict, n_heads: int) -> Tensor:
    """MPNet (Song et al. 2020): one bias for each distance and head, the same in all layers, is added."""
    return attention_scores(query, key, n_heads) + given["position_bias"].float()


def _disentangled(attention: nn.Module, query: Tensor, key: Tensor, given: dict, n_heads: int) -> Tensor:
    """DeBERTa (He et al. 2021, eq. 4): content with content, content with position, position with content, over
    sqrt(d times the number of terms); without the dropout that training puts on the position embeddings."""
    q, k = (attention.transpose_for_scores(x.float(), n_heads) for x in (query, key))
    terms = 1 + sum(kind in attention.pos_att_type for kind in ("c2p", "p2c"))
    scores = q @ k.transpose(-1, -2) / (q.shape[-1] * terms) ** 0.5
    if attention.relative_attention:
        scores = scores + attention.disentangled_attention_bias(
            q, k, given["relative_pos"], given["rel_embeddings"].float(), terms)
    return scores.unflatten(0, (-1, n_heads))


def _rotated(attention: nn.Module, query: Tensor, key: Tensor, given: dict, n_heads: int) -> Tensor:
    """ModernBERT: queries and keys are turned by their positions (RoPE). Pairs outside a local layer's window too."""
    from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

    q, k = apply_rotary_pos_emb(_by_head(query, n_heads), _by_head(key, n_heads), *given["position_embeddings"])
    return q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5


def _disentangled_flops(layer: nn.Module, length: int) -> int:
    """DeBERTa's positions: R = 2 x span embeddings through each of their maps, and L x R products per head and term."""
    attention = layer.attention.self
    if not attention.relative_attention:
        return 0
    terms = [kind for kind in ("c2p", "p2c") if kind in attention.pos_att_type]
    rows, own = 2 * attention.pos_ebd_size, {"c2p": "pos_key_proj", "p2c": "pos_query_proj"}
    maps = ("query_proj", "key_proj") if attention.share_att_key else [own[kind] for kind in terms]
    return 2 * rows * (sum(getattr(attention, name).weight.numel() for name in maps)
                       + len(terms) * length * attention.all_head_size)


# What a layer must be told beside its smaller matrices once it has these heads alone.
def _narrow_mpnet(layer: nn.Module, heads: list[int]) -> None:
    attention = layer.attention.attn
    _count_heads(attention, heads)
    attention.register_forward_pre_hook(partial(_select_bias, heads))


def _select_bias(heads: list[int], attention: nn.Module, args: tuple) -> tuple:
    hidden, mask, bias = args
    return hidden, mask, bias[:, heads]


def _count_heads(attention: nn.Module, heads: list[int]) -> None:
    attention.num_attention_heads = len(heads)
    attention.all_head_size = len(heads) * attention.attention_head_size


@dataclass(frozen=True)
class Family:
    """Where models of a family keep their parts, as paths of modules and names in the config.

    layers: below the base model. maps: the linear maps of a layer, below it: query, key, value (or qkv, their rows in
    this order), attention_out, ffn_in (a gate's rows follow), ffn_out, and position_* where positions have maps of
    their own; a layer need not have those. attention: of a layer, is called with what `scores` reads. dropouts, width:
    names in the config of the dropout rates and of the feed-forward width. embeddings: below the base model, what
    stands before the first layer and what tells positions to the layers; a model need not have all. types: whether
    the model takes token types where its config has two or more. unused_positions: how many it never uses. shared:
    whether layers share their weights. gated: whether each feed-forward neuron is multiplied by a gate. output: a
    layer's output made of hidden states. scores, position_flops, narrow: see above.
    """

    title: str
    maps: Mapping[str, str]
    dropouts: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
    layers: str = "encoder.layer"
    attention: str = ""
    embeddings: tuple[str, ...] = ("embeddings",)
    width: str = "intermediate_size"
    types: bool = False
    unused_positions: Callable[[PretrainedConfig], int] = lambda config: 0
    shared: bool = False
    gated: bool = False
    output: Callable[[Tensor], Tensor | tuple] = lambda hidden: hidden
    scores: Scores = lambda attention, query, key, given, n_heads: attention_scores(query, key, n_heads)
    position_flops: Callable[[nn.Module, int], int] = lambda layer, length: 0
    narrow: Callable[[nn.Module, list[int]], None] = lambda layer, heads: None

    def parts(self, layer: nn.Module) -> dict[str, nn.Linear]:
        """The linear maps of one layer, by the names of `maps`."""
        return {name: layer.get_submodule(path) for name, path in self.maps.items()
                if not name.startswith("position_") or path in dict(layer.named_modules())}


_FFN = {"attention_out": "attention.output.dense", "ffn_in": "intermediate.dense", "ffn_out": "output.dense"}
_BERT = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value"} | _FFN
_ROBERTA = Family("RoBERTa", _BERT, types=True, unused_positions=lambda config: config.pad_token_id + 1)
_HIDDEN, _ATTENTION = "hidden_dropout_prob", "attention_probs_dropout_prob"
FAMILIES = {
    "bert": Family("BERT", _BERT, types=True),
    "roberta": _ROBERTA, "xlm-roberta": _ROBERTA, "camembert": _ROBERTA,
    "distilbert": Family(
        "DistilBERT", {"query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin",
                       "attention_out": "attention.out_lin", "ffn_in": "ffn.lin1", "ffn_out": "ffn.lin2"},
        dropouts=("dropout", "attention_dropout", "seq_classif_dropout"), layers="transformer.layer",
        width="hidden_dim"),
    "mpnet": Family(
        "MPNet", {"query": "attention.attn.q", "key": "attention.attn.k", "value": "attention.attn.v"} | _FFN
        | {"attention_out": "attention.attn.o"}, dropouts=(_HIDDEN, _ATTENTION), attention="attention",
        embeddings=("embeddings", "encoder.relative_attention_bias"), unused_positions=lambda config: 2,
        output=lambda hidden: (hidden,), scores=_biased, narrow=_narrow_mpnet),
    "electra": Family("ELECTRA", _BERT, embeddings=("embeddings", "embeddings_project"), types=True),
    "albert": Family(
        "ALBERT", {"query": "attention.query", "key": "attention.key", "value": "attention.value",
                   "attention_out": "attention.dense", "ffn_in": "ffn", "ffn_out": "ffn_output"},
        dropouts=(_HIDDEN, _ATTENTION, "classifier_dropout_prob"), layers="encoder.albert_layer_groups",
        embeddings=("embeddings", "encoder.embedding_hidden_mapping_in"), types=True, shared=True),
    "deberta-v2": Family(
        "DeBERTa", {"query": "attention.self.query_proj", "key": "attention.self.key_proj",
                    "value": "attention.self.value_proj", "position_key": "attention.self.pos_key_proj",
                    "position_query": "attention.self.pos_query_proj"} | _FFN,
        dropouts=(_HIDDEN, _ATTENTION, "pooler_dropout", "cls_dropout"), attention="attention.self",
        embeddings=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm"), types=True,
        output=lambda hidden: (hidden, None), scores=_disentangled, position_flops=_disentangled_flops,
        narrow=lambda layer, heads: _count_heads(layer.attention.self, heads)),
    "modernbert": Family(
        "ModernBERT", {"qkv": "attn.Wqkv", "attention_out": "attn.Wo", "ffn_in": "mlp.Wi", "ffn_out": "mlp.Wo"},
        dropouts=("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"), layers="layers",
        attention="attn", gated=True, scores=_rotated),
}


def is_known(config: PretrainedConfig) -> bool:
    """Whether the study knows the family's parts; any other classifier can be predicted, not compressed."""
    return config.model_type in FAMILIES


def of(config: PretrainedConfig, encoder: str = "") -> Family:
    """The family of a model. encoder: what a refusal calls it. StudyError: an unknown family."""
    if not is_known(config):
        raise StudyError(f"encoder{f' {encoder!r}' if encoder else ''}: a model of type '{config.model_type}' cannot "
                         f"be trained or compressed here: take a {KNOWN} encoder")
    return FAMILIES[config.model_type]


def takes_types(model: PreTrainedModel) -> bool:
    """Whether a model is to be given token types: it takes them, and knows two or more."""
    if is_known(model.config):
        return of(model.config).types and model.config.type_vocab_size > 1
    named = "token_type_ids" in inspect.signature(model.forward).parameters
    return named and getattr(model.config, "type_vocab_size", 2) > 1


def most_tokens(config: PretrainedConfig) -> int | None:
    """Tokens of the longest input that a model has positions for; None where nothing bounds them."""
    positions = getattr(config, "max_position_embeddings", None) or -1
    if positions < 1:  # XLNet says -1, T5 nothing
        return None
    return positions - (of(config).unused_positions(config) if is_known(config) else 0)


def check(config: PretrainedConfig, encoder: str, recipe: names.Name, n_layers: int) -> None:
    """StudyError, from the config alone, where the family of an encoder does not allow a recipe.

    n_layers: of the encoder that are used, as `encoder_layers` of the profile asks.
    """
    family = of(config, encoder)
    by_layer = (recipe.structure if recipe.family in ("truncated", "scratch", "theseus", "heads", "ffn") else
                recipe.loss if recipe.loss in names.TRANSFERS else "")
    if family.shared and by_layer:
        raise StudyError(f"encoder {encoder!r}: {family.title} shares its layers, so there is no {by_layer} of it: "
                         f"take {WITHOUT_LAYERS}, or another encoder")
    if family.shared and n_layers < config.num_hidden_layers:
        raise StudyError(f"encoder {encoder!r}: {family.title} shares its layers, so none can be left out: set "
                         "encoder_layers to 0 (all)")
    if recipe.family == "theseus" and getattr(config, "conv_kernel_size", 0) > 0:
        raise StudyError(f"encoder {encoder!r}: it has a convolution after its first layer, so there is no "
                         f"{recipe.structure} of it: take truncated-K, or another encoder")
