"""One model of the study: found again or made anew by its key, whole or not at all, the same bytes each time."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

from lib import code, names, store
from lib.errors import StudyError
from lib.models import batches, encoders, loop, magnitude, make, pretrained, processor

LAYERS, WIDTH, STEPS = 2, 32, 12  # of the fixtures tiny_encoder and tiny_run


@pytest.fixture(scope="module")
def items(micro):
    return micro


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


ALONG = make.Extras(checkpoints=(0.25, 0.5), checkpoint_splits=("train", "ood"), predict_train=True)


@pytest.fixture(scope="module")
def dense(run, items):
    return make.model(run, items, "dense", ALONG)


@pytest.fixture(scope="module")
def pruned(run, items):
    return make.model(run, items, "imp-50", make.Extras(run_levels=(0.3, 0.5), checkpoint_splits=("train",)))


class Trains(Exception):
    """The model was not in the store."""


@pytest.fixture
def no_training(monkeypatch):
    def fit(*args, **kwargs):
        raise Trains
    monkeypatch.setattr(loop, "fit", fit)


def steps_and_splits(model):
    table = model.checkpoints()
    return sorted(table["step"].unique().tolist()), list(table["split"].unique())


def plain_logits(model, items):
    """Logits of all rows but train as a user would get them from the saved folder, without this study's code."""
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    classifier = AutoModelForSequenceClassification.from_pretrained(model.path).eval()
    rows = items[items["split"] != "train"]
    with torch.no_grad():
        batch = tokenizer(rows["text_a"].tolist(), rows["text_b"].tolist(), padding=True, return_tensors="pt")
        return classifier(**batch).logits.numpy()


def stored_logits(model, items):
    table = model.predictions().set_index("guid")["logits"]
    return np.stack(table.reindex(items.loc[items["split"] != "train", "guid"]).to_numpy())


# --- names and sizes

def test_names_and_steps_of_levels():
    assert [names.percent("heads", f) for f in (0.195, 0.29, 0.7)] == ["heads-19.5", "heads-29", "heads-70"]
    assert [make.steps_of(*a) for a in ((2, 64, 32), (1, 65, 32), (0.01, 8, 8))] == [4, 3, 1]


# --- what is made

def test_a_model_is_whole_and_its_tables_are_valid(run, dense, items):
    assert {p.name for p in dense.folder.iterdir()} == {
        "record.json", "cost.json", "log.csv", "predictions.parquet", "checkpoints.parquet", "model", "checksums.json"}
    store.check_predictions(dense.predictions(), items)
    assert set(dense.predictions()["guid"]) == set(items["guid"])
    record = dense.record
    assert dense.folder == run.outputs / "store" / record["key"]
    expected = {"model": "dense", "compression": "dense", "loss": "vanilla", "task": "micro_nli", "seed": 0, "profile": "smoke",
                "steps": STEPS, "n_train": 64, "epochs": 1.5}
    assert {name: record[name] for name in expected} == expected
    assert record["sparsity_encoder"] < 0.001 and record["sparsity_target"] == 0
    assert len(pd.read_csv(dense.folder / "log.csv")) == STEPS and dense.cost["predicted_rows"] == len(items)
    assert dense.cost["processor"] == processor.name("cpu") != ""


def test_train_is_predicted_only_where_asked(run, pruned, items):
    assert "train" not in set(pruned.predictions()["split"])
    assert pruned.cost["predicted_rows"] == (items["split"] != "train").sum()


def test_checkpoints_hold_the_right_steps_and_splits(dense, items):
    assert steps_and_splits(dense) == ([3, 6, 12], ["train", "ood"])
    along = dense.checkpoints()
    first, second = (store.ordered_logits(along[along["step"] == step], items, "ood") for step in (3, 6))
    assert not np.allclose(first, second) and not np.allclose(second, dense.logits(items, "ood"))


def test_a_model_loads_without_this_study_and_predicts_the_same(dense, items):
    assert np.allclose(plain_logits(dense, items), stored_logits(dense, items), atol=1e-4)
    config = AutoModelForSequenceClassification.from_pretrained(dense.path).config
    assert config.id2label == {0: "entailment", 1: "non-entailment"}


def test_a_pruned_run_holds_the_zeros_it_tells_of(pruned):
    record = pruned.record
    model = AutoModelForSequenceClassification.from_pretrained(pruned.path)
    weights = [part.weight for parts in encoders.layer_parts(model) for part in parts.values()]
    zeros, n = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
    assert record["encoder_parameters"] == n and record["nonzero_encoder_parameters"] == n - zeros
    assert abs(zeros / n - 0.5) <= 1 / n and record["sparsity_encoder"] == zeros / n and record["sparsity_target"] == 0.5
    assert record["sparsity_model"] == zeros / record["parameters"]
    per_layer = pd.read_csv(pruned.folder / "sparsity_per_layer.csv")
    assert per_layer["pruned"].sum() == zeros and per_layer["weights"].sum() == n and len(per_layer) == 2 * LAYERS
    assert (model.classifier.weight != 0).all()


def test_a_pruned_run_is_predicted_where_it_reaches_its_levels(pruned):
    """12 steps, ramp from step 1 to 8: 0.5 (1 - (1 - 2/7)^3) = 0.318 at step 3 is the first of 0.3 or more."""
    assert steps_and_splits(pruned) == ([3, 8], ["train"])
    reached = pruned.record["checkpoint_sparsity"]
    assert set(reached) == {"3", "8"} and np.allclose([reached["3"], reached["8"]], [0.318, 0.5], atol=1e-3)


def test_heads_are_cut_from_dense_and_load_plainly(run, dense, items):
    model = make.model(run, items, "heads-25", make.Extras(start=dense, epochs=0.5))
    zeroed = AutoModelForSequenceClassification.from_pretrained(model.path).config.zeroed_heads
    assert sum(map(len, zeroed)) == 2 and model.record["start"] == dense.record["key"]
    assert model.record["steps"] == 4 and model.record["sparsity_target"] == 0
    assert np.isclose(model.record["sparsity_encoder"], 0.25 * 4 * 16 * 16 / (4 * 16 * 16 + 2 * 16 * WIDTH), atol=1e-3)
    assert np.allclose(plain_logits(model, items), stored_logits(model, items), atol=1e-4)


def test_width_is_cut_from_dense_and_loads_plainly(run, dense, items):
    model = make.model(run, items, "ffn-50", make.Extras(start=dense, epochs=0.5))
    assert AutoModelForSequenceClassification.from_pretrained(model.path).config.intermediate_size == WIDTH // 2
    assert model.record["encoder_parameters"] == dense.record["encoder_parameters"] - LAYERS * 2 * 16 * WIDTH // 2
    assert model.record["flops_per_example"] < dense.record["flops_per_example"]
    assert np.allclose(plain_logits(model, items), stored_logits(model, items), atol=1e-4)


@pytest.mark.parametrize("name", ["heads-0", "ffn-0"])
def test_a_cut_of_nothing_that_hardly_learns_is_the_dense_model(run, dense, items, name):
    still = run.model_copy(update={"learning_rate": 1e-12})
    model = make.model(still, items, name, make.Extras(start=dense, epochs=0.1))
    assert np.allclose(stored_logits(model, items), stored_logits(dense, items), atol=1e-5)


def test_the_untrained_model_takes_no_step(run, items, no_training):
    model = make.model(run, items, "untrained")
    assert model.record["steps"] == 0 and model.record["epochs"] == 0
    assert not (model.folder / "log.csv").exists() and not (model.folder / "checkpoints.parquet").exists()
    saved, source = (m.state_dict() for m in (AutoModelForSequenceClassification.from_pretrained(model.path).bert,
                                              BertModel.from_pretrained(run.encoder)))
    assert all(torch.equal(saved[name], source[name]) for name in source)


def test_students_have_their_layers_their_teacher_and_their_own_weights(run, dense, items):
    distilled = make.model(run, items, "truncated-1 + distil", make.Extras(teacher=dense, kd_weight=0.9))
    plain = make.model(run, items, "truncated-1")
    scratch = make.model(run, items, "scratch-1")
    assert (distilled.record["compression"], distilled.record["loss"]) == ("truncated-1", "distil")
    assert distilled.record["teacher"] == dense.record["key"] and plain.record["teacher"] is None
    assert {m.record["encoder_parameters"] for m in (distilled, plain, scratch)} == {dense.record["encoder_parameters"] // 2}
    tables = [stored_logits(m, items) for m in (distilled, plain, scratch)]
    assert not np.allclose(tables[0], tables[1]) and not np.allclose(tables[1], tables[2])
    embeddings = [AutoModelForSequenceClassification.from_pretrained(m.path).bert.embeddings.word_embeddings.weight
                  for m in (distilled, plain, scratch)]
    assert torch.equal(embeddings[0], embeddings[1]) and not torch.allclose(embeddings[1], embeddings[2])


@pytest.fixture(scope="module")
def wrong_teacher(tmp_path_factory, items):
    """Sure of the wrong label on every train row; its table in another order than the rows."""
    train, folder = items[items["split"] == "train"], tmp_path_factory.mktemp("wrong")
    table = store.predictions_table(train, 4.0 * np.eye(2)[1 - train["label"]]).sample(frac=1, random_state=0)
    store.write_predictions(folder / "predictions.parquet", table)
    store.write_json(folder / "record.json", {"key": "wrong"})
    return store.Model(folder)


def test_teacher_strength_weights_and_gamma_reach_the_loss(run, items, wrong_teacher):
    longer = run.model_copy(update={"epochs": 12.0, "dropout": 0.0, "learning_rate": 0.005})
    label = items.loc[items["split"] == "train", "label"].to_numpy()

    def made(name, **extras):
        return make.model(longer, items, name, make.Extras(predict_train=True, **extras)).logits(items, "train")

    def margin(logits):
        return np.abs(logits[:, 0] - logits[:, 1]).mean()
    distilled = made("dense + distil", teacher=wrong_teacher, kd_weight=1.0)
    assert (distilled.argmax(1) == label).mean() < 0.2 and margin(distilled) > 1
    for name, strength in (("dense + smooth", 0.0), ("dense + rmc", np.zeros(64))):  # uniform targets
        assert margin(made(name, teacher=wrong_teacher, kd_weight=1.0, strength=strength)) < 0.5
    one_sided = made("dense + jtt", weights=np.where(label == 1, 1.0, 1e-6))
    assert (one_sided.argmax(1) == 1).mean() > 0.95


def test_gamma_reaches_the_focal_loss(run, items):
    plain, zero, five = (stored_logits(make.model(run, items, name, extras), items) for name, extras in (
        ("dense", make.Extras()), ("dense + focal", make.Extras(gamma=0.0)), ("dense + focal", make.Extras(gamma=5.0))))
    assert np.allclose(plain, zero, atol=1e-3), "gamma 0 is cross-entropy"
    assert not np.allclose(plain, five, atol=1e-2)


def test_a_compression_of_no_family_is_an_encoder_of_its_own(run, items, tiny_encoder, tmp_path):
    folder = tiny_encoder(tmp_path / "other", items["text_a"], seed=1)
    still = run.model_copy(update={"learning_rate": 1e-12, "encoder": "offline"})  # the run's own is not looked at
    model = make.model(still, items, folder, make.Extras(epochs=0.1))
    saved = AutoModelForSequenceClassification.from_pretrained(model.path).bert.embeddings.word_embeddings.weight
    assert torch.equal(saved, BertModel.from_pretrained(folder).embeddings.word_embeddings.weight)
    assert model.record["compression"] == folder and model.record["loss"] == "vanilla"


def test_a_level_with_a_point_is_a_level(run, dense, items):
    model = make.model(run, items, "heads-19.5", make.Extras(start=dense, epochs=0.1))
    assert sum(map(len, AutoModelForSequenceClassification.from_pretrained(model.path).config.zeroed_heads)) == 2  # of 8


# --- quantised, replaced, and taught by more than logits

def encoder_weights(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return [part.weight for parts in encoders.layer_parts(model) for part in parts.values()]


def test_a_quantised_model_takes_no_step_and_loads_plainly(run, dense, items, no_training):
    model = make.model(run, items, "dense + ptq8", make.Extras(start=dense))
    record = model.record
    expected = {"compression": "dense", "loss": "vanilla", "quantization": "ptq8", "steps": 0, "epochs": 0,
                "start": dense.record["key"], "bytes": (model.path / "model.safetensors").stat().st_size,
                "encoder_parameters": dense.record["encoder_parameters"]}
    assert {name: record[name] for name in expected} == expected and record["bytes"] != dense.record["bytes"]
    assert not (model.folder / "log.csv").exists()
    assert all(weight.qdata.dtype == torch.int8 for weight in encoder_weights(model.path))
    assert np.allclose(plain_logits(model, items), stored_logits(model, items), atol=1e-4)
    change = np.abs(stored_logits(model, items) - stored_logits(dense, items)).max()
    assert 1e-4 < change < 0.1, "rounded, no more"
    store.check_predictions(model.predictions(), items)


def test_training_under_quantisation_keeps_the_zeros_of_a_pruned_model(run, pruned, items):
    rounded = make.model(run, items, "imp-50 + ptq8", make.Extras(start=pruned))
    trained = make.model(run, items, "imp-50 + qat8", make.Extras(start=pruned, epochs=0.5))
    assert trained.record["steps"] == 4 == len(pd.read_csv(trained.folder / "log.csv"))
    zeros = [weight == 0 for weight in encoder_weights(pruned.path)]
    for weight, zero in zip(encoder_weights(trained.path), zeros, strict=True):
        assert zero.any() and (weight.qdata[zero] == 0).all()
    assert trained.record["sparsity_encoder"] == pruned.record["sparsity_encoder"] and trained.record["sparsity_target"] == 0
    assert not np.allclose(stored_logits(trained, items), stored_logits(rounded, items), atol=0.05)
    assert np.allclose(plain_logits(trained, items), stored_logits(trained, items), atol=1e-4)


def test_a_successor_is_a_plain_model_of_fewer_layers(run, dense, items):
    linear, constant = (make.model(run, items, name, make.Extras(start=dense)) for name in ("theseus-1", "theseus-1-constant"))
    cut, untaught = make.model(run, items, "truncated-1"), AutoModelForSequenceClassification.from_pretrained(dense.path)
    saved = AutoModelForSequenceClassification.from_pretrained(linear.path)
    assert saved.config.num_hidden_layers == len(saved.bert.encoder.layer) == 1
    assert linear.record["encoder_parameters"] == dense.record["encoder_parameters"] // 2 == cut.record["encoder_parameters"]
    assert linear.record["start"] == dense.record["key"] and linear.record["steps"] == STEPS
    assert np.allclose(plain_logits(linear, items), stored_logits(linear, items), atol=1e-4)
    assert torch.equal(saved.classifier.weight, untaught.classifier.weight), "the teacher's own, frozen"
    assert not torch.equal(saved.bert.encoder.layer[0].output.dense.weight, untaught.bert.encoder.layer[0].output.dense.weight)
    tables = [stored_logits(model, items) for model in (linear, constant, cut)]
    assert not any(np.allclose(a, b, atol=1e-2) for a, b in ((tables[0], tables[1]), (tables[0], tables[2])))


def test_what_a_student_copies_besides_logits_counts(run, dense, items):
    taught = dict(teacher=dense, kd_weight=0.9)
    distilled = make.model(run, items, "dense + distil", make.Extras(**taught))
    for kind in ("pkd", "tinybert"):
        of_nothing, of_much = (make.model(run, items, f"dense + {kind}", make.Extras(**taught, transfer_weight=weight))
                               for weight in (0.0, 1.0))
        assert of_much.record["loss"] == kind and of_much.record["teacher"] == dense.record["key"]
        assert np.allclose(stored_logits(of_nothing, items), stored_logits(distilled, items), atol=1e-3), kind
        assert not np.allclose(stored_logits(of_much, items), stored_logits(distilled, items), atol=0.05), kind


def test_a_model_is_loaded_as_it_is_used(run, dense, items):
    heads = make.model(run, items, "heads-25", make.Extras(start=dense, epochs=0.5))
    cut, quantised = make.load(heads), make.load(make.model(run, items, "dense + ptq8", make.Extras(start=dense)))
    assert sum(layer.attention.self.query.out_features for layer in cut.bert.encoder.layer) == LAYERS * 16 - 2 * 4
    assert not cut.training and all(hasattr(part.weight, "qdata") for part in encoders.layer_parts(quantised)[0].values())
    encoded = AutoTokenizer.from_pretrained(heads.path)("a b", "c", return_tensors="pt")
    whole = AutoModelForSequenceClassification.from_pretrained(heads.path).eval()
    with torch.no_grad():
        assert torch.allclose(cut(**encoded).logits, whole(**encoded).logits, atol=1e-5)


# --- found again, or not

def test_a_finished_model_is_found_and_not_trained_again(run, dense, items, no_training):
    again = make.model(run, items, "dense", ALONG)
    assert again == dense
    shown = run.model_copy(update={"sparsity_levels": [0.1], "recovery_epochs": 9.0, "prune_warmup": 0.2, "mask_interval": 3})
    assert make.model(shown, items.copy(), "dense", ALONG) == dense, "a dense model has nothing to do with pruning"


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"learning_rate": 0.02}, {"epochs": 2.0}, {"batch_size": 4}, {"dropout": 0.0}, {"warmup": 0.2},
    {"weight_decay": 0.1}, {"max_length": 40}, {"freeze_embeddings": False}, {"encoder_layers": 1}, {"dtype": "bf16"},
    {"threads": 2}], ids=lambda change: next(iter(change)))
def test_a_changed_parameter_makes_another_model(run, dense, items, no_training, change):
    threads = torch.get_num_threads()
    with pytest.raises(Trains):
        make.model(run.model_copy(update=change), items, "dense", ALONG)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("change", [{"prune_warmup": 0.2}, {"prune_cooldown": 0.2}, {"mask_interval": 2}],
                         ids=lambda change: next(iter(change)))
def test_the_schedule_counts_where_weights_are_pruned(run, pruned, items, no_training, change):
    extras = make.Extras(run_levels=(0.3, 0.5), checkpoint_splits=("train",))
    assert make.model(run, items, "imp-50", extras) == pruned
    with pytest.raises(Trains):
        make.model(run.model_copy(update=change), items, "imp-50", extras)


@pytest.mark.parametrize("change", [
    {"checkpoints": (0.25,)}, {"checkpoint_splits": ("train",)}, {"epochs": 1.0}, {"predict_train": False}],
    ids=lambda change: next(iter(change)))
def test_what_else_is_asked_for_counts(run, dense, items, no_training, change):
    asked = dict(checkpoints=ALONG.checkpoints, checkpoint_splits=ALONG.checkpoint_splits, predict_train=True)
    assert make.model(run, items, "dense", make.Extras(**asked)) == dense
    with pytest.raises(Trains):
        make.model(run, items, "dense", make.Extras(**asked | change))


@pytest.mark.parametrize("column, value", [("text_b", "the baker slept"), ("label", None), ("guid", "micro_nli-train-new")])
def test_a_changed_row_of_data_makes_another_model(run, dense, items, no_training, column, value):
    changed = items.copy()
    changed.loc[0, column] = 1 - changed.loc[0, "label"] if value is None else value
    with pytest.raises(Trains):
        make.model(run, changed, "dense", ALONG)


@pytest.fixture
def wanted(monkeypatch):
    """The keys of the models that would be made, in order, without making any."""
    keys = []
    monkeypatch.setattr(store, "add", lambda place, key, fill: keys.append(key))
    return keys


def test_changed_code_and_changed_encoder_files_make_another_model(run, items, wanted, monkeypatch, tmp_path):
    shutil.copytree(run.encoder, tmp_path / "copy")
    copied = run.model_copy(update={"encoder": str(tmp_path / "copy")})
    make.model(copied, items, "dense")
    make.model(copied, items, "dense")
    with open(tmp_path / "copy" / "tokenizer.json", "a") as file:
        file.write(" ")
    make.model(copied, items, "dense")
    monkeypatch.setattr(code, "source_hash", lambda *modules: "other code")
    make.model(copied, items, "dense")
    assert wanted[0] == wanted[1] and len(set(wanted)) == 3


def test_every_input_of_a_loss_makes_another_model(run, dense, pruned, items, wanted):
    d = np.linspace(0.3, 1, 64)
    swapped = d.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    base = dict(teacher=dense, strength=d, kd_weight=0.9)
    for change in ({}, {"strength": d.copy()}, {"teacher": store.Model(dense.folder)}, {"teacher": pruned}, {"teacher": None},
                   {"strength": swapped}, {"strength": 0.9}, {"strength": 0.8}, {"strength": None}, {"kd_weight": 0.5},
                   {"start": dense}, {"weights": d}, {"weights": swapped}, {"gamma": 2.0}, {"gamma": 3.0}):
        make.model(run, items, "truncated-1 + rmc", make.Extras(**base | change))
    make.model(run, items, "truncated-1 + rmc_shuffled", make.Extras(**base))
    make.model(run, items, "scratch-1 + rmc", make.Extras(**base))
    assert wanted[0] == wanted[1] == wanted[2], "the same recipe"
    assert len(set(wanted)) == len(wanted) - 2


OF_KEY = {"dense": {}, "truncated-1 + distil": {"teacher"}, "dense + pkd": {"teacher"}, "imp-50": {}, "heads-25": {"start"},
          "ffn-50": {"start"}, "theseus-1": {"start"}, "dense + ptq8": {"start"}, "imp-50 + qat8": {"start"}}


@pytest.mark.parametrize("module, those_of_it", [
    ("models.loop", set(OF_KEY)), ("models.theseus", {"theseus-1"}), ("models.transfer", {"dense + pkd"}),
    ("models.structured", {"heads-25", "ffn-50"}), ("models.quantization", {"dense + ptq8", "imp-50 + qat8"})])
def test_code_counts_for_the_models_it_makes(run, dense, items, wanted, monkeypatch, module, those_of_it):
    changed = set()
    for name, needs in OF_KEY.items():
        for edited in ("", module):
            monkeypatch.setattr(code, "source_hash", lambda *modules: "edited" if edited in modules else "as it was")
            make.model(run, items, name, make.Extras(**dict.fromkeys(needs, dense)))
        changed |= {name} if wanted[-1] != wanted[-2] else set()
    assert changed == those_of_it


@pytest.mark.parametrize("field", ["replace_start", "replace_rate", "replace_share"])
def test_the_replacing_schedule_counts_where_layers_are_replaced(run, dense, items, wanted, field):
    empty = {"profile": "nothing made"}
    for name in ("theseus-1", "theseus-1 + ptq8", "truncated-1"):
        for asked in (run.model_copy(update=empty), run.model_copy(update=empty | {field: 0.7})):
            make.model(asked, items, name, make.Extras(start=dense))
    (replaced, again), (rounded, same), (cut, equal) = zip(wanted[::2], wanted[1::2])
    assert replaced != again and rounded == same and cut == equal


def test_how_it_is_trained_counts_for_a_quantised_model_that_trains(run, dense, pruned, items, wanted):
    empty = run.model_copy(update={"profile": "nothing made"})
    for name, counts in (("dense + qat8", True), ("dense + ptq8", False)):
        for change in ({"epochs": 0.5}, {"epochs": 1.0}):
            make.model(empty, items, name, make.Extras(start=dense, **change))
        assert (wanted[-1] != wanted[-2]) == counts
        make.model(empty, items, name, make.Extras(start=pruned, epochs=1.0))
        assert wanted[-1] != wanted[-2], "another model is rounded"


def test_the_weight_of_what_is_copied_makes_another_model(run, dense, items, wanted):
    for weight in (0.5, 1.0):
        make.model(run, items, "dense + pkd", make.Extras(teacher=dense, transfer_weight=weight))
    assert wanted[0] != wanted[1]


# --- the same bytes, and nothing half done

def test_the_same_parameters_give_the_same_bytes_in_another_store(run, dense, items):
    torch.rand(7), np.random.rand(7)
    again = make.model(run.model_copy(update={"profile": "elsewhere"}), items, "dense", ALONG)
    assert again.folder != dense.folder and again.record["key"] == dense.record["key"]
    for name in ("predictions.parquet", "checkpoints.parquet", "log.csv", "model/model.safetensors"):
        assert (again.folder / name).read_bytes() == (dense.folder / name).read_bytes(), name
    assert again.record | {"profile": "smoke"} == dense.record


def test_weights_that_nothing_needs_are_let_go_and_made_anew_where_they_are_wanted(run, dense, items):
    lean = run.model_copy(update={"profile": "lean", "keep_weights": False})
    short = make.model(lean, items, "dense-0.5x", make.Extras(epochs=0.5))
    started = make.model(lean, items, "dense", ALONG)
    assert not short.has_weights and started.has_weights and not store.model_fault(short.folder)
    assert make.model(run, items, "dense-0.5x", make.Extras(epochs=0.5)).record | {"profile": "lean"} == short.record
    store.let_go([started])
    assert not started.has_weights and store.find(lean.outputs / "store", started.record["key"]) is not None
    assert started.predictions()["guid"].equals(dense.predictions()["guid"])
    with pytest.raises(StudyError, match="common.keep_weights=true"):
        make.load(started)
    assert not make.model(lean, items, "dense", ALONG).has_weights, "what is finished is not trained for its weights"
    again = make.model(lean.model_copy(update={"keep_weights": True}), items, "dense", ALONG)
    assert (again.path / "model.safetensors").read_bytes() == (dense.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_teacher_is_predicted_in_fp32_and_its_norms_are_kept(run, items, dtype):
    place = run.model_copy(update={"dtype": dtype, "epochs": 0.3})
    teacher, plain = (make.model(place, items, "dense", make.Extras(as_teacher=it_is)) for it_is in (True, False))
    evaluated = items.loc[items["split"] != "train", "guid"]
    assert set(teacher.norms().index) == set(evaluated) and not (plain.folder / store.NORMS).exists()
    kept, used = np.stack(teacher.in_fp32()["logits"]), np.stack(store.evaluated(teacher)["logits"])
    assert teacher.in_fp32()["guid"].tolist() == store.evaluated(teacher)["guid"].tolist()
    assert np.allclose(kept, used, atol=0.1) and np.array_equal(kept, used) == (dtype == "fp32")
    assert (plain.in_fp32() is None) == (dtype == "bf16")


@pytest.mark.parametrize("module, function", [(loop, "fit"), (pretrained, "save"), (magnitude, "measured_sparsity")])
def test_a_run_that_breaks_leaves_nothing_and_the_next_recovers(run, items, monkeypatch, module, function):
    place = run.model_copy(update={"profile": f"breaks-{function}", "epochs": 0.3})

    def breaks(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr(module, function, breaks)
    with pytest.raises(KeyboardInterrupt):
        make.model(place, items, "truncated-1")
    assert not list((place.outputs / "store").iterdir())
    monkeypatch.undo()
    assert make.model(place, items, "truncated-1").record["steps"] == 3


# --- what does not fit is refused before training

@pytest.mark.parametrize("name, match", [
    ("truncated-1 + distil", "loss 'distil' needs teacher_logits"), ("dense + rmcc", "did you mean 'rmc'"),
    ("truncated-2", "K is 1 to 1"), ("truncated-x", "did you mean 'truncated'"), ("dense + jtt", "'jtt' needs weights"),
    ("dense + pkd", "needs teacher_logits"), ("dense + tinybert", "needs teacher_logits"),
    ("dense + ptq8", "ptq8 starts from a finished model"), ("imp-50 + qat8", "qat8 starts from a finished model"),
    ("dense + ptq4", "ptq4 starts"), ("theseus-1", "theseus starts"), ("theseus-1-constant + distil", "theseus starts")])
def test_names_and_inputs_that_do_not_fit(run, items, no_training, name, match):
    place = run.model_copy(update={"profile": "refused"})
    with pytest.raises(StudyError, match=match):
        make.model(place, items, name)
    assert not list((place.outputs / "store").glob("*"))


@pytest.mark.parametrize("name, extras, match", [
    ("theseus-2", {"start"}, "the dense model has 2 layers, so give 1 to 1"),
    ("truncated-1 + pkd", {"teacher"}, "a student of one layer has none to match"),
    ("dense + ptq4", {"start"}, "groups of 32 do not divide")])
def test_models_that_do_not_fit_their_teacher(run, dense, items, no_training, name, extras, match):
    given = make.Extras(**dict.fromkeys(extras, dense), transfer_weight=1.0)
    with pytest.raises(StudyError, match=match):
        make.model(run, items, name, given)


def test_a_teacher_must_have_predicted_train(run, pruned, items, no_training):
    with pytest.raises(StudyError, match="no prediction for guid .* of split 'train'"):
        make.model(run, items, "truncated-1 + distil", make.Extras(teacher=pruned))


def test_levels_beyond_the_run_are_refused(run, items, no_training):
    with pytest.raises(StudyError, match="sparsity 0.6 is not on the way"):
        make.model(run, items, "imp-50", make.Extras(run_levels=(0.3, 0.6), checkpoint_splits=("train",)))


def test_tokens_are_made_once_for_all_models_of_the_same_data_encoder_and_length(run, items, tiny_encoder, tmp_path, monkeypatch):
    other = tiny_encoder(tmp_path / "other", pd.concat([items["text_a"], items["text_b"]]), seed=1)
    shorter, encode, made = items.iloc[1:], batches.encode, []
    monkeypatch.setattr(batches, "encode", lambda *given: made.append(encode(*given)) or made[-1])

    def count(items=items, name="scratch-1", **changes):
        made.clear()
        make.model(run.model_copy(update=changes), items, name)
        return len(made)
    n_splits = items["split"].nunique()
    assert count(max_length=11) == n_splits and max(e.lengths.max() for e in made) == 11
    assert count(seed=70) == n_splits and max(e.lengths.max() for e in made) > 11
    assert count(seed=71) == count(seed=72, name="imp-50") == 0
    assert count(encoder=other) == count(items=shorter) == n_splits
    assert count(seed=73) == n_splits
