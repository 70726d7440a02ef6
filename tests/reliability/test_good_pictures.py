"""No good picture is refused, however large, of whichever kind, in whatever many scans (row S14)."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from model.runtime.decode import decode
from tests.reliability.conftest import Measured
from tests.reliability.costly_pictures import with_scans
from tests.reliability.fuzz_target import LIMITS

KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "JPEG": ("JPEG", "RGB", {"quality": 90}),
    "JPEG, progressive": ("JPEG", "RGB", {"quality": 90, "progressive": True}),
    "JPEG, gray": ("JPEG", "L", {"quality": 75, "progressive": True}),
    "JPEG, inks": ("JPEG", "CMYK", {"quality": 95, "subsampling": 0}),
    "JPEG, with a restart in each row": ("JPEG", "RGB", {"restart_marker_rows": 1}),
    "JPEG, with metadata": ("JPEG", "RGB", {"icc_profile": bytes(500_000), "comment": b"c" * 60_000}),
    "PNG": ("PNG", "RGB", {"compress_level": 1}),
    "PNG, with transparency": ("PNG", "RGBA", {"compress_level": 6}),
    "PNG, palette": ("PNG", "P", {"compress_level": 9}),
    "PNG, gray": ("PNG", "L", {"compress_level": 0}),
    "PNG, bits": ("PNG", "1", {}),
    "WebP": ("WEBP", "RGB", {"quality": 80, "method": 0}),
    "WebP, lossless": ("WEBP", "RGBA", {"lossless": True, "quality": 0, "method": 0}),
}
COUNT = 500
LARGE = (20, 49)  # megapixels, of a few of each kind
SCANS = ((20, 12.0), (50, 12.0), (100, 4.0), (100, 12.0), (100, 49.0))  # and megapixels


def good_pictures() -> Iterator[tuple[str, bytes]]:
    """Noise over a gradient, so that no decoder has it easy; each by its kind and size."""
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (512, 512, 4), dtype=np.uint8)

    def picture(megapixels: float, mode: str, aspect: float) -> Image.Image:
        width = max(1, round(math.sqrt(megapixels * 1e6 * aspect)))
        height = max(1, round(megapixels * 1e6 / width))
        whole = np.tile(tile, (-(-height // 512), -(-width // 512), 1))[:height, :width]
        return Image.fromarray(whole[..., :3] if mode not in ("RGBA", "CMYK") else whole, None).convert(mode)

    def encoded(kind: str, megapixels: float, aspect: float) -> tuple[str, bytes]:
        image_format, mode, options = KINDS[kind]
        buffer = io.BytesIO()
        picture(megapixels, mode, aspect).save(buffer, image_format, **options)
        return f"{kind}, {megapixels:.2f} MP", buffer.getvalue()

    for kind, megapixels in itertools.product(KINDS, LARGE):
        yield encoded(kind, megapixels, 4 / 3)
    for scans, large in SCANS:
        side = round(math.sqrt(large * 1e6))
        yield f"JPEG of {scans} scans, {large} MP", with_scans(scans, (side, side))
    rest = COUNT - len(KINDS) * len(LARGE) - len(SCANS)
    for kind, _ in zip(itertools.cycle(KINDS), range(rest), strict=False):
        yield encoded(
            kind, float(rng.choice([1e-6, 0.001, 0.05, 0.3, 1.0, 2.0])), float(rng.choice([0.1, 0.7, 1, 1.5, 8]))
        )


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.row(id="S14")
def test_five_hundred_good_pictures_are_decoded(measured: Measured) -> None:
    count = 0
    for name, data in good_pictures():
        assert decode(data, LIMITS).size > 0, name
        count += 1
    assert count == COUNT
    measured("S14", f"{count} pictures of {len(KINDS)} kinds and of up to 100 scans, up to 49 megapixels: none refused")
