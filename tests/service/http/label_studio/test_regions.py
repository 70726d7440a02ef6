"""Outlines that people are to correct have few corners."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from model.runtime.answers.id_map import IdMap
from model.runtime.answers.outlines import outlines
from service.http.label_studio.regions import simplified


def test_steps_of_pixels_go_and_the_shape_stays() -> None:
    picture = Image.new("1", (400, 300))
    ImageDraw.Draw(picture).ellipse((50, 40, 350, 260), fill=1)
    mask = np.asarray(picture)
    ((ring,),), _ = outlines(IdMap.of(mask.astype(np.uint8)), 1)
    corners = simplified(ring, 1.0)
    drawn = Image.new("1", (400, 300))
    ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in (corners - 0.5).tolist()], fill=1)
    both, either = (mask & np.asarray(drawn)).sum(), (mask | np.asarray(drawn)).sum()
    assert len(corners) < len(ring) / 8
    assert both / either > 0.98


@pytest.mark.parametrize("tolerance", [0.5, 100.0])
def test_a_square_keeps_its_corners_unless_it_is_smaller_than_the_tolerance(tolerance: float) -> None:
    ring = [(1, 1), (9, 1), (9, 9), (1, 9), (1, 1)]
    expected = ring[:-1] if tolerance < 1 else [(1, 1), (9, 9)]
    assert simplified(ring, tolerance).tolist() == [list(corner) for corner in expected]
