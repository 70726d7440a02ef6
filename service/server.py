"""The server process: start, serve, shut down.

The socket listens before the model loads, so that health can be asked meanwhile: live answers 200 and ready
503. If the model then cannot be loaded, the process says why in one line and ends.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from service.app import create_app
from service.lifecycle import Service, StartupError
from service.logs import configure_logging
from service.memory import limit_arenas
from service.protocol import protocol_with
from service.settings import Settings

logger = logging.getLogger(__name__)

# Exit codes; a second signal ends the process with 128 and the signal's number, as a shell reports it.
CLEAN, STARTUP_FAILED, BAD_SETTING, ABANDONED = 0, 1, 2, 3

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn's server with a shutdown that says what it does, ends in time, and ends well."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.drained = True
        self._service = service
        service.on_failure = self._stop_serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to load the model, and answer what can be answered without it."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("listening on %s port %d", host, port)

    async def main_loop(self) -> None:
        """Serve until a signal comes or the model cannot be loaded."""
        await super().main_loop()
        logger.info("shutting down")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, then close; all within the drain timeout."""
        deadline = time.monotonic() + self._service.settings.drain_timeout_ms / 1000
        # First with the door still open: ready answers 503, so that a balancer looks elsewhere, and so does
        # new work.
        self.drained = await self._service.drain(deadline - time.monotonic())
        # What is left are clients that send or read slowly. They cannot hold the process beyond its time:
        # uvicorn closes the listeners and idle connections now, and the others when this runs out.
        self.config.timeout_graceful_shutdown = max(1, round(deadline - time.monotonic()))
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals; unlike uvicorn, do not raise them again, because a clean end is no failure."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down at the first signal, and leave at once at the second."""
        if self.should_exit:
            os._exit(128 + sig)
        self._service.begin_drain()
        self._stop_serving()

    def _stop_serving(self) -> None:
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        StartupError: the address is in use, not this machine's, or unknown.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=2048)
    except OSError as error:
        # The error's own words repeat the address, except where its number is not one of the system's.
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
        raise StartupError(f"cannot listen on {host} port {port}: {reason}") from error


def run(settings: Settings) -> int:
    """Run the service until it is told to stop.

    Returns:
        The exit code: 0 after a clean shutdown, 3 if accepted requests had to be abandoned.

    Raises:
        StartupError: it could not start.
    """
    configure_logging(settings.log_level)
    limit_arenas()
    listener = listen(settings.host, settings.port)
    app = create_app(settings)
    service: Service = app.state.service
    server = Server(_uvicorn_config(app, settings), service)
    server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure
    code = CLEAN if server.drained else ABANDONED
    logger.info("stopped, exit code %d", code)
    if service.is_stuck():
        # Python would wait for that thread without end.
        sys.stdout.flush()
        os._exit(code)
    return code


def _uvicorn_config(app: object, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # FastAPI and uvicorn type ASGI messages differently
        http=protocol_with(settings.header_timeout_ms / 1000),
        h11_max_incomplete_event_size=settings.max_header_bytes,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_timeout_s,
    )
