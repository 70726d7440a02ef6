"""The server process: start, serve, shut down.

The socket listens before the model loads, so that health can be asked meanwhile: live answers 200 and ready
503. If the model then cannot be loaded, the process says why in one line and ends.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager

from fastapi import FastAPI

from service.app import create_app, create_metrics_app
from service.lifecycle.loading import ModelLoader
from service.lifecycle.service import Service, StartupError
from service.process.garbage import spare_loaded_objects
from service.process.logs import configure_logging
from service.process.memory import configure_malloc, keep_picture_memory
from service.process.options import unknown_variables
from service.process.spans import open_spans
from service.process.watched_threads import ENGINE_LOST, threads_left
from service.settings import Settings, SettingsError, name_of
from service.wire import serving

logger = logging.getLogger(__name__)

# Exit codes; a second signal ends the process with 128 and the signal's number, as a shell reports it.
CLEAN, STARTUP_FAILED, BAD_SETTING, ABANDONED = 0, 1, 2, 3

MAX_METRICS_CONNECTIONS = 16
# Every connection is an open file to the system, and of those a process may have only so many. These are for the model,
# the log, listening sockets and their connections for metrics, threads and libraries.
OWN_FILES = 64


def run(settings: Settings, loader: ModelLoader | None = None) -> int:
    """Run the service until it is told to stop.

    Args:
        settings: everything that can be set.
        loader: where models come from; see `create_app`.

    Returns:
        The exit code: 0 after a clean shutdown, 3 if accepted requests had to be abandoned, 4 if the last
        engine or a decoder hung, or that engine could not be opened again, which a new process cures.

    Raises:
        StartupError: it could not start.
        SettingsError: a setting cannot be used here.
    """
    # Before the first thread, because one that has taken memory before has a pool of its own and keeps it.
    configure_malloc()
    if (missing := serving.what_is_missing()) is not None:
        raise StartupError(missing)
    log, libraries = configure_logging(settings.log_level, settings.log_format)
    for unknown in unknown_variables():
        logger.warning("%s", unknown)
    if hasattr(signal, "SIGHUP"):
        # To reload is for a server that runs; one that has ended is not to die of it in its last moment.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = fit_connections(settings)
    keep_picture_memory(settings.cpu_threads)
    spans = open_spans()
    app = create_app(settings, loader, spans)
    service: Service = app.state.service
    service.on_loaded = spare_loaded_objects
    log.on_drop = service.metrics.log_lines_dropped.inc
    libraries.on_warning = service.metrics.library_warnings.inc
    with listen(settings.host, settings.port) as listener, _metrics_port(app, settings) as metrics_port:
        main = serving.Port(listener, app, settings.max_connections)
        drained = serving.serve(main, metrics_port, service, lambda: _reload(app))
    if spans is not None:
        spans.close()
    if service.failure is not None:
        raise service.failure
    code = CLEAN if drained else ABANDONED
    if service.is_lost:
        code = ENGINE_LOST
    logger.info("stopped, exit code %d", code)
    if threads_left():
        # Python would wait for them without end.
        log.close()
        os._exit(code)
    return code


def fit_connections(settings: Settings) -> Settings:
    """See to it that the process may open all its connections, raising its own limit where that is allowed.

    Where it is not, the default is lowered, with a warning; a number that somebody asked for is not.

    Raises:
        SettingsError: the process may not open as many files as it was told to have connections.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return settings
    needed = settings.max_connections + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= needed:
        return settings
    fitting = allowed - OWN_FILES
    if "max_connections" in settings.model_fields_set or fitting < 4:
        raise SettingsError(
            f"{name_of('max_connections')}: the process may open {allowed} files (ulimit -n), which is too few for "
            f"{settings.max_connections} connections"
        )
    logger.warning("only %d connections at once, because the process may open only %d files", fitting, allowed)
    return settings.model_copy(update={"max_connections": fitting})


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


@contextmanager
def _metrics_port(app: FastAPI, settings: Settings) -> Generator[serving.Port | None, None, None]:
    if not settings.metrics_port:
        yield None
        return
    # Connections of its own, so that no crowd on the main port keeps the metrics from being read.
    with listen(settings.metrics_host, settings.metrics_port) as listener:
        yield serving.Port(listener, create_metrics_app(app), MAX_METRICS_CONNECTIONS)


def _reload(app: FastAPI) -> None:
    """Read again what an operator may have changed: the files of keys, and the model."""
    logger.info("asked to reload")
    app.state.access.reload()
    app.state.service.reloader.reload_soon()
