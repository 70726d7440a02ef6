"""The ASGI application. Everything is wired together here, and nothing is decided."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from service.http.access import Access, open_access
from service.http.error_answers import TABLE, error_response
from service.http.exchange import check_room
from service.http.gate import Gate
from service.http.label_studio.routes import label_studio_router, picture_fetcher
from service.http.middleware import CrossOrigin, HeadAsGet, RequestObserver
from service.http.open_inference.routes import protocol_router
from service.http.openapi import describe_access, describe_formats
from service.http.paths import OPENAPI
from service.http.replicas import OnlyReplica, Replicas
from service.http.routes import images_router, metrics_router, pages_router, router
from service.lifecycle.in_flight import InFlight
from service.lifecycle.loading import ArtifactLoader, ModelLoader
from service.lifecycle.service import Service
from service.process.metrics import Metrics
from service.process.spans import Spans
from service.settings import Settings

# The service tells of requests in metrics and spans of its own. FastAPI 0.165 would look at each for somebody else to
# tell, which is up to a tenth of what a refusal costs.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False}


def create_app(
    settings: Settings,
    loader: ModelLoader | None = None,
    spans: Spans | None = None,
    replicas: Replicas | None = None,
) -> FastAPI:
    """Wire the service together. The model loads in the background once the app starts.

    Args:
        settings: everything that can be set.
        loader: where models come from; by default the artifact that the settings name.
        spans: sends a span for each request, if that is wanted.
        replicas: the processes that serve together with this one; by default there is no other.

    Raises:
        SettingsError: API keys cannot be read or used.
    """
    metrics = Metrics()
    service = Service(settings, metrics, loader or ArtifactLoader(settings))
    access = open_access(settings)
    fetcher = picture_fetcher(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()
            access.close()
            if fetcher is not None:
                await fetcher.close()

    app = FastAPI(
        title="DETR",
        summary="Object detection and panoptic segmentation",
        version=_version(),
        openapi_url=OPENAPI if settings.docs else None,
        docs_url=None,  # it would load its scripts from another site
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=_NO_TELEMETRY,
        middleware=_middleware(settings, service, access, spans),
        exception_handlers=_exception_handlers(settings.retry_after_s),
    )
    app.state.service = service
    app.state.access = access
    app.state.replicas = replicas or OnlyReplica(service)
    app.state.picture_fetcher = fetcher
    _include_routers(app, settings)
    # Made now and kept, so that the first who asks does not hold up the event loop.
    describe_access(app.openapi(), access)
    describe_formats(app.openapi(), settings.formats)
    return app


def _include_routers(app: FastAPI, settings: Settings) -> None:
    app.include_router(images_router)
    app.include_router(router)
    app.include_router(protocol_router)
    if settings.label_studio_url is not None:
        app.include_router(label_studio_router)
    if settings.docs:
        app.include_router(pages_router)
    if not settings.metrics_port:
        app.include_router(metrics_router)


def create_metrics_app(app: FastAPI) -> FastAPI:
    """The app of the port for metrics: `/metrics` of the given app and nothing else, open to whoever reaches it."""
    service: Service = app.state.service
    settings = service.settings
    metrics_app = FastAPI(
        openapi_url=None,
        telemetry=_NO_TELEMETRY,
        redirect_slashes=False,
        middleware=_middleware(settings.model_copy(update={"cors_origins": ()}), service, Access(None, None)),
        exception_handlers=_exception_handlers(settings.retry_after_s),
    )
    metrics_app.state.service = service
    metrics_app.state.replicas = app.state.replicas
    metrics_app.include_router(metrics_router)
    return metrics_app


def _middleware(settings: Settings, service: Service, access: Access, spans: Spans | None = None) -> list[Middleware]:
    """From outside in. Cross-origin headers come outside of whatever can refuse, so that refusals have them."""
    retry_after_s = settings.retry_after_s
    requests: InFlight[object] = InFlight(within=service.requests)  # of this port
    layers = [Middleware(RequestObserver, metrics=service.metrics, requests=requests, spans=spans)]
    if settings.cors_origins:
        layers.append(Middleware(CrossOrigin, origins=settings.cors_origins, retry_after_s=retry_after_s))
    gate = Middleware(
        Gate,
        access=access,
        requests=requests,
        check_room=partial(check_room, service),
        max_header_bytes=settings.max_header_bytes,
        max_requests=settings.max_requests,
        retry_after_s=retry_after_s,
    )
    return [*layers, gate, Middleware(HeadAsGet)]


def _exception_handlers(retry_after_s: int) -> dict[Any, Any]:
    async def answer_error(request: Request, error: Exception) -> Response:
        return error_response(request, error, retry_after_s)

    # Exception itself has no handler here: what nobody foresaw is answered and logged by the gate.
    foreseen = [HTTPException, RequestValidationError, *(kind for kind in TABLE if kind is not Exception)]
    return dict.fromkeys(foreseen, answer_error)


def _version() -> str:
    try:
        return version("detr-serve")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
