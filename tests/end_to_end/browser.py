"""Debian's browser, and the service's page in it as a test wants to have it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.end_to_end.conftest import REPOSITORY

EXECUTABLE = "/usr/bin/chromium"  # Debian's; Playwright's own browsers are never downloaded
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
EXAMPLE = REPOSITORY / "docs/example.jpg"

expect.set_options(timeout=60_000)  # a loaded machine is not a failure


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A browser without a window."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=EXECUTABLE, args=[*ARGUMENTS, *arguments], timeout=120_000
        ) as browser,
    ):
        yield browser


@contextmanager
def opened(context: BrowserContext, url: str, errors: list[str]) -> Iterator[Page]:
    """The page, open, with the model described; at the end it must have asked its own service only.

    What its console and its uncaught exceptions say that nobody may see, goes into `errors`.
    """
    asked: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            errors.append(message.text)

    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    expect(page.locator("#model")).to_contain_text("classes")
    yield page
    assert f"{url}/model" in asked
    assert [address for address in asked if not address.startswith((f"{url}/", "data:", f"blob:{url}/"))] == []


def canvas(page: Page) -> NDArray[np.int16]:
    """What the page's canvas shows: int16 [height, width, 3], RGB."""
    address: str = page.evaluate("document.querySelector('#canvas').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.int16)


def names(page: Page) -> set[str]:
    """The labels of what is listed as found."""
    return set(page.locator("#list .name").all_inner_texts())
