"""Results of `detr predict` on the disk and at a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path, PurePath

import pytest

from service.cli import main
from service.predict.files import PictureFile
from service.predict.results import AnswerList
from tests.service.conftest import red_png

REPOSITORY = Path(__file__).parents[3]


def test_answers_are_written_as_soon_as_they_are_there() -> None:
    out = StringIO()
    answers = AnswerList("json", out)
    for number in range(3):
        answers.answered(picture(f"{number}.jpg"), b'{"model":"m"}')
        assert out.getvalue().count("model") == number + 1
    answers.failed(picture("3.jpg"), "it is broken")
    answers.finish()
    assert [answer["file"] for answer in json.loads(out.getvalue())] == ["0.jpg", "1.jpg", "2.jpg"]


def test_no_answers_are_an_empty_list() -> None:
    out = StringIO()
    AnswerList("json", out).finish()
    assert json.loads(out.getvalue()) == []


def picture(name: str) -> PictureFile:
    return PictureFile(Path(name), PurePath(name))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--json", "."), "cannot use .: Is a directory"),
        (("--json", "drawn/1.png", "--overlay", "drawn"), "drawn/1.png is for the answers and one of the drawings"),
        (("--overlay", "1.png"), "cannot use 1.png: File exists"),
        (("--resume",), "--resume goes on with a file of lines: give it, too, as in --out answers.jsonl"),
        (("--resume", "--out", "a.json"), "--resume goes on with a file of lines"),
        (("--resume", "--out", "1.png", "--format", "jsonl"), "1.png is one of the pictures and would be replaced"),
        (("--list", "no.txt"), "cannot use no.txt: No such file or directory"),
        (("--json", "no/where.json"), "cannot use no/where.json: No such file or directory"),
    ],
)
def test_outputs_are_checked_before_the_model_is_loaded(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("1.png").write_bytes(red_png(1, (32, 32)))
    assert main(["predict", "1.png", "--model", "nowhere.onnx", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"detr predict: {said}")


def test_older_answers_stay_where_the_model_cannot_be_loaded(tmp_path: Path) -> None:
    picture, out = tmp_path / "1.png", tmp_path / "out.jsonl"
    picture.write_bytes(red_png(1, (32, 32)))
    out.write_text("older")
    assert main(["predict", str(picture), "--model", str(tmp_path / "nowhere.onnx"), "--json", str(out)]) == 1
    assert out.read_text() == "older"


def test_a_terminal_sees_a_bar_with_rate_and_a_pipe_does_not(panoptic_artifact: Path, tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / f"{name}.png").write_bytes(red_png(1, (64, 64)))
    words = [sys.executable, "-m", "service.cli", "predict", str(tmp_path), "--model", str(panoptic_artifact)]
    words += ["--device", "cpu", "--json", str(tmp_path / "out.json")]
    terminal, shown = os.openpty()
    termios.tcsetwinsize(shown, (24, 100))
    subprocess.run(words, cwd=REPOSITORY, stderr=shown, check=True, timeout=120)
    os.close(shown)
    bar = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert "2/2" in bar
    assert "pictures/s" in bar
    piped = subprocess.run(words, cwd=REPOSITORY, capture_output=True, check=True, timeout=120)
    assert (piped.stdout, piped.stderr) == (b"", b"")
