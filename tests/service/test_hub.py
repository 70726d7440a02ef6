"""A service whose model is a name on the hub: a real server process, the real huggingface_hub, and no torch."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub, fake_hub
from tests.processes import until
from tests.server_process import ServerProcess, serving, start_in_vain
from tests.service.conftest import check_error

NAME = "facebook/detr-resnet-50"
FILES = {"config.json": b'{"model_type": "detr"}', "model.safetensors": b"weights"}
ADMIN = "a-key-of-the-admin"
Start = Callable[..., AbstractContextManager[ServerProcess]]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.push(NAME, FILES)
        yield hub


@pytest.fixture
def command(detection_artifact: Path, tmp_path: Path) -> tuple[str, ...]:
    played = (str(detection_artifact), str(tmp_path / "record"))
    return (sys.executable, "-m", "tests.service.hub_server", *played, "serve", "--device", "cpu")


@pytest.fixture
def env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    caches = {"HF_HOME": str(tmp_path / "hf"), "DETR_MODEL_CACHE": str(tmp_path / "artifacts")}
    return {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", **caches}


@pytest.fixture
def start(command: tuple[str, ...], env: dict[str, str], tmp_path: Path) -> Start:
    return partial(serving, NAME, tmp_path, command=command, env=env)


def test_while_the_model_is_downloaded_the_service_is_alive_and_not_ready(
    start: Start, hub: FakeHub, jpeg: bytes
) -> None:
    hub.gate.clear()
    with start(wait=False) as server:
        server.wait_for_line(f"downloading {NAME}, commit {hub.repositories[NAME].refs['main']}")
        assert server.get("/health/live").status_code == 200
        check_error(server.get("/health/ready"), 503, "starting")
        hub.gate.set()
        until(lambda: server.get("/health/ready").status_code == 200)
        assert server.post("/detect", jpeg, "image/jpeg").status_code == 200
        line = server.wait_for_line(f"{NAME} is commit {hub.repositories[NAME].refs['main']}")
        assert "weights of SHA-256" in line["message"]
        assert server.errors() == []


def test_a_stop_during_a_download_is_not_held_up_by_it(start: Start, hub: FakeHub) -> None:
    hub.gate.clear()
    with start(wait=False) as server:
        server.wait_for_line("downloading")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0


def test_the_next_start_needs_no_hub(start: Start, hub: FakeHub, env: dict[str, str], jpeg: bytes) -> None:
    with start():
        pass
    hub.status = 503
    with start() as server:
        assert server.post("/detect", jpeg, "image/jpeg").status_code == 200
        server.wait_for_line(f"the hub ({hub.url}) answered 503: {NAME} is the commit that was taken last")


def test_a_reload_follows_the_branch_to_its_new_commit(start: Start, hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "admins").write_text(f"{ADMIN}\n")
    with start("--admin-keys-file", tmp_path / "admins") as server:
        commit = hub.push(NAME, FILES | {"model.safetensors": b"newer weights"})
        server.signal(signal.SIGHUP)
        server.wait_for_line(f"{NAME} is commit {commit}")
        server.wait_for_line("reloaded")
        del hub.repositories[NAME]
        refused = server.lonely.post(f"{server.url}/model/reload", headers={"x-api-key": ADMIN})
        check_error(refused, 422, "model_refused")
        assert refused.json()["error"]["message"] == "the model cannot be had by its name; the log says why"
        assert server.get("/health/ready").status_code == 200


def test_a_name_that_cannot_be_had_ends_the_start_in_one_line(
    command: tuple[str, ...], env: dict[str, str], hub: FakeHub
) -> None:
    hub.push("someone/bert", {"config.json": b'{"model_type": "bert"}'})
    for name, words in {
        "no-one/nothing": f"no model no-one/nothing on the hub ({hub.url})",
        "someone/bert": "someone/bert is no DETR",
        "detr-resnet-50": "detr fetch detr-resnet-50",
    }.items():
        ended = start_in_vain("--model", name, command=command, env=env)
        assert ended.code == 1
        (line,) = ended.errors.splitlines()
        assert line.startswith("detr serve: ")
        assert words in line
