"""An executed notebook as a page of the book: numbered equations and figures, links between notebooks, citations, tables.

Nothing here is needed to run the study; the notebooks stay plain Markdown that GitHub and JupyterLab show as well.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from os.path import relpath
from pathlib import Path, PurePosixPath

import nbformat
import pandas as pd
from nbformat import NotebookNode

from lib.analysis import tables
from lib.tasks.registry import TASKS
from lib.tools.book import html_tables, slider

KEPT = re.compile(r"```.*?```|\{[\w:]+\}`[^`]*`|`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$|\[[^]]*\]\([^)]*\)|<[^>\n]+>|^#.*?$",
                  re.S | re.M)
EQUATION = re.compile(r"^\$\$(.+?)\$\$(?: \(([\w:-]+)\))?[ \t]*$", re.S | re.M)
REFERENCE = re.compile(r"\{(eq|numref|ref)\}`(?:([^`<]*)<)?([\w:-]+)>?`")
TARGET = re.compile(r"^\(([\w:-]+)\)=$", re.M)
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s]+)\)")
STAGE = re.compile(r"(?<![\w.,/:-])(0\d[a-z]?)\b(?![-/:]|\.\d)|(?<=\bnotebook )(1\d)\b")
NAMED = re.compile(r"(?<![\[`])`(\d\d[a-z]?_[a-z_]+)`(?![]`])")
SAVED = re.compile(r'"figures" / f?"([^"]+)"')
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}
PARAMETERS = {"parameters", "injected-parameters"}


@dataclass(frozen=True)
class Page:
    """One notebook of the book. name: its place there without suffix, such as mini/micro_nli/04_pruning."""

    name: str
    source: Path

    @property
    def stage(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]

    def to(self, other: "Page") -> str:
        """The other page's path as seen from this one."""
        return relpath(other.name, self.folder or ".") + ".ipynb"


def nearest_page(page: Page, pages: Iterable[Page], stage: str) -> Page | None:
    """The page of a stage (or of its number, "04") that lies closest: the same task, else the same profile, else any."""
    found = [p for p in pages if p.folder != "solutions" and (p.stage == stage or p.stage.startswith(f"{stage}_"))]
    shared = [len([a for a, b in zip(page.name.split("/"), p.name.split("/")) if a == b]) for p in found]
    return found[shared.index(max(shared))] if found else None


def tags_of(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def with_prose(executed: NotebookNode, written: NotebookNode) -> NotebookNode:
    """The prose and tags of the notebook as it is written now, with the code and outputs of its run, if both have as many
    code cells and each is like its counterpart, such as but for a module's new name; else as it was run, with the captions
    and tags of what is the same. Cells of parameters are the run's own."""
    def code(notebook):
        return [cell for cell in notebook.cells if cell.cell_type == "code" and not PARAMETERS & tags_of(cell)]

    ran, now = code(executed), code(written)
    if len(ran) != len(now) or not all(map(_alike, ran, now)):
        known = {cell.source: cell.metadata for cell in now}
        for cell in ran:
            cell.metadata = known.get(cell.source, cell.metadata)
        return executed
    for cell, counterpart in zip(ran, now):
        cell.metadata = counterpart.metadata
    parameters = [cell for cell in executed.cells if PARAMETERS & tags_of(cell)]
    cells, left = [], iter(ran)
    for cell in written.cells:
        if PARAMETERS & tags_of(cell):
            cells += parameters
        else:
            cells.append(next(left) if cell.cell_type == "code" else cell)
    return nbformat.from_dict({**executed, "cells": cells})


def _alike(cell: NotebookNode, other: NotebookNode) -> bool:
    return SequenceMatcher(None, cell.source, other.source, autojunk=False).ratio() > 0.8


def title(notebook: NotebookNode, stage: str) -> str:
    """The first heading, else the notebook's file name."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(r"^# +(.+)$", "\n".join(texts), re.M)
    return found[1].strip() if found else stage


def unfinished(notebook: NotebookNode) -> bool:
    return any(cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None
               and "parameters" not in tags_of(cell) for cell in notebook.cells)


def in_prose(text: str, change: Callable[[str], str]) -> str:
    """Text with everything changed but headings, code, maths, links and roles."""
    parts, at = [], 0
    for match in KEPT.finditer(text):
        parts += [change(text[at:match.start()]), match[0]]
        at = match.end()
    return "".join([*parts, change(text[at:])])


def citations(entries: dict[str, tuple[list[str], str, str, bool]]) -> list[tuple[re.Pattern, str, bool]]:
    """Patterns of how prose names each work ("Sun et al. 2019", "Jin et al. (2020)"), its key, and whether the names alone
    are enough, as they are at their first mention for the two papers.

    entries: key -> (surnames of the authors, year, arXiv number or "", is one of the two papers)
    """
    patterns = []
    for key, (authors, year, eprint, _) in entries.items():
        names = authors[0] if len(authors) == 1 else " and ".join(authors) if len(authors) == 2 else f"{authors[0]} et al."
        told = rf"(?:[A-Z]\w*\.? )?{year}\b" + (rf"|arXiv {re.escape(eprint)}" if eprint else "")
        patterns.append((re.compile(rf"\b{re.escape(names)}(?=,? \(?(?:[AB], )?(?:{told}))"), key, False))
    for key, (authors, _, _, paper) in entries.items():
        if paper:
            patterns.append((re.compile(rf"\b{re.escape(authors[0])} et al\.(?!,? \(?(?:[A-Z]\w* )?[12]\d\d\d)"), key, True))
    return patterns


class Writer:
    """Turns one notebook into its page; `pages` and `labels` (page name -> its own labels) are those of the whole book."""

    def __init__(self, page: Page, pages: list[Page], labels: dict[str, set[str]],
                 works: list[tuple[re.Pattern, str, bool]]):
        self.page, self.pages, self.labels, self.works = page, pages, labels, works
        self.level, self.heading, self.equations, self.named, self.figures = 0, page.stage, 0, set(), set()
        self.tables: dict[Path, str] = {}  # CSV file -> where the page links it

    def write(self, notebook: NotebookNode) -> NotebookNode:
        """The page as a notebook that Sphinx takes without a warning; `tables` then holds the files to put beside it."""
        cells = []
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cells.append(nbformat.v4.new_markdown_cell(self.prose(self.headings(cell.source))))
            elif cell.cell_type == "code":
                cells += self.code(cell)
        if unfinished(notebook):
            note = ":::{note}\nThis run had not come to its end when it was collected: some cells below have no output.\n:::"
            cells.insert(1, nbformat.v4.new_markdown_cell(note))
        return nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}, "kernelspec": PYTHON})

    def headings(self, text: str) -> str:
        """One title, which also says where the page belongs, and no level left out below it."""
        lines, fenced = [], False
        for line in text.split("\n"):
            fenced ^= line.startswith("```")
            found = re.match(r"(#+) +(.+?)\s*$", line) if not fenced else None
            if found and not self.level:
                where = f" ({self.page.folder.replace('/', ', ')})" if self.page.folder else ""
                self.level, line = 1, f"# {found[2]}{where}"
            elif found:
                self.level = min(max(len(found[1]), 2), self.level + 1)
                self.heading, line = found[2], f"{'#' * self.level} {found[2]}"
            lines.append(line)
        return "\n".join(lines)

    def prose(self, text: str) -> str:
        """Equations labelled, references and links made to hold in the book, works cited, notebooks' numbers linked."""
        text = EQUATION.sub(self._equation, text)
        text = TARGET.sub(lambda match: f"({self.label(match[1])})=", text)
        text = REFERENCE.sub(self._reference, text)
        text = LINK.sub(self._link, text)
        text = NAMED.sub(self._stage, text)
        for pattern, key, once in self.works:
            if not (once and key in self.named):
                cited = in_prose(text, lambda part: pattern.sub(f"{{cite:author}}`{key}`", part, count=int(once)))
                if cited != text:
                    self.named.add(key)
                text = cited
        return in_prose(text, lambda part: STAGE.sub(self._stage, part))

    def label(self, label: str, page: Page | None = None) -> str:
        """A label as the book has it: no two pages share one."""
        return re.sub(r"[^a-z0-9]+", "-", f"{label}-{(page or self.page).name}".lower())

    def _equation(self, match: re.Match) -> str:
        self.equations += 1
        return f"$${match[1]}$$ ({self.label(match[2] or f'eq-{self.equations}')})"

    def _reference(self, match: re.Match) -> str:
        owners = [page for page in self.pages if match[3] in self.labels[page.name]]
        if not owners:
            return match[0]
        stage = self.page.stage if self.page in owners else owners[0].stage
        owner = nearest_page(self.page, owners, stage) or owners[0]
        label = self.label(match[3], owner)
        return f"{{{match[1]}}}`{match[2]}<{label}>`" if match[2] else f"{{{match[1]}}}`{label}`"

    def _link(self, match: re.Match) -> str:
        image, text, target = match.groups()
        if image or re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, fragment = target.partition("#")
        place = PurePosixPath(path)
        if place.suffix == ".ipynb":
            solution = Page(f"solutions/{place.stem}", Path())
            wanted = "solutions" in place.parts or (self.page.folder == "solutions" and ".." not in place.parts)
            known = next((p for p in self.pages if p.name == solution.name), None) if wanted else \
                nearest_page(self.page, self.pages, place.stem)
            if known:
                return f"[{text}]({self.page.to(known)}{'#' + fragment if fragment else ''})"
        return text

    def _stage(self, match: re.Match) -> str:
        known = nearest_page(self.page, self.pages, next(filter(None, match.groups())))
        return f"[{match[0]}]({self.page.to(known)})" if known and known != self.page else match[0]

    def code(self, cell: NotebookNode) -> list[NotebookNode]:
        """A code cell; where it shows more than one picture, a further one without source, so that each has its number.
        Under a forgetting curve over sparsities stands the same with a slider."""
        tags, folded, saved = tags_of(cell), self.folded(cell), self.saved(cell)
        settings = {"code_prompt_show": f"Show {folded}", "code_prompt_hide": f"Hide {folded}"} if folded else {}
        tags |= {"hide-input"} if folded else set()
        of_the_run = re.search(r"^report\.(versions|echo)\(.*\)\s*\Z", cell.source, re.M)
        if of_the_run and all("text/html" in output.get("data", {}) for output in cell.outputs):
            tags.add("hide-output")
        groups: list[list] = [[]]
        for output in map(self.output, cell.outputs):
            if groups[-1] and (is_picture(output) or is_picture(groups[-1][-1])):
                groups.append([])
            groups[-1].append(output)
        made, left = [], iter(saved)
        for outputs in groups:
            picture = {}
            if outputs and is_picture(outputs[0]):
                table = next(left, None)
                outputs[0], picture = as_drawn(outputs[0], table), self.figure(cell, table)
            new = nbformat.v4.new_code_cell(cell.source, outputs=outputs, execution_count=cell.execution_count)
            new.metadata = {"tags": sorted(tags | ({"remove-input"} if made else set())), "mystnb": settings | picture}
            made.append(new)
        return made + [cell for path in saved if path.stem == "forgetting" for cell in self.slider(path)]

    def folded(self, cell: NotebookNode) -> str:
        """What lies under the fold of a cell whose source is folded; "" where it stays open."""
        tags = tags_of(cell)
        if "injected-parameters" in tags:
            return "the parameters of this run"
        if "parameters" in tags:
            return "the parameters and their defaults"
        draws = self.page.folder != "solutions" and any(map(is_picture, cell.outputs))
        return "the code that draws this" if draws else ""

    def saved(self, cell: NotebookNode) -> list[Path]:
        """The tables saved with a cell's pictures, in their order; none where they are not as many."""
        folder = self.page.source.with_suffix("") / "figures"
        names = (re.sub(r"\{.*?\}", "*", name) for name in SAVED.findall(cell.source))
        found = [path for name in names for path in sorted(folder.glob(f"{name}.csv"))]
        return found if len(found) == sum(map(is_picture, cell.outputs)) else []

    def figure(self, cell: NotebookNode, table: Path | None) -> dict:
        """Caption, label and alternative text of a cell's picture: its metadata `caption` and `label`, else the heading
        above it and the name it was saved under."""
        caption = cell.metadata.get("caption") or self.heading
        label, alt, beside = figure_label(cell), re.sub(r"[`*$\\{}\[\]]", "", caption), []
        while label in self.figures:
            label += "-more"
        self.figures.add(label)
        if table:
            name = SAVED.search(cell.source)[1]
            if "{" in name:
                beside.append(f"`{table.stem.removeprefix(name.partition('{')[0])}`")
                alt = f"{alt.rstrip('.')}: {table.stem}"
            self.tables[table] = f"tables/{self.page.stage}-{table.stem}.csv"
            beside.append(f"[its table]({self.tables[table]})")
            alt = f"{alt.rstrip('.')}; its numbers are in the table that the caption links"
        caption = self.prose(caption) + (f" ({', '.join(beside)})" if beside else "")
        return {"figure": {"caption": caption, "name": self.label(label)}, "image": {"alt": f"Plot: {alt}"}}

    def slider(self, table: Path) -> list[NotebookNode]:
        """A cell with a slider over the sparsities of a forgetting curve's table; none where it holds too few."""
        profile, _, name = self.page.folder.partition("/")
        chance = tables.ood_chance(TASKS[name]) if name in TASKS else None
        html = slider.forgetting(pd.read_csv(table), chance, smoke=profile == "smoke")
        shown = nbformat.v4.new_output("display_data", data={"text/html": html})
        return [nbformat.v4.new_code_cell("slider", outputs=[shown], metadata={"tags": ["remove-input"]})] if html else []

    def output(self, output: NotebookNode) -> NotebookNode:
        """Progress bars folded away, tables fit for a screen reader, sentences as prose."""
        if output.output_type == "stream" and re.search(r"\d+%\|", output.text):
            folded = f'<details><summary>Progress</summary><pre tabindex="0">{escape(output.text)}</pre></details>'
            return nbformat.v4.new_output("display_data", data={"text/html": folded})
        data = dict(output.get("data", {}))
        if 'class="dataframe' in data.get("text/html", ""):
            data["text/html"] = html_tables.accessible(data["text/html"])
        if "text/markdown" in data:
            data["text/markdown"] = self.prose(re.sub(r"^#+ +(.+)$", r"**\1**", data["text/markdown"], flags=re.M))
        return nbformat.from_dict({**output, "data": data}) if data else output


def is_picture(output: NotebookNode) -> bool:
    return "image/png" in output.get("data", {})


def as_drawn(output: NotebookNode, table: Path | None) -> NotebookNode:
    """A picture's output as the SVG that lies beside its table, or as it is."""
    drawing = table.with_suffix(".svg") if table else None
    if drawing is None or not drawing.exists():
        return output
    return nbformat.from_dict({**output, "data": {"image/svg+xml": drawing.read_text()}})


def figure_label(cell: NotebookNode) -> str:
    """The label of a cell's picture: its metadata `label`, else `fig-` with the name it was saved under."""
    saved = SAVED.search(cell.source)
    return cell.metadata.get("label") or f"fig-{re.sub(r'_?{.*?}', '', saved[1]) if saved else 'page'}"


def labels_of(notebook: NotebookNode) -> set[str]:
    """The labels that a notebook's own text and cells give to equations, figures and places."""
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    named = {match[2] for match in EQUATION.finditer(texts) if match[2]} | set(TARGET.findall(texts))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return named | {figure_label(cell) for cell in code if "label" in cell.metadata or SAVED.search(cell.source)}
