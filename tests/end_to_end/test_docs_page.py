"""The API's description in a real browser: a request is tried from it, without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.end_to_end.browser import EXAMPLE, chromium
from tests.server_process import serving

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path, need: Callable[..., None]) -> Iterator[str]:
    need("chromium")
    with serving(None, tmp_path, "--request-timeout-ms", "60000") as server:
        yield server.url


def test_detect_is_tried_from_the_description(url: str) -> None:
    problems: list[str] = []
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith((url, "blob:", "data:")) else problems.append(request.url),
        )
        page.goto(f"{url}/docs")
        detect = page.locator("details", has=page.locator("summary", has_text="Find objects"))
        detect.locator("summary").first.click()  # those below it are of examples
        detect.locator("input[type=file]").set_input_files(EXAMPLE)
        detect.locator("input[name=threshold]").fill("0.5")
        detect.locator("button").click()
        expect(detect.locator("[aria-live] code")).to_contain_text("200")
        expect(detect.locator("[aria-live] pre")).to_contain_text('"detections"')
        detect.locator("select[name=overlay]").select_option("true")
        detect.locator("button").click()
        expect(detect.locator("[aria-live] img")).to_be_visible()
        detect.locator("input[name=threshold]").fill("7")
        detect.locator("button").click()
        expect(detect.locator("[aria-live] pre")).to_contain_text("bad_parameter")
    assert problems == []
    assert [address for address in asked if not address.startswith((url, "blob:", "data:"))] == []
