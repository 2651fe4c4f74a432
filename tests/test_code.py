"""The hash of source code: what it sees, what it is blind to, and that it is the same on every Python."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib import code
from lib.errors import StudyError

PLAIN = '"""Doc."""\nimport os\n\n\ndef f(x):\n    """Says."""\n    return f"{x + 1:>{x}} {os.sep!r}"\n'
SAME = ['"""Other."""\nfrom os import (\n    sep,\n)\nimport os  # moved\ndef f(x):\n    """Says\n    more."""\n\n    return '
        'f"{x+1:>{x}} {os.sep!r}"   # why\n', "import os\ndef f(x):\n    return f'{x + 1:>{x}} {os.sep!r}'\n"]
OTHER = [PLAIN.replace("+ 1", "+ 2"), PLAIN.replace("def f", "def g"), PLAIN.replace("!r", ""), PLAIN + "f(1)\n"]


@pytest.fixture
def lib(tmp_path, monkeypatch):
    """A lib of our own: two rooms and a module of the ground."""
    monkeypatch.setattr(code, "LIB", tmp_path)
    for name, text in {"ground": "A = 1\n", "low/one": "from lib import ground\nB = 2\n", "low/inner/deep": "D = 4\n",
                       "high/two": "from lib.low import one\nfrom lib.low.one import B\n", "high/apart": "C = 3\n"}.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def notebook(folder, *cells):
    path = folder / "04.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "metadata": {"tags": tags}, "source": source}
                                          for source, tags in cells]}))
    return path


@pytest.mark.parametrize("text", SAME)
def test_imports_comments_docstrings_and_layout_do_not_count(text):
    assert code.canonical(text) == code.canonical(PLAIN)


@pytest.mark.parametrize("text", OTHER)
def test_what_code_does_counts(text):
    assert code.canonical(text) != code.canonical(PLAIN)


def test_a_module_that_is_not_there_is_an_error_with_the_nearest_name(lib):
    assert code.source_hash("low.one", "ground") == code.source_hash("ground", "low.one") != code.source_hash("ground")
    with pytest.raises(StudyError, match="no module 'low.on'; did you mean 'low.one'"):
        code.source_hash("low.on")


def test_a_notebook_leads_to_what_its_modules_import_in_rooms_within_rooms_too(lib):
    assert code.reached(["from lib.high import two\nfrom lib.low.inner import deep"]) == ["ground", "high.two", "low.inner.deep",
                                                                                         "low.one"]
    path = notebook(lib, ("seed = 0", ["parameters"]), ("from lib.high import two", []))
    first = code.notebook_hash(path)
    (lib / "high" / "apart.py").write_text("C = 4\n")
    (lib / "ground.py").write_text('"""Ground."""\nA = 1   # one\n')
    notebook(lib, ("seed = 1", ["parameters"]), ("from lib.high import two   # why", []))
    assert code.notebook_hash(path) == first
    (lib / "ground.py").write_text("A = 2\n")
    assert code.notebook_hash(path) != first


def test_a_notebook_that_imports_what_is_not_there_is_an_error(lib):
    with pytest.raises(StudyError, match="no module 'high.tow'"):
        code.notebook_hash(notebook(lib, ("from lib.high import tow", [])))


def test_a_cell_that_is_no_python_stands_for_itself():
    assert code.canonical("%time x") != code.canonical("%time y") and code.imported("%time x") == set()


def test_every_python_gives_the_same_hash():
    """`ast` differs from version to version: the hash of PLAIN stands here, and each Python on the path takes it and two more."""
    asked = f"from lib import code; print(code.hashed([code.canonical({PLAIN!r})]), code.source_hash('files', 'models.losses'))"
    root = str(Path(code.__file__).parents[1])
    pythons = filter(None, map(shutil.which, ("python3.11", "python3.12", "python3.13", "python3.14")))
    ran = [subprocess.run([path, "-c", asked], cwd=root, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root})
           for path in (sys.executable, *pythons)]
    said = {job.stdout for job in ran if not job.returncode}  # a shim may have no Python behind it
    assert len(said) == 1 and said.pop().split()[0] == "3fb15d0c13c668d6"
