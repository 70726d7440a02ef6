"""`detr predict` over folders of many files, some of them broken, as a process that may be interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.end_to_end.conftest import REPOSITORY
from tests.processes import until

COUNT, BROKEN = 120, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sub-folders in which files have the same names."""
    root = tmp_path_factory.mktemp("pictures")
    picture = Image.open(REPOSITORY / "docs" / "example.jpg").resize((160, 120))
    for number in range(COUNT):
        path = root / f"camera {number % 4}" / f"{number // 4}.jpg"
        path.parent.mkdir(exist_ok=True)
        picture.rotate(number).save(path)
        if number % (COUNT // BROKEN) == 7:
            path.write_bytes(path.read_bytes()[:700])
    return root


def predicting(folder: Path, out: Path) -> subprocess.Popen[str]:
    words = ["predict", str(folder), "--recursive", "--json", str(out / "a.jsonl"), "--overlay", str(out / "drawn")]
    command = [sys.executable, "-m", "service.cli", *words]
    # An interactive shell hands on the signal's default; one in the background would have it ignored.
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, cwd=out, env=environment, stderr=subprocess.PIPE, text=True)


def answers(out: Path) -> list[str]:
    return [json.loads(line)["file"] for line in (out / "a.jsonl").read_text().splitlines()]


def drawn(out: Path) -> list[Path]:
    return [path for path in (out / "drawn").rglob("*") if path.is_file()]


def test_every_file_has_an_answer_or_a_named_error(folder: Path, tmp_path: Path) -> None:
    process = predicting(folder, tmp_path)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    found = answers(tmp_path)
    assert len(found) == len(set(found)) == len(drawn(tmp_path)) == COUNT - BROKEN
    *errors, last = said.splitlines()
    assert len(errors) == BROKEN
    assert all(".jpg: the JPEG image is broken" in line for line in errors)
    assert last == f"detr predict: {COUNT - BROKEN} of {COUNT} pictures are answered"


def test_what_was_done_before_ctrl_c_is_kept(folder: Path, tmp_path: Path) -> None:
    process = predicting(folder, tmp_path)
    lines = tmp_path / "a.jsonl"
    until(lambda: lines.exists() and lines.read_text().count("\n") >= COUNT // 4, timeout_s=60)
    before = lines.read_text().count("\n")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    found = answers(tmp_path)
    assert before <= len(found) == len(drawn(tmp_path)) < COUNT - BROKEN
    assert said.splitlines()[-1].endswith(f"{len(found)} of {COUNT} pictures are answered, then interrupted")
