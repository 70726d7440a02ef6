"""Finding the one field `image` in a multipart form that is already in memory, without a temporary file."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from service.errors import BrokenMultipartError, EmptyUploadError, FieldError

FIELD = b"image"


@dataclass
class _Part:
    disposition: bytes = b""
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """Collects parts as the parser meets them; the parser calls back with positions in what it was given."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._header_name = b""
        self._header_value = b""

    def on_part_begin(self) -> None:
        # One too many is enough to refuse the form, however many follow.
        if len(self.parts) > 1:
            raise FieldError("the form has to have exactly one field, `image`")
        self.parts.append(_Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self.parts[-1].disposition = self._header_value
        self._header_name = self._header_value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def on_end(self) -> None:
        self.ended = True


def image_field(body: bytes | bytearray, content_type: str) -> bytearray:
    """The bytes of the field `image`, which has to be the form's only field.

    Other fields are refused rather than ignored, because a threshold sent as a field would silently do
    nothing.

    Raises:
        BrokenMultipartError: the body is not a complete form, or the content type names no boundary.
        FieldError: the field is missing, repeated, or not alone.
        EmptyUploadError: the field has no bytes.
    """
    parts = _parse(body, content_type)
    names = [parse_options_header(part.disposition)[1].get(b"name") for part in parts]
    if FIELD not in names:
        raise FieldError("the form has no field `image`")
    if len(parts) > 1:
        raise FieldError("the form has to have exactly one field, `image`; parameters go into the query")
    if not parts[0].data:
        raise EmptyUploadError("the field `image` is empty")
    return parts[0].data


def _parse(body: bytes | bytearray, content_type: str) -> list[_Part]:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BrokenMultipartError("the content type names no multipart boundary")
    form = _Form()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_part_data": form.on_part_data,
                "on_end": form.on_end,
            },
        )
        parser.write(bytes(body))
        parser.finalize()
    except FormParserError:
        raise BrokenMultipartError("the multipart form cannot be read") from None
    if not form.ended:
        raise BrokenMultipartError("the multipart form ends too early")
    return form.parts
