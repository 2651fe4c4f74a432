"""Pruning on tiny BERT, RoBERTa and DistilBERT classifiers: what is zero, what is cut, what is saved."""

import numpy as np
import pytest
import tiny as tiny_models
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from lib.errors import StudyError
from lib.models import batches, losses, magnitude, structured
from lib.models.encoders import encoder_layers

LAYERS, HEADS, HIDDEN, WIDTH = 2, 4, 16, 24
ENCODER_WEIGHTS = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * WIDTH)
SCHEDULE = {"steps": 20, "warmup": 0.1, "cooldown": 0.3, "interval": 3}
TEXTS = [[2, 5, 9, 3], [2, 7, 3], [2, 11, 6, 8, 12, 3], [2, 4, 3], [2, 13, 9, 3], [2, 6, 6, 7, 3]]
LABELS = np.array([0, 1, 2, 1, 0, 2])


def tiny(family: str) -> nn.Module:
    return tiny_models.classifier(family, layers=LAYERS, width=HIDDEN, ffn=WIDTH, heads=HEADS, labels=3, vocabulary=16,
                                  positions=16)


@pytest.fixture(params=tiny_models.FAMILIES)
def model(request):
    return tiny(request.param)


@pytest.fixture
def encoded():
    return batches.Encoded(
        input_ids=[np.array(text) for text in TEXTS], token_type_ids=[np.zeros(len(text), int) for text in TEXTS],
        labels=LABELS, lengths=np.array([len(text) for text in TEXTS]), pad_id=0)


def logits_of(model, encoded):
    inputs = batches.collate(encoded, np.arange(len(encoded.labels)), "cpu")
    with torch.no_grad():
        return model(**inputs).logits


def encoder_weights(model):
    return [m.weight for layer in encoder_layers(model) for m in layer.modules() if isinstance(m, nn.Linear)]


def zeros(weights):
    return sum(int((w == 0).sum()) for w in weights)


def train(model, encoded, pruner, steps=20, seen=None):
    """AdamW with momentum and weight decay, the pruner after each step."""
    model.train()
    objective = losses.objective("vanilla", torch.as_tensor(encoded.labels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = np.arange(len(encoded.labels))
    for step in range(1, steps + 1):
        inputs = batches.collate(encoded, rows, "cpu")
        optimizer.zero_grad()
        objective(model(**inputs).logits, torch.as_tensor(rows)).backward()
        optimizer.step()
        pruner.after_step(step)
        if seen:
            seen(step)
    return model.eval()


# Magnitude pruning

@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.701, 0.95])
def test_imp_reaches_its_sparsity_within_one_weight(model, encoded, sparsity):
    pruner = magnitude.MagnitudePruner(model, sparsity, **SCHEDULE)
    train(model, encoded, pruner)
    pruned = zeros(encoder_weights(model))
    assert abs(pruned - sparsity * ENCODER_WEIGHTS) <= 1
    assert pruner.sparsity() == pytest.approx(pruned / ENCODER_WEIGHTS)
    measured = magnitude.measured_sparsity(model)
    assert measured["sparsity_encoder"] == pytest.approx(pruned / ENCODER_WEIGHTS)
    assert measured["sparsity_model"] == pytest.approx(pruned / sum(p.numel() for p in model.parameters()))


def test_imp_touches_the_encoder_s_linear_weights_only(model):
    before = {name: p.clone() for name, p in model.named_parameters()}
    pruner = magnitude.MagnitudePruner(model, 0.5, **SCHEDULE)
    pruner.after_step(pruner.end)
    ours = {id(w) for w in encoder_weights(model)}
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in model.named_parameters() if id(p) in ours}


def test_imp_prunes_the_smallest_weights_of_all_layers_together(model):
    with torch.no_grad():
        encoder_weights(model)[0].mul_(1e-3)
    before = torch.cat([w.detach().abs().flatten() for w in encoder_weights(model)])
    pruner = magnitude.MagnitudePruner(model, 0.3, **SCHEDULE)
    pruner.after_step(pruner.end)
    gone = torch.cat([w.detach().flatten() for w in encoder_weights(model)]) == 0
    assert before[gone].max() < before[~gone].min()
    assert (encoder_weights(model)[0] == 0).all()


def test_pruned_weights_stay_zero_and_never_return_under_adamw(model, encoded):
    pruner = magnitude.MagnitudePruner(model, 0.6, **SCHEDULE)
    gone, counts = [torch.zeros(ENCODER_WEIGHTS, dtype=torch.bool)], []

    def seen(step):
        now = torch.cat([w.detach().flatten() for w in encoder_weights(model)]) == 0
        assert now[gone[0]].all(), f"a weight returned at step {step}"
        gone[0] = now
        counts.append(int(now.sum()))

    train(model, encoded, pruner, seen=seen)
    changes = [i + 1 for i in range(1, 20) if counts[i] != counts[i - 1]]
    assert changes == pruner.mask_steps == [5, 8, 11, 14]
    assert pruner.history == pytest.approx({step: counts[step - 1] / ENCODER_WEIGHTS for step in pruner.mask_steps})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties_do_not_overshoot_nor_let_a_pruned_weight_return(dtype):
    model = tiny("bert").to(dtype)
    with torch.no_grad():
        for i, w in enumerate(encoder_weights(model)):
            w.fill_(0.5 if i % 2 else 0.0)
    pruner = magnitude.MagnitudePruner(model, 0.7, steps=10, warmup=0.0, cooldown=0.0, interval=1)
    gone = torch.zeros(ENCODER_WEIGHTS, dtype=torch.bool)
    for step in range(1, 11):
        with torch.no_grad():  # an optimizer that moves every weight, the zero ones too
            for w in encoder_weights(model):
                w.add_(0.25 * (w == 0))
        pruner.after_step(step)
        now = torch.cat([w.detach().flatten() for w in encoder_weights(model)]) == 0
        assert now[gone].all()
        assert abs(int(now.sum()) - pruner.target(step) * ENCODER_WEIGHTS) <= 1
        gone = now


def test_survivors_that_reach_zero_do_not_push_a_pruned_weight_back():
    model = tiny("bert")
    pruner = magnitude.MagnitudePruner(model, 0.5, steps=2, warmup=0.0, cooldown=0.0, interval=1)
    weights = encoder_weights(model)
    with torch.no_grad():
        weights[-1].mul_(1e-3)
        pruner.after_step(1)
        assert (weights[-1] == 0).all()
        for w in weights[:-1]:
            w.zero_()
        pruner.after_step(2)
        for w in weights:
            w.fill_(1.0)
        pruner.after_step(3)
    assert (weights[-1] == 0).all()
    assert zeros(weights) == ENCODER_WEIGHTS // 2


def test_layers_sum_to_the_whole(model):
    pruner = magnitude.MagnitudePruner(model, 0.45, **SCHEDULE)
    assert pruner.per_layer()["pruned"].sum() == 0
    pruner.after_step(pruner.end)
    table = pruner.per_layer()
    assert list(table.columns) == ["layer", "part", "weights", "pruned", "sparsity"]
    assert list(table["part"]) == ["attention", "feed_forward"] * LAYERS
    assert table["weights"].sum() == ENCODER_WEIGHTS
    assert table["pruned"].sum() / table["weights"].sum() == pytest.approx(pruner.sparsity())
    first = [m.weight for m in encoder_layers(model)[0].modules() if isinstance(m, nn.Linear)]
    assert table.query("layer == 0")["pruned"].sum() == zeros(first)


def test_the_schedule_is_cubic_between_warm_up_and_cool_down():
    pruner = magnitude.MagnitudePruner(tiny("bert"), 0.8, steps=100, warmup=0.1, cooldown=0.3, interval=7)
    assert [pruner.target(t) for t in (0, 10)] == [0, 0]
    assert pruner.target(40) == pytest.approx(0.8 * (1 - 0.5 ** 3))
    assert [pruner.target(t) for t in (70, 100)] == [0.8, 0.8]
    way = [pruner.target(t) for t in range(101)]
    assert way == sorted(way)
    assert pruner.mask_steps[0] == 17 and pruner.mask_steps[-1] == 70


def test_steps_at_names_the_first_mask_step_that_reaches_a_level():
    pruner = magnitude.MagnitudePruner(tiny("bert"), 0.8, steps=100, warmup=0.1, cooldown=0.3, interval=2)
    levels = [0.2, 0.4, 0.6, 0.8]
    found = pruner.steps_at(levels)
    assert list(found.values()) == levels
    for step, level in found.items():
        earlier = [t for t in pruner.mask_steps if t < step]
        assert step in pruner.mask_steps and pruner.target(step) >= level
        assert all(pruner.target(t) < level for t in earlier)
    with pytest.raises(StudyError, match="fall on the same mask step"):
        pruner.steps_at([0.2, 0.2001])
    for level in (0.0, 0.81):
        with pytest.raises(StudyError, match="not on the way"):
            pruner.steps_at([level])


def test_a_ramp_needs_a_step():
    with pytest.raises(StudyError, match="no step is left"):
        magnitude.MagnitudePruner(tiny("bert"), 0.5, **(SCHEDULE | {"warmup": 0.6, "cooldown": 0.4}))


def test_a_pruned_checkpoint_loads_plainly_with_its_zeros(model, encoded, tmp_path):
    pruner = magnitude.MagnitudePruner(model, 0.5, **SCHEDULE)
    train(model, encoded, pruner)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert magnitude.measured_sparsity(loaded) == magnitude.measured_sparsity(model)
    torch.testing.assert_close(logits_of(loaded, encoded), logits_of(model, encoded))


# Attention heads

def test_head_importance_is_the_mean_absolute_gradient_of_single_rows(model, encoded):
    importance = structured.head_importance(model, encoded, "cpu")
    layers, size = encoder_layers(model), HIDDEN // HEADS
    expected, width = np.zeros((LAYERS, HEADS)), 1e-2
    for layer in range(LAYERS):  # central differences of each row's own loss in the head's columns
        out = [m for m in layers[layer].attention.modules() if isinstance(m, nn.Linear)][-1]
        for head in range(HEADS):
            columns, both = slice(head * size, (head + 1) * size), []
            for factor in (1 + width, (1 - width) / (1 + width), 1 / (1 - width)):
                with torch.no_grad():
                    out.weight[:, columns] *= factor
                both.append(nn.functional.cross_entropy(logits_of(model, encoded).double(), torch.as_tensor(LABELS),
                                                        reduction="none"))
            expected[layer, head] = ((both[0] - both[1]) / (2 * width)).abs().mean()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(importance, expected, rtol=0.02, atol=1e-3)


def test_head_importance_leaves_the_model_alone(model, encoded):
    before, out = {k: v.clone() for k, v in model.state_dict().items()}, logits_of(model, encoded)
    model.train()
    importance = structured.head_importance(model, encoded, "cpu")
    assert model.training and all(p.grad is None for p in model.parameters())
    np.testing.assert_allclose(np.linalg.norm(importance, axis=1), 1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(logits_of(model.eval(), encoded), out)


def test_head_importance_does_not_depend_on_how_rows_fall_into_batches(encoded):
    model, times = tiny("bert"), 300
    many = batches.Encoded(encoded.input_ids * times, encoded.token_type_ids * times, np.tile(LABELS, times),
                           np.tile(encoded.lengths, times), pad_id=0)
    assert len({len(rows) for rows in batches.eval_batches(many.lengths, 64)}) > 1
    np.testing.assert_allclose(structured.head_importance(model, many, "cpu"),
                               structured.head_importance(model, encoded, "cpu"), rtol=1e-3)


def test_a_zeroed_head_has_no_importance(model, encoded):
    importance = np.arange(LAYERS * HEADS, dtype=float).reshape(LAYERS, HEADS)
    structured.HeadPruner(model, importance, 0.25)
    again = structured.head_importance(model, encoded, "cpu")
    assert (again[0, :2] == 0).all() and (again[0, 2:] > 0).all() and (again[1] > 0).all()


def test_the_least_important_heads_go_and_each_layer_keeps_one(model):
    importance = np.array([[0.1, 0.2, 0.3, 0.4], [5.0, 7.0, 6.0, 8.0]])
    assert structured.HeadPruner(model, importance, 0.5).zeroed == [[0, 1, 2], [0]]
    assert structured.HeadPruner(model, importance, 0.75).zeroed == [[0, 1, 2], [0, 1, 2]]
    with pytest.raises(StudyError, match="without a head: give at most 0.750"):
        structured.HeadPruner(model, importance, 0.9)


def test_heads_stay_zero_load_plainly_and_cut_to_the_same_function(model, encoded, tmp_path):
    dense = logits_of(model, encoded)
    pruner = structured.HeadPruner(model, np.array([[0.1, 9, 0.2, 9], [9, 9, 9, 0.3]]), 3 / 8)
    train(model, encoded, pruner, steps=4)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.zeroed_heads == [[0, 2], [3]]
    expected = logits_of(model, encoded)
    torch.testing.assert_close(logits_of(loaded, encoded), expected)
    assert not torch.allclose(expected, dense, atol=1e-3)

    cut = structured.cut_heads(loaded)
    torch.testing.assert_close(logits_of(cut, encoded), expected, rtol=1e-4, atol=1e-5)
    per_head = 4 * HIDDEN * HIDDEN // HEADS + 3 * HIDDEN // HEADS
    assert loaded.num_parameters() - cut.num_parameters() == 3 * per_head
    assert loaded.num_parameters() == model.num_parameters()
    assert structured.cut_heads(cut).num_parameters() == cut.num_parameters()


def test_heads_that_were_trained_back_are_not_cut(model):
    structured.HeadPruner(model, np.arange(8.0).reshape(LAYERS, HEADS), 0.25)
    with torch.no_grad():
        [m for m in encoder_layers(model)[0].attention.modules() if isinstance(m, nn.Linear)][-1].weight += 0.1
    with pytest.raises(StudyError, match="layer 0: heads .* are not zero"):
        structured.cut_heads(model)


# Feed-forward width

def test_ffn_importance_is_unchanged_by_moving_scale_across_the_neuron(model):
    before = structured.ffn_importance(model)
    assert before.shape == (LAYERS, WIDTH)
    wide = [m for m in encoder_layers(model)[0].modules() if isinstance(m, nn.Linear)][-2:]
    with torch.no_grad():
        wide[0].weight[3] *= 4
        wide[1].weight[:, 3] /= 4
        wide[0].weight[5] = 0
    after = structured.ffn_importance(model)
    assert after[0, 5] == 0 and after[0, 3] == pytest.approx(before[0, 3], rel=1e-5)
    assert (np.delete(after[0], 5) == pytest.approx(np.delete(before[0], 5), rel=1e-5))


def test_cutting_neurons_without_effect_keeps_the_function_and_loads_plainly(model, encoded, tmp_path):
    dead = {0: [1, 4, 20, 21, 22, 23], 1: [0, 2, 3, 7, 9, 11]}
    with torch.no_grad():
        for i, layer in enumerate(encoder_layers(model)):
            [m for m in layer.modules() if isinstance(m, nn.Linear)][-1].weight[:, dead[i]] = 0
    expected, parameters = logits_of(model, encoded), model.num_parameters()
    cut = structured.cut_ffn(model, structured.ffn_importance(model), 0.25)
    torch.testing.assert_close(logits_of(cut, encoded), expected, rtol=1e-4, atol=1e-5)
    assert parameters - cut.num_parameters() == LAYERS * 6 * (2 * HIDDEN + 1)
    cut.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.num_parameters() == cut.num_parameters()
    torch.testing.assert_close(logits_of(loaded, encoded), expected, rtol=1e-4, atol=1e-5)


def test_cutting_leaves_what_trains_and_what_is_frozen(model):
    frozen = encoder_weights(model)[0].requires_grad_(False)
    structured.cut_ffn(model, structured.ffn_importance(model), 0.5)
    assert not frozen.requires_grad and all(w.requires_grad for w in encoder_weights(model)[1:])


def test_to_cut_nothing_changes_nothing(model):
    importance = structured.ffn_importance(model)
    assert structured.cut_ffn(model, importance, 0.0).num_parameters() == model.num_parameters()


def test_the_zeros_of_a_finished_model_are_held_and_all_else_moves(model):
    weights = encoder_weights(model)
    with torch.no_grad():
        for i, weight in enumerate(weights):
            weight[i % 3::3] = 0
        model.get_input_embeddings().weight[1] = 0
        for bias in (p for name, p in model.named_parameters() if name.endswith("bias")):
            bias.zero_()
    zeros = [weight == 0 for weight in weights]
    before = magnitude.measured_sparsity(model)["sparsity_encoder"]
    holder = magnitude.ZeroHolder(model)
    for step in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.5)
        moved = [weight.clone() for weight in weights]
        holder.after_step(step)
        for weight, zero, then in zip(weights, zeros, moved, strict=True):
            assert zero.any() and (weight[zero] == 0).all() and torch.equal(weight[~zero], then[~zero])
        assert (model.get_input_embeddings().weight[1] != 0).all()
        assert all((p != 0).all() for name, p in model.named_parameters() if name.endswith("bias"))
    assert magnitude.measured_sparsity(model)["sparsity_encoder"] == before > 0.2
