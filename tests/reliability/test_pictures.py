"""Every kind of picture through both endpoints of a real server with the demo model (rows I)."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.data.shapes.command import FIRST_INDEX
from model.data.shapes.scene import draw_scene, sample_scene
from tests.coco_segments import read_id_png
from tests.model.exif_blocks import ORIENTATIONS, as_stored
from tests.server_process import ServerProcess
from tests.service.conftest import encode

Answer = dict[str, Any]
WIDTH, HEIGHT = 300, 200
SURE = 0.6  # scores above this are found in both of two answers that agree


def scene(index: int = 0) -> Image.Image:
    """A picture with objects in it, wider than it is high."""
    picture = draw_scene(sample_scene(1, FIRST_INDEX["val"] + index), WIDTH).image
    return Image.fromarray(picture[:HEIGHT, :WIDTH])


def ask(server: ServerProcess, body: bytes, *, status: int = 200) -> tuple[Answer, Answer]:
    """What both endpoints answer, after checking what holds for every answer."""
    found = server.lonely.post(f"{server.url}/detect", files={"image": body})
    segmented = server.lonely.post(f"{server.url}/segment", files={"image": body})
    assert (found.status_code, segmented.status_code) == (status, status), found.text
    if status != 200:
        assert found.json()["error"]["code"] == segmented.json()["error"]["code"]
        return found.json(), segmented.json()
    detections, segments = found.json(), segmented.json()
    assert detections["image"] == segments["image"]
    width, height = detections["image"]["width"], detections["image"]["height"]
    for thing in [*detections["detections"], *segments["segments"]]:
        box = thing["box"]
        assert 0 <= box["x1"] < box["x2"] <= width
        assert 0 <= box["y1"] < box["y2"] <= height
        assert 0 <= thing["score"] <= 1
    ids = id_map(segments)
    assert ids.shape == (height, width)
    assert set(np.unique(ids)) <= {0} | {segment["id"] for segment in segments["segments"]}
    return detections, segments


def id_map(answer: Answer) -> NDArray[np.int32]:
    return read_id_png(base64.b64decode(answer["panoptic_png"]))


def iou(one: Answer, other: Answer) -> float:
    """Intersection over union of two boxes."""
    width = min(one["x2"], other["x2"]) - max(one["x1"], other["x1"])
    height = min(one["y2"], other["y2"]) - max(one["y1"], other["y1"])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))


def assert_alike(found: tuple[Answer, Answer], expected: tuple[Answer, Answer], *, score: float = 0.05) -> None:
    """Both answers of two pictures tell of the same objects in the same places, and of the same segments."""
    assert found[0]["image"] == expected[0]["image"]
    for mine, theirs in ((found[0], expected[0]), (expected[0], found[0])):
        for object_ in (object_ for object_ in mine["detections"] if object_["score"] > SURE):
            twins = [other for other in theirs["detections"] if other["label"] == object_["label"]]
            twin = max(twins, key=lambda other: iou(object_["box"], other["box"]))
            assert iou(object_["box"], twin["box"]) >= 0.95
            assert twin["score"] == pytest.approx(object_["score"], abs=score)
    one, other = (label_map(answer[1]) for answer in (found, expected))
    assert (one == other).mean() >= 0.99


def label_map(segments: Answer) -> NDArray[np.int32]:
    """The category of every pixel, 0 where there is none."""
    categories = {segment["id"]: segment["category_id"] for segment in segments["segments"]}
    lookup = np.zeros(max([0, *categories]) + 1, dtype=np.int32)
    for number, category in categories.items():
        lookup[number] = category
    return lookup[id_map(segments)]


@pytest.fixture(scope="module")
def upright(demo_server: ServerProcess) -> tuple[Answer, Answer]:
    """The answers to the scene as it is."""
    answers = ask(demo_server, encode(scene(), "JPEG", quality=95))
    assert len([found for found in answers[0]["detections"] if found["score"] > SURE]) >= 2, "else nothing is proved"
    return answers


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.row(id="I")
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_answered_in_the_frame_that_is_displayed(
    demo_server: ServerProcess, upright: tuple[Answer, Answer], orientation: int
) -> None:
    stored = as_stored(scene(), orientation)
    answers = ask(demo_server, encode(stored, "JPEG", quality=95, exif=exif(orientation)))
    assert answers[0]["image"] == {"width": WIDTH, "height": HEIGHT}
    assert_alike(answers, upright)


@pytest.mark.row(id="I")
@pytest.mark.parametrize("data", [exif(0), exif(9), exif(65_535), b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff"])
def test_an_orientation_that_means_nothing_counts_as_none(
    demo_server: ServerProcess, upright: tuple[Answer, Answer], data: Image.Exif | bytes
) -> None:
    assert ask(demo_server, encode(scene(), "JPEG", quality=95, exif=data)) == upright


def with_alpha(image: Image.Image) -> Image.Image:
    """The picture with a corner that can be seen through, and an edge that nearly can."""
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 90, 60))
    alpha.paste(60, (90, 0, 100, 60))
    image = image.copy()
    image.putalpha(alpha)
    return image


def over_white(image: Image.Image) -> Image.Image:
    """What the picture looks like on white paper."""
    rgba = image.convert("RGBA")
    paper = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(paper, rgba).convert("RGB")


def sixteen_bit_gray() -> tuple[bytes, Image.Image]:
    gray = np.asarray(scene().convert("L"))
    # Above 255 everywhere: a conversion that clips would see white.
    return encode(Image.fromarray(gray.astype(np.uint16) * 257), "PNG"), Image.fromarray(gray).convert("RGB")


def sixteen_bit_rgb() -> tuple[bytes, Image.Image]:
    """Pillow does not write such files."""
    pixels = (np.asarray(scene()).astype(np.uint16) * 257).astype(">u2")
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + body, scene()


def palette_with_a_hole() -> tuple[bytes, Image.Image]:
    palette = scene().quantize(64)
    pixels = np.asarray(palette)
    hole = int(pixels[0, 0])
    twin = np.asarray(palette.convert("RGB")).copy()
    twin[pixels == hole] = 255
    return encode(palette, "PNG", transparency=hole), Image.fromarray(twin)


def animated(image_format: str, **options: Any) -> Callable[[], tuple[bytes, Image.Image]]:
    def make() -> tuple[bytes, Image.Image]:
        return encode(scene(), image_format, save_all=True, append_images=[scene(1), scene(2)], **options), scene()

    return make


def png(image: Image.Image, twin: Image.Image | None = None) -> tuple[bytes, Image.Image]:
    return encode(image, "PNG"), image.convert("RGB") if twin is None else twin


# A file, and the picture in plain RGB that it looks like.
KINDS: dict[str, Callable[[], tuple[bytes, Image.Image]]] = {
    "CMYK, inverted as Adobe has it": lambda: (encode(scene().convert("CMYK"), "JPEG", quality=95), scene()),
    "gray JPEG": lambda: (encode(scene().convert("L"), "JPEG", quality=95), scene().convert("L").convert("RGB")),
    "progressive JPEG": lambda: (encode(scene(), "JPEG", quality=95, progressive=True), scene()),
    "WebP": lambda: (encode(scene(), "WEBP", quality=95), scene()),
    "1": lambda: png(scene().convert("1")),
    "L": lambda: png(scene().convert("L")),
    "LA": lambda: png(with_alpha(scene().convert("L")), over_white(with_alpha(scene().convert("L")))),
    "P": lambda: png(scene().quantize(64)),
    "P with tRNS": palette_with_a_hole,
    "RGBA": lambda: png(with_alpha(scene()), over_white(with_alpha(scene()))),
    "RGBA WebP": lambda: (encode(with_alpha(scene()), "WEBP", lossless=True), over_white(with_alpha(scene()))),
    "I;16": sixteen_bit_gray,
    "RGB of 16 bits": sixteen_bit_rgb,
    "APNG": animated("PNG"),
    "animated WebP": animated("WEBP", lossless=True),
    "MPO": animated("MPO", quality=95),
}  # fmt: skip


@pytest.mark.row(id="I")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_answered_like_its_rgb_twin(demo_server: ServerProcess, kind: str) -> None:
    body, twin = KINDS[kind]()
    assert twin.mode == "RGB"
    assert_alike(ask(demo_server, body), ask(demo_server, encode(twin, "PNG")))


@pytest.mark.row(id="I")
@pytest.mark.parametrize(
    ("size", "status"),
    [((1, 1), 200), ((1, 3), 200), ((3, 1), 200), ((3, 3), 200), ((3, 4000), 200), ((4000, 3), 200), ((1, 16_384), 200),
     ((1, 20_000), 413), ((65_500, 1), 413), ((9000, 9000), 413)],
)  # fmt: skip
def test_every_shape_has_an_answer_or_a_clear_refusal(
    demo_server: ServerProcess, size: tuple[int, int], status: int
) -> None:
    noise = Image.effect_noise(size, 200) if size[0] * size[1] < 100_000 else Image.new("1", size)
    for image_format in ("PNG", "JPEG"):
        detections, _ = ask(demo_server, encode(noise, image_format), status=status)
        if status == 200:
            assert detections["image"] == {"width": size[0], "height": size[1]}


@pytest.mark.row(id="I")
def test_nothing_found_is_an_empty_list(demo_server: ServerProcess) -> None:
    body = encode(scene(), "PNG")
    for path, name in (("detect", "detections"), ("segment", "segments")):
        answer = demo_server.lonely.post(f"{demo_server.url}/{path}?threshold=1", files={"image": body})
        assert answer.status_code == 200
        assert answer.json()[name] == []


@pytest.mark.row(id="I")
def test_masks_of_a_large_picture_are_an_answer_of_bounded_size(demo_server: ServerProcess) -> None:
    """Run lengths and one PNG, whatever the picture's size: not a byte for each pixel and segment."""
    large = scene().resize((6000, 4000), Image.Resampling.NEAREST)
    answer = demo_server.lonely.post(f"{demo_server.url}/segment", files={"image": encode(large, "JPEG")})
    assert answer.status_code == 200
    assert len(answer.json()["segments"]) > 1
    assert len(answer.content) < 1_000_000
