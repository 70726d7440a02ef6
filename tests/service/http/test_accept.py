"""Content negotiation between JSON and PNG."""

from __future__ import annotations

import pytest

from service.http.accept import prefers_png


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
