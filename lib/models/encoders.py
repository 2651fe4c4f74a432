"""The parts of an encoder: its layers and their linear maps, some layers kept, weights and operations counted.

BERT-, RoBERTa- and DistilBERT-type classifiers of transformers 5 are known.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

from lib.errors import StudyError


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder's layers, first to last. StudyError: a model of an unknown kind."""
    stack = getattr(model.base_model, "encoder", None) or getattr(model.base_model, "transformer", None)
    if not isinstance(getattr(stack, "layer", None), nn.ModuleList):
        raise StudyError(f"encoder: {type(model).__name__} is not known: take a BERT, RoBERTa or DistilBERT encoder")
    return stack.layer


class Parts(NamedTuple):
    """The six linear maps of an encoder layer."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_out: nn.Linear
    ffn_in: nn.Linear
    ffn_out: nn.Linear


def layer_parts(layer: nn.Module) -> Parts:
    """The six linear maps of one encoder layer, whatever its model family calls them. StudyError: an unknown kind."""
    if hasattr(layer, "ffn") and hasattr(layer.attention, "q_lin"):  # DistilBERT
        a = layer.attention
        return Parts(a.q_lin, a.k_lin, a.v_lin, a.out_lin, layer.ffn.lin1, layer.ffn.lin2)
    if hasattr(layer, "intermediate") and hasattr(layer.attention, "self"):  # BERT, RoBERTa
        a = layer.attention.self
        out = layer.attention.output.dense
        return Parts(a.query, a.key, a.value, out, layer.intermediate.dense, layer.output.dense)
    raise StudyError(f"layers of type {type(layer).__name__} are not known: take a BERT, RoBERTa or DistilBERT encoder")


def keep_layers(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Keep, in place, the layers of these indices in this order; config and layer numbers follow, so that plain
    `from_pretrained` loads what is saved. Gives the model back. StudyError: none, one twice, one out of range."""
    old = encoder_layers(model)
    if not layers or len(set(layers)) < len(layers) or not all(0 <= i < len(old) for i in layers):
        raise StudyError(f"layers {list(layers)}: give different numbers from 0 to {len(old) - 1}, at least one")
    kept = nn.ModuleList(old[i] for i in layers)
    for i, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = i
    stack = getattr(model.base_model, "encoder", None) or model.base_model.transformer
    stack.layer = kept
    if hasattr(stack, "n_layers"):
        stack.n_layers = len(kept)
    model.config.num_hidden_layers = len(kept)  # DistilBERT's config maps it to n_layers
    return model


def layers_for(compression: str, n_layers: int) -> list[int]:
    """Layers that a compression keeps of an encoder of `n_layers`.

    truncated-k and scratch-k: the first k; truncated-k-alternate: k spread evenly from layer 0 (every other one if k
    is half of them: 0 2 4 of 6); all others: all. StudyError: a k that leaves nothing out.
    """
    kind, _, rest = compression.partition("-")
    if kind not in ("truncated", "scratch"):
        return list(range(n_layers))
    number, _, alternate = rest.partition("-")
    k, most = int(number), n_layers if kind == "scratch" else n_layers - 1
    if not 1 <= k <= most:
        raise StudyError(f"compression {compression!r}: the dense model has {n_layers} layers, so K is 1 to {most}")
    return [i * n_layers // k for i in range(k)] if alternate else list(range(k))


def sizes(model: PreTrainedModel) -> dict[str, int]:
    """How large a model is.

    parameters: all of them, embeddings included. encoder_parameters: the linear weights of attention and feed-forward
    in the encoder's layers, no biases: what is pruned, and what sparsity is a share of. nonzero_parameters,
    nonzero_encoder_parameters: those of the two that are not 0.
    """
    everything, encoder = list(model.parameters()), _linear_weights(model)
    return {"parameters": sum(p.numel() for p in everything), "encoder_parameters": sum(w.numel() for w in encoder),
            "nonzero_parameters": sum(int(p.count_nonzero()) for p in everything),
            "nonzero_encoder_parameters": sum(int(w.count_nonzero()) for w in encoder)}


def flops(model: PreTrainedModel, length: int) -> int:
    """Floating-point operations of one forward pass over one example of L = `length` tokens, 2 per multiply-add.

    Per layer 2 L W for its linear weights W, and 4 L^2 A for the attention's two products (Q K^T and the mix of values;
    A = heads x head size); once per example 2 W for pooler and classifier. Not counted: look-ups, biases, norms,
    softmax, activations. Zeroed weights count in full, as a dense kernel multiplies them.
    """
    total = 0
    for layer in encoder_layers(model):
        queries = [m for name, m in layer.named_modules() if name.endswith((".query", ".q_lin"))]
        total += 2 * length * sum(m.weight.numel() for m in layer.modules() if isinstance(m, nn.Linear))
        total += 4 * length**2 * sum(q.out_features for q in queries)
    once = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return total + 2 * (once - sum(w.numel() for w in _linear_weights(model)))


def _linear_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    return [m.weight for m in encoder_layers(model).modules() if isinstance(m, nn.Linear)]


