"""Weights by their name on the hub, for training: downloaded once, known by their commit, or a file is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fake_hub import FakeHub
from tests.model.hub.conftest import NAME, PATIENCE_S, REPOSITORY, Machine

WEIGHTS = "model.safetensors"
PROGRAM = """
import sys
from pathlib import Path
from model.hub.names import HubError
from model.hub.weights import weights_on_hub
try:
    found = weights_on_hub(Path(sys.argv[1]))
except HubError as error:
    sys.exit(f"HubError {error}")
print(*found or ["a path"], sep="\\n")
"""


def ask(machine: Machine, name: str = NAME, **environment: str) -> list[str]:
    """The lines that a process says which looks for weights; the last of standard error where there are none."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name],
        env=machine.environment(**environment),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines() if done.returncode == 0 else done.stderr.splitlines()[-1:]


@pytest.mark.parametrize("trouble", [{}, {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_name_is_downloaded_once_and_known_by_its_commit(
    machine: Machine, hub: FakeHub, trouble: dict[str, str]
) -> None:
    folder, source = ask(machine)
    commit = hub.repositories[NAME].refs["main"]
    assert source == f"{NAME}@{commit}"
    assert folder.endswith(commit)
    assert hub.downloads(WEIGHTS) == 1
    assert ask(machine, **trouble) == [folder, source]
    assert hub.downloads(WEIGHTS) == 1


@pytest.mark.parametrize("trouble", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_the_hub_a_file_is_asked_for(machine: Machine, trouble: dict[str, str]) -> None:
    (said,) = ask(machine, **trouble)
    assert f"{NAME} is not in the cache" in said
    assert f"hf download {NAME} --local-dir DIR fetches its files, and --init DIR takes them" in said


def test_what_is_here_or_looks_like_a_path_is_one(machine: Machine, hub: FakeHub) -> None:
    assert ask(machine, str(machine.folder)) == ask(machine, "none.pth") == ask(machine, "a/b/c") == ["a path"]
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("detr-resnet-50", "there is no file detr-resnet-50; on the hub it is --init facebook/detr-resnet-50"),
        ("no-one/nothing", "no model no-one/nothing on the hub"),
        (f"{NAME}@v9", "has no revision v9"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_do(machine: Machine, name: str, words: str) -> None:
    (said,) = ask(machine, name)
    assert words in said
