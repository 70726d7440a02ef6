"""Finding the fields `image` of a multipart form that is already in memory (RFC 2046, section 5.1.1; RFC 7578).

It is read here, because python-multipart takes no preamble, no padding after the first boundary and no folded headers,
and copies the whole body. A form is simple: a boundary, headers, an empty line, a field, a boundary, and so on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from python_multipart.multipart import parse_options_header

from model.runtime.python_lock import find_part, joined
from service.errors import BrokenMultipartError, EmptyUploadError, FieldError
from service.images.several_images import ImagePart, check_image_count, only_image

FIELD = b"image"

# Bytes, and lines: far more than any client sends.
_MAX_BOUNDARY, _MAX_HEAD, _MAX_HEADERS = 256, 8192, 8
_FOLD = re.compile(rb"\r\n[ \t]+")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)")
_PADDING = re.compile(rb"[ \t]*\r\n")


@dataclass(frozen=True)
class _Delimiter:
    """A line that begins with the boundary: where it begins and ends in the body, and whether it ends the form."""

    begin: int
    end: int
    is_last: bool


def image_field(body: bytes | bytearray, content_type: str) -> bytes:
    """The bytes of the field `image` of a form.

    Other fields are refused rather than ignored, because a threshold sent as a field would silently do
    nothing.

    Raises:
        BrokenMultipartError: the body is not a complete form, or the content type names no boundary.
        FieldError: the field is missing, or there are others.
        EmptyUploadError: the field has no bytes.
        SeveralImagesError: there are several of it.
        TooManyImagesError: there are more than anybody accepts.
    """
    boundary = b"--" + _boundary(content_type)
    parts: list[ImagePart] = []
    delimiter = _delimiter(body, boundary, 0)
    while not delimiter.is_last:
        check_image_count(len(parts) + 1)
        name, begin = _head(body, delimiter.end)
        delimiter = _delimiter(body, boundary, begin)
        if name != FIELD:
            raise FieldError("the form may have fields `image` only; parameters go into the query")
        parts.append(partial(_field, body, begin, delimiter.begin - 2))
    if not parts:
        raise FieldError("the form has no field `image`")
    return only_image(parts)


def _head(body: bytes | bytearray, start: int) -> tuple[bytes | None, int]:
    """The name of a field whose headers start there, and where the field begins."""
    # Where there are no headers, their empty line follows the boundary at once.
    end = body.find(b"\r\n\r\n", start - 2, start + _MAX_HEAD)
    if end < 0:
        raise BrokenMultipartError("a field of the multipart form has no end of headers, or too long ones")
    return _name(bytes(body[start:end])), end + 4


def _field(body: bytes | bytearray, begin: int, end: int) -> bytes:
    # The newline before a boundary belongs to it; a field without bytes may share it with the headers.
    if end <= begin:
        raise EmptyUploadError("the field `image` is empty")
    return joined([memoryview(body)[begin:end]])


def _boundary(content_type: str) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise BrokenMultipartError("the content type names no multipart boundary, or too long a one")
    return boundary


def _delimiter(body: bytes | bytearray, boundary: bytes, start: int) -> _Delimiter:
    """The first line that begins with the boundary, from a position on, at which a line begins.

    Raises:
        BrokenMultipartError: there is none, or it goes on with something else, which nothing in a form may.
    """
    if body.startswith(boundary, start):
        begin = start
    elif (newline := find_part(body, b"\r\n" + boundary, start)) >= 0:
        begin = newline + 2
    else:
        raise BrokenMultipartError("the multipart form ends too early")
    after = begin + len(boundary)
    if body.startswith(b"--", after):
        return _Delimiter(begin, after + 2, is_last=True)
    if (padding := _PADDING.match(body, after, after + _MAX_HEAD)) is None:
        raise BrokenMultipartError("a boundary of the multipart form cannot be read")
    return _Delimiter(begin, padding.end(), is_last=False)


def _name(head: bytes) -> bytes | None:
    """The name that the headers of a field give it."""
    lines = _FOLD.sub(b" ", head).split(b"\r\n") if head else []
    headers = [_HEADER.fullmatch(line) for line in lines]
    if len(headers) > _MAX_HEADERS or None in headers:
        raise BrokenMultipartError("the headers of a field of the multipart form cannot be read")
    fields = {header[1].lower(): header[2].strip(b" \t") for header in headers if header is not None}
    return parse_options_header(fields.get(b"content-disposition", b""))[1].get(b"name")
