"""Keys that let clients in: where they are read from, and how one that was presented is compared.

Only digests of the keys are kept. A key is never logged, never shown, and never an argument of the command line,
which every user of the machine can read.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

MIN_KEY_LENGTH = 16  # characters
CHECK_INTERVAL_S = 1.0
_KEY = re.compile(r"[!-~]{16,256}")

# What changes when a file is written or replaced: time of the change in ns, size in bytes, inode.
_Stamp = tuple[int, int, int]


class KeySourceError(Exception):
    """Keys cannot be read or used; the message says which line is wrong, and never what is in it."""


def digests_of(keys: Iterable[tuple[int, str]]) -> tuple[bytes, ...]:
    """SHA-256 digests of (number, key) pairs; the number is how a bad one is called.

    Raises:
        KeySourceError: a key is shorter than 16 characters or holds what no header can, or there is none.
    """
    digests = []
    for number, key in keys:
        if not _KEY.fullmatch(key):
            raise KeySourceError(
                f"key {number} has to have {MIN_KEY_LENGTH} to 256 visible ASCII characters and no space"
            )
        digests.append(_digest(key.encode("ascii")))
    if not digests:
        raise KeySourceError("there is no key in it")
    return tuple(digests)


def keys_in(text: str) -> list[tuple[int, str]]:
    """The keys of a file, each with its line's number: one a line; `#` begins a line that is a comment."""
    lines = enumerate(map(str.strip, text.splitlines()), start=1)
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


class KeyRing:
    """The keys that are valid now: some given once, others in a file that is read again when it changes."""

    def __init__(
        self, given: tuple[bytes, ...] = (), path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file, if there is one.

        Args:
            given: digests that stay valid.
            path: a file of keys.
            clock: seconds, which never go back.

        Raises:
            KeySourceError: the file cannot be read or holds a key that cannot be used.
        """
        self._given = given
        self._path = path
        self._clock = clock
        self._checked = clock()
        self._stamp = _stamp(path)
        self._digests = given + self._read()

    def accepts(self, presented: bytes) -> bool:
        """Whether this is one of the keys.

        It takes the same time whichever key it is, and whether it is one at all: all are compared, by their
        digests, in constant time.
        """
        self._follow_file()
        digest = _digest(presented)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found

    def reload(self) -> None:
        """Read the file again; if it cannot be used, the keys stay as they are and the log says why."""
        self._stamp = _stamp(self._path)
        try:
            self._digests = self._given + self._read()
        except KeySourceError as error:
            logger.error("the API keys stay as they were: %s: %s", self._path and self._path.name, error)
        else:
            logger.info("%d API keys are valid now", len(self._digests))

    def _follow_file(self) -> None:
        now = self._clock()
        if self._path is None or now - self._checked < CHECK_INTERVAL_S:
            return
        self._checked = now
        if _stamp(self._path) != self._stamp:
            self.reload()

    def _read(self) -> tuple[bytes, ...]:
        if self._path is None:
            return ()
        try:
            return digests_of(keys_in(self._path.read_text(encoding="utf-8")))
        except OSError as error:
            raise KeySourceError(error.strerror or type(error).__name__) from error
        except UnicodeDecodeError as error:
            raise KeySourceError("it is not a text file") from error


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _stamp(path: Path | None) -> _Stamp | None:
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)
