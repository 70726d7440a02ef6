"""Inference over the Open Inference Protocol answers what /detect and /segment answer, for one image, within the same
bounds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ServiceError
from service.http.open_inference import infer_task
from service.http.open_inference.infer_request import read_infer_request
from service.http.open_inference.served_models import served_models
from service.images import responses
from tests.service.conftest import JPEG, App, Serving, red_png, until
from tests.service.fakes import FakeEngine
from tests.service.http.open_inference.tensors import (
    IMAGE,
    JSON,
    LENGTH,
    binary,
    check_protocol_error,
    in_json,
    tensors_of,
)
from tests.tiny_artifact import tiny_metadata

pytestmark = [pytest.mark.anyio, pytest.mark.api]

DETECT, SEGMENT = "/v2/models/detect/infer", "/v2/models/segment/infer"


async def both_ways(app: App, path: str, picture: bytes, **more: Any) -> Iterator[dict[str, Any]]:
    body, headers = binary(picture, **more)
    answers = [
        await app.client.post(path, json=in_json(picture, **more)),
        await app.client.post(path, content=body, headers=headers),
    ]
    return map(tensors_of, answers)


async def test_detect_answers_what_detect_answers(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        expected = (await app.detect(jpeg, params={"threshold": "0.01"})).json()
        found = list(await both_ways(app, DETECT, jpeg, parameters={"threshold": 0.01}))
        found += await both_ways(app, "/v2/models/detect/versions/1/infer", jpeg, parameters={"threshold": 0.01})
    detections = expected["detections"]
    assert detections
    for tensors in found:
        assert tensors["image_size"] == [96, 128]
        assert tensors["boxes"] == [list(each["box"].values()) for each in detections]
        assert tensors["scores"] == [each["score"] for each in detections]
        assert tensors["category_ids"] == [each["category_id"] for each in detections]
        assert tensors["labels"] == [each["label"] for each in detections]


async def test_segment_answers_what_segment_answers(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        expected = (await app.segment(jpeg)).json()
        found = list(await both_ways(app, SEGMENT, jpeg))
    assert expected["segments"]
    for tensors in found:
        assert tensors["segment_ids"] == [each["id"] for each in expected["segments"]]
        assert tensors["labels"] == [each["label"] for each in expected["segments"]]
        assert tensors["panoptic_png"] == [expected["panoptic_png"]]


@pytest.mark.usefixtures("inside")
async def test_nothing_is_encoded_that_is_not_answered(
    serving: Serving, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[Any] = []

    def encode_ids(ids: Any) -> bytes:
        encoded.append(ids)
        return b"the file"

    monkeypatch.setattr(infer_task, "id_png", encode_ids)
    monkeypatch.setattr(responses, "encode_rles", encoded.append)
    async with serving() as app:
        labels = in_json(jpeg, outputs=[{"name": "labels"}])
        assert (await app.client.post(SEGMENT, json=labels)).status_code == 200
        assert encoded == []
        assert (await app.client.post(SEGMENT, json=in_json(jpeg))).status_code == 200
    assert len(encoded) == 1


async def test_outputs_come_as_binary_data_where_that_is_asked_for(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        expected = (await app.segment(jpeg)).json()
        plain = tensors_of(await app.client.post(SEGMENT, json=in_json(jpeg)))
        asked = in_json(jpeg, parameters={"binary_data_output": True})
        answer = await app.client.post(SEGMENT, json=asked)
        some = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "labels"}]
        mixed = await app.client.post(SEGMENT, json=in_json(jpeg, outputs=some, id="a picture"))
    assert answer.headers["content-type"] == "application/octet-stream"
    whole = tensors_of(answer)
    assert whole["boxes"] == [pytest.approx(box) for box in plain["boxes"]]
    assert whole["labels"] == [label.encode() for label in plain["labels"]]
    assert whole["panoptic_png"] == [base64.b64decode(expected["panoptic_png"])]
    assert list(tensors_of(mixed)) == ["scores", "labels"]
    head = json.loads(mixed.content[: int(mixed.headers[LENGTH])])
    assert (head["id"], head["model_name"], head["model_version"]) == ("a picture", "segment", "1")
    assert "id" not in json.loads(answer.content[: int(answer.headers[LENGTH])])


async def test_a_body_that_is_the_picture_is_answered_in_binary_data(serving: Serving, jpeg: bytes) -> None:
    headers = {"content-type": "application/octet-stream", LENGTH: "0"}
    async with serving() as app:
        expected = (await app.detect(jpeg)).json()
        answer = tensors_of(await app.client.post(DETECT, content=jpeg, headers=headers))
    assert answer["labels"] == [each["label"].encode() for each in expected["detections"]]


async def test_only_the_classes_that_are_asked_for_are_answered(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        expected = (await app.detect(jpeg, params={"threshold": "0.01"})).json()["detections"]
        name = expected[0]["label"]
        parameters = {"threshold": 0.01, "classes": name}
        answer = tensors_of(await app.client.post(DETECT, json=in_json(jpeg, parameters=parameters)))
        unknown = await app.client.post(DETECT, json=in_json(jpeg, parameters={"classes": "unicorn"}))
    assert answer["labels"] == [each["label"] for each in expected if each["label"] == name]
    check_protocol_error(unknown, 422)


async def test_where_nothing_is_found_the_tensors_are_empty(serving: Serving, jpeg: bytes) -> None:
    parameters = {"threshold": 1, "binary_data_output": True}
    async with serving() as app:
        empty = tensors_of(await app.client.post(DETECT, json=in_json(jpeg, parameters=parameters)))
    assert (empty["boxes"], empty["scores"], empty["labels"]) == ([], [], [])


PICTURE = red_png(7)
TEXT = base64.b64encode(PICTURE).decode()
ONE = "one image a request"

BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "not valid JSON"),
    "not UTF-8": (b'{"id": "\xff"}', 400, "not valid JSON"),
    "NaN": (b'{"id": NaN}', 400, "not valid JSON"),
    "an endless number": (b'{"id": ' + b"1" * 9000 + b"}", 400, "not valid JSON"),
    "deep": (b"[" * 60_000, 400, "not valid JSON"),
    "much": (b"[" + b"0," * 40_000 + b"0]", 400, "65536 bytes of JSON"),
    "much space": (b" " * 70_000 + b"{}", 400, "65536 bytes of JSON"),
    "no end of a text": (b'{"id": "' + b"x" * 70_000, 400, "not valid JSON"),
    "escaped quotes": (b'{"id": "' + b'\\"' * 70_000 + b'"}', 400, "not valid JSON"),
    "backslashes": (b'{"id": "' + b"\\" * 70_001 + b'"}', 400, "not valid JSON"),
    "a name twice": (b'{"id": "a", "id": "b"}', 400, "repeated"),
    "a list": ([], 400, "the request: "),
    "no inputs": ({}, 400, "inputs: Field required"),
    "none of inputs": ({"inputs": []}, 400, ONE),
    "two images": ({"inputs": in_json(PICTURE)["inputs"] * 2}, 400, ONE),
    "two in a tensor": ({"inputs": [{**IMAGE, "shape": [2], "data": [TEXT, TEXT]}]}, 400, ONE),
    "two long texts": ({"inputs": [{**IMAGE, "data": ["A" * 9000, "A" * 9000]}]}, 400, "two long texts"),
    "two in the data": ({"inputs": [{**IMAGE, "data": [TEXT, TEXT]}]}, 400, ONE),
    "a batch of one": ({"inputs": [{**IMAGE, "shape": [1, 1], "data": [TEXT]}]}, 400, ONE),
    "pixels": ({"inputs": [{**IMAGE, "datatype": "UINT8", "data": [1]}]}, 400, ONE),
    "another input": ({"inputs": [{**IMAGE, "name": "picture", "data": [TEXT]}]}, 400, ONE),
    "a number for a picture": ({"inputs": [{**IMAGE, "data": [5]}]}, 400, ONE),
    "no data": ({"inputs": [IMAGE]}, 400, "either data or binary_data_size"),
    "no base64": ({"inputs": [{**IMAGE, "data": ["nönsense"]}]}, 400, "base64"),
    "long no base64": ({"inputs": [{**IMAGE, "data": ["-" * 9000]}]}, 400, "base64"),
    "no picture": ({"inputs": [{**IMAGE, "data": ["aGVsbG8="]}]}, 400, ""),
    "no bytes": ({"inputs": [{**IMAGE, "data": [""]}]}, 400, ""),
    "a size without data": ({"inputs": [{**IMAGE, "parameters": {"binary_data_size": 5}}]}, 400, "binary_data_size"),
    "an unknown output": (in_json(PICTURE, outputs=[{"name": "masks"}]), 400, "has the outputs boxes, scores"),
    "an output twice": (in_json(PICTURE, outputs=[{"name": "boxes"}] * 2), 400, "asked for twice"),
    "classification": (in_json(PICTURE, outputs=[{"name": "boxes", "parameters": {"classification": 2}}]), 400,
                       "unknown field: outputs.0.parameters.classification"),
    "another model": (in_json(PICTURE, model_name="segment"), 400, "model_name is not the model of the path, detect"),
    "an unknown field": (in_json(PICTURE, model="x"), 400, "unknown field: model"),
    "a field that is no word": (in_json(PICTURE, **{"<b>\x1b": 1}), 400, "unknown field: ?"),
    "a number for an id": (in_json(PICTURE, id=5), 400, "id: "),
    "a threshold that is too large": (in_json(PICTURE, parameters={"threshold": 1.5}), 422, "parameters.threshold: "),
    "a threshold in words": (in_json(PICTURE, parameters={"threshold": "much"}), 422, "parameters.threshold: "),
    "an unknown parameter": (in_json(PICTURE, parameters={"priority": 1}), 422, "unknown field: parameters.priority"),
}  # fmt: skip


@pytest.fixture
async def app(serving: Serving, engine: FakeEngine) -> Any:
    async with serving(engine) as app:
        yield app


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_request_is_told_what_is_wrong(app: App, name: str) -> None:
    body, status, said = BAD[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await app.client.post(DETECT, content=content, headers=JSON)
    assert said in check_protocol_error(answer, status)
    assert app.service.upload_memory.used_bytes == 0


@pytest.mark.parametrize(
    ("length", "element", "size", "said"),
    [
        ("-1", PICTURE, None, "one number of bytes"),
        ("1e3", PICTURE, None, "one number of bytes"),
        ("999999", PICTURE, None, "more than the body has"),
        ("9" * 40, PICTURE, None, "one number of bytes"),
        (None, PICTURE + b"x", None, "their number, as 4 bytes"),
        (None, PICTURE, 5, "binary_data_size"),
    ],
)
async def test_the_lengths_of_a_binary_request_have_to_be_right(
    app: App, length: str | None, element: bytes, size: int | None, said: str
) -> None:
    data = len(PICTURE).to_bytes(4, "little") + element
    parameters = {"binary_data_size": len(data) if size is None else size}
    head = json.dumps({"inputs": [{**IMAGE, "parameters": parameters}]}).encode()
    headers = {"content-type": "application/octet-stream", LENGTH: length or str(len(head))}
    assert said in check_protocol_error(await app.client.post(DETECT, content=head + data, headers=headers), 400)


async def test_a_length_that_comes_twice_is_refused(app: App) -> None:
    headers = [("content-type", "application/json"), (LENGTH, "5"), (LENGTH, "6")]
    check_protocol_error(await app.client.post(DETECT, content=b"{}", headers=headers), 400)


async def test_refusals_and_failures_have_the_protocols_form(serving: Serving, engine: FakeEngine) -> None:
    picture = in_json(red_png(1))
    async with serving(engine, max_body_bytes=5_000, max_pixels=10_000, max_batch_size=1, max_queue_size=1) as app:
        check_protocol_error(await app.client.post(DETECT, content=b"x" * 5_001, headers=JSON), 413)
        check_protocol_error(await app.client.post(DETECT, json=in_json(red_png(1, (101, 100)))), 413)
        check_protocol_error(await app.client.post(DETECT, content=red_png(1), headers=JPEG), 415)
        check_protocol_error(await app.client.post(DETECT, data={"image": "x"}), 415)
        check_protocol_error(await app.client.post(DETECT, json={}, headers={"content-encoding": "gzip"}), 415)
        check_protocol_error(await app.client.post(DETECT, content=b"", headers=JSON), 400)
        engine.faults.append(RuntimeError("at 0x7f0c12345678 in /usr/lib"))
        check_protocol_error(await app.client.post(DETECT, json=picture), 500)
        engine.hold()
        waiting = [asyncio.create_task(app.detect(red_png(red))) for red in range(2)]
        await until(lambda: app.service.admission.in_flight.count == 2)
        refused = await app.client.post(DETECT, json=picture)
        check_protocol_error(refused, 503)
        assert refused.headers["retry-after"]
        engine.release()
        await asyncio.gather(*waiting)
        app.service.admission.pipeline()._timeout = 0.05
        engine.hold()
        check_protocol_error(await app.client.post(DETECT, json=picture), 504)
        engine.release()
        samples = await app.samples()
    assert samples['detr_requests_total{endpoint="infer",status="503"}'] == 1
    assert samples['detr_requests_total{endpoint="infer",status="415"}'] == 3


@pytest.mark.usefixtures("inside")
async def test_a_request_is_timed_logged_and_counted_like_any_other(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as app:
        with caplog.at_level("INFO", "service.request"):
            answer = await app.client.post(SEGMENT, json=in_json(red_png(1)))
        samples = await app.samples()
    assert answer.status_code == 200
    assert {part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")} == {
        "decode", "preprocess", "queue", "infer", "postprocess", "encode",
    }  # fmt: skip
    assert samples['detr_request_duration_seconds_count{endpoint="infer"}'] == 1
    fields = next(record.__dict__["fields"] for record in caplog.records if record.message == "request")
    assert fields["route"] == "/v2/models/{name}/infer"


KEYS = st.sampled_from(
    ["id", "inputs", "outputs", "parameters", "model_name", "name", "shape", "datatype", "data", "threshold", "classes",
     "binary_data", "binary_data_size", "binary_data_output", "x"]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(
    ["image", "BYTES", "boxes", TEXT, "", "\x00"]
) | st.text(string.printable, max_size=8)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
TENSOR = st.fixed_dictionaries(
    {}, optional={"name": LEAVES, "datatype": LEAVES, "shape": ANYTHING, "data": ANYTHING, "parameters": ANYTHING}
)
REQUESTS = st.fixed_dictionaries(
    {}, optional={"id": LEAVES, "inputs": st.lists(TENSOR, max_size=3), "outputs": ANYTHING, "parameters": ANYTHING}
)


@settings(deadline=None, max_examples=300)
@given(st.one_of(ANYTHING, REQUESTS).map(lambda value: json.dumps(value).encode()), st.integers(0, 40) | st.none())
def test_no_body_is_a_failure_of_the_service(body: bytes, json_bytes: int | None) -> None:
    for model in served_models(tiny_metadata()):
        try:
            image, request = read_infer_request(body, json_bytes, model)
        except ServiceError:
            continue
        assert isinstance(image, bytes)
        assert request.outputs


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.text('{}[]",:\\ abn0', max_size=200).map(str.encode))
def test_no_bytes_are_a_failure_of_the_service(body: bytes) -> None:
    with pytest.raises(ServiceError):
        read_infer_request(body, None, served_models(tiny_metadata())[0])


async def test_requests_of_this_kind_are_cancelled_with_their_client(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, max_batch_size=1) as app:
        waiting = [asyncio.create_task(app.client.post(DETECT, json=in_json(red_png(red)))) for red in (1, 2)]
        await until(lambda: app.service.admission.in_flight.count == 2 and len(engine.seen) == 1)
        for task in waiting:
            task.cancel()
        await until(lambda: app.service.admission.in_flight.count == 0)
        engine.release()
    assert len(engine.seen) == 1, "the other one had not begun"
