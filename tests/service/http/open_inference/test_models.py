"""What clients of the Open Inference Protocol ask of the server and its models before they infer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.conftest import Serving
from tests.service.fakes import FakeEngine
from tests.service.http.open_inference.tensors import check_protocol_error

pytestmark = [pytest.mark.anyio, pytest.mark.api]

DETECTED = ["boxes", "scores", "category_ids", "labels", "image_size"]


async def test_the_server_says_what_it_is_and_what_it_does(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        answer = (await app.client.get("/v2")).json()
    assert answer["name"] == "detr-serve"
    assert answer["version"]
    assert {"binary_tensor_data", "model_repository"} <= set(answer["extensions"])


@pytest.mark.parametrize("version", ["", "/versions/1"])
async def test_a_model_describes_its_tensors(serving: Serving, engine: FakeEngine, version: str) -> None:
    async with serving(engine) as app:
        detect, segment = [
            (await app.client.get(f"/v2/models/{name}{version}")).json() for name in ("detect", "segment")
        ]
        config = (await app.client.get(f"/v2/models/segment{version}/config")).json()
        ready = (await app.client.get(f"/v2/models/segment{version}/ready")).json()
    assert (detect["name"], detect["versions"]) == ("detect", ["1"])
    assert detect["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [1]}]
    assert [output["name"] for output in detect["outputs"]] == DETECTED
    assert detect["outputs"][0] == {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]}
    assert [output["name"] for output in segment["outputs"]] == [*DETECTED, "segment_ids", "panoptic_png"]
    assert config["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": [1]}]
    assert [output["name"] for output in config["output"]] == [output["name"] for output in segment["outputs"]]
    assert config["max_batch_size"] == 0
    assert ready == {"name": "segment", "ready": True}


async def test_a_model_without_masks_serves_as_detect_alone(
    serving: Serving, engine: FakeEngine, detection_artifact: Path
) -> None:
    async with serving(engine, model=detection_artifact) as app:
        index = (await app.client.post("/v2/repository/index", json={"ready": True})).json()
        said = check_protocol_error(await app.client.post("/v2/models/segment/infer", json={}), 404)
        check_protocol_error(await app.client.get("/v2/models/segment"), 404)
    assert index == [{"name": "detect", "version": "1", "state": "READY", "reason": ""}]
    assert said == "there is no model of that name here; there is detect"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/", 404), ("GET", "/v2/nowhere", 404), ("POST", "/v2", 405), ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404), ("GET", "/v2/models/detect/versions/2", 404),
        ("GET", "/v2/models/detect/versions/1/nothing", 404), ("GET", "/v2/models/detect/infer", 405),
        ("POST", "/v2/models/detect/versions/2/infer", 404), ("POST", "/v2/models/%3Cb%3E/infer", 404),
        ("POST", "/v2/models/detect/ready", 405), ("GET", "/v2/models/detect?a=1", 422),
        ("GET", "/v2/models/detect?a=1&a=2", 422), ("POST", "/v2/models/detect/infer?threshold=0.5", 422),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_an_error_that_its_clients_can_print(
    serving: Serving, engine: FakeEngine, method: str, path: str, status: int
) -> None:
    async with serving(engine) as app:
        answer = await app.client.request(method, path, json={} if method == "POST" else None)
    check_protocol_error(answer, status)


async def test_while_the_model_loads_and_at_the_end_nothing_is_ready(serving: Serving, engine: FakeEngine) -> None:
    paths = ("/v2/health/ready", "/v2/models/detect", "/v2/models/detect/ready", "/v2/models/detect/config")
    async with serving(engine) as app:
        pipeline, app.service.admission.current = app.service.admission.current, None
        for path in paths:
            assert check_protocol_error(await app.client.get(path), 503) == "the model is still loading"
        check_protocol_error(await app.client.post("/v2/repository/index"), 503)
        assert (await app.client.get("/v2/health/live")).json() == {"live": True}
        app.service.admission.current = pipeline
        app.service.begin_drain()
        for path in paths:
            check_protocol_error(await app.client.get(path), 503)


async def test_all_but_health_needs_a_key(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine, api_keys="a-key-of-sixteen-characters") as app:
        for path in ("/v2", "/v2/models/detect", "/v2/models/detect/ready"):
            answer = await app.client.get(path)
            check_protocol_error(answer, 401)
            assert answer.headers["www-authenticate"]
            assert (await app.client.get(path, headers={"x-api-key": "a-key-of-sixteen-characters"})).status_code == 200
        check_protocol_error(await app.client.post("/v2/models/detect/infer", json={}), 401)
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert (await app.client.get(path)).status_code == 200


async def test_a_host_cannot_choose_the_form_of_an_error(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        answer = await app.client.get("/nowhere", headers={"host": "a/v2/"})
    assert answer.json()["error"]["code"] == "not_found"
