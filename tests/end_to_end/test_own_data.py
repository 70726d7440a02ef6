"""The walk of docs/own_data.md, from an export folder to the answer of a service, command by command."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.documentation import Block, blocks
from tests.model.data.formats.layout_folders import PICTURES, coco_content, write_json, write_pictures
from tests.processes import free_port, running

DETR = str(Path(sys.executable).with_name("detr"))
# What makes the training a matter of seconds; besides this, every command is run as it stands.
SMALLER = ["--preset", "detr-demo", "--steps", "2", "--batch-size", "2", "--workers", "0", "--shortest-edge", "64"]
ROOT = {"id": 0, "name": "kitchen", "supercategory": "none"}


def walk() -> Block:
    (block,) = [block for block in blocks() if block.page == "docs/own_data.md" and block.language == "bash"]
    return block


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What Roboflow exports, in `mine`, and a picture to ask for."""
    for split, pictures in (("train", PICTURES[:3]), ("valid", PICTURES[3:])):
        content = coco_content(pictures)
        content["categories"] = [
            ROOT,
            *({**category, "supercategory": "kitchen"} for category in content["categories"]),
        ]
        write_pictures(tmp_path / "mine" / split, pictures)
        write_json(tmp_path / "mine" / split / "_annotations.coco.json", content)
    Image.new("RGB", (24, 16), "gray").save(tmp_path / "picture.jpg")
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_walk_leads_to_the_next_and_the_last_to_an_answer(folder: Path) -> None:
    *before, serve, ask = walk().commands
    printed = {}
    for command in before:
        words = [DETR, *shlex.split(command)[1:]]
        done = subprocess.run(
            [*words, *SMALLER[: len(SMALLER) * (words[1] == "train")]], cwd=folder, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        printed[words[1]] = done.stdout.decode()
    (shown,) = [block.text for block in blocks() if block.page == "docs/own_data.md" and block.language == "text"]
    assert printed["data"].endswith(shown)
    assert "AP" in printed["evaluate"]
    port = free_port()
    words = [DETR, *shlex.split(serve)[1:], "--port", str(port)]
    model = str(folder / "mine.onnx")
    words[words.index("mine.onnx")] = model
    with running(words, f"http://127.0.0.1:{port}/health/ready", folder / "log", timeout_s=180):
        there = ask.replace("localhost:8000", f"127.0.0.1:{port}")
        for threshold in ("", "?threshold=0"):
            answer = subprocess.run(
                [*shlex.split(there)[:-1], shlex.split(there)[-1] + threshold],
                cwd=folder,
                capture_output=True,
                check=True,
            )
            detections = json.loads(answer.stdout)["detections"]
    assert {found["label"] for found in detections} <= {"fork", "cup"}
    assert detections
