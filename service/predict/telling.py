"""What `detr predict` says on standard error: each failure is one line."""

from __future__ import annotations

import sys

from tqdm import tqdm  # type: ignore[import-untyped]

from model.runtime.answers.detections import OutputError
from model.runtime.decode import ImageError
from service.errors import DeviceFullError, ServiceError
from service.process.trace import Trace


def complain(line: str) -> int:
    """Say it; 1, which is the exit code of a failure."""
    tqdm.write(f"detr predict: {line}", file=sys.stderr)  # which leaves the bar whole, where there is one
    return 1


def reason(error: Exception, device: str) -> str:
    """Why a picture has no answer."""
    match error:
        case OSError(strerror=str(reason)):
            return reason
        case DeviceFullError():
            return f"there is no memory for it on {device}"
        case MemoryError():
            return "there is no memory for it"
        case ServiceError() | ImageError() | OutputError():
            return str(error)
        case _:
            return f"it failed: {type(error).__name__}: {error}"


def warning_of(trace: Trace) -> str | None:
    """What libraries warned of, though the picture has its answer."""
    if trace.library_warning is None:
        return None
    more = trace.library_warnings - 1
    return f"{trace.library_warning}{f' (and {more} more warnings)' if more else ''}"
