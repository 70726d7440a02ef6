"""The command line without a server: its help and its arguments."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from service import cli
from service.settings import SECRETS, Settings
from tests.processes import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]


def detr(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        detr("--help")
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name in ("serve", "predict", "train", "export", "evaluate"):
        assert name in text


def test_serve_has_a_flag_for_every_setting_that_is_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        detr("serve", "--help")
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert (f"--{name.replace('_', '-')} " in text) == (name not in SECRETS)
    assert "Exit codes" in text


def test_serve_refuses_a_device_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        detr("serve", "--device", "abacus")
    assert left.value.code == 2
    assert "abacus" in capsys.readouterr().err


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("content", [b"", b"not a model", None], ids=["empty", "garbage", "missing"])
def test_serve_refuses_a_file_that_is_no_model_and_names_it(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.onnx"
    if content is not None:
        path.write_bytes(content)
    assert detr("serve", "--model", path, "--device", "cpu", "--port", "0") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("detr serve: some.onnx: ")


@pytest.mark.usefixtures("logging_as_before")
def test_serve_refuses_a_model_with_a_flipped_bit(
    panoptic_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(panoptic_artifact.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.onnx").write_bytes(data)
    assert detr("serve", "--model", tmp_path / "flipped.onnx", "--device", "cpu", "--port", "0") == 1
    assert capsys.readouterr().err.startswith("detr serve: flipped.onnx: ")


@pytest.mark.parametrize("flags", [("--max-batch-size", "0"), ("--port", "99999"), ("--max-side", "x")])
def test_serve_refuses_a_bad_setting_and_names_it(flags: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert detr("serve", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("detr serve: ")
    assert flags[0] in line


def test_the_model_can_be_given_as_a_word_but_only_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[Settings] = []  # by what runs a service, whose exit code here is None
    monkeypatch.setattr(cli, "run", served.append)
    assert detr("serve", "mine.onnx") == detr("serve", "--model", "mine.onnx") == 0
    assert [settings.model for settings in served] == ["mine.onnx", "mine.onnx"]
    assert detr("serve", "mine.onnx", "--model", "other.onnx") == 2
    assert "mine.onnx and --model other.onnx: give one" in capsys.readouterr().err


def test_it_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        detr("--version")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"detr {version('detr-serve')}\n"


@pytest.mark.usefixtures("logging_as_before")
def test_serve_says_what_is_wrong_with_an_address(panoptic_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert detr("serve", "--model", panoptic_artifact, "--host", "203.0.113.7", "--port", "1") == 1
    assert "cannot listen on 203.0.113.7 port 1: " in capsys.readouterr().err


# Imports every module of the service where torch and all that trains does not exist.
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("torch", "torchvision", "lightning", "pytorch_lightning", "onnx", "scipy"):
    sys.modules[name] = None
import service
for module in pkgutil.walk_packages(service.__path__, "service."):
    importlib.import_module(module.name)
    print(module.name)
"""


def test_the_service_imports_where_torch_does_not_exist() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert {"service.app", "service.server", "service.predict", "service.cli"} <= set(result.stdout.split())


def test_what_is_written_to_a_closed_stream_goes_to_no_other(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "service.cli", "predict", str(tmp_path / "x.png"), "--model", str(tmp_path / "none")]
    starting = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    done = subprocess.run(
        [*starting, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
