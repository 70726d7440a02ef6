"""The pages and the OpenAPI description."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from service.http.answer_examples import DETECT_EXAMPLES, EXPLAIN_EXAMPLES, SEGMENT_EXAMPLES, AnswerExample
from service.http.error_answers import TABLE
from service.http.paths import STATIC
from service.schemas import ErrorResponse
from tests.service.conftest import Serving

REPOSITORY = Path(__file__).parents[3]

pytestmark = [pytest.mark.anyio, pytest.mark.api]

KINDS = {"css": "text/css", "js": "text/javascript", "jpg": "image/jpeg"}


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_loads_nothing_from_elsewhere(serving: Serving, path: str) -> None:
    async with serving() as app:
        response = await app.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", response.text)
    assert "http://" not in response.text
    assert "https://" not in response.text


async def test_the_pages_files_are_those_of_its_folder_and_none_leads_elsewhere(serving: Serving) -> None:
    folder = REPOSITORY / "service/http/static"
    assert {f"/static/{file.name}" for ending in KINDS for file in folder.glob(f"*.{ending}")} == set(STATIC)
    async with serving() as app:
        page = await app.client.get("/")
        assert "unsafe" not in page.headers["content-security-policy"]
        for path in STATIC:
            response = await app.client.get(path)
            kind = KINDS[path.rpartition(".")[2]]
            assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, kind)
            assert kind == "image/jpeg" or not re.search(r"https?://", response.text)


async def test_the_page_brings_the_picture_that_the_docs_show(serving: Serving) -> None:
    async with serving() as app:
        picture = await app.client.get("/static/example.jpg")
    assert picture.content == (REPOSITORY / "docs" / "example.jpg").read_bytes()


async def description(serving: Serving) -> dict[str, Any]:
    async with serving() as app:
        answer: dict[str, Any] = (await app.client.get("/openapi.json")).json()
        return answer


# Where there are keys, where another site's page asks, and where the model is replaced.
ELSEWHERE = {401, 403, 404, 409}


async def test_the_description_declares_every_error_in_the_one_shape(serving: Serving) -> None:
    api = await description(serving)
    reachable = {row.status for row in TABLE.values()} - {499, *ELSEWHERE}
    for path in ("/detect", "/segment", "/explain"):
        responses = api["paths"][path]["post"]["responses"]
        assert {int(status) for status in responses} == reachable | {200}
        for status in reachable:
            schema = responses[str(status)]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
        assert "Retry-After" in responses["503"]["headers"]
    assert "HTTPValidationError" not in api["components"]["schemas"]
    assert api["paths"].keys() == {
        "/detect", "/segment", "/explain", "/model", "/model/reload", "/health/live", "/health/ready", "/metrics",
    }  # fmt: skip


async def test_the_description_declares_both_bodies_and_the_parameters(serving: Serving) -> None:
    api = await description(serving)
    both = {"threshold", "classes", "format", "image_id", "overlay"}
    for path, names in (("/detect", both), ("/segment", both | {"mode", "polygons"})):
        operation = api["paths"][path]["post"]
        assert operation["requestBody"]["content"].keys() == {
            "multipart/form-data", "application/json", "application/octet-stream",
            "image/jpeg", "image/png", "image/webp",
        }  # fmt: skip
        assert {parameter["name"] for parameter in operation["parameters"]} == names
        answers = operation["responses"]["200"]["content"]
        assert answers.keys() == {"application/json", "image/png", "image/jpeg", "image/webp"}


async def test_formats_that_are_opened_are_described(serving: Serving) -> None:
    async with serving(formats="gif,bmp") as app:
        api = (await app.client.get("/openapi.json")).json()
        model = (await app.client.get("/model")).json()
    for path in ("/detect", "/segment"):
        body = api["paths"][path]["post"]["requestBody"]
        assert {"image/jpeg", "image/bmp", "image/gif"} <= body["content"].keys()
        assert "image/tiff" not in body["content"]
        assert body["description"].startswith("a picture (jpeg, png, webp, bmp, gif)")
    assert model["formats"] == ["jpeg", "png", "webp", "bmp", "gif"]
    assert "image/gif" not in (await description(serving))["paths"]["/detect"]["post"]["requestBody"]["content"]


async def test_the_description_shows_each_error_by_an_example(serving: Serving) -> None:
    api = await description(serving)
    for path in ("/detect", "/segment", "/explain"):
        responses = api["paths"][path]["post"]["responses"]
        codes = set[str]()
        for status, answer in responses.items():
            if status == "200":
                continue
            for code, example in answer["content"]["application/json"].get("examples", {}).items():
                assert ErrorResponse.model_validate(example["value"]).error.code == code, status
                codes.add(code)
        assert codes == {row.code for row in TABLE.values() if str(row.status) in responses}


@pytest.mark.parametrize(
    ("path", "name", "example"),
    [
        (path, name, example)
        for path, examples in (
            ("/detect", DETECT_EXAMPLES),
            ("/segment", SEGMENT_EXAMPLES),
            ("/explain", EXPLAIN_EXAMPLES),
        )
        for name, example in examples.items()
    ],
)
async def test_an_example_of_an_answer_is_like_a_real_one_and_both_are_as_described(
    path: str, name: str, example: AnswerExample, serving: Serving, jpeg: bytes, attentive_artifact: Path
) -> None:
    async with serving(model=attentive_artifact) as app:
        api = (await app.client.get("/openapi.json")).json()
        pictures = [jpeg, b"no picture"][: example.images]
        files = [("image", ("a.jpg", picture)) for picture in pictures]
        real = (await app.client.post(f"{path}?{example.query}", files=files)).json()
    answers = api["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
    assert answers["examples"][name]["value"] == example.value
    described = jsonschema_rs.validator_for({**answers["schema"], "components": api["components"]})
    described.validate(example.value)
    described.validate(real)
    assert names_in(example.value) == names_in(real)


def names_in(value: Any) -> Any:
    """The names in JSON; of a list those of each kind of thing in it."""
    if isinstance(value, dict):
        return tuple(sorted((name, names_in(each)) for name, each in value.items()))
    if isinstance(value, list):
        return frozenset(names_in(each) for each in value)
    return type(value).__name__
