"""What the page saves, and the request that it gives as a command and as a program."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from pycocotools.coco import COCO

from tests.client_packages import environment_of_checkout
from tests.end_to_end.browser import EXAMPLE, names
from tests.end_to_end.page.using import detect, picture, saved, segment

pytestmark = pytest.mark.slow


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
    page.locator("#list").get_by_role("checkbox", name="sky").uncheck()
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


def test_the_request_is_copied_as_curl_and_as_python(page: Page, url: str, errors: list[str], tmp_path: Path) -> None:
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
    environment = environment_of_checkout(tmp_path)
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=EXAMPLE.parent, env=environment, capture_output=True, check=True)
    assert done.stdout.decode().startswith(str(tuple(shown))), done.stdout
    assert f'client = Client("{url}")\nanswer = client.detect("example.jpg", threshold=0.98)' in program
    assert errors == []


@pytest.mark.parametrize("name", ["a b.jpg", "it's.jpg", 'a";b,c.jpg', "$(HOME)`x`.jpg", "back\\slash.jpg", "über.jpg"])
def test_a_copied_command_survives_any_name_of_a_file(page: Page, name: str) -> None:
    page.set_input_files("#file", picture(name))
    expect(page.locator("#heading")).to_contain_text("objects")
    words = shlex.split(page.locator("#curl").inner_text())
    field = words[words.index("-F") + 1]
    assert field == "image=@" + '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
