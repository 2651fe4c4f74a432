"""A file fetched once from a pinned address, and held to its digest from then on."""

import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from lib import files
from lib.errors import StudyError

PAUSES = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth attempt at a download
SILENCE = 60.0  # seconds without a byte after which a connection counts as broken


def digest(path: Path, kind: str = "sha256") -> str:
    """Content hash of a file, "sha256:<hex>" or, as `git hash-object` counts it, "git:<hex>"."""
    return f"{kind}:{files.digest(path, kind)}"


def fetch(url: str, folder: Path, expected: str = "") -> Path:
    """Fetch `url` into `folder` once, under a temporary name until its digest is verified.

    `expected` is a digest as `digest` writes it; "" records the first download's SHA-256 beside the file and holds
    later reads to it. What may pass (a broken, silent or refused connection, a busy server) is tried again after each
    of PAUSES, from the first byte on. Only `expected` can tell a file cut off by a server that announces no length.
    """
    path = folder / PurePosixPath(urlparse(url).path).name
    note = path.with_name(path.name + ".sha256")
    if path.is_file():
        if not expected and not note.is_file():
            note.write_text(digest(path) + "\n")
        wanted = expected or note.read_text().strip()
        if (actual := digest(path, wanted.split(":")[0])) != wanted:
            raise StudyError(f"{path}: expected {wanted}, found {actual}; delete the file and it is downloaded again")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        partial = Path(part) / path.name
        for pause in (*PAUSES, None):
            try:
                _receive(url, partial)
                break
            except (OSError, http.client.HTTPException) as error:
                if pause is None or not _may_pass(error):
                    raise
            time.sleep(pause)
        with partial.open("rb") as file:
            if file.read(64).lstrip()[:1] == b"<":
                raise StudyError(f"{url}: a web page came instead of the file; fetch the file with a browser and save "
                                 f"it as {path}")
        actual = digest(partial, expected.split(":")[0] or "sha256")
        if not expected:
            note.write_text(actual + "\n")
        elif actual != expected:
            raise StudyError(f"{url}: expected {expected}, found {actual}; the file upstream changed or was damaged on "
                             "its way, it was not kept")
        os.replace(partial, path)
    return path


def _receive(url: str, partial: Path) -> None:
    """Write what an address sends, anew. ConnectionError: fewer bytes than were announced."""
    with urllib.request.urlopen(url, timeout=SILENCE) as answer, partial.open("wb") as file:
        shutil.copyfileobj(answer, file, 1 << 20)
    size, length = partial.stat().st_size, answer.headers.get("Content-Length")
    # reading in blocks ends without an error when the connection breaks off
    if length is not None and size != int(length):
        raise ConnectionError(f"{size} of {length} bytes arrived")


def _may_pass(error: Exception) -> bool:
    """Whether the connection or the server is at fault, rather than the address or this machine."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 429) or error.code >= 500
    return isinstance(getattr(error, "reason", error), (ConnectionError, TimeoutError, http.client.HTTPException))
