"""What can go wrong with a batch, what is then tried, and what its images are told."""

from __future__ import annotations

from typing import Literal

from service.batching.waiting import Members
from service.errors import DeviceFullError, EngineError

Trouble = Literal["memory", "error"]  # why a batch failed


def halves(members: Members) -> list[Members]:
    """The parts in which a batch is tried again that had no memory."""
    middle = (len(members) + 1) // 2
    return [members[:middle], members[middle:]]


def error_of_one(trouble: Trouble) -> Exception:
    """What an image gets that failed alone."""
    if trouble == "memory":
        return DeviceFullError("there is no memory for this image at present, please try again later")
    return EngineError("the engine failed on this image")


def hangs() -> EngineError:
    """What an image gets in whose batch the engine is stuck."""
    return EngineError("the engine hangs on this image")
