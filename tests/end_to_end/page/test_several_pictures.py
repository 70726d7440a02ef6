"""Several pictures on the page: a strip, a full server, new ones in place of old ones."""

from __future__ import annotations

import json
import threading
import time

import pytest
from playwright.sync_api import Page, Route, expect

from tests.end_to_end.page.using import BROKEN, detect, picture, saved

pytestmark = pytest.mark.slow


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
