"""The parts of an encoder: its layers and their linear maps, some layers kept, weights and operations counted.

The families in `lib.models.families` are known.
"""

import math
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from lib.errors import StudyError
from lib.models import families


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder's layers, first to last, one that is shared once. StudyError: a model of an unknown family."""
    family = families.of(model.config)
    stack = model.base_model.get_submodule(family.layers)
    return nn.ModuleList(layer for group in stack for layer in group.albert_layers) if family.shared else stack


def layer_parts(model: PreTrainedModel) -> list[dict[str, nn.Linear]]:
    """The linear maps of each encoder layer by the names of `families.Family.maps`. StudyError: an unknown family."""
    family = families.of(model.config)
    return [family.parts(layer) for layer in encoder_layers(model)]


def keep_layers(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Keep, in place, the layers of these indices in this order; config and layer numbers follow, so that plain
    `from_pretrained` loads what is saved. Gives the model back. StudyError: none, one twice, one out of range; layers
    that are shared; a ModernBERT without its first layer at the start, the one that has no norm."""
    family, old = families.of(model.config), encoder_layers(model)
    whole = model.config.num_hidden_layers if family.shared else len(old)
    if not layers or len(set(layers)) < len(layers) or not all(0 <= i < whole for i in layers):
        raise StudyError(f"layers {list(layers)}: give different numbers from 0 to {whole - 1}, at least one")
    if family.shared:
        if list(layers) != list(range(whole)):
            raise StudyError(f"layers {list(layers)}: {family.title} shares its layers, so none can be left out")
        return model
    kinds = getattr(model.config, "layer_types", None)
    if kinds and layers[0] != 0:
        raise StudyError(f"layers {list(layers)}: {family.title} has no norm before its layer 0 alone: keep it, first")
    kept = nn.ModuleList(old[i] for i in layers)
    for i, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = i
    model.base_model.set_submodule(family.layers, kept)
    if kinds:
        model.config.layer_types = [kinds[i] for i in layers]
    model.config.num_hidden_layers = len(kept)  # DistilBERT's config maps it to n_layers
    return model


def freeze_embeddings(model: PreTrainedModel) -> None:
    """Train no embedding: neither what stands before the first layer nor what tells positions to the layers."""
    for part in _embeddings(model):
        part.requires_grad_(False)


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


def sizes(model: PreTrainedModel) -> dict[str, float]:
    """How large a model is.

    parameters: all of them, embeddings included. encoder_parameters: the linear weights of attention and feed-forward
    in the encoder's layers, no biases: what is pruned, and what sparsity is a share of. nonzero_parameters,
    nonzero_encoder_parameters: those of the two that are not 0. The encoder's are NaN where its family is unknown.
    """
    everything, known = list(model.parameters()), families.is_known(model.config)
    encoder = [part.weight for parts in layer_parts(model) for part in parts.values()] if known else []
    return {"parameters": sum(p.numel() for p in everything),
            "encoder_parameters": sum(w.numel() for w in encoder) if known else math.nan,
            "nonzero_parameters": sum(int(p.count_nonzero()) for p in everything),
            "nonzero_encoder_parameters": sum(int(w.count_nonzero()) for w in encoder) if known else math.nan}


def flops(model: PreTrainedModel, length: int) -> float:
    """Floating-point operations of one forward pass over one example of L = `length` tokens, 2 per multiply-add.

    Per run of a layer 2 L W for its linear weights W, and 4 L^2 A for the attention's two products (Q K^T and the mix
    of values; A = heads x head size; a local window counts in full), and DeBERTa's products with positions; 2 L W for
    maps of all tokens outside the layers (embeddings of another width than the layers); once per example 2 W for
    pooler and classifier. Not counted: look-ups, biases, norms, softmax, activations. Zeroed weights count in full, as
    a dense kernel multiplies them. NaN for a model of an unknown family.
    """
    if not families.is_known(model.config):
        return math.nan
    family, total = families.of(model.config), 0
    for layer in _passes(model):
        parts = family.parts(layer)
        weights = sum(part.weight.numel() for name, part in parts.items() if not name.startswith("position_"))
        total += 2 * length * weights + 4 * length**2 * parts["attention_out"].in_features
        total += family.position_flops(layer, length)
    inside = set(encoder_layers(model).modules())
    every_token = {module for part in _embeddings(model) for module in part.modules()}
    for module in set(model.modules()) - inside:
        if isinstance(module, nn.Conv1d) or module in every_token and isinstance(module, nn.Linear):
            total += 2 * length * module.weight.numel()
        elif isinstance(module, nn.Linear):
            total += 2 * module.weight.numel()
    return total


def _passes(model: PreTrainedModel) -> list[nn.Module]:
    """The layers in the order of a forward pass, a shared one as often as it runs."""
    if not families.of(model.config).shared:
        return list(encoder_layers(model))
    config, groups = model.config, model.base_model.encoder.albert_layer_groups
    runs = [int(i / (config.num_hidden_layers / config.num_hidden_groups)) for i in range(config.num_hidden_layers)]
    return [layer for group in runs for layer in groups[group].albert_layers]


def _embeddings(model: PreTrainedModel) -> list[nn.Module]:
    found = dict(model.base_model.named_modules())
    return [found[path] for path in families.of(model.config).embeddings if path in found]
