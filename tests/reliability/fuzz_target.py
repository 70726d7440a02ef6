"""What must hold for any bytes that are uploaded, and pictures of many kinds to begin a search for others from."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from model.runtime.decode import DecodedImage, ImageError, ImageLimits, decode_reduced
from model.runtime.image_formats import OPTIONAL, open_formats
from model.runtime.preprocess import resize
from model.runtime.resize_rule import Edges, ResizeRule

LIMITS = ImageLimits(max_pixels=50_000_000, max_side=16_384)
# Small, so that the small seeds are shrunk, and JPEGs among them decoded at a fraction of their size.
RULE = Edges(4, 7)
SECONDS = 2.0  # that one upload may take


def with_all_formats() -> ImageLimits:
    """The limits where every format is opened."""
    return replace(LIMITS, formats=open_formats(tuple(OPTIONAL)))


def check(data: bytes, limits: ImageLimits = LIMITS) -> None:
    """Decode and resize, both ways.

    Raises:
        AssertionError: the outcome is not a picture within the limits, or it took too long.
        Exception: anything but the decoder's own errors that it raised.
    """
    began = time.process_time()
    for rule in (None, RULE):
        decoded = decode_or_refuse(data, rule, limits)
        if decoded is None:
            continue
        assert decoded.image.dtype == np.uint8
        assert decoded.image.ndim == 3
        assert decoded.image.shape[2] == 3
        height, width = decoded.orig_size
        assert 0 < height * width <= LIMITS.max_pixels
        assert max(height, width) <= LIMITS.max_side
        assert resize(decoded.image, RULE).shape[2] == 3
    took = time.process_time() - began
    assert took <= 2 * SECONDS, f"{took:.1f} s"


def decode_or_refuse(data: bytes, rule: ResizeRule | None, limits: ImageLimits) -> DecodedImage | None:
    """The picture, or None where it is refused by one of the decoder's own errors, in words that give nothing away."""
    try:
        return decode_reduced(data, limits, rule)
    except ImageError as error:
        message = str(error)
    assert message.isascii()
    assert "0x" not in message
    return None


def seeds() -> dict[str, bytes]:
    """Small pictures of every kind that is accepted, and of some that are not."""
    rows, columns = np.mgrid[0:24, 0:32]
    colours = Image.fromarray(np.stack([rows * 9, columns * 7, 255 - rows], axis=-1).astype(np.uint8))
    found: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, image_format: str, **options: Any) -> None:
        buffer = io.BytesIO()
        image.save(buffer, image_format, **options)
        found[name] = buffer.getvalue()

    turned = Image.Exif()
    turned[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "text", zip=True)
    text.add_itxt("title", "words", "en", "words", zip=True)
    frames = {"save_all": True, "append_images": [colours.rotate(90), colours.convert("L").convert("RGB")]}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.fromarray((rows * 2000).astype(np.uint16)) if mode == "I;16" else colours.convert(mode)
        add(f"png {mode}", image, "PNG")
    for mode in ("L", "RGB", "CMYK"):
        add(f"jpeg {mode}", colours.convert(mode), "JPEG")
    add("png palette with alpha", colours.convert("P"), "PNG", transparency=3)
    add("png gray with alpha", colours.convert("L"), "PNG", transparency=9)
    add("png text", colours, "PNG", pnginfo=text, exif=turned, dpi=(72, 72), icc_profile=b"profile")
    add("png interlaced", colours, "PNG", optimize=True)
    add("png animated", colours, "PNG", **frames)
    add("jpeg progressive", colours, "JPEG", progressive=True, quality=30)
    add("jpeg turned", colours, "JPEG", exif=turned, comment=b"comment", icc_profile=b"x" * 300)
    add("jpeg several", colours, "MPO", **frames)
    add("webp", colours, "WEBP")
    add("webp lossless", colours.convert("RGBA"), "WEBP", lossless=True)
    add("webp animated", colours, "WEBP", exif=turned, **frames)
    add("gif", colours.convert("P"), "GIF")
    add("tiff", colours, "TIFF")
    return found


def seeds_of_opened() -> dict[str, bytes]:
    """Small pictures of the formats that are opened where they are asked for."""
    colours = Image.linear_gradient("L").resize((32, 24)).convert("RGB")
    open_formats(tuple(OPTIONAL))  # whose plugins write them, too
    others = [colours.rotate(90), colours.rotate(180)]
    found: dict[str, bytes] = {}
    for word, image_format in OPTIONAL.items():
        forms: dict[str, tuple[Image.Image, dict[str, Any]]] = {"": (colours, {})}
        if word in ("avif", "heic"):
            forms[" with alpha"] = colours.convert("RGBA").rotate(9), {}
        if word in ("avif", "gif", "tiff"):
            forms[" of several"] = colours, {"save_all": True, "append_images": others}
        if word == "bmp":
            forms[" of few colours"] = colours.convert("P"), {}
        if word == "tiff":
            for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
                forms[f" {compression}"] = colours, {"compression": compression}
            forms[" group4"] = colours.convert("1"), {"compression": "group4"}
        for name, (image, options) in forms.items():
            buffer = io.BytesIO()
            image.save(buffer, image_format, **options)
            found[word + name] = buffer.getvalue()
    return found
