"""Every family of encoders through every compression: trained, saved, loaded again; refused where it cannot be."""

import copy
import dataclasses

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    GPT2Config,
    T5Config,
    XLNetConfig,
)

from lib.errors import StudyError
from lib.models import (
    batches,
    encoders,
    families,
    loop,
    losses,
    magnitude,
    make,
    pretrained,
    quantization,
    recipes,
    structured,
    theseus,
    transfer,
)
from lib.tasks import registry
from lib.trials import costs, your_model

LAYERS, HEADS = 4, 4
PLAN = loop.Plan(steps=3, batch_size=8, learning_rate=2e-3, warmup=0.0, weight_decay=0.01, dtype="fp32", device="cpu",
                 seed=0)
LAYERED = [family for family in tiny.EVERY if family != "albert"]  # their layers have weights of their own
ROWS = dataclasses.replace(tiny.rows(16), token_type_ids=[np.arange(n) // 3 % 2 for n in tiny.rows(16).lengths])
LABELS = torch.as_tensor(ROWS.labels)


def model_of(family, layers=LAYERS, **changes):
    model = tiny.classifier(family, layers=layers, width=32, ffn=48, heads=HEADS, **changes)
    encoders.freeze_embeddings(model)
    return model


def cross_entropy(logits, rows):
    return F.cross_entropy(logits, LABELS[rows])


def fit(model, objective=cross_entropy, dtype="fp32", **changes):
    log, _ = loop.fit(model, ROWS, objective, dataclasses.replace(PLAN, dtype=dtype), **changes)
    assert np.isfinite(log["loss"]).all()
    return model


def logits_of(model):
    return loop.predict(model, ROWS, dtype="fp32", device="cpu")


def again(model, folder):
    model.save_pretrained(folder)
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


# --- compressions: each gives the model that is saved

def imp(model):
    pruner = magnitude.MagnitudePruner(model, 0.7, steps=3, warmup=0.0, cooldown=0.0, interval=1)
    fit(model, after_step=pruner.after_step)
    size, found = encoders.sizes(model), magnitude.measured_sparsity(model)
    left = size["encoder_parameters"] - round(0.7 * size["encoder_parameters"])
    assert size["nonzero_encoder_parameters"] == left
    assert found["sparsity_encoder"] == round(0.7 * size["encoder_parameters"]) / size["encoder_parameters"]
    return model


def truncated(model):
    return fit(encoders.keep_layers(model, [0, 2]))


def replaced(model):
    dense = copy.deepcopy(model)
    replacer = theseus.Replacer(model, 2, schedule="linear", start=0.5, rate=0.5, share=0.5, steps=3, seed=0)
    replacer.p = 0.0
    model.train()
    everything = loop.inputs(model, ROWS, np.arange(16), "cpu")
    assert torch.equal(model(**everything).logits, dense(**everything).logits), "at p = 0 it is its teacher"
    fit(model, after_step=replacer.after_step)
    return replacer.successor()


def heads(model):
    importance = structured.head_importance(model, ROWS, "cpu")
    pruner = structured.HeadPruner(model, importance, 0.5)
    fit(model, after_step=pruner.after_step)
    cut = structured.cut_heads(model)
    np.testing.assert_allclose(logits_of(cut), logits_of(model), atol=1e-5)
    assert encoders.sizes(cut)["parameters"] < encoders.sizes(model)["parameters"]
    assert encoders.flops(cut, 9) < encoders.flops(model, 9)
    assert encoders.flops(cut, 9) == counted(cut, 9)
    return model


def ffn(model):
    importance = structured.ffn_importance(model)
    for parts in encoders.layer_parts(model):  # half the neurons do nothing, so cutting them changes nothing
        parts["ffn_out"].weight.data[:, ::2] = 0
    before = logits_of(model)
    structured.cut_ffn(model, structured.ffn_importance(model), 0.5)
    np.testing.assert_allclose(logits_of(model), before, atol=1e-5)
    assert importance.shape == (LAYERS, 48) and structured.ffn_importance(model).shape == (LAYERS, 24)
    return fit(model)


def taught(kind):
    def follow(model):
        teacher = copy.deepcopy(model)
        student = encoders.keep_layers(model, [0, 1])
        with transfer.objective(cross_entropy, student, teacher, kind, 1.0) as objective:
            return fit(student, objective)
    return follow


COMPRESSIONS = {"dense": fit, "imp": imp, "truncated": truncated, "theseus": replaced, "heads": heads, "ffn": ffn,
                "pkd": taught("pkd"), "tinybert": taught("tinybert")}


@pytest.mark.parametrize("family, compression", [
    (family, one) for family in tiny.EVERY for one in COMPRESSIONS if family in LAYERED or one in ("dense", "imp")])
def test_a_compressed_model_is_loaded_plainly(family, compression, tmp_path):
    model = model_of(family)
    start = logits_of(model)
    made = COMPRESSIONS[compression](model)
    assert not np.allclose(logits_of(made), start)
    assert np.array_equal(logits_of(again(made, tmp_path)), logits_of(made))


@pytest.mark.parametrize("kind", quantization.KINDS)
@pytest.mark.parametrize("family", tiny.EVERY)
def test_a_quantised_model_is_loaded_as_it_was(family, kind, tmp_path):
    model = model_of(family, layers=2)
    parts = [part for one in encoders.layer_parts(model) for part in one.values()]
    if kind == "ptq4":
        structured.cut_ffn(model, structured.ffn_importance(model), 1 / 3)  # to groups of 32
    if kind == "qat8":
        fit(quantization.prepare(model))
    quantization.quantize(model, kind)
    assert all(hasattr(one.weight, "qdata") for part in encoders.layer_parts(model) for one in part.values())
    assert sum(hasattr(p, "qdata") for p in model.parameters()) == len(parts)
    model.save_pretrained(tmp_path)
    assert np.array_equal(logits_of(quantization.load(tmp_path)), logits_of(model))


@pytest.mark.parametrize("loss", losses.NAMES)
@pytest.mark.parametrize("family", tiny.EVERY)
def test_every_loss_trains_every_family(family, loss):
    model = model_of(family, layers=2)
    teacher = torch.as_tensor(logits_of(model))
    objective = losses.objective(loss, LABELS, teacher_logits=teacher, strength=torch.full((16,), 0.5),
                                 weights=torch.ones(16))
    fit(model, objective, dtype="bf16" if loss == "vanilla" else "fp32")
    assert not np.allclose(logits_of(model), teacher)


# --- from a pretrained encoder's folder

@pytest.mark.parametrize("family", tiny.EVERY)
def test_a_pretrained_encoder_is_loaded_with_a_new_classifier(family, tmp_path):
    base = model_of(family).base_model
    base.save_pretrained(tmp_path)
    layers = [0, 1] if family != "albert" else [0, 1, 2, 3]
    model = pretrained.load_classifier(str(tmp_path), 3, seed=1, layers=layers, dropout=0.25)
    again = pretrained.load_classifier(str(tmp_path), 3, seed=1, layers=layers)
    other = pretrained.load_classifier(str(tmp_path), 3, seed=2, layers=layers)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    loaded = base.state_dict()
    for name, weight in model.base_model.state_dict().items():
        assert ".pooler." in f".{name}" or torch.equal(weight, loaded[name]), name
    assert model.num_labels == 3 and not np.array_equal(logits_of(model), logits_of(other))
    assert all(p.requires_grad for p in pretrained.load_classifier(str(tmp_path), 3, seed=1, from_scratch=True).parameters())


# --- what is counted

def counted(model, length):
    """Operations of one forward pass of one row, as torch counts them."""
    model.set_attn_implementation("eager")
    types = {"token_type_ids": torch.zeros(1, length, dtype=torch.long)} if families.takes_types(model) else {}
    ids = torch.full((1, length), 5)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), **types)
    return counter.get_total_flops()


@pytest.mark.parametrize("length", [1, 9, 30])
@pytest.mark.parametrize("family", tiny.EVERY)
def test_flops_are_those_that_torch_counts(family, length):
    model = model_of(family, layers=3)
    assert encoders.flops(model, length) == counted(model, length)


# --- embeddings, token types, positions

POSITIONS = {"mpnet": "encoder.relative_attention_bias.weight", "electra": "embeddings_project.weight",
             "albert": "encoder.embedding_hidden_mapping_in.weight", "deberta-v3": "encoder.rel_embeddings.weight"}


@pytest.mark.parametrize("family", tiny.EVERY)
def test_embeddings_and_what_tells_positions_are_frozen_together(family):
    model = model_of(family)
    frozen = {name for name, p in model.base_model.named_parameters() if not p.requires_grad}
    assert POSITIONS.get(family, next(iter(frozen))) in frozen
    inside = [p for layer in encoders.encoder_layers(model) for p in layer.parameters()]
    assert all(p.requires_grad for p in inside)
    assert all(name.startswith("embeddings") or "relative" in name or "rel_" in name or "encoder.LayerNorm" in name
               or "mapping_in" in name for name in frozen)


@pytest.mark.parametrize("family, types", [("bert", True), ("roberta", False), ("distilbert", False), ("mpnet", False),
                                           ("electra", True), ("albert", True), ("deberta-v2", False),
                                           ("modernbert", False)])
def test_token_types_are_given_to_those_that_take_them(family, types):
    assert ("token_type_ids" in loop.inputs(model_of(family, layers=1), ROWS, np.arange(3), "cpu")) is types


@pytest.mark.parametrize("family, most", [("bert", 40), ("roberta", 39), ("mpnet", 38), ("modernbert", 40)])
def test_the_longest_input_is_known(family, most):
    model = model_of(family, layers=1)
    assert families.most_tokens(model.config) == most
    ids = torch.full((1, most), 5)
    model(input_ids=ids, attention_mask=torch.ones_like(ids))
    if family in ("roberta", "mpnet"):
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, most + 1), 5))


# --- what a student copies

@pytest.mark.parametrize("family", LAYERED)
def test_attention_scores_are_those_of_the_model(family):
    """The softmax of the scores that TinyBERT compares is what the layer's attention gives."""
    model = model_of(family)
    model.set_attn_implementation("eager")
    inputs = loop.inputs(model, ROWS, np.array([3]), "cpu")
    seen = []

    def keep(student, teacher, mask):
        seen.append(student)
        return student.sum() * 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "attention_mse", keep)
        with transfer.objective(lambda logits, rows: logits.sum(), model.train(), copy.deepcopy(model), "tinybert", 1.0) as total:
            total(model(**inputs).logits, torch.tensor([3]))
    shown = model.eval()(**inputs, output_attentions=True).attentions
    assert len(seen) == len(shown) == LAYERS
    for i, (scores, attention) in enumerate(zip(seen, shown)):
        if family == "modernbert" and model.config.layer_types[i] == "sliding_attention":
            near = (torch.arange(scores.shape[-1])[:, None] - torch.arange(scores.shape[-1])).abs() <= 2
            scores = scores.masked_fill(~near, -1e9)
        torch.testing.assert_close(scores.softmax(-1), attention, atol=1e-5, rtol=1e-4)


# --- layers of two kinds

def test_a_layer_keeps_its_own_kind_of_attention(tmp_path):
    model = encoders.keep_layers(model_of("modernbert"), [0, 3, 1])
    assert model.config.layer_types == ["full_attention", "full_attention", "sliding_attention"]
    assert np.array_equal(logits_of(again(model, tmp_path)), logits_of(model))
    with pytest.raises(StudyError, match="no norm before its layer 0"):
        encoders.keep_layers(model_of("modernbert"), [1, 2])


# --- what is refused, before anything is trained

@pytest.fixture
def encoder(tiny_run, tmp_path):
    """Writes a folder with the tiny run's tokenizer and another config, no weights; gives the run that takes it."""
    def write(config, **changes):
        folder = tmp_path / config.model_type
        AutoTokenizer.from_pretrained(tiny_run.encoder).save_pretrained(folder)
        config.save_pretrained(folder)
        return tiny_run.model_copy(update={"encoder": str(folder)} | changes)
    return write


def of_family(family, layers=4):
    return tiny.classifier(family, layers=layers, width=32, ffn=48, heads=HEADS).config


@pytest.mark.parametrize("config", [GPT2Config(), T5Config(), XLNetConfig()], ids=lambda config: config.model_type)
def test_an_unknown_encoder_is_refused_from_its_config(encoder, micro, config):
    run = encoder(config)
    told = f"encoder '{run.encoder}': a model of type '{config.model_type}' cannot be trained .* take a BERT, .* encoder$"
    for refuse in (lambda: recipes.check(run, ["dense"]), lambda: make.model(run, micro, "untrained")):
        with pytest.raises(StudyError, match=told):
            refuse()


@pytest.mark.parametrize("name, what", [
    ("truncated-2", "truncated-2"), ("scratch-2", "scratch-2"), ("theseus-2 + ptq8", "theseus-2"), ("dense + pkd", "pkd"),
    ("dense + tinybert", "tinybert")])
def test_layers_that_are_shared_are_not_taken_apart(encoder, name, what):
    run = encoder(of_family("albert"), encoder_layers=0)
    with pytest.raises(StudyError, match=f"'{run.encoder}': ALBERT shares its layers, so there is no {what} of it: take dense, imp"):
        recipes.check(run, ["dense", name])
    recipes.check(run, ["dense", "imp-70 + rmc", "dense + distil", "dense + qat8", "imp-70 + ptq8"])


@pytest.mark.parametrize("name", ["heads-50", "ffn-50"])
def test_shared_layers_are_not_narrowed(encoder, name):
    run = encoder(of_family("albert"), encoder_layers=0)
    with pytest.raises(StudyError, match=f"no {name} of it"):
        make.check(run, name)


def test_what_is_refused_is_not_begun(encoder, micro):
    with pytest.raises(StudyError, match="no truncated-2 of it"):  # before the weights, which are missing, are asked for
        make.model(encoder(of_family("albert"), encoder_layers=0), micro, "truncated-2")


def test_shared_layers_cannot_be_fewer(encoder):
    with pytest.raises(StudyError, match="ALBERT shares its layers, so none can be left out: set encoder_layers to 0"):
        recipes.check(encoder(of_family("albert"), encoder_layers=3), ["dense"])
    model = model_of("albert")
    assert encoders.keep_layers(model, range(LAYERS)) is model
    with pytest.raises(StudyError, match="shares its layers"):
        encoders.keep_layers(model, [0, 1])


def test_what_an_encoder_has_too_few_layers_for_is_refused(encoder):
    run = encoder(of_family("mpnet"))
    recipes.check(run, ["dense", "truncated-3", "scratch-4", "theseus-3"])
    for name in ("truncated-4", "scratch-5", "theseus-4"):
        with pytest.raises(StudyError, match="the dense model has 4 layers"):
            recipes.check(run, ["dense", f"{name} + ptq8"])


def test_a_convolution_between_layers_is_not_replaced(encoder):
    run = encoder(DebertaV2Config(num_hidden_layers=4, conv_kernel_size=3))
    recipes.check(run, ["dense", "truncated-2"])
    with pytest.raises(StudyError, match="a convolution after its first layer, so there is no theseus-2"):
        recipes.check(run, ["theseus-2"])


# --- through the study, by name

@pytest.mark.parametrize("family", ["mpnet", "albert", "deberta-v3", "modernbert"])
def test_models_are_made_by_their_names(tiny_run, micro, tmp_path, family):
    tokenizer = AutoTokenizer.from_pretrained(tiny_run.encoder)
    tiny.classifier(family, layers=4, width=32, ffn=48, heads=HEADS, positions=64,
                    vocabulary=len(tokenizer)).base_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    run = tiny_run.model_copy(update={"encoder": str(tmp_path), "encoder_layers": 0, "epochs": 0.25, "qat_epochs": 0.25,
                                      "tinybert_weight": 1.0, "pkd_weight": 1.0})
    dense = make.model(run, micro, "dense", make.Extras(predict_train=True))
    wanted = ["imp-50 + qat8", "dense + distil"]
    if family != "albert":
        wanted += ["truncated-2-alternate + tinybert", "theseus-2 + ptq8"]
    made = recipes.follow_all(run, micro, wanted, {"dense": dense})
    if family != "albert":
        made |= {name: make.model(run, micro, name, make.Extras(start=dense)) for name in ("heads-50", "ffn-50")}
    for name, model in made.items():
        network = AutoModelForSequenceClassification.from_pretrained(model.path).eval()
        encoded = batches.encode(AutoTokenizer.from_pretrained(model.path), micro[micro["split"] == "test"], run.max_length)
        logits = loop.predict(network, encoded, dtype="fp32", device="cpu")
        np.testing.assert_allclose(logits, model.logits(micro, "test"), atol=1e-5, err_msg=name)
        assert model.record["flops_per_example"] > 0 and 0 <= model.record["sparsity_encoder"] < 1
        np.testing.assert_allclose(loop.predict(make.load(model), encoded, dtype="fp32", device="cpu"), logits, atol=1e-4)
    assert made["imp-50"].record["sparsity_encoder"] == 0.5


# --- classifiers of any kind are predicted

@pytest.fixture
def stranger(tiny_run, tmp_path):
    """Writes a finished classifier of a kind that is not in the table, with a tokenizer of the micro-world's words."""
    def write(config, side="right"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_run.encoder, padding_side=side)
        config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
        config.id2label = dict(enumerate(registry.get("micro_nli").labels))
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            parameter.data.mul_(4)
        pretrained.save(model, tokenizer, tmp_path / "theirs")
        return str(tmp_path / "theirs")
    return write


GPT2 = dict(n_embd=16, n_layer=2, n_head=2, n_positions=64)
XLNET = dict(d_model=16, n_layer=2, n_head=2, d_inner=24)


@pytest.mark.parametrize("config, side", [(GPT2Config(**GPT2), "right"), (XLNetConfig(**XLNET), "left")],
                         ids=["gpt2", "xlnet"])
def test_a_finished_classifier_of_another_kind_is_predicted(stranger, micro, config, side):
    task = registry.get("micro_nli")
    theirs = your_model.load(stranger(config, side), task)
    rows = micro[micro["split"] == "test"].head(12)
    found = np.stack(your_model.predict(theirs, rows, max_length=48)["logits"].to_numpy())
    assert theirs.layers == 2
    for one, row in zip(found, rows.itertuples()):  # alone, so without padding
        with torch.no_grad():
            alone = theirs.model(**theirs.tokenizer(row.text_a, row.text_b, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(one, alone.numpy(), atol=1e-5)
    assert len(np.unique(found.round(4), axis=0)) > 6
    size = encoders.sizes(theirs.model)
    assert size["parameters"] > 0 and np.isnan(size["encoder_parameters"]) and np.isnan(encoders.flops(theirs.model, 9))
    asked = your_model.victim(theirs, 48)
    asked.logits(rows["text_a"], rows["text_b"])
    timed = costs.measure({"theirs": theirs.model}, length=8, threads=1, paths=("eager",), batch_sizes=(1, 2), runs=1)
    assert timed["latency_ms"].notna().all(), timed["note"].tolist()
