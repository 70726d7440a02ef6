"""All open connections of a port: how many there may be, and which of them has to go when there are more.

A bound that turned newcomers away would let idle or stalled clients shut everybody else out, health probes first. So
the newcomer is let in, and the connection that has waited longest for its client is closed: one that is idle, sends
its headers slowly, or does not read its answer. Those that are being answered, or upload within their deadline, are
never closed; `Settings.max_requests` keeps them fewer than connections.
"""

from __future__ import annotations

from typing import Protocol

from service.process.metrics import Metrics


class Connection(Protocol):
    """What is asked of a connection."""

    def make_room(self) -> None:
        """Close at once."""

    def has_unread_answer(self) -> bool:
        """Whether the client has not yet taken all that was sent."""


class Connections:
    """The open connections, and which of them wait for their client, longest first. For the event loop's thread."""

    def __init__(self, max_connections: int, metrics: Metrics) -> None:
        self.metrics = metrics
        self._max_connections = max_connections
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}

    def opened(self, connection: Connection) -> bool:
        """Take a new connection in, closing another if need be; False if all others are at work."""
        while len(self._open) >= self._max_connections and self._waiting:
            self._close(self._longest_waiting())
        fits = len(self._open) < self._max_connections
        self._open.add(connection)
        self._waiting[connection] = None
        self.metrics.connections.inc()
        return fits

    def closed(self, connection: Connection) -> None:
        """Forget a connection; may be called more than once."""
        if connection in self._open:
            self._open.remove(connection)
            self.metrics.connections.dec()
        self._waiting.pop(connection, None)

    def waits(self, connection: Connection) -> None:
        """Note that it is its client's turn; one that waits already keeps its place."""
        if connection in self._open:
            self._waiting.setdefault(connection)

    def works(self, connection: Connection) -> None:
        """Note that it is the service's turn."""
        self._waiting.pop(connection, None)

    def _longest_waiting(self) -> Connection:
        # Somebody may still be reading an answer, only slowly, so these go last.
        done = (connection for connection in self._waiting if not connection.has_unread_answer())
        return next(done, next(iter(self._waiting)))

    def _close(self, connection: Connection) -> None:
        self.closed(connection)
        connection.make_room()
