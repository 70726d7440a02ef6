"""Keys that let clients in: where they are read from, and how one that was presented is compared.

Only digests of the keys are kept. A key is never logged, never shown, and never an argument of the command line,
which every user of the machine can read.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

from service.process.running_time import result_within

logger = logging.getLogger(__name__)

MIN_KEY_LENGTH = 16  # characters
CHECK_INTERVAL_S = 1.0
READ_TIMEOUT_S = 10.0
MAX_FILE_BYTES = 2**20
_KEY = re.compile(r"[!-~]{16,256}")

# Or to open a pipe would wait until somebody writes to it. Windows has no such pipes.
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)

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
    """The keys that are valid now: some given once, others in a file that a thread follows.

    The thread is the ring's own, and the end of the process does not wait for it, because to look at a file on a
    network can take for ever. `accepts` compares with what was read last, and never waits.
    """

    def __init__(
        self,
        given: tuple[bytes, ...] = (),
        path: Path | None = None,
        *,
        interval_s: float = CHECK_INTERVAL_S,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        """Read the file, if there is one, and follow it from then on.

        Args:
            given: digests that stay valid.
            path: a file of keys.
            interval_s: seconds between two looks at the file.
            timeout_s: seconds that the first look may take.

        Raises:
            KeySourceError: the file cannot be read in that time, or holds a key that cannot be used.
        """
        self._given = given
        self._path = path
        self._digests = given
        self._stamp: _Stamp | None = None
        self._interval_s = interval_s
        self._wanted = threading.Event()  # a look, before the interval has passed
        self._closed = False
        if path is not None:
            first: Future[None] = Future()
            threading.Thread(target=self._follow, args=(path, first), name="keys", daemon=True).start()
            try:
                result_within(first, timeout_s)
            except TimeoutError:
                self.close()
                raise KeySourceError(f"it cannot be read within {timeout_s:g} s") from None

    def accepts(self, presented: bytes) -> bool:
        """Whether this is one of the keys.

        It takes the same time whichever key it is, and whether it is one at all: all are compared, by their
        digests, in constant time.
        """
        digest = _digest(presented)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found

    def reload(self) -> None:
        """Have the file read again now; if it cannot be used, the keys stay as they are and the log says why."""
        self._stamp = None
        self._wanted.set()

    def close(self) -> None:
        """Follow the file no longer."""
        self._closed = True
        self._wanted.set()

    def _follow(self, path: Path, first: Future[None]) -> None:
        try:
            self._stamp, self._digests = self._read(path)
        except KeySourceError as error:
            first.set_exception(error)
            return
        first.set_result(None)
        while not self._closed:
            self._wanted.wait(self._interval_s)
            self._wanted.clear()
            if not self._closed:
                self._look(path)

    def _look(self, path: Path) -> None:
        """Read the file again if it has changed."""
        stamp = _stamp(path)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # a file that cannot be used is complained about once
        try:
            self._stamp, self._digests = self._read(path)
        except KeySourceError as error:
            logger.error("the API keys stay as they were: %s: %s", path.name, error)
        else:
            logger.info("%d API keys are valid now", len(self._digests))

    def _read(self, path: Path) -> tuple[_Stamp, tuple[bytes, ...]]:
        stamp, text = _read_regular(path)
        return stamp, self._given + digests_of(keys_in(text))


def _read_regular(path: Path) -> tuple[_Stamp, str]:
    """What a file holds, and its stamp. A pipe or a device could keep its reader waiting, or have no end.

    Raises:
        KeySourceError: it is no regular file, cannot be read, is too large, or is not text.
    """
    try:
        if not path.is_file() and path.exists():
            raise KeySourceError("it is not a regular file")
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeySourceError("it is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeySourceError(error.strerror or type(error).__name__) from error
    if len(content) > MAX_FILE_BYTES:
        raise KeySourceError(f"it has more than {MAX_FILE_BYTES} bytes")
    try:
        return _stamp_of(status), content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise KeySourceError("it is not a text file") from error


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _stamp(path: Path) -> _Stamp | None:
    try:
        return _stamp_of(path.stat())
    except OSError:
        return None


def _stamp_of(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino
