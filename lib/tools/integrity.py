"""Before a run: find what is damaged under `outputs/<profile>`, or was put there by another hand, name it, and take it
away so that Snakemake has it made anew. Finished models that are sound are not trained again.

    python -m lib.tools.integrity PROFILE      # what `make study` does first
"""

import json
import shutil
import sys
import time
from pathlib import Path

from lib import files
from lib.errors import StudyError
from lib.files import ROOT
from lib.params.profile import load_profile
from lib.params.stages import CHAIN, MODELS

VERIFIED = ".verified.json"
DONE = {stage.notebook: stage.done for stage in CHAIN.values()}
DAY = 86400  # seconds after which a temporary file is surely nobody's any more


def mend(outputs: Path) -> list[str]:
    """Take away what is damaged under `outputs/<profile>` and the file by which Snakemake tells that its stage is done
    (`Stage.done`); one line for each find.

    With a damaged model goes the list of models of every stage that names it. A file that was found sound is not read
    again while its size and time of change stay (`.verified.json`); models and tables are held to their checksums once
    more when they are loaded. What killed runs left half-written goes after a day.
    """
    books = _Books(outputs / VERIFIED)
    said, gone, there = [], set(), set()
    for folder in sorted(path for path in (outputs / "store").glob("[!.]*") if path.is_dir()):
        if wrong := books.fault(folder, ("record.json",)) or files.misplaced(folder):
            said.append(f"{folder}: {wrong}; this model is made anew")
            gone.add(folder.name)
            shutil.rmtree(folder)
        else:
            there.add(folder.name)
    for stage in sorted(path for pattern in ("*", "*/seed*/*") for path in outputs.glob(pattern) if path.name in DONE):
        if not (done := stage / DONE[stage.name]).exists():
            continue
        folders = [stage, *sorted(path.parent for path in stage.glob(f"*/**/{files.CHECKSUMS}"))]
        wrong = [f"{folder}: {fault}; its notebook runs again" for folder in folders
                 if (fault := books.fault(folder, (done.name,) if folder == stage else ()))]
        missing = [] if wrong else sorted(_keys(stage) - there)
        if wrong or missing:
            said += wrong or [f"{stage}: model {key} is not in the store; its notebook runs again"
                              for key in missing[:1] if key not in gone]
            done.unlink()
    for left in outputs.rglob(".*-*"):
        if left.lstat().st_mtime < time.time() - DAY:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    books.close()
    return said


class _Books:
    """Which files were found sound, over several calls: path -> size, time of change, checksum."""

    def __init__(self, path: Path):
        self.path, self.sound = path, {}
        try:
            self.before = json.loads(path.read_text())
        except (OSError, ValueError):
            self.before = {}

    def fault(self, folder: Path, needed: tuple[str, ...]) -> str:
        """The first thing wrong with the files that a folder records or that are needed; "" where all are sound."""
        known = files.checksums(folder)
        for name in dict.fromkeys((*needed, *known)):
            path = folder / name
            state = [path.stat().st_size, path.stat().st_mtime_ns, known.get(name)] if path.is_file() else None
            if state is None or state != self.before.get(str(path)):
                if wrong := files.fault(folder, name):
                    return f"{name} {wrong}"
            self.sound[str(path)] = state
        return ""

    def close(self) -> None:
        if self.sound or self.path.exists():
            with files.whole(self.path) as temporary:
                temporary.write_text(json.dumps(self.sound))


def _keys(stage: Path) -> set[str]:
    """Keys of the models that a stage lists."""
    listed = stage / MODELS
    return {record["key"] for record in json.loads(listed.read_text())} if listed.exists() else set()


def mend_profile(arguments: list[str]) -> None:
    """`python -m lib.tools.integrity PROFILE` mends what an earlier run left, and says what was wrong."""
    if len(arguments) != 1:
        sys.exit("usage: python -m lib.tools.integrity PROFILE")
    try:
        outputs = ROOT / "outputs" / load_profile(arguments[0]).name
        if not outputs.is_dir():  # nothing ran yet, and a typing error further on leaves no empty folder
            return
        with files.lock(outputs):
            for line in mend(outputs):
                sys.stdout.write(f"damaged: {line}\n")
    except StudyError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    mend_profile(sys.argv[1:])
