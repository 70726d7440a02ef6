"""A server of the demo model, and its page in a browser with a camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.end_to_end.browser import chromium, opened
from tests.server_process import serving


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]) -> Iterator[str]:
    need("chromium")
    with serving(None, tmp_path_factory.mktemp("serve"), "--request-timeout-ms", "60000") as server:
        yield server.url


@pytest.fixture(scope="package")
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
