"""One picture in every form that it can have, over HTTP and in process."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detr_client import Client, LocalModel, Source, SourceError
from detr_client.replies import query_of
from detr_client.sources import is_many, picture_bytes, upright_rgb
from model.runtime.decode import LARGEST, decode


@pytest.fixture(scope="module")
def png(tmp_path_factory: pytest.TempPathFactory, example: Path) -> Path:
    """The example without loss, so that its pixels are the same in every form."""
    path = tmp_path_factory.mktemp("png") / "example.png"
    with Image.open(example) as image:
        image.resize((160, 120)).save(path)
    return path


FORMS: dict[str, Callable[[Path], Source]] = {
    "str": str,
    "path": lambda path: path,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "PIL": Image.open,
    "array": lambda path: np.asarray(Image.open(path)),
    "RGBA": lambda path: np.asarray(Image.open(path).convert("RGBA")),
    "not contiguous": lambda path: np.asfortranarray(Image.open(path)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_is_the_same_in_every_form_over_http_and_in_process(
    form: str, png: Path, client: Client, local: LocalModel
) -> None:
    expected = client.detect(png)
    assert len(expected) > 2
    assert client.detect(FORMS[form](png)) == local.detect(FORMS[form](png)) == expected
    assert client.segment(FORMS[form](png)) == local.segment(FORMS[form](png))


def test_an_open_file_and_an_array_of_opencv_are_the_same_picture(png: Path, client: Client, local: LocalModel) -> None:
    bgr = np.asarray(Image.open(png))[:, :, ::-1]
    for asked in (client, local):
        with png.open("rb") as file:
            assert asked.detect(file) == asked.detect(bgr, bgr=True) == asked.detect(png)


def test_a_grey_array_is_a_grey_picture(client: Client) -> None:
    grey = np.arange(64 * 48, dtype=np.uint8).reshape(48, 64)
    assert client.detect(grey) == client.detect(np.stack([grey] * 3, axis=-1)) == client.detect(grey[:, :, None])


def test_pixels_can_be_sent_as_jpeg(png: Path) -> None:
    with Image.open(png) as image:
        assert picture_bytes(image, jpeg_quality=80) == picture_bytes(np.asarray(image), jpeg_quality=80)
        assert picture_bytes(image, jpeg_quality=80)[:2] == b"\xff\xd8"


def test_grey_of_16_bits_is_the_same_picture_as_a_file_and_as_an_image(local: LocalModel) -> None:
    grey = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    images = {
        "I;16": Image.fromarray(grey),
        "I;16B": Image.frombytes("I;16B", (64, 48), grey.astype(">u2").tobytes()),
        "I": Image.fromarray(grey.astype(np.int32)),
    }
    expected, drawn = local.detect(file.getvalue()), upright_rgb(file.getvalue())
    assert np.asarray(drawn).max() == round(int(grey.max()) * 255 / 65_535)
    for mode, image in images.items():
        assert image.mode == mode
        assert local.detect(image) == expected, mode
        assert upright_rgb(image).tobytes() == drawn.tobytes(), mode
    assert np.asarray(upright_rgb(Image.new("I", (2, 2), 200))).max() == 200


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA", "P"])
def test_what_is_transparent_is_white_as_on_the_server(mode: str) -> None:
    black = Image.new("RGBA", (4, 4), (0, 0, 0, 51))
    image = black if mode == "RGBA" else black.convert("RGBa") if mode == "RGBa" else black.convert("LA")
    if mode == "La":
        image = image.convert("La")
    elif mode in ("P", "PA"):
        image = Image.new("P", (4, 4))
        image.putpalette([0, 0, 0])
        image.info["transparency"] = bytes([51])
        image = image.convert("PA") if mode == "PA" else image
    for source in (image, picture_bytes(image)):
        assert set(np.asarray(upright_rgb(source)).ravel()) == {204}, mode
    assert set(decode(picture_bytes(image), LARGEST).ravel()) == {204}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "F", "HSV"])
def test_pil_images_of_other_modes_are_pictures(mode: str, png: Path) -> None:
    with Image.open(png) as image:
        sent = Image.open(
            io.BytesIO(picture_bytes(image.convert("RGB").convert("L" if mode == "F" else mode).convert(mode)))
        )
        assert sent.format == "PNG"
        assert sent.size == image.size


def test_a_photo_is_upright_in_every_form(tmp_path: Path, example: Path, client: Client) -> None:
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(example) as image:
        image.resize((160, 120)).save(photo, exif=exif, quality=95)
    of_file, of_image = client.detect(photo), client.detect(Image.open(photo))
    assert (of_file.width, of_file.height) == (120, 160)
    assert of_image == of_file
    assert upright_rgb(photo).size == upright_rgb(Image.open(photo)).size == (120, 160)
    assert of_file.draw(photo).size == (120, 160)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((4, 4, 3)), "float64 and has to be of uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "as a list"),
        (np.zeros((3, 40, 40), np.uint8), "3 x 40 x 40 and has to be height x width x 3"),
        (np.zeros((0, 4, 3), np.uint8), "0 x 4 x 3"),
        (io.StringIO("text"), "opened with mode 'rb'"),
        ("https://example.org/a.jpg", "fetch it"),
        ("HTTP://example.org/a.jpg", "fetch it"),
        ("s3://bucket/a.jpg", "fetch it"),
        (b"", "no bytes"),
        (io.BytesIO(b""), "seek"),
        (np.array(3, np.uint8), "a single number"),
        (Image.new("RGB", (0, 5)), "no pixels: 0 x 5"),
        ({"a": b"b"}, "a dict is no picture"),
        (7, "a int is no picture"),
        (None, "a NoneType is no picture"),
    ],
)
def test_what_is_no_picture_is_said_so(source: Any, reason: str, client: Client, local: LocalModel) -> None:
    for asked in (client, local):
        with pytest.raises(SourceError, match=reason):
            asked.detect(source)


def test_a_missing_file_is_the_error_of_python(tmp_path: Path, client: Client, local: LocalModel) -> None:
    for asked in (client, local):
        with pytest.raises(FileNotFoundError):
            asked.detect(tmp_path / "none.jpg")


def test_one_is_told_from_several() -> None:
    assert not any(
        is_many(one) for one in ("a", b"a", Path("a"), io.BytesIO(), np.zeros((1, 1)), Image.new("L", (1, 1)))
    )
    assert is_many(["a"])
    assert is_many(source for source in "ab")


def test_an_empty_file_is_said_so(tmp_path: Path, local: LocalModel) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(SourceError, match="the file is empty"):
        local.detect(tmp_path / "empty.jpg")


def test_ids_may_be_numbers_of_numpy() -> None:
    assert query_of(None, np.int64(7)) == query_of(None, 7) == query_of(None, np.array([7])) == {"classes": "7"}
