"""A server that publishes one file, for tests of what downloads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Mirror:
    """Its address, without a slash at the end, and the paths that it was asked for."""

    address: str = ""
    requests: list[str] = field(default_factory=list)


@contextmanager
def mirror_of(content: bytes) -> Iterator[Mirror]:
    """Serves `content` under every name in /good, half of it in /short, something else in /other; else 404."""
    mirror = Mirror()
    bodies = {"good": content, "short": content[: len(content) // 2], "other": b"something else"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirror.requests.append(self.path)
            folder = self.path.split("/")[1]
            if folder not in bodies:
                self.send_error(404)
                return
            self.send_response(200)
            # That of a connection cut short: more was promised than comes.
            promised = content if folder == "short" else bodies[folder]
            self.send_header("Content-Length", str(len(promised)))
            self.end_headers()
            self.wfile.write(bodies[folder])

        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
