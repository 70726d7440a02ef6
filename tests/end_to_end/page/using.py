"""What a user does on the page, and what comes of it, in the words of tests."""

from __future__ import annotations

from playwright.sync_api import FilePayload, Page, expect

from tests.end_to_end.browser import EXAMPLE

BROKEN: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n and no more"}


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
