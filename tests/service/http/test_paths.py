"""The table of paths: it names what the app answers, and nothing else in the service writes a path."""

from __future__ import annotations

import ast
from pathlib import Path

import service
from service.app import create_app
from service.http import paths
from service.http.paths import ENDPOINTS, HEALTH, PAGES
from service.http.routes import metrics_router, pages_router, router
from service.settings import Settings

SOURCE = Path(service.__file__).parent


def test_the_app_answers_the_paths_of_the_table_and_no_others() -> None:
    routes = [route for part in (router, metrics_router, pages_router) for route in part.routes]
    answered = {getattr(route, "path", None) for route in routes} | {create_app(Settings()).openapi_url}
    assert answered == ENDPOINTS.keys()
    assert set(ENDPOINTS) == {value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)}
    assert ENDPOINTS.keys() > HEALTH | PAGES


def test_no_path_is_written_beside_the_table() -> None:
    written = set()
    for path in SOURCE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        literals = {node.value for node in nodes if isinstance(node, ast.Constant)}
        # A lone slash parts all sorts of things.
        if literals & (ENDPOINTS.keys() - {paths.PAGE}):
            written.add(path.relative_to(SOURCE).as_posix())
    assert written == {"http/paths.py"}
