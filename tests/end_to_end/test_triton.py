"""The model repository of `detr export --triton` in a real Triton, beside the same artifact in the real service.

Triton's ONNX Runtime backend does not install, so a stand-in runs the graph; see tests/end_to_end/triton.py.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.bench.pictures import synthetic_jpeg
from service.cli import main
from tests.documentation import REPOSITORY, blocks
from tests.end_to_end.triton import Answer, Triton, detections, infer
from tests.server_process import ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ARTIFACT = REPOSITORY / "model/demo/detr-demo.onnx"
SIZES = ((120, 160), (160, 120), (96, 96), (200, 90), (128, 128), (64, 160), (150, 150), (90, 120))
FILES = tuple(synthetic_jpeg(size, seed) for seed, size in enumerate(SIZES))
THRESHOLD = 0.02  # of which noise has some


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the page's command writes it."""
    (block,) = (block for block in blocks() if block.note.endswith("test_triton.py"))
    (command,) = block.commands
    folder = tmp_path_factory.mktemp("triton")
    words = shlex.split(command)[1:]
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        assert main([str(REPOSITORY / word) if word.endswith(".onnx") else word for word in words]) == 0
    return folder / "repository"


@pytest.fixture(scope="module")
def url(need: Callable[..., None], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    need(libraries=[f"python{sys.version_info.major}.{sys.version_info.minor}"])
    triton = Triton.install(tmp_path_factory.mktemp("triton"))
    triton.run_here(repository)
    with triton.serving(repository, repository.parent / "triton.log") as address:
        yield address


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(ARTIFACT, tmp_path_factory.mktemp("server")) as server:
        yield server


def ask(url: str, *files: bytes, threshold: float | None = THRESHOLD) -> httpx.Response:
    """One request with so many pictures."""
    inputs: dict[str, NDArray[Any]] = {"image": np.array(files, object).reshape(-1, 1)}
    if threshold is not None:
        inputs["threshold"] = np.full((len(files), 1), threshold, np.float32)
    return infer(url, "detr", inputs)


def check_as_served(found: Answer, server: ServerProcess, file: bytes, threshold: float | None) -> None:
    """What Triton answers is what /detect answers."""
    query = "" if threshold is None else f"?threshold={threshold}"
    expected = server.post(f"/detect{query}", file, "image/jpeg").json()["detections"]
    assert found["labels"].tolist() == [each["label"] for each in expected]
    assert found["category_ids"].tolist() == [each["category_id"] for each in expected]
    assert found["scores"] == pytest.approx([each["score"] for each in expected], abs=1e-4)
    boxes = [[each["box"][side] for side in ("x1", "y1", "x2", "y2")] for each in expected]
    assert found["boxes"].reshape(-1, 4) == pytest.approx(np.reshape(boxes, (-1, 4)), abs=1e-2)


def test_pictures_of_unequal_sizes_share_a_batch_and_are_answered_as_by_the_service(
    url: str, repository: Path, server: ServerProcess
) -> None:
    for found, file in zip(detections(ask(url, *FILES)), FILES, strict=True):
        assert len(found["labels"])
        check_as_served(found, server, file, THRESHOLD)
    batches = (repository / "detr_graph/batches").read_text().splitlines()
    assert [line.split()[0] for line in batches] == ["8"]


def test_requests_at_once_are_batched_by_triton_and_answered_alike(
    url: str, repository: Path, server: ServerProcess
) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: ask(url, FILES[number % 8]), range(64)))
    for number, answer in enumerate(answers):
        check_as_served(detections(answer)[0], server, FILES[number % 8], THRESHOLD)
    sizes = [int(line.split()[0]) for line in (repository / "detr_graph/batches").read_text().splitlines()]
    assert max(sizes) > 1
    assert sum(sizes) >= 64


def test_without_a_threshold_it_is_the_models_own(url: str, server: ServerProcess) -> None:
    check_as_served(detections(ask(url, FILES[0], threshold=None))[0], server, FILES[0], None)


def test_a_bad_picture_or_threshold_is_refused_by_name_and_others_are_answered(url: str) -> None:
    refused = ask(url, b"hello")
    assert (refused.status_code, refused.json()["error"]) == (400, "the upload is not an image")
    assert ask(url, FILES[0], b"hello").json()["error"] == "picture 1: the upload is not an image"
    assert "threshold is 4" in ask(url, FILES[0], threshold=4.0).json()["error"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: ask(url, FILES[0] if number % 2 else b"hello"), range(16)))
    assert [answer.status_code for answer in answers] == [400, 200] * 8


def test_a_picture_is_turned_as_its_exif_says(url: str, server: ServerProcess) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.open(io.BytesIO(FILES[0])).save(buffer, "JPEG", exif=exif)
    check_as_served(detections(ask(url, buffer.getvalue()))[0], server, buffer.getvalue(), THRESHOLD)


def test_the_configuration_of_the_graph_is_what_the_graph_has(url: str) -> None:
    config = httpx.get(f"{url}/v2/models/detr_graph/config").json()
    session = onnxruntime.InferenceSession(ARTIFACT)
    assert config["max_batch_size"] == 0
    for described, nodes in ((config["input"], session.get_inputs()), (config["output"], session.get_outputs())):
        told = {port["name"]: [int(size) for size in port["dims"]] for port in described}
        assert told == {node.name: [size if isinstance(size, int) else -1 for size in node.shape] for node in nodes}
