"""Who is let in, over real sockets (row S12), and what no one who is let in could misuse (row S11)."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import until
from tests.reliability.conftest import Scripted
from tests.reliability.corpus import METHODS, ROUTES
from tests.reliability.raw_http import connect, exchange, read_answer, request
from tests.reliability.scripted_engine import identity_of, picture
from tests.server_process import REPOSITORY

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"


@pytest.mark.row(id="S12")
def test_without_a_key_there_is_nothing_but_health(start: Scripted, tmp_path: Path) -> None:
    """On every route that there is, known to this test or not, with every method, before any body is read."""
    keys = tmp_path / "keys"
    keys.write_text(FIRST)
    with start("--api-keys-file", str(keys)) as server, server.client() as client:
        described = client.get("/openapi.json", headers={"X-API-Key": FIRST}).json()["paths"]
        health = {path for path in described if "health" in path} | {"/v2/health/live", "/v2/health/ready"}
        for path, method in itertools.product({*ROUTES, *described}, METHODS):
            answer = client.request(method, path)
            if path in health:
                assert answer.status_code in (200, 405)
            else:
                assert answer.status_code == 401, f"{method} {path}"
                assert method == "HEAD" or answer.json()["error"]["code"] == "unauthorized"
        for path in ("/%64etect", "/detect/", "//detect", "/health/live/../../detect", "/health/ready?/detect"):
            assert client.post(path).status_code in (401, 405), path
        with connect(server.port) as connection:
            connection.sendall(request(length=16_000_000))  # of which nothing is sent
            answered = read_answer(connection)
            assert answered is not None
            assert answered.status_code == 401
        assert server.script()["images"] == 0


@pytest.mark.row(id="S12")
def test_keys_are_rotated_while_it_runs(start: Scripted, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(FIRST)
    with start("--api-keys-file", str(keys)) as server:

        def status(key: str) -> int:
            answer = exchange(server.port, request(body=picture(5), headers={"Authorization": f"Bearer {key}"}))
            assert answer is not None
            assert answer.status_code != 200 or identity_of(answer.json()) == 5
            return answer.status_code

        assert (status(FIRST), status(SECOND)) == (200, 401)
        keys.write_text(f"{FIRST}\n{SECOND}\n")
        until(lambda: status(SECOND) == 200)
        assert status(FIRST) == 200
        keys.write_text(SECOND)
        until(lambda: status(FIRST) == 401)
        assert status(SECOND) == 200
        text = server.log.read_text()
        assert FIRST not in text
        assert SECOND not in text


# Modules by which a file or a name that a client sends could become code, a command, or a request to somewhere else.
DANGEROUS = {
    "pickle", "cPickle", "shelve", "marshal", "dill", "joblib", "torch", "subprocess", "ftplib", "requests", "httpx",
    "urllib.request", "http.client", "aiohttp", "urllib3", "xml", "yaml",
}  # fmt: skip
# The client and the load driver are programs of their own, which the service does not import.
PROGRAMS = {"service/bench", "service/client"}
# Pictures of the tasks that Label Studio sends: from the places that the operator names only, and from none by default.
FETCHES = {"service/http/label_studio/pictures.py"}


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.row(id="S11")
@pytest.mark.parametrize("package", ["service", "model/runtime"])
def test_nothing_that_serves_unpickles_or_fetches(package: str) -> None:
    for path in (REPOSITORY / package).rglob("*.py"):
        name = path.relative_to(REPOSITORY).as_posix()
        if any(name.startswith(program) for program in PROGRAMS):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if name in FETCHES:
            continue
        found = {module for module in imports(tree) if module in DANGEROUS or module.partition(".")[0] in DANGEROUS}
        assert not found, name
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            options = {keyword.arg: keyword.value for keyword in call.keywords}
            allowed = options.get("allow_pickle", ast.Constant(value=False))
            assert isinstance(allowed, ast.Constant), name
            assert allowed.value is False, name
