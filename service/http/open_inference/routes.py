"""The paths of the Open Inference Protocol: which is answered by what."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from model.runtime.artifact.metadata import Metadata
from service.errors import InferRequestError, MediaTypeError, ParameterError
from service.http import paths
from service.http.exchange import exchange
from service.http.open_inference.infer_task import JSON_LENGTH_HEADER, InferTask
from service.http.open_inference.served_models import EXTENSIONS, ServedModel, served_model, served_models
from service.http.routes import refuse_repeated_parameters, service_of
from service.images.task import Task

_NAME = "detr-serve"
# Triton's client names none.
_MEDIA_TYPES = ("application/json", "application/octet-stream", "")


async def refuse_parameters(request: Request) -> None:
    """Raise ParameterError for a query, of which nothing here knows any."""
    if request.query_params:
        raise ParameterError("there are no query parameters here; what a request wants goes into its JSON")


protocol_router = APIRouter(
    dependencies=[Depends(refuse_repeated_parameters), Depends(refuse_parameters)],
    include_in_schema=False,  # the protocol is described by itself
)


def asked_model(request: Request) -> ServedModel:
    """The model that the path names.

    Raises:
        UnknownModelError: there is none.
        UnavailableError: no model is loaded yet, or any more.
    """
    metadata = service_of(request).admission.pipeline().metadata
    return served_model(metadata, request.path_params["name"], request.path_params.get("version"))


AskedModel = Annotated[ServedModel, Depends(asked_model)]


@protocol_router.get(paths.SERVER_V2)
async def server(request: Request) -> dict[str, Any]:
    """What the server is, and what it does beyond the protocol's core."""
    return {"name": _NAME, "version": request.app.version, "extensions": EXTENSIONS}


@protocol_router.get(paths.LIVE_V2)
async def protocol_live() -> dict[str, bool]:
    """Whether the process answers at all, in the body as well, which clients read."""
    return {"live": True}


@protocol_router.get(paths.READY_V2)
async def protocol_ready(request: Request) -> dict[str, bool]:
    """Whether requests can be answered now; else 503."""
    service_of(request).admission.check_ready()
    return {"ready": True}


@protocol_router.post(paths.INDEX_V2)
async def index(request: Request) -> list[dict[str, Any]]:
    """The models. What is there is ready, so what a body could ask for makes no difference."""
    return [model.index_entry() for model in served_models(service_of(request).admission.pipeline().metadata)]


@protocol_router.get(paths.MODEL_V2)
@protocol_router.get(paths.VERSION_V2)
async def model_metadata(model: AskedModel) -> dict[str, Any]:
    """The tensors that a model takes and gives."""
    return model.metadata()


@protocol_router.get(paths.MODEL_READY_V2)
@protocol_router.get(paths.VERSION_READY_V2)
async def model_ready(request: Request, model: AskedModel) -> dict[str, Any]:
    """Whether a model can answer now; else 503."""
    service_of(request).admission.check_ready()
    return {"name": model.name, "ready": True}


@protocol_router.get(paths.MODEL_CONFIG_V2)
@protocol_router.get(paths.VERSION_CONFIG_V2)
async def model_config(model: AskedModel) -> dict[str, Any]:
    """The same tensors in the words of Triton's configuration, which its clients ask for."""
    return model.config()


@protocol_router.post(paths.INFER_V2)
@protocol_router.post(paths.VERSION_INFER_V2)
async def infer(request: Request) -> Response:
    """The answer for one image, in tensors."""
    name, version = request.path_params["name"], request.path_params.get("version")
    json_bytes = announced_json_bytes(request)

    def task(metadata: Metadata) -> Task:
        return InferTask(metadata, name, version, json_bytes)

    return await exchange(request, service_of(request), task, check_is_tensors)


def check_is_tensors(kind: str) -> None:
    """Raise MediaTypeError unless a content type is the protocol's."""
    if kind not in _MEDIA_TYPES:
        raise MediaTypeError("the content type has to be application/json or application/octet-stream")


def announced_json_bytes(request: Request) -> int | None:
    """How many bytes of the body are JSON, by its header; None where it does not come with binary data.

    Raises:
        InferRequestError: the header cannot be read, or comes twice.
    """
    values = request.headers.getlist(JSON_LENGTH_HEADER)
    if not values:
        return None
    if len(values) > 1 or not re.fullmatch("[0-9]{1,12}", values[0]):
        raise InferRequestError(f"{JSON_LENGTH_HEADER} has to be one number of bytes")
    return int(values[0])
