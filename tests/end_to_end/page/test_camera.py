"""The camera on the page."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.browser import opened
from tests.end_to_end.page.using import detect

pytestmark = pytest.mark.slow


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
