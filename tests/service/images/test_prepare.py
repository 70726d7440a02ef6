from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.runtime.decode import ImageTooLargeError
from model.runtime.resize_rule import FixedSize, OwnSize
from service.images.prepare import ImageRules, prepare
from service.process.trace import Trace
from service.settings import Settings
from tests.service.conftest import encode
from tests.tiny_artifact import tiny_metadata


def upload(width: int, height: int) -> bytes:
    return encode(Image.fromarray(np.full((height, width, 3), 90, np.uint8)), "PNG")


def test_an_image_gets_the_size_that_the_models_rule_says_and_keeps_its_own_for_the_answer() -> None:
    rules = ImageRules.of(Settings(), replace(tiny_metadata(), resize=FixedSize(height=40, width=60)))
    prepared = prepare(upload(120, 70), "image/png", rules, Trace())
    assert prepared.resized.shape == (40, 60, 3)
    assert prepared.orig_size == (70, 120)


def test_where_images_keep_their_size_one_larger_than_a_batch_may_be_is_refused() -> None:
    settings = Settings(max_batch_pixels=10_000)
    own_size, bounded = (replace(tiny_metadata(), resize=rule) for rule in (OwnSize(), FixedSize(40, 60)))
    assert prepare(upload(100, 100), "image/png", ImageRules.of(settings, own_size), Trace()).resized.size == 30_000
    with pytest.raises(ImageTooLargeError, match="more than 10000 pixels"):
        prepare(upload(100, 101), "image/png", ImageRules.of(settings, own_size), Trace())
    prepare(upload(100, 101), "image/png", ImageRules.of(settings, bounded), Trace())
