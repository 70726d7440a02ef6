"""Pictures of things that the demo model knows: parts of the documentation's example."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

_EXAMPLE = Path(__file__).parents[1] / "docs" / "example.jpg"


def ten_parts() -> Iterator[bytes]:
    """Ten different ones, as PNG."""
    with Image.open(_EXAMPLE) as example:
        for number in range(10):
            buffer = io.BytesIO()
            example.crop((20 * number, 10 * number, 440 + 20 * number, 390 + 10 * number)).save(buffer, "PNG")
            yield buffer.getvalue()
