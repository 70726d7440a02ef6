"""One replica of Ray Serve: the service's app, told what is different behind Ray."""

from __future__ import annotations

import logging
import os

from prometheus_client import Metric
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app import create_app
from service.errors import ServiceError
from service.lifecycle.service import Service
from service.process.garbage import spare_loaded_objects
from service.process.logs import configure_logging
from service.process.memory import configure_malloc, keep_picture_memory
from service.process.spans import open_spans
from service.ray.all_replicas import AllReplicas, with_label
from service.ray.worker import settings_here
from service.settings import Settings

logger = logging.getLogger(__name__)


class Replica:
    """The app, and what Ray and the other replicas ask of this one beside requests."""

    def __init__(self, settings: Settings) -> None:
        """Raise SettingsError where a setting cannot be used."""
        configure_malloc()
        # Lines go to the worker's standard output, which Ray keeps in a file.
        self._log, libraries = configure_logging(settings.log_level, settings.log_format)
        self._spans = open_spans()
        self._name = serve.get_replica_context().replica_tag
        # Metrics of all replicas are answered where requests are.
        settings = settings_here(settings).model_copy(update={"metrics_port": 0})
        keep_picture_memory(settings.cpu_threads)
        self.app = create_app(settings, spans=self._spans, replicas=AllReplicas())
        self.app.add_middleware(WithoutRequestId)
        self._service: Service = self.app.state.service
        self._service.on_loaded = spare_loaded_objects
        self._log.on_drop = self._service.metrics.log_lines_dropped.inc
        libraries.on_warning = self._service.metrics.library_warnings.inc
        if (nice := os.nice(0)) > 0:
            logger.warning("this replica runs at nice %d: start Ray with RAY_worker_niceness=0", nice)

    async def check_health(self) -> None:
        """Return if requests can be answered. Ray asks first before it sends any, and that waits for the model.

        Raises:
            StartupError: the model cannot be loaded.
            UnavailableError: the replica is to be replaced, because its engine or a decoder hangs or is lost.
        """
        await self._service.loaded()
        if self._service.failure is not None:
            raise self._service.failure
        self._service.admission.check_ready()

    def metric_families(self) -> list[Metric]:
        """The metrics of this replica, each sample with its name as a label."""
        return [with_label(family, "replica", self._name) for family in self._service.metrics.registry.collect()]

    async def reload_here(self) -> ServiceError | None:
        """Load the model again in this replica; why it did not, if so."""
        try:
            await self._service.reloader.reload()
        except ServiceError as error:
            return error
        return None

    def close(self) -> None:
        """Send and write what waits, after the last request."""
        if self._spans is not None:
            self._spans.close()
        self._log.close()


class WithoutRequestId:
    """ASGI middleware that leaves out X-Request-ID, which Ray adds by itself: the client's own, or a new one.

    Ray hands the same one to the app, so it is the one in the log, unless the client sent something odd: then Ray's
    header repeats that. The proxy of docker/nginx/ lets nothing odd through.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["X-Request-ID"]
            await send(message)

        await self._app(scope, receive, send_without)
