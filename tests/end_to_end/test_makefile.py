"""What a newcomer types: `make serve` in a bare clone, then a picture."""

import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import REPOSITORY
from tests.processes import free_port, running

# How long to wait before giving up: the packages have to be downloaded, perhaps from afar to a busy machine.
FIRST_ANSWER_S = 500
NOT_CLONED = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", ".hypothesis", "build", "dist")


@pytest.fixture
def env() -> dict[str, str]:
    """A newcomer's shell: it knows nothing of the environment, or the make, that these tests run in."""
    inherited = {"VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    return {name: value for name, value in os.environ.items() if name not in inherited and not name.startswith("DETR_")}


def test_make_alone_lists_every_target(env: dict[str, str]) -> None:
    listed = subprocess.run(["make"], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True)
    makefile = (REPOSITORY / "Makefile").read_text()
    (phony,) = [line for line in makefile.splitlines() if line.startswith(".PHONY:")]
    assert [line.split()[1] for line in listed.stdout.splitlines()] == phony.split()[1:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_make_serve_answers_from_a_bare_clone_without_torch(tmp_path: Path, env: dict[str, str], jpeg: bytes) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(REPOSITORY, clone, ignore=NOT_CLONED)
    url = f"http://127.0.0.1:{(port := free_port())}"
    make_serve = ["make", "serve", f"PORT={port}", "DEVICE=cpu"]

    ready, log = f"{url}/health/ready", tmp_path / "log"
    with running(make_serve, ready, log, cwd=clone, env=env, timeout_s=FIRST_ANSWER_S):
        assert httpx.post(f"{url}/detect", files={"image": jpeg}, timeout=30).status_code == 200
        assert httpx.post(f"{url}/segment", files={"image": jpeg}, timeout=30).status_code == 200

    (packages,) = clone.glob(".venv-serve/lib/python3*/site-packages")
    installed = {path.name for path in packages.iterdir()}
    assert not installed & {"torch", "torchvision", "lightning", "onnx", "scipy", "pytest"}

    # The second time nothing is installed.
    dry_run = [*make_serve, "--dry-run"]
    planned = subprocess.run(dry_run, cwd=clone, env=env, capture_output=True, text=True, check=True).stdout
    assert "detr serve" in planned
    assert "pip" not in planned


@pytest.mark.parametrize(
    ("words", "options", "name"),
    [
        ([], ["ACCELERATOR=openvino", "MODEL="], None),
        (["ACCELERATOR=cuda"], ["ACCELERATOR=cuda", "MODEL="], None),
        (["PUSH=example.org/a/detr"], ["ACCELERATOR=openvino", "MODEL="], "example.org/a/detr:0.1.0"),
        (
            ["ACCELERATOR=cuda", "MODEL=a/b", "PUSH=example.org/detr"],
            ["ACCELERATOR=cuda", "MODEL=a/b"],
            "example.org/detr:0.1.0-cuda",
        ),
        (
            ["TAG=coco", "MODEL=a/b", "PUSH=example.org/detr"],
            ["ACCELERATOR=openvino", "MODEL=a/b"],
            "example.org/detr:coco",
        ),
    ],
)
def test_make_image_builds_under_one_tag_and_publishes_it_where_it_is_told_to(
    words: list[str], options: list[str], name: str | None, env: dict[str, str], tmp_path: Path
) -> None:
    tag = name.rpartition(":")[2] if name else "0.1.0-cuda" if "ACCELERATOR=cuda" in words else "0.1.0"
    (builder := tmp_path / "docker").write_text('#!/bin/sh\necho "$@"\n')
    builder.chmod(0o755)
    command = ["make", "--silent", "image", *words, f"BUILDER={builder}"]
    done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True)
    build, *published = done.stdout.splitlines()
    words_of_options = " ".join(f"--build-arg {option}" for option in options)
    assert build.split() == f"build --file docker/Dockerfile --tag detr-serve:{tag} {words_of_options} .".split()
    assert published == ([f"tag detr-serve:{tag} {name}", f"push {name}"] if name else [])
