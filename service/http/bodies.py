"""Reading a request's body into memory, within bounds of size and time."""

from __future__ import annotations

from contextlib import aclosing

from starlette.requests import Request

from service.errors import EmptyUploadError, MediaTypeError, UploadTooLargeError
from service.lifecycle.uploads import Upload
from service.process.trace import trace_of
from service.settings import Settings


def check_headers(request: Request, max_body_bytes: int) -> str:
    """Refuse what the headers alone give away, and return the content type.

    Raises:
        MediaTypeError: neither a multipart form nor an image, or compressed in transit.
        UploadTooLargeError: the announced length is more than is accepted.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith("image/"):
        raise MediaTypeError(
            "the body has to be multipart/form-data with a field `image`, or an image itself (image/*)"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaTypeError("a compressed body is not accepted")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_body_bytes:
        raise _too_large(max_body_bytes)
    return content_type


async def receive(request: Request, upload: Upload, settings: Settings) -> None:
    """Read the whole body into `upload`; a body without an announced length is cut off where it passes the
    bound.

    Raises:
        UploadTooLargeError, UploadTimeoutError, UploadMemoryError, EmptyUploadError: what they say.
        DrainingError: the service ends before the upload does.
        ClientDisconnect: the client closed the connection.
    """
    trace = trace_of(request.scope)
    async with upload.deadline(settings.body_timeout_ms / 1000), aclosing(request.stream()) as stream:
        async for chunk in stream:
            trace.received_bytes += len(chunk)
            if trace.received_bytes > settings.max_body_bytes:
                raise _too_large(settings.max_body_bytes)
            upload.append(chunk)
    if not upload.body:
        raise EmptyUploadError("the body is empty")


def _too_large(max_body_bytes: int) -> UploadTooLargeError:
    return UploadTooLargeError(f"the upload has more than {max_body_bytes} bytes")
