"""A reader's own finished model: loaded, its classes found by name, and asked."""
import json
import shutil

import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, Trainer, TrainingArguments

from lib import store
from lib.analysis import measures
from lib.errors import StudyError
from lib.files import ROOT
from lib.models import batches, classifiers, pretrained, quantization
from lib.tasks import registry
from lib.trials import your_model

TASK = registry.get("micro_nli")
WORDS = list(TASK.labels)


@pytest.fixture(scope="module")
def own(tmp_path_factory, micro, tiny_encoder):
    """A classifier that plain transformers.Trainer made and saved, with its classes in the other order."""
    folder = tmp_path_factory.mktemp("own")
    encoder = tiny_encoder(folder / "encoder", micro["text_a"].tolist() + micro["text_b"].tolist())
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    train = micro[micro["split"] == "train"]
    encoded = batches.encode(tokenizer, train, 48)
    table = [{"input_ids": ids.tolist(), "labels": 1 - int(label)} for ids, label in zip(encoded.input_ids, encoded.labels)]
    names = dict(enumerate(reversed(WORDS)))
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(encoder, num_labels=2, id2label=names, label2id={n: i for i, n in names.items()})
    arguments = TrainingArguments(str(folder / "run"), max_steps=30, learning_rate=3e-3, report_to=[], use_cpu=True, disable_tqdm=True,
                                  save_strategy="no", logging_strategy="no")
    Trainer(model, arguments, train_dataset=table, processing_class=tokenizer).train()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def renamed(own, folder, names):
    shutil.copytree(own, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {name: i for i, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_model_of_plain_transformers_is_read_by_the_names_of_its_classes(own, micro):
    subject = your_model.load(str(own), TASK)
    assert subject.order == (1, 0) and subject.dtype == "fp32"
    predictions = your_model.predict(subject, micro, 48)
    store.check_predictions(predictions, micro)
    with torch.no_grad():
        row = subject.tokenizer(micro["text_a"].iloc[0], micro["text_b"].iloc[0], return_tensors="pt")
        logits = subject.model(**row).logits[0].flip(0)
    assert predictions["logits"].iloc[0] == pytest.approx(logits.numpy(), abs=1e-4)


def test_classes_without_names_must_be_said(own, micro, tmp_path):
    plain = renamed(own, tmp_path / "plain", ["LABEL_0", "LABEL_1"])
    with pytest.raises(StudyError, match="calls a class 'LABEL_0'.*say in labels"):
        your_model.load(plain, TASK)
    right = your_model.predict(your_model.load(plain, TASK, labels=WORDS[::-1]), micro, 48)
    assert np.array_equal(np.stack(right["logits"]), np.stack(your_model.predict(your_model.load(str(own), TASK), micro, 48)["logits"]))


@pytest.mark.parametrize("names, says", [
    (["entailment", "neutral", "contradiction"], "has 3 classes .* give a model of that task"),
    (["entailment", "contradiction"], "calls a class 'contradiction'")])
def test_classes_of_another_task_are_named(names, says):
    with pytest.raises(StudyError, match=says):
        your_model.order_of(names, TASK, "a/model")


def test_a_model_without_its_classifier_is_no_finished_one(own, tmp_path, tiny_encoder, micro):
    bare = tiny_encoder(tmp_path / "bare", micro["text_a"].tolist())
    with pytest.raises(StudyError, match="bare is no finished classifier: its file lacks '(bert.)?classifier"):
        your_model.load(str(bare), TASK)


def test_a_quantised_model_is_judged_as_it_is(own, micro, tmp_path):
    quantized = quantization.quantize(classifiers.load(str(own)).model, "ptq8")
    quantization.save(quantized, pretrained.load_tokenizer(str(own)), tmp_path / "int8")
    subject = your_model.load(str(tmp_path / "int8"), TASK, dtype="bf16")
    assert subject.dtype == "fp32" and your_model.is_quantized(subject.model) and subject.order == (1, 0)
    one, two = (np.stack(your_model.predict(s, micro, 48)["logits"]) for s in (subject, your_model.load(str(own), TASK)))
    assert not np.array_equal(one, two) and np.abs(one - two).mean() < 0.2


def test_another_tokenizer_is_told(own, micro, tmp_path, tiny_encoder):
    subject, other = your_model.load(str(own), TASK), your_model.load(str(own), TASK)
    assert your_model.tokenizers_differ(subject, other) == ""
    object.__setattr__(other, "tokenizer", AutoTokenizer.from_pretrained(tiny_encoder(tmp_path / "other", ["three words here"])))
    assert "a tokenizer of its own" in your_model.tokenizers_differ(subject, other)


def test_notebook_10_judges_folders_too(own, tmp_path):
    """Its example is two tables, so nothing else runs the cells that ask a model."""
    shutil.copytree(own, tmp_path / "copy")
    given = {"parent": str(own), "models": [str(tmp_path / "copy")], "profile": "folders-of-a-test", "n_train": 32, "n_eval": 110,
             "n_ood": 10, "n_attack": 3, "n_boot": 100}
    try:
        done = papermill.execute_notebook(ROOT / "notebooks" / "10_your_model.ipynb", tmp_path / "out.ipynb", given,
                                          progress_bar=False)
    finally:
        shutil.rmtree(ROOT / "outputs" / given["profile"], ignore_errors=True)
    said = [output.data.get("text/markdown", "") + output.data.get("text/plain", "")
            for cell in done.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("- **copy** " in text for text in said) and any("batches of 1" in text for text in said)
    assert any("after_attack_accuracy" in text for text in said)
