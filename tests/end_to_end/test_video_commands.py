"""What the documentation says of videos does what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service import cli
from tests.client_packages import environment_of_checkout
from tests.documentation import Block, blocks
from tests.end_to_end.conftest import REPOSITORY
from tests.server_process import serving
from tests.service.predict.video.clips import shown, write_clip

HERE = "run by tests/end_to_end/test_video_commands.py"
BLOCKS = [block for block in blocks() if block.note == HERE]
COUNT = 11


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a video of the picture of docs/, over which a window moves."""
    with Image.open(REPOSITORY / "docs" / "example.jpg") as picture:
        picture.thumbnail((160, 120))
        pixels = np.asarray(picture)
    frames = [np.ascontiguousarray(pixels[:96, number : number + 128]) for number in range(COUNT)]
    write_clip(tmp_path / "clip.mp4", frames, codec="libx264", pix_fmt="yuv420p")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", [line for block in BLOCKS if block.language == "bash" for line in block.commands])
def test_every_command_answers_and_draws_the_video(command: str, folder: Path) -> None:
    words = shlex.split(command)[1:]
    assert cli.main([*words, "--device", "cpu"]) == 0
    count = 3 if "--every" in words else COUNT
    assert len(shown(folder / "drawn" / "clip.mp4")) == count
    if "--json" in words:
        assert (folder / "answers.jsonl").read_text().count("\n") == count


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_frames_are_sent_to_a_server(block: Block, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = environment_of_checkout(tmp_path_factory.mktemp("metadata"))
    with serving(None, folder) as server:
        text = re.sub(r"http://localhost:8000\b", server.url, block.text)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", text], cwd=folder, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["0.0", "0.5", "1.0"]


def test_there_are_such_blocks() -> None:
    assert {block.language for block in BLOCKS} == {"bash", "python"}
