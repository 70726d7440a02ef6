"""Finding the one field `image` in a multipart form that is already in memory (RFC 2046, section 5.1.1; RFC 7578).

It is read here, because python-multipart takes no preamble, no padding after the first boundary and no folded headers,
and copies the whole body. A form of one field is simple: a boundary, headers, an empty line, the field, a boundary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from service.errors import BrokenMultipartError, EmptyUploadError, FieldError

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


def image_bytes(body: bytes | bytearray, content_type: str) -> bytes | bytearray:
    """The bytes of the image in a body that is one, or a form with one. Raises what `image_field` raises."""
    return image_field(body, content_type) if content_type.lower().startswith("multipart/") else body


def image_field(body: bytes | bytearray, content_type: str) -> bytes:
    """The bytes of the field `image`, which has to be the form's only field.

    Other fields are refused rather than ignored, because a threshold sent as a field would silently do
    nothing.

    Raises:
        BrokenMultipartError: the body is not a complete form, or the content type names no boundary.
        FieldError: the field is missing, repeated, or not alone.
        EmptyUploadError: the field has no bytes.
    """
    boundary = b"--" + _boundary(content_type)
    first = _delimiter(body, boundary, 0)
    if first.is_last:
        raise FieldError("the form has no field `image`")
    # Where there are no headers, their empty line follows the boundary at once.
    head_end = body.find(b"\r\n\r\n", first.end - 2, first.end + _MAX_HEAD)
    if head_end < 0:
        raise BrokenMultipartError("a field of the multipart form has no end of headers, or too long ones")
    name = _name(bytes(body[first.end : head_end]))
    begin = head_end + 4
    last = _delimiter(body, boundary, begin)
    if not last.is_last:
        raise FieldError("the form has to have exactly one field, `image`; parameters go into the query")
    if name != FIELD:
        raise FieldError("the form has no field `image`")
    # The newline before a boundary belongs to it; a field without bytes may share it with the headers.
    if last.begin - 2 <= begin:
        raise EmptyUploadError("the field `image` is empty")
    return bytes(memoryview(body)[begin : last.begin - 2])


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
    elif (newline := body.find(b"\r\n" + boundary, start)) >= 0:
        begin = newline + 2
    else:
        raise BrokenMultipartError("the multipart form ends too early")
    after = begin + len(boundary)
    if body.startswith(b"--", after):
        return _Delimiter(begin, after + 2, is_last=True)
    if (padding := _PADDING.match(body, after)) is None:
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
