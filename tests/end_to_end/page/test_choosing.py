"""What is shown of an answer is chosen on the page: scores, classes, single segments."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.browser import EXAMPLE, canvas, names
from tests.end_to_end.page.using import asked, detect, segment

pytestmark = pytest.mark.slow


def test_score_and_classes_are_chosen_without_another_upload(page: Page, url: str, errors: list[str]) -> None:
    requests = asked(page)
    detect(page)
    for threshold in (0, 0.98, 0.5):
        page.locator("#threshold").fill(str(threshold))
        answer = httpx.post(f"{url}/detect?threshold={threshold}", files={"image": EXAMPLE.read_bytes()}).json()
        expect(page.locator("#list .name")).to_have_text([found["label"] for found in answer["detections"]])
    every = canvas(page)

    page.get_by_text("What the model knows: 12 classes").click()
    expect(page.locator("#known li")).to_have_count(12)
    page.get_by_label("Find a class").fill("HEA")
    expect(page.locator("#known li:visible")).to_have_text(["heart"])
    page.get_by_role("button", name="None").click()
    expect(page.locator("#list")).to_have_text("nothing above this threshold, of these classes")
    page.locator("#known").get_by_label("heart").check()
    assert names(page) == {"heart"}
    assert (canvas(page) != every).any()
    expect(page.locator("#curl")).to_contain_text("classes=heart")
    expect(page.locator("#python")).to_contain_text('classes=["heart"]')
    page.get_by_role("button", name="All").click()
    page.mouse.move(0, 0)  # what is pointed at stands out
    assert (canvas(page) == every).all()
    assert requests == [f"{url}/detect?threshold=0"]
    assert errors == []


def test_segments_can_be_switched_off_and_be_seen_through(page: Page, errors: list[str]) -> None:
    segment(page)
    every = canvas(page)
    page.locator("#list").get_by_role("checkbox", name="sky").uncheck()
    without = canvas(page)
    sky = (without != every).any(axis=-1)
    assert 0.1 < sky.mean() < 0.6
    assert sky[: len(sky) // 4].mean() > 0.5, "the sky is at the top"
    page.locator("#list").get_by_role("checkbox", name="sky").check()
    assert (canvas(page) == every).all()

    page.locator("#opacity").fill("0")
    plain = canvas(page)
    page.locator("#opacity").fill("1")
    opaque = canvas(page)
    assert np.abs(opaque - plain).mean() > 1.5 * np.abs(every - plain).mean() > 0
    assert errors == []


def test_segments_below_the_models_own_threshold_are_asked_for_only_when_wanted(page: Page, errors: list[str]) -> None:
    requests = asked(page)
    segment(page)
    floor = float(page.locator("#shown").inner_text())
    page.locator("#threshold").fill("0.99")
    expect(page.locator("#again")).to_be_hidden()
    page.locator("#threshold").fill("0.1")
    assert len(requests) == 1
    page.get_by_role("button", name=f"Ask for segments below {floor:.2f}").click()
    expect(page.locator("#again")).to_be_hidden()
    expect(page.locator("#threshold")).to_be_focused()
    expect(page.locator("#heading")).to_contain_text("segments")
    assert requests[1:] == [requests[0].replace(f"={floor:g}", "=0.1")]
    assert errors == []
