"""The numbers of README and of the book's written pages, read from the committed reference: they cannot drift.

A block is a pair of HTML comments, which a reader never sees, with the text made from `outputs/reference` between them:

    Is it forgotten? <!-- found: micro_wide A4 micro_nli -->a sentence<!-- end -->
    <!-- found: micro answer -->
    a list
    <!-- end -->

    PROFILE CLAIM [TASK ...]    a sentence: the claim, then word and evidence of each task (of all, if none is
                                named); PROFILE/TASK takes that task from another profile's ledger
    PROFILE claims CLAIM; CLAIM tasks=TASK; PROFILE/TASK
                                a table: a row for each claim, with word, number and interval on each task
    PROFILE against OTHER [tasks=TASK; TASK]
                                a table: the claims that both runs measured and whose words differ, OTHER's first
    PROFILE answer [PROFILE ...] [tasks=TASK; TASK]
                                the answer to the title (`lib.figures.story`), of one run or of several
    PROFILE headline [PROFILE ...] [tasks=TASK; TASK]
                                the first part of it, a line a question
    PROFILE notebooks           a table: every notebook, its question, the minutes that its models took to train
    PROFILE csv FILE KEY=a; b columns=x %; y MB
                                a table of a CSV in the profile's folder: a row for each value of its columns KEY (for
                                several KEYs each combination), with the measures x and y, in percent or megabytes
                                where the block says so, and intervals where the file has x_low and x_high (low, high)

`python -m lib.tools.findings` writes the blocks of all anew. With `--check` it writes nothing and exits with 1, naming
each block that differs and each digit in the section `What was found` outside a block. Allowed there are digits in a
link's address, in `code`, and in the names that NAMES lists.
"""

import argparse
import re
import sys
from pathlib import Path

from lib.errors import StudyError
from lib.files import ROOT
from lib.tools.statements import REFERENCE, statement

DOCUMENTS = (ROOT / "README.md", *(ROOT / "notebooks" / "book" / name for name in ("index.md", "found.md")))
SECTION = "What was found"
OPENING, CLOSING = r"<!--\s*found:[ \t]*(?P<asked>[^\n]*?)\s*-->", r"<!--\s*end\s*-->"
MARK = re.compile(f"{OPENING}|{CLOSING}")
BLOCK = re.compile(rf"(?P<opening>{OPENING})(?P<text>(?:(?!<!--\s*found:).)*?)(?P<closing>{CLOSING})", re.S)
CODE = re.compile(r"(`+)(?:(?!\n\n).)+?\1", re.S)
ADDRESS = re.compile(r"\]\([^)\s]*\)|<https?://[^>\s]*>")
NAMES = re.compile(r"(?<![\w.-])(?:IMP \d+"  # as the papers write it; then models, losses, number formats, claims
                   r"|(?:imp|heads|ffn|truncated|scratch|theseus)-\d+(?:-(?:alternate|constant|after|2x))?"
                   r"|dense-(?:2x|0\.\d+x|qat)"
                   r"|rmc-\d+|(?:ptq|qat)[48]|int[48]|(?:fp|bf)(?:16|32)|(?:all-)?(?:MiniLM-L6|mpnet-base)-v2|[ABCOPT]\d{1,2})(?![\w-]|\.\d)")


def rewrite(text: str, reference: Path = REFERENCE) -> str:
    """A document's text with every block made anew. Raises StudyError with the line of a block that cannot be made."""
    blocks(text)
    return BLOCK.sub(lambda block: f"{block['opening']}{_made(block, reference)}{block['closing']}", text)


def faults(text: str, reference: Path = REFERENCE) -> list[str]:
    """One line for each block that is not what the reference says, and for each number typed by hand. Raises StudyError
    where a block cannot be made, or the document has no section `What was found`."""
    stale = [f"line {_line(text, block.start())}: '{block['asked']}' is not what outputs/reference says: "
             "run `python -m lib.tools.findings`"
             for block in blocks(text) if block["text"] != _made(block, reference)]
    return stale + [f"line {line}: '{word}' is typed by hand: take it from outputs/reference by a block, "
                    "or write a name in `code`" for line, word in _typed(text)]


def blocks(text: str) -> list[re.Match]:
    """The blocks of a document, as BLOCK matches them. Raises StudyError, with the line, on a mark without partner."""
    lone = MARK.search(_without(BLOCK, text))
    if lone:
        lacks = "<!-- found: ... --> before it" if lone["asked"] is None else "<!-- end -->"
        raise StudyError(f"line {_line(text, lone.start())}: '{lone[0]}' has no {lacks}")
    return list(BLOCK.finditer(text))


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _made(block: re.Match, reference: Path) -> str:
    """What the block should say. Raises StudyError where it cannot be made, or would not show where it stands."""
    before = block.string[:block.start()].rpartition("\n")[2]
    try:
        made = statement(block["asked"], reference)
        if made.startswith(("|", "- ")) or "\n" in made:
            if before:
                raise StudyError(f"'{block['asked']}' is more than a sentence: begin a line with its block")
            return f"\n\n{made}\n\n"
        if not before.strip(" \t>*+-"):
            raise StudyError(f"'{block['asked']}' is a sentence: put a word before its block, for Markdown "
                             "shows a line that begins with a comment as it is")
        return made
    except StudyError as error:
        raise StudyError(f"line {_line(block.string, block.start())}: {error}") from None


def _typed(text: str) -> list[tuple[int, str]]:
    """(line, word) of each word of the section with a digit, outside blocks and what is allowed there."""
    section = re.search(rf"^(##?) {SECTION}\s*$(.*?)(?=^\1 |\Z)", text, re.M | re.S)
    if not section:
        raise StudyError(f"there is no section '## {SECTION}' to check")
    bare = _without(BLOCK, text)[section.start(2):section.end(2)]
    for allowed in (CODE, ADDRESS, NAMES):
        bare = _without(allowed, bare)
    above = _line(text, section.start(2)) - 1
    return [(above + _line(bare, word.start()), word[0]) for word in re.finditer(r"\S*\d\S*", bare)]


def _without(pattern: re.Pattern, text: str) -> str:
    """The text with blanks for what the pattern matches, line for line."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def write_or_check(arguments: list[str], documents: tuple[Path, ...] = DOCUMENTS, reference: Path = REFERENCE) -> None:
    """`python -m lib.tools.findings [--check]`."""
    parser = argparse.ArgumentParser(prog="python -m lib.tools.findings", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a document differs")
    given = parser.parse_args(arguments)
    differing = []
    for path in documents:
        text = path.read_text(encoding="utf-8")
        try:
            if not given.check:
                text = rewrite(text, reference)
                path.write_text(text, encoding="utf-8")
            differing += [f"{path.name}: {fault}\n" for fault in faults(text, reference)]
        except StudyError as error:
            parser.exit(1, f"{path.name}: {error}\n")
    if differing:
        parser.exit(1, "".join(differing))


if __name__ == "__main__":
    write_or_check(sys.argv[1:])
