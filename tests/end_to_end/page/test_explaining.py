"""Where the network looked, on the page: a click on an object, on a point, or from the keyboard."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, Position, expect

from tests.end_to_end.browser import EXAMPLE, canvas

pytestmark = pytest.mark.slow


def asked_for(page: Page, picture: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """The page's canvas once it shows what was found in a picture."""
    page.set_input_files("#file", str(picture))
    expect(page.locator("#list li button").first).to_be_visible()
    page.mouse.move(0, 0)
    return canvas(page)


def test_a_click_shows_where_the_network_looked_and_another_goes_back(page: Page, url: str, errors: list[str]) -> None:
    found = asked_for(page, EXAMPLE)
    answer = httpx.post(f"{url}/detect", files={"image": EXAMPLE.read_bytes()}).json()
    box, image = answer["detections"][0]["box"], answer["image"]
    shown = page.locator("#canvas").bounding_box()
    assert shown is not None
    centre: Position = {
        "x": shown["width"] * (box["x1"] + box["x2"]) / 2 / image["width"],
        "y": shown["height"] * (box["y1"] + box["y2"]) / 2 / image["height"],
    }
    for with_shift in (False, True):
        with page.expect_request("**/explain?*") as request:
            page.locator("#canvas").click(position=centre, modifiers=["Shift"] if with_shift else [])
        assert ("points" in request.value.url) == with_shift
        expect(page.locator("#status")).to_contain_text("press Escape")
        looked = canvas(page)
        assert looked.shape == found.shape
        assert (looked != found).any(axis=-1).mean() > 0.5
        page.locator("#canvas").click(position=centre)
        expect(page.locator("#status")).not_to_contain_text("press Escape")
        assert (canvas(page) == found).all()
    assert errors == []


def test_every_object_is_explained_from_the_keyboard(page: Page, errors: list[str]) -> None:
    asked_for(page, EXAMPLE)
    button = page.locator("#list li button").first
    label = page.locator("#list .name").first.inner_text()
    expect(button).to_have_accessible_name(f"Where the network looked for {label}")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text(f"where the network looked for {label}")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_contain_text("example.jpg")
    assert errors == []
