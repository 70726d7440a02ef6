"""From a request's body to what the network takes: the stages "decode" and "preprocess"."""

from __future__ import annotations

from model.runtime.preprocess import ResizeRule, resize_to
from service.answers import Prepared
from service.decode import ImageLimits, decode_reduced
from service.multipart import image_field
from service.trace import Trace


def prepare(
    body: bytes | bytearray,
    content_type: str,
    limits: ImageLimits,
    rule: ResizeRule,
    trace: Trace,
    keep_image: bool = False,
    reduced_decode: bool = False,
) -> Prepared:
    """Decode and resize one image.

    Args:
        body: an image, or a multipart form with one.
        content_type: of the body; only a multipart one matters.
        limits: what is refused.
        rule: how large the network sees it.
        trace: takes the times.
        keep_image: keep the decoded image as well.
        reduced_decode: a JPEG may be decoded at a fraction of its size, see `decode_reduced`. An image that is kept
            never is.

    Raises:
        ServiceError: the form or the image cannot be used.
    """
    with trace.stage("decode"):
        is_form = content_type.lower().startswith("multipart/")
        data = image_field(body, content_type) if is_form else body
        decoded = decode_reduced(data, limits, rule if reduced_decode and not keep_image else None)
    with trace.stage("preprocess"):
        resized = resize_to(decoded.image, rule.size(*decoded.orig_size), decoded.box)
    return Prepared(decoded.orig_size, resized, decoded.image if keep_image else None)
