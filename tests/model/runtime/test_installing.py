"""Hints to install something are commands that work where they are given."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from model.runtime import installing
from model.runtime.installing import install_command

REPOSITORY = Path(__file__).parents[3]
EXTRA = "detr-serve[train]"
# What pip knows of an installed project, wherever it came from. The extra asks for pip, which is there already, so
# that nothing needs to be downloaded.
METADATA = """Metadata-Version: 2.4
Name: detr-serve
Version: 0.1.0
Provides-Extra: train
Requires-Dist: pip; extra == 'train'
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with a `pip` of its own, in which this process seems to run."""
    scripts = tmp_path / "clone" / ".venv-serve" / "bin"
    scripts.mkdir(parents=True)
    for name in ("python", "pip"):
        (scripts / name).write_text("#!/bin/sh\n")
        (scripts / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(installing, "_is_installed", lambda: True)
    return scripts


def test_in_an_active_environment_it_is_pip(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}{os.pathsep}/nowhere")
    assert install_command(EXTRA) == "pip install 'detr-serve[train]'"


def test_in_one_that_is_not_active_it_is_that_ones_pip(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment / "python"
    assert install_command(EXTRA) == f"{python} -m pip install 'detr-serve[train]'"
    monkeypatch.chdir(environment.parents[1])  # the clone, where make serve is typed
    assert install_command(EXTRA) == ".venv-serve/bin/python -m pip install 'detr-serve[train]'"


def test_from_a_source_tree_that_is_not_installed_it_names_the_tree(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(environment)
    monkeypatch.setattr(installing, "_is_installed", lambda: False)
    words = shlex.split(install_command(EXTRA))
    assert words[1:] == ["-m", "pip", "install", "--editable", f"{REPOSITORY}[train]"]
    assert shlex.split(install_command("openvino"))[1:] == ["-m", "pip", "install", "openvino"]


def test_without_pip_it_is_uv(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "find_spec", lambda _: None)
    assert "-m pip install" in install_command(EXTRA)  # nothing else to offer
    shutil.copy(environment / "python", environment / "uv")
    monkeypatch.setenv("PATH", str(environment))
    assert install_command(EXTRA) == f"uv pip install --python {environment / 'python'} 'detr-serve[train]'"


@pytest.mark.slow
def test_the_command_works_in_an_environment_that_is_not_active_and_has_no_index(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    (packages,) = tmp_path.glob("env/lib/python3*/site-packages")
    (packages / "detr_serve-0.1.0.dist-info").mkdir()
    (packages / "detr_serve-0.1.0.dist-info" / "METADATA").write_text(METADATA)

    asked = f"from model.runtime.installing import install_command; print(install_command({EXTRA!r}))"
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "PIP_NO_INDEX": "1"}
    told = subprocess.run([python, "-c", asked], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "env/bin/python -m pip install 'detr-serve[train]'"
    done = subprocess.run(shlex.split(told.stdout), cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Requirement already satisfied: pip" in done.stdout
