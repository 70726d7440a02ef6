"""An engine that does what a script tells it to: how long it takes, what it raises, what it keeps.

Its answer says which picture it is about, so that a test can check every answer against its request. The colour of a
picture's first pixel, 24 bits, is the picture's identity; the box that is found spans from (red, green) to the right
of the middle by blue.
"""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.engines.device_errors import DeviceMemoryError
from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch

QUERIES, CLASSES = 4, 5  # of tests/tiny_artifact.py, whose metadata the scripted server answers with
SIDE = 64  # pixels of a picture that is not resized, by the tiny model's rule
_THING, _STUFF = 0, 3  # classes
_LOGIT = 9.0
_SCORE = 1 / (1 + CLASSES * math.exp(-_LOGIT))  # of what is seen


@dataclass(frozen=True)
class Script:
    """What the engine does from now on. Numbers of batches count from 1, the next one."""

    delay_ms: float = 0  # of a batch
    delay_per_image_ms: float = 0
    raise_at: tuple[int, ...] = ()  # batches that raise
    hang_at: tuple[int, ...] = ()  # batches that hang, until the script is changed or `hang_s` has passed
    hang_s: float = 60
    not_finite: tuple[int, ...] = ()  # identities that are answered with NaN
    largest_batch: int | None = None  # images; a larger batch is out of memory
    out_of_memory_at: tuple[int, ...] = ()  # batches that are out of memory, whatever their size
    decode_hang_s: float = 0  # that a decoder takes for a picture with the mark of `hanging`
    leak_bytes: int = 0  # kept for each image, for ever

    def changed(self, changes: Mapping[str, Any]) -> Script:
        """The script with some fields changed; lists, as JSON has them, are taken for tuples."""
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in changes.items()}
        return replace(self, **given)


@dataclass
class Report:
    """What the engine has done since it was made."""

    batches: int = 0  # that began
    images: int = 0  # in them
    largest: int = 0  # images in the largest
    running: int = 0  # batches that have begun and not ended
    reopened: int = 0  # how often it was told to begin anew


@dataclass
class ScriptedEngine:
    """Runs a script instead of a network. `follow` may be called from any thread."""

    script: Script = field(default_factory=Script)
    report: Report = field(default_factory=Report)
    device: str = "scripted"
    precision: str = "float32"

    def __post_init__(self) -> None:
        self._begun = 0  # batches since the script was given
        self._changed = threading.Event()
        self._leaked: list[bytes] = []

    def follow(self, script: Script) -> None:
        """Do this from the next batch on; a batch that hangs ends now."""
        self.script, self._begun = script, 0
        self._changed.set()
        self._changed = threading.Event()

    def reopen(self) -> None:
        """What a real engine does after it ran out of memory twice."""
        self.report.reopened += 1

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """Outputs that say whose they are.

        Raises:
            RuntimeError, DeviceMemoryError: the script says so.
        """
        return self.play(batch, lambda: _outputs(batch, mask_threshold))

    def play(self, batch: Batch, compute: Callable[[], RawOutputs]) -> RawOutputs:
        """What the script makes of a batch whose outputs are computed so.

        Raises:
            RuntimeError, DeviceMemoryError: the script says so.
        """
        script, size = self.script, len(batch.images)
        changed = self._changed
        self._begun += 1
        number = self._begun
        self._count(size)
        try:
            if delay_ms := script.delay_ms + script.delay_per_image_ms * size:
                time.sleep(delay_ms / 1000)
            if number in script.hang_at:
                changed.wait(script.hang_s)
            if number in script.raise_at:
                raise RuntimeError("scripted fault at 0x7f0c12345678 in /usr/lib/engine.so")
            if number in script.out_of_memory_at or size > (script.largest_batch or size):
                raise DeviceMemoryError(f"scripted: failed to allocate memory for a batch of {size}")
            if script.leak_bytes:
                # Not zeros, which the system would not have to keep.
                self._leaked.append(b"x" * script.leak_bytes * size)
            outputs = compute()
            for index, first in enumerate(batch.images[:, 0, 0]):
                if identity_of_colour(first) in script.not_finite:
                    outputs.pred_logits[index] = np.nan
            return outputs
        finally:
            self.report.running -= 1

    def _count(self, size: int) -> None:
        report = self.report
        report.batches += 1
        report.images += size
        report.largest = max(report.largest, size)
        report.running += 1


@dataclass(frozen=True)
class ScriptedNetwork:
    """A network on its engine, of whose batches the script of a scripted one makes what it likes."""

    scripted: ScriptedEngine
    network: Engine

    @property
    def device(self) -> str:
        return self.network.device

    @property
    def precision(self) -> str:
        return self.network.precision

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """The network's outputs, see `ScriptedEngine.play`."""
        return self.scripted.play(batch, lambda: self.network.infer(batch, mask_threshold, attention))


def _outputs(batch: Batch, mask_threshold: NDArray[np.float32]) -> RawOutputs:
    size, (height, width) = len(batch.images), batch.images.shape[1:3]
    colours = batch.images[:, 0, 0].astype(np.float32) / 255  # [B, 3]
    logits = np.zeros((size, QUERIES, CLASSES + 1), dtype=np.float32)
    logits[:, 0, _THING] = logits[:, 1, _STUFF] = logits[:, 2:, -1] = _LOGIT
    boxes = np.full((size, QUERIES, 4), 0.25, dtype=np.float32)
    left, top, right = colours[:, 0] / 2, colours[:, 1] / 2, 0.5 + colours[:, 2] / 2
    # cxcywh in [0, 1]; the lower edge is the picture's.
    boxes[:, 0] = np.stack([(left + right) / 2, (top + 1) / 2, right - left, 1 - top], axis=1)
    masked = [index for index, threshold in enumerate(mask_threshold) if threshold < _SCORE]
    masks = np.empty((len(masked), 2, height // 4, width // 4), dtype=np.float32)
    for position, index in enumerate(masked):
        masks[position] = _masks(height // 4, width // 4, batch.sizes[index], colours[index])
    mask_index = [(index, query) for index in masked for query in (0, 1)]
    return RawOutputs(
        logits, boxes, masks.reshape(-1, height // 4, width // 4), np.array(mask_index, np.int64).reshape(-1, 2)
    )


def _masks(rows: int, columns: int, size: tuple[int, int], colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mask logits [2, rows, columns]: a rectangle as wide and high as red and green say, and all around it."""
    thing = np.full((rows, columns), -20, dtype=np.float32)
    height, width = size[0] / 4, size[1] / 4  # cells
    thing[: round(height * (0.5 + colour[1] / 2)), : round(width * (0.5 + colour[0] / 2))] = 20
    return np.stack([thing, -thing])


def identity_of_colour(colour: NDArray[np.uint8]) -> int:
    """The identity of pictures whose first pixel is this red, green and blue."""
    red, green, blue = (int(part) for part in colour)
    return red << 16 | green << 8 | blue


def colour_of(identity: int) -> tuple[int, int, int]:
    """Red, green and blue of an identity."""
    return (identity >> 16 & 255, identity >> 8 & 255, identity & 255)


def picture(identity: int, size: tuple[int, int] = (SIDE, SIDE), image_format: str = "PNG") -> bytes:
    """A picture of one colour, by default of a size (width, height) that is not resized.

    PNG and lossless WebP keep the identity; JPEG may not.
    """
    buffer = io.BytesIO()
    options = {"lossless": True} if image_format == "WEBP" else {}
    Image.new("RGB", size, colour_of(identity)).save(buffer, format=image_format, **options)
    return buffer.getvalue()


_HANGING = b"hang"


def hanging(body: bytes) -> bytes:
    """A picture that keeps its decoder for as long as the script says; what follows a picture is nobody's business."""
    return body + _HANGING


def hangs(body: bytes | bytearray) -> bool:
    """Whether it does."""
    return body.endswith(_HANGING)


def identity_of(answer: Mapping[str, Any]) -> int:
    """Whose answer of /detect this is; right for pictures of at least `SIDE` pixels a side.

    Raises:
        ValueError: it is not one of the scripted engine's.
    """
    (found,) = (found for found in answer["detections"] if found["label"] == "red")
    box, image = found["box"], answer["image"]
    shares = box["x1"] / image["width"], box["y1"] / image["height"], box["x2"] / image["width"] - 0.5
    red, green, blue = (round(510 * float(share)) for share in shares)
    return red << 16 | green << 8 | blue
