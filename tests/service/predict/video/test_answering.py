"""`detr predict` on videos and cameras: an answer for each frame in their order, and an annotated video of them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from model.runtime.engines.engine import Engine
from service import cli
from service.lifecycle.loading import LoadedModel
from service.predict import command
from service.predict.video import reading
from tests.end_to_end.conftest import REPOSITORY
from tests.processes import until
from tests.service.conftest import red_png
from tests.service.fakes import FakeEngine
from tests.service.predict.video.clips import noise, red_frames, shown, write_clip
from tests.tiny_artifact import tiny_metadata


def detr(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine in place of the model's, for batches of at most three frames."""
    engine = FakeEngine()
    monkeypatch.setenv("DETR_MAX_BATCH_SIZE", "3")

    class Loader:
        def load(self) -> LoadedModel:
            return LoadedModel(tiny_metadata(), {"fake": engine}, "digest")

        def reopen(self, digest: str, name: str) -> Engine:
            return engine

    monkeypatch.setattr(command, "ArtifactLoader", lambda settings, *, bars: Loader())
    return engine


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answered(path: Path) -> list[int]:
    """The numbers of the frames that were answered, each checked to have the answer to its own red."""
    entries = lines(path)
    for entry in entries:
        (found,) = entry["detections"]
        right = (entry["frame"] / 255 + 0.125) * entry["image"]["width"]
        assert found["box"]["x2"] == pytest.approx(right, abs=0.01)
    return [entry["frame"] for entry in entries]


def test_each_frame_has_its_answer_in_the_order_of_the_frames_and_a_place_in_the_video(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out, drawn = write_clip(tmp_path / "clip.mkv", red_frames(40)), tmp_path / "out.jsonl", tmp_path / "drawn"
    assert detr("predict", clip, "--json", out, "--overlay", drawn) == 0
    assert answered(out) == list(range(40))
    assert [entry["time"] for entry in lines(out)] == pytest.approx([number / 10 for number in range(40)])
    assert {entry["file"] for entry in lines(out)} == {str(clip)}
    frames = shown(drawn / "clip.mp4")
    assert [seconds for seconds, _ in frames] == pytest.approx([number / 10 for number in range(40)])
    assert {image.shape for _, image in frames} == {(64, 64, 3)}
    assert [int(image[60, 60, 0]) for _, image in frames] == pytest.approx(range(40), abs=6)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_every_fifth_frame_is_answered_and_lasts_as_long_as_five(engine: FakeEngine, tmp_path: Path) -> None:
    clip, out = write_clip(tmp_path / "clip.mkv", red_frames(22)), tmp_path / "out.jsonl"
    assert detr("predict", clip, "--every", "5", "--json", out, "--overlay", tmp_path / "drawn") == 0
    assert answered(out) == [0, 5, 10, 15, 20]
    assert set(engine.seen) == {0, 5, 10, 15, 20}
    with av.open(str(tmp_path / "drawn" / "clip.mp4")) as video:
        assert video.streams.video[0].frames == 5
        assert video.duration == pytest.approx(2.5e6)


def test_a_variable_rate_keeps_its_times_in_the_answers_and_in_the_video(engine: FakeEngine, tmp_path: Path) -> None:
    times = [0, 33, 200, 500, 501, 1500, 2000]
    clip, out = write_clip(tmp_path / "clip.mkv", red_frames(7), times_ms=times), tmp_path / "out.jsonl"
    assert detr("predict", clip, "--json", out, "--overlay", tmp_path) == 0
    assert [entry["time"] for entry in lines(out)] == [time / 1000 for time in times]
    assert [seconds for seconds, _ in shown(tmp_path / "clip.mp4")] == pytest.approx([time / 1000 for time in times])


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (2, 641)])
def test_a_video_of_any_size_is_drawn(size: tuple[int, int], engine: FakeEngine, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", red_frames(3, size))
    assert detr("predict", clip, "--json", tmp_path / "out.jsonl", "--overlay", tmp_path / "drawn") == 0
    height, width = size
    shape = (height + height % 2, width + width % 2, 3)
    assert [image.shape for _, image in shown(tmp_path / "drawn" / "clip.mp4")] == [shape] * 3


def test_a_video_held_upright_is_drawn_upright(engine: FakeEngine, tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "clip.mov", red_frames(3, (48, 64)), codec="png", pix_fmt="rgb24", rotation=(-90, False)
    )
    assert detr("predict", clip, "--json", tmp_path / "out.jsonl", "--overlay", tmp_path / "drawn") == 0
    assert lines(tmp_path / "out.jsonl")[0]["image"] == {"width": 48, "height": 64}
    assert [image.shape for _, image in shown(tmp_path / "drawn" / "clip.mp4")] == [(64, 48, 3)] * 3


def test_several_videos_and_what_is_wrong_with_some_of_them(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, cut = write_clip(tmp_path / "good.mkv", red_frames(5)), write_clip(tmp_path / "cut.mkv", noise(30))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    bad, gone, out = tmp_path / "bad.mp4", tmp_path / "gone.mp4", tmp_path / "out.json"
    bad.write_bytes(b"no video" * 100)
    assert detr("predict", bad, cut, gone, good, "--json", out) == 1
    entries = json.loads(out.read_text())
    assert [entry["frame"] for entry in entries if entry["file"] == str(good)] == list(range(5))
    assert 10 <= len([entry for entry in entries if entry["file"] == str(cut)]) < 20
    first, second, third, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"detr predict: {bad}: it is no video")
    assert second.startswith(f"detr predict: {cut}: it breaks off after 1.")
    assert third == f"detr predict: {gone}: No such file or directory"
    assert last == "detr predict: 1 of 4 videos are answered without a fault"


def test_frames_without_an_answer_are_counted(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.not_finite = {2, 5}
    clip, out = write_clip(tmp_path / "clip.mkv", red_frames(8)), tmp_path / "out.jsonl"
    assert detr("predict", clip, "--json", out, "--overlay", tmp_path / "drawn") == 1
    assert answered(out) == [0, 1, 3, 4, 6, 7]
    assert len(shown(tmp_path / "drawn" / "clip.mp4")) == 6
    reason = "the network gave a logit that is not finite"
    assert capsys.readouterr().err == f"detr predict: {clip}: 2 frames have no answer; the first: {reason}\n"


def test_results_of_coco_say_which_frame_they_are_of(engine: FakeEngine, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / name, red_frames(3)) for name in ("a.mkv", "b.mkv")]
    assert detr("predict", *clips, "--format", "coco", "--json", tmp_path / "out.json") == 0
    entries = json.loads((tmp_path / "out.json").read_text())
    assert [entry["image_id"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert [(entry["file_name"], entry["frame"]) for entry in entries] == [(str(c), n) for c in clips for n in range(3)]


def test_pictures_and_videos_are_not_mixed(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(red_png(1))
    clip = write_clip(tmp_path / "clip.mkv", red_frames(1))
    assert detr("predict", clip, tmp_path / "a.png") == 1
    assert "give pictures and videos to commands of their own" in capsys.readouterr().err
    assert detr("predict", tmp_path / "a.png", "--every", "2") == 1
    assert "--every is of videos and cameras" in capsys.readouterr().err


def test_no_video_is_written_over(engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", red_frames(2), codec="libx264", pix_fmt="yuv420p")
    before = clip.read_bytes()
    assert detr("predict", clip, "--overlay", tmp_path) == 1
    assert "would be replaced" in capsys.readouterr().err
    assert clip.read_bytes() == before


def test_a_gif_is_a_video_unless_its_first_frame_is_asked_for(engine: FakeEngine, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (64, 64), (number, 0, 0)) for number in range(4)]
    path, out = tmp_path / "a.gif", tmp_path / "out.jsonl"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    assert detr("predict", path, "--json", out) == 0
    assert answered(out) == [0, 1, 2, 3]
    assert detr("predict", path, "--json", out, "--formats", "gif") == 0
    assert len(lines(out)) == 1
    assert "frame" not in lines(out)[0]


def test_of_an_animated_webp_the_first_frame_counts_as_in_the_service(engine: FakeEngine, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (64, 64), (number, 0, 0)) for number in (7, 9)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=100, lossless=True)
    assert detr("predict", tmp_path / "a.webp", "--json", tmp_path / "out.jsonl") == 0
    assert engine.seen == [7]


def test_a_video_on_standard_input_is_answered(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clip(tmp_path / "clip.mkv", red_frames(6)).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
    assert detr("predict", "-", "--overlay", tmp_path / "drawn") == 0
    assert [json.loads(line)["frame"] for line in capsys.readouterr().out.splitlines()] == list(range(6))
    assert len(shown(tmp_path / "drawn" / "standard-input.mp4")) == 6


def test_a_camera_that_is_not_there_is_told(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detr("predict", "7", "--overlay", tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("detr predict: 7: camera 7 cannot be opened: ")


def test_a_camera_is_answered_until_it_ends(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames come from FFmpeg's test source, at their own pace, instead of from a device."""
    source = "testsrc=duration=1:size=64x48:rate=20,realtime"
    monkeypatch.setattr(reading, "_camera", lambda file: av.open(source, "r", format="lavfi"))
    assert detr("predict", "0", "--json", tmp_path / "out.jsonl", "--overlay", tmp_path / "drawn") == 0
    numbers = [entry["frame"] for entry in lines(tmp_path / "out.jsonl")]
    assert numbers == sorted(set(numbers))
    assert 0 < len(numbers) <= 20
    assert [entry["time"] for entry in lines(tmp_path / "out.jsonl")] == pytest.approx([n / 20 for n in numbers])
    assert len(shown(tmp_path / "drawn" / "camera-0.mp4")) == len(numbers)


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.predict.video.files.find_spec", lambda name: None)
    assert detr("predict", tmp_path / "clip.mp4") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is a video, for which a package is not installed: " in line
    assert "[video]" in line


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "camera.mkv"
    os.mkfifo(path)
    return path


@pytest.fixture
def fed(pipe: Path, tmp_path: Path) -> Iterator[threading.Event]:
    """Set, it lets the rest of a video into the pipe; a first part is there as soon as somebody reads."""
    data = write_clip(tmp_path / "whole.mkv", noise(60)).read_bytes()
    rest = threading.Event()

    def feed() -> None:
        with pipe.open("wb", buffering=0) as opened:
            opened.write(data[: len(data) // 2])
            rest.wait(60)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    yield rest
    rest.set()
    thread.join(10)


def test_ctrl_c_leaves_a_video_that_plays_and_whole_lines(pipe: Path, fed: threading.Event, tmp_path: Path) -> None:
    out, drawn = tmp_path / "out.jsonl", tmp_path / "drawn"
    words = ["predict", str(pipe), "--json", str(out), "--overlay", str(drawn)]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: out.exists() and out.read_text().count("\n") >= 10)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    numbers = [entry["frame"] for entry in lines(out)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 10
    assert abs(len(shown(drawn / "camera.mp4")) - len(numbers)) <= 1
    assert said == f"detr predict: {pipe}: {len(numbers)} frames are answered, then interrupted\n"


def example_moving(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """A window of 160 x 120 that moves over the picture of docs/."""
    with Image.open(REPOSITORY / "docs" / "example.jpg") as picture:
        picture.thumbnail((320, 240))
        pixels = np.asarray(picture)
    height, width = pixels.shape[0] - 120, pixels.shape[1] - 160
    places = [(number * height // count, number * width // count) for number in range(count)]
    return [np.ascontiguousarray(pixels[top : top + 120, left : left + 160]) for top, left in places]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_seconds_go_in_and_come_out(tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4", example_moving(750), codec="libx264", pix_fmt="yuv420p", rate=25, options={"bf": "2"}
    )
    out, drawn = tmp_path / "out.jsonl", tmp_path / "drawn"
    assert detr("predict", clip, "--json", out, "--overlay", drawn, "--device", "cpu") == 0
    entries, times = lines(out), [float(Fraction(number, 25)) for number in range(750)]
    assert [entry["frame"] for entry in entries] == list(range(750))
    assert [entry["time"] for entry in entries] == pytest.approx(times)
    assert sum(len(entry["detections"]) for entry in entries) > 750
    assert [seconds for seconds, _ in shown(drawn / "clip.mp4")] == pytest.approx(times, abs=1e-3)
    with av.open(str(drawn / "clip.mp4")) as video:
        assert video.duration == pytest.approx(30e6, abs=1e3)
