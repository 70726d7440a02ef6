"""A name server that gives every name the same addresses, and a web server that says at which address it was found."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_NO_SUCH_NAME = 3


class NameServer:
    """Answers DNS on a loopback port for the length of a `with` block.

    `addresses` are what every name has, none for names that are not there; they may be changed at any time.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.addresses: tuple[str, ...] = ("127.0.0.1",)
        self.host = host
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._answer, name="name server")

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", (self.host, self.port))
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(answer_to(query, self.addresses), asker)


def answer_to(query: bytes, addresses: tuple[str, ...]) -> bytes:
    """The answer to a question for one name's addresses (RFC 1035, 4.1)."""
    identity, question = query[:2], query[12 : query.index(b"\0", 12) + 5]
    if not addresses:
        return identity + bytes([0x81, 0x80 + _NO_SUCH_NAME, 0, 1, 0, 0, 0, 0, 0, 0]) + question
    flags_and_counts = bytes([0x81, 0x80, 0, 1, 0, len(addresses), 0, 0, 0, 0])
    # Each time the question's name again, type A, class IN, kept for a second, four bytes.
    begin = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4])
    return identity + flags_and_counts + question + b"".join(begin + socket.inet_aton(address) for address in addresses)


class _Telling(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Named)
        said = f"{server.name} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class Named(ThreadingHTTPServer):
    """Answers each GET with its own address and the request's target, for the length of a `with` block."""

    daemon_threads = True

    def __init__(self, address: str, port: int = 0) -> None:
        super().__init__((address, port), _Telling)
        self.name = address
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name=address)

    def __enter__(self) -> Named:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Listen no more; again is nothing."""
        self.shutdown()
        self._thread.join()
        self.server_close()
