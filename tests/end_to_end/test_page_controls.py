"""What a user does on the page, in a real browser: filter, switch, save, copy, several pictures, camera, keyboard."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect
from pycocotools.coco import COCO

from tests.end_to_end.browser import EXAMPLE, canvas, chromium, names, opened
from tests.server_process import serving

pytestmark = pytest.mark.slow

BROKEN: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n and no more"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]) -> Iterator[str]:
    need("chromium")
    with serving(None, tmp_path_factory.mktemp("serve"), "--request-timeout-ms", "60000") as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # A camera that shows a moving pattern; a page is asked for no consent.
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with chromium(*fake, "--host-resolver-rules=MAP plain.test 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def errors() -> list[str]:
    """What the page's console and its uncaught exceptions said that nobody may see."""
    return []


@pytest.fixture
def page(browser: Browser, url: str, errors: list[str]) -> Iterator[Page]:
    """The page, open, with the model described."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    with opened(context, url, errors) as page:
        yield page
    context.close()


def picture(name: str) -> FilePayload:
    """The example picture by another name."""
    return {"name": name, "mimeType": "image/jpeg", "buffer": EXAMPLE.read_bytes()}


def asked(page: Page) -> list[str]:
    """Requests about pictures from now on, as they are made."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url) if request.method == "POST" else None)
    return found


def detect(page: Page) -> None:
    page.set_input_files("#file", EXAMPLE)
    expect(page.locator("#heading")).to_contain_text("objects")


def segment(page: Page) -> None:
    page.get_by_label("Segment").check(force=True)  # the radio button itself is transparent
    page.set_input_files("#file", EXAMPLE)
    expect(page.locator("#heading")).to_contain_text("segments")
    expect(page.locator("#opacity")).to_be_visible()


def saved(page: Page, button: str) -> tuple[str, bytes]:
    """A file's name and content."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def test_score_and_classes_are_chosen_without_another_upload(page: Page, url: str, errors: list[str]) -> None:
    requests = asked(page)
    detect(page)
    for threshold in (0, 0.98, 0.5):
        page.locator("#threshold").fill(str(threshold))
        answer = httpx.post(f"{url}/detect?threshold={threshold}", files={"image": EXAMPLE.read_bytes()}).json()
        expect(page.locator("#list .name")).to_have_text([found["label"] for found in answer["detections"]])
    every = canvas(page)

    page.get_by_text("What the model knows: 12 classes").click()
    expect(page.locator("#known li")).to_have_count(12)
    page.get_by_label("Find a class").fill("HEA")
    expect(page.locator("#known li:visible")).to_have_text(["heart"])
    page.get_by_role("button", name="None").click()
    expect(page.locator("#list")).to_have_text("nothing above this threshold, of these classes")
    page.locator("#known").get_by_label("heart").check()
    assert names(page) == {"heart"}
    assert (canvas(page) != every).any()
    expect(page.locator("#curl")).to_contain_text("classes=heart")
    expect(page.locator("#python")).to_contain_text('classes=["heart"]')
    page.get_by_role("button", name="All").click()
    page.mouse.move(0, 0)  # what is pointed at stands out
    assert (canvas(page) == every).all()
    assert requests == [f"{url}/detect?threshold=0"]
    assert errors == []


def test_segments_can_be_switched_off_and_be_seen_through(page: Page, errors: list[str]) -> None:
    segment(page)
    every = canvas(page)
    page.locator("#list").get_by_label("sky").uncheck()
    without = canvas(page)
    sky = (without != every).any(axis=-1)
    assert 0.1 < sky.mean() < 0.6
    assert sky[: len(sky) // 4].mean() > 0.5, "the sky is at the top"
    page.locator("#list").get_by_label("sky").check()
    assert (canvas(page) == every).all()

    page.locator("#opacity").fill("0")
    plain = canvas(page)
    page.locator("#opacity").fill("1")
    opaque = canvas(page)
    assert np.abs(opaque - plain).mean() > 1.5 * np.abs(every - plain).mean() > 0
    assert errors == []


def test_segments_below_the_models_own_threshold_are_asked_for_only_when_wanted(page: Page, errors: list[str]) -> None:
    requests = asked(page)
    segment(page)
    floor = float(page.locator("#shown").inner_text())
    page.locator("#threshold").fill("0.99")
    expect(page.locator("#again")).to_be_hidden()
    page.locator("#threshold").fill("0.1")
    assert len(requests) == 1
    page.get_by_role("button", name=f"Ask for segments below {floor:.2f}").click()
    expect(page.locator("#again")).to_be_hidden()
    expect(page.locator("#threshold")).to_be_focused()
    expect(page.locator("#heading")).to_contain_text("segments")
    assert requests[1:] == [requests[0].replace(f"={floor:g}", "=0.1")]
    assert errors == []


def test_the_picture_is_saved_in_its_own_size_with_what_is_shown(page: Page, errors: list[str]) -> None:
    for ask, task in ((detect, "detect"), (segment, "segment")):
        ask(page)
        name, content = saved(page, "Save the picture")
        assert name == f"example.{task}.png"
        with Image.open(EXAMPLE) as example, Image.open(io.BytesIO(content)) as picture:
            assert picture.size == example.size
            difference = np.asarray(picture.convert("RGB"), np.int16) - np.asarray(example, np.int16)
        assert (np.abs(difference).max(axis=-1) > 48).mean() > 0.02
    assert errors == []


def test_json_is_saved_as_the_server_gives_it_but_for_what_is_hidden(page: Page, url: str, errors: list[str]) -> None:
    detect(page)
    name, content = saved(page, "Save JSON")
    answer = httpx.post(f"{url}/detect", files={"image": EXAMPLE.read_bytes()}).json()
    assert (name, json.loads(content)) == ("example.detect.json", {"file": "example.jpg"} | answer)

    segment(page)
    page.locator("#list").get_by_label("sky").uncheck()
    _, content = saved(page, "Save JSON")
    kept = json.loads(content)
    assert {found["label"] for found in kept["segments"]} == names(page) - {"sky"}
    ids = page.evaluate(
        """async base64 => {
          const image = new Image();
          image.src = `data:image/png;base64,${base64}`;
          await image.decode();
          const draw = new OffscreenCanvas(image.width, image.height).getContext("2d");
          draw.drawImage(image, 0, 0);
          const {data} = draw.getImageData(0, 0, image.width, image.height), found = {};
          for (let i = 0; i < data.length; i += 4) {
            const id = data[i] + 256 * data[i + 1] + 65536 * data[i + 2];
            found[id] = (found[id] ?? 0) + 1;
          }
          return found;
        }""",
        kept["panoptic_png"],
    )
    assert {int(key): count for key, count in ids.items() if key != "0"} == {
        found["id"]: found["area"] for found in kept["segments"]
    }
    assert errors == []


def test_pycocotools_reads_the_saved_results(page: Page, errors: list[str]) -> None:
    page.get_by_label("Segment").check(force=True)
    page.set_input_files("#file", [picture("000000000042.jpg"), picture("43.jpg")])
    expect(page.locator("#status")).to_contain_text("2 of 2 pictures done")
    name, content = saved(page, "Save COCO results")
    results = json.loads(content)
    assert name == "answers.segment.coco.json"
    truth = COCO()
    truth.dataset = {"images": [{"id": 42}, {"id": 43}], "annotations": [], "categories": []}
    truth.createIndex()
    read = truth.loadRes(results)
    assert len(read.getAnnIds(imgIds=[42])) == len(read.getAnnIds(imgIds=[43])) == len(results) // 2 > 3
    _, content = saved(page, "Save JSON of all 2")
    areas = [found["area"] for answer in json.loads(content) for found in answer["segments"]]
    assert [found["area"] for found in read.loadAnns(read.getAnnIds())] == areas

    page.get_by_label("Detect").check(force=True)
    expect(page.locator("#heading")).to_contain_text("objects")
    expect(page.locator("#status")).to_contain_text("2 of 2 pictures done")
    _, content = saved(page, "Save COCO results")
    boxes = truth.loadRes(json.loads(content))
    assert [box["image_id"] for box in boxes.loadAnns(boxes.getAnnIds())] == [42] * 8 + [43] * 8
    assert all(box["area"] > 0 for box in boxes.loadAnns(boxes.getAnnIds()))
    assert errors == []


def test_the_request_is_copied_as_curl_and_as_python(page: Page, url: str, errors: list[str]) -> None:
    detect(page)
    page.locator("#threshold").fill("0.98")
    shown = page.locator("#list .name").all_inner_texts()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#status")).to_have_text("copied")
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == f'curl -F image=@example.jpg "{url}/detect?threshold=0.98"'
    done = subprocess.run(command, shell=True, cwd=EXAMPLE.parent, capture_output=True, check=True)  # noqa: S602
    assert [found["label"] for found in json.loads(done.stdout)["detections"]] == shown

    page.get_by_role("button", name="Copy as Python").click()
    program = page.evaluate("navigator.clipboard.readText()")
    compile(program, "copied", "exec")
    assert f'client = Client("{url}")\nanswer = client.detect("example.jpg", threshold=0.98)' in program
    assert errors == []


@pytest.mark.parametrize("name", ["a b.jpg", "it's.jpg", 'a";b,c.jpg', "$(HOME)`x`.jpg", "back\\slash.jpg", "über.jpg"])
def test_a_copied_command_survives_any_name_of_a_file(page: Page, name: str) -> None:
    page.set_input_files("#file", picture(name))
    expect(page.locator("#heading")).to_contain_text("objects")
    words = shlex.split(page.locator("#curl").inner_text())
    field = words[words.index("-F") + 1]
    assert field == "image=@" + '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def test_several_pictures_are_a_strip_each_with_its_own_answer_or_error(page: Page, errors: list[str]) -> None:
    flying, most, lock = [0], [0], threading.Lock()

    def count(route: Route) -> None:
        with lock:
            flying[0] += 1
            most[0] = max(most[0], flying[0])
        page.wait_for_timeout(50)
        route.continue_()

    page.route("**/detect?*", count)
    page.on("requestfinished", lambda request: flying.__setitem__(0, flying[0] - (request.method == "POST")))
    files = [picture(f"{number}.jpg") for number in range(7)]
    page.set_input_files("#file", [*files[:3], BROKEN, *files[3:]])
    expect(page.locator("#status")).to_contain_text("8 of 8 pictures done; 1 without an answer; 0.jpg: 8 objects")
    assert 1 < most[0] <= 3
    strip = page.get_by_role("list", name="Pictures").get_by_role("button")
    expect(strip).to_have_count(8)
    expect(strip.nth(3)).to_contain_text("the PNG image is broken or incomplete")
    expect(strip.nth(7)).to_contain_text("8 objects")
    expect(page.locator("#alert")).to_be_hidden()

    strip.nth(3).click()
    expect(page.locator("#alert")).to_have_text("broken.png: the PNG image is broken or incomplete")
    expect(page.get_by_role("button", name="Save the picture")).to_be_disabled()
    strip.nth(3).press("Tab")
    page.keyboard.press("Space")
    expect(strip.nth(4)).to_have_attribute("aria-current", "true")
    expect(page.locator("#heading")).to_have_text("8 objects")
    name, content = saved(page, "Save JSON of all 7")
    assert name == "answers.detect.json"
    assert [answer["file"] for answer in json.loads(content)] == [f"{number}.jpg" for number in range(7)]
    assert ["status of 400" in report for report in errors] == [True]


def test_a_full_server_is_asked_again_when_it_says(page: Page, errors: list[str]) -> None:
    full = [True]

    def refuse_once(route: Route) -> None:
        if full.pop():
            full.append(False)
            route.fulfill(status=503, headers={"retry-after": "1"}, json={"error": {"message": "the queue is full"}})
        else:
            full.append(False)
            route.continue_()

    page.route("**/detect?*", refuse_once)
    started = time.monotonic()
    detect(page)
    assert time.monotonic() - started >= 1
    assert ["status of 503" in report for report in errors] == [True]


def test_new_pictures_take_the_place_of_those_that_are_still_asked_about(page: Page, errors: list[str]) -> None:
    held: list[Route] = []
    page.route("**/detect?*", lambda route: held.append(route), times=1)
    page.set_input_files("#file", picture("old.jpg"))
    expect(page.locator("#status")).to_have_text("asking about old.jpg")
    detect(page)
    expect(page.locator("#status")).to_have_text("example.jpg: 8 objects")
    assert len(held) == 1
    assert errors == []


def test_the_camera_takes_a_picture_and_is_let_go(page: Page, errors: list[str]) -> None:
    page.get_by_role("button", name="Camera").click()
    expect(page.get_by_role("dialog", name="Camera")).to_be_visible()
    expect(page.locator("#shoot")).to_be_focused()
    assert Axe().run(page).violations_count == 0
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("camera.jpg: ")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.evaluate("document.querySelector('#video').srcObject") is None

    page.get_by_role("button", name="Camera").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Camera")).to_be_focused()
    assert page.evaluate("document.querySelector('#video').srcObject") is None
    assert errors == []


@pytest.mark.parametrize(
    ("name", "said"), [("NotAllowedError", "is not allowed here"), ("NotFoundError", "there is no camera")]
)
def test_a_camera_that_does_not_open_says_why(page: Page, name: str, said: str) -> None:
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name); }; }", name
    )
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#alert")).to_contain_text(said)
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_over_plain_http_the_camera_says_why_not_and_copying_works(
    browser: Browser, url: str, errors: list[str]
) -> None:
    plain = url.replace("127.0.0.1", "plain.test")
    with opened(browser.new_context(), plain, errors) as page:
        assert page.evaluate("isSecureContext") is False
        page.get_by_role("button", name="Camera").click()
        expect(page.locator("#alert")).to_have_text("browsers give the camera to pages over HTTPS or on localhost only")
        detect(page)
        page.get_by_role("button", name="Copy as curl").click()
        expect(page.locator("#status")).to_have_text("copied")
    assert errors == []


def test_everything_is_reached_and_used_by_keyboard(page: Page, errors: list[str]) -> None:
    page.keyboard.press("Tab")
    reached = []
    for _ in range(30):
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
        page.keyboard.press("Tab")
    wanted = ["api", "choose", "example", "camera", "threshold", "hint", "Copy as curl", "Copy as Python"]
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted
    page.on("filechooser", lambda _: None)  # for as long as somebody listens, no dialog of the desk's opens
    for key in ("Space", "Enter"):
        for button in ("#hint", "#choose"):
            page.locator(button).focus()
            with page.expect_file_chooser() as chooser:
                page.keyboard.press(key)
            assert chooser.value.is_multiple()
    page.locator("#hint").focus()
    page.set_input_files("#file", picture("first.jpg"))
    expect(page.locator("#status")).to_have_text("first.jpg: 8 objects")
    expect(page.locator("#choose")).to_be_focused()  # what had the focus is gone
    page.locator("#example").press("Enter")
    expect(page.locator("#status")).to_have_text("example.jpg: 8 objects")
    box = page.locator("#list input").first
    box.focus()
    page.keyboard.press("Space")
    expect(box).not_to_be_checked()
    expect(box).to_be_focused()
    assert errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_and_320_pixels_suffice(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.querySelector('#busy')).animationName") == "none"

    def look(state: str) -> None:
        for width in (1280, 320):
            page.set_viewport_size({"width": width, "height": 640})
            found = Axe().run(page)
            assert found.violations_count == 0, f"{state}, {width}: {found.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, state

    look("empty")
    page.locator("summary").click()
    segment(page)
    page.locator("#threshold").fill("0.1")
    look("segments")
    long = picture(f"{'long' * 30}.jpg")
    page.set_input_files("#file", [BROKEN, long, long])
    expect(page.locator("#status")).to_contain_text("3 of 3 pictures done")
    expect(page.get_by_role("alert")).to_have_text("broken.png: the PNG image is broken or incomplete")
    look("a strip with an error")


def test_the_picture_and_the_answer_are_said_in_words(page: Page) -> None:
    detect(page)
    expect(page.get_by_role("status")).to_have_text("example.jpg: 8 objects")
    name = page.get_by_role("img").get_attribute("aria-label")
    assert name is not None
    assert name.startswith("example.jpg, with 8 objects: ")
    assert "heart 100 %" in name


def test_the_link_to_the_metrics_is_there_only_where_it_leads_somewhere(page: Page, errors: list[str]) -> None:
    expect(page.get_by_role("link", name="Metrics")).to_be_visible()
    looked = []

    def elsewhere(route: Route) -> None:
        looked.append("description")
        api = route.fetch().json()
        del api["paths"]["/metrics"]
        route.fulfill(json=api)

    page.route("**/openapi.json", elsewhere)
    page.reload()
    expect(page.locator("#formats")).to_have_text("JPEG, PNG or WebP.")
    expect(page.locator("#model")).to_contain_text("classes")
    assert looked
    expect(page.get_by_role("link", name="Metrics")).to_be_hidden()
    assert errors == []

    page.unroute("**/openapi.json")
    page.route("**/metrics", lambda route: route.fulfill(status=404))  # a proxy that hides them
    with page.expect_response("**/metrics"):
        page.reload()
    expect(page.get_by_role("link", name="Metrics")).to_be_hidden()
