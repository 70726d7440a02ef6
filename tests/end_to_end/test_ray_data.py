"""The documentation's example of Ray Data, in a real Ray with two actors, on a network where nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from service.bench.pictures import synthetic_jpeg
from service.in_process import open_model
from tests.documentation import blocks
from tests.end_to_end.podman import network_of_its_own
from tests.ray_cluster import end_family, ray_environment, ray_folder

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800)]

PICTURES = int(os.environ.get("DETR_TEST_PICTURES", "40"))
BROKEN = range(3, PICTURES, max(24, PICTURES // 40))
START = "from tests.ray_driver import start\nstart()\n"
READ = """
import json, pyarrow.parquet
print(json.dumps(pyarrow.parquet.read_table("{answers}").to_pylist()))
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of several sizes, some of which are broken."""
    (folder := tmp_path / "pictures").mkdir()
    for number in range(PICTURES):
        whole = synthetic_jpeg(((96, 128), (128, 96), (64, 64))[number % 3], number)
        (folder / f"{number:04}.jpg").write_bytes(whole[:200] if number in BROKEN else whole)
    return folder


def run_in_ray(program: str, folder: Path) -> str:
    """What a program prints last, run where Ray runs."""
    with network_of_its_own(), ray_folder() as ray, (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", START + program],
            stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=ray_environment(ray, cpus=4),
        )  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=900)
        finally:
            end_family(process.pid)
    assert process.returncode == 0, (folder / "log").read_text()[-4000:]
    return printed.splitlines()[-1]


def test_each_picture_has_one_row_and_broken_ones_stop_nothing(
    need: Callable[..., None], demo: Path, pictures: Path, tmp_path: Path
) -> None:
    need("ip", "unshare", root=True)
    if find_spec("ray") is None:
        pytest.skip("needs Ray, the extra `ray`")
    (block,) = (block for block in blocks() if block.note.endswith("test_ray_data.py"))
    shutil.copy(demo, tmp_path / "detr.onnx")
    program = block.text.replace("s3://bucket", str(tmp_path)).replace('"detr.onnx"', f'"{tmp_path / "detr.onnx"}"')
    program = program.replace("batch_size=64", "batch_size=8")
    rows: list[dict[str, Any]] = json.loads(run_in_ray(program + READ.format(answers=tmp_path / "answers"), tmp_path))

    files = sorted(pictures.iterdir())
    assert sorted(row["path"] for row in rows) == [str(file) for file in files]
    here = open_model({"model": str(demo), "engine_threads": "1", "cpu_threads": "1"})
    alone = here.answer("detect", [file.read_bytes for file in files], {"threshold": "0.7"})
    expected = {str(files[number]): (status, json.loads(body)) for number, status, body in alone}
    for row in rows:
        status, answer = expected[row["path"]]
        assert row["status"] == status == (400 if int(Path(row["path"]).stem) in BROKEN else 200)
        found = json.loads(row["answer"])
        if status == 400:
            assert found == answer
        else:
            assert [each["label"] for each in found["detections"]] == [each["label"] for each in answer["detections"]]
