"""Which form of an answer a client prefers by its header Accept (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from service.images.pictures import PICTURE_TYPES, PictureFormat


def prefers_png(accept: str) -> bool:
    """True if a PNG is preferred to JSON; JSON wins a tie, and is the answer where neither is asked for."""
    return _quality(accept, "image/png") > _quality(accept, "application/json")


def preferred_picture(accept: str) -> PictureFormat:
    """The format of a picture that is preferred; PNG wins a tie, and is the answer where none is asked for."""
    return PICTURE_TYPES[max(PICTURE_TYPES, key=lambda media_type: _quality(accept, media_type))]


def _quality(accept: str, media_type: str) -> float:
    """Quality of a media type, 0 to 1, by the most specific range that covers it."""
    ranges = [media_type, media_type.partition("/")[0] + "/*", "*/*"]
    best = (len(ranges), 0.0)
    for entry in accept.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        if name in ranges:
            best = min(best, (ranges.index(name), _q_of(parameters)))
    return best[1]


def _q_of(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
