"""A request's body that holds more than one image, of which each is answered by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.errors import TooManyImagesError

# From nothing to the bytes of one image, which are made when it is decoded and not before. Raises ServiceError.
ImagePart = Callable[[], bytes]

MOST_IMAGES = 1_000  # in one request, whatever the settings are


class SeveralImagesError(Exception):
    """One image was looked for in a body that has several; whoever can answers each of them."""

    def __init__(self, parts: Sequence[ImagePart]) -> None:
        super().__init__(f"{len(parts)} images")
        self.parts = parts


def check_image_count(count: int, most: int = MOST_IMAGES) -> None:
    """Raise TooManyImagesError if a request has more images than are accepted."""
    if count > most:
        raise TooManyImagesError(f"the request has more than {most} images")


def only_image(parts: Sequence[ImagePart]) -> bytes:
    """The bytes of the image if there is one. Raises SeveralImagesError if there are more, and what its part does."""
    if len(parts) > 1:
        raise SeveralImagesError(parts)
    return parts[0]()
