"""A small stand-in of the Hugging Face hub on loopback: repositories and plain files in memory, and faults to switch on."""

import hashlib
import http.server
import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".bin")  # the hub keeps these apart from git and redirects to them
API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
PLAIN = re.compile("/files/(.+)")
STORED = re.compile(r"/stored/(model|dataset)/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)")


@dataclass
class Fault:
    kind: str
    times: int | None = None  # None: until it is mended


class Hub:
    """What is served and what was asked.

    `repositories` maps (model|dataset, name) to {revision: {path: bytes}}, `files` the names under /files/ to bytes,
    `faults` (repository or "files", path) to a Fault; `asked` lists "METHOD /path" in order. Faults of a repository
    (path ""): gated 401, gated 403, busy (503). Of a file: busy; cut (the connection is closed half way), reset (so),
    altered (same length, one bit), short (half of it, said to be whole); of one under /files/ also slow, stalled,
    unsized (no Content-Length), page (a web page) and moved (a redirect).
    """

    def __init__(self):
        self.repositories, self.files, self.faults, self.asked = {}, {}, {}, []

    def commit(self, kind: str, name: str, files: dict[str, bytes]) -> str:
        """Add a commit with exactly these files; `main` moves to it. Gives its 40-hex name."""
        listed = json.dumps([kind, name, sorted((path, etag(path, data)) for path, data in files.items())])
        sha = hashlib.sha1(listed.encode()).hexdigest()
        repository = self.repositories.setdefault((kind, name), {})
        repository[sha] = repository["main"] = dict(files)
        return sha

    def sha(self, kind: str, name: str, revision: str) -> str:
        """The commit that a revision names."""
        repository = self.repositories[kind, name]
        return next(sha for sha, files in repository.items() if sha != "main" and files is repository[revision])

    def fault(self, place: str, path: str, kind: str, times: int | None = None) -> None:
        self.faults[place, path] = Fault(kind, times)

    def fails(self, place: str, path: str, *kinds: str) -> str:
        """The kind of fault that is on here, if it is one of these; a counted one is used up by asking."""
        fault = self.faults.get((place, path))
        if fault is None or fault.kind not in kinds:
            return ""
        if fault.times is not None:
            fault.times -= 1
            if not fault.times:
                del self.faults[place, path]
        return fault.kind

    def __enter__(self):
        self.server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        # Another host than the hub's own, as the real store of large files is: the client then asks as it does there.
        self.store = f"http://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *raised):
        self.server.shutdown()
        self.server.server_close()


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that hang up are no news: they are made to."""


def etag(path: str, data: bytes) -> str:
    """The hub's content hash: SHA-256 of large files, git's blob hash of others."""
    return (hashlib.sha256(data) if path.endswith(LARGE) else hashlib.sha1(b"blob %d\0" % len(data) + data)).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection for `hub`."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.body = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        self.hub.asked.append(f"{self.command} {path}")
        for pattern, answer in ((API, self.api), (STORED, self.stored), (PLAIN, self.plain), (RESOLVE, self.resolve)):
            if match := pattern.fullmatch(path):
                return answer(*match.groups())
        self.error(404, "")

    do_HEAD = do_POST = do_GET

    def log_message(self, *args):
        pass

    def found(self, kind: str, name: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision; None when the refusal has been sent."""
        if self.hub.fails(name, "", "busy"):
            return self.error(503, "")
        if status := self.hub.fails(name, "", "gated 401", "gated 403"):
            return self.error(int(status[-3:]), "GatedRepo", f"Access to {kind} {name} is restricted.")
        if (kind, name) not in self.hub.repositories:
            return self.error(401, "RepoNotFound", "Invalid username or password.")  # what the hub tells the anonymous
        if revision not in self.hub.repositories[kind, name]:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.hub.repositories[kind, name][revision]

    def api(self, kind, name, what, revision, path):
        if (files := self.found(kind, name, revision := revision or "main")) is None:
            return
        if what == "tree":
            top = f"{path}/" if path else ""
            within = [e for e in listing(files) if e["path"].startswith(top)]
            if "recursive=true" not in self.path.lower():
                within = [e for e in within if "/" not in e["path"][len(top):]]
            return self.json(within) if within else self.error(404, "EntryNotFound")
        if what == "paths-info":
            return self.json([e for e in listing(files) if e["path"] in self.body.get("paths", [])])
        self.json({"_id": "0", "id": name, "sha": self.hub.sha(kind, name, revision), "private": False, "gated": False,
                   "tags": [], "siblings": [{"rfilename": file} for file in files]})

    def resolve(self, dataset, name, revision, path):
        kind = "dataset" if dataset else "model"
        if (files := self.found(kind, name, revision)) is None:
            return
        sha = {"X-Repo-Commit": self.hub.sha(kind, name, revision)}
        if path not in files:
            return self.error(404, "EntryNotFound", **sha)
        data = files[path]
        if not path.endswith(LARGE):
            return self.send(name, path, data, **sha, ETag=f'"{etag(path, data)}"')
        self.reply(302, b"", Location=f"{self.hub.store}/stored/{kind}/{name}/{sha['X-Repo-Commit']}/{path}",
                   **sha, **{"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{etag(path, data)}"'})

    def stored(self, kind, name, sha, path):
        self.send(name, path, self.hub.repositories[kind, name][sha][path])

    def plain(self, path):
        if path not in self.hub.files:
            return self.error(404, "")
        if self.hub.fails("files", path, "moved"):
            return self.reply(302, b"", Location=f"{self.hub.store}/files/{path}")
        self.send("files", path, self.hub.files[path])

    def send(self, place, path, data, **headers):
        """The bytes of a file, from where Range says, and what is wrong with them."""
        if self.hub.fails(place, path, "busy"):
            return self.error(503, "")
        if self.command == "HEAD":
            return self.reply(200, data, **headers)
        kind = self.hub.fails(place, path, "cut", "reset", "altered", "short", "slow", "stalled", "unsized", "page")
        half = len(data) // 2
        if kind == "page":
            data = b"<!DOCTYPE html><p>log in"
        if kind == "altered":
            data = data[:half] + bytes([data[half] ^ 1]) + data[half + 1:]
        if kind == "short":
            data = data[:half]
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        rest = data[start:]
        headers |= {} if kind == "unsized" else {"Content-Length": str(len(rest))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.head(206 if start else 200, **headers, **({"Connection": "close"} if kind else {}))
        if kind in ("cut", "reset"):
            self.wfile.write(rest[:max(half - start, 0)])
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                time.sleep(0.05)  # what is on its way arrives before the reset
                self.connection.close()
            return
        for at in range(0, len(rest), size := max(len(rest) // 4, 1) if kind in ("slow", "stalled") else max(len(rest), 1)):
            if at:
                time.sleep({"slow": 0.1, "stalled": 1.0}[kind])
            self.wfile.write(rest[at:at + size])

    def head(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def reply(self, status, body, **headers):
        self.head(status, **{"Content-Length": str(len(body))} | headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value):
        self.reply(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def error(self, status, code, message="", **headers):
        headers |= {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self.reply(status, json.dumps({"error": message or f"error {status}"}).encode(), **headers)


def listing(files: dict[str, bytes]) -> list[dict]:
    """Every file and folder of a revision as the hub's tree tells it."""
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents} - {"."}
    found = [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)]
    for path, data in files.items():
        large = {"lfs": {"oid": etag(path, data), "size": len(data), "pointerSize": 134}} if path.endswith(LARGE) else {}
        found.append({"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest(), **large})
    return found
