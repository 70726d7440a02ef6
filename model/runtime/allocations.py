"""Whether memory ran out in a library that does not say so.

libjpeg, libwebp and zlib report an allocation that failed like a file that is broken, so that a good picture would be
called broken. But the C library notes the failure, in `errno` of the thread, and nothing there sets it back.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


class AllocationWatch:
    """Knows whether an allocation has failed in the present thread since this was made.

    Where the C library is neither glibc, musl nor macOS's, it never knows.
    """

    def __init__(self) -> None:
        self._errno = _errno_of_thread()
        self._errno.value = 0

    @property
    def have_failed(self) -> bool:
        """Whether one has, in this thread."""
        return self._errno.value == errno.ENOMEM


@contextmanager
def turn_into_memory_errors() -> Iterator[None]:
    """Turn what a library raises in this block because an allocation failed into the MemoryError that it is."""
    allocations = AllocationWatch()
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if allocations.have_failed:
            raise MemoryError(f"{type(error).__name__} for want of memory") from error
        raise


def _errno_of_thread() -> ctypes.c_int:
    """The thread's own errno; ctypes's is only a copy that it makes for calls that ask for it."""
    locate = _locator()
    return ctypes.c_int() if locate is None else locate().contents


@cache
def _locator() -> Callable[[], Any] | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    for name in ("__errno_location", "__error"):
        if (locate := getattr(library, name, None)) is not None:
            locate.restype = ctypes.POINTER(ctypes.c_int)
            return locate  # type: ignore[no-any-return]
    return None
