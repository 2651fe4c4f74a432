"""The files by which others come in (Codespaces, Binder, GitHub Actions, a citation, licences): they can be read, and
they pin what requirements.lock pins."""

import json
import re
import shlex
import tomllib

import yaml

from lib.files import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PYTHON = re.search(r"Python (\d\.\d+)", LOCK)[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_lock_pins_every_direct_requirement_and_torch_is_chosen_apart():
    pinned = {line.partition("==")[0].lower() for line in LOCK.splitlines() if "==" in line}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["test"], *extras["onnx"], *extras["book"], *extras["browser"]]
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in wanted}
    assert names - pinned <= {"torch"}
    assert re.search(r"pip install .*-c requirements\.lock", MAKEFILE)


def test_the_devcontainer_is_set_up_by_the_makefile_on_the_tested_python():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert re.fullmatch(rf"mcr\.microsoft\.com/devcontainers/python:\d+-{re.escape(PYTHON)}-\w+", container["image"])
    _, target = container["postCreateCommand"].split()
    assert re.search(rf"^{target}: \$\(READY\)", MAKEFILE, re.M)
    settings = container["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("/.venv/bin/python")


def test_binder_installs_the_study_with_the_lock_as_its_constraints():
    folder = ROOT / ".binder"
    assert (folder / "runtime.txt").read_text().strip() == f"python-{PYTHON}"
    lines = [shlex.split(line, comments=True) for line in (folder / "requirements.txt").read_text().splitlines()]
    options = {line[0]: line[-1] for line in lines if line}
    assert (folder / options["-c"]).resolve() == ROOT / "requirements.lock"
    assert re.fullmatch(r"\.\[(\w+)\]", options["-e"])[1] in PROJECT["optional-dependencies"]
    torch = next(name for name in options if name.startswith("torch=="))
    assert f"'{torch.removesuffix('+cpu')}'" in MAKEFILE and options["--extra-index-url"] in MAKEFILE


def test_github_runs_what_ci_runs_with_pinned_actions_on_the_tested_python():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    uses = [step["uses"] for step in job["steps"] if "uses" in step]
    assert uses and all(re.fullmatch(r"[\w-]+/[\w-]+@(?:v\d+|[0-9a-f]{40})", action) for action in uses)
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    (python,) = (step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert python["python-version"] == PYTHON and python["cache"] == "pip"
    assert (ROOT / python["cache-dependency-path"]).exists()
    assert workflow["permissions"] == {"contents": "read"}


def test_the_citation_names_the_study_and_both_papers_as_the_bibliography_does():
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION) and CITATION["cff-version"] == "1.2.0"
    assert (CITATION["version"], CITATION["license"]) == (PROJECT["version"], PROJECT["license"])
    entries = (ROOT / "notebooks" / "book" / "references.bib").read_text().split("\n@")
    papers = [entry for entry in entries if re.search(r"note = \{Paper [AB]", entry)]
    assert len(papers) == len(CITATION["references"]) == 2
    for paper, work in zip(papers, CITATION["references"]):
        eprint, year = (re.search(rf"{field} = \{{(.+?)\}}", paper)[1] for field in ("eprint", "year"))
        assert work["identifiers"][0]["value"] == f"arXiv:{eprint}" and work["year"] == int(year)
        assert re.sub(r"[{}]", "", re.search(r"\btitle = \{(.+)\},", paper)[1]) == work["title"]
        names = re.search(r"author = \{(.+)\},", paper)[1].split(" and ")
        assert names == [f"{author['family-names']}, {author['given-names']}" for author in work["authors"]]
        assert re.fullmatch(r"10\.\d{4,9}/[\w./-]+", work["doi"]) and work["start"] < work["end"]
        assert work["type"] == "conference-paper"


def test_code_text_and_data_have_their_licence():
    heads = {"LICENSE": "Apache License", "LICENSES/CC-BY-4.0.txt": "Attribution 4.0 International",
             "LICENSES/CC0-1.0.txt": "CC0 1.0 Universal"}
    for path, head in heads.items():
        assert head in (ROOT / path).read_text()[:200]
    assert PROJECT["license-files"] == ["LICENSE"]
