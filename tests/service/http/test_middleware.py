"""What is around every request: pages of other sites, which may read answers or not, errors included; and HEAD."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import SettingsError, read_settings
from tests.processes import until
from tests.server_process import serving as serving_process
from tests.service.conftest import App, Serving, check_error
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio

HERE, ELSEWHERE = "https://gallery.example", "https://elsewhere.example"
KEY = "a-key-of-the-users"
# Of /metrics the length differs from one answer to the next.
SAME_EACH_TIME = ("/health/live", "/health/ready", "/v2/health/ready", "/model", "/", "/docs", "/openapi.json", "/no")


async def preflight(
    app: App, origin: str = HERE, method: str = "POST", headers: str = "authorization, content-type, x-api-key"
) -> httpx.Response:
    """What a browser asks before it sends a picture with a key."""
    asked = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": headers}
    return await app.client.options("/detect", headers=asked)


async def test_without_origins_no_page_of_another_site_is_let_in(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        check_error(await preflight(app), 405, "method_not_allowed")
        answer = await app.client.get("/model", headers={"origin": HERE})
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_a_page_of_a_listed_origin_may_ask_with_a_key_and_read_the_answer(
    serving: Serving, engine: FakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(KEY)
    async with serving(engine, cors_origins=(HERE,), api_keys_file=tmp_path / "keys") as app:
        allowed = await preflight(app)
        assert allowed.status_code == 200, "a preflight brings no key"
        assert allowed.headers["access-control-allow-origin"] == HERE
        assert "POST" in allowed.headers["access-control-allow-methods"]
        answer = await app.client.get("/model", headers={"origin": HERE, "x-api-key": KEY})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == HERE
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/model", 401, "unauthorized"), ("/nowhere", 404, "not_found"), ("/detect", 405, "method_not_allowed"),
     ("/model?a=1&a=2", 422, "bad_parameter"), ("/model?" + "a" * 40_000, 431, "headers_too_large"),
     ("/broken", 500, "internal_error")],
)  # fmt: skip
async def test_errors_can_be_read_by_the_page_as_well(
    serving: Serving, engine: FakeEngine, tmp_path: Path, path: str, status: int, code: str
) -> None:
    (tmp_path / "keys").write_text(KEY)
    async with serving(engine, cors_origins=(HERE,), api_keys_file=tmp_path / "keys") as app:

        def broken() -> None:
            raise LookupError

        app.app.add_api_route("/broken", broken)

        key = {} if status == 401 else {"x-api-key": KEY}
        response = await app.client.get(path, headers={"origin": HERE, **key})
    check_error(response, status, code)
    assert response.headers["access-control-allow-origin"] == HERE


@pytest.mark.parametrize("asked", [{"origin": ELSEWHERE}, {"method": "DELETE"}, {"headers": "x-secret"}])
async def test_a_preflight_that_is_refused_says_so_in_the_one_shape(
    serving: Serving, engine: FakeEngine, asked: dict[str, str]
) -> None:
    async with serving(engine, cors_origins=(HERE,)) as app:
        refused = await preflight(app, **asked)
        check_error(refused, 403, "origin_not_allowed")
        assert "access-control-allow-origin" not in refused.headers
        assert "origin" in refused.headers["vary"].lower()
        answer = await app.client.get("/health/live", headers={"origin": ELSEWHERE})
        assert answer.headers.get("access-control-allow-origin") is None


async def test_preflights_are_counted_and_bounded_like_other_requests(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine, cors_origins=(HERE,)) as app:
        await preflight(app)
        await preflight(app, origin=ELSEWHERE)
        samples = await app.samples()
    assert samples['detr_requests_total{endpoint="detect",status="200"}'] == 1
    assert samples['detr_requests_total{endpoint="detect",status="403"}'] == 1


async def test_any_origin_is_let_in_by_a_star_without_its_passwords(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine, cors_origins=("*",)) as app:
        answer = await app.client.get("/health/live", headers={"origin": ELSEWHERE})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        assert (await preflight(app, origin=ELSEWHERE)).status_code == 200


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings({"cors_origins": f"{HERE}, http://localhost:3000,"}).cors_origins == (
        HERE,
        "http://localhost:3000",
    )
    monkeypatch.setenv("DETR_CORS_ORIGINS", f"{HERE},http://[::1]:80")
    assert read_settings({}).cors_origins == (HERE, "http://[::1]:80")
    monkeypatch.setenv("DETR_CORS_ORIGINS", "")
    assert read_settings({}).cors_origins == ()


@pytest.mark.parametrize(
    "origin", ["gallery.example", "https://a/", "https://a/b", "https://*.a", "null", "ftp://a", "**"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match="DETR_CORS_ORIGINS"):
        read_settings({"cors_origins": origin})


async def test_head_is_get_without_the_body(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        for path in (*SAME_EACH_TIME, "/metrics", "/model?a=1&a=2"):
            head, get = await app.client.head(path), await app.client.get(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            assert head.headers.keys() == get.headers.keys(), path
            assert head.headers["content-type"] == get.headers["content-type"], path
            assert path == "/metrics" or head.headers["content-length"] == get.headers["content-length"], path


async def test_what_cannot_be_got_cannot_be_asked_for_by_head(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        for path in ("/detect", "/segment", "/model/reload"):
            refused = await app.client.head(path)
            assert (refused.status_code, refused.content) == (405, b"")
            assert refused.headers["allow"] == "POST"
        check_error(await app.client.get("/detect"), 405, "method_not_allowed")


async def test_a_head_that_finds_it_not_ready_says_so(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        app.service.begin_drain()
        answer = await app.client.head("/health/ready")
        assert (answer.status_code, answer.content) == (503, b"")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await app.client.head("/health/live")).status_code == 200


def test_a_connection_goes_on_after_a_head(panoptic_artifact: Path, tmp_path: Path) -> None:
    """Not one byte of a body, or the next answer would begin with it."""
    with serving_process(panoptic_artifact, tmp_path) as server, server.client() as client:
        with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
            ask = "{} {} HTTP/1.1\r\nHost: a\r\n{}\r\n"
            paths = ("/health/live", "/model", "/metrics", "/", "/nothing", "/detect")
            heads = "".join(ask.format("HEAD", path, "") for path in paths)
            connection.sendall((heads + ask.format("GET", "/health/live", "Connection: close\r\n")).encode())
            told = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        answers = told.split("HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == ["200", "200", "200", "200", "404", "405", "200"]
        assert all(answer.endswith("\r\n\r\n") for answer in answers[:-1])
        assert answers[-1].endswith('{"status":"live"}')

        def lines() -> list[dict[str, Any]]:
            return [line for line in server.lines() if line["message"] == "request" and line["method"] == "HEAD"]

        until(lambda: len(lines()) == len(paths))  # a thread writes them
        assert [line["route"] for line in lines()] == ["/health/live", "/model", "/metrics", "/", "other", "/detect"]
        assert {line["sent_bytes"] for line in lines()[:4]} == {0}
        assert "head" not in client.get("/openapi.json").json()["paths"]["/health/live"]
