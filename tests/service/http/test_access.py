"""Who is let in: every route but health is guarded, by all three ways to bring a key, before a body is read."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import Depends
from hypothesis import given
from hypothesis import strategies as st

from service.http.access import open_access, presented_key, require_admin
from service.process.logs import JsonFormatter
from service.settings import Settings, SettingsError, read_settings
from tests.service.conftest import App, Serving, check_error
from tests.service.fakes import FakeEngine

pytestmark = [pytest.mark.anyio, pytest.mark.api]

KEY, ADMIN = "a-key-of-the-users", "a-key-of-the-admins"
ROUTES = [
    ("POST", "/detect"), ("POST", "/segment"), ("GET", "/model"), ("GET", "/metrics"), ("GET", "/"), ("GET", "/docs"),
    ("GET", "/openapi.json"), ("GET", "/detect"), ("GET", "/nowhere"),
    pytest.param("BREW", "/detect", marks=pytest.mark.protocol), ("OPTIONS", "/detect"),
    ("GET", "//health/live"), ("GET", "/health/live/"), ("GET", "/health"), ("GET", "/health/live%2f..%2fmodel"),
]  # fmt: skip


def basic(password: str, user: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Settings with a file of each kind."""
    (tmp_path / "users").write_text(f"# users\n{KEY}\n")
    (tmp_path / "admins").write_text(f"{ADMIN}\n")
    return {"api_keys_file": tmp_path / "users", "admin_keys_file": tmp_path / "admins"}


async def test_without_keys_everybody_is_let_in(serving: Serving, engine: FakeEngine, jpeg: bytes) -> None:
    async with serving(engine) as app:
        assert (await app.detect(jpeg)).status_code == 200
        assert "security" not in (await app.client.get("/openapi.json")).json()


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_but_health_wants_a_key(
    serving: Serving, engine: FakeEngine, keys: dict[str, Path], method: str, path: str
) -> None:
    async with serving(engine, **keys) as app:
        refused = await app.client.request(method, path)
        check_error(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"]
        for headers in (
            {"authorization": f"Bearer {KEY}"},
            {"authorization": f"bearer {KEY}"},
            {"x-api-key": KEY},
            {"authorization": basic(KEY)},
            {"x-api-key": ADMIN},
        ):
            assert (await app.client.request(method, path, headers=headers)).status_code != 401, headers


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY + "x"},
        {"x-api-key": ""},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": KEY},
        {"authorization": "Bearer"},
        {"authorization": f"Digest {KEY}"},
        {"authorization": "Basic " + KEY},
        {"authorization": basic("wrong", user=KEY)},
        {"authorization": f"Bearer {KEY}", "x-api-key": "wrong"},
        {"cookie": f"key={KEY}"},
    ],
)
async def test_anything_else_is_no_key(
    serving: Serving, engine: FakeEngine, keys: dict[str, Path], headers: dict[str, str]
) -> None:
    async with serving(engine, **keys) as app:
        check_error(await app.client.get("/model", headers=headers), 401, "unauthorized")
        check_error(await app.client.get(f"/model?api_key={KEY}", headers=headers), 401, "unauthorized")


async def test_health_never_wants_a_key(serving: Serving, keys: dict[str, Path]) -> None:
    async with serving(**keys) as app:
        for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
            assert (await app.client.get(path)).status_code == 200
            assert (await app.client.get(path, headers={"x-api-key": "wrong"})).status_code == 200


@pytest.mark.usefixtures("inside")
async def test_a_body_is_not_read_from_who_has_no_key(
    serving: Serving, engine: FakeEngine, keys: dict[str, Path], jpeg: bytes
) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield jpeg

    async with serving(engine, **keys) as app:
        request = {"type": "http", "method": "POST", "path": "/detect", "headers": [], "query_string": b""}

        async def receive() -> dict[str, object]:
            raise AssertionError("the body was asked for")

        answers: list[dict[str, object]] = []

        async def send(message: dict[str, object]) -> None:
            answers.append(message)

        await app.app(request, receive, send)
    assert answers[0]["status"] == 401


async def test_a_browser_is_asked_for_a_key_where_it_opens_a_page_and_nowhere_else(
    serving: Serving, engine: FakeEngine, keys: dict[str, Path]
) -> None:
    async with serving(engine, **keys) as app:
        for path in ("/", "/docs", "/openapi.json"):
            assert (await app.client.get(path)).headers["www-authenticate"].startswith("Basic realm=")
            assert (await app.client.get(path, auth=("", KEY))).status_code == 200
        assert (await app.client.get("/model")).headers["www-authenticate"] == 'Bearer realm="detr"'


@pytest.mark.usefixtures("inside")
async def test_keys_of_the_environment_and_of_the_file_both_count(
    serving: Serving, engine: FakeEngine, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETR_API_KEYS", "first-of-the-environment, second-of-the-environment")
    async with serving(engine, **keys) as app:
        for key in (KEY, "first-of-the-environment", "second-of-the-environment"):
            assert (await app.client.get("/model", headers={"x-api-key": key})).status_code == 200


async def test_a_reload_of_the_keys_counts_soon(serving: Serving, engine: FakeEngine, keys: dict[str, Path]) -> None:
    async with serving(engine, **keys) as app:
        keys["api_keys_file"].write_text("the-key-that-came-after\n")
        app.app.state.access.reload()
        async with asyncio.timeout(10):
            while (await app.client.get("/model", headers={"x-api-key": KEY})).status_code == 200:
                await asyncio.sleep(0.01)
        assert (await app.client.get("/model", headers={"x-api-key": "the-key-that-came-after"})).status_code == 200


async def admin_route(app: App, headers: dict[str, str]) -> httpx.Response:
    if not any(getattr(route, "path", "") == "/secret" for route in app.app.routes):
        app.app.add_api_route("/secret", lambda: "done", dependencies=[Depends(require_admin)])
    return await app.client.get("/secret", headers=headers)


async def test_an_admin_needs_a_key_of_that_kind(serving: Serving, engine: FakeEngine, keys: dict[str, Path]) -> None:
    async with serving(engine, admin_keys_file=keys["admin_keys_file"]) as app:
        check_error(await admin_route(app, {}), 401, "unauthorized")
        check_error(await admin_route(app, {"x-api-key": KEY}), 403, "forbidden")
        check_error(await admin_route(app, {"authorization": basic(ADMIN)}), 401, "unauthorized")
        assert (await admin_route(app, {"x-api-key": ADMIN})).status_code == 200
        assert (await admin_route(app, {"authorization": f"Bearer {ADMIN}"})).status_code == 200
        assert (await app.client.get("/model")).status_code == 200, "only admins need keys"


async def test_without_admin_keys_nobody_is_an_admin(
    serving: Serving, engine: FakeEngine, keys: dict[str, Path]
) -> None:
    async with serving(engine, api_keys_file=keys["api_keys_file"]) as app:
        check_error(await admin_route(app, {"x-api-key": KEY}), 403, "forbidden")


async def test_the_description_says_how_to_bring_a_key(
    serving: Serving, engine: FakeEngine, keys: dict[str, Path]
) -> None:
    async with serving(engine, **keys) as app:
        api = (await app.client.get("/openapi.json", headers={"x-api-key": KEY})).json()
    assert api["components"]["securitySchemes"].keys() == {"bearer", "header", "basic"}
    assert api["security"] == [{"bearer": []}, {"header": []}, {"basic": []}]
    for path, operations in api["paths"].items():
        for operation in operations.values():
            is_health, is_for_admins = path.startswith("/health"), path == "/model/reload"
            keyless: list[dict[str, list[str]]] | None = [] if is_health else None
            ways = [{"bearer": []}, {"header": []}] if is_for_admins else keyless
            assert operation.get("security") == ways
            assert ("401" in operation["responses"]) == (not is_health)
            assert ("403" in operation["responses"]) == is_for_admins


async def test_no_key_is_ever_written(
    serving: Serving, engine: FakeEngine, keys: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "a-wrong-key-that-tries"
    async with serving(engine, **keys) as app:
        app.app.state.access.reload()
        texts = [
            (await app.client.get("/model", headers=headers)).text
            for headers in ({"x-api-key": KEY}, {"x-api-key": wrong}, {"authorization": basic(wrong)})
        ]
        texts.append(repr(app.service.settings))
    texts += [JsonFormatter().format(record) for record in caplog.records if not record.name.startswith("httpx")]
    for text in texts:
        assert not any(key in text for key in (KEY, ADMIN, wrong, basic(wrong)))


@pytest.mark.parametrize("given_keys", ["short", "", "ok-but-too-few,short", "two words, and-a-key-that-is-long"])
def test_a_bad_key_of_the_environment_is_a_setting_that_is_named_and_not_shown(
    given_keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETR_API_KEYS", given_keys)
    with pytest.raises(SettingsError, match=r"^DETR_API_KEYS: ") as caught:
        open_access(read_settings({}))
    assert not any(key in str(caught.value) for key in ("short", "too-few", "words", "that-is-long"))


@pytest.mark.parametrize("name", ["api_keys_file", "admin_keys_file"])
def test_a_file_of_keys_that_is_not_there_stops_the_start(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"DETR_{name.upper()} .*No such file"):
        open_access(read_settings({name: str(tmp_path / "nothing")}))


def test_a_secret_is_hidden_where_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETR_API_KEYS", KEY)
    settings = Settings()
    assert KEY not in repr(settings)
    assert KEY not in str(settings)
    assert KEY not in settings.model_dump_json()


NAMES = st.sampled_from([b"x-api-key", b"authorization", b"host"])
VALUES = st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"Basic " + rest)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_no_header_breaks_the_search_for_a_key(headers: list[tuple[bytes, bytes]]) -> None:
    key = presented_key(headers, basic=True)
    names = {name for name, _ in headers}
    assert key is None or names & {b"x-api-key", b"authorization"}
    assert presented_key(headers, basic=False) in (key, None)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1), st.text())
def test_a_key_is_found_in_whichever_way_it_is_brought(key: str, user: str) -> None:
    user = user.replace(":", "")
    assert presented_key([(b"x-api-key", key.encode())], basic=False) == key.encode()
    assert presented_key([(b"authorization", b"Bearer " + key.encode())], basic=False) == key.encode()
    assert presented_key([(b"authorization", basic(key, user).encode())], basic=True) == key.encode()
    assert presented_key([(b"authorization", basic(key, user).encode())], basic=False) is None
    assert presented_key([(b"x-api-key", key.encode())] * 2, basic=True) is None
