"""Progressive module replacing: teacher at p = 0, successor at p = 1, nothing but successors trained in between."""

import copy
import dataclasses

import numpy as np
import pytest
import tiny as tiny_models
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from lib.errors import StudyError
from lib.models import batches, encoders, loop
from lib.models.theseus import Replacer

LAYERS = 4
PLAN = loop.Plan(steps=6, batch_size=8, learning_rate=2e-3, warmup=0.0, weight_decay=0.01, dtype="fp32",
                     device="cpu", seed=0)
USUAL = {"schedule": "linear", "start": 0.5, "rate": 0.5, "share": 0.5, "steps": 6, "seed": 0}


def tiny(family="bert", layers=LAYERS):
    model = tiny_models.classifier(family, layers=layers)
    model.base_model.embeddings.requires_grad_(False)
    return model


@pytest.fixture(params=tiny_models.FAMILIES)
def model(request):
    return tiny(request.param)


@pytest.fixture
def encoded():
    return tiny_models.rows()


def objective(encoded):
    labels = torch.as_tensor(encoded.labels)
    return lambda logits, rows: F.cross_entropy(logits, labels[rows])


def logits_of(model, encoded):
    with torch.no_grad():
        return model(**batches.collate(encoded, np.arange(len(encoded.labels)), "cpu")).logits


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_at_p_0_it_is_the_teacher_and_at_p_1_the_successor(model, encoded):
    teacher = copy.deepcopy(model)
    replacer = Replacer(model, 2, **USUAL)
    replacer.p = 0.0
    model.train()
    assert torch.equal(logits_of(model, encoded), logits_of(teacher, encoded))
    assert not torch.equal(logits_of(model.eval(), encoded), logits_of(teacher, encoded))  # p is of train mode alone
    loop.fit(model, encoded, objective(encoded), PLAN, after_step=replacer.after_step)
    replacer.p = 0.0
    assert torch.equal(logits_of(model.train(), encoded), logits_of(teacher, encoded))  # trained successors, same teacher
    replacer.p = 1.0
    at_one, in_eval = logits_of(model, encoded), logits_of(model.eval(), encoded)
    plain = logits_of(replacer.successor(), encoded)
    assert torch.equal(at_one, plain) and torch.equal(in_eval, plain)


def test_successors_start_as_the_first_layers(model, encoded):
    truncated = encoders.keep_layers(copy.deepcopy(model), [0, 1, 2])
    assert torch.equal(logits_of(Replacer(model, 3, **USUAL).successor(), encoded), logits_of(truncated, encoded))


def test_each_module_holds_its_group_of_layers(encoded):
    model = tiny(layers=5)
    before = list(encoders.encoder_layers(model))
    Replacer(model, 2, **USUAL)
    slots = encoders.encoder_layers(model)
    assert [slot.role for slot in slots] == ["predecessor"] * 3 + ["successor"] + ["predecessor"] * 2 + ["successor"]
    assert [slot.predecessor for slot in slots if slot.role == "predecessor"] == before


def test_only_successors_train(model, encoded):
    replacer = Replacer(model, 2, **USUAL)
    before = weights(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {n for n in before if ".successor." in n}
    loop.fit(model, encoded, objective(encoded), dataclasses.replace(PLAN, steps=12), after_step=replacer.after_step)
    for name, now in weights(model).items():
        if ".successor." not in name:
            assert torch.equal(now, before[name]), name
        elif not name.endswith(("key.bias", "k_lin.bias")):  # softmax does not see a key's bias
            assert not torch.equal(now, before[name]), name


def test_a_batch_without_successors_teaches_nothing(model, encoded):
    replacer = Replacer(model, 2, **USUAL)
    replacer.p = 0.0
    before = weights(model)
    log, _ = loop.fit(model, encoded, objective(encoded), PLAN)
    assert np.isfinite(log["loss"]).all()
    assert all(torch.equal(now, before[name]) for name, now in weights(model).items())


def test_modules_draw_on_their_own_at_the_rate_given(encoded):
    model = tiny()
    replacer = Replacer(model, 2, **USUAL | {"schedule": "constant", "rate": 0.3})
    drawn = []
    for slot in (slot for slot in encoders.encoder_layers(model) if slot.role == "successor"):
        slot.successor.register_forward_hook(lambda module, *_: drawn.append(module))
    both, used = 0, 0
    model.train()
    for _ in range(400):
        drawn.clear()
        logits_of(model, encoded)
        used += len(drawn)
        both += len(drawn) == 2
    assert replacer.p == 0.3 and abs(used / 800 - 0.3) < 0.06 and abs(both / 400 - 0.09) < 0.05


def test_linear_schedule():
    replacer = Replacer(tiny(), 2, **USUAL | {"start": 0.2, "share": 0.5, "steps": 20})
    assert replacer.p == 0.2
    assert np.allclose([replacer.rate_at(t) for t in (0, 1, 5, 9, 10, 11, 20)], [0.2, 0.28, 0.6, 0.92, 1, 1, 1])
    replacer.after_step(5)
    assert replacer.p == replacer.rate_at(5)


def test_constant_schedule_stays_until_its_share_is_done():
    replacer = Replacer(tiny(), 2, **USUAL | {"schedule": "constant", "rate": 0.3, "share": 0.7, "steps": 10})
    seen = [replacer.p]
    for step in range(1, 10):
        replacer.after_step(step)
        seen.append(replacer.p)
    assert seen == [0.3] * 7 + [1.0] * 3


def test_a_run_repeats_and_its_seed_matters(encoded):
    def run(seed):
        model = tiny()
        replacer = Replacer(model, 2, **USUAL | {"schedule": "constant", "share": 1.0, "seed": seed})
        loop.fit(model, encoded, objective(encoded), PLAN, after_step=replacer.after_step)
        return logits_of(replacer.successor(), encoded)
    torch.manual_seed(0)
    first = run(0)
    torch.manual_seed(5)  # the draws come from nowhere else
    assert torch.equal(first, run(0)) and not torch.equal(first, run(1))


def test_the_successor_is_a_plain_model(model, encoded, tmp_path):
    config, trainable = model.config, {name: p.requires_grad for name, p in model.named_parameters()}
    replacer = Replacer(model, 2, **USUAL)
    loop.fit(model, encoded, objective(encoded), PLAN, after_step=replacer.after_step)
    successor = replacer.successor()
    layers = encoders.encoder_layers(successor)
    numbered = [m.layer_idx for layer in layers for m in layer.modules() if hasattr(m, "layer_idx")]
    assert len(layers) == successor.config.num_hidden_layers == 2 and numbered in ([0, 1], [])
    assert "_Slot" not in str(successor) and not successor.training
    assert all(m.config is config for m in successor.modules() if hasattr(m, "config"))
    assert {name: p.requires_grad for name, p in successor.named_parameters()} == {
        name: trainable[name] for name, _ in successor.named_parameters()}
    successor.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(logits_of(loaded, encoded), logits_of(successor, encoded))
    assert torch.equal(logits_of(replacer.successor(), encoded), logits_of(loaded, encoded))


def test_the_way_attention_is_computed_reaches_every_layer(model):
    Replacer(model, 2, **USUAL)
    model.set_attn_implementation("eager")
    assert {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")} == {"eager"}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_checkpoints_of_the_run_predict_the_successor(model, encoded, dtype):
    replacer = Replacer(model, 2, **USUAL)
    seen = []
    loop.fit(model, encoded, objective(encoded), dataclasses.replace(PLAN, dtype=dtype), after_step=replacer.after_step,
                 checkpoints={step: lambda: seen.append(loop.predict(model, encoded, dtype=dtype, device="cpu"))
                              for step in (1, 6)})
    last = loop.predict(replacer.successor(), encoded, dtype=dtype, device="cpu")
    assert np.array_equal(seen[1], last) and not np.array_equal(seen[0], last)


@pytest.mark.parametrize("change, match", [
    ({"successors": 4}, "theseus-4: the dense model has 4 layers, so give 1 to 3"),
    ({"successors": 0}, "theseus-0"),
])
def test_what_cannot_be_is_refused_and_the_model_left_alone(change, match):
    model = tiny()
    before = str(model)
    arguments = {"successors": 2, **USUAL} | change
    with pytest.raises(StudyError, match=match):
        Replacer(model, arguments.pop("successors"), **arguments)
    assert str(model) == before and any(p.requires_grad for p in model.classifier.parameters())
