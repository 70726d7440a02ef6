"""Other threads go on while large buffers are copied or looked through."""

from __future__ import annotations

import threading
import time
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from model.runtime import python_lock
from model.runtime.python_lock import LockTurns, find_part, joined


@given(st.lists(st.binary(max_size=20)), st.integers(1, 8))
def test_all_bytes_are_there_in_their_order(parts: list[bytes], piece: int) -> None:
    with patch.object(python_lock, "_PIECE", piece):
        assert joined([memoryview(bytearray(part)) for part in parts]) == b"".join(parts)


@given(st.binary(max_size=30), st.binary(min_size=1, max_size=4), st.integers(0, 31), st.integers(1, 8))
def test_a_part_is_found_where_it_begins_first(data: bytes, part: bytes, start: int, piece: int) -> None:
    repeated = data + part + data
    with patch.object(python_lock, "_PIECE", piece):
        assert find_part(data, part, start) == data.find(part, start)
        assert find_part(bytearray(repeated), part, start) == repeated.find(part, start)


def test_others_go_on_meanwhile() -> None:
    """They get the lock several times while 512 MiB are copied, for which `b"".join` of views would keep it."""
    turns, over = 0, threading.Event()
    large = memoryview(bytes(2**28))

    def copy() -> None:
        joined([large, large])
        over.set()

    thread = threading.Thread(target=copy)
    thread.start()
    while not over.is_set():
        time.sleep(0.001)
        turns += 1
    thread.join()
    assert turns >= 5


def test_a_loop_gives_way_after_each_millisecond_and_not_before() -> None:
    now, given = 10.0, []
    with (
        patch("model.runtime.python_lock.time.perf_counter", lambda: now),
        patch.object(python_lock, "give_way", lambda: given.append(now)),
    ):
        turns = LockTurns()
        for _ in range(30):
            now += 2**-12
            turns.give_way()
    assert len(given) == 6
