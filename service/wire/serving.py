"""The one door to what leans on the insides of uvicorn and h11.

They have no public way to bound connections, headers and unread answers, so the modules here override methods and read
attributes that another release may rename without a word. What they lean on is listed below, and looked for before
anything is served: a service whose deadlines silently do nothing is worse than one that does not start.
"""

from __future__ import annotations

import asyncio
import dis
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from inspect import getmro, isfunction
from pkgutil import resolve_name
from typing import Protocol

from starlette.types import ASGIApp

from service.process.metrics import Metrics
from service.process.running_time import RunningLoop
from service.settings import Settings

# Of each class, the methods and attributes that are called, overridden, read or set.
_LEANED_ON: Mapping[str, tuple[str, ...]] = {
    "uvicorn.config:Config": ("timeout_graceful_shutdown",),
    "uvicorn.server:Server": (
        "serve", "startup", "main_loop", "shutdown", "capture_signals", "handle_exit",
        "config", "server_state", "should_exit",
    ),
    "uvicorn.protocols.http.h11_impl:H11Protocol": (
        "connection_made", "data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost",
        "handle_events", "on_response_complete", "send_400_response",
        "app", "conn", "cycle", "flow", "loop", "transport",
    ),
    "uvicorn.protocols.http.h11_impl:RequestResponseCycle": ("body", "message_event", "response_complete"),
    "uvicorn.protocols.http.flow_control:FlowControl": ("drain", "pause_reading", "write_paused"),
    "h11:Connection": (
        "next_event", "send", "our_state", "their_state", "their_http_version", "they_are_waiting_for_100_continue",
        "_reader", "_receive_buffer",
    ),
    "h11._readers:ContentLengthReader": ("_remaining",),
    "h11._receivebuffer:ReceiveBuffer": ("maybe_extract_lines", "_data"),
    "h11:RemoteProtocolError": ("error_status_hint",),
}  # fmt: skip


@dataclass(frozen=True)
class Port:
    """A listening socket, and what is answered there."""

    listener: socket.socket
    app: ASGIApp
    max_connections: int


class Served(Protocol):
    """What is served, as far as the server has to know it."""

    settings: Settings
    metrics: Metrics
    on_failure: Callable[[], None]  # to be called when it can serve no longer; the server sets it

    def begin_drain(self) -> None:
        """Be ready no more, and take no more work, at once or after a delay; from within a signal handler."""

    async def delay_drain(self) -> None:
        """Take work for as long as that delay is."""

    async def drain(self, timeout_seconds: float) -> bool:
        """Answer what was accepted, in so many seconds; whether all was."""


def what_is_missing() -> str | None:
    """What the code leans on and the installed uvicorn or h11 does not have, in one line; None if all is there."""
    for place, names in _LEANED_ON.items():
        module = place.partition(":")[0]
        package = module.partition(".")[0]
        try:
            found = _names_of(resolve_name(place))
        except (ImportError, AttributeError):
            return f"{package} {version(package)} has no {place.replace(':', '.')}"
        if missing := [name for name in names if name not in found]:
            return f"{package} {version(package)}: {place.replace(':', '.')} has no {', '.join(missing)}"
    return None


def serve(main: Port, metrics_port: Port | None, served: Served, reload: Callable[[], None]) -> bool:
    """Serve until a signal comes or the service fails; whether all accepted requests were answered.

    Args:
        main: where the app is.
        metrics_port: a port for metrics alone.
        served: the service itself.
        reload: called at SIGHUP.
    """
    # Not above, because to import it already needs what is looked for.
    from service.wire.uvicorn_server import Server

    server = Server(main, metrics_port, served, reload)
    with asyncio.Runner(loop_factory=RunningLoop) as runner:
        runner.run(server.serve(sockets=[main.listener]))
    return server.drained


def _names_of(kind: type) -> set[str]:
    """Methods and class attributes of a class, and the attributes that its initialisation sets."""
    initialisers = filter(isfunction, (vars(base).get("__init__") for base in getmro(kind)))
    steps = (step for function in initialisers for step in dis.get_instructions(function))
    return {*dir(kind), *(step.argval for step in steps if step.opname == "STORE_ATTR")}
