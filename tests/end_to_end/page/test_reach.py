"""The page for everybody: by keyboard, with a screen reader, on a small screen; and what it says of its server."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.end_to_end.page.using import BROKEN, detect, picture, segment

pytestmark = pytest.mark.slow


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


def test_formats_that_the_server_opens_can_be_chosen(page: Page, errors: list[str]) -> None:
    chooser = page.locator("#file")
    expect(chooser).to_have_attribute("accept", "image/jpeg,image/png,image/webp")

    def with_more(route: Route) -> None:
        model = route.fetch().json()
        route.fulfill(json={**model, "formats": [*model["formats"], "gif", "heic"]})

    page.route("**/model", with_more)
    page.reload()
    expect(page.locator("#formats")).to_have_text("JPEG, PNG, WebP, GIF or HEIC.")
    expect(chooser).to_have_attribute("accept", "image/jpeg,image/png,image/webp,image/gif,image/heic,.heic,.heif")
    assert errors == []
