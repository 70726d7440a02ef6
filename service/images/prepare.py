"""From a request's body to what the network takes: the stages "decode" and "preprocess"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.runtime.artifact.metadata import Metadata
from model.runtime.decode import ImageLimits, decode, decode_reduced
from model.runtime.decode_budget import LARGE_WORK
from model.runtime.preprocess import resize_to
from model.runtime.resize_rule import ResizeRule
from service.images.answers import Prepared
from service.images.multipart import image_field
from service.process.memory_budget import largest_image
from service.process.trace import Trace
from service.settings import Settings


@dataclass(frozen=True)
class ImageRules:
    """Which images are accepted, and what the network gets of them."""

    limits: ImageLimits  # what is refused
    resize: ResizeRule  # how large the network sees an image
    reduced_decode: bool = False  # a JPEG may be decoded at a fraction of its size, see `decode_reduced`

    def for_now(self) -> ImageRules:
        """The same, but large images are put off by LargeWorkError."""
        return replace(self, limits=replace(self.limits, work_now=LARGE_WORK))

    @classmethod
    def of(cls, settings: Settings, metadata: Metadata) -> ImageRules:
        """Those of a service with these settings and a model with these metadata."""
        limits = ImageLimits(
            largest_image(settings, metadata),
            settings.max_side,
            settings.max_image_parts,
            settings.max_image_scans,
            settings.decode_cpu_ms / 1000,
        )
        return cls(limits, metadata.resize, settings.reduced_decode)


def prepare(
    body: bytes | bytearray, content_type: str, rules: ImageRules, trace: Trace, draws: bool = False
) -> Prepared:
    """Decode and resize one image.

    Args:
        body: an image, or a multipart form with one.
        content_type: of the body; only a multipart one matters.
        rules: of the service and its model.
        trace: takes the times, and how the image was turned.
        draws: the answer is drawn on the image, which can then be decoded again; this keeps the body.

    Raises:
        ServiceError, ImageError: the form, or the image, cannot be used.
        LargeWorkError: the image is more work than the rules' `work_now`.
    """
    with trace.stage("decode"):
        decoded = decode_reduced(
            _image_bytes(body, content_type), rules.limits, rules.resize if rules.reduced_decode else None
        )
    trace.orientation = decoded.orientation
    with trace.stage("preprocess"):
        resized = resize_to(decoded.picture, rules.resize.size(*decoded.orig_size), decoded.box)
    return Prepared(decoded.orig_size, resized, partial(_decode, body, content_type, rules.limits) if draws else None)


def _decode(body: bytes | bytearray, content_type: str, limits: ImageLimits) -> NDArray[np.uint8]:
    return decode(_image_bytes(body, content_type), limits)


def _image_bytes(body: bytes | bytearray, content_type: str) -> bytes | bytearray:
    is_form = content_type.lower().startswith("multipart/")
    return image_field(body, content_type) if is_form else body
