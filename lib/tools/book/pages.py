"""An executed notebook as a page of the book: numbered equations and figures, links to notebooks, citations, tables.

Nothing here is needed to run the study; the notebooks stay plain Markdown that GitHub and JupyterLab show as well.
"""

import itertools
import re
from difflib import SequenceMatcher
from html import escape
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.analysis import tables
from lib.tasks.registry import TASKS
from lib.tools.book import html_tables, slider

KEPT = re.compile(r"```.*?```|\{[\w:]+\}`[^`]*`|`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$|\[[^]]*\]\([^)]*\)|<[^>\n]+>|^#.*?$",
                  re.S | re.M)  # what is no prose: code, roles, maths, links, headings
EQUATION = re.compile(r"^(\$\$.+?\$\$) \(([\w:-]+)\)[ \t]*$", re.S | re.M)
OUTSIDE = re.compile(r"\[([^]]*)\]\(\.\./(?!\w+\.ipynb|book/\w+\.md)[^)]*\)")
WRITTEN = re.compile(r"\]\((?:\.\./)?book/(\w+\.md(?:#[\w-]+)?)\)")  # a link from a notebook to a written page
NUMBER = re.compile(r"(?<![\w.,/:-])(0\d[a-z]?)\b(?![-/:]|\.\d)|(?<=\bnotebook )(1\d)\b")
NAMED = re.compile(r"(?<![\[`])`(\d\d[a-z]?_[a-z_]+)`(?![]`])")
SAVED = re.compile(r'"figures" / f?"([^"]+)"')
FOLDED = {"injected-parameters": "the parameters of this run", "parameters": "the parameters and their defaults"}
APPENDIX = "this part of the appendix"
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}
NOTE = ":::{{note}}\n{}\n:::"
EARLIER = NOTE.format("The code on this page is that of the run, of an earlier layout of the study.")
NEWER = NOTE.format("The next cell is newer than this run, which has no output for it.")
STOPPED = NOTE.format("This run had not come to its end when it was collected: some cells below have no output.")


def tags_of(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def is_picture(output: NotebookNode) -> bool:
    return "image/png" in output.get("data", {})


def with_outputs(written: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The notebook as it is written now, with the outputs and parameters of its run; as it was run, under a note, where
    a result of the run (progress bars are none) has no cell any more.

    A cell that the run did not have keeps the output committed with it where it is tagged `method`: those sections
    compute the same in every run. Notes say which other outputs are missing, and that a run stopped.
    """
    ran, now = ([cell for cell in notebook.cells if cell.cell_type == "code" and not tags_of(cell) & set(FOLDED)]
                for notebook in (executed, written))
    known = _counterparts(now, ran)
    lost = (cell for place, cell in enumerate(ran) if place not in known.values())
    if any(output.output_type != "stream" for cell in lost for output in cell.outputs):
        executed.cells.insert(1, new_markdown_cell(EARLIER))
        return executed
    for place, cell in enumerate(now):
        if place in known:
            cell.outputs, cell.execution_count = ran[known[place]].outputs, ran[known[place]].execution_count
        elif cell.outputs and "method" not in tags_of(cell):
            cell.outputs = []
            written.cells.insert(written.cells.index(cell), new_markdown_cell(NEWER))
    if not all(cell.execution_count for cell in ran if cell.source):
        written.cells.insert(1, new_markdown_cell(STOPPED))
    given = [cell for cell in executed.cells if "injected-parameters" in tags_of(cell)]
    written.cells = [part for cell in written.cells for part in [cell, *given * ("parameters" in tags_of(cell))]]
    return written


def _counterparts(now: list[NotebookNode], ran: list[NotebookNode]) -> dict[int, int]:
    """Place of a cell -> place of its like in the run: in order, then, of what is left, wherever the last line, which
    shows the result, or one of the last two is alike. Imports do not count, as modules have moved."""
    new, old = ([re.sub(r"^(from|import) .*\n?", "", cell.source, flags=re.M).strip() for cell in part]
                for part in (now, ran))
    known = {}
    for _, start, end, at, last in SequenceMatcher(None, new, old, autojunk=False).get_opcodes():
        for place in range(start, end):
            if like := [other for other in range(at, last) if _likeness(new[place], old[other]) > 0.75
                        and _end_alike(new[place], old[other], 1)]:
                known[place], at = like[0], like[0] + 1
    for lines, place in itertools.product((1, 2), range(len(new))):
        left = (other for other in range(len(old)) if other not in known.values())
        if place not in known and (like := [other for other in left if _end_alike(new[place], old[other], lines)]):
            known[place] = like[0]
    return known


def _end_alike(text: str, other: str, lines: int) -> bool:
    ends = [re.findall(r"^.{9,}$", cell, re.M)[-lines:] or [cell] for cell in (text, other)]
    return any(_likeness(*pair) > 0.65 for pair in itertools.product(*ends))


def _likeness(text: str, other: str) -> float:
    return SequenceMatcher(None, text, other, autojunk=False).ratio()


def citations(bibliography: Path) -> list[tuple[str, str, int]]:
    """How prose names each work ("Sun et al. 2019", "Jin et al. (2020)"), what stands there in the book, and how often
    in a text (0: always). Of the two papers the names alone are enough, once in a text."""
    from pybtex.database import parse_file

    dated, papers = [], []
    for key, work in parse_file(str(bibliography)).entries.items():
        authors = [re.escape(" ".join(person.last_names)) for person in work.persons["author"]]
        names = rf"{authors[0]} et al\." if len(authors) > 2 else " and ".join(authors)
        role, year = f"{{cite:author}}`{key}`", work.fields["year"]
        told = rf"(?:[A-Z]\w*\.? )?{year}\b|arXiv {re.escape(work.fields.get('eprint', year))}"
        dated.append((rf"\b{names}(?=,? \(?(?:[AB], )?(?:{told}))", role, 0))
        if work.fields.get("note", "").startswith("Paper "):
            papers.append((rf"\b{names}(?!,? \(?(?:[A-Z]\w* )?[12]\d\d\d)", role, 1))
    return dated + papers


class Page:
    """One page of the book. name: its place there without suffix; source: the notebook it is made from; notebooks: the
    names of all that the book holds; works: those that `citations` knows."""

    def __init__(self, name: str, source: Path, notebooks: list[str], works: list[tuple[str, str, int]]):
        self.name, self.source, self.notebooks, self.works = name, source, notebooks, works

    def made(self, notebook: NotebookNode) -> NotebookNode:
        """The page as a notebook that Sphinx takes without a warning."""
        cells = [part for cell in notebook.cells for part in
                 (self.code(cell) if cell.cell_type == "code" else [new_markdown_cell(self.prose(cell.source))])]
        return new_notebook(cells=cells, metadata={"language_info": {"name": "python"}, "kernelspec": PYTHON})

    def prose(self, text: str) -> str:
        """Text with equations labelled by page, works cited and numbers of notebooks linked; links that lead out of the
        book are mere words."""
        text = WRITTEN.sub(rf"]({'../' * self.name.count('/')}\1)", OUTSIDE.sub(r"\1", text))
        text = EQUATION.sub(rf"\1 (\2-{self.name})", text)
        text = NAMED.sub(self._linked, text)
        kept = iter(KEPT.findall(text))
        text = KEPT.sub("\0", text)
        for pattern, role, count in self.works:
            text = re.sub(pattern, role, text, count=count)
        return re.sub("\0", lambda _: next(kept), NUMBER.sub(self._linked, text))

    def _linked(self, match: re.Match) -> str:
        """A stage's name or number as a link to its page, to that of this page's task where there are several."""
        stage = match[1] or match[2]
        named = sorted(name for name in self.notebooks if f"{name}_".startswith(f"{stage}_"))
        beside = [name for name in self.notebooks if named and name == f"{self.name.rpartition('-')[0]}-{named[0]}"]
        place = next(iter(beside + named), self.name)
        return match[0] if place == self.name else f"[{match[0]}]({'../' * self.name.count('/')}{place}.ipynb)"

    def code(self, cell: NotebookNode) -> list[NotebookNode]:
        """A code cell; where it draws, one cell an output, so that each picture has its number. A forgetting curve over
        sparsities stands there once more with a slider."""
        tags, saved, draws = tags_of(cell), self.saved(cell), any(map(is_picture, cell.outputs))
        drawing = "the code that draws this" if draws and "solutions" not in self.name else ""
        folded = next((text for tag, text in FOLDED.items() if tag in tags), drawing)
        prompts = {"code_prompt_show": f"Show {folded}", "code_prompt_hide": f"Hide {folded}"} if folded else {}
        tags |= {"hide-input"} if folded else set()
        if "answer" in tags:  # a sentence made of results: the notebook has its code
            tags |= {"remove-input"}
        if "appendix" in tags:
            tags |= {"hide-cell"}
            prompts = {"code_prompt_show": f"Show {APPENDIX}", "code_prompt_hide": f"Hide {APPENDIX}"}
        of_the_run = re.search(r"^report\.(versions|echo)\(.*\)\s*\Z", cell.source, re.M)
        if of_the_run and all("text/html" in output.get("data", {}) for output in cell.outputs):
            tags.add("hide-output")
        made, left = [], iter(saved)
        for outputs in [[output] for output in cell.outputs] if draws else [cell.outputs]:
            new = new_code_cell(cell.source, execution_count=cell.execution_count, outputs=[*map(self.output, outputs)])
            new.metadata = {"tags": sorted(tags | ({"remove-input"} if made else set())), "mystnb": dict(prompts)}
            if any(map(is_picture, outputs)):
                self.caption(new, cell, next(left, None), len(made))
            made.append(new)
        return made + [cell for path in saved if path.stem == "forgetting" for cell in self.slider(path)]

    def saved(self, cell: NotebookNode) -> list[Path]:
        """The tables saved with a cell's pictures, in their order; none where they are not as many."""
        folder = self.source.with_suffix("") / "figures"
        names = (re.sub(r"\{.*?\}", "*", name) for name in SAVED.findall(cell.source))
        saved = [path for name in names for path in sorted(folder.glob(f"{name}.csv"))]
        return saved if len(saved) == sum(map(is_picture, cell.outputs)) else []

    def caption(self, shown: NotebookNode, cell: NotebookNode, table: Path | None, place: int) -> None:
        """Give a cell that shows one of a notebook's pictures the caption, label and alternative text that myst-nb
        reads, and the drawing beside its table. place: that of the picture among the outputs of its own cell."""
        caption, label = cell.metadata.get("caption", ""), cell.metadata.get("label", "fig") + f"-{place}" * bool(place)
        alt, beside = "Plot: " + re.sub(r"[`*$\\{}\[\]]", "", caption).rstrip("."), []
        if table:
            before, loop, _ = SAVED.search(cell.source)[1].partition("{")
            beside = [f"`{table.stem.removeprefix(before)}`"] * bool(loop)
            beside.append(f"[its table](tables/{self.name}/{table.name})")
            alt += f": {table.stem}" * bool(loop) + "; its numbers are in the table that the caption links"
            if table.with_suffix(".svg").exists():
                shown.outputs[0].data = {"image/svg+xml": table.with_suffix(".svg").read_text()}
        text = self.prose(caption) + f" ({', '.join(beside)})" * bool(beside)
        shown.metadata["mystnb"] |= {"figure": {"caption": text, "name": f"{label}-{self.name}"}, "image": {"alt": alt}}

    def slider(self, table: Path) -> list[NotebookNode]:
        """A cell with a slider over the sparsities of a forgetting curve's table; none where it holds too few."""
        run, task = self.source.parts[-4:-2]
        chance = tables.ood_chance(TASKS[task]) if task in TASKS else None
        html = slider.forgetting(pd.read_csv(table), chance, smoke=run == "smoke")
        output = new_output("display_data", data={"text/html": html})
        return [new_code_cell("slider", outputs=[output], metadata={"tags": ["remove-input"]})] if html else []

    def output(self, output: NotebookNode) -> NotebookNode:
        """Progress bars folded away, tables fit for a screen reader, sentences as prose."""
        if output.output_type == "stream" and re.search(r"\d+%\|", output.text):
            folded = f'<details><summary>Progress</summary><pre tabindex="0">{escape(output.text)}</pre></details>'
            return new_output("display_data", data={"text/html": folded})
        data = dict(output.get("data", {}))
        if 'class="dataframe' in data.get("text/html", ""):
            data["text/html"] = html_tables.accessible(data["text/html"])
        if "text/markdown" in data:
            data["text/markdown"] = self.prose(data["text/markdown"])
        return nbformat.from_dict({**output, "data": data}) if data else output
