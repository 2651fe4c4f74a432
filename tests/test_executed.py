import json
import re
import time
from pathlib import Path

import nbformat
import pytest

from lib import progress
from lib.files import ROOT
from lib.tools import executed

COMMITTED = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")) + sorted((ROOT / "notebooks").glob("solutions/[0-9]*.ipynb"))


def cell(*outputs, tags=()):
    made = nbformat.v4.new_code_cell("1", outputs=list(outputs), execution_count=1)
    made.metadata = {"tags": list(tags), "papermill": {"duration": 1.5}, "execution": {"iopub.status.busy": "now"}}
    return made


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_a_progress_bar_leaves_its_last_state():
    notebook = nbformat.v4.new_notebook(cells=[cell(stream("\rdense 1%"), stream("\rdense 50%"), stream("\rdense 100%\n"),
                                                    stream("said\n"))])
    (output,) = executed.tidy(notebook).cells[0].outputs
    assert output.text == "dense 100%\nsaid\n"


def test_a_bar_that_waits_shows_only_what_takes_longer(capsys):
    with progress.bar(2, "dense") as outer:
        for desc, pause in (("quick", 0), ("slow", 0.2)):
            with progress.bar(2, desc, wait=0.1) as inner:
                inner.mininterval = 0  # refreshed at each step, not every ten seconds
                time.sleep(pause)
                inner.update(2)
            outer.update()
    said = capsys.readouterr().out
    assert "quick" not in said and "\x1b" not in said
    (output,) = executed.tidy(nbformat.v4.new_notebook(cells=[cell(stream(said))])).cells[0].outputs
    slow, dense = output.text.splitlines()
    assert slow.startswith("slow 100%") and dense.startswith("dense 100%")


def test_streams_of_two_names_stay_apart_and_results_stay():
    result = nbformat.v4.new_output("execute_result", data={"text/plain": "42"}, execution_count=1)
    kept = executed.tidy(nbformat.v4.new_notebook(cells=[cell(stream("a"), stream("b", "stderr"), result, stream(" \r "))]))
    assert [o.output_type for o in kept.cells[0].outputs] == ["stream", "stream", "execute_result"]
    assert kept.cells[0].outputs[2].data == {"text/plain": "42"}


def test_tags_and_counts_stay_and_run_times_go():
    notebook = nbformat.v4.new_notebook(cells=[cell(tags=["parameters"])], metadata={"papermill": {"input_path": "/here"}})
    kept = executed.tidy(notebook)
    assert kept.cells[0].metadata == {"tags": ["parameters"]} and kept.cells[0].execution_count == 1
    assert "/here" not in json.dumps(kept)


def test_a_failing_notebook_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "04_x.ipynb"
    path.write_text("before")
    with pytest.raises(Exception):
        executed.execute(path)
    assert path.read_text() == "before"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_committed_notebooks_are_executed_tidy_and_of_no_machine(path: Path):
    notebook = nbformat.read(path, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1)), "run it: python -m lib.tools.executed"
    assert any("nbval-check-output" in c.metadata.get("tags", []) for c in code), "no result for nbval to compare"
    assert max(len(c.source.splitlines()) for c in code if "parameters" not in c.metadata.get("tags", [])) <= 20
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    text = path.read_text()
    assert not re.search(r"/home/|/root/|/work/|site-packages|/tmp/", text) and "widget" not in json.dumps(notebook.metadata)
