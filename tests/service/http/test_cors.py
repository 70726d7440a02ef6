"""Pages of other sites: which of them the browser lets read the answers, errors included."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service.settings import SettingsError, read_settings
from tests.service.conftest import App, Serving, check_error
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio

HERE, ELSEWHERE = "https://gallery.example", "https://elsewhere.example"
KEY = "a-key-of-the-users"


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
