"""CVAT's own command line labels a task through the service, in an environment of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detr_client import Client
from tests.client_packages import environment_of_checkout
from tests.documentation import blocks
from tests.example_parts import ten_parts
from tests.server_process import ServerProcess
from tests.service.client.conftest import KEY
from tests.service.client.cvat_server import CvatTask, cvat_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `cvat-cli`."""
    folder = tmp_path_factory.mktemp("cvat")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = ("cvat-cli>=2.80", "httpx>=0.28", "numpy", "pillow")
    subprocess.run([folder / "bin/pip", "install", "--quiet", *packages], check=True)
    return folder / "bin/cvat-cli"


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """Ten parts of the example, by name."""
    return {f"part {number}.png": part for number, part in enumerate(ten_parts())}


def label(
    cli: Path, server: ServerProcess, folder: Path, pictures: dict[str, bytes], kind: str, *words: str
) -> CvatTask:
    """What lies in CVAT after the page's command, with more words; half of the classes are labels of the task."""
    with Client(server.url, api_key=KEY) as client:
        things = [each["name"] for each in client.model()["categories"] if each["isthing"]]
    task = CvatTask(pictures, [(name, kind) for name in things[::2]])
    (block,) = (block for block in blocks() if block.note.endswith("test_cvat.py"))
    (command,) = block.commands
    with cvat_server(task) as url:
        text = re.sub(r"http://localhost:8000\b", server.url, command.replace("https://cvat.example", url))
        environment = environment_of_checkout(folder) | {"CVAT_ACCESS_TOKEN": "secret", "XDG_CACHE_HOME": str(folder)}
        program = [str(cli), *shlex.split(text)[1:], "-p", f"api_key=str:{KEY}", *words]
        done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return task


def wanted(task: CvatTask, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of an answer, what the task has labels for."""
    names = [name for name, _ in task.labels]
    return [each for each in found if each["label"] in names]


def check_labels(task: CvatTask, shapes: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """Shapes are of the classes and scores of an answer, in the task's own ids."""
    ids = {name: 100 + number for number, (name, _) in enumerate(task.labels)}
    assert [shape["label_id"] for shape in shapes] == [ids[each["label"]] for each in found]
    assert [shape["score"] for shape in shapes] == pytest.approx([each["score"] for each in found])


def test_boxes_become_rectangles(
    cli: Path, server: ServerProcess, client: Client, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    task = label(cli, server, tmp_path, pictures, "rectangle")
    for frame, file in enumerate(pictures.values()):
        shapes = [shape for shape in task.shapes if shape["frame"] == frame]
        found = wanted(task, client.detect(file).to_json()["detections"])
        check_labels(task, shapes, found)
        for shape, each in zip(shapes, found, strict=True):
            assert shape["type"] == "rectangle"
            assert shape["points"] == pytest.approx([each["box"][side] for side in ("x1", "y1", "x2", "y2")], abs=0.01)
    assert len(task.shapes) >= 10


def test_masks_become_masks_or_polygons(
    cli: Path, server: ServerProcess, client: Client, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    few = dict(list(pictures.items())[:2])
    masks = label(cli, server, tmp_path, few, "mask", "-p", "shapes=str:masks")
    (tmp_path / "second").mkdir()
    words = ("-p", "shapes=str:masks", "--conv-mask-to-poly", "--conf-threshold", "0.9")
    polygons = label(cli, server, tmp_path / "second", few, "polygon", *words)
    for frame, file in enumerate(few.values()):
        shapes = [shape for shape in masks.shapes if shape["frame"] == frame]
        found = wanted(masks, client.segment(file, mode="instance").to_json()["segments"])
        check_labels(masks, shapes, found)
        for shape, each in zip(shapes, found, strict=True):
            *runs, left, top, right, bottom = map(int, shape["points"])
            assert sum(runs) == (right - left + 1) * (bottom - top + 1)
            assert sum(runs[1::2]) == each["area"]
    assert masks.shapes
    assert {shape["type"] for shape in polygons.shapes} == {"polygon"}
    assert min(shape["score"] for shape in polygons.shapes) >= 0.9
    assert all(len(shape["points"]) >= 6 for shape in polygons.shapes)
