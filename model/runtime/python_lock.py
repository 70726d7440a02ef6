"""Work in Python on large buffers during which other threads go on, which need Python's lock for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

_PIECE = 2**18  # bytes, which take 20 microseconds to copy and up to a millisecond to look through
_TURN = 0.001  # seconds
# For a thread that waits for the lock to get it. It otherwise gets it from one that works on after five milliseconds.
_PAUSE = 0.00002
_NEVER_FREE = threading.Lock()
_NEVER_FREE.acquire()


class LockTurns:
    """Gives Python's lock away after each millisecond of a loop in which it is held all the time."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + _TURN

    def give_way(self) -> None:
        """To be called in each round. It costs a tenth of a microsecond if it is not time yet."""
        if time.perf_counter() >= self._until:
            give_way()
            self._until = time.perf_counter() + _TURN


def give_way() -> None:
    """Give Python's lock away, to a thread that waits for it."""
    # Not `time.sleep`, which fails where somebody lies to the process about its clock: no picture is broken by that.
    _NEVER_FREE.acquire(timeout=_PAUSE)


def find_part(data: bytes | bytearray, part: bytes, start: int) -> int:
    """Where a part of the data begins first, from a place on; -1 where it does not.

    Python's own search keeps the lock: through 16 MiB that look like the part's begin for 60 ms.
    """
    turns = LockTurns()
    for at in range(start, len(data), _PIECE):
        if (found := data.find(part, at, at + _PIECE + len(part) - 1)) >= 0:
            return found
        turns.give_way()
    return -1


def joined(views: Iterable[memoryview]) -> bytes:
    """The bytes of all views, one after the other.

    Python joins `bytes` without its lock, and anything else with it, and a slice is a copy with it, too: 16 MiB take
    5 to 10 ms. So they are copied in pieces, between which the lock is given away, and these are joined.
    """
    return b"".join([bytes(view[at : at + _PIECE]) for view in views for at in range(0, len(view), _PIECE)])
