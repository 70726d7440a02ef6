"""Results of `detr predict` on the disk and at a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path

import pytest

from service.cli import main
from service.predict.results import Answers, Form
from tests.service.conftest import red_png

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_answers_are_written_as_soon_as_they_are_there(form: Form) -> None:
    out = StringIO()
    answers = Answers(form, out, lambda number, answer: [{"number": number, **answer}])
    for number in (0, 1, 4):
        answers.add(number, {})
        assert out.getvalue().count("number") == answers.count
    answers.finish()
    written = (
        json.loads(out.getvalue()) if form == "json" else [json.loads(line) for line in out.getvalue().splitlines()]
    )
    assert [answer["number"] for answer in written] == [0, 1, 4]
    assert answers.count == 3


def test_no_answers_are_an_empty_list() -> None:
    out = StringIO()
    Answers("json", out, lambda number, answer: [answer]).finish()
    assert json.loads(out.getvalue()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--json", "."), "cannot write .: Is a directory"),
        (("--json", "drawn/1.png", "--overlay", "drawn"), "drawn/1.png is for the answers and one of the drawings"),
        (("--overlay", "1.png"), "cannot write 1.png: File exists"),
        (("--json", "no/where.json"), "cannot write no/where.json: No such file or directory"),
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
