"""The form of an answer that a client prefers."""

from __future__ import annotations

import pytest

from service.http.accept import preferred_picture, prefers_png


@pytest.mark.parametrize(
    ("accept", "png"),
    [
        ("", False),
        ("*/*", False),
        ("image/png", True),
        ("IMAGE/PNG", True),
        ("image/*", True),
        ("image/png, application/json", False),
        ("image/png, application/json;q=0.9", True),
        ("image/png;q=0.5, application/json", False),
        ("image/png, */*;q=0.1", True),
        ("image/png;q=0", False),
        ("image/*;q=0.2, image/png;q=0, */*;q=0.1", False),
        ("application/json;q=0, */*", True),
        ("text/html", False),
        ("image/png;q=much", False),
        ("image/png;q=9", True),
        (";;,,q=1", False),
    ],
)
def test_png_is_given_to_who_prefers_it(accept: str, png: bool) -> None:
    assert prefers_png(accept) is png


@pytest.mark.parametrize(
    ("accept", "picture"),
    [
        ("", "png"),
        ("*/*", "png"),
        ("application/json", "png"),
        ("image/*", "png"),
        ("image/jpeg", "jpeg"),
        ("IMAGE/WEBP", "webp"),
        ("image/jpeg, image/png", "png"),
        ("image/jpeg, image/png;q=0.9", "jpeg"),
        ("image/webp, image/jpeg", "jpeg"),
        ("image/gif, */*;q=0.1", "png"),
        ("image/png;q=0, image/*", "jpeg"),
        ("image/avif,image/webp,image/apng,*/*;q=0.8", "webp"),
        ("image/jpeg;q=much", "png"),
    ],
)
def test_a_picture_is_given_in_the_format_that_is_preferred(accept: str, picture: str) -> None:
    assert preferred_picture(accept) == picture
