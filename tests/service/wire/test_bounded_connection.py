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
