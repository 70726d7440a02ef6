"""The web page in a real browser: choose a picture, see what is found in it, and what is said when it fails."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.end_to_end.browser import EXAMPLE, canvas, chromium, names, opened
from tests.model.exif_blocks import LONG, ORIENTATIONS, Entry, as_stored, chunk, exif, jpeg_with, png_with, segment
from tests.server_process import serving

pytestmark = pytest.mark.slow

THINGS = {"ring", "heart", "cross"}
STUFF = {"sky", "grass", "water"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]) -> Iterator[str]:
    need("chromium")
    with serving(None, tmp_path_factory.mktemp("serve"), "--request-timeout-ms", "60000") as server:
        yield server.url


@pytest.fixture
def errors() -> list[str]:
    """What the page's console and its uncaught exceptions said that nobody may see."""
    return []


@pytest.fixture
def page(url: str, errors: list[str]) -> Iterator[Page]:
    """The page, open, with the model described; at the end it must have asked its own service only."""
    with chromium() as browser, opened(browser.new_context(), url, errors) as page:
        yield page


def changed(picture: NDArray[np.int16], plain: NDArray[np.int16]) -> float:
    """Share of the pixels that differ."""
    return float((picture != plain).any(axis=-1).mean())


def clearly_changed(picture: NDArray[np.int16], plain: NDArray[np.int16]) -> float:
    """Share of the pixels that differ by more than resizing and compressing change them."""
    return float((np.abs(picture - plain).max(axis=-1) > 48).mean())


def saved(picture: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def png_of_a_wrong_checksum() -> bytes:
    """With a wrong checksum of what is transparent: a browser shows the picture, the service calls it broken."""
    return png_with(saved(Image.new("RGB", (64, 48), "teal"), "PNG"), chunk(b"tRNS", bytes(6), is_sound=False))


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def lying(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Files that show one upright picture, by their orientation or in spite of it, and what is odd about each."""
    lossless: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "PNG": {},
        "WEBP": {"lossless": True},
    }
    for image_format, orientations in {"JPEG": tuple(ORIENTATIONS)[1:], "PNG": (6, 2), "WEBP": (6, 2)}.items():
        for orientation in orientations:
            stored, data = as_stored(picture, orientation), b"Exif\0\0" + exif(Entry(orientation))
            file = saved(stored, image_format, exif=data, **lossless[image_format])
            yield f"{image_format}, EXIF {orientation}", file
    png, jpeg = saved(picture, "PNG"), saved(picture, "JPEG", **lossless["JPEG"])
    six = exif(Entry(6))
    yield "JPEG, XMP", jpeg_with(jpeg, segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP))
    yield "JPEG, EXIF of a wrong type", jpeg_with(jpeg, segment(b"Exif\0\0" + exif(Entry(6, kind=LONG))))
    yield "PNG, XMP", png_with(png, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))
    yield "PNG, EXIF behind the pixels", png_with(png, chunk(b"eXIf", six), behind_pixels=True)
    yield "PNG, EXIF with a wrong checksum", png_with(png, chunk(b"eXIf", six, is_sound=False))


def test_objects_and_then_segments_of_the_example_are_listed_and_drawn(page: Page, errors: list[str]) -> None:
    before: list[NDArray[np.int16]] = []

    def look_before_the_answer(route: Route) -> None:
        before.append(canvas(page))
        route.continue_()

    page.route("**/detect?*", look_before_the_answer)
    page.set_input_files("#file", EXAMPLE)
    expect(page.locator("#heading")).to_contain_text("objects")
    for name in THINGS:
        expect(page.locator("#list")).to_contain_text(name)
    (plain,) = before
    assert plain.std() > 10, "the canvas shows no picture"
    # Outlines and labels; the picture stays visible between them.
    assert 0.02 < changed(canvas(page), plain) < 0.5

    page.get_by_label("Segment").check(force=True)  # the radio button itself is transparent
    expect(page.locator("#heading")).to_contain_text("segments")
    assert names(page) == THINGS | STUFF
    # Masks, which cover nearly every pixel.
    assert changed(canvas(page), plain) > 0.9
    expect(page.locator("#times")).to_contain_text("infer")
    assert errors == []


def test_the_demo_model_is_said_to_know_drawn_shapes_and_its_example_is_one_click_away(
    page: Page, errors: list[str]
) -> None:
    expect(page.locator("#knows")).to_contain_text("knows 12 drawn shapes")
    expect(page.locator("#knows")).to_contain_text("heart")
    expect(page.locator("#demo code").first).to_have_text("detr serve --model facebook/detr-resnet-50")
    page.get_by_role("button", name="Try the example picture").click()
    expect(page.locator("#heading")).to_contain_text("objects")
    assert names(page) >= THINGS
    assert errors == []


def test_no_other_model_is_said_to_be_the_demo(page: Page, errors: list[str]) -> None:
    def another(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | {"name": "detr-resnet-50"})

    page.route("**/model", another)
    page.reload()
    expect(page.locator("#model")).to_contain_text("detr-resnet-50 · 12 classes")
    expect(page.locator("#demo")).to_be_hidden()
    assert errors == []


@pytest.mark.parametrize(("known", "file"), [("Cat", "photograph.jpg"), ("invoice", None)])
def test_the_example_is_one_that_the_model_knows_something_of(
    page: Page, errors: list[str], known: str, file: str | None
) -> None:
    def another(route: Route) -> None:
        response = route.fetch()
        described = response.json()
        route.fulfill(
            response=response, json=described | {"categories": [described["categories"][0] | {"name": known}]}
        )

    page.route("**/model", another)
    page.reload()
    expect(page.locator("#model")).to_contain_text("1 class ")
    if file is None:
        expect(page.locator("#example")).to_be_hidden()
    else:
        page.locator("#example").click()
        expect(page.locator("#status")).to_contain_text(f"{file}: ")
    assert errors == []


def test_a_broken_file_shows_what_the_service_says_of_it(page: Page, errors: list[str]) -> None:
    page.set_input_files("#file", {"name": "broken.png", "mimeType": "image/png", "buffer": png_of_a_wrong_checksum()})
    expect(page.locator("#alert")).to_have_text("the PNG image is broken or incomplete")
    expect(page.locator("#heading")).to_have_text("No answer")
    # The browser itself reports every answer of 400 and above; nothing else may be reported.
    (report,) = errors
    assert "status of 400" in report


def drawn(page: Page, name: str, file: bytes) -> NDArray[np.int16]:
    """The canvas once a file is answered."""
    with page.expect_response("**/detect?*"):
        page.set_input_files("#file", {"name": name, "mimeType": f"image/{name[:4].lower()}", "buffer": file})
    expect(page.locator("#stage")).not_to_contain_class("busy")
    expect(page.locator("#heading")).to_contain_text("objects")
    return canvas(page)


@pytest.mark.parametrize("square", [False, True])
def test_boxes_are_drawn_over_the_picture_as_the_server_sees_it(page: Page, errors: list[str], square: bool) -> None:
    """However the browser itself would turn the file."""
    with Image.open(EXAMPLE) as example:
        side = min(example.size)
        picture = example.crop((0, 0, side, side)) if square else example.copy()
    upright = drawn(page, "png", saved(picture, "PNG"))
    plain = np.asarray(picture.resize(upright.shape[1::-1]), dtype=np.int16)
    assert 0.02 < clearly_changed(upright, plain) < 0.3
    for name, file in lying(picture):
        found = drawn(page, name, file)
        assert found.shape == upright.shape, name
        # Pixels of a JPEG differ a little, and with them the digits of a label.
        assert clearly_changed(found, upright) < 0.01, name
    assert errors == []


def test_what_cannot_be_read_is_said_by_name_and_old_times_are_cleared(page: Page, errors: list[str]) -> None:
    page.set_input_files("#file", EXAMPLE)
    expect(page.locator("#times")).to_contain_text("infer")
    cut = EXAMPLE.read_bytes()[:-20_000]
    for name, content, message in (
        ("cut.jpg", cut, "the JPEG image is broken or incomplete"),
        ("words.txt", b"Not a picture at all.", "not an image"),
        ("empty.jpg", b"", "this is an empty file, or a folder"),
    ):
        page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": content})
        expect(page.locator("#alert")).to_contain_text(message)
        expect(page.locator("#times")).to_have_text("no answer")
        expect(page.locator("#bar > *")).to_have_count(0)
        expect(page.locator("#saving")).to_be_hidden()
    assert ["status of 4" in report for report in errors] == [True] * 2


def test_a_server_that_is_gone_is_said_to_be(page: Page, errors: list[str]) -> None:
    page.route("**/detect?*", lambda route: route.abort())
    page.set_input_files("#file", EXAMPLE)
    expect(page.locator("#alert")).to_contain_text("the server does not answer")
    assert ["ERR_FAILED" in report for report in errors] == [True]


def test_a_drop_and_a_paste_without_a_file_say_so(page: Page, errors: list[str]) -> None:
    transfer = "{cancelable: true, bubbles: true, dataTransfer: new DataTransfer(), clipboardData: new DataTransfer()}"
    page.evaluate(f"document.body.dispatchEvent(new DragEvent('drop', {transfer}))")
    expect(page.locator("#alert")).to_contain_text("no file was dropped")
    page.evaluate(f"document.body.dispatchEvent(new ClipboardEvent('paste', {transfer}))")
    expect(page.locator("#alert")).to_have_text("the clipboard holds no picture")
    assert errors == []


def test_a_picture_that_only_the_server_can_read_has_its_answer_drawn_on_a_plain_ground(
    page: Page, url: str, errors: list[str]
) -> None:
    answer = httpx.post(f"{url}/detect?threshold=0", files={"image": EXAMPLE.read_bytes()})
    page.route("**/detect?*", lambda route: route.fulfill(json=answer.json(), headers={"image-orientation": "6"}))
    with Image.open(EXAMPLE) as example:
        page.set_input_files(
            "#file", {"name": "scan.tiff", "mimeType": "image/tiff", "buffer": saved(example.copy(), "TIFF")}
        )
    expect(page.locator("#heading")).to_contain_text("objects")
    expect(page.locator("#status")).to_contain_text("this browser cannot show the picture itself")
    assert names(page) >= THINGS
    assert 0.02 < changed(canvas(page), np.full_like(canvas(page), (0x7D, 0x81, 0x8A))) < 0.5
    assert errors == []
