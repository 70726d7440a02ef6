"""Copying large buffers so that other threads go on meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

_PIECE = 2**18  # bytes, which take about 20 microseconds


def joined(views: Iterable[memoryview]) -> bytes:
    """The bytes of all views, one after the other.

    Python joins `bytes` without its lock, and anything else with it, and a slice is a copy with it, too: 16 MiB take
    5 to 10 ms. So they are copied in pieces, between which the lock is given away, and these are joined.
    """
    return b"".join([bytes(view[at : at + _PIECE]) for view in views for at in range(0, len(view), _PIECE)])
