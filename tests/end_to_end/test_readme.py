"""The README's commands do what it says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import cli
from tests.end_to_end.conftest import REPOSITORY
from tests.processes import free_port, running

BLOCKS = [
    [line for line in block.splitlines() if line]
    for block in re.findall(r"^```bash\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.M | re.S)
]
COMMANDS = [command for block in BLOCKS for command in block]
DETR = str(Path(sys.executable).with_name("detr"))
# What makes the training commands a matter of seconds: they are run as they stand but for these numbers.
SMALLER = {"--train": "8", "--val": "4", "--steps": "2", "--batch-size": "2"}


def starting_with(word: str) -> list[str]:
    return [command for command in COMMANDS if command.startswith(word)]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """What `make serve` starts, on another port."""
    number = free_port()
    url, log = f"http://127.0.0.1:{number}/health/ready", tmp_path_factory.mktemp("serve") / "log"
    with running([DETR, "serve", "--port", str(number)], url, log, timeout_s=120):
        yield number


def test_it_begins_with_one_command_that_runs_it_and_one_that_tests_it() -> None:
    assert COMMANDS[0] == "make serve"
    assert BLOCKS[2] == ["make serve MODEL=facebook/detr-resnet-50"]
    assert BLOCKS[3] == ["make test"]


@pytest.mark.parametrize("command", starting_with("curl"))
def test_every_curl_command_gets_an_answer(command: str, port: int, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.fail("curl is missing: apt-get install curl")
    docs = REPOSITORY / "docs"
    words = [
        word.replace("localhost:8000", f"127.0.0.1:{port}").replace("@docs", f"@{docs}")
        for word in shlex.split(command)
    ]
    done = subprocess.run([*words, "--fail", "--silent"], cwd=tmp_path, capture_output=True, check=True)
    written = [path.read_bytes() for path in tmp_path.iterdir()] or [done.stdout]
    assert all(body[:1] == b"{" or body[:4] == b"\x89PNG" for body in written)


@pytest.mark.parametrize("command", starting_with("detr "))
def test_every_detr_command_is_one_that_the_program_takes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Namespace] = []
    for command_room in ("train", "export", "evaluate", "fetch", "models", "data.shapes.command"):
        run = f"model.{command_room}.run"
        monkeypatch.setattr(run, taken.append)
    monkeypatch.setattr("service.predict.command.run", taken.append)
    monkeypatch.setattr(cli, "run_service", taken.append)
    cli.main(shlex.split(command)[1:])
    assert len(taken) == 1


@pytest.mark.slow
def test_the_training_commands_make_a_model_that_serves(tmp_path: Path, jpeg: bytes) -> None:
    (block,) = [block for block in BLOCKS if block[0].startswith("detr shapes")]
    for command in block:
        words = [DETR, *shlex.split(command)[1:]]
        for option, value in SMALLER.items():
            if option in words:
                words[words.index(option) + 1] = value
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (tmp_path / "picture.jpg").write_bytes(jpeg)
    predict = [DETR, "predict", "picture.jpg", "--model", "detr-demo.onnx", "--task", "segment", "--overlay", "drawn"]
    subprocess.run(predict, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "drawn" / "picture.png").is_file()


def test_every_extra_that_it_names_exists() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (REPOSITORY / "README.md").read_text()
    named = {extra for group in re.findall(r"\[([a-z,]+)\]'", text) for extra in group.split(",")}
    assert named
    assert named <= set(extras)


def test_every_file_that_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^):#]+)\)", (REPOSITORY / "README.md").read_text())
    assert len(links) >= 4
    for link in links:
        assert (REPOSITORY / link).exists(), link
