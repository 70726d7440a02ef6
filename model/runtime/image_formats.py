"""Formats of images: how their files begin, and which of them are decoded.

JPEG, PNG and WebP always are. Pillow's decoders of the many other formats are where nearly all of its published
security holes are, so that of those only the ones are opened that somebody asks for by name, and most never.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

from PIL import Image

from model.runtime.installing import install_command

ALWAYS = frozenset({"JPEG", "PNG", "WEBP"})  # as Pillow calls them, like all that follows
OPTIONAL = {"avif": "AVIF", "bmp": "BMP", "gif": "GIF", "heic": "HEIF", "tiff": "TIFF"}  # by the words for them
_SPOKEN = {"WEBP": "WebP", "HEIF": "HEIC"}

_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF", b"8BPS": "PSD", b"\x00\x00\x01\x00": "ICO", b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000", b"\x00\x00\x00\x0cJXL ": "JPEG XL", b"\xff\x0a": "JPEG XL", b"<svg": "SVG",
}  # fmt: skip
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

# Their decoders are asked for all pixels in one call, whose time nothing bounds but the number of pixels, at several
# times the work of a JPEG's.
WORK_OF_ONE_CALL = 3
ONE_CALL = frozenset({"AVIF", "HEIF"})

# TIFF's that Pillow or libtiff decode strip by strip in one pass. JPEGs in a TIFF can have any number of scans.
_TIFF_COMPRESSIONS = frozenset(
    {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "group3", "group4"}
)
_TIFF_SIZES = {"strips": 279, "tiles": 325}  # tags of the bytes of each
_TIFF_TILE_SIDES = (322, 323)
_LARGEST_TILE = 4096  # pixels of a side


class MissingDecoderError(Exception):
    """A format was asked for that takes a package which is not installed; the message is one line."""


def format_of(data: bytes | bytearray) -> str | None:
    """The format that a file begins like, or None; what a header claims does not count."""
    head = bytes(data[:64])
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _brand(head[: min(64, int.from_bytes(head[:4], "big"))])
    begins = (name for magic, name in _BEGINNINGS.items() if head.startswith(magic) or head.lstrip().startswith(magic))
    return next(begins, None)


def _brand(box: bytes) -> str:
    """By the brands that a file is said to be read by (ISO 14496-12, section 4.3), the major one and the others."""
    brands = {box[8:12], *(box[begin : begin + 4] for begin in range(16, len(box), 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIC_BRANDS else "ISO media"


def in_words(formats: Collection[str]) -> str:
    """Formats for people, such as "JPEG, PNG or WebP"."""
    names = [spoken(name) for name in sorted(formats, key=lambda name: (name not in ALWAYS, name))]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def spoken(image_format: str) -> str:
    """A format's name for people."""
    return _SPOKEN.get(image_format, image_format)


def words_of_open(words: Collection[str]) -> list[str]:
    """What the formats are called that are decoded when those of these words are as well, such as "jpeg" and "heic"."""
    return [*sorted(name.lower() for name in ALWAYS), *sorted(set(words))]


def open_formats(words: Collection[str]) -> frozenset[str]:
    """Formats that are decoded when those of these words are as well; their decoders are loaded.

    Raises:
        MissingDecoderError: one takes a package that is not installed.
    """
    for word in words:
        if word == "heic":
            _open_heic()
        else:
            module = import_module(f"PIL.{word.capitalize()}ImagePlugin")
            if word == "avif":
                if not module.SUPPORTED:
                    raise MissingDecoderError("the format avif takes a Pillow that is built with it")
                module.__dict__["DEFAULT_MAX_THREADS"] = 1  # a thread of the pool is one core's work
    return ALWAYS | {OPTIONAL[word] for word in words}


def _open_heic() -> None:
    try:
        import pillow_heif
    except ImportError:
        command = install_command("detr-serve[heic]")
        raise MissingDecoderError(f"the format heic takes a package that is not installed: {command}") from None
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def is_simple_tiff(image: Image.Image, size: int) -> bool:
    """Whether an opened TIFF of so many bytes can be decoded in one pass over them, in memory of its pixels.

    Parts that lie over each other would be decoded once for each, and a tile can be far larger than its image.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]  # of Pillow's TiffImageFile
    stored = sum(sum(tags.get(tag, ())) for tag in _TIFF_SIZES.values())
    tiles_fit = all(tags.get(tag, 0) <= _LARGEST_TILE for tag in _TIFF_TILE_SIDES)
    return image.info.get("compression") in _TIFF_COMPRESSIONS and stored <= size and tiles_fit
