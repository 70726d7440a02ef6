"""Ask a detr-serve from Python, or run its models in this process: pictures in, arrays of boxes and masks out.

from detr_client import Client

answer = Client("http://localhost:8000").detect("picture.jpg")
print(answer.labels, answer.boxes_xyxy)
"""

from detr_client.answers import Answer, DetectAnswer, Found, SegmentAnswer
from detr_client.async_client import AsyncClient
from detr_client.client import Client
from detr_client.errors import (
    BadKeyError,
    BadPictureError,
    BadRequestError,
    BusyError,
    ClientClosedError,
    DetrError,
    FailedError,
    IncompleteError,
    ModelLoadError,
    NoServerError,
    RefusedError,
    SourceError,
    StrangeAnswerError,
    TooLateError,
)
from detr_client.explanations import ExplainAnswer
from detr_client.local import LocalModel, load
from detr_client.sources import Source

__all__ = [
    "Answer",
    "AsyncClient",
    "BadKeyError",
    "BadPictureError",
    "BadRequestError",
    "BusyError",
    "Client",
    "ClientClosedError",
    "DetectAnswer",
    "DetrError",
    "ExplainAnswer",
    "FailedError",
    "Found",
    "IncompleteError",
    "LocalModel",
    "ModelLoadError",
    "NoServerError",
    "RefusedError",
    "SegmentAnswer",
    "Source",
    "SourceError",
    "StrangeAnswerError",
    "TooLateError",
    "load",
]
