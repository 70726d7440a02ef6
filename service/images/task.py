"""What one request wants of its image, and what becomes of it by the form of its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from model.runtime.allocations import turn_into_memory_errors
from model.runtime.answers.canvas import Canvas
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.raw_outputs import ImageOutputs
from service.images.pictures import FoundInImage, PictureFormat, draw_found, encode_picture
from service.process.trace import Trace


@dataclass(frozen=True)
class Prepared:
    """An image on its way through the network."""

    orig_size: tuple[int, int]  # (height, width) in pixels, as displayed
    resized: NDArray[np.uint8]  # [h, w, 3], RGB, as the network takes it
    # Decodes the whole image, RGB [height, width, 3], once more; only where the answer is drawn on it. Kept, it would
    # take up to 150 MB while it waits for the engine.
    decode_again: Callable[[], NDArray[np.uint8]] | None


@dataclass(frozen=True)
class Content:
    """A finished answer."""

    body: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Task(Protocol):
    """What one request wants of its image."""

    def image_in(self, body: bytes | bytearray, content_type: str) -> bytes | bytearray:
        """The bytes of the image in a request's body, of which the task may learn what is wanted.

        Raises:
            ServiceError: there is none, or what is wanted cannot be done.
        """

    @property
    def draws(self) -> bool:
        """Whether the answer is drawn on the image, which is then decoded again."""

    @property
    def is_json(self) -> bool:
        """Whether the answer is JSON, so that several can stand in one answer."""

    @property
    def mask_threshold(self) -> float:
        """What the graph is told, once the image is there; see its input of that name."""

    @property
    def attention(self) -> bool:
        """Whether the outputs have to have the network's attention."""

    def answer(self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace) -> Content:
        """Make the answer. Raises OutputError if the outputs are not finite."""


class FormedTask(ABC):
    """What becomes of a task by the form of its answer, see Task."""

    form: str
    picture: PictureFormat
    attention = False

    @property
    def draws(self) -> bool:
        """See Task."""
        return self.form == "overlay"

    @property
    def is_json(self) -> bool:
        """See Task."""
        return self.form not in ("overlay", "png")

    def answer(self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace) -> Content:
        """See Task. Raises what `find` and the second that it returns do."""
        found, tell = self.find(metadata, prepared, outputs, trace)
        if self.form == "overlay":
            return _drawn(prepared, found, metadata, self.picture, trace)
        with trace.stage("encode"):
            return tell()

    def told_and_drawn(
        self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace
    ) -> tuple[Content, Content]:
        """The answer of a form that is no drawing, and the picture with the same on it. Raises what `answer` raises."""
        found, tell = self.find(metadata, prepared, outputs, trace)
        with trace.stage("encode"):
            told = tell()
        return told, _drawn(prepared, found, metadata, self.picture, trace)

    @abstractmethod
    def find(
        self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace
    ) -> tuple[FoundInImage, Callable[[], Content]]:
        """What is in the image, and what makes the answer of it where that is no drawing.

        Raises OutputError if the outputs are not finite.
        """


def _drawn(
    prepared: Prepared, found: FoundInImage, metadata: Metadata, picture: PictureFormat, trace: Trace
) -> Content:
    """The whole image, decoded once more, with the answer on it."""
    assert prepared.decode_again is not None, "it was not prepared to be drawn on"
    with trace.stage("decode"):
        image = prepared.decode_again()
    with trace.stage("encode"), turn_into_memory_errors():
        canvas = Canvas.of(image)
        del image
        draw_found(canvas, found, metadata.categories)
        return Content(*encode_picture(canvas.picture.convert("RGB"), picture))


def json_content(response: BaseModel) -> Content:
    """An answer as JSON."""
    # What was not asked for is left out; nothing that is answered is null.
    return Content(response.model_dump_json(exclude_none=True).encode(), "application/json")
