"""An h11 connection that takes no body in crumbs.

h11 hands on each chunk of a body by itself, at about 5 microseconds of the event loop's time, and bounds neither their
number nor their length: an upload within the bound on bytes, in chunks of one byte, would take the loop a minute.
"""

from __future__ import annotations

import h11

# Clients send kilobytes at a time. A body may begin in pieces of any length, which is about 20 ms of work.
_FREE_PIECES = 4096
_LEAST_MEAN_BYTES = 128  # of a piece, beyond those


class CrumbRefusingConnection(h11.Connection):
    """Like h11's own, for a server, but a request's body has to come in pieces of some length."""

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self.has_seen_crumbs = False
        self._pieces = 0
        self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event, or that there is none yet.

        Raises:
            h11.RemoteProtocolError: the request is not valid HTTP, or its body comes in crumbs.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > _FREE_PIECES and self._bytes < _LEAST_MEAN_BYTES * self._pieces:
                self.has_seen_crumbs = True
                raise h11.RemoteProtocolError("a body in crumbs")
        return event
