"""A server that plays the Hugging Face hub, well or badly, for the real huggingface_hub.

It answers what a download asks for, as the hub does: a repository at a revision, its tree, and its files, the large
ones by way of a redirect, with the headers that say what they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

_PATIENCE_S = 120
LARGE = (".safetensors", ".bin")  # kept in LFS


def commit_of(files: Mapping[str, bytes]) -> str:
    """A commit's name, which depends on what is in it."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name])
    return digest.hexdigest()


@dataclass
class Repository:
    """A model's repository, of which `push` makes a commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False  # to whoever has not the token `TOKEN`

    def push(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Make a branch or tag a commit of these files, and return its name."""
        commit = commit_of(files)
        self.commits[commit] = dict(files)
        self.refs[ref] = commit
        return commit


TOKEN = "hf_the_token"


def _open() -> Event:
    event = Event()
    event.set()
    return event


@dataclass
class FakeHub:
    """A hub that listens on a port of this machine."""

    url: str = ""
    cdn: str = ""  # the same server by another name, as another host has the large files
    repositories: dict[str, Repository] = field(default_factory=dict)
    status: int | None = None  # answer everything with this
    # Of files whose name ends so, send only so many bytes and close; one entry is used up with each time.
    interruptions: list[tuple[str, int]] = field(default_factory=list)
    truncated: str | None = None  # files of this ending have fewer bytes than their header says, each time
    corrupted: str | None = None  # one byte of files of this ending is another
    # Closed, it holds up the content of large files.
    gate: Event = field(default_factory=_open)
    requests: list[str] = field(default_factory=list)  # METHOD PATH, in order
    ranges: list[str] = field(default_factory=list)  # that were asked for

    def push(self, repo: str, files: Mapping[str, bytes], ref: str = "main") -> str:
        return self.repositories.setdefault(repo, Repository()).push(files, ref)

    def downloads(self, ending: str) -> int:
        """How often the content of such files was asked for."""
        return sum(request.startswith("GET /cdn/") and request.endswith(ending) for request in self.requests)


@contextmanager
def fake_hub(host: str = "127.0.0.1", cdn_host: str = "localhost") -> Iterator[FakeHub]:
    """A hub for the length of a block.

    Args:
        host: where it listens.
        cdn_host: another name for the same host, at which it has the large files.
    """
    hub = FakeHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with _QuietServer((host, 0), Handler) as server:
        hub.url = f"http://{host}:{server.server_port}"
        hub.cdn = f"http://{cdn_host}:{server.server_port}/cdn"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.gate.set()
            server.shutdown()
            thread.join()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that go away."""


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:  # the name is http.server's
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.status is not None:
            self._refuse(self.hub.status, "")
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "cdn":
            self._file("/".join(parts[1:3]), parts[3], "/".join(parts[4:]))
        elif "resolve" in parts:
            self._resolve("/".join(parts[:2]), parts[3:])
        else:
            self._refuse(404, "")

    def _describe(self, repo: str, rest: list[str]) -> None:
        """`/api/models/REPO`, `.../revision/REVISION` and `.../tree/REVISION`."""
        what, revision = rest[0] if rest else "revision", "/".join(rest[1:]) or "main"
        found = self._find(repo, revision)
        if found is None:
            return
        commit, files = found
        if what == "tree":
            self._json([_entry(name, content) for name, content in files.items()])
        else:
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repo, "modelId": repo, "sha": commit, "private": False, "siblings": siblings})

    def _resolve(self, repo: str, rest: list[str]) -> None:
        """`/REPO/resolve/REVISION/FILE`."""
        for length in range(1, len(rest)):
            revision, name = "/".join(rest[:length]), "/".join(rest[length:])
            repository = self.hub.repositories.get(repo)
            if repository is not None and (revision in repository.refs or revision in repository.commits):
                break
        found = self._find(repo, revision)
        if found is None:
            return
        commit, files = found
        if name not in files:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        elif name.endswith(LARGE):
            headers = _headers(commit, files[name]) | {"Location": f"{self.hub.cdn}/{repo}/{commit}/{name}"}
            self._send(302, b"", headers)
        else:
            etag = hashlib.sha1(files[name], usedforsecurity=False).hexdigest()
            self._send(200, files[name], {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def _file(self, repo: str, commit: str, name: str) -> None:
        """The content of a large file, or the rest of it."""
        hub, content = self.hub, self.hub.repositories[repo].commits[commit][name]
        etag = hashlib.sha256(content).hexdigest()
        if hub.corrupted is not None and name.endswith(hub.corrupted):
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        start = 0
        if (asked := self.headers.get("Range")) is not None:
            hub.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        rest, most = content[start:], None
        if hub.truncated is not None and name.endswith(hub.truncated):
            most = len(rest) // 2
        elif hub.interruptions and name.endswith(hub.interruptions[0][0]) and self.command == "GET":
            most = hub.interruptions.pop(0)[1]
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        hub.gate.wait(_PATIENCE_S)
        self._send(206 if start else 200, rest, headers, most)

    def _find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files, or an answer that says why not."""
        repository = self.hub.repositories.get(repo)
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not allowed):
            self._refuse(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
            return None
        if repository.gated and not allowed:
            self._refuse(401 if "Authorization" not in self.headers else 403, "GatedRepo")
            return None
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return commit, repository.commits[commit]

    def _refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": "\x1b[31mwords of the hub's own"} if code else {}
        self._send(status, b'{"error": "words of the hub\'s own"}', named | dict(headers or {}))

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], most: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:most])
        if most is not None:
            self.close_connection = True


def _entry(name: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": oid}
    if name.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    return entry


def _headers(commit: str, content: bytes) -> dict[str, str]:
    digest = hashlib.sha256(content).hexdigest()
    return {
        "X-Repo-Commit": commit,
        "X-Linked-Etag": f'"{digest}"',
        "X-Linked-Size": str(len(content)),
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
    }
