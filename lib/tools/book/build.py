"""The book of one run: its executed notebooks as a folder of HTML that opens from disk and asks nothing of the network.

A run of your own in `outputs/PROFILE` comes before the committed one in `outputs/reference/PROFILE`. Of each task one
seed is shown, the one with the most notebooks; what the run lacks (00, 10, 11, solutions) comes from `notebooks`.
Settings, written pages, contents and bibliography lie in `notebooks/book`. Any warning of Sphinx fails the build.
"""

import re
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell

from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.tools.book.pages import NOTE, Page, citations, with_outputs

SMOKE = NOTE.format("The run of this book does not hold this notebook. What is shown is of `smoke`, and no result.")
IMAGE = re.compile(r"(!\[[^\]]*\]\()(\.\./\.\./outputs/[^)\s]+)(?=\))")
OF_TASK = "```{{toctree}}\n:hidden:\n:titlesonly:\n:glob:\n:caption: {task}\n\n{task}-0*\n```\n"


def build_book(profile: str, out: Path, root: Path = ROOT) -> int:
    """Build the book of a profile's run into `out`; returns its number of notebooks.

    A book that was there before stays until the new one is whole. StudyError: the profile has no executed notebook, or
    Sphinx had something to warn about (what it was stands on stderr).
    """
    from sphinx.cmd.build import build_main

    run = run_of(profile, root)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        source, made = Path(folder) / "source", Path(folder) / "html"
        pages = lay_out(source, run, root)
        options = ["-b", "html", "-W", "--keep-going", "-q", "-j", "auto", "-d", f"{folder}/doctrees"]
        if build_main([*options, str(source), str(made)]):
            raise StudyError("the book was not built: each line of Sphinx above names the page at fault; "
                             "mend its notebook")
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    return pages


def run_of(profile: str, root: Path) -> Path:
    """The folder of a profile's run; StudyError where it holds no executed notebook."""
    runs = {path.parents[2] for path in (root / "outputs").glob("**/seed*/[0-9]*.ipynb")}
    for run in (root / "outputs" / profile, root / "outputs" / "reference" / profile):
        if run in runs:
            return run
    raise StudyError(f"outputs/{profile} holds no executed notebook: `make study PROFILE={profile}` makes them"
                     f"{nearest(profile, sorted({run.name for run in runs}))}")


def gather(run: Path, notebooks: Path) -> dict[str, Path]:
    """Page of the book -> its notebook: what the run holds, then what only `notebooks` does. Where the run has several
    tasks, the pages of all but the one with the most notebooks begin with the task: micro_facts-04_pruning."""
    tasks: dict[str, list[Path]] = {}
    for seed in sorted(run.glob("*/seed*")):
        tasks[seed.parent.name] = max(tasks.get(seed.parent.name, []), sorted(seed.glob("[0-9]*.ipynb")), key=len)
    first = max(tasks, key=lambda task: len(tasks[task]))
    own = [*notebooks.glob("[0-9]*.ipynb"), *notebooks.glob("solutions/[0-9]*.ipynb")]
    return ({path.relative_to(notebooks).with_suffix("").as_posix(): path for path in own}
            | {path.stem: path for path in run.glob("[0-9]*.ipynb")}
            | {f"{task}-" * (task != first) + path.stem: path for task, shown in tasks.items() for path in shown})


def lay_out(source: Path, run: Path, root: Path) -> int:
    """Write the tree that Sphinx reads: the settings, the pages and their tables; returns the number of notebooks."""
    pages = gather(run, root / "notebooks")
    shutil.copytree(root / "notebooks" / "book", source)
    works = citations(source / "references.bib")
    others = "\n".join(OF_TASK.format(task=task) for task in sorted({name.rpartition("-")[0] for name in pages} - {""}))
    for path in source.glob("*.md"):
        text = IMAGE.sub(lambda image: image[1] + _copied(image[2], source, root), path.read_text(encoding="utf-8"))
        text = Page(path.stem, path, list(pages), works).prose(text)
        path.write_text(text.replace("% RUN", run.name).replace("% TASKS", others), encoding="utf-8")
    for name, path in pages.items():
        target = source / f"{name}.ipynb"
        target.parent.mkdir(exist_ok=True)
        nbformat.write(Page(name, path, list(pages), works).made(_read(path, root)), target)
        for table in (path.with_suffix("") / "figures").glob("*.csv"):
            (source / "tables" / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(table, source / "tables" / name / table.name)
    return len(pages)


def _copied(image: str, source: Path, root: Path) -> str:
    """The place in the tree of a figure that a written page takes from `outputs`."""
    path = (root / "notebooks" / "book" / image).resolve()
    if not path.is_file():
        raise StudyError(f"{path} is not there: a page of notebooks/book shows it as {image}")
    name = "-".join(path.relative_to(root.resolve()).parts[1:])
    (source / "shown").mkdir(exist_ok=True)
    shutil.copyfile(path, source / "shown" / name)
    return f"shown/{name}"


def _read(path: Path, root: Path) -> nbformat.NotebookNode:
    """A page's notebook, as it is written now, which says under its title where it lies."""
    notebook, written = nbformat.read(path, as_version=4), root / "notebooks" / path.name
    if root / "notebooks" not in path.parents and written.exists():
        notebook = with_outputs(nbformat.read(written, as_version=4), notebook)
    elif path == written and "01" <= path.stem < "10":
        notebook.cells.insert(1, new_markdown_cell(SMOKE))
    place = f"*The notebook lies in `{path.parent.relative_to(root)}`.*"
    notebook.cells[0].source = re.sub(r"^(# .+)$", rf"\1\n\n{place}", notebook.cells[0].source, count=1, flags=re.M)
    return notebook
