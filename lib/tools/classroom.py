"""A class: of every notebook a twin for students, under `outputs/class`, which runs as the notebook does.

    python -m lib.tools.classroom      # what `make class` does

A twin holds the notebook's code cells, in their order, without outputs. Of the rest
- a cell tagged `answer`, text or code, gives way to a line that asks for the student's own words; its heading stays;
- headings, lists, tables, quotes, equations and code stay, and so does a paragraph that holds maths or a stressed word,
  names a paper, a table or a figure, or leads into what follows (it does not end as a sentence does);
- every other paragraph is cut to its first sentence, but from the Exercises on nothing is cut;
- links to solutions go, and other links are made to hold from the twin's place.
After the Exercises stands a cell for each, empty but for its number and its first words: of code, or of text where the
exercise says in italics that it takes *no code*. Then comes the Appendix.
"""

import argparse
import posixpath
import re
import sys
import textwrap
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lib import files
from lib.errors import StudyError
from lib.files import ROOT

ASK = "*What do you see? Write it here.*"
ABOUT = ("The study's notebooks for a class: less text, no answers, empty cells for exercises. They run as the others "
         "do.\nWork in copies: `make class` writes these files anew, over what was changed in them.\n")
KEPT = re.compile(r"#|[-*+] |\d+\. |\||>|```|:::|\$\$|<")  # how a block begins that is no paragraph
WHOLE = re.compile(r"\$|\*|\bet al\.|\b[Pp]aper|\b(?:Table|Figure|Section)\b")
SENTENCE = re.compile(r"(.+?(?<!\bal)(?<!\be\.g)(?<!\bi\.e)[.?!][*_)\"']*)(?:\s|$)", re.S)
EXERCISES = re.compile(r"^#+ +Exercises\s*$", re.M)
APPENDIX = re.compile(r"^#+ +Appendix\s*$", re.M)
EXERCISE = re.compile(r"^(\d+)\. +(.+(?:\n(?!\d+\. ).+)*)", re.M)
NO_CODE = re.compile(r"\*[^*]*\bno code\b[^*]*\* *", re.I)  # how an exercise begins that is answered in words
LINK = re.compile(r"(?<!!)\[([^]]*)\]\(([^)\s]+)\)")
ONLY_SOLUTIONS = re.compile(r"^[ \t]*\[[^]]*\]\((?:\.\./)*solutions/[^)]*\)\.?[ \t]*(?:\n|\Z)", re.M)


def twin(notebook: NotebookNode, name: str) -> NotebookNode:
    """The students' twin of a notebook. name: the notebook's, for errors.

    StudyError: it has no Exercises, none of them is numbered, or they stand in a cell tagged `answer`.
    """
    cells, exercises, end = [], "", None
    for cell in notebook.cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != "answer"]
        answer, heading = "answer" in cell.metadata.get("tags", []), EXERCISES.search(cell.source)
        if exercises and end is None and APPENDIX.search(cell.source):
            end = len(cells)
        if cell.cell_type == "code" and not answer:
            cells.append(nbformat.from_dict({**cell, "outputs": [], "execution_count": None}))
            continue
        if heading and answer:
            raise StudyError(f"{name}: the Exercises stand in a cell tagged `answer`; give them a cell of their own")
        if heading or (exercises and not answer and end is None):
            exercises += cell.source[heading.start() if heading else 0:] + "\n\n"
            text = linked(cell.source)
        else:
            text = ASK if cell.cell_type == "code" else asked(cell.source) if answer else shortened(cell.source)
        if text and not (cells and text == ASK and cells[-1].source.endswith(ASK)):
            cells.append(nbformat.v4.new_markdown_cell(text, id=cell.id, metadata={"tags": tags} if tags else {}))
    tasks = EXERCISE.findall(exercises)
    if not tasks:
        missing = ("below its heading 'Exercises' stands no numbered task" if exercises
                   else "it has no heading 'Exercises'")
        raise StudyError(f"{name}: {missing}; end it with that heading and two to four lines '1. ...'")
    own = [_room(number, task) for number, task in tasks]
    end = len(cells) if end is None else end
    return nbformat.from_dict({**notebook, "cells": [*cells[:end], *own, *cells[end:]]})


def _room(number: str, task: str) -> NotebookNode:
    """The cell in which an exercise is answered."""
    name, words = f"exercise-{number}", NO_CODE.sub("", task, count=1)
    if words != task:
        return nbformat.v4.new_markdown_cell(f"{number}. {_short(words)} *Write it here.*", id=name)
    return nbformat.v4.new_code_cell(f"# {number}. {_short(task)}", id=name)


def _short(task: str) -> str:
    """The first words of an exercise, without marks."""
    return textwrap.shorten(re.sub(r"[*`$]", "", first_sentence(task)), 100, placeholder=" ...")


def asked(answer: str) -> str:
    """What stands in the place of an answer: its headings, and the line that asks for the student's words."""
    return "\n\n".join([*(block for block in blocks(answer) if block.startswith("#")), ASK])


def shortened(text: str) -> str:
    """What a twin keeps of a text before the Exercises; see above."""
    return "\n\n".join(block if KEPT.match(block) or WHOLE.search(block) else first_sentence(block)
                       for block in blocks(linked(text)))


def blocks(text: str) -> list[str]:
    """The parts of a text that blank lines divide; one within a fence or an equation divides nothing."""
    parts: list[str] = []
    for part in re.split(r"\n(?:[ \t]*\n)+", text.strip("\n")):
        if parts and any(parts[-1].count(mark) % 2 for mark in ("```", "$$")):
            parts[-1] += "\n\n" + part
        else:
            parts.append(part)
    return [block for block in parts if block.strip()]


def first_sentence(paragraph: str) -> str:
    """Its first sentence; all of a paragraph that does not end as a sentence does."""
    first = SENTENCE.match(paragraph)
    return first[1] if first and re.search(r"[.?!][*_)\"']*\s*\Z", paragraph) else paragraph


def linked(text: str) -> str:
    """The text without links to solutions, its other links as they read from the twin's folder."""
    def moved(link: re.Match) -> str:
        words, target = link.groups()
        if "solutions/" in target:
            return words
        if "/" not in target or re.match(r"[a-z]+:|#", target):
            return link[0]
        return f"[{words}](../../{posixpath.normpath(f'notebooks/{target}')})"

    return LINK.sub(moved, ONLY_SOLUTIONS.sub("", text)).strip("\n")


def write(notebooks: Path, out: Path) -> list[Path]:
    """Write the twin of every notebook of a folder into `out`, all or none; returns their paths. Errors as `twin`."""
    sources = sorted(notebooks.glob("[0-9]*.ipynb"))
    if not sources:
        raise StudyError(f"{notebooks} holds no notebook (such as 04_pruning.ipynb); run this in a whole copy of the "
                         "study")
    twins = {}
    for source in sources:
        try:
            notebook = nbformat.read(source, as_version=4)
        except (OSError, ValueError) as error:
            raise StudyError(f"{source} is no notebook that can be read; take it from the repository again") from error
        twins[out / source.name] = twin(notebook, str(source))
    for path, notebook in twins.items():
        with files.whole(path) as temporary:
            nbformat.write(notebook, temporary)
    with files.whole(out / "README.md") as temporary:
        temporary.write_text(ABOUT)
    return list(twins)


def write_twins(arguments: list[str]) -> None:
    """`python -m lib.tools.classroom` writes the twins of the committed notebooks."""
    parser = argparse.ArgumentParser(prog="python -m lib.tools.classroom", description=__doc__.split("\n\n")[0])
    parser.parse_args(arguments)
    out = ROOT / "outputs" / "class"
    try:
        written = write(ROOT / "notebooks", out)
    except StudyError as error:
        parser.exit(2, f"{error}\n")
    print(f"{len(written)} notebooks for a class: {out.relative_to(ROOT)}")


if __name__ == "__main__":
    write_twins(sys.argv[1:])
