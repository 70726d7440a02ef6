"""Large buffers are copied piece by piece, so that other threads go on meanwhile."""

from __future__ import annotations

import threading
import time
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from model.runtime import joining
from model.runtime.joining import joined


@given(st.lists(st.binary(max_size=20)), st.integers(1, 8))
def test_all_bytes_are_there_in_their_order(parts: list[bytes], piece: int) -> None:
    with patch.object(joining, "_PIECE", piece):
        assert joined([memoryview(bytearray(part)) for part in parts]) == b"".join(parts)


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
