"""The command line without a server: its help, its arguments, and `detr predict`."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.runtime.answers.segment_codec import read_id_png
from service import cli
from service.settings import SECRETS, Settings
from tests.service.conftest import Serving, encode, scene

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def pictures(tmp_path: Path, jpeg: bytes) -> list[Path]:
    paths = [tmp_path / "first.jpg", tmp_path / "second.png"]
    paths[0].write_bytes(jpeg)
    paths[1].write_bytes(encode(scene(60, 80), "PNG"))
    return paths


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


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


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


@pytest.mark.usefixtures("logging_as_before")
def test_serve_says_what_is_wrong_with_an_address(panoptic_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert detr("serve", "--model", panoptic_artifact, "--host", "203.0.113.7", "--port", "1") == 1
    assert "cannot listen on 203.0.113.7 port 1: " in capsys.readouterr().err


@pytest.mark.anyio
@pytest.mark.parametrize("task", ["detect", "segment"])
async def test_predict_answers_what_the_service_answers(
    task: str,
    serving: Serving,
    panoptic_artifact: Path,
    pictures: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = detr("predict", *pictures, "--model", panoptic_artifact, "--task", task, "--device", "cpu")
    answers = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [answer.pop("file") for answer in answers] == [str(path) for path in pictures]
    async with serving() as app:
        for answer, path in zip(answers, pictures, strict=True):
            served = await app.client.post(f"/{task}", files={"image": path.read_bytes()})
            assert answer == served.json()


def test_predict_writes_json_and_overlays(
    panoptic_artifact: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn = tmp_path / "answers.json", tmp_path / "deep" / "drawn"
    arguments = ("--task", "segment", "--json", out, "--overlay", drawn, "--threshold", "0.1", "--device", "cpu")
    assert detr("predict", *pictures, "--model", panoptic_artifact, *arguments) == 0
    assert capsys.readouterr().out == ""
    answers = json.loads(out.read_text())
    assert read_id_png(base64.b64decode(answers[0]["panoptic_png"])).shape == (96, 128)
    with Image.open(drawn / "first.png") as overlay, Image.open(pictures[0]) as original:
        assert overlay.size == original.size
        assert not np.array_equal(np.asarray(overlay), np.asarray(original))
    assert (drawn / "second.png").exists()


def test_predict_keeps_overlays_of_one_name_apart(panoptic_artifact: Path, tmp_path: Path, jpeg: bytes) -> None:
    paths = [tmp_path / folder / "same.jpg" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(jpeg)
    out = tmp_path / "out"
    flags = ("--device", "cpu", "--overlay", out, "--json", tmp_path / "out.json")
    assert detr("predict", *paths, "--model", panoptic_artifact, *flags) == 0
    assert sorted(path.name for path in out.iterdir()) == ["same-1.png", "same.png"]


def test_predict_says_where_it_cannot_write(
    panoptic_artifact: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--device", "cpu", "--json", tmp_path / "no folder" / "out.json")
    assert detr("predict", *pictures, "--model", panoptic_artifact, *flags) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("detr predict: cannot write ")
    assert line.endswith("No such file or directory")


@pytest.mark.parametrize("threshold", ["-0.1", "1.1", "nan", "x"])
def test_predict_takes_a_threshold_from_0_to_1(threshold: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        detr("predict", "a.jpg", "--threshold", threshold)
    assert left.value.code == 2
    assert "--threshold" in capsys.readouterr().err


def test_predict_goes_on_after_a_bad_file_and_says_so(
    panoptic_artifact: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, missing = tmp_path / "bad.jpg", tmp_path / "missing.jpg"
    bad.write_bytes(b"no picture")
    assert detr("predict", bad, missing, pictures[0], "--model", panoptic_artifact, "--device", "cpu") == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 1
    assert [line.partition(str(tmp_path))[2] for line in captured.err.splitlines()] == [
        "/bad.jpg: the upload is not an image",
        "/missing.jpg: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "nowhere.onnx"), "nowhere.onnx"),
        (("--device", "cuda"), "cuda"),
        (("--task", "segment"), "no masks"),
    ],
)
def test_predict_says_in_one_line_why_it_cannot(
    arguments: tuple[str, ...],
    reason: str,
    detection_artifact: Path,
    pictures: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert detr("predict", pictures[0], "--model", detection_artifact, *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("detr predict: ")
    assert reason in line


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
