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


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_list_that_was_killed_half_way_is_gone_on_with_until_each_picture_has_one_line(
    end: signal.Signals, tmp_path: Path
) -> None:
    """As a process that is killed several times; its last line may be cut off each time."""
    count = int(os.environ.get("DETR_TEST_PICTURES", "300"))
    names = [f"shots/{number}.jpg" for number in range(count)]
    (tmp_path / "shots").mkdir()
    picture = Image.open(REPOSITORY / "docs" / "example.jpg").resize((160, 120))
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"broken") if number % 50 == 7 else picture.rotate(number).save(tmp_path / name)
    (tmp_path / "names.txt").write_text("\n".join(names))
    command = [sys.executable, "-m", "service.cli", "predict", "--list", "names.txt", "--out", "a.jsonl", "--resume"]
    lines = tmp_path / "a.jsonl"

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DETR_DEVICE": "cpu"}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    for share in (0.3, 0.6):
        process = start()
        until(lambda share=share: lines.exists() and lines.read_text().count("\n") >= share * count)  # type: ignore[misc]
        before = lines.read_bytes()
        process.send_signal(end)
        _, said = process.communicate(timeout=120)
        assert process.returncode == (-end if end == signal.SIGKILL else 128 + end)
        assert lines.read_bytes().startswith(before)
        if end == signal.SIGKILL:
            lines.write_bytes(lines.read_bytes()[:-40])  # as if it had been killed while it wrote
        else:
            assert said.splitlines()[-1].endswith(f"of {count} pictures are answered, then interrupted")
    process = start()
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert said.splitlines()[-1] == f"detr predict: {count - count // 50} of {count} pictures are answered"
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted(line["file"] for line in written) == sorted(names)
    assert sum("error" in line for line in written) == count // 50
    again = start()
    _, said = again.communicate(timeout=120)
    assert (again.returncode, said) == (1, f"detr predict: {count - count // 50} of {count} pictures are answered\n")
    assert len(lines.read_text().splitlines()) == count


def test_a_picture_is_answered_while_the_list_waits_for_the_next_name(folder: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "predict", "--list", "-"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DETR_BATCH_TIMING_MS": "0"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name in ("camera 0/0.jpg", "none.jpg", "camera 1/0.jpg"):
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["file"] == name
        process.stdin.close()
        assert process.wait(timeout=60) == 1


def answers(out: Path) -> list[str]:
    lines = [json.loads(line) for line in (out / "a.jsonl").read_text().splitlines()]
    return [line["file"] for line in lines if "error" not in line]


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
