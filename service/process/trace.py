"""What is known of one request while it is answered: who it is, how long each stage took, how it ended."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from service.process.running_time import TimeSource

Stage = Literal["decode", "preprocess", "queue", "infer", "postprocess", "encode"]


@dataclass
class Trace:
    """Notes on one request: each stage writes what it knows, and all is read when the answer has gone."""

    request_id: str = ""
    clock: TimeSource = time.perf_counter  # that its times are measured by
    stages: dict[Stage, float] = field(default_factory=dict)  # seconds
    timeline: list[tuple[Stage, float, float]] = field(default_factory=list)  # when each began and ended, by the clock
    received_bytes: int = 0  # of the request's body
    orientation: int | None = None  # of the image in the file, as EXIF numbers it, 1 to 8
    batch_size: int | None = None  # images that shared the inference
    infer_seconds: dict[str, float] = field(default_factory=dict)  # by what the engines are called that ran them
    error_code: str | None = None
    # Of several images, those that failed: the status that each would have alone, and its error code.
    image_errors: list[tuple[int, str]] = field(default_factory=list)
    status: int = 0  # of the answer, once it has begun
    library_warnings: int = 0  # what libraries said meanwhile
    library_warning: str | None = None  # the first of them
    _has_library_error: bool = False

    @contextmanager
    def current(self) -> Iterator[None]:
        """Note here what libraries say within a block, in its thread or task."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Time a block of work as one stage, whether it succeeds or not; a stage in two blocks adds up."""
        started = self.clock()
        try:
            with self.current():
                yield
        finally:
            self.add(name, self.clock() - started)

    def add(self, name: Stage, seconds: float, before: float = 0.0) -> None:
        """Add to the time of a stage that has ended just now, or so many seconds before."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds
        ended = self.clock() - before
        self.timeline.append((name, ended - seconds, ended))

    def inferred(self, device: str, batch_size: int, queue_seconds: float, infer_seconds: float) -> None:
        """Note what has become of it in the queue, and in a batch on a device that has ended just now."""
        self.batch_size = batch_size
        self.add("queue", queue_seconds, before=infer_seconds)
        self.add("infer", infer_seconds)
        self.infer_seconds[device] = self.infer_seconds.get(device, 0.0) + infer_seconds

    def of_part(self) -> Trace:
        """A trace of one of several images of the request."""
        return Trace(self.request_id, self.clock)

    def take_parts(self, parts: Iterable[Trace]) -> None:
        """Add up what is known of each of several images; the largest batch of theirs counts."""
        for part in parts:
            for name, seconds in tuple(part.stages.items()):
                self.stages[name] = self.stages.get(name, 0.0) + seconds
            for device, seconds in part.infer_seconds.items():
                self.infer_seconds[device] = self.infer_seconds.get(device, 0.0) + seconds
            self.timeline += part.timeline
            self.batch_size = max(self.batch_size or 0, part.batch_size or 0) or None
            self.library_warnings += part.library_warnings
            self.library_warning = self.library_warning or part.library_warning

    def server_timing(self) -> str:
        """The stages as a Server-Timing header (W3C Server Timing, section 3), in milliseconds."""
        # A copy, because a stage whose request was given up may still be running in its thread.
        stages = tuple(self.stages.items())
        return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in stages)

    def library_said(self, text: str, *, is_error: bool) -> bool:
        """Note what a library said; whether it is the first error."""
        self.library_warnings += 1
        if self.library_warning is None:
            self.library_warning = text[:_MAX_WARNING]
        is_first = is_error and not self._has_library_error
        self._has_library_error |= is_error
        return is_first


_MAX_WARNING = 200  # characters
_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current_trace() -> Trace | None:
    """The trace of the request that this thread or task works on, if there is one."""
    return _current.get()


def trace_of(scope: MutableMapping[str, Any]) -> Trace:
    """The trace of a request, by its ASGI scope; one that no middleware began gets an empty one."""
    state = scope.setdefault("state", {})
    trace: Trace = state.setdefault("trace", Trace())
    return trace


def new_request_id() -> str:
    """An id that no other request has; nothing is kept safe by it, so it need not be hard to guess."""
    return f"{random.getrandbits(64):016x}"
