"""From encoded bytes to RGB pixels as a person sees them, within limits: for the service and for data on disk alike."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Pillow would load its decoders at the first upload, and at the first WebP those of all 43 formats.
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

from model.runtime.allocations import AllocationWatch
from model.runtime.coded_frames import StrangeLayoutError, coded_frames
from model.runtime.decode_budget import LargeWorkError, MeteredFile
from model.runtime.image_formats import ALWAYS, ONE_CALL, WORK_OF_ONE_CALL, format_of, in_words, is_simple_tiff, spoken
from model.runtime.jpeg_segments import split_jpeg
from model.runtime.kept_blocks import PICTURE_BLOCKS
from model.runtime.orientation import Turn, plugin_exif, turn_of
from model.runtime.picture_memory import give_memory, picture_in
from model.runtime.png_chunks import split_png
from model.runtime.resampling import CropBox
from model.runtime.resize_rule import ResizeRule
from model.runtime.to_rgb import to_rgb
from model.runtime.webp_chunks import count_webp_chunks
from model.runtime.webp_pixels import webp_pixels

# Above Pillow's own bound an image is refused like any other that is too large, instead of with a line on
# stderr.
warnings.simplefilter("error", Image.DecompressionBombWarning)

# How many times as large as the network's a reduced image has to be, so that the antialiased resize has the last word
# on what is left of fine detail. Without a margin the demo model's probabilities moved by up to 0.39 (median 0.0007),
# with this one by up to 0.15 (0.0002). With 2 it would be 0.04, but a 12-megapixel photo, whose half is 1.9 times as
# large as 800 x 1066, would no longer be reduced.
LEAST_MARGIN = 1.5
_READS_OF_A_PART = 4  # of a few bytes each, by which Pillow reads a segment or chunk, at most
_BLOCK = 63  # pixels by which a coded frame may be larger than its image, on each side


class ImageError(Exception):
    """An image that cannot be used; the message is one line for whoever sent it, and holds nothing of the decoder's."""


class NotAnImageError(ImageError):
    """The bytes start like no image format."""


class ImageFormatError(ImageError):
    """The bytes are an image in a format that is not accepted."""

    def __init__(self, image_format: str, formats: frozenset[str] = ALWAYS) -> None:
        super().__init__(f"the image has to be a {in_words(formats)}")
        self.image_format = image_format  # its name, for people


class ImageTooLargeError(ImageError):
    """The image has more pixels, or a longer side, than is accepted."""


class BrokenImageError(ImageError):
    """The bytes start like an accepted format, and cannot be decoded."""


class ImageTooComplexError(ImageError):
    """The image takes more work to decode than an image of its size may."""


@dataclass(frozen=True)
class ImageLimits:
    """How large an image may be, as stored, and how much work."""

    max_pixels: int  # width x height
    max_side: int  # pixels
    max_parts: int = 20_000  # segments of a JPEG before its pixels, or chunks of a PNG or WebP
    max_scans: int = 120  # of a JPEG, each of which can be work for all of its pixels
    max_cpu_seconds: float = 7.5  # to decode an image of `max_pixels`
    max_tables: int = 250  # parts that are neither pixels nor metadata, which are slow to read; pictures have ten
    # For more of either LargeWorkError is raised.
    work_now: float = math.inf  # pixels times scans
    parts_now: float = math.inf  # of `max_parts`, or such as a reader of another format takes as long for
    formats: frozenset[str] = ALWAYS  # that are decoded, see `open_formats`

    def cpu_seconds(self, pixels: int) -> float:
        """What an image of so many pixels may take: a quarter of the largest one's time, and its share of the rest."""
        return self.max_cpu_seconds * (0.25 + 0.75 * min(1.0, pixels / self.max_pixels))


# The most that a service can be told to accept, which is where Pillow warns of a decompression bomb. It is the limit of
# pictures on disk, which may be larger than uploads usually are; one that could never be served is not learnt from.
LARGEST = ImageLimits(max_pixels=89_478_485, max_side=89_478_485)


@dataclass(frozen=True)
class DecodedImage:
    """An image that was decoded at its own size or, to be resized, at a fraction of it."""

    picture: Image.Image  # RGB, upright; a resize of this needs no copy of its pixels
    orig_size: tuple[int, int]  # (height, width) in pixels, upright, of the whole image
    box: CropBox  # of the picture, what the whole image covers: all of it, but for less than a pixel at two edges
    orientation: int  # as EXIF numbers it, 1 to 8: how the image was stored, before it was turned upright

    @property
    def image(self) -> NDArray[np.uint8]:
        """The picture's pixels, [height, width, 3], RGB."""
        return np.asarray(self.picture)


def decode(data: bytes | bytearray, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode the bytes of a JPEG, PNG or WebP, or of another format that the limits name, into RGB.

    It is [height, width, 3] uint8, upright by its EXIF orientation.

    Of an animation the first frame counts, of several pages the first.
    Transparency lies over white. 16-bit gray is scaled to 8 bits.

    Raises:
        NotAnImageError: the bytes begin like no image.
        ImageFormatError: they begin like an image of another format.
        ImageTooLargeError: the image is larger than the limits; found before its pixels are decoded.
        ImageTooComplexError: it is more work than the limits allow.
        BrokenImageError: they cannot be decoded.
        MemoryError: there is too little memory for it.
    """
    return decode_reduced(data, limits, None).image


def decode_reduced(data: bytes | bytearray, limits: ImageLimits, rule: ResizeRule | None) -> DecodedImage:
    """Like `decode`, but at a half, a quarter or an eighth of the size where that is still larger, on both sides, than
    the rule then makes it, by `LEAST_MARGIN`; without a rule never. The limits are of the whole image.

    Only JPEG's decoder can do this. It leaves out the fine detail of each block of 8 x 8 pixels, which is not quite
    what a resize of the whole image does: the resized image, and with it the answer, differ slightly
    (`python -m tests.benchmarks.reduced_decode` prints how much).

    Raises:
        NotAnImageError, ImageFormatError, ImageTooLargeError, ImageTooComplexError, BrokenImageError: like `decode`.
    """
    with open_image(data, limits) as opened:
        return opened.decode(opened.turn, rule)


@dataclass(frozen=True)
class OpenedImage:
    """An image whose header is read, and whose pixels are not decoded yet."""

    data: bytes | bytearray  # of the file
    stored: Image.Image  # as the file has it
    stored_size: tuple[int, int]  # (height, width) in pixels
    turn: Turn  # makes it upright, by its EXIF

    @property
    def displayed_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the upright image."""
        return self.turn.apply_to_size(self.stored_size)

    def decode(self, turn: Turn, rule: ResizeRule | None = None) -> DecodedImage:
        """Decode it and turn it so, by default at its own size, see `decode_reduced`."""
        # The rule is of the image as it is seen; a turn exchanges the sides or does not, and so undoes itself.
        size = None if rule is None else turn.apply_to_size(rule.size(*turn.apply_to_size(self.stored_size)))
        box = _whole(self.stored) if size is None else _reduce(self.stored, size)
        turned = turn.apply(self._with_pixels())
        box = turn.apply_to_box(box, *turned.size)
        return DecodedImage(to_rgb(turned), turn.apply_to_size(self.stored_size), box, turn.orientation)

    def _with_pixels(self) -> Image.Image:
        mode = self.stored.mode
        if self.stored.format == "WEBP":
            pixels = webp_pixels(self.data, self.stored_size, mode == "RGBA")
            if pixels is not None:
                return picture_in(pixels, mode)
            PICTURE_BLOCKS.give_back()  # an animation takes all the memory that a picture may, and none of theirs
        give_memory(self.stored)
        self.stored.load()
        return self.stored


@contextmanager
def open_image(data: bytes | bytearray, limits: ImageLimits) -> Iterator[OpenedImage]:
    """Open an image, to be decoded within the block, where whatever the decoder raises becomes one of our errors.

    Raises:
        NotAnImageError, ImageFormatError, ImageTooLargeError, ImageTooComplexError, BrokenImageError: like `decode`.
        MemoryError: there is too little memory, which is no fault of the image.
    """
    image_format = sniff(data, limits.formats)
    file = None
    allocations = AllocationWatch()
    try:
        picture, exif, scans, scan_starts = _without_metadata(data, image_format, limits)
        coded = _coded_pixels(data, limits) if image_format in ONE_CALL else 0
        file = MeteredFile(picture, scan_starts, _READS_OF_A_PART * limits.parts_now)
        file.limit(limits.cpu_seconds(0), in_small_pieces=False)  # to read what comes before its pixels
        with Image.open(file, formats=[image_format]) as image:
            _check_size(image.size, limits)
            if image_format == "TIFF" and not is_simple_tiff(image, len(data)):
                raise ImageTooComplexError("the TIFF is compressed in a way, or laid out so, that is not accepted")
            pixels = max(coded, image.width * image.height)
            if pixels * scans > limits.work_now:
                raise LargeWorkError
            # Of JPEG alone a few bytes can be work for all pixels, and its reader takes what it gets.
            file.limit(limits.cpu_seconds(pixels), in_small_pieces=image_format == "JPEG")
            yield OpenedImage(data, image, (image.height, image.width), turn_of(exif or plugin_exif(image)))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(limits) from None
    except (ImageTooLargeError, ImageTooComplexError, LargeWorkError, MemoryError):
        raise
    except Exception:
        if allocations.have_failed:
            raise MemoryError(f"there is no memory for the {image_format} image") from None
        if file is not None and file.is_spent:
            raise ImageTooComplexError("the image takes more time to decode than an image of its size may") from None
        # Decoders raise nearly anything on hostile input, and their messages can hold addresses.
        raise BrokenImageError(f"the {image_format} image is broken or incomplete") from None


def _without_metadata(
    data: bytes | bytearray, image_format: str, limits: ImageLimits
) -> tuple[bytes | bytearray, bytes, int, Sequence[int]]:
    """What makes the picture, EXIF data found here, its scans, where they begin. Raises ImageTooComplexError."""
    picture, exif, parts, tables, scans = data, b"", 0, 0, 0
    scan_starts: Sequence[int] = ()
    most = int(min(limits.max_parts, limits.parts_now))
    if image_format == "PNG":
        picture, exif, parts, tables = split_png(data, most, limits.max_tables)
    elif image_format == "JPEG":
        split = split_jpeg(data, most, limits.max_tables, limits.max_scans)
        picture, exif, parts, tables, scans, scan_starts = split
    elif image_format == "WEBP":
        parts = count_webp_chunks(data, most)
    if tables > limits.max_tables:
        raise ImageTooComplexError(f"the image has more than {limits.max_tables} tables")
    if parts > limits.max_parts:
        raise ImageTooComplexError(f"the image has more than {limits.max_parts} segments or chunks")
    if parts > limits.parts_now:
        raise LargeWorkError
    if scans > limits.max_scans:
        raise ImageTooComplexError(f"the image has more than {limits.max_scans} scans")
    return picture, exif, WORK_OF_ONE_CALL if image_format in ONE_CALL else max(1, scans), scan_starts


def _coded_pixels(data: bytes | bytearray, limits: ImageLimits) -> int:
    """Pixels that the decoder of an AVIF or HEIC makes, whatever it announces. Raises what `open_image` does."""
    try:
        frames = coded_frames(data)
    except StrangeLayoutError:
        raise ImageTooComplexError("the image is laid out in a way that is not accepted") from None
    for width, height in frames.sizes:
        _check_size((max(1, width - _BLOCK), max(1, height - _BLOCK)), limits)
    if frames.most_pixels > 2 * limits.max_pixels:  # tiles pass the edges of their image
        raise _too_large(limits)
    return frames.most_pixels


def _reduce(image: Image.Image, size: tuple[int, int]) -> CropBox:
    """Tell the decoder to reduce the image if that is still larger than (height, width), and if it can.

    The box is what the whole image then covers. Image, size and box are those before it is turned.

    The decoder rounds sizes up: a width of 1001 becomes 501 at a half, of which the image covers 500.5.
    """
    height, width = size
    least = math.ceil(LEAST_MARGIN * width), math.ceil(LEAST_MARGIN * height)
    drafted = image.draft(None, least)
    return _whole(image) if drafted is None else drafted[1]


def _whole(image: Image.Image) -> CropBox:
    return 0.0, 0.0, float(image.width), float(image.height)


def sniff(data: bytes | bytearray, formats: frozenset[str] = ALWAYS) -> str:
    """Pillow's name of the format that the bytes begin like, if it is one of these.

    Raises:
        NotAnImageError, ImageFormatError: like `decode`.
    """
    image_format = format_of(data)
    if image_format is None:
        raise NotAnImageError("the upload is not an image")
    if image_format not in formats:
        raise ImageFormatError(spoken(image_format), formats)
    return image_format


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if max(size) > limits.max_side or width * height > limits.max_pixels:
        raise _too_large(limits)


def _too_large(limits: ImageLimits) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"the image has more than {limits.max_pixels} pixels, or a side of more than {limits.max_side}"
    )
