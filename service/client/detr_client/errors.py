"""What can go wrong, as exceptions; each message is one line that says what was wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class DetrError(Exception):
    """Base of everything that this package raises of its own."""


class SourceError(DetrError, ValueError):
    """What was given is no picture, such as an array of floats; nothing was sent."""


class NoServerError(DetrError, ConnectionError):
    """The server cannot be reached, or the connection to it broke, each time it was tried."""


class TooLateError(DetrError, TimeoutError):
    """There is no answer within `deadline_s`, tries and the waits between them included."""


class ClientClosedError(DetrError):
    """The client was closed while this was under way."""


class StrangeAnswerError(DetrError):
    """What answered is no detr-serve, or one whose answers this package does not understand."""


class ModelLoadError(DetrError):
    """The model cannot be run in this process."""


class RefusedError(DetrError):
    """The server refused a picture, or failed at it, and said why.

    Attributes:
        status: HTTP status of the answer.
        code: the server's word for it, for programs, such as "not_an_image".
        message: the server's sentence, for people.
        request_id: what the server's log has it under; None in process.
    """

    def __init__(self, status: int, code: str, message: str, request_id: str | None = None) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.code, self.message, self.request_id)


class BadPictureError(RefusedError):
    """The picture cannot be used: it is none, is broken, too large or of a format that is not accepted (400, 413,
    415).
    """


class BadKeyError(RefusedError):
    """The API key is missing, unknown, or not enough (401, 403)."""


class BadRequestError(RefusedError):
    """The server does not take a parameter, such as a class that the model does not know (other 4xx)."""


class BusyError(RefusedError):
    """The server has no room now, or is not ready, and was asked as often as allowed (429, 502, 503)."""


class FailedError(RefusedError):
    """The server failed, or took too long (other 5xx)."""


class IncompleteError(DetrError):
    """Some of several pictures have no answer; the answers of the others are here.

    What concerns one picture alone does not keep the others from their answers. What concerns all of them, such as a
    server that is gone or a wrong key, ends the work early, and is the exception's `__cause__`.

    Attributes:
        answers: one for each source, in order; None where there is none.
        errors: by the position of its source, why there is no answer. Sources that were not tried are not in it.
    """

    def __init__(self, message: str, answers: Sequence[Any], errors: Mapping[int, Exception]) -> None:
        super().__init__(message)
        self.answers = list(answers)
        self.errors = dict(errors)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.answers, self.errors)


def concerns_one_picture(error: Exception) -> bool:
    """Whether an error says nothing of other pictures; True for a file that cannot be read as well."""
    if isinstance(error, DetrError):
        return isinstance(error, SourceError | BadPictureError | FailedError)
    return isinstance(error, OSError)


def refused_error(status: int, code: str, message: str, request_id: str | None = None) -> RefusedError:
    """The exception that stands for an answer which is no success."""
    kinds = {400: BadPictureError, 413: BadPictureError, 415: BadPictureError, 401: BadKeyError, 403: BadKeyError}
    if status in (429, 502, 503):
        kind: type[RefusedError] = BusyError
    else:
        kind = kinds.get(status, BadRequestError if status < 500 else FailedError)
    return kind(status, code, message, request_id)
