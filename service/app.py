"""The ASGI application. Everything is wired together here, and nothing is decided."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from model.runtime.engine import Engine
from service.errors import TABLE, error_response
from service.lifecycle import Service
from service.metrics import Metrics
from service.middleware import HeaderLimit, RequestObserver
from service.routes import router
from service.settings import Settings


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Wire the service together. The model loads in the background once the app starts.

    Args:
        settings: everything that can be set.
        engine: runs the model instead of one opened from the artifact, whose metadata still count.
    """
    metrics = Metrics()
    service = Service(settings, metrics, engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    async def answer_error(request: Request, error: Exception) -> Response:
        return error_response(request, error, settings.retry_after_s)

    # Exception itself has no handler here: what nobody foresaw is answered and logged by the middleware.
    foreseen = [HTTPException, RequestValidationError, *(kind for kind in TABLE if kind is not Exception)]
    app = FastAPI(
        title="DETR",
        summary="Object detection and panoptic segmentation",
        version=_version(),
        docs_url=None,  # it would load its scripts from another site
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestObserver, metrics=metrics, retry_after_s=settings.retry_after_s),
            Middleware(HeaderLimit, max_bytes=settings.max_header_bytes, retry_after_s=settings.retry_after_s),
        ],
        exception_handlers=dict.fromkeys(foreseen, answer_error),
    )
    app.state.service = service
    app.include_router(router)
    app.openapi()  # made now and kept, so that the first who asks does not hold up the event loop
    return app


def _version() -> str:
    try:
        return version("detr-serve")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
