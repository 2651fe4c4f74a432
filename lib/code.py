"""One hash of source code, for the keys of models and attacks and for what makes a stage stale.

It sees what code does and is blind to imports, comments, docstrings and layout, so that a moved module or a better word
makes nothing anew. The same on every Python from 3.11 on (`ast.dump` is not).
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from lib.errors import StudyError, nearest

LIB = Path(__file__).resolve().parent
SKIPPED = ("ctx", "kind", "type_comment")  # of a node: what says nothing, or not on every Python


def source_hash(*modules: str) -> str:
    """A hash of the code of some modules, by dotted name below lib (`models.loop`). StudyError: no such module."""
    return hashed(module_code(name) for name in sorted(modules))


def notebook_hash(notebook: Path) -> str:
    """A hash of a notebook's code cells, but for its parameters, and of every module of lib that they lead to."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells
               if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])]
    return hashed([*map(canonical, sources), *map(module_code, reached(sources))])


def reached(sources: Iterable[str]) -> list[str]:
    """The modules below lib that some sources import, and those that these import in turn, sorted."""
    to_read, known = set().union(*map(imported, sources)), set()
    while to_read:
        known.add(name := to_read.pop())
        to_read |= imported(path_of(name).read_text(encoding="utf-8")) - known
    return sorted(known)


@lru_cache(maxsize=None)
def imported(source: str) -> frozenset[str]:
    """Dotted names below lib of the modules that a source imports; none of a source that is no Python."""
    names = set()
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("lib.") for alias in node.names if alias.name.startswith("lib.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
            room = node.module.removeprefix("lib").lstrip(".")
            inside = [f"{room}.{alias.name}".lstrip(".") for alias in node.names]
            if room and not (LIB / room.replace(".", "/")).is_dir():
                names.add(room)
            else:
                names |= set(inside)
    return frozenset(names)


def path_of(name: str) -> Path:
    """The file of a module below lib. StudyError, with the nearest name, where there is none."""
    path = LIB / f"{name.replace('.', '/')}.py"
    if not path.is_file():
        known = [".".join(file.relative_to(LIB).with_suffix("").parts) for file in LIB.rglob("*.py")]
        raise StudyError(f"lib has no module '{name}'{nearest(name, known)}")
    return path


def module_code(name: str) -> str:
    """`canonical` of a module's source, read once for each state of its file."""
    path = path_of(name)
    state = path.stat()
    return _canonical(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=None)
def _canonical(path: str, *state: int) -> str:
    return canonical(Path(path).read_text(encoding="utf-8"))


def canonical(source: str) -> str:
    """What a source does, as text; a source that is no Python (a cell with magics) stands for itself."""
    tree = tree_of(source)
    return _text(tree) if tree.body or not source.strip() else source


def tree_of(source: str) -> ast.Module:
    """The source as a tree; an empty one where it is no Python."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def hashed(texts: Iterable[str]) -> str:
    """Sixteen hex digits of some texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _text(node: object) -> str:
    if isinstance(node, list):
        return f"[{' '.join(text for text in map(_text, node) if text)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)):
        return ""
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in SKIPPED and value not in (None, []))
    return f"{type(node).__name__}({' '.join(f'{name}={_text(value)}' for name, value in fields)})"
