"""From a name on the hub to a right answer, in a process that has no torch: the way a newcomer's first model takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint.reading import read_checkpoint
from model.export import export
from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.hub_files import MODELS, repository_files
from tests.fake_hub import FakeHub, fake_hub
from tests.model.test_cli import WITHOUT_TORCH
from tests.server_process import environment, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DETR = (sys.executable, "-c", WITHOUT_TORCH)
EXAMPLE = REPOSITORY / "docs/example.jpg"


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository_files(name, tmp_path_factory.mktemp("repository"))


@pytest.fixture
def hub(name: str, folder: Path) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.push(name, {path.name: path.read_bytes() for path in folder.iterdir()})
        yield hub


@pytest.fixture
def env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    caches = {"HF_HOME": str(tmp_path / "hf"), "DETR_MODEL_CACHE": str(tmp_path / "artifacts")}
    return environment() | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", **caches}


def check_alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["box"] == pytest.approx(other["box"], abs=0.1)


def test_a_name_is_served_and_answers_as_the_export_of_its_weights_does(
    name: str, folder: Path, hub: FakeHub, env: dict[str, str], tmp_path: Path
) -> None:
    hub.interruptions = [("model.safetensors", 25 * 2**20)]
    with serving(name, tmp_path, command=(*DETR, "serve", "--device", "cpu"), env=env) as server:
        picture = EXAMPLE.read_bytes()
        detections = server.post("/detect?threshold=0.01", picture, "image/jpeg").json()["detections"]
        provenance = server.get("/model").json()["provenance"]
        if "panoptic" in name:
            assert server.post("/segment", picture, "image/jpeg").status_code == 200
        assert server.errors() == []
    assert provenance["source"] == name
    assert provenance["revision"] == hub.repositories[name].refs["main"]

    exported = tmp_path / "exported.onnx"
    export(read_checkpoint(folder, None, None), exported)
    words = ["predict", str(EXAMPLE), "--threshold", "0.01", "--device", "cpu", "--model", str(exported)]
    done = subprocess.run([*DETR, *words], env=env, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    check_alike(detections, json.loads(done.stdout)[0]["detections"])

    # What is in the cache needs no hub, and other commands find it there, too.
    hub.status = 503
    words[-1] = name
    again = subprocess.run([*DETR, *words], env=env, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    check_alike(json.loads(again.stdout)[0]["detections"], detections)
