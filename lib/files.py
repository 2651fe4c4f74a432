"""Files that appear whole or not at all, with checksums in their folder's `checksums.json`; locks."""

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from lib.errors import StudyError

ROOT = Path(__file__).resolve().parents[1]  # of the project
CHECKSUMS = "checksums.json"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends well. StudyError: a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with room(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def recorded(path: Path) -> Iterator[Path]:
    """`whole`, and the file's checksum goes into its folder's `checksums.json`."""
    with whole(path) as temporary:
        yield temporary
    _record(path.parent, {path.name: digest(path)})


@contextmanager
def room(path: Path) -> Iterator[None]:
    """Turn whatever the writers of files raise on a full disk into a StudyError."""
    try:
        yield
    except Exception as error:  # pyarrow and safetensors have errors of their own
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise StudyError(f"{path}: the disk is full; make room and run again, what is finished is kept") from error
        raise


def digest(path: Path, kind: str = "sha256") -> str:
    """Hash of a file's content, in hex: its SHA-256 or, as kind "git", what `git hash-object` gives.

    Read once per process for each state of the file.
    """
    state = path.stat()
    return _digest(str(path), kind, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=None)
def _digest(path: str, kind: str, size: int, *_) -> str:
    total = hashlib.sha1(b"blob %d\0" % size) if kind == "git" else hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def drop_damaged(snapshot: Path) -> list[Path]:
    """Delete, and name, files of a commit in the hub client's cache that differ from the hash they are kept under.

    The client itself compares sizes only. A cache without symbolic links keeps no hash, and none is compared.
    """
    kinds = {64: "sha256", 40: "git"}
    links = [file for file in sorted(snapshot.rglob("*")) if file.is_symlink() and file.is_file()]
    kept = [(file, name) for file in links if len(name := file.readlink().name) in kinds]
    bad = [file for file, name in kept if digest(file, kinds[len(name)]) != name]
    for content in {file.resolve() for file in bad}:  # two names may share one content
        content.unlink()
    return bad


def checksums(folder: Path) -> dict[str, str]:
    """name -> SHA-256 of the files that a folder is known to hold; empty where nothing is recorded, or not readably."""
    try:
        known = json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _record(folder: Path, digests: dict[str, str]) -> None:
    _keep(folder, {name: value for name, value in checksums(folder).items() if (folder / name).exists()} | digests)


def _keep(folder: Path, known: dict[str, str]) -> None:
    with whole(folder / CHECKSUMS) as temporary:
        temporary.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def take_away(folder: Path, name: str) -> None:
    """Delete a file and strike it from its folder's `checksums.json`."""
    _keep(folder, {other: value for other, value in checksums(folder).items() if other != name})
    (folder / name).unlink(missing_ok=True)


def seal(folder: Path) -> None:
    """Record every file under a folder that is not yet recorded."""
    names = (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())
    known = checksums(folder)
    _record(folder, {name: digest(folder / name) for name in names if name != CHECKSUMS and name not in known})


def fault(folder: Path, name: str) -> str:
    """What is wrong with a file of a folder by its `checksums.json` ("is missing", ...); "" where it is sound."""
    known, path = checksums(folder), folder / name
    if name not in known:
        return "was not written by the study, or not to its end"
    if not path.is_file():
        return "is missing"
    return "" if digest(path) == known[name] else "was altered or cut short since it was written"


def checked(path: Path, folder: Path | None = None) -> Path:
    """The path of a file that holds what was written. StudyError where it does not.

    folder: whose `checksums.json` says so, its own if none is given.
    """
    folder = folder or path.parent
    if wrong := fault(folder, str(path.relative_to(folder))):
        raise StudyError(f"{path} {wrong}: `make study` finds such files and makes them anew; by hand, delete it and "
                         "run its notebook again")
    return path


def misplaced(folder: Path) -> str:
    """What is wrong with a model's folder whose record.json is of another key than its name; else ""."""
    key = json.loads((folder / "record.json").read_text()).get("key")
    return "" if key == folder.name else f"its record.json is of another model ({key})"


@contextmanager
def lock(outputs: Path) -> Iterator[None]:
    """Hold a profile's lock, which dies with its holder. StudyError: another run holds it."""
    outputs.mkdir(parents=True, exist_ok=True)
    with open(outputs / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StudyError(f"another run of the profile '{outputs.name}' is at work here; wait for it, or stop it "
                             "first") from None
        yield


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait until no other process holds this lock file, then hold it; the lock dies with its holder."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
