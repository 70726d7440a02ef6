"""HEAD: what a balancer asks, and what it may rely on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.reliability.server_process import serving as serving_process
from tests.service.conftest import Serving, check_error
from tests.service.fakes import FakeEngine

# Of /metrics the length differs from one answer to the next.
SAME_EACH_TIME = ("/health/live", "/health/ready", "/v2/health/ready", "/model", "/", "/docs", "/openapi.json", "/no")


@pytest.mark.anyio
async def test_head_is_get_without_the_body(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        for path in (*SAME_EACH_TIME, "/metrics", "/model?a=1&a=2"):
            head, get = await app.client.head(path), await app.client.get(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            assert head.headers.keys() == get.headers.keys(), path
            assert head.headers["content-type"] == get.headers["content-type"], path
            assert path == "/metrics" or head.headers["content-length"] == get.headers["content-length"], path


@pytest.mark.anyio
async def test_what_cannot_be_got_cannot_be_asked_for_by_head(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        for path in ("/detect", "/segment", "/model/reload"):
            refused = await app.client.head(path)
            assert (refused.status_code, refused.content) == (405, b"")
            assert refused.headers["allow"] == "POST"
        check_error(await app.client.get("/detect"), 405, "method_not_allowed")


@pytest.mark.anyio
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
        lines = [line for line in server.lines() if line["logger"] == "service.request" and line["method"] == "HEAD"]
        assert [line["route"] for line in lines] == ["/health/live", "/model", "/metrics", "/", "other", "/detect"]
        assert {line["sent_bytes"] for line in lines[:4]} == {0}
        assert "head" not in client.get("/openapi.json").json()["paths"]["/health/live"]
