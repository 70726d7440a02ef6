"""The parts of a WebP."""

from __future__ import annotations

from model.runtime.python_lock import LockTurns


def count_webp_chunks(data: bytes | bytearray, most: int) -> int:
    """Chunks of a WebP (RFC 9649, section 2.3), but no more than one beyond `most`."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    start, count, turns = 12, 0, LockTurns()
    while start + 8 <= end and count <= most:
        turns.give_way()
        length = int.from_bytes(data[start + 4 : start + 8], "little")
        start, count = start + 8 + length + length % 2, count + 1
    return count
