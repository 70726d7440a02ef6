"""From a request's body to what the network takes: the stages "decode" and "preprocess"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.artifact.metadata import Metadata
from model.runtime.decode import ImageLimits, decode, decode_reduced
from model.runtime.decode_budget import LARGE_WORK, MANY_PARTS
from model.runtime.image_formats import open_formats
from model.runtime.preprocess import CANVAS_MULTIPLE, resize_to
from model.runtime.resize_rule import ResizeRule
from service.images.bodies import image_bytes
from service.images.task import Prepared
from service.process.memory_budget import largest_image
from service.process.trace import Trace
from service.settings import Settings

# From a body and its content type to the image's bytes in it.
ImageFinder = Callable[[bytes | bytearray, str], bytes | bytearray]


@dataclass(frozen=True)
class ImageRules:
    """Which images are accepted, and what the network gets of them."""

    limits: ImageLimits  # what is refused
    resize: ResizeRule  # how large the network sees an image
    reduced_decode: bool = False  # a JPEG may be decoded at a fraction of its size, see `decode_reduced`
    canvas_multiple: int = CANVAS_MULTIPLE  # pixels; what the sides of an image's canvas divide by

    def for_now(self) -> ImageRules:
        """The same, but large images, and those of many parts, are put off by LargeWorkError."""
        return replace(self, limits=replace(self.limits, work_now=LARGE_WORK, parts_now=MANY_PARTS))

    @classmethod
    def of(cls, settings: Settings, metadata: Metadata, canvas_multiple: int = CANVAS_MULTIPLE) -> ImageRules:
        """Those of a service with these settings and a model with these metadata."""
        limits = ImageLimits(
            largest_image(settings, metadata),
            settings.max_side,
            settings.max_image_parts,
            settings.max_image_scans,
            settings.decode_cpu_ms / 1000,
            formats=open_formats(settings.formats),
        )
        return cls(limits, metadata.resize, settings.reduced_decode, canvas_multiple)


def prepare(
    body: bytes | bytearray,
    content_type: str,
    rules: ImageRules,
    trace: Trace,
    draws: bool = False,
    image_in: ImageFinder = image_bytes,
) -> Prepared:
    """Decode and resize one image.

    Args:
        body: what holds the image.
        content_type: of the body.
        rules: of the service and its model.
        trace: takes the times, and how the image was turned.
        draws: the answer is drawn on the image, which can then be decoded again; this keeps the body.
        image_in: finds the image in the body, see Task.

    Raises:
        ServiceError, ImageError: the form, or the image, cannot be used.
        LargeWorkError: the image is more work than the rules want now.
    """
    with trace.stage("decode"):
        decoded = decode_reduced(
            image_in(body, content_type), rules.limits, rules.resize if rules.reduced_decode else None
        )
    trace.orientation = decoded.orientation
    with trace.stage("preprocess"):
        size = rules.resize.size(*decoded.orig_size)
        resized = resize_to(decoded.picture, size, decoded.box, rules.canvas_multiple)

    def decode_again() -> NDArray[np.uint8]:
        return decode(image_in(body, content_type), rules.limits)

    return Prepared(decoded.orig_size, resized, decode_again if draws else None)


def prepare_decoded(picture: Image.Image, rules: ImageRules, trace: Trace) -> Prepared:
    """Resize an image that is decoded already, upright RGB or RGBX; it is not kept to be drawn on."""
    with trace.stage("preprocess"):
        orig_size = (picture.height, picture.width)
        size = rules.resize.size(*orig_size)
        return Prepared(orig_size, resize_to(picture, size, None, rules.canvas_multiple), None)
