"""What a device can fail with, and how the runtimes' many words for "no memory left" are told from other errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# No runtime has an exception of its own for this, only texts: ONNX Runtime's arenas ("Failed to allocate memory for
# requested buffer of size ...", "Available memory of ... is smaller than requested bytes of ..."), CUDA ("out of
# memory"), cuBLAS and cuDNN (..._ALLOC_FAILED, ..._ALLOCATION_FAILED), TensorRT ("OutOfMemory"), oneDNN
# ("out_of_memory") and C++ ("std::bad_alloc").
_NO_MEMORY = re.compile(
    r"failed to allocate|available memory of \d+ is smaller|out[ _]?of[ _]?memory|bad[ _]alloc"
    r"|alloc(ation)?_failed|cannot allocate memory",
    re.IGNORECASE,
)


class DeviceError(Exception):
    """The device that was asked for cannot be used; one line says what is missing and what to do."""


class DeviceMemoryError(Exception):
    """The device's memory ran out in a batch; a smaller one may still fit."""


@contextmanager
def memory_errors(device: str) -> Iterator[None]:
    """Turn a runtime's error that says that memory ran out into a DeviceMemoryError; all others pass."""
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise DeviceMemoryError(f"device {device}: memory ran out: {first_line(error)}") from error


def ran_out(error: Exception) -> bool:
    """Whether an exception of a runtime means that memory ran out."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def first_line(error: Exception) -> str:
    """What an exception says, in one line of at most 300 characters, without the places in C++ that some begin with."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [""])[0][:300] or type(error).__name__
