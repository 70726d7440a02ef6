"""One upload and its answer: received within bounds, answered while its client is there, counted until it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model.runtime.artifact.metadata import Metadata
from service.errors import EmptyUploadError, MediaTypeError, QueueFullError, UploadTooLargeError
from service.http.paths import is_protocol
from service.http.results import content_of_each, errors_among
from service.images.bodies import can_hold_image, media_type_of
from service.images.task import Content, Task
from service.lifecycle.service import Service
from service.lifecycle.uploads import Upload, UploadMemory
from service.process.trace import trace_of
from service.settings import Settings

T = TypeVar("T")


def check_is_image(kind: str) -> None:
    """Raise MediaTypeError unless a content type is that of a body which can hold an image."""
    if not can_hold_image(kind):
        raise MediaTypeError(
            "the body has to be multipart/form-data with a field `image`, application/json with the image in base64, "
            "or the image itself (image/*, application/octet-stream)"
        )


def check_room(service: Service, scope: Scope) -> None:
    """Refuse an upload while the queue is full; what is wrong with its headers is told first, for no waiting mends it.

    Its parameters are not looked at: that would cost more than all the rest of the refusal.

    Raises:
        MediaTypeError, UploadTooLargeError: see `check_headers`.
        QueueFullError: there is no room.
    """
    try:
        service.admission.check_room(1)
    except QueueFullError:
        if not is_protocol(scope["path"]):  # whose bodies are of other types
            check_headers(Request(scope), service.settings.max_body_bytes)
        raise


async def exchange(
    request: Request,
    service: Service,
    make_task: Callable[[Metadata], Task],
    check_kind: Callable[[str], None] = check_is_image,
) -> Response:
    """Refuse what can be refused before the body is read, receive it, and answer it while the client is there.

    Args:
        request: whose body is the upload.
        service: that answers it.
        make_task: what a model is to do with it.
        check_kind: raises MediaTypeError of content types that this route does not take.

    Raises:
        ServiceError, ImageError, OutputError, ClientDisconnect: see each step.
    """
    content_type = check_headers(request, service.settings.max_body_bytes, check_kind)
    service.admission.admit(make_task)
    with service.upload_memory.upload(content_type) as upload:
        await receive(request, upload, service.settings)
        content = await while_connected(request, service.answer(upload, make_task, trace_of(request.scope)))
    if isinstance(content, list):
        trace = trace_of(request.scope)
        trace.image_errors = [(row.status, row.code) for row in errors_among(content)]
        content = content_of_each(content, trace.request_id)
    return CountedResponse(content, service.upload_memory)


def check_headers(request: Request, max_body_bytes: int, check_kind: Callable[[str], None] = check_is_image) -> str:
    """Refuse what the headers alone give away, and return the content type.

    Raises:
        MediaTypeError: of a kind that is not taken, or compressed in transit.
        UploadTooLargeError: the announced length is more than is accepted.
    """
    content_type = request.headers.get("content-type", "")
    check_kind(media_type_of(content_type))
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
            await upload.append(chunk)
    if not len(upload):
        raise EmptyUploadError("the body is empty")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` for as long as the client keeps its connection; the request's body has to be read by then.

    Raises:
        ClientDisconnect: the client has gone, and the work was cancelled.
        Exception: whatever the work raises.
    """
    loop = asyncio.get_running_loop()
    is_over = False

    def leave(watched: asyncio.Task[None]) -> None:
        if not is_over and not watched.cancelled():
            watched.exception()  # what it failed with does not matter: nobody can be answered
            presence.reschedule(loop.time())

    watching = loop.create_task(_disconnected(request))
    watching.add_done_callback(leave)
    try:
        async with asyncio.timeout(None) as presence:
            return await work
    except TimeoutError:
        if presence.expired():
            raise ClientDisconnect from None
        raise
    finally:
        is_over = True
        watching.cancel()


class CountedResponse(Response):
    """An answer whose bytes count as memory until they are sent, however slowly its client reads.

    It takes its part of the memory that uploads and answers share, and gives it back when it has gone out. Sending
    raises UploadMemoryError if there is not enough.
    """

    def __init__(self, content: Content, memory: UploadMemory) -> None:
        super().__init__(content.body, headers=content.headers, media_type=content.media_type)
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        size = len(self.body)
        self._memory.take(size)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._memory.give_back(size)


def _too_large(max_body_bytes: int) -> UploadTooLargeError:
    return UploadTooLargeError(f"the upload has more than {max_body_bytes} bytes")


async def _disconnected(request: Request) -> None:
    # After the body the server has only one thing left to say.
    while (await request.receive())["type"] != "http.disconnect":
        pass
