"""The table of paths: it names what the app answers, and nothing else in the service writes a path."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import service
from service.app import create_app
from service.http import paths
from service.http.label_studio.routes import label_studio_router
from service.http.open_inference.routes import protocol_router
from service.http.paths import ENDPOINTS, HEALTH, PAGES, route_of, takes_images
from service.http.routes import images_router, metrics_router, pages_router, router
from service.settings import Settings
from tests.service.conftest import JPEG, Serving, red_png
from tests.service.fakes import FakeEngine
from tests.service.http.label_studio.test_backend import labels_of
from tests.service.http.open_inference.tensors import in_json

SOURCE = Path(service.__file__).parent


def test_the_app_answers_the_paths_of_the_table_and_no_others() -> None:
    routes = [
        route
        for part in (images_router, router, protocol_router, label_studio_router, metrics_router, pages_router)
        for route in part.routes
    ]
    answered = {getattr(route, "path", None) for route in routes} | {create_app(Settings()).openapi_url}
    assert answered == ENDPOINTS.keys()
    named = {value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)}
    assert set(ENDPOINTS) == named | set(paths.STATIC)
    assert ENDPOINTS.keys() > HEALTH | PAGES


def test_images_are_taken_where_a_post_asks_for_a_place_in_the_queue() -> None:
    taking = {
        "/detect",
        "/segment",
        "/explain",
        "/label-studio/predict",
        "/v2/models/segment/infer",
        "/v2/models/a/versions/1/infer",
    }
    others = {*HEALTH, *PAGES, "/model", "/metrics", "/v2", "/v2/models/a", "/v2/models/a/b/infer", "/detect/", "/x"}
    assert {path for path in taking | others if takes_images(path)} == taking


def test_no_path_is_written_beside_the_table() -> None:
    written = set()
    for path in set(SOURCE.rglob("*.py")) - set((SOURCE / "client").rglob("*.py")):  # which is the other side's
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        literals = {node.value for node in nodes if isinstance(node, ast.Constant)}
        # A lone slash parts all sorts of things.
        if literals & (ENDPOINTS.keys() - {paths.PAGE}):
            written.add(path.relative_to(SOURCE).as_posix())
    assert written == {"http/paths.py"}


def test_a_path_is_told_by_its_entry_whatever_varies_in_it() -> None:
    assert route_of("/v2/models/some thing/versions/7/infer") == paths.VERSION_INFER_V2
    assert route_of("/v2/models/{name}") == paths.MODEL_V2
    for target in ("/v2/models//infer", "/v2/models/a/b/infer", "/v2/models/a/infer/", "/v3", "/detect/", ""):
        assert route_of(target) is None


@pytest.mark.anyio
async def test_caches_are_told_of_every_path_what_they_may_keep(
    serving: Serving, engine: FakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("a-key-of-an-admin")
    key = {"x-api-key": "a-key-of-an-admin"}
    kept = {paths.METRICS, *HEALTH, *PAGES}
    settings = {"api_keys_file": tmp_path / "keys", "admin_keys_file": tmp_path / "keys"}
    async with serving(engine, label_studio_url="http://127.0.0.1:9", **settings) as app:
        config = labels_of(app)
        from_label_studio = {
            paths.LABEL_STUDIO_PREDICT: {"tasks": [], "label_config": config},
            paths.LABEL_STUDIO_SETUP: {"schema": config},
            paths.LABEL_STUDIO_WEBHOOK: {"action": "TASKS_CREATED"},
        }
        for path in (entry.format(name="segment", version="1") for entry in ENDPOINTS):
            posted = (*paths.IMAGES, paths.RELOAD, paths.INDEX_V2)
            is_tensors = path.endswith("/infer")
            method = "POST" if path in posted or is_tensors or path in from_label_studio else "GET"
            sent: dict[str, Any] = {"content": red_png(1), "headers": JPEG | key}
            if is_tensors:
                sent = {"json": in_json(red_png(1)), "headers": key}
            if path in from_label_studio:
                sent = {"json": from_label_studio[path], "headers": key}
            answer = await app.client.request(method, path, **sent)
            # The tiny model does not give its attention.
            expected = {paths.LABEL_STUDIO_WEBHOOK: 201, paths.EXPLAIN: 422}.get(path, 200)
            assert (path, answer.status_code) == (path, expected)
            assert answer.headers["cache-control"] == ("no-cache" if path in kept else "no-store")
            errors = {
                405: await app.client.delete(path, headers=key),
                422: await app.client.request(method, f"{path}?a=1&a=2", **sent),
                401: await app.client.request(method, path),
            }
            for status, error in errors.items():
                if error.status_code != 200:  # the description and health
                    assert (path, error.status_code) == (path, status)
                    assert error.headers["cache-control"] == "no-store"
        assert (await app.client.get("/nowhere", headers=key)).headers["cache-control"] == "no-store"
        app.service.begin_drain()
        for path in (paths.READY, paths.READY_V2):
            draining = await app.client.get(path)
            assert (draining.status_code, draining.headers["cache-control"]) == (503, "no-store")
