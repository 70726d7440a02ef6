"""From uploaded bytes to RGB pixels as a person sees them, within limits."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import BrokenImageError, ImageFormatError, ImageTooLargeError, NotAnImageError

# Above Pillow's own bound an image is refused like any other that is too large, instead of with a line on
# stderr.
warnings.simplefilter("error", Image.DecompressionBombWarning)

# How files of known image formats begin. Only JPEG, PNG and WebP are decoded: Pillow's decoders of the many
# other formats are where nearly all of its published security holes are.
_ACCEPTED = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"))
_REFUSED = (
    b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"8BPS", b"\x00\x00\x01\x00", b"\x00\x00\x00\x0cjP  ",
    b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cJXL ", b"\xff\x0a", b"<svg",
)  # fmt: skip

_EXIF_ORIENTATION = 0x0112
# EXIF 2.32, 4.6.4: how the stored picture has to be turned to be upright; 1 is as stored.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageLimits:
    """How large an image may be, as stored."""

    max_pixels: int  # width x height
    max_side: int  # pixels


def decode(data: bytes | bytearray, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode JPEG, PNG or WebP bytes into RGB, [height, width, 3] uint8, upright by their EXIF orientation.

    Of an animation the first frame counts. Transparency lies over white. 16-bit gray is scaled to 8 bits.

    Raises:
        NotAnImageError: the bytes begin like no image.
        ImageFormatError: they begin like an image of another format.
        ImageTooLargeError: the image is larger than the limits; found before its pixels are decoded.
        BrokenImageError: they cannot be decoded.
    """
    image_format = sniff(data)
    try:
        with Image.open(io.BytesIO(data), formats=[image_format]) as image:
            _check_size(image.size, limits)
            image.load()
            return _to_rgb(_upright(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(limits) from None
    except (ImageTooLargeError, MemoryError):
        raise
    except Exception:
        # Decoders raise nearly anything on hostile input, and their messages can hold addresses.
        raise BrokenImageError(f"the {image_format} image is broken or incomplete") from None


def sniff(data: bytes | bytearray) -> str:
    """Pillow's name of the format that the bytes begin like; what a header claims does not count.

    Raises:
        NotAnImageError, ImageFormatError: like `decode`.
    """
    head = bytes(data[:32])
    for magic, image_format in _ACCEPTED:
        if head.startswith(magic):
            return image_format
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.lstrip().startswith(_REFUSED) or head[4:8] == b"ftyp":  # ISO media: HEIC, AVIF
        raise ImageFormatError("the image has to be a JPEG, PNG or WebP")
    raise NotAnImageError("the upload is not an image")


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if max(size) > limits.max_side or width * height > limits.max_pixels:
        raise _too_large(limits)


def _too_large(limits: ImageLimits) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"the image has more than {limits.max_pixels} pixels, or a side of more than {limits.max_side}"
    )


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image upright; without a usable orientation it stays as it is stored."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # a broken EXIF block does not make the picture unusable
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """RGB [height, width, 3] of an image in any mode, with as few copies as a large one can afford."""
    if image.mode.startswith("I"):
        return _scale_gray(np.asarray(image))
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", rgba.size, "white")
        image.paste(rgba, mask=rgba)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _scale_gray(gray: NDArray[np.generic]) -> NDArray[np.uint8]:
    """16-bit gray [height, width] to RGB [height, width, 3]; Pillow's own conversion would clip at 255."""
    eight_bit = _EIGHT_BIT[gray.clip(0, 65_535).astype(np.uint16, copy=False)]
    return np.repeat(eight_bit[:, :, None], 3, axis=2)


# What each 16-bit value is in 8 bits, rounded.
_EIGHT_BIT = ((np.arange(65_536, dtype=np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
