"""The layout of lib: rooms whose imports go one way, names that stand once, files that can be read in one go."""
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lib.files import ROOT

LIB = ROOT / "lib"
MODULES = [path for path in LIB.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
ROOMS = ["params", "tasks", "models", "analysis", "figures", "claims", "trials", "tools"]
LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"


def linted(folder: Path) -> subprocess.CompletedProcess:
    """The contracts of a project's pyproject.toml held against its lib."""
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(folder)})


def test_the_contracts_of_the_rooms_are_kept():
    kept = linted(ROOT)
    assert kept.returncode == 0 and "2 kept, 0 broken" in kept.stdout, kept.stdout


@pytest.mark.parametrize("module, imports, told", [
    ("analysis/measures", "from lib.models import loop", "lib.analysis.measures -> lib.models.loop"),  # the two never meet
    ("models/loop", "from lib.analysis import measures", "lib.models.loop -> lib.analysis.measures"),
    ("claims/ledger", "from lib.tools import plan", "lib.claims.ledger -> lib.tools.plan"),  # nothing imports tools
    ("tasks/grammar", "from lib.tasks import microworld", "no circle"),
    ("astray", "", "astray"),  # a module that is in no room
])
def test_an_arrow_that_is_turned_round_is_told(tmp_path, module, imports, told):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(LIB, tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "lib" / f"{module}.py"
    path.write_text((path.read_text() if path.exists() else "") + f"\n{imports}\n")
    broken = linted(tmp_path)
    assert broken.returncode and told in broken.stdout, broken.stdout


def test_there_are_eight_rooms_and_each_says_what_it_may_import():
    assert sorted(path.parent.name for path in LIB.glob("*/__init__.py")) == sorted(ROOMS)
    for room in ROOMS:
        text = (LIB / room / "__init__.py").read_text()
        assert "May import: " in text and text.count("\n") <= 7, room


def test_no_two_modules_have_one_name_and_no_function_has_a_modules():
    names = Counter(path.stem for path in MODULES)
    assert [name for name, n in names.items() if n > 1] == []
    functions = {(path.stem, name) for path in MODULES for name in re.findall(r"^def (\w+)", path.read_text(), re.M)}
    assert [pair for pair in sorted(functions) if pair[1] in names] == []
    assert {name for _, name in functions} & {"table", "main"} == set()


def test_no_file_is_too_long_to_read():
    lengths = {str(path.relative_to(LIB)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n > 300} == {}


def test_lines_and_imports_are_as_ruff_wants_them():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "lib", "tests"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
