"""JupyterLab, as `make lab` starts it, runs notebook 02 from top to bottom in a browser, on a few rows."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from lib.files import ROOT

PROFILE = "lab_test"


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab over copies of 01 and 02 whose profile is one of its own."""
    for name in ("01_data", "02_teacher"):
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        for key, value in {"profile": f'"{PROFILE}"', "epochs": 0.5, "threads": 1}.items():
            parameters.source = re.sub(rf"^{key} = \S+", f"{key} = {value}", parameters.source, flags=re.M)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    run = [sys.executable, "-m", "papermill", "--no-progress-bar", "01_data.ipynb", "01_data.ipynb"]
    subprocess.run(run, cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--allow-root", "--IdentityProvider.token=t",
               f"--ServerApp.root_dir={tmp_path}", "--ServerApp.ip=127.0.0.1"]
    with open(tmp_path / "log", "w+") as log:
        server = subprocess.Popen(command, stderr=log, cwd=tmp_path, env=os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"})
        try:
            yield _address(log)
        finally:
            server.terminate()
            server.wait(30)
            shutil.rmtree(ROOT / "outputs" / PROFILE, ignore_errors=True)


def _address(log, seconds=60) -> str:
    for _ in range(2 * seconds):
        log.seek(0)
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read()):
            return found[0]
        time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start in {seconds} s: {log.name}")


def _states(lab) -> list[str]:
    with urllib.request.urlopen(f"{lab}/api/sessions?token=t") as answer:
        return [session["kernel"]["execution_state"] for session in json.load(answer)]


def test_notebook_02_runs_from_top_to_bottom(lab, context, tmp_path):
    page = context.new_page()
    page.goto(f"{lab}/lab/tree/02_teacher.ipynb?token=t")
    page.get_by_text(re.compile(r"Python 3 \(\w+\) \| Idle")).wait_for(timeout=120_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("Run All Cells$")).click()
    still = 0
    for _ in range(300):
        page.wait_for_timeout(1000)
        still = still + 1 if _states(lab) == ["idle"] else 0
        if still == 5:
            break
    page.keyboard.press("Control+s")
    page.wait_for_timeout(5000)  # the file is empty for a moment while it is saved
    code = [cell for cell in nbformat.read(tmp_path / "02_teacher.ipynb", as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert any(PROFILE in json.dumps(cell.outputs) for cell in code)
