"""The one table that says how each exception is answered, and the one shape of every such answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from model.runtime.answers.detections import OutputError
from model.runtime.decode import (
    BrokenImageError,
    ImageFormatError,
    ImageTooComplexError,
    ImageTooLargeError,
    NotAnImageError,
)
from service.errors import (
    BrokenJsonError,
    BrokenMultipartError,
    CrowdedError,
    DeadlineError,
    DecodersStalledError,
    DeviceFullError,
    DrainingError,
    EmptyUploadError,
    EngineError,
    EngineRestartError,
    FieldError,
    ForbiddenError,
    HeadersTooLargeError,
    InferRequestError,
    LabellingError,
    MalformedRequestError,
    MediaTypeError,
    ModelRefusedError,
    NoAttentionError,
    NoMasksError,
    OriginError,
    OutlinesTooLongError,
    ParameterError,
    PictureFetchError,
    QueueFullError,
    ReloadingError,
    ServiceError,
    StalledError,
    StartingError,
    TooManyImagesError,
    UnauthorizedError,
    UnknownModelError,
    UploadMemoryError,
    UploadTimeoutError,
    UploadTooLargeError,
)
from service.http.paths import is_protocol
from service.process.trace import trace_of
from service.schemas import Body, ErrorBody, ErrorResponse, ProtocolError

# What may be told back to whoever sent it: short, and without a meaning to any terminal, page or log.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]-]{0,39}")


@dataclass(frozen=True)
class ErrorRow:
    """How one kind of exception is answered; without a message its own is told, which is then for clients."""

    status: int
    code: str
    message: str | None = None


# A class stands for its subclasses, unless they have a row of their own.
TABLE: Mapping[type[Exception], ErrorRow] = {
    EmptyUploadError: ErrorRow(400, "empty_upload"),
    BrokenMultipartError: ErrorRow(400, "broken_multipart"),
    BrokenJsonError: ErrorRow(400, "broken_json"),
    NotAnImageError: ErrorRow(400, "not_an_image"),
    BrokenImageError: ErrorRow(400, "broken_image"),
    MalformedRequestError: ErrorRow(400, "bad_request"),
    InferRequestError: ErrorRow(400, "bad_infer_request"),
    UnauthorizedError: ErrorRow(401, "unauthorized"),
    ForbiddenError: ErrorRow(403, "forbidden"),
    OriginError: ErrorRow(403, "origin_not_allowed"),
    UnknownModelError: ErrorRow(404, "unknown_model"),
    UploadTimeoutError: ErrorRow(408, "upload_timeout"),
    UploadTooLargeError: ErrorRow(413, "upload_too_large"),
    TooManyImagesError: ErrorRow(413, "too_many_images"),
    ImageTooLargeError: ErrorRow(413, "image_too_large"),
    ImageTooComplexError: ErrorRow(413, "image_too_complex"),
    # Not 422, for it says nothing of other pictures: clients go on with those.
    OutlinesTooLongError: ErrorRow(413, "outlines_too_long"),
    MediaTypeError: ErrorRow(415, "media_type_not_accepted"),
    ImageFormatError: ErrorRow(415, "image_format_not_accepted"),
    ReloadingError: ErrorRow(409, "reload_running"),
    ParameterError: ErrorRow(422, "bad_parameter"),
    RequestValidationError: ErrorRow(422, "bad_parameter"),
    FieldError: ErrorRow(422, "bad_field"),
    NoMasksError: ErrorRow(422, "model_has_no_masks"),
    NoAttentionError: ErrorRow(422, "model_has_no_attention"),
    ModelRefusedError: ErrorRow(422, "model_refused"),
    LabellingError: ErrorRow(422, "nothing_to_label"),
    PictureFetchError: ErrorRow(422, "picture_not_fetched"),
    HeadersTooLargeError: ErrorRow(431, "headers_too_large"),
    # Nobody reads this answer; the log and the metrics do.
    ClientDisconnect: ErrorRow(499, "client_gone", "the client closed the connection"),
    EngineError: ErrorRow(500, "engine_error"),
    OutputError: ErrorRow(500, "engine_error", "the model answered with numbers that are not finite"),
    StartingError: ErrorRow(503, "starting"),
    DrainingError: ErrorRow(503, "draining"),
    StalledError: ErrorRow(503, "engine_stalled"),
    DecodersStalledError: ErrorRow(503, "decoders_stalled"),
    EngineRestartError: ErrorRow(503, "engine_restarting"),
    DeviceFullError: ErrorRow(503, "device_memory_full"),
    MemoryError: ErrorRow(503, "memory_full", "there is no memory for this request at present, please try again later"),
    QueueFullError: ErrorRow(503, "queue_full"),
    CrowdedError: ErrorRow(503, "too_many_connections"),
    UploadMemoryError: ErrorRow(503, "uploads_full"),
    DeadlineError: ErrorRow(504, "deadline_passed"),
    Exception: ErrorRow(500, "internal_error", "the service failed; its log says why"),
}


def row_of(error: Exception) -> ErrorRow:
    """The table's row for an exception, the framework's own included."""
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        return ErrorRow(error.status_code, phrase.lower().replace(" ", "_"), phrase.lower())
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def message_of(error: Exception, row: ErrorRow) -> str:
    """What the client is told: our own words, or pydantic's about a parameter's bounds; never the input, but for the
    name of a parameter that there is not, if it is a plain word.
    """
    if isinstance(error, RequestValidationError):
        problem = error.errors()[0]
        if problem["type"] == "extra_forbidden":
            name = str(problem["loc"][-1])
            return f"unknown query parameter: {name}" if _WORD.fullmatch(name) else "unknown query parameter"
        said = "Input should be true or false" if problem["type"] == "bool_parsing" else problem["msg"]
        return f"{problem['loc'][-1]}: {said}"
    return row.message or str(error)


def error_body(error: Exception, request_id: str) -> ErrorResponse:
    """The one shape of an error."""
    row = row_of(error)
    return ErrorResponse(error=ErrorBody(code=row.code, message=message_of(error, row), request_id=request_id))


def error_response(request: Request, error: Exception, retry_after_s: int) -> Response:
    """The one shape every failure is answered in, or under /v2 the Open Inference Protocol's, noted in the request's
    trace.
    """
    row = row_of(error)
    trace = trace_of(request.scope)
    trace.error_code = row.code
    body: Body = error_body(error, trace.request_id)
    if is_protocol(request.scope["path"]):
        body = ProtocolError(error=message_of(error, row))
    headers = dict(error.headers or {}) if isinstance(error, HTTPException | ServiceError) else {}
    if row.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(retry_after_s)
    return Response(body.model_dump_json(), row.status, headers, "application/json")
