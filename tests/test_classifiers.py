"""Finished classifiers of any kind: loaded, padded, refused in one line, looked through; and the noise of running them."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tokenizers import processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    FNetConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    T5Config,
    XLNetConfig,
)

from lib import store
from lib.errors import StudyError
from lib.models import batches, classifiers, encoders, inspection, pretrained, quantization
from lib.tasks import registry
from lib.trials import noise, your_model

TASK = registry.get("micro_nli")
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
CONFIGS = {
    "bert": BertConfig(**SMALL, max_position_embeddings=64),
    "modernbert": ModernBertConfig(**SMALL, max_position_embeddings=64, bos_token_id=1, cls_token_id=1, eos_token_id=2,
                                   sep_token_id=2),
    "deberta": DebertaV2Config(**SMALL, max_position_embeddings=64, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2),
    "llama": LlamaConfig(**SMALL, max_position_embeddings=64, bos_token_id=1, eos_token_id=2),
    "t5": T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, eos_token_id=2, decoder_start_token_id=0),
    "fnet": FNetConfig(hidden_size=32, num_hidden_layers=2, intermediate_size=64, max_position_embeddings=64,
                       tpu_short_seq_length=64),
    "xlnet": XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=64),
}
JUDGE = "judge its predictions: python -m lib.tools.judge --task TASK --parent P.csv --model M.csv"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory, micro, tiny_encoder):
    """A folder with a tokenizer of the micro-world's words."""
    return tiny_encoder(tmp_path_factory.mktemp("words"), micro["text_a"].tolist() + micro["text_b"].tolist())


@pytest.fixture
def written(vocabulary, tmp_path):
    """Writes a finished classifier with random weights, large enough that answers differ, and gives its folder."""
    def write(kind, folder="model", side="right", pad=0, labels=TASK.labels, change=None, **settings):
        tokenizer = AutoTokenizer.from_pretrained(vocabulary, padding_side=side)
        if kind == "t5":  # it answers at the end token, [SEP], and wants one only
            tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single="$A [SEP]", pair="$A $B:1 [SEP]:1", special_tokens=[("[SEP]", 2)])
        config = CONFIGS[kind].__class__.from_dict(CONFIGS[kind].to_dict() | settings)
        config.vocab_size, config.pad_token_id = len(tokenizer), pad
        config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            parameter.data.mul_(4)
        if change:
            change(model)
        pretrained.save(model, tokenizer, tmp_path / folder)
        return tmp_path / folder
    return write


def settings(folder, name="config.json", **changes):
    """Changes a folder's config; a value of None takes the key out."""
    config = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def weights(folder, change):
    """Writes the folder's weights anew, each as `change` of its name and tensor: a dict."""
    path = folder / "model.safetensors"
    held = {new: t.contiguous() for name, old in load_file(path).items() for new, t in change(name, old).items()}
    save_file(held, path, metadata={"format": "pt"})
    return folder


def alone(subject, rows):
    """Logits of each row asked alone, so without padding."""
    with torch.no_grad():
        return np.stack([subject.model(**subject.tokenizer(row.text_a, row.text_b, return_tensors="pt")).logits[0].numpy()
                         for row in rows.itertuples()])


# --- any architecture, padded on any side

@pytest.mark.parametrize("kind, side", [  # XLNet answers at its last token, so its own tokenizer pads on the left
    (kind, side) for kind in ("bert", "modernbert", "deberta", "gpt2", "llama", "t5") for side in ("left", "right")]
    + [("xlnet", "left")])
def test_any_architecture_is_judged_by_folder_and_answers_as_it_does_alone(written, micro, kind, side):
    subject = your_model.load(str(written(kind, side=side)), TASK)
    rows = micro[micro["split"] == "test"].head(12)
    table = your_model.predict(subject, rows, 48)
    store.check_predictions(table, rows)
    found = np.stack(table["logits"])
    np.testing.assert_allclose(found, alone(subject, rows), atol=2e-4)
    assert len(np.unique(found.round(4), axis=0)) > 6
    assert subject.layers == 2 and subject.stored == "F32" and inspection.inspect(subject.model, "F32").layers == 2


def test_positions_of_a_left_padded_gpt2_are_kept_by_padding_right_and_said(written):
    left, right = classifiers.load(str(written("gpt2", side="left"))), classifiers.load(str(written("gpt2", "other")))
    assert left.tokenizer.padding_side == right.tokenizer.padding_side == "right" and right.notes == ()
    assert left.notes == ("It pads on the right, not the left as its tokenizer has it: only so is each row answered as alone.",)
    assert left.model.config.use_cache is False
    left.tokenizer.padding_side = "left"
    assert classifiers.padding_drift(left.model, left.tokenizer) > 5 * classifiers.DRIFT
    llama = classifiers.load(str(written("llama", "llama", side="left")))
    assert llama.tokenizer.padding_side == "left" and llama.notes == ()


def test_a_model_that_sees_its_padding_is_said_to(written):
    assert "What it answers depends on the padding beside a row" in classifiers.load(str(written("fnet"))).notes[-1]


@pytest.mark.parametrize("told, tokens, pads, says", [
    (None, {}, "[PAD]", "names no pad_token_id: it pads with its tokenizer's padding, '[PAD]'"),
    (-1, {}, "[PAD]", "names no pad_token_id: it pads with its tokenizer's padding, '[PAD]'"),
    (None, {"pad_token": None, "eos_token": "[SEP]"}, "[SEP]", "pads with its tokenizer's end token, '[SEP]'"),
    (3, {}, "[UNK]", "pads with '[UNK]', as its config.json says; its tokenizer says [PAD]"),
    (0, {"pad_token": None}, "[PAD]", "pads with '[PAD]', as its config.json says; its tokenizer says nothing")])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_model_and_tokenizer_pad_with_one_token(written, micro, kind, told, tokens, pads, says):
    folder = settings(written(kind), pad_token_id=told)
    settings(folder, "tokenizer_config.json", **tokens)
    subject = your_model.load(str(folder), TASK)
    assert subject.tokenizer.pad_token == pads and len(subject.notes) == 1 and says in subject.notes[0]
    assert subject.model.config.pad_token_id == subject.tokenizer.pad_token_id
    rows = micro[micro["split"] == "test"].head(6)
    found = np.stack(your_model.predict(subject, rows, 48)["logits"])
    np.testing.assert_allclose(found, alone(subject, rows), atol=2e-4)


def test_a_row_longer_than_the_model_reads_is_cut_at_its_own_limit(written, micro):
    subject = your_model.load(str(written("gpt2", n_positions=8)), TASK)
    rows = micro[micro["split"] == "test"].head(4)
    assert your_model.cap(subject, 48) == 8 and your_model.cap(subject, 5) == 5
    assert len(your_model.predict(subject, rows, 48)) == 4
    your_model.victim(subject, 48).logits(rows["text_a"], rows["text_b"])


# --- what is refused, in one line

def foreign(name):
    def make(folder):
        (folder / "model.safetensors").rename(folder / name)
        return folder
    return make


def as_file(name):
    return lambda folder: shutil.copy(folder / "config.json", folder.parent / name)


def quantised(method, **more):
    return lambda folder: settings(folder, quantization_config={"quant_method": method} | more)


def narrowed(name, size):
    return lambda folder: weights(folder, lambda key, t: {key: t[:size] if name in key else t})


def renamed(change):
    return lambda folder: weights(folder, lambda key, t: {change(key): t})


def only(prefix):
    return lambda folder: weights(folder, lambda key, t: {key.removeprefix(prefix): t} if key.startswith(prefix) else {})


REFUSED = {
    "gptq": (quantised("gptq", bits=4, group_size=128), f"was made by gptq, which is not run here: {JUDGE}"),
    "awq": (quantised("awq", bits=4), f"was made by awq, .*{JUDGE}"),
    "bitsandbytes": (quantised("bitsandbytes", load_in_8bit=True), f"was made by bitsandbytes, .*{JUDGE}"),
    "bitsandbytes of old": (lambda f: settings(f, quantization_config={"load_in_4bit": True}), "was made by bitsandbytes"),
    "compressed-tensors": (quantised("compressed-tensors"), f"was made by compressed-tensors, .*{JUDGE}"),
    "integers": (lambda f: weights(f, lambda key, t: {key: t.char()}), "holds integers .* that a quantiser it does not name made"),
    "own integers": (lambda f: quantised("mine")(weights(f, lambda key, t: {key: t.char()})), "holds integers .* that mine made"),
    "gguf": (foreign("model-q4_k_m.gguf"), f"was made for llama.cpp \\(GGUF\\), .*{JUDGE}"),
    "onnx": (foreign("model.onnx"), f"was made for ONNX, .*{JUDGE}"),
    "engine": (foreign("model.engine"), f"was made for TensorRT, .*{JUDGE}"),
    "gguf file": (as_file("m.gguf"), f"was made for llama.cpp \\(GGUF\\), .*{JUDGE}"),
    "onnx file": (as_file("m.onnx"), f"was made for ONNX, .*{JUDGE}"),
    "plan file": (as_file("m.plan"), f"was made for TensorRT, .*{JUDGE}"),
    "pickle": (foreign("pytorch_model.bin"), "in pytorch_model.bin, a pickle, .*from_pretrained.*save_pretrained"),
    "other name": (foreign("weights.safetensors"), "holds no model.safetensors"),
    "adapter": (lambda f: foreign("adapter_model.safetensors")(settings_of_adapter(f)), "an adapter .*merge_and_unload"),
    "heads": (lambda f: narrowed("layer.0.attention.self", 16)(settings(f, pruned_heads={"0": [1, 2]})),
              "bert.encoder.layer.0.attention.self.key.weight is 16 x 32 in its file, 32 x 32 by .*pruned_heads"),
    "width": (narrowed("layer.1.intermediate", 48),
              "bert.encoder.layer.1.intermediate.dense.weight is 48 x 32 in its file, 64 x 32 by its config.json"),
    "base model": (only("bert."), "is no finished classifier: its file lacks 'classifier.bias'"),
    "another model": (renamed(lambda key: key.replace("query", "q")), "its file lacks 'bert.*query.*it holds 'bert.*q.bias'"),
    "kind unknown": (lambda f: settings(f, model_type="mine"), f"of type 'mine', which transformers .* does not know, and code .*{JUDGE}"),
    "no head": (lambda f: settings(f, model_type="mamba"), f"of type 'mamba', of which transformers .* has no classifier: {JUDGE}"),
    "damaged": (lambda f: (f / "model.safetensors").write_bytes(b"12345678") and f, "cannot be loaded"),
    "one class": (lambda f: settings(f, id2label={"0": "entailment"}, label2id={"entailment": 0}), "classifier.* by its config"),
    "gptq, no weights yet": (lambda f: foreign("model.bin")(quantised("gptq")(f)), "was made by gptq"),
    "no json": (lambda f: (f / "config.json").write_text("{") and f, "cannot be run here .*JSONDecodeError"),
    "no weights": (lambda f: weights(f, lambda key, t: {}), "model.safetensors holds no weights"),
    "no pad": (lambda f: settings(f, "tokenizer_config.json", pad_token=None) and settings(f, pad_token_id=99999),
               "names no pad_token_id, its tokenizer neither"),
}


def settings_of_adapter(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


@pytest.mark.parametrize("make, says", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_run_is_refused_in_one_line(written, make, says):
    place = make(written("bert"))
    with pytest.raises(StudyError, match=f"(?s)^(encoder ')?{place}.*{says}") as error:
        your_model.load(str(place), TASK)
    assert "\n" not in str(error.value)


def test_a_causal_model_is_no_classifier(written, vocabulary):
    folder = written("llama")
    config = LlamaConfig.from_pretrained(folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    with pytest.raises(StudyError, match="is no finished classifier: its file lacks 'score.weight'"):
        your_model.load(str(folder), TASK)


@pytest.mark.parametrize("wrap, why", [
    (lambda key: f"module.{key}", "data-parallel"), (lambda key: f"_orig_mod.{key}", "torch.compile"),
    (lambda key: f"_orig_mod.module.{key}", "torch.compile"), (lambda key: f"module._orig_mod.{key}", "torch.compile"),
    (lambda key: key.replace("layer.0.", "layer.0._orig_mod."), "torch.compile")])
def test_a_wrappers_names_are_taken_off_and_said(written, wrap, why):
    plain = classifiers.load(str(written("bert")))
    found = classifiers.load(str(renamed(wrap)(written("bert", "wrapped"))))
    assert len(found.notes) == 1 and why in found.notes[0] and plain.notes == ()
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, found.model.state_dict()[name]), name


def test_floats_under_an_unknown_quantisation_run_and_are_called_fp32(written, micro):
    plain = your_model.load(str(written("bert")), TASK)
    found = your_model.load(str(quantised("my_own_rounding", bits=3)(written("bert", "rounded"))), TASK, dtype="bf16")
    assert not your_model.is_quantized(found.model) and found.dtype == "bf16"
    assert "'my_own_rounding'" in found.notes[0] and "called, fp32" in found.notes[0]
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), found.model.parameters()))


def test_weights_without_a_place_are_said(written):
    more = weights(written("bert"), lambda key, t: {key: t} | {key.replace("layer.1", "layer.2"): t.clone()})
    assert "Its file holds 16 weights that the model of its config.json has no place for, such as bert.encoder.layer.2" \
        in classifiers.load(str(more)).notes[0]


def test_classes_named_for_another_number_are_told_as_such(written):
    folder = written("bert", labels=("entailment", "neutral", "contradiction"))
    with pytest.raises(StudyError, match="^labels names 2 classes .* has 3 \\(entailment, neutral, contradiction\\)"):
        your_model.load(str(folder), TASK, labels=list(TASK.labels))
    with pytest.raises(StudyError, match="class 'entailment' is named twice"):
        your_model.load(str(written("bert", "two")), TASK, labels=["entailment", "entailment"])


# --- what is in it

def pruned(share):
    def change(model):
        for parts in encoders.layer_parts(model):
            for part in parts.values():
                w = part.weight.data
                w[w.abs() <= w.abs().flatten().kthvalue(int(share * w.numel())).values] = 0
    return change


def rounded(levels, group=None):
    def change(model):
        for parts in encoders.layer_parts(model):
            for part in parts.values():
                w = part.weight.data.view(-1, group or part.in_features)
                scale = w.abs().amax(1, keepdim=True) / levels
                w.copy_((w / scale).round() * scale)
    return change


WIDE = dict(hidden_size=384, intermediate_size=512)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta"])
def test_sparsity_is_that_of_the_studys_encoder_weights(written, kind):
    found = classifiers.load(str(written(kind, change=pruned(0.7))))
    size = encoders.sizes(found.model)
    seen = inspection.inspect(found.model, found.stored)
    assert seen.sparsity == pytest.approx(1 - size["nonzero_encoder_parameters"] / size["encoder_parameters"]) and seen.sparsity > 0.69
    assert seen.parameters == size["parameters"] and seen.bits == 32 and seen.faults == ()
    assert all(share == pytest.approx(0.7, abs=0.01) for share in seen.sparsity_of.values())


@pytest.mark.parametrize("family", tiny.EVERY)
def test_the_maps_that_are_looked_at_are_those_that_the_study_prunes(family):
    model = tiny.classifier(family)
    maps = sum(len(weights) for weights in inspection.maps(model).values())
    assert maps == sum(len(parts) for parts in encoders.layer_parts(model))


@pytest.mark.parametrize("change, size, bits", [
    (None, WIDE, 32), (rounded(127), WIDE, 8), (rounded(7), WIDE, 4), (rounded(7, 32), WIDE, 4), (rounded(3), WIDE, 3),
    (rounded(7), {}, 4), (rounded(127), {}, None), (None, {}, 32), (lambda m: m.half(), WIDE, 16),
    (lambda m: m.bfloat16(), WIDE, 16), (pruned(0.95), WIDE, 32), (pruned(1.0), WIDE, None)])
def test_bits_are_told_by_the_values_of_a_row_or_not_known(written, change, size, bits):
    found = classifiers.load(str(written("bert", change=change, **size)))
    assert inspection.inspect(found.model, found.stored).bits == bits


def test_bits_and_zeros_of_a_decoder_are_those_of_its_rows(written):
    def change(model):
        for block in model.transformer.h:
            w = block.mlp.c_fc.weight.data  # [in, out]
            scale = w.abs().amax(0, keepdim=True) / 7
            w.copy_((w / scale).round() * scale)
            block.attn.c_attn.weight.data[:16] = 0
    seen = inspection.inspect(classifiers.load(str(written("gpt2", change=change, n_embd=64))).model, "F32")
    assert seen.bits is None and seen.bits_of["mlp.c_fc"] == 4 and seen.bits_of["attn.c_proj"] == 32
    assert seen.sparsity_of["attn.c_attn"] == 0.25 and "attn.c_attn 25%" in seen.lines()[1] and "mlp.c_fc 4" in seen.lines()[2]


@pytest.mark.parametrize("kind, bits", [("ptq8", 8), ("ptq4", 4)])
def test_integers_of_torchao_are_counted_as_stored(written, kind, bits):
    model = quantization.quantize(classifiers.load(str(written("bert", change=pruned(0.5)))).model, kind)
    quantization.save(model, pretrained.load_tokenizer(str(written("bert", "words"))), written("bert").parent / "int")
    found = classifiers.load(str(written("bert").parent / "int"))
    seen = inspection.inspect(found.model, found.stored)
    assert seen.bits == bits and 0.49 < seen.sparsity < 0.7 and seen.faults == ()


@pytest.mark.parametrize("change, says", [
    (lambda head: head.weight.zero_(), "classifier.weight of the classifier is all zero"),
    (lambda head: head.weight.copy_(head.weight[:1].expand(2, -1)), "is the same for every class"),
    (lambda head: head.weight.fill_(0.5), "is the same for every class"),
    (lambda head: head.weight.copy_(torch.tensor([[1.0], [2.0]]).expand(2, 32)), "has rows of one number each"),
    (lambda head: head.bias.fill_(float("nan")), "classifier.bias and 0 more hold numbers that are not finite")])
def test_a_broken_classifier_is_seen(written, change, says):
    with torch.no_grad():
        found = classifiers.load(str(written("bert", change=lambda model: change(model.classifier))))
    faults = inspection.inspect(found.model, found.stored).faults
    assert len(faults) == 1 and says in faults[0]


def test_a_model_without_layers_of_linear_maps_is_not_known(written):
    model = classifiers.load(str(written("bert"))).model
    model.bert.encoder.layer = torch.nn.ModuleList()
    seen = inspection.inspect(model, "F32")
    assert seen.sparsity is None and seen.bits is None and "not known" in seen.lines()[1] and "not known" in seen.lines()[2]


# --- two tokenizers

def test_what_differs_between_two_tokenizers_is_a_line_each(written, tmp_path):
    parent = your_model.load(str(written("llama")), TASK, name="parent")
    folder = written("llama", "other", side="left")
    settings(folder, "tokenizer_config.json", model_max_length=20, cls_token="[SEP]")
    told = json.loads((folder / "tokenizer.json").read_text())
    told["normalizer"] = {"type": "Lowercase"}
    told["model"]["vocab"]["one-more"] = len(told["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(told))
    weights(settings(folder, vocab_size=len(told["model"]["vocab"])),
            lambda key, t: {key: torch.cat([t, t[:1]]) if "embed_tokens" in key else t})
    mine = your_model.load(str(folder), TASK, name="mine")
    lines = your_model.tokenizers_differ(mine, parent).splitlines()
    for line, says in zip(lines, ["a tokenizer of its own", "cls_token '[SEP]', its parent '[CLS]'", "pads on the left",
                                  "reads 'Été' as 'été', its parent as 'Été'", "at most 20 tokens, its parent 64"], strict=True):
        assert says in line
    assert len(your_model.tokenizers_differ(mine, parent, max_length=16).splitlines()) == 4
    assert your_model.tokenizers_differ(parent, your_model.load(str(written("llama", "same")), TASK)) == ""


# --- the noise floor

def test_the_noise_floor_counts_answers_that_turn(written, micro, monkeypatch):
    subject = your_model.load(str(written("gpt2")), TASK)
    table = noise.floor(subject, micro, 48, most=10)
    assert list(table) == noise.COLUMNS and set(table["split"]) == set(micro["split"]) - {"train"}
    assert table["condition"].unique().tolist() == ["batches of 1", "batches of 32", "batches of 32, padded to 48", "in bf16"]
    floats = table[table["condition"] != "in bf16"]
    assert (floats["n"] <= 10).all() and (floats["changed"] == 0).all()
    monkeypatch.setattr(your_model, "cap", lambda subject, length: 40)
    subject.tokenizer.padding_side = "left"  # where a GPT-2 takes padding for places
    moved = noise.floor(subject, micro, 48).set_index("condition")
    assert moved.loc["batches of 32, padded to 40", "changed"].max() > 0 and moved.loc["batches of 1", "changed"].max() > 0


def test_the_other_precision_is_tried_where_there_is_one(written, micro, monkeypatch):
    rows = micro[micro["split"] == "test"]
    plain = str(written("bert"))
    monkeypatch.setattr(noise.devices, "dtype", lambda name, device: "bf16")
    half = noise.floor(your_model.load(plain, TASK), rows, 48).set_index("condition")
    assert half.loc["in bf16", "n"] == len(rows)
    single = noise.floor(your_model.load(plain, TASK, dtype="bf16"), rows, 48).set_index("condition")
    assert single.loc["in fp32", "n"] == len(rows)
    never = noise.floor(your_model.load(str(written("fnet", "fnet")), TASK), rows, 48).set_index("condition")
    assert np.isnan(never.loc["in bf16", "changed"]) and never.loc["batches of 1", "n"] == len(rows)
    monkeypatch.setattr(noise.devices, "dtype", lambda name, device: "fp32")
    none = noise.floor(your_model.load(plain, TASK), rows, 48).set_index("condition")
    assert np.isnan(none.loc["in bf16", "changed"]) and none.loc["in bf16", "n"] == 0
    assert none.loc["batches of 1", "n"] == len(rows)


def test_the_rows_of_the_floor_are_spread_over_a_split(written, micro):
    asked = []
    subject = your_model.load(str(written("bert")), TASK)
    spy = batches.encode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise.batches, "encode", lambda tokenizer, items, length: asked.append(items) or spy(tokenizer, items, length))
        noise.floor(subject, micro, 48, most=3)
    test = micro[micro["split"] == "test"]["guid"].tolist()
    of_test = asked[0][asked[0]["split"] == "test"]["guid"].tolist()
    assert [of_test[0], of_test[-1]] == [test[0], test[-1]] and len(of_test) == 3


def test_the_command_of_a_refusal_is_the_one_that_there_is():
    assert classifiers.INSTEAD == JUDGE
