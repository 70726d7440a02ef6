"""Real clients of the Open Inference Protocol against a real server: Triton's, KServe's and NVIDIA's perf_analyzer."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.documentation import blocks
from tests.end_to_end.conftest import REPOSITORY
from tests.server_process import ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENTS = ("tritonclient[http]==2.73.0", "kserve==0.21.0")
PERF_ANALYZER = "perf-analyzer==2.60.0"
DEBIAN = "trixie"  # the first with a glibc that perf_analyzer takes
EXAMPLE = REPOSITORY / "docs" / "example.jpg"
PROGRAM = Path(__file__).with_name("protocol_clients.py")
PAGE = "docs/http.md"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the clients, of which KServe's cannot be installed beside the project."""
    folder = tmp_path_factory.mktemp("clients")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", *CLIENTS], check=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(None, tmp_path_factory.mktemp("server"), "--max-body-bytes", "1000000") as server:
        yield server


def test_the_clients_get_what_detect_and_segment_answer_and_can_print_every_error(
    python: Path, server: ServerProcess
) -> None:
    # Without the folder of the program, in which modules are called as packages are that the clients import.
    done = subprocess.run([python, "-P", PROGRAM, server.url, EXAMPLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    picture = EXAMPLE.read_bytes()
    detected = server.post("/detect?threshold=0.3", picture, "image/jpeg").json()
    segmented = server.post("/segment?threshold=0.3", picture, "image/jpeg").json()
    for client in ("triton", "kserve"):
        assert found[client]["health"] == [True, True, True]
        assert found[client]["unknown model"] is False
        for tensors in found[client]["answers"]["detect"]:
            check_tensors(tensors, detected["image"], detected["detections"])
        for tensors in found[client]["answers"]["segment"]:
            check_tensors(tensors, segmented["image"], segmented["segments"])
            assert tensors["segment_ids"] == [each["id"] for each in segmented["segments"]]
            assert tensors["panoptic_png"] == [segmented["panoptic_png"]]
    assert found["triton"]["server"]["name"] == "detr-serve"
    assert [entry["name"] for entry in found["triton"]["index"]] == ["detect", "segment"]
    assert found["triton"]["config"]["max_batch_size"] == 0
    not_a_picture, no_model = "the upload is not an image", "there is no model of that name here"
    assert_told(found["triton"]["errors"], not_a_picture, no_model, "threshold", "compressed", "1000000", "not found")
    assert_told(found["kserve"]["errors"], not_a_picture, no_model, "threshold")


def check_tensors(tensors: dict[str, Any], image: dict[str, int], expected: list[dict[str, Any]]) -> None:
    """The tensors say what an answer of the other routes says."""
    assert expected
    assert tensors["image_size"] == [image["height"], image["width"]]
    assert tensors["labels"] == [each["label"] for each in expected]
    assert tensors["category_ids"] == [each["category_id"] for each in expected]
    assert tensors["scores"] == pytest.approx([each["score"] for each in expected], abs=1e-6)
    for box, each in zip(tensors["boxes"], expected, strict=True):
        assert box == pytest.approx(list(each["box"].values()), abs=1e-4)


def assert_told(errors: list[str], *parts: str) -> None:
    """Each error tells its reason."""
    for error, part in zip(errors, parts, strict=True):
        assert part in error


@pytest.mark.parametrize("module", ["tritonclient", "kserve"])
def test_the_documentations_examples_run(python: Path, server: ServerProcess, module: str, tmp_path: Path) -> None:
    (block,) = [
        block for block in blocks() if block.page == PAGE and re.search(f"^(import|from) {module}", block.text, re.M)
    ]
    (tmp_path / "picture.jpg").write_bytes(EXAMPLE.read_bytes())
    text = block.text.replace("localhost:8000", f"127.0.0.1:{server.port}")
    done = subprocess.run([python, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "heart" in done.stdout


@pytest.fixture(scope="module")
def debian(need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a Debian with perf_analyzer in /perf_analyzer."""
    need("debootstrap", "chroot", root=True)
    root = tmp_path_factory.mktemp("debian") / "root"
    subprocess.run(["debootstrap", "--variant=minbase", DEBIAN, root], check=True, capture_output=True)
    wheel = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--platform",
        "manylinux_2_38_x86_64",
        "--target",
        str(root / "opt"),
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wheel, PERF_ANALYZER], check=True)
    program = root / "opt" / "perf_analyzer" / "bin" / "perf_analyzer"
    program.chmod(0o755)
    program.rename(root / "perf_analyzer")
    return root


@pytest.mark.root
@pytest.mark.parametrize("model", ["detect", "segment"])
def test_perf_analyzer_measures_it(debian: Path, server: ServerProcess, model: str) -> None:
    picture = EXAMPLE.read_bytes()
    # It sends what it is given, so the length before an element is given as well.
    element = base64.b64encode(struct.pack("<I", len(picture)) + picture).decode()
    (debian / "input.json").write_text(json.dumps({"data": [{"image": {"content": {"b64": element}, "shape": [1]}}]}))
    options = [
        "-i",
        "http",
        "-m",
        model,
        "--input-data",
        "/input.json",
        "--concurrency-range",
        "2",
        "--request-count",
        "20",
    ]
    before = answered(server)
    done = subprocess.run(
        ["chroot", debian, "/perf_analyzer", "-u", f"127.0.0.1:{server.port}", *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Request count: 20\b", done.stdout), done.stdout
    assert float(re.findall(r"Throughput: ([\d.]+) infer/sec", done.stdout)[0]) > 0
    assert answered(server) - before >= 20


def answered(server: ServerProcess) -> float:
    return server.samples().get('detr_requests_total{endpoint="infer",status="200"}', 0)
