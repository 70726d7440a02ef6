"""A set of names that takes little memory, however many millions there are."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from hashlib import blake2b

_CACHE_KIB = 256 * 2**10  # in memory, where ten million names have room; what is beyond goes to a temporary file


class NamesFullError(Exception):
    """There is no room for the names; the message is one line."""


class Names:
    """A set of names. It may be used by another thread than the one that made it, but by one at a time."""

    def __init__(self) -> None:
        # A database without a name is one of SQLite's own temporary files, made when memory does not suffice.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "CREATE TABLE names (digest BLOB PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)
        self._count = 0

    def __len__(self) -> int:
        """How many names there are."""
        return self._count

    def __contains__(self, name: str) -> bool:
        """Whether it is one of them."""
        found = self._database.execute("SELECT 1 FROM names WHERE digest = ?", (_digest(name),))
        return found.fetchone() is not None

    def add(self, name: str) -> bool:
        """Add a name; whether it is a new one. Raises NamesFullError if there is no room."""
        try:
            done = self._database.execute("INSERT OR IGNORE INTO names VALUES (?)", (_digest(name),))
        except sqlite3.OperationalError as error:
            raise NamesFullError(
                f"no room for the names of so many pictures in {tempfile.gettempdir()} ({error}): set SQLITE_TMPDIR to "
                "a folder with more"
            ) from error
        self._count += done.rowcount
        return done.rowcount == 1


def _digest(name: str) -> bytes:
    """A name in 16 bytes, which are different for different names, as far as anybody will ever see."""
    return blake2b(os.fsencode(name), digest_size=16).digest()
