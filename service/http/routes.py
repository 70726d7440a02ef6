"""The HTTP contract: which path is answered by what. There is no logic here and no error handling."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Annotated, Any, get_type_hints

from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from service.errors import ParameterError
from service.http import paths
from service.http.access import require_admin
from service.http.answer_examples import DETECT_EXAMPLES, EXPLAIN_EXAMPLES, SEGMENT_EXAMPLES
from service.http.asked import detect_task, explain_task, segment_task
from service.http.exchange import exchange
from service.http.openapi import ADMIN_KEY, answers, errors, image_body
from service.http.replicas import Replicas
from service.http.results import DetectResults, ExplainResults, SegmentResults
from service.images.coco import DetectionEntries, InstanceEntries, PanopticResultEntry
from service.images.explanations import ExplainResponse
from service.images.pictures import PICTURE_TYPES
from service.lifecycle.service import Service
from service.schemas import (
    DetectParameters,
    DetectResponse,
    ExplainParameters,
    HealthResponse,
    InstanceResponse,
    ModelResponse,
    SegmentParameters,
    SegmentResponse,
)


def _page_headers(code: str) -> dict[str, str]:
    """The pages load nothing from anywhere else, and the browser is told to hold them to that; their scripts and styles
    come from `code`.
    """
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src {code}; style-src {code}; img-src data: blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    }


async def refuse_repeated_parameters(request: Request) -> None:
    """Raise ParameterError for `?a=1&a=2`, where any choice between the two would be a guess."""
    if len(request.query_params.multi_items()) > len(request.query_params):
        raise ParameterError("a query parameter is repeated")


class ImageRoute(APIRoute):
    """A route whose `parameters` are all in its query.

    A request without a query has their defaults, which need no validation: that is a fifth of what the event loop does
    for an image.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        validating, endpoint = super().get_route_handler(), self.endpoint
        defaults = get_type_hints(endpoint)["parameters"]()

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                return await validating(request)
            response: Response = await endpoint(request, defaults)
            return response

        return handle


# Several, because metrics can have a port of their own, and pages can be switched off.
router, metrics_router, pages_router = (APIRouter(dependencies=[Depends(refuse_repeated_parameters)]) for _ in range(3))
images_router = APIRouter(route_class=ImageRoute, dependencies=[Depends(refuse_repeated_parameters)])


def service_of(request: Request) -> Service:
    """The service that this app was made with."""
    service: Service = request.app.state.service
    return service


def replicas_of(request: Request) -> Replicas:
    """The processes that serve together, this one among them."""
    replicas: Replicas = request.app.state.replicas
    return replicas


@images_router.post(
    paths.DETECT,
    summary="Find objects",
    response_model=DetectResponse | DetectResults | DetectionEntries,
    responses=answers("what was found, in the form that was asked for", DETECT_EXAMPLES, *PICTURE_TYPES)
    | errors(408, 413, 415, 503, 504),
    openapi_extra=image_body(),
)
async def detect(request: Request, parameters: Annotated[DetectParameters, Query()]) -> Response:
    """Boxes of the objects in an image, or in each of several, in pixels of the image as displayed, or drawn."""
    task = detect_task(parameters, request.headers.get("accept", ""))
    return await exchange(request, service_of(request), task)


@images_router.post(
    paths.SEGMENT,
    summary="Segment the whole picture",
    response_model=SegmentResponse | SegmentResults | InstanceResponse | PanopticResultEntry | InstanceEntries,
    responses=answers("the segments, in the form that was asked for", SEGMENT_EXAMPLES, *PICTURE_TYPES)
    | errors(408, 413, 415, 503, 504),
    openapi_extra=image_body(),
)
async def segment(request: Request, parameters: Annotated[SegmentParameters, Query()]) -> Response:
    """Segments of an image: JSON, entries for COCO, the COCO id PNG (`Accept: image/png`), or painted over it."""
    task = segment_task(parameters, request.headers.get("accept", ""))
    return await exchange(request, service_of(request), task)


@images_router.post(
    paths.EXPLAIN,
    summary="See where the network looked",
    response_model=ExplainResponse | ExplainResults,
    responses=answers("what was looked at, of each object and point", EXPLAIN_EXAMPLES, *PICTURE_TYPES)
    | errors(408, 413, 415, 503, 504),
    openapi_extra=image_body(),
)
async def explain(request: Request, parameters: Annotated[ExplainParameters, Query()]) -> Response:
    """Maps over an image of what the query of each object, and each asked point, attended to, or painted over it."""
    task = explain_task(parameters, request.headers.get("accept", ""))
    return await exchange(request, service_of(request), task)


@router.get(paths.MODEL, summary="Describe the model", response_model=ModelResponse, responses=errors(503))
async def model(request: Request) -> Response:
    """The metadata of the artifact that is served, and the device it runs on."""
    return Response(service_of(request).admission.pipeline().description, media_type="application/json")


@router.post(
    paths.RELOAD,
    summary="Load the model's file again",
    response_model=ModelResponse,
    responses=errors(401, 403, 409, 503),
    dependencies=[Depends(require_admin)],
    openapi_extra=ADMIN_KEY,
)
async def reload(request: Request) -> Response:
    """Load and prove the artifact anew; it then takes over, and what has begun ends with the old one. For admins."""
    await replicas_of(request).reload()
    return await model(request)


@router.get(paths.LIVE, summary="Is the process alive?", responses=errors())
async def live() -> HealthResponse:
    """200 for as long as the process answers at all."""
    return HealthResponse(status="live")


@router.get(paths.READY, summary="Can it take requests?", responses=errors(503))
async def ready(request: Request) -> HealthResponse:
    """200 once the model has proved itself on its device; 503 before, while draining, and when stalled."""
    service_of(request).admission.check_ready()
    return HealthResponse(status="ready")


@metrics_router.get(paths.METRICS, summary="Prometheus metrics", response_class=Response, responses=errors(503))
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus's text format."""
    return Response(await replicas_of(request).metrics_text(), media_type=CONTENT_TYPE_LATEST)


@pages_router.get(paths.PAGE, include_in_schema=False)
async def page() -> Response:
    """The web page."""
    return HTMLResponse(_PAGE, headers=_page_headers("'self'"))


async def static(request: Request) -> Response:
    """What belongs to the web page: its style sheet, a script, or a picture to try the model on."""
    content, media_type = _FILES[request.scope["path"]]
    return Response(content, media_type=media_type)


for _path in paths.STATIC:
    pages_router.add_api_route(_path, static, methods=["GET"], include_in_schema=False)


@pages_router.get(paths.DOCS, include_in_schema=False)
async def docs() -> Response:
    """The OpenAPI description for people."""
    return HTMLResponse(_DOCS, headers=_page_headers("'unsafe-inline'"))


_STATIC = files("service.http").joinpath("static")
_PAGE = _STATIC.joinpath("index.html").read_text(encoding="utf-8")
_DOCS = _STATIC.joinpath("docs.html").read_text(encoding="utf-8")
_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "jpg": "image/jpeg"}
_FILES = {
    path: (_STATIC.joinpath(path.rpartition("/")[2]).read_bytes(), _MEDIA_TYPES[path.rpartition(".")[2]])
    for path in paths.STATIC
}
