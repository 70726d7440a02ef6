"""Answering and closing a connection so that its client has the whole answer or none.

An answer leaves in one piece, head and body, unless it is large.

To close while the client still sends would make its system throw the answer away unread. So where an upload has not
ended, the connection lingers: it is closed in one direction only, and in the other when the client has closed it too or
at the deadline of the upload. Until then whatever comes is read and thrown away, because many clients read nothing
before they have sent everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from service.process.metrics import Metrics
from service.wire.deadlines import Clock, ConnectionLimits

# Who has just been answered gets a moment to notice, however late it is.
_MIN_LINGER_S = 1.0
_WORTH_JOINING = 65536  # bytes of a body, above which a copy takes longer than a call


class LingeringTransport:
    """A transport that sends and closes like this, and cuts off who does not read or end in time; all else is the real
    one's.

    Args:
        real: the transport.
        limits: of the connection.
        metrics: where connections that are cut off are counted.
        is_amid_upload: whether the client may still send what belongs to its request.
    """

    def __init__(
        self,
        real: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        limits: ConnectionLimits,
        metrics: Metrics,
        is_amid_upload: Callable[[], bool],
    ) -> None:
        self.write: Callable[[bytes], None] = real.write
        self.upload_deadline = 0.0  # the event loop's time
        self._real = real
        self._loop = loop
        self._limits = limits
        self._metrics = metrics
        self._is_amid_upload = is_amid_upload
        self._is_closing = False
        self._reader_clock = Clock(loop, lambda: self.cut_off("slow_reader"))
        self._rest_clock = Clock(loop, lambda: self.cut_off("slow_rest"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def is_closing(self) -> bool:
        """Whether nothing more is answered here."""
        return self._is_closing or self._real.is_closing()

    def hold_head(self) -> None:
        """Send what is written next together with what is written then: an answer's head with its body.

        A proxy can ask another server for an answer of which it has nothing, and can not where this process dies
        between the two. It is one call of the system instead of two as well.
        """
        self.write = self._hold

    def close(self) -> None:
        """Close once the client can have read its answer; called a second time, close now."""
        if self._is_amid_upload() and not self._is_closing:
            self.linger()
            return
        self._is_closing = True
        self._real.close()
        if self.has_unread_answer():
            self.wait_for_reader()

    def linger(self) -> None:
        """Close in one direction, and read on in the other for a while."""
        self._is_closing = True
        if not self._real.is_closing():
            try:
                self._real.write_eof()
            except OSError:  # the client has gone, and asyncio has not heard of it yet
                self._real.abort()
                return
            self._real.resume_reading()
        self._rest_clock.start(max(_MIN_LINGER_S, self.upload_deadline - self._loop.time()))

    def has_unread_answer(self) -> bool:
        """Whether not all that was sent has left for the client."""
        return self._real.get_write_buffer_size() > 0

    def wait_for_reader(self) -> None:
        """Cut the client off unless it reads its answer in time."""
        self._reader_clock.start(self._limits.write_timeout)

    def note_reader(self) -> None:
        """Wait for the client no longer, most of its answer having been read; to the end if it was the last."""
        if not self.is_closing():
            self._reader_clock.stop()

    def cut_off(self, reason: str) -> None:
        """Close at once, and count it."""
        self._metrics.connections_closed.labels(reason=reason).inc()
        self._real.abort()

    def _hold(self, head: bytes) -> None:
        self.write = partial(self._write_both, head)

    def _write_both(self, head: bytes, body: bytes) -> None:
        self.write = self._real.write
        if len(body) <= _WORTH_JOINING:
            self.write(head + body)
        else:
            self.write(head)
            self.write(body)

    def lost(self) -> None:
        """Stop all clocks, the connection being gone."""
        self._is_closing = True
        self._reader_clock.stop()
        self._rest_clock.stop()
