"""The pixels of a WebP that is no animation: libwebp writes them where they belong, and other threads run meanwhile.

Pillow reads each as an animation: it has two canvases, copies one while no other thread can run (0.2 to 0.5 seconds
for 49 megapixels), and copies that into a picture, which is 16 bytes a pixel instead of 4. The pixels are the same.
The function is part of libwebp's interface since 2010 (`webp/decode.h`); it is taken from where Pillow has it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.picture_memory import new_pixels

_FLAGS, _IS_ANIMATION, _HAS_ALPHA = 20, 0x02, 0x10  # of an extended file (RFC 9649, section 2.7)


def webp_pixels(data: bytes | bytearray, size: tuple[int, int], has_alpha: bool) -> NDArray[np.uint8] | None:
    """RGBA [height, width, 4] of a WebP of (height, width) that has transparency or not.

    None if it is an animation, denies its own transparency, or if libwebp cannot be called.

    Raises:
        OSError: it is broken, or memory ran out in libwebp.
    """
    flags = data[_FLAGS] if data[12:16] == b"VP8X" else _HAS_ALPHA
    is_plain = not flags & _IS_ANIMATION and (bool(flags & _HAS_ALPHA) or not has_alpha)
    if not is_plain or (decode := _decoder()) is None:
        return None
    height, width = size
    pixels = new_pixels(height, width)  # all written, or it is broken
    file = np.frombuffer(data, dtype=np.uint8)
    if not decode(file.ctypes.data, file.nbytes, pixels.ctypes.data, pixels.nbytes, 4 * width):
        raise OSError("libwebp cannot decode it")
    return pixels


@cache
def _decoder() -> Any:
    try:
        from PIL import _webp

        decode = ctypes.CDLL(_webp.__file__).WebPDecodeRGBAInto  # what that library is linked to is searched as well
    except (ImportError, OSError, AttributeError):
        return None
    decode.restype = ctypes.c_void_p
    decode.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return decode
