"""h11's connection with a bound on small chunks: what it refuses, and what it leaves alone."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire.bounded_connection import BoundedConnection

POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(connection: h11.Connection, data: bytes) -> int:
    """Bytes of a body that come out of data."""
    connection.receive_data(data)
    found = 0
    while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        found += len(event.data) if isinstance(event, h11.Data) else 0
    return found


def chunks(lengths: list[int]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (length, bytes(length)) for length in lengths)


@given(st.lists(st.integers(128, 2000), min_size=1, max_size=20))
def test_a_body_in_pieces_of_some_length_is_read_whole(lengths: list[int]) -> None:
    connection = BoundedConnection(65_536)
    many = lengths * (5000 // len(lengths) + 1)
    for at in range(0, len(many), len(lengths)):
        data = (b"" if at else POST) + chunks(lengths)
        assert read(connection, data) == sum(lengths)
    assert not connection.has_small_chunks


@pytest.mark.parametrize("length", [1, 64, 127])
def test_a_body_in_small_chunks_is_refused_after_a_few_thousand(length: int) -> None:
    connection = BoundedConnection(65_536)
    assert read(connection, POST + chunks([length] * 4096)) == 4096 * length
    with pytest.raises(h11.RemoteProtocolError):
        read(connection, chunks([length]))
    assert connection.has_small_chunks


def test_each_request_has_its_own_count() -> None:
    connection = BoundedConnection(65_536)
    for _ in range(3):
        assert read(connection, POST + chunks([1] * 4000) + b"0\r\n\r\n") == 4000
        for event in (h11.Response(status_code=200, headers=[("Content-Length", "0")]), h11.EndOfMessage()):
            connection.send(event)
        connection.start_next_cycle()


LENGTH = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def test_what_is_nothing_but_an_announced_body_passes_by_and_then_it_ends() -> None:
    connection = BoundedConnection(65_536)
    assert not connection.passes_by(LENGTH % 3000)
    assert read(connection, LENGTH % 3000 + bytes(1000)) == 1000
    assert connection.passes_by(bytes(1500))
    assert not connection.passes_by(bytes(501)), "the next request's bytes are among them"
    assert not connection.passes_by(bytes(100)), "small pieces are counted"
    assert read(connection, bytes(100)) == 100
    assert connection.passes_by(bytes(400))
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert not connection.passes_by(bytes(400))


def test_nothing_passes_by_that_is_in_chunks_comes_behind_a_part_or_was_not_asked_for() -> None:
    for head in (POST, LENGTH.replace(b"Host", b"Expect: 100-continue\r\nHost") % 1000):
        connection = BoundedConnection(65_536)
        assert read(connection, head) == 0
        assert not connection.passes_by(bytes(500))
    connection = BoundedConnection(65_536)
    read(connection, LENGTH % 1000)
    connection.receive_data(bytes(10))
    assert not connection.passes_by(bytes(500))


def test_after_thousands_of_small_pieces_none_passes_by() -> None:
    connection = BoundedConnection(65_536)
    read(connection, LENGTH % 10**6)
    for _ in range(4096):
        read(connection, b"x")
    assert not connection.passes_by(bytes(1000))
    with pytest.raises(h11.RemoteProtocolError):
        read(connection, bytes(1000))
