"""The example of notebook 11, what its rows are told to be, and the parameters of a notebook whose cell is short."""
import ast
import dataclasses
import json

import pandas as pd
import pytest
import tiny
from test_params import injection, session
from transformers import GPT2Config

from lib import store
from lib.analysis import floors, measures
from lib.errors import StudyError
from lib.files import ROOT
from lib.models import make, recipes
from lib.params import notebook
from lib.params.profile import load_profile
from lib.params.schema import EXAMPLE_TASK
from lib.tasks import dataset, example, own, registry, sources

CELL = next("".join(cell["source"]) for cell in json.loads((ROOT / "notebooks" / "11_your_task.ipynb").read_text())["cells"]
            if "parameters" in cell["metadata"].get("tags", []))
WHOLE = dict(seed=0, n_train=0, n_eval=0, n_ood=0)


@pytest.fixture
def task_file(tmp_path):
    path = tmp_path / f"{EXAMPLE_TASK}.yaml"
    example.write(path)
    return path


def checked(injected="", own=CELL):
    return notebook.parameters("your_task", session("your_task", injected, own))


# ---------------------------------------------------------------- the example
def test_the_example_is_the_same_every_time_and_without_fault(task_file):
    before = {path.name: path.read_bytes() for path in task_file.parent.iterdir()}
    example.write(task_file)
    assert before == {path.name: path.read_bytes() for path in task_file.parent.iterdir()} and len(before) == 4
    task = registry.get(task_file)
    items = dataset.load(task, **WHOLE)
    assert own.doubts(items, task) == [] and task.labels == ("praise", "complaint")
    table = own.overview(items, task)
    assert table["rows"].to_dict() == {"train": 1440, "dev": 160, "test": 240, "mixed": 240}
    assert table.loc["mixed", "labels"] == "praise 120, complaint 120" and (table["groups"] * 2 == table["rows"]).all()
    assert items.groupby("text_b")["split"].nunique().max() == 1


def test_the_shortcut_of_the_example_holds_on_test_and_gives_chance_ood(task_file):
    task = registry.get(task_file)
    items = dataset.load(task, **{**WHOLE, "n_train": 256})
    right = {name: measures.rows(table, items, task).groupby("split")["correct"].mean()
             for name, table in floors.predictions(items, task, 0).items()}
    assert right["shortcut only"]["mixed"] == right["majority"]["mixed"] == 0.5
    assert min(right[name]["test"] for name in ("shortcut only", "bag of words")) > 0.85
    assert abs(right["bag of words"]["mixed"] - 0.5) < 0.05


def test_the_share_of_mixed_reviews_in_train_can_be_set(task_file):
    def mixed():
        train = pd.read_csv(task_file.parent / "train.tsv", sep="\t")
        return (train.groupby("review_id")["opinion"].nunique() == 2).mean()
    assert mixed() == example.MIXED
    example.write(task_file, mixed=0.5)
    assert mixed() == 0.5


def test_a_misspelt_column_is_told_in_one_line_with_the_right_one(task_file):
    test = registry.get(task_file).tables["test"]
    with pytest.raises(StudyError, match="test.tsv: column 'reviews' is missing; did you mean 'review'") as error:
        sources.read(dataclasses.replace(test, columns=test.columns | {"text_b": "reviews"}))
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- what the rows are told to be
def rewritten(task_file, split, change):
    """What is said of the example once `change` has made one table anew, from it and from test."""
    frame, test = (pd.read_csv(task_file.parent / f"{name}.tsv", sep="\t") for name in (split, "test"))
    change(frame, test).to_csv(task_file.parent / f"{split}.tsv", sep="\t", index=False)
    task = registry.get(task_file)
    return own.doubts(dataset.load(task, **WHOLE), task)


def one_sided(frame, test):
    return frame[(frame["opinion"] == "pos") | (frame.index < 40)]


@pytest.mark.parametrize("split, change, says", [
    ("train", lambda t, test: pd.concat([t, test.head(6).assign(review_id="again")]), ["6 rows of test stand in train too"]),
    ("train", lambda t, test: pd.concat([t, *[t.head(1).assign(review=t["review"].str.upper())] * 5]),
     ["5 of 1445 rows of train repeat"]),
    ("test", lambda t, test: pd.concat([t, t.head(1).replace({"pos": "neg", "neg": "pos"})]),
     ["1 of 241 rows of test repeat", "2 rows of test hold a pair of texts that has two labels"]),
    ("mixed", lambda t, test: t.head(50), ["mixed has 50 rows: its intervals"]),
    ("mixed", one_sided, ["86% of mixed is praise: always to say so scores as much. Set ood.mixed.score to balanced"]),
], ids=["in train", "repeated", "at odds", "few", "one label"])
def test_what_makes_a_score_mean_less_is_said(task_file, split, change, says):
    said = rewritten(task_file, split, change)
    assert len(said) == len(says) and all(pattern in one for one, pattern in zip(said, says)), said


def test_a_balanced_ood_set_of_one_large_label_is_not_doubted(task_file):
    task_file.write_text(task_file.read_text().replace("{file: mixed.tsv}", "{file: mixed.tsv, score: balanced}"))
    assert rewritten(task_file, "mixed", one_sided) == []


# ---------------------------------------------------------------- parameters
def test_the_cell_is_smoke_and_what_it_leaves_out_too():
    run, smoke = checked(), load_profile("smoke")
    for section in ("data", "teacher"):
        of_chain = smoke.run(section, run.task, 0).model_dump()
        assert {key: getattr(run, key) for key in of_chain} == of_chain
    assert run.is_example and run.task == f"outputs/smoke/11_your_task/{EXAMPLE_TASK}.yaml" and run.stage == "11_your_task"
    assert run.folder(run.stage) == ROOT / "outputs" / "smoke" / EXAMPLE_TASK / "seed0" / "11_your_task"
    assert run.compressed in smoke.run("distillation", run.task, 0).students
    for node in ast.parse(CELL).body:
        ast.literal_eval(node.value)


def test_single_names_and_a_whole_profile_go_over_the_cell():
    run = checked("task = 'mine.yaml'\nn_train = 0\nlearning_rate = 1e-4\ncompressed = 'imp-70'")
    assert (run.task, run.n_train, run.learning_rate, run.compressed, run.epochs) == ("mine.yaml", 0, 1e-4, "imp-70", 2.0)
    mini = load_profile("mini").run("data", "micro_nli", 0)
    run = checked(injection("mini", task="mine.yaml", epochs=3.0))
    assert (run.profile, run.n_train, run.encoder_layers) == ("mini", mini.n_train, mini.encoder_layers)
    assert run.epochs == 3.0 and not run.is_example
    assert run.checkpoints == load_profile("mini").run("teacher", "micro_nli", 0).checkpoints
    assert checked(injection("mini")).task == f"outputs/mini/11_your_task/{EXAMPLE_TASK}.yaml"


@pytest.mark.parametrize("injected, says", [
    ("n_trian = 5", "11_your_task.ipynb: unknown parameter 'n_trian'; did you mean 'n_train'"),
    ("task = 'micro_nli'", "task = 'micro_nli': is no task file; give the path of one"),
    ("compressed = 'dense'", "'dense' is not made here; give truncated-"),
    ("compressed = 'imp-70 + rmc'", "'imp-70 \\+ rmc' is not made here"),
    ("compressed = 'truncated-3'", "the dense model has 3 layers"),
    ("compressed = 'truncatd-2'", "did you mean 'truncated'"),
    ("mitigation = {'alhpa': 1}\ncommon = {'profile': 'mine'}", "did you mean 'alpha'"),
    ("n_boot = 5", "n_boot = 5")])
def test_a_wrong_parameter_stops_it_in_one_line(injected, says):
    with pytest.raises(StudyError, match=says) as error:
        checked(injected)
    assert "\n" not in str(error.value)


def test_every_kind_of_compression_that_it_makes_is_taken():
    for name in ("truncated-2 + tinybert", "scratch-1", "imp-40 + distil", "dense + ptq8", "distilbert-base-uncased"):
        assert checked(f"compressed = {name!r}").compressed == name


@pytest.mark.parametrize("family, compressed, says", [
    ("albert", "truncated-2", "ALBERT shares its layers, so there is no truncated-2 of it"),
    ("albert", "imp-70 + tinybert", "ALBERT shares its layers"),
    ("gpt2", "imp-70", "type 'gpt2' cannot be trained or compressed here"),
    ("gpt2", "dense + ptq8", "type 'gpt2' cannot be trained or compressed here"),
    ("bert", "{gpt2}", "type 'gpt2' cannot be trained or compressed here")])
def test_an_encoder_that_it_cannot_compress_is_refused_with_the_parameters(tmp_path, family, compressed, says):
    GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=40).save_pretrained(tmp_path / "gpt2")
    for name in ("albert", "bert"):
        tiny.config(name, 3, 16, 24, 2, 0.0, vocab_size=40).save_pretrained(tmp_path / name)
    compressed = compressed.format(gpt2=tmp_path / "gpt2")
    run = checked(f"encoder = {str(tmp_path / family)!r}\nencoder_layers = 0\ncompressed = {compressed!r}")
    with pytest.raises(StudyError, match=says) as error:
        recipes.check(run, ["dense", run.compressed])
    assert "\n" not in str(error.value)


def test_too_few_epochs_are_told_by_their_name_and_nothing_is_made(task_file, monkeypatch):
    run = checked(f"task = {str(task_file)!r}\nepochs = 0.05")
    items = dataset.load(registry.get(task_file), seed=0, n_train=run.n_train, n_eval=20, n_ood=0)
    monkeypatch.setattr(store, "add", lambda *_: pytest.fail("a model is made"))
    with pytest.raises(StudyError, match=r"epochs = 0.05 makes too few steps \(1\).*give epochs = [0-9.]+ or more"):
        make.model(run, items, "dense", recipes.teacher(run, ["mixed"]))


# ---------------------------------------------------------------- the chain on a task of one's own
def test_new_tasks_or_seeds_take_along_the_part_of_06b_and_07b(tmp_path):
    (own := tmp_path / "mine_too.yaml").write_text("name: mine_too\n")
    grid = load_profile("smoke", [f"grid.tasks=[micro_nli, {own}]"]).grid
    assert (grid.dose_tasks, grid.dose_seeds) == (["micro_nli"], [0])
    grid = load_profile("smoke", [f"grid.tasks=[{own}]", "grid.seeds=[3]"]).grid
    assert (grid.tasks, grid.dose_tasks, grid.dose_seeds) == ([str(own)], [], [])
    assert (grid.mend_tasks, grid.mend_seeds) == ([], [])
    (profile := tmp_path / "mine.yaml").write_text(f"grid: {{tasks: [{own}]}}\ncommon: {{profile: mine}}\n")
    assert load_profile(profile).grid.dose_tasks == []
    with pytest.raises(StudyError, match="'micro_nli' is not among grid.tasks"):
        load_profile("smoke", [f"grid.tasks=[{own}]", "grid.dose_tasks=[micro_nli]"])
