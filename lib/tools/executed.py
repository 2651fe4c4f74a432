"""Executed notebooks fit to commit: run on their defaults, progress lines folded, nothing of one machine in them."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from lib import files
from lib.errors import nearest
from lib.files import ROOT

FOLDER = ROOT / "notebooks"
KEPT = ("tags", "caption", "label")  # of a cell's metadata: what nbval, papermill and the book read


def _last_state(text: str) -> str:
    """Text as a terminal leaves it: of a line drawn over with carriage returns the last state."""
    lines = ([part for part in line.split("\r") if part.strip()] or [""] for line in text.split("\n"))
    return "\n".join(parts[-1] for parts in lines)


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Fold streams into one output each; of metadata keep KEPT, not run times, widget state or papermill's marks."""
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
        if cell.cell_type != "code":
            continue
        outputs: list = []
        for output in cell.outputs:
            if outputs and output.output_type == "stream" and output.name == outputs[-1].get("name"):
                outputs[-1].text += output.text
            else:
                outputs.append(output)
        for output in (output for output in outputs if output.output_type == "stream"):
            output.text = _last_state(output.text)
        cell.outputs = [output for output in outputs if output.output_type != "stream" or output.text.strip()]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                         "language_info": {"name": "python"}}
    return notebook


def finished(path: Path) -> bool:
    """False for a notebook that papermill is running now, or that failed or was broken off."""
    marks = nbformat.read(path, as_version=4).metadata.get("papermill")
    return not marks or bool(marks.get("end_time")) and not marks.get("exception")


def tidy_copy(source: Path, target: Path) -> None:
    """Write the tidied notebook of `source` to `target`, whole or not at all."""
    notebook = tidy(nbformat.read(source, as_version=4))
    with files.whole(target) as temporary:
        nbformat.write(notebook, temporary)


def execute(path: Path) -> None:
    """Run a notebook on its own defaults and write it back, tidied. A failing one raises and stays as it was."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / path.name
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(path), str(run)]
        subprocess.run(command, cwd=ROOT, check=True)
        tidy_copy(run, path)


def execute_named(arguments: list[str]) -> None:
    """`python -m lib.tools.executed [NAME ...]` executes committed notebooks and solutions on smoke, in place."""
    parser = argparse.ArgumentParser(prog="python -m lib.tools.executed", description=execute.__doc__)
    parser.add_argument("names", nargs="*", help="such as 04_pruning or solutions/04_pruning; all where none is given")
    names = parser.parse_args(arguments).names
    paths = [path for where in (FOLDER, FOLDER / "solutions") for path in sorted(where.glob("[0-9]*.ipynb"))]
    known = [str(path.relative_to(FOLDER).with_suffix("")) for path in paths]
    for name in names:
        if name not in known:
            parser.exit(2, f"{FOLDER} has no notebook '{name}'{nearest(name, known)}\n")
    for path in [FOLDER / f"{name}.ipynb" for name in names] or paths:
        execute(path)


if __name__ == "__main__":
    execute_named(sys.argv[1:])
