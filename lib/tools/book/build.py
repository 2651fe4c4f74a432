"""The book: executed notebooks as a folder of HTML that opens from disk and asks nothing of the network.

`python -m lib.tools.book.build [PROFILE ...]` takes `outputs/PROFILE` where a run of your own lies there, else the committed
`outputs/reference/PROFILE`; without a name every profile of the reference. Of each task one seed is shown, the one with
the most notebooks. Notebooks that no such run holds (00, 10, 11, solutions) come from `notebooks/` as they are committed.
Settings, landing page and bibliography lie in `notebooks/book`. Any warning of Sphinx fails the build.
"""

import argparse
import re
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lib import safe_yaml
from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.params.profile import changes, load_profile
from lib.tools.book.pages import Page, Writer, citations, labels_of, title, with_prose

MATHJAX = ("sphinx-mathjax-offline", "static", "mathjax", "tex-svg-full.js")  # the package and, in it, the one file needed
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinxcontrib.bibtex", MATHJAX[0])


def build(profiles: list[str], out: Path, root: Path = ROOT) -> int:
    """Build the book of these profiles (none: all of the reference) into `out`; returns its number of notebooks.

    A book that was there before stays until the new one is whole. StudyError: a package is missing, a profile has no
    executed notebook, or Sphinx had something to warn about (what it was stands on stderr).
    """
    if missing := [name for name in NEEDED if not _installed(name)]:
        raise StudyError(f"the book needs the package {missing[0]}: python -m pip install -e '.[book]' -c requirements.lock")
    from sphinx.cmd.build import build_main

    runs = [_run(name, root) for name in profiles] or \
        sorted((path for path in (root / "outputs" / "reference").glob("*") if path.is_dir()), key=_order)
    pages = gather(runs, root / "notebooks")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        source, made = Path(folder) / "source", Path(folder) / "html"
        lay_out(source, pages, runs, root)
        options = ["-b", "html", "-W", "--keep-going", "-q", "-j", "auto", "-d", f"{folder}/doctrees"]
        if build_main([*options, str(source), str(made)]):
            raise StudyError("the book was not built: each line of Sphinx above names the page at fault; mend its notebook")
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    return len(pages)


def gather(runs: list[Path], notebooks: Path) -> list[Page]:
    """The book's pages: of each run notebook 09 and one seed of each task, then what only `notebooks` holds."""
    pages = []
    for run in runs:
        pages += [Page(f"{run.name}/{path.stem}", path) for path in sorted(run.glob("[0-9]*.ipynb"))]
        for task in sorted({path.parents[1] for path in run.glob("*/seed*/[0-9]*.ipynb")}):
            seeds = sorted(task.glob("seed*"), key=lambda seed: int(seed.name[4:]))
            seed = max(seeds, key=lambda seed: len(list(seed.glob("[0-9]*.ipynb"))))
            pages += [Page(f"{run.name}/{task.name}/{path.stem}", path) for path in sorted(seed.glob("[0-9]*.ipynb"))]
    ran = {page.stage for page in pages}
    own = [Page(path.stem, path) for path in sorted(notebooks.glob("[0-9]*.ipynb")) if path.stem not in ran]
    return pages + own + [Page(f"solutions/{path.stem}", path) for path in sorted(notebooks.glob("solutions/*.ipynb"))]


def lay_out(source: Path, pages: list[Page], runs: list[Path], root: Path = ROOT) -> None:
    """Write the tree that Sphinx reads: the settings, every page, an index for every run and task, MathJax."""
    shutil.copytree(root / "notebooks" / "book", source)
    scripts = source / "_static" / "mathjax"
    scripts.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(find_spec(MATHJAX[0]).submodule_search_locations[0]).joinpath(*MATHJAX[1:]), scripts / MATHJAX[-1])
    notebooks = {page: _read(page, root / "notebooks" / f"{page.stage}.ipynb") for page in pages}
    labels = {page.name: labels_of(notebook) for page, notebook in notebooks.items()}
    works = citations(_entries(source / "references.bib"))
    for page, notebook in notebooks.items():
        writer = Writer(page, pages, labels, works)
        written = writer.write(notebook)
        target = source / f"{page.name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(written, target)
        for table, place in writer.tables.items():
            (target.parent / place).parent.mkdir(exist_ok=True)
            shutil.copyfile(table, target.parent / place)
    for path in source.glob("*.md"):
        path.write_text(Writer(Page(path.stem, path), pages, labels, works).prose(path.read_text(encoding="utf-8")), encoding="utf-8")
    titles = {page: title(notebook, page.stage) for page, notebook in notebooks.items()}
    for run in runs:
        _write_run(source, run, titles, root)
    with (source / "index.md").open("a") as index:
        index.write(_contents(source, runs, titles))


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _order(run: Path) -> tuple[int, str]:
    """From the smallest run to the largest; what is unknown comes last."""
    known = ("smoke", "mini", "micro", "real_small", "real", "paper")
    return known.index(run.name) if run.name in known else len(known), run.name


def _run(name: str, root: Path) -> Path:
    places = [root / "outputs" / name, root / "outputs" / "reference" / name]
    for place in places:
        if any(place.glob("[0-9]*.ipynb")) or any(place.glob("*/seed*/[0-9]*.ipynb")):
            return place
    known = {path.name for place in places for path in place.parent.glob("*") if any(path.glob("*/seed*/[0-9]*.ipynb"))}
    raise StudyError(f"{places[0]} holds no executed notebook: `make study PROFILE={name}` makes them"
                     f"{nearest(name, sorted(known))}")


def _read(page: Page, written: Path) -> NotebookNode:
    notebook = nbformat.read(page.source, as_version=4)
    if page.source != written and written.exists() and page.folder != "solutions":
        return with_prose(notebook, nbformat.read(written, as_version=4))
    return notebook


def _entries(path: Path) -> dict[str, tuple[list[str], str, str, bool]]:
    """What `citations` needs to know of each work in the bibliography."""
    from pybtex.database import parse_file

    entries = {}
    for key, work in parse_file(str(path)).entries.items():
        authors = [" ".join(person.last_names) for person in work.persons["author"]]
        paper = work.fields.get("note", "").startswith("Paper ")
        entries[key] = (authors, work.fields["year"], work.fields.get("eprint", ""), paper)
    return entries


def _tree(entries: list[str], caption: str = "", hidden: bool = True) -> str:
    options = [":titlesonly:", *[f":caption: {caption}"] * bool(caption), *[":hidden:"] * hidden]
    return "\n".join(["", "```{toctree}", *options, "", *entries, "```", ""]) if entries else ""


def _write_run(source: Path, run: Path, titles: dict[Page, str], root: Path) -> None:
    """The index of a run, and of each of its tasks where it has several."""
    pages = [page for page in titles if page.name.startswith(f"{run.name}/")]
    tasks = dict.fromkeys(page.folder for page in pages if page.folder != run.name)
    entries = [f"{titles[page]} </{page.name}>" for page in pages if page.folder == run.name]
    for task in tasks:
        of_task = [page for page in pages if page.folder == task]
        within = [f"{titles[page]} </{page.name}>" for page in of_task]
        name, seed = task.rpartition("/")[2], of_task[0].source.parent.name[4:]
        if len(tasks) == 1:
            entries += within
        else:
            entries.append(f"{name} </{task}/index>")
            text = f"# {name} ({run.name})\n\nThe notebooks of this task, with the run of seed {seed}.\n"
            (source / task / "index.md").write_text(text + _tree(within, hidden=False))
    about = "The notebooks below show one seed of each task; 09 reads all of them."
    text = f"# {run.name}\n\n{_described(run.name, root)}\n\n{_changed(run, root)}{about}\n"
    (source / run.name / "index.md").write_text(text + _tree(entries, hidden=False))


def _described(profile: str, root: Path) -> str:
    """What the head of the profile's file says of it."""
    path = root / "params" / f"{profile}.yaml"
    lines = path.read_text().splitlines() if path.exists() else []
    head = [line[1:].strip() for line in lines[:next((i for i, line in enumerate(lines) if line[:1] != "#"), 0)]]
    text = re.sub(r"Keys are explained.*", "", " ".join(head)).removeprefix(f"{profile}: ").strip()
    return text[:1].upper() + text[1:]


def _changed(run: Path, root: Path) -> str:
    """What the run was given otherwise than its profile says, as it is typed after SET."""
    path, ran = root / "params" / f"{run.name}.yaml", run / "params.yaml"
    if not (path.exists() and ran.exists()):
        return ""
    found = changes(safe_yaml.read(ran, str(ran)), load_profile(path).as_dict())
    named = ", ".join(f"`{text}`" + f" for {task}" * bool(task) for task, text in found)
    return f"This run was made with other values than `params/{run.name}.yaml`: {named}.\n\n" if found else ""


def _contents(source: Path, runs: list[Path], titles: dict[Page, str]) -> str:
    """The book's table of contents, in the order in which it is read."""
    def of(chosen):
        return [f"{text} </{page.name}>" for page, text in titles.items() if chosen(page)]

    def written(*names):
        return [name for name in names if (source / f"{name}.md").exists()]

    return "".join([
        _tree(of(lambda page: not page.folder and page.stage < "01"), "The question"),
        _tree([*written("found"), *(f"{run.name} </{run.name}/index>" for run in runs)], "What was found"),
        _tree(of(lambda page: not page.folder and "01" <= page.stage < "10"), "Shown on smoke only"),
        _tree(of(lambda page: not page.folder and page.stage >= "10"), "Your own model, your own task"),
        _tree(written("rerun", "online"), "Rerun it"),
        _tree([*written("teaching"), *of(lambda page: page.folder == "solutions")], "In class"),
        _tree(written("references"), "Sources")])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.tools.book.build", description=__doc__.split("\n\n")[0])
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help="such as mini; none: all of outputs/reference")
    out = ROOT / "outputs" / "book" / "html"
    try:
        pages = build(parser.parse_args(arguments).profiles, out)
    except StudyError as error:
        parser.exit(2, f"{error}\n")
    print(f"{pages} notebooks: open {(out / 'index.html').relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
