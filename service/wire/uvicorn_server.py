"""uvicorn's server, with a port for metrics, and a shutdown that says what it does, ends in time, and ends well."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from service.settings import Settings
from service.wire.connections import Connections
from service.wire.deadlines import ConnectionLimits
from service.wire.protocol import GuardedProtocol, protocol_with
from service.wire.serving import Port, Served

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Answers on one port, and on another for metrics alone."""

    def __init__(self, main: Port, metrics_port: Port | None, served: Served, reload: Callable[[], None]) -> None:
        super().__init__(_config(main, _protocol(main, served), served.settings))
        self.drained = True
        self._served = served
        self._reload = reload
        self._metrics_port = metrics_port
        self._metrics_server: asyncio.Server | None = None
        served.on_failure = self._stop_serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to load the model, and answer what can be answered without it."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("listening on %s port %d", host, port, extra={"fields": {"url": url_of(host, port)}})
        if self._metrics_port is not None:
            await self._listen_for_metrics(self._metrics_port)

    async def main_loop(self) -> None:
        """Serve until a signal comes or the model cannot be loaded."""
        await super().main_loop()
        logger.info("shutting down")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what comes within the delay and what was accepted, then close; within the drain timeout after it."""
        await self._served.delay_drain()
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._served.settings.drain_timeout_ms / 1000
        # First with the door still open: ready answers 503, so that a balancer looks elsewhere, and so does
        # new work.
        self.drained = await self._served.drain(deadline - clock())
        # What is left are clients that send or read slowly. They cannot hold the process beyond its time:
        # uvicorn closes the listeners and idle connections now, and the others when this runs out.
        self.config.timeout_graceful_shutdown = max(1, int(deadline - clock()))
        if self._metrics_server is not None:
            self._metrics_server.close()
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
        self._served.begin_drain()
        self._stop_serving()

    async def _listen_for_metrics(self, port: Port) -> None:
        """Answer there as on the main port; its connections are drained and closed together with the others."""
        protocol = _protocol(port, self._served)
        config = _config(port, protocol, self._served.settings)
        self._metrics_server = await asyncio.get_running_loop().create_server(
            lambda: protocol(config=config, server_state=self.server_state, app_state={}), sock=port.listener
        )
        logger.info("metrics on %s port %d", *port.listener.getsockname()[:2])

    def _stop_serving(self) -> None:
        self.should_exit = True


def _protocol(port: Port, served: Served) -> type[GuardedProtocol]:
    settings = served.settings
    limits = ConnectionLimits(
        max_header_bytes=settings.max_header_bytes,
        header_timeout=settings.header_timeout_ms / 1000,
        body_timeout=settings.body_timeout_ms / 1000,
        write_timeout=settings.write_timeout_ms / 1000,
    )
    return protocol_with(limits, Connections(port.max_connections, served.metrics), settings.retry_after_s)


def _config(port: Port, protocol: type[GuardedProtocol], settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        port.app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_timeout_s,
    )


def url_of(host: str, port: int) -> str:
    """Where a browser on this machine finds what listens on an address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # which are all addresses
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
