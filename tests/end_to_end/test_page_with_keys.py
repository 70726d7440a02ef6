"""The pages in a real browser where the service wants a key: the browser asks for it once, as a password."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.end_to_end.browser import EXAMPLE, chromium
from tests.server_process import serving

pytestmark = pytest.mark.slow

KEY = "a-key-of-the-users"


@pytest.fixture
def url(tmp_path: Path, need: Callable[..., None]) -> Iterator[str]:
    need("chromium")
    (tmp_path / "keys").write_text(f"{KEY}\n")
    options = ("--request-timeout-ms", "60000", "--api-keys-file", tmp_path / "keys")
    with serving(None, tmp_path, *options) as server:
        yield server.url


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_a_browser_that_has_the_key_can_use_the_pages_and_another_sees_nothing(url: str, browser: Browser) -> None:
    page = browser.new_context(http_credentials={"username": "", "password": KEY}).new_page()
    page.goto(url)
    expect(page.locator("#model")).to_contain_text("classes")
    page.locator("#file").set_input_files(EXAMPLE)
    expect(page.locator("#heading")).to_contain_text("objects")
    expect(page.locator("#curl")).to_contain_text('-H "X-API-Key: $DETR_API_KEY"')
    expect(page.locator("#python")).to_contain_text('api_key=os.environ["DETR_API_KEY"]')
    page.goto(f"{url}/docs")
    expect(page.locator("#operations")).to_contain_text("/detect")

    stranger = browser.new_context(http_credentials={"username": "", "password": "wrong"}).new_page()
    refused = stranger.goto(url)
    assert refused is not None
    assert refused.status == 401
