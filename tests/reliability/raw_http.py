"""HTTP by hand over real sockets: what no client library would send, and clients that stop, crawl or leave."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import httpx

from tests.processes import PATIENCE_S


def request(
    path: str = "/detect",
    body: bytes = b"",
    *,
    method: str = "POST",
    content_type: str = "image/png",
    length: int | None = None,
    headers: Mapping[str, str] = {},
) -> bytes:
    """A request's bytes; `length` is what Content-Length claims, by default the truth."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Type: {content_type}"]
    if method == "POST":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def connect(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """A connection to a server on this machine; a small buffer makes a client that reads slowly felt at once."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(PATIENCE_S)
    connection.connect(("127.0.0.1", port))
    return connection


@contextmanager
def connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Several connections, closed at the end of the block unless they were before."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(port)) for _ in range(count)]


def read_answer(connection: socket.socket) -> httpx.Response | None:
    """One answer, as long as its header says; None if the server closed the connection without one.

    Raises:
        AssertionError: the server closed it amid an answer, or sent what is none.
    """
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = _receive(connection)
        if not chunk:
            assert not received, f"cut off: {received[:200]!r}"
            return None
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    assert status.startswith("HTTP/1.1 "), status
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in fields)]
    answer = httpx.Response(int(status.split()[1]), headers=headers)
    while len(body) < int(answer.headers["content-length"]):
        chunk = _receive(connection)
        assert chunk, f"cut off after {len(body)} bytes of {answer.headers['content-length']}"
        body += chunk
    return httpx.Response(answer.status_code, headers=headers, content=body)


def exchange(port: int, sent: bytes) -> httpx.Response | None:
    """What the server answers to these bytes on a connection of their own, after which no more are sent."""
    with connect(port) as connection:
        _send(connection, sent)
        return read_answer(connection)


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server closes the connection, dropping what it says before; False if it does not in time."""
    try:
        while _receive(connection):
            pass
    except TimeoutError:
        return False
    return True


def _send(connection: socket.socket, sent: bytes) -> None:
    """Send what the server takes; one that has answered and closed takes no more."""
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(sent)


def _receive(connection: socket.socket) -> bytes:
    """The next bytes; none where the connection is closed, which a server with unread input does by a reset."""
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""
