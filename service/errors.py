"""Every way a request can fail that the service finds itself; `service/http/error_answers.py` says how it answers each.

Messages are written where the exceptions are raised, never taken from a library: a decoder's own message can hold a
memory address or a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class ServiceError(Exception):
    """A failure whose message is meant for the client."""

    headers: Mapping[str, str] = MappingProxyType({})  # of its answer, beyond those that every answer has


class EmptyUploadError(ServiceError):
    """The body, or the field `image`, has no bytes."""


class BrokenMultipartError(ServiceError):
    """The body is not the multipart form that its header says it is."""


class MalformedRequestError(ServiceError):
    """The request is not valid HTTP."""


class UnauthorizedError(ServiceError):
    """A key is needed, and there was none that is valid."""

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(message)
        self.headers = {"WWW-Authenticate": challenge}


class ForbiddenError(ServiceError):
    """The key does not open this."""


class OriginError(ServiceError):
    """A page of another site asked for what its site may not do here."""


class UploadTimeoutError(ServiceError):
    """The upload did not arrive in time."""


class UploadTooLargeError(ServiceError):
    """The body has more bytes than are accepted."""


class HeadersTooLargeError(ServiceError):
    """The request's headers have more bytes than are accepted."""


class MediaTypeError(ServiceError):
    """The header says the body is something that is not accepted."""


class ParameterError(ServiceError):
    """A query parameter cannot be used."""


class OutlinesTooLongError(ServiceError):
    """The segments of this picture have more corners than one answer holds."""


class FieldError(ServiceError):
    """The multipart form has no field `image`, or others."""


class BrokenJsonError(ServiceError):
    """The body is not JSON, or not JSON of a shape that is accepted."""


class TooManyImagesError(ServiceError):
    """One request has more images than are accepted."""


class InferRequestError(ServiceError):
    """The body is not the inference request that the Open Inference Protocol describes, of one image."""


class LabellingError(ServiceError):
    """A project of Label Studio asks for nothing that the model can label."""


class PictureFetchError(ServiceError):
    """A picture that is to be fetched is not to be had."""


class UnknownModelError(ServiceError):
    """There is no model of that name, or no such version of it."""


class NoMasksError(ServiceError):
    """Masks were asked of a model that has none."""


class NoAttentionError(ServiceError):
    """An explanation was asked of a model whose file does not give its attention."""


class EngineError(ServiceError):
    """The engine raised."""


class ModelRefusedError(ServiceError):
    """A reload was asked for, and the model's file or its device cannot be used."""


class ReloadingError(ServiceError):
    """A reload was asked for while another one runs."""


class UnavailableError(ServiceError):
    """The service cannot take the request now; the same request can succeed later."""


class StartingError(UnavailableError):
    """The model is still loading."""


class DrainingError(UnavailableError):
    """The service is shutting down."""


class StalledError(UnavailableError):
    """The engine has been in one batch for too long."""


class DecodersStalledError(UnavailableError):
    """Every thread that decodes images has been at one of them for too long."""


class EngineRestartError(UnavailableError):
    """The engine is being opened again, or waits for its process to be replaced."""


class DeviceFullError(UnavailableError):
    """There is no memory for one image alone."""


class QueueFullError(UnavailableError):
    """As many uploads are in flight as are admitted."""


class CrowdedError(UnavailableError):
    """As many requests are in flight as the connections allow."""


class UploadMemoryError(UnavailableError):
    """The uploads and answers in memory take as much as they may."""


class DeadlineError(ServiceError):
    """The answer would come too late."""
