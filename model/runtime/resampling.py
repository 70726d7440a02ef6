"""The one resize of pictures: bilinear, widened with the scale where it shrinks them (antialiased), like Pillow's.

It is Pillow's filter in fast_image_resize's arithmetic, in a quarter of the time: of an even picture the same, and
elsewhere never more than one level of 255 away. Where that library has no wheel (Linux on ARM, and what is neither x86
nor a Mac), Pillow itself resizes.

The horizontal pass comes first, as in Pillow, and each pass is a call of its own. That keeps the two so close, because
both round between the passes. And the picture between them lies in Python's memory, so that there is a MemoryError
where there is none left: the library would end the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who only puts images on a canvas waits for no Pillow
    from PIL import Image

CropBox = tuple[float, float, float, float]  # left, top, right, bottom in pixels, which may be fractions

# Bytes that the library takes at most for its filter's weights; it ends the process where it does not get them.
_WEIGHTS = 2**20


def resampler() -> str:
    """What resizes here: "cykooz-resizer", or "Pillow" where that is not installed."""
    return "Pillow" if _library() is None else "cykooz-resizer"


def resample(picture: Image.Image, canvas: NDArray[np.uint8], size: tuple[int, int], box: CropBox) -> None:
    """Resize a box of an RGB or RGBX picture to (height, width) in the upper left corner of a canvas, uint8 [H, W, 3].

    The canvas is contiguous, and stays as it is beside the picture. Python's lock is free meanwhile. Raises MemoryError
    where there is no memory for what lies between the passes.
    """
    if (library := _library()) is None:
        from PIL import Image

        height, width = size
        resized = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
        canvas[:height, :width] = np.asarray(resized)[..., :3]
    elif picture.height <= 2 * size[0]:
        _by_rows_of_three(library, _rgb(picture), canvas, size, box)
    else:
        _by_rows_of_four(library, _rgb(picture), canvas, size, box)


def _by_rows_of_three(
    library: Any, picture: Image.Image, canvas: NDArray[np.uint8], size: tuple[int, int], box: CropBox
) -> None:
    """Pillow has four bytes a pixel and the network three. The fourth goes between the passes, and the second, to which
    a row is a row of bytes, writes where the result belongs.
    """
    from PIL import Image

    from model.runtime.picture_memory import picture_in

    (height, width), (left, top, right, bottom) = size, box
    target = picture_in(np.empty((picture.height, width, 4), dtype=np.uint8), "RGB")  # not filled, as Pillow's would be
    _pass(library, picture, target, (left, 0, right, picture.height))
    packed = _packed(target)
    wide = Image.frombuffer("L", (3 * width, picture.height), packed, "raw", "L", 0, 1)
    result = Image.frombuffer("L", (3 * width, height), canvas, "raw", "L", canvas.strides[0], 1)  # in its memory
    _pass(library, wide, result, (0, top, 3 * width, bottom))


def _by_rows_of_four(
    library: Any, picture: Image.Image, canvas: NDArray[np.uint8], size: tuple[int, int], box: CropBox
) -> None:
    """Of a picture that shrinks much, the fourth byte goes last, where fewest pixels have it."""
    from model.runtime.picture_memory import picture_in

    (height, width), (left, top, right, bottom) = size, box
    # Not filled, as Pillow's own pictures are, which would take a quarter of the time of 12 megapixels.
    wide, result = (picture_in(np.empty((rows, width, 4), dtype=np.uint8), "RGB") for rows in (picture.height, height))
    _pass(library, picture, wide, (left, 0, right, picture.height))
    _pass(library, wide, result, (0, top, width, bottom))
    canvas[:height, :width] = np.frombuffer(_packed(result), dtype=np.uint8).reshape(height, width, 3)


def _packed(picture: Image.Image) -> bytes:
    """The bytes of a picture without each fourth: `tobytes` in one piece, which takes a third of the time."""
    from PIL import Image

    encoder = Image.core.raw_encoder(picture.mode, "RGB")  # type: ignore[attr-defined]  # without types
    encoder.setimage(picture.im, (0, 0, *picture.size))
    packed: bytes
    _, error, packed = encoder.encode(3 * picture.width * picture.height)
    assert error >= 0
    return packed


def _rgb(picture: Image.Image) -> Image.Image:
    """A picture of mode RGBX as one of mode RGB in the same memory: the library knows no RGBX."""
    if picture.mode == "RGBX":
        picture = picture._new(picture.im)  # another one, which that one does not become
        picture._mode = "RGB"
    return picture


def _pass(library: Any, source: Image.Image, target: Image.Image, box: CropBox) -> None:
    left, top, right, bottom = box
    bilinear = library.ResizeAlg.convolution(library.FilterType.bilinear)
    crop = library.CropBox(left, top, right - left, bottom - top)
    np.empty(_WEIGHTS, dtype=np.uint8)  # a MemoryError here and not the end there; what is freed is taken next
    library.Resizer().resize_pil(source, target, library.ResizeOptions(bilinear, crop_box=crop))


def _library() -> Any:
    try:
        import cykooz_resizer
    except ModuleNotFoundError:
        return None
    return cykooz_resizer
