import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lib.errors import StudyError
from lib.files import ROOT
from lib.tools import classroom

COMMITTED = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
TASKS = ("## Exercises\n\n1. Set `epochs` to half. What falls?\n   Say why.\n2. Predict, then run $x$.\n\n"
         "[Solutions](solutions/04_x.ipynb)")


def text(source, *tags):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)} if tags else {})


def code(source, *tags):
    shown = [nbformat.v4.new_output("execute_result", data={"text/plain": "42"}, execution_count=7)]
    return nbformat.v4.new_code_cell(source, execution_count=7, outputs=shown, metadata={"tags": list(tags)})


def toy(*cells):
    return nbformat.v4.new_notebook(cells=list(cells), metadata={"kernelspec": {"name": "python3", "display_name": "P"}})


def texts(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def codes(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_code_stays_in_order_with_its_tags_and_without_outputs():
    made = classroom.twin(toy(code("x = 1", "parameters"), text("# T"), code("x + 41"), text(TASKS)), "04_x")
    assert [cell.source for cell in codes(made)][:2] == ["x = 1", "x + 41"]
    assert codes(made)[0].metadata["tags"] == ["parameters"]
    assert all(not cell.outputs and cell.execution_count is None for cell in codes(made))


def test_answers_give_way_to_a_question_and_leave_their_heading():
    cells = [code("x"), text("It fell.", "answer"), text("By much.", "answer"), code("y"),
             text("## Summary\n\n- It is forgotten.", "answer"), code("say(y)", "answer"), text(TASKS),
             text("The answer is no.", "answer")]
    made = classroom.twin(toy(*cells), "04_x")
    ask = classroom.ASK
    assert [t for t in texts(made) if "Exercises" not in t] == [ask, f"## Summary\n\n{ask}", ask]
    assert not any("answer" in cell.metadata.get("tags", []) for cell in made.cells)


def test_a_code_cell_that_answers_gives_way_and_the_appendix_follows_the_exercise_cells():
    made = classroom.twin(toy(code("x"), code("say(x)", "answer"), text("## Summary"), text(TASKS),
                              text("## Appendix\n\n1. No task."), code("y", "appendix")), "04_x")
    assert [cell.source for cell in codes(made)] == ["x", "# 1. Set epochs to half.", "# 2. Predict, then run x.", "y"]
    assert texts(made)[0] == classroom.ASK and texts(made)[-1].startswith("## Appendix")


def test_paragraphs_are_cut_to_a_sentence_and_what_is_learnt_from_stays():
    plain = "Weights are cut, e.g. small ones. They stay zero. So it goes."
    kept = ["## A heading", "With $e$ the accuracy. It is high.", "This is *pruning*. It cuts.",
            "Du et al. prune. It falls.", "- one. two.\n- three. four.", "$$s = 1$$", "```bash\nmake class\n\nmake lab\n```",
            "| a. b |\n|---|", "One way. Another way:"]
    made = classroom.twin(toy(text("\n\n".join([plain, *kept])), text(TASKS)), "04_x")
    assert texts(made)[0] == "\n\n".join(["Weights are cut, e.g. small ones.", *kept])


def test_an_equation_over_a_blank_line_is_one_block():
    assert classroom.blocks("a\n\n$$x\n\n= y$$\n\n\n```\nb\n\nc\n```") == ["a", "$$x\n\n= y$$", "```\nb\n\nc\n```"]


def test_each_exercise_gets_a_cell_and_no_link_to_its_solution():
    links = "See [the solution](solutions/04_x.ipynb) or [its sizes](../params/mini.yaml), [02](02_y.ipynb)"
    given = toy(text(links), text("## Exercises"), text(TASKS.removeprefix("## Exercises\n\n")))
    cells = classroom.twin(given, "04_x").cells
    assert cells[0].source == "See the solution or [its sizes](../../params/mini.yaml), [02](02_y.ipynb)"
    assert cells[2].source == "1. Set `epochs` to half. What falls?\n   Say why.\n2. Predict, then run $x$."
    assert [cell.source for cell in cells[3:]] == ["# 1. Set epochs to half.", "# 2. Predict, then run x."]


def test_an_exercise_without_code_gets_a_text_cell():
    made = classroom.twin(toy(text("## Exercises\n\n1. *Five minutes, no code.* Which one? Say why.\n2. Run $x$.")), "04_x")
    assert [(cell.cell_type, cell.source) for cell in made.cells[1:]] == [
        ("markdown", "1. Which one? *Write it here.*"), ("code", "# 2. Run x.")]


@pytest.mark.parametrize("cells, said", [
    ([text("# T")], "04_x: it has no heading 'Exercises'"),
    ([text("## Exercises\n\nDo it.")], "04_x: below its heading 'Exercises' stands no numbered task"),
    ([text(TASKS, "answer")], "04_x: the Exercises stand in a cell tagged `answer`")])
def test_a_notebook_that_makes_no_twin_is_named(cells, said):
    with pytest.raises(StudyError, match=re.escape(said)) as error:
        classroom.twin(toy(*cells), "04_x")
    assert "\n" not in str(error.value)


def test_a_folder_is_written_whole_or_not_at_all_and_again_the_same(tmp_path):
    notebooks, out = tmp_path / "notebooks", tmp_path / "class"
    with pytest.raises(StudyError, match="holds no notebook"):
        classroom.write(notebooks, out)
    notebooks.mkdir()
    nbformat.write(toy(code("1"), text(TASKS)), notebooks / "04_x.ipynb")
    (notebooks / "05_y.ipynb").write_text("{")
    with pytest.raises(StudyError, match="05_y.ipynb is no notebook"):
        classroom.write(notebooks, out)
    assert not out.exists()
    (notebooks / "05_y.ipynb").unlink()
    assert classroom.write(notebooks, out) == [out / "04_x.ipynb"]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"04_x.ipynb", "README.md"} and before["README.md"].count(b"\n") == 2
    classroom.write(notebooks, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_twin_of_a_committed_notebook(path: Path):
    notebook = nbformat.read(path, as_version=4)
    made = classroom.twin(notebook, path.stem)
    nbformat.validate(made)
    given = [cell.source for cell in codes(notebook) if "answer" not in cell.metadata.get("tags", [])]
    exercises = [cell.source.removeprefix("# ") for cell in made.cells if cell.id.startswith("exercise-")]
    own = [cell.source for cell in codes(made) if not cell.id.startswith("exercise-")]
    assert own == given and not any(cell.outputs or cell.execution_count for cell in codes(made))
    whole = "\n\n".join(texts(notebook))
    tasks = whole.partition("## Exercises")[2].partition("[Solutions]")[0].strip()
    assert tasks and tasks in "\n".join(texts(made)) and "solutions/" not in "\n".join(texts(made))
    numbers = re.findall(r"^\d+\. ", tasks, re.M)
    assert [source[:3] for source in exercises] == numbers
    for cell in notebook.cells:
        if "answer" in cell.metadata.get("tags", []):
            said = [block for block in classroom.blocks(cell.source) if not block.startswith("#")]
            assert not any(block in text for block in said for text in texts(made))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_no_cell_of_a_twin_needs_a_name_that_an_answer_makes(path: Path):
    made, left_out = set(), set()
    for cell in codes(nbformat.read(path, as_version=4)):
        names = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)]
        stored = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        if "answer" in cell.metadata.get("tags", []):
            left_out |= stored - made
        else:
            made |= stored
            assert not {node.id for node in names} & left_out - made, f"{path.stem}: {cell.source[:60]!r}"


def test_a_twin_runs_from_top_to_bottom(tmp_path):
    """01 trains nothing; what the other twins run is, cell by cell, what their notebooks run but for its answers."""
    (source,) = (path for path in COMMITTED if path.stem == "01_data")
    made = classroom.twin(nbformat.read(source, as_version=4), source.stem)
    NotebookClient(made, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in codes(made))
