"""Requests of Label Studio, with configurations and pictures that are too long to be read by the parser of JSON."""

from __future__ import annotations

import base64
import json

import pytest

from service.errors import BrokenJsonError
from service.http.label_studio.requests import read_predict_request, read_setup_request
from service.images.json_text import LONG

CONFIG = (
    '<View><Image name="i" value="$a"/><RectangleLabels name="c" toName="i"><Label value="Ä &quot;"/></RectangleLabels>'
)


def body(config: str, *pictures: object) -> bytes:
    return json.dumps({"tasks": [{"id": 5, "data": {"a": each}} for each in pictures], "label_config": config}).encode()


@pytest.mark.parametrize("padding", [0, 2 * LONG])
def test_long_configurations_and_pictures_are_read_whole(padding: int) -> None:
    picture = b"\xfe" * (padding + 10)
    found = read_predict_request(
        body(
            f"{CONFIG}<!--{'x' * padding}--></View>",
            "data:;base64," + base64.b64encode(picture).decode(),
            "/b" * padding + "/",
        )
    )
    inside, outside = found.pictures
    assert list(inside.controls[0].labels) == ['Ä "']
    assert inside.part is not None
    assert inside.part() == picture
    assert (outside.part, outside.source, outside.task_id) == (None, "/b" * padding + "/", 5)


def test_what_is_beside_the_pictures_is_bounded() -> None:
    tasks = [{"data": {"a": "/a"}, "annotations": [[1] * 100_000]}] * 10
    with pytest.raises(BrokenJsonError, match="more than 2097152 bytes of JSON beside its images"):
        read_predict_request(json.dumps({"tasks": tasks, "label_config": CONFIG}).encode())
    with pytest.raises(BrokenJsonError, match="more than 1000 tasks"):
        read_predict_request(body(f"{CONFIG}</View>", *["/a"] * 1001))


def test_a_text_that_is_no_picture_is_bounded() -> None:
    """16 MiB of empty elements were twelve seconds of work, and 1.7 GB, for whoever reads XML."""
    for long in (body(f"{CONFIG}{'<a/>' * 70_000}</View>"), body(f"{CONFIG}</View>", "/" * 300_000)):
        with pytest.raises(BrokenJsonError, match="a text of more than 262144 bytes that is no picture"):
            read_predict_request(long)
    with pytest.raises(BrokenJsonError, match="a text of more than 262144 bytes"):
        read_setup_request(json.dumps({"schema": "<a/>" * 70_000}).encode())
