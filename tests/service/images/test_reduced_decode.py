"""Decoding a JPEG at a fraction of its size: the same picture, the same limits, nearly the same answer."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.runtime.artifact.file import read_artifact
from model.runtime.decode import LEAST_MARGIN, BrokenImageError, ImageLimits, ImageTooLargeError, decode, decode_reduced
from model.runtime.engines.opening import open_engine
from model.runtime.preprocess import resize
from model.runtime.resize_rule import Bounds, Edges, FixedSize, OwnSize, ResizeRule
from service.images.prepare import ImageRules, prepare
from service.process.trace import Trace
from service.settings import DEMO_MODEL
from tests.benchmarks.reduced_decode import Changes, infer, photo
from tests.service.conftest import Serving, encode

LIMITS = ImageLimits(max_pixels=50_000_000, max_side=16_384)
RULE = Edges(64, 96)
WHOLE, REDUCED = (ImageRules(LIMITS, RULE, way) for way in (False, True))
SIDES = st.integers(1, 700)
RULES = st.one_of(
    st.tuples(st.integers(1, 300), st.integers(1, 500)).map(sorted).map(lambda edges: Edges(edges[0], edges[1])),
    st.builds(FixedSize, st.integers(1, 300), st.integers(1, 300)),
    st.builds(Bounds, st.integers(1, 300), st.integers(1, 300)),
    st.just(OwnSize()),
)


def picture(width: int, height: int) -> Image.Image:
    """Ramps and a soft wave without any symmetry, which a reduced decode loses nothing of."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    wave = 60 * np.sin(5 * rows + 3 * columns)
    return Image.fromarray(np.stack([rows * 255, columns * 255, 128 + wave], axis=-1).astype(np.uint8))


def jpeg(width: int, height: int, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture(width, height), quality=95, subsampling=0, exif=exif, **options)


@given(SIDES, SIDES, RULES, st.integers(1, 8))
def test_the_reduced_image_is_as_large_as_the_network_wants_it_and_knows_its_own_size(
    width: int, height: int, rule: ResizeRule, orientation: int
) -> None:
    data = jpeg(width, height, orientation)
    whole, reduced = decode(data, LIMITS), decode_reduced(data, LIMITS, rule)
    assert reduced.orig_size == whole.shape[:2]
    target = rule.size(*reduced.orig_size)
    scale = next(n for n in (1, 2, 4, 8) if tuple(-(-side // n) for side in whole.shape[:2]) == reduced.image.shape[:2])
    if scale > 1:
        assert all(LEAST_MARGIN * side <= small for side, small in zip(target, reduced.image.shape[:2], strict=True))
    # It is the whole image, at that scale, that the box holds.
    left, top, right, bottom = reduced.box
    assert ((bottom - top) * scale, (right - left) * scale) == pytest.approx(reduced.orig_size)
    assert min(left, top) >= 0
    assert (bottom, right) <= reduced.image.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(803, 601), (1001, 1501), (640, 512), (515, 1031)])
def test_every_orientation_shows_the_same_picture(size: tuple[int, int], orientation: int) -> None:
    data = jpeg(*size, orientation)
    exact, reduced = (prepare(data, "image/jpeg", rules, Trace()) for rules in (WHOLE, REDUCED))
    assert reduced.orig_size == exact.orig_size
    assert reduced.resized.shape == exact.resized.shape
    # Were the box ignored or not turned with the image, the ramps would lie up to 4 levels beside each other.
    assert np.abs(exact.resized.astype(int) - reduced.resized).max() <= 2
    assert decode_reduced(data, LIMITS, RULE).image.size < decode(data, LIMITS).size / 10


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 1}])
def test_other_kinds_of_jpeg_are_reduced_too(options: dict[str, Any]) -> None:
    data = jpeg(900, 700, **options)
    reduced = decode_reduced(data, LIMITS, RULE)
    assert reduced.image.shape == (175, 225, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_of_another_mode_is_reduced_to_rgb(mode: str) -> None:
    data = encode(picture(900, 700).convert(mode), quality=95)
    reduced = prepare(data, "image/jpeg", REDUCED, Trace())
    exact = resize(decode(data, LIMITS), RULE)
    assert np.abs(exact.astype(int) - reduced.resized).max() <= 3


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_other_formats_are_decoded_whole(image_format: str) -> None:
    data = encode(picture(900, 700), image_format)
    reduced = decode_reduced(data, LIMITS, RULE)
    np.testing.assert_array_equal(reduced.image, decode(data, LIMITS))
    assert reduced.box == (0, 0, 900, 700)


def test_an_image_that_is_not_shrunk_by_more_than_the_margin_is_decoded_whole() -> None:
    data = jpeg(191, 250)
    np.testing.assert_array_equal(decode_reduced(data, LIMITS, RULE).image, decode(data, LIMITS))
    assert decode_reduced(jpeg(192, 250), LIMITS, RULE).image.shape == (125, 96, 3)


@given(SIDES, SIDES)
def test_without_it_an_image_is_prepared_as_ever(width: int, height: int) -> None:
    data = jpeg(width, height)
    prepared = prepare(data, "image/jpeg", WHOLE, Trace(), draws=True)
    image = decode(data, LIMITS)
    np.testing.assert_array_equal(prepared.resized, resize(image, RULE))
    assert prepared.decode_again is not None
    np.testing.assert_array_equal(prepared.decode_again(), image)


def test_an_image_that_is_drawn_on_is_decoded_whole_for_that() -> None:
    data = jpeg(900, 700)
    drawn = prepare(data, "image/jpeg", REDUCED, Trace(), draws=True)
    assert drawn.decode_again is not None
    np.testing.assert_array_equal(drawn.decode_again(), decode(data, LIMITS))
    other = prepare(data, "image/jpeg", REDUCED, Trace())
    assert other.decode_again is None
    np.testing.assert_array_equal(drawn.resized, other.resized)  # so that it shows what the JSON says


@pytest.mark.parametrize("limits", [ImageLimits(900 * 700 - 1, 900), ImageLimits(900 * 700, 899)])
def test_the_limits_are_of_the_whole_image(limits: ImageLimits) -> None:
    decode_reduced(jpeg(900, 700), ImageLimits(900 * 700, 900), RULE)
    with pytest.raises(ImageTooLargeError):
        decode_reduced(jpeg(900, 700), limits, RULE)


def test_a_truncated_jpeg_is_broken_at_any_size() -> None:
    data = jpeg(900, 700)
    with pytest.raises(BrokenImageError):
        decode_reduced(data[: len(data) // 2], LIMITS, RULE)


def test_of_several_pictures_in_one_file_the_first_is_reduced() -> None:
    data = encode(picture(900, 700), "MPO", save_all=True, append_images=[Image.new("RGB", (900, 700))], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    reduced = prepare(data, "image/jpeg", REDUCED, Trace())
    assert np.abs(resize(np.asarray(picture(900, 700)), RULE).astype(int) - reduced.resized).max() <= 4


def test_detections_of_the_demo_model_stay_where_they_are() -> None:
    """What `reduced_decode` is worth having for: fine detail that the decoder leaves out, and the resize averages, is
    seldom what a detection hangs on. A query in doubt may still move (the benchmark has the worst of many).
    """
    artifact = read_artifact(DEMO_MODEL)
    engine, rule = open_engine(artifact, "cpu", threads=1), artifact.metadata.resize
    moved = Changes(artifact.metadata.detect_threshold)
    for index in range(6):
        data = photo(index, 480)
        whole, less = (prepare(data, "image/jpeg", ImageRules(LIMITS, rule, way), Trace()) for way in (False, True))
        assert (whole.resized != less.resized).any()
        moved.add(infer(engine, whole.resized), infer(engine, less.resized), whole.orig_size)
    assert len(moved.boxes) > 20
    assert np.median(moved.probabilities) < 0.005
    assert np.quantile(moved.probabilities, 0.9) < 0.1
    assert max(moved.boxes) < 0.02, "of the longer side"


@pytest.mark.anyio
async def test_a_service_that_decodes_at_a_fraction_answers_in_the_pictures_own_pixels(serving: Serving) -> None:
    """Once a photo is large enough to be reduced, which is seen by what the network is given."""
    data, answers = jpeg(1600, 1200), []
    for reduced in (False, True):
        async with serving(reduced_decode=reduced) as app:
            response = await app.detect(data)
            assert response.status_code == 200
            answers.append(response.json())
    whole, fraction = answers
    assert whole["image"] == fraction["image"] == {"width": 1600, "height": 1200}
    assert whole["detections"]
    for before, after in zip(whole["detections"], fraction["detections"], strict=True):
        assert after["label"] == before["label"]
        assert after["box"] == pytest.approx(before["box"], abs=0.02 * 1600)
