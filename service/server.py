"""The server process: start, serve, shut down.

The socket listens before the model loads, so that health can be asked meanwhile: live answers 200 and ready
503. If the model then cannot be loaded, the process says why in one line and ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.app import create_app, create_metrics_app
from service.http.access import Access
from service.lifecycle.loading import ModelLoader
from service.lifecycle.service import Service, StartupError
from service.process.logs import configure_logging
from service.process.memory import configure_malloc
from service.process.metrics import Metrics
from service.process.open_files import fit_connections
from service.settings import Settings
from service.wire.connections import Connections, Limits
from service.wire.protocol import protocol_with

logger = logging.getLogger(__name__)

# Exit codes; a second signal ends the process with 128 and the signal's number, as a shell reports it.
CLEAN, STARTUP_FAILED, BAD_SETTING, ABANDONED, ENGINE_LOST = 0, 1, 2, 3, 4

MAX_METRICS_CONNECTIONS = 16

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class MetricsPort:
    """A port for metrics alone."""

    listener: socket.socket
    config: uvicorn.Config


class Server(uvicorn.Server):
    """uvicorn's server with a shutdown that says what it does, ends in time, and ends well."""

    def __init__(
        self, config: uvicorn.Config, service: Service, access: Access, metrics: MetricsPort | None = None
    ) -> None:
        super().__init__(config)
        self._access = access
        self._metrics_port = metrics
        self.drained = True
        self._service = service
        service.on_failure = self._stop_serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to load the model, and answer what can be answered without it."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("listening on %s port %d", host, port)
        if self._metrics_port is not None:
            await self._listen_for_metrics(self._metrics_port)

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
        if hasattr(signal, "SIGHUP"):  # Windows has none
            loop = asyncio.get_running_loop()
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self._reload))
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

    async def _listen_for_metrics(self, port: MetricsPort) -> None:
        """Answer there as on the main port; it is drained and closed together with it."""
        port.config.load()

        def connection() -> asyncio.Protocol:
            protocol: asyncio.Protocol = port.config.http_protocol_class(  # type: ignore[call-arg]
                config=port.config, server_state=self.server_state, app_state={}
            )
            return protocol

        self.servers.append(await asyncio.get_running_loop().create_server(connection, sock=port.listener))
        logger.info("metrics on %s port %d", *port.listener.getsockname()[:2])

    def _reload(self) -> None:
        """Read again what an operator may have changed: the files of keys, and the model."""
        logger.info("asked to reload")
        self._access.reload()
        self._service.reloader.reload_soon()

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


def run(settings: Settings, loader: ModelLoader | None = None) -> int:
    """Run the service until it is told to stop.

    Args:
        settings: everything that can be set.
        loader: where models come from; see `create_app`.

    Returns:
        The exit code: 0 after a clean shutdown, 3 if accepted requests had to be abandoned, 4 if the engine hung or
        could not be opened again, which a new process cures.

    Raises:
        StartupError: it could not start.
        SettingsError: a setting cannot be used here.
    """
    # Before the first thread, because one that has taken memory before has a pool of its own and keeps it.
    configure_malloc()
    log = configure_logging(settings.log_level)
    if hasattr(signal, "SIGHUP"):
        # To reload is for a server that runs; one that has ended is not to die of it in its last moment.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = fit_connections(settings)
    app = create_app(settings, loader)
    service: Service = app.state.service
    log.on_drop = service.metrics.log_lines_dropped.inc
    with listen(settings.host, settings.port) as listener, _metrics_port(app, settings) as metrics_port:
        config = _uvicorn_config(app, settings, service.metrics)
        server = Server(config, service, app.state.access, metrics_port)
        server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure
    code = CLEAN if server.drained else ABANDONED
    if service.is_engine_lost:
        code = ENGINE_LOST
    logger.info("stopped, exit code %d", code)
    if service.is_stuck():
        # Python would wait for that thread without end.
        log.close()
        os._exit(code)
    return code


@contextmanager
def _metrics_port(app: FastAPI, settings: Settings) -> Generator[MetricsPort | None, None, None]:
    if not settings.metrics_port:
        yield None
        return
    # Connections of its own, so that no crowd on the main port keeps the metrics from being read.
    few = settings.model_copy(update={"max_connections": MAX_METRICS_CONNECTIONS})
    with listen(settings.metrics_host, settings.metrics_port) as listener:
        yield MetricsPort(listener, _uvicorn_config(create_metrics_app(app), few, app.state.service.metrics))


def _uvicorn_config(app: FastAPI, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    limits = Limits(
        max_header_bytes=settings.max_header_bytes,
        header_timeout=settings.header_timeout_ms / 1000,
        body_timeout=settings.body_timeout_ms / 1000,
        write_timeout=settings.write_timeout_ms / 1000,
        max_rest_bytes=settings.max_body_bytes,
    )
    return uvicorn.Config(
        app,
        http=protocol_with(limits, Connections(settings.max_connections, metrics), settings.retry_after_s),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_timeout_s,
    )
