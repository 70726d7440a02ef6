"""`detr predict`: what a service with the same settings answers, for files."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.runtime import decode
from model.runtime.engines.engine import Engine
from service import cli
from service.images.prepare import prepare
from service.lifecycle.loading import LoadedModel
from service.predict import command as predict
from service.predict import pictures as sources
from service.predict.job import Job
from service.settings import DEMO_MODEL
from tests.benchmarks.reduced_decode import photo
from tests.processes import until
from tests.server_process import serving
from tests.service.conftest import JPEG, encode, red_png, scene
from tests.service.fakes import FakeEngine
from tests.tiny_artifact import tiny_metadata

# One image at a time and one thread, so that a served answer and a predicted one are the same to the last digit.
SETTINGS = {"model": str(DEMO_MODEL), "device": "cpu", "engine_threads": "1", "max_batch_size": "1"}


def detr(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def pictures(tmp_path: Path, jpeg: bytes) -> list[Path]:
    paths = [tmp_path / "first.jpg", tmp_path / "second.png"]
    paths[0].write_bytes(jpeg)
    paths[1].write_bytes(encode(scene(60, 80), "PNG"))
    return paths


@pytest.fixture(scope="module")
def uploads() -> dict[str, bytes]:
    """Pictures that are decoded in several ways; the first is large enough to be decoded at a fraction of its size."""
    turned = Image.Exif()
    turned[0x0112] = 6
    drawing = Image.open(io.BytesIO(photo(3, 200)))
    transparent = drawing.convert("RGBA")
    transparent.putalpha(128)
    return {
        "large.jpg": photo(0, 500),
        "small.jpg": photo(1, 200),
        "turned.jpg": encode(drawing, quality=90, exif=turned),
        "gray.png": encode(drawing.convert("L"), "PNG"),
        "transparent.png": encode(transparent, "PNG"),
        "still.webp": encode(drawing, "WEBP", quality=90),
    }


@pytest.fixture(scope="module")
def large_answers() -> dict[bool, Any]:
    """What is answered to the large picture with and without a reduced decode."""
    return {}


@pytest.mark.parametrize("reduced", [False, True])
def test_a_file_is_answered_as_a_service_with_the_same_settings_answers_it(
    reduced: bool,
    uploads: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    large_answers: dict[bool, Any],
) -> None:
    for name, data in uploads.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in uploads]
    for name, value in {**SETTINGS, "reduced_decode": str(reduced).lower()}.items():
        monkeypatch.setenv(f"DETR_{name.upper()}", value)
    options = ("--max-batch-size", "1", "--batch-timing-ms", "0", "--reduced-decode", str(reduced).lower())
    with serving(None, tmp_path, *options) as server, server.client() as client:
        client.headers.update(JPEG)
        for task, *mode in (("detect",), ("segment", "--mode", "instance"), ("segment",)):
            query = f"/{task}?mode={mode[1]}" if mode else f"/{task}?"
            out, drawn = tmp_path / f"{task}.json", tmp_path / "_".join([task, *mode])
            assert detr("predict", *paths, "--task", task, *mode, "--json", out, "--overlay", drawn) == 0
            answers = json.loads(out.read_text())
            assert [answer.pop("file") for answer in answers] == [str(path) for path in paths]
            assert answers == [client.post(query, content=path.read_bytes()).json() for path in paths]
            assert sum(len(answer.get("detections", answer.get("segments"))) for answer in answers) > 10
            for path in paths:
                overlay = client.post(f"{query}&overlay=true", content=path.read_bytes())
                assert (drawn / f"{path.stem}.png").read_bytes() == overlay.content
    large_answers[reduced] = answers[0]
    if len(large_answers) == 2:  # or the setting would have been tested on a picture that it does not change
        assert large_answers[False] != large_answers[True]


def test_json_and_drawings_are_written(
    panoptic_artifact: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn = tmp_path / "answers.json", tmp_path / "deep" / "drawn"
    arguments = ("--task", "segment", "--json", out, "--overlay", drawn, "--threshold", "0.1", "--device", "cpu")
    assert detr("predict", *pictures, "--model", panoptic_artifact, *arguments) == 0
    assert capsys.readouterr().out == ""
    answers = json.loads(out.read_text())
    with Image.open(io.BytesIO(base64.b64decode(answers[0]["panoptic_png"]))) as ids:
        assert ids.size == (128, 96)
    with Image.open(drawn / "first.png") as overlay, Image.open(pictures[0]) as original:
        assert overlay.size == original.size
        assert not np.array_equal(np.asarray(overlay), np.asarray(original))
    assert (drawn / "second.png").exists()


def test_drawings_of_one_name_are_kept_apart(panoptic_artifact: Path, tmp_path: Path, jpeg: bytes) -> None:
    paths = [tmp_path / folder / "same.jpg" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(jpeg)
    out = tmp_path / "out"
    flags = ("--device", "cpu", "--overlay", out, "--json", tmp_path / "out.json")
    assert detr("predict", *paths, "--model", panoptic_artifact, *flags) == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == ["a/same.png", "b/same.png"]


@pytest.mark.parametrize("flag", ["--overlay", "--json"])
def test_no_result_is_written_over_a_picture(
    flag: str, engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = red_files(tmp_path, (64, 64), (64, 64))
    before = [path.read_bytes() for path in paths]
    assert detr("predict", *paths, flag, tmp_path if flag == "--overlay" else paths[1]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is one of the pictures and would be replaced" in line
    assert [path.read_bytes() for path in paths] == before
    assert engine.batches == [], "it is known before the first picture"


def test_a_folder_is_answered_and_drawn_with_its_sub_folders(engine: FakeEngine, tmp_path: Path) -> None:
    shots, drawn = tmp_path / "shots", tmp_path / "drawn"
    for folder in (shots, shots / "one", shots / "two"):
        folder.mkdir()
        red_files(folder, (64, 64), (64, 64))
    (shots / "notes.txt").write_text("no picture")
    out = tmp_path / "out.json"
    assert detr("predict", shots, "--json", out, "--overlay", drawn) == 0
    assert [Path(answer["file"]) for answer in json.loads(out.read_text())] == [shots / "1.png", shots / "2.png"]
    assert detr("predict", shots, "--recursive", "--json", out, "--overlay", drawn) == 0
    assert len(json.loads(out.read_text())) == 6
    assert sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.png")) == [
        "1.png", "2.png", "one/1.png", "one/2.png", "two/1.png", "two/2.png",
    ]  # fmt: skip


def test_a_thousand_files_of_which_some_are_broken_lose_none(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(1000):
        folder = tmp_path / f"{index % 10}"
        folder.mkdir(exist_ok=True)
        (folder / f"{index // 10}.png").write_bytes(
            b"broken" if index % 50 == 7 else red_png(1 + index % 200, (32, 32))
        )
    out = tmp_path / "out.jsonl"
    assert detr("predict", tmp_path, "--recursive", "--json", out) == 1
    named = capsys.readouterr().err.splitlines()
    assert len(named) == 21
    assert named[-1] == "detr predict: 980 of 1000 pictures are answered"
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({line["file"] for line in lines}) == len(lines) == 1000
    assert sum("error" not in line for line in lines) == 980
    assert {line["error"] for line in lines if "error" in line} == {"the upload is not an image"}


@pytest.mark.parametrize("name", ["out.json", "out.jsonl"])
def test_what_is_done_when_it_is_interrupted_is_kept(
    name: str,
    engine: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    infer, take = engine.infer, Job._take
    written: list[int] = []

    def interrupted(*arguments: Any) -> Any:
        if len(engine.batches) == 2:
            until(lambda: len(written) == 2)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # while which nobody waits for this batch any more
        return infer(*arguments)

    def noted(self: Job, outcome: Any) -> None:
        take(self, outcome)
        written.append(outcome.number)

    monkeypatch.setenv("DETR_CPU_THREADS", "1")  # or pictures could overtake each other
    monkeypatch.setenv("DETR_MAX_BATCH_SIZE", "1")
    monkeypatch.setattr(engine, "infer", interrupted)
    monkeypatch.setattr(Job, "_take", noted)
    assert detr("predict", *red_files(tmp_path, *[(64, 64)] * 9), "--json", tmp_path / name) == 130
    kept = (tmp_path / name).read_text()
    answers = json.loads(kept) if name == "out.json" else [json.loads(line) for line in kept.splitlines()]
    assert [Path(answer["file"]).stem for answer in answers] == list("12")
    assert capsys.readouterr().err.splitlines() == ["detr predict: 2 of 9 pictures are answered, then interrupted"]
    assert sorted(path.name for path in tmp_path.glob("out*")) == [name]


def test_a_picture_on_standard_input_is_answered(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(red_png(7, (64, 64)))))
    assert detr("predict", "-", "--json", "-") == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["file"] == "-"
    assert engine.batches == [[7]]


def test_it_says_where_it_cannot_write(
    panoptic_artifact: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--device", "cpu", "--json", tmp_path / "no folder" / "out.json")
    assert detr("predict", *pictures, "--model", panoptic_artifact, *flags) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("detr predict: cannot use ")
    assert line.endswith("No such file or directory")


@pytest.mark.parametrize("threshold", ["-0.1", "1.1", "nan", "x"])
def test_a_threshold_is_from_0_to_1(threshold: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        detr("predict", "a.jpg", "--threshold", threshold)
    assert left.value.code == 2
    assert "--threshold" in capsys.readouterr().err


def test_it_goes_on_after_a_bad_file_and_says_so(
    panoptic_artifact: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, missing = tmp_path / "bad.jpg", tmp_path / "missing.jpg"
    bad.write_bytes(b"no picture")
    assert detr("predict", bad, missing, pictures[0], "--model", panoptic_artifact, "--device", "cpu") == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 1
    *named, counted = captured.err.splitlines()
    assert [line.partition(str(tmp_path))[2] for line in named] == [
        "/bad.jpg: the upload is not an image",
        "/missing.jpg: No such file or directory",
    ]
    assert counted == "detr predict: 1 of 3 pictures are answered"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "nowhere.onnx"), "nowhere.onnx"),
        (("--device", "cuda"), "cuda"),
        (("--task", "segment"), "no masks"),
        (("--mode", "instance"), "--mode is of segments: give --task segment, too"),
    ],
)
def test_it_says_in_one_line_why_it_cannot(
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


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine in place of the model's, for batches of at most three images; up to a few pictures are run one by one
    on it, as on a CPU.
    """
    engine = FakeEngine()
    monkeypatch.setenv("DETR_MAX_BATCH_SIZE", "3")
    use(monkeypatch, LoadedModel(tiny_metadata(), {"fake": engine}, "digest"))
    return engine


def use(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
    """Have this model loaded."""

    class Loader:
        def load(self) -> LoadedModel:
            return model

        def reopen(self, digest: str, name: str) -> Engine:
            return model.engine

    monkeypatch.setattr(predict, "ArtifactLoader", lambda settings, *, bars: Loader())


def red_files(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    """Pictures of these (width, height), which the engine knows by their reds, from 1."""
    paths = [folder / f"{red}.png" for red in range(1, len(sizes) + 1)]
    for red, (path, size) in enumerate(zip(paths, sizes, strict=True), start=1):
        path.write_bytes(red_png(red, size))
    return paths


def answered(out: str) -> list[int]:
    """The reds of the pictures that were answered, each checked to have its own answer."""
    answers = json.loads(out)
    reds = [int(Path(answer["file"]).stem) for answer in answers]
    for red, answer in zip(reds, answers, strict=True):
        (found,) = answer["detections"]
        right = (red / 255 + 0.125) * answer["image"]["width"]
        assert found["box"]["x2"] == pytest.approx(right, abs=0.01)
    return reds


def test_a_batch_for_which_there_is_no_memory_is_run_in_parts(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "assumed_lines", lambda model, settings: {})
    engine.largest = 1
    assert detr("predict", *red_files(tmp_path, *[(64, 64)] * 3)) == 0
    assert answered(capsys.readouterr().out) == [1, 2, 3]
    engine.largest = 0
    assert detr("predict", tmp_path / "1.png") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == []
    assert captured.err == f"detr predict: {tmp_path / '1.png'}: there is no memory for it on fake\n"


def test_an_image_whose_answer_is_not_finite_does_not_disturb_the_others(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.not_finite = {2}
    assert detr("predict", *red_files(tmp_path, *[(64, 64)] * 3)) == 1
    captured = capsys.readouterr()
    assert answered(captured.out) == [1, 3]
    assert captured.err.splitlines() == [
        f"detr predict: {tmp_path / '2.png'}: the network gave a logit that is not finite",
        "detr predict: 2 of 3 pictures are answered",
    ]


def test_no_more_pictures_are_in_memory_than_three_batches_and_those_in_the_threads(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETR_CPU_THREADS", "2")
    begun, ahead = [], []

    def counted(*arguments: Any) -> Any:
        begun.append(arguments)
        return prepare(*arguments)

    def infer(*arguments: Any) -> Any:
        ahead.append(len(begun) - len(engine.seen))
        return FakeEngine.infer(engine, *arguments)

    monkeypatch.setattr(sources, "prepare", counted)
    monkeypatch.setattr(engine, "infer", infer)
    assert detr("predict", *red_files(tmp_path, *[(64, 64)] * 30), "--json", tmp_path / "out.json") == 0
    assert len(begun) == 30
    assert max(ahead) <= 3 * 3 + 2


def test_what_libraries_warn_of_is_one_line_for_each_image_that_is_answered(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def odd(image: Image.Image) -> Image.Image:
        for number in range(3):
            warnings.warn(f"odd value {number}", stacklevel=1)
        return image.convert("RGB")

    monkeypatch.setattr(decode, "to_rgb", odd)
    warnings.resetwarnings()  # in tests they are errors
    assert detr("predict", *red_files(tmp_path, (64, 64), (64, 64))) == 0
    assert capfd.readouterr().err.splitlines() == [
        f"detr predict: {tmp_path}/{number}.png: UserWarning: odd value 0 (and 2 more warnings)" for number in (1, 2)
    ]
