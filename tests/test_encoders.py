"""Encoders: wherever they come from they are found, layers are kept, new weights follow the seed."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from lib.errors import StudyError
from lib.models import encoders, pretrained

LAYERS, HIDDEN, WIDTH, HEADS, VOCABULARY = 4, 32, 48, 4, 64
IDS = torch.tensor([[2, 5, 9, 17, 3], [2, 7, 8, 30, 3]])


def config(family: str):
    common = dict(vocab_size=VOCABULARY, max_position_embeddings=40)
    if family == "distilbert":
        return DistilBertConfig(dim=HIDDEN, hidden_dim=WIDTH, n_heads=HEADS, n_layers=LAYERS, **common)
    kind = {"bert": BertConfig, "roberta": RobertaConfig}[family]
    return kind(hidden_size=HIDDEN, intermediate_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=LAYERS, **common)


def folder_of(family: str, folder, dtype=torch.float32):
    torch.manual_seed(0)
    model = {"bert": BertModel, "roberta": RobertaModel, "distilbert": DistilBertModel}[family](config(family))
    with torch.no_grad():
        for layer in encoders.encoder_layers(model):
            for parameter in layer.parameters():  # far from the usual start, so that a layer's loss is seen
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.to(dtype).save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["bert", "roberta", "distilbert"])
def folder(request, tmp_path):
    return folder_of(request.param, tmp_path / request.param)


@pytest.fixture
def bert(tmp_path):
    return folder_of("bert", tmp_path / "bert")


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def head_of(model):
    return {n: p for n, p in model.named_parameters() if not n.startswith(model.base_model_prefix)}


# --- from a package

def test_offline_classifier_loads_quietly_with_its_tokenizer(capfd):
    model = pretrained.load_classifier("offline", 2, seed=0, layers=[0, 2, 4], labels=("entailment", "non-entailment"))
    tokens = pretrained.load_tokenizer("offline")("a cat", "a dog")
    assert tokens["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert model.config.num_hidden_layers == len(encoders.encoder_layers(model)) == 3
    assert model.config.id2label == {0: "entailment", 1: "non-entailment"}
    assert capfd.readouterr() == ("", "")
    whole = pretrained.load_classifier("offline", 2, seed=0)
    for kept, source in zip(encoders.encoder_layers(model), (0, 2, 4)):
        for a, b in zip(kept.parameters(), encoders.encoder_layers(whole)[source].parameters(), strict=True):
            assert torch.equal(a, b)


# --- where an encoder comes from

def test_resolve_tells_folders_from_hub_ids(bert):
    assert pretrained.resolve(bert) == (bert, {"local_files_only": True})
    assert pretrained.resolve("org/some-model", "abc") == ("org/some-model", {"revision": "abc"})
    assert pretrained.resolve("distilbert-base-uncased") == ("distilbert-base-uncased", {})


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "a/b/c", "~/no-such-folder-here", "two words"])
def test_missing_folder_is_named(name):
    with pytest.raises(StudyError, match="there is no folder"):
        pretrained.load_classifier(name, 2, seed=0)


def test_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(StudyError, match="has no config.json"):
        pretrained.resolve(str(tmp_path))


def test_broken_weights_are_told_in_one_line(bert, tmp_path):
    (tmp_path / "bert" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(StudyError, match="cannot be loaded") as caught:
        pretrained.load_classifier(bert, 2, seed=0)
    assert "\n" not in str(caught.value)


def test_unreachable_hub_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (pretrained.load_tokenizer, pretrained.depth, lambda e: pretrained.load_classifier(e, 2, seed=0)):
        with pytest.raises(StudyError, match="cannot be loaded.*'offline'.*fetch the folder") as caught:
            load("nobody/no-such-model-of-this-study")
        assert "\n" not in str(caught.value)


def test_identity_follows_the_files(bert, tmp_path):
    before = pretrained.identity(bert)
    assert before == pretrained.identity(bert)
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    with torch.no_grad():
        model.base_model.embeddings.word_embeddings.weight[7] += 1
    model.base_model.save_pretrained(tmp_path / "other")
    assert pretrained.identity(str(tmp_path / "other")) != before
    commit = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    assert pretrained.identity("org/model", commit) == f"hub org/model {commit}"


# --- layers

@pytest.mark.parametrize("layers", [[0, 1], [0, 2], [3]])
def test_kept_layers_save_and_load_plainly(folder, layers, tmp_path):
    model = pretrained.load_classifier(folder, 3, seed=1, layers=layers)
    model.save_pretrained(tmp_path / "cut")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "cut")
    assert len(encoders.encoder_layers(again)) == len(layers)
    assert torch.equal(logits_of(again), logits_of(model))
    numbers = [m.layer_idx for m in encoders.encoder_layers(model).modules() if hasattr(m, "layer_idx")]
    assert set(numbers) <= set(range(len(layers)))


def test_kept_layers_are_the_ones_asked_for(folder):
    whole = pretrained.load_classifier(folder, 2, seed=1)
    cut = pretrained.load_classifier(folder, 2, seed=1, layers=[1, 3])
    whole_layers = encoders.encoder_layers(whole)
    for kept, source in zip(encoders.encoder_layers(cut), (1, 3), strict=True):
        for a, b in zip(kept.parameters(), whole_layers[source].parameters(), strict=True):
            assert torch.equal(a, b)
    assert not torch.allclose(logits_of(whole), logits_of(cut))


@pytest.mark.parametrize("layers", [[], [0, 0], [4], [-1]])
def test_impossible_layers_are_refused(bert, layers):
    with pytest.raises(StudyError, match="0 to 3"):
        pretrained.load_classifier(bert, 2, seed=0, layers=layers)


def test_layers_for_a_compression():
    assert encoders.layers_for("truncated-3", 6) == [0, 1, 2]
    assert encoders.layers_for("truncated-3-alternate", 6) == [0, 2, 4]
    assert encoders.layers_for("truncated-6-alternate", 12) == [0, 2, 4, 6, 8, 10]
    assert encoders.layers_for("scratch-3", 6) == [0, 1, 2]
    assert encoders.layers_for("scratch-6", 6) == encoders.layers_for("dense", 6) == list(range(6))
    assert encoders.layers_for("imp-70", 6) == list(range(6))
    for name in ("truncated-6", "truncated-0", "truncated-7-alternate", "scratch-7"):
        with pytest.raises(StudyError, match="6 layers"):
            encoders.layers_for(name, 6)


# --- weights

def test_new_weights_depend_on_the_seed_only(folder):
    first = pretrained.load_classifier(folder, 3, seed=5)
    torch.rand(7)
    state = torch.get_rng_state()
    second = pretrained.load_classifier(folder, 3, seed=5, layers=[0], dropout=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    other = pretrained.load_classifier(folder, 3, seed=6)
    for name, weight in head_of(first).items():
        assert torch.equal(weight, head_of(second)[name])
        assert torch.equal(weight, head_of(other)[name]) == name.endswith("bias")


def test_embeddings_are_frozen_only_where_they_are_pretrained(folder):
    frozen = pretrained.load_classifier(folder, 2, seed=0)
    free = pretrained.load_classifier(folder, 2, seed=0, freeze_embeddings=False)
    scratch = pretrained.load_classifier(folder, 2, seed=0, from_scratch=True, layers=[0, 1])
    embeddings = {n for n, _ in frozen.named_parameters() if ".embeddings." in n}
    assert embeddings and {n for n, p in frozen.named_parameters() if not p.requires_grad} == embeddings
    assert all(p.requires_grad for model in (free, scratch) for p in model.parameters())


def test_from_scratch_has_the_shapes_and_none_of_the_weights(folder):
    trained = pretrained.load_classifier(folder, 2, seed=0, layers=[0, 1])
    scratch = pretrained.load_classifier(folder, 2, seed=0, layers=[0, 1], from_scratch=True)
    again = pretrained.load_classifier(folder, 2, seed=0, layers=[0, 1], from_scratch=True)
    other = pretrained.load_classifier(folder, 2, seed=1, layers=[0, 1], from_scratch=True)
    shapes = {n: p.shape for n, p in trained.named_parameters()}
    assert {n: p.shape for n, p in scratch.named_parameters()} == shapes
    matrices = [n for n, shape in shapes.items() if len(shape) > 1]
    for name in matrices:
        weight = scratch.get_parameter(name)
        assert torch.equal(weight, again.get_parameter(name))
        assert not torch.equal(weight, other.get_parameter(name))
        assert ".layer." not in name or not torch.allclose(weight, trained.get_parameter(name))


def test_a_classifier_in_the_checkpoint_is_kept_if_it_fits(bert, tmp_path):
    model = pretrained.load_classifier(bert, 2, seed=3)
    with torch.no_grad():
        model.classifier.weight.fill_(0.5)
    model.save_pretrained(tmp_path / "tuned")
    assert torch.equal(pretrained.load_classifier(str(tmp_path / "tuned"), 2, seed=4).classifier.weight, model.classifier.weight)
    fresh = pretrained.load_classifier(str(tmp_path / "tuned"), 3, seed=4).classifier.weight
    assert torch.equal(fresh, pretrained.load_classifier(bert, 3, seed=4).classifier.weight)


def test_weights_are_fp32_whatever_the_file_holds(tmp_path):
    model = pretrained.load_classifier(folder_of("bert", tmp_path / "half", torch.float16), 2, seed=0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_dropout_is_set_everywhere(folder):
    model = pretrained.load_classifier(folder, 2, seed=0, dropout=0.25)
    rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.25}


# --- what it costs

def test_sizes_and_flops_are_those_counted_by_hand(folder):
    model = pretrained.load_classifier(folder, 2, seed=0, layers=[0, 1])
    per_layer = 4 * HIDDEN**2 + 2 * HIDDEN * WIDTH
    size = encoders.sizes(model)
    assert size["encoder_parameters"] == 2 * per_layer
    assert size["parameters"] == sum(p.numel() for p in model.parameters())
    before = size["nonzero_parameters"]
    with torch.no_grad():
        next(m for m in encoders.encoder_layers(model)[0].modules() if isinstance(m, torch.nn.Linear)).weight.zero_()
    assert encoders.sizes(model)["nonzero_parameters"] == before - HIDDEN**2
    assert encoders.sizes(model)["nonzero_encoder_parameters"] == 2 * per_layer - HIDDEN**2
    once = HIDDEN**2 + 2 * HIDDEN  # pooler, or the classifier's first map, and the classifier
    for length in (1, 10):
        by_hand = 2 * (2 * length * per_layer + 4 * length**2 * HIDDEN) + 2 * once
        assert encoders.flops(model, length) == by_hand


def test_flops_follow_matrices_that_were_cut(bert):
    model = pretrained.load_classifier(bert, 2, seed=0)
    before = encoders.flops(model, 10)
    layer = model.bert.encoder.layer[0]
    layer.intermediate.dense = torch.nn.Linear(HIDDEN, WIDTH // 2)
    layer.output.dense = torch.nn.Linear(WIDTH // 2, HIDDEN)
    assert before - encoders.flops(model, 10) == 2 * 10 * HIDDEN * WIDTH


def test_unknown_kind_of_model_is_refused():
    model = BertForSequenceClassification(config("bert"))
    model.config.model_type = "nosuch"
    with pytest.raises(StudyError, match="type 'nosuch' cannot be trained or compressed here: take a BERT, RoBERTa"):
        encoders.encoder_layers(model)
