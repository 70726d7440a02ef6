"""The few answers of a CVAT server that its SDK needs to label one task of pictures, for tests: CVAT itself is a dozen
containers.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

_WHEN = "2026-01-01T00:00:00Z"


@dataclass
class CvatTask:
    """The only task of a server: pictures by name, labels with their types, and what was uploaded."""

    pictures: Mapping[str, bytes]
    labels: Sequence[tuple[str, str]]  # name and type; ids count from 100
    shapes: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str) -> Any:
        """What a GET is answered with, bytes or JSON; None where there is nothing."""
        summary = {"url": f"{self.url}/api/labels"}
        answers: dict[str, Any] = {
            "/api/server/about": {
                "name": "CVAT",
                "description": "",
                "version": "2.80.0",
                "logo_url": "",
                "subtitle": "",
            },
            "/api/tasks/1": {
                "id": 1,
                "name": "pictures",
                "size": len(self.pictures),
                "data_chunk_size": len(self.pictures),
                "data_original_chunk_type": "imageset",
                "updated_date": _WHEN,
                "jobs": {"count": 1, "completed": 0, "validation": 0, "url": summary["url"]},
                "labels": summary,
                "organization": None,
                "organization_id": None,
                "target_storage": None,
                "source_storage": None,
            },
            "/api/labels": {
                "count": len(self.labels),
                "next": None,
                "previous": None,
                "results": [
                    {"id": 100 + number, "name": name, "type": kind, "attributes": [], "sublabels": []}
                    for number, (name, kind) in enumerate(self.labels)
                ],
            },
            "/api/tasks/1/data/meta": {
                "size": len(self.pictures),
                "start_frame": 0,
                "stop_frame": len(self.pictures) - 1,
                "chunks_updated_date": _WHEN,
                "deleted_frames": [],
                "frames": [self._frame(name, file) for name, file in self.pictures.items()],
            },
            "/api/tasks/1/data": self._chunk(),
        }
        return answers.get(path)

    @staticmethod
    def _frame(name: str, file: bytes) -> dict[str, Any]:
        width, height = Image.open(io.BytesIO(file)).size
        return {"name": name, "width": width, "height": height, "related_files": 0}

    def _chunk(self) -> bytes:
        """All pictures, as CVAT numbers them."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number, file in enumerate(self.pictures.values()):
                archive.writestr(f"{number:06}.jpeg", file)
        return buffer.getvalue()


@contextmanager
def cvat_server(task: CvatTask) -> Iterator[str]:
    """Serve a task for the length of a `with` block; the server's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(task.answer(urlsplit(self.path).path.rstrip("/")))

        def do_PATCH(self) -> None:
            data = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert re.fullmatch(r"/api/tasks/1/annotations/?\?.*action=create.*", self.path)
            task.shapes += data["shapes"]
            self._reply({"version": 1, "tags": [], "shapes": [], "tracks": []})

        def _reply(self, content: Any) -> None:
            is_bytes = isinstance(content, bytes)
            body = content if is_bytes else json.dumps(content).encode()
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", "application/zip" if is_bytes else "application/vnd.cvat+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    task.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield task.url
    finally:
        server.shutdown()
        server.server_close()
