"""Which digits of an answer hold in whatever batch: the promise of `tests/promised_digits.py`, kept by each engine."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.data.shapes.command import FIRST_INDEX
from model.data.shapes.scene import draw_scene, sample_scene
from model.exporting.float16 import to_float16
from model.quantization.int8_graph import int8_graph
from model.quantization.plan import QUANTIZABLE_PARTS
from model.runtime.artifact.file import Artifact, read_artifact
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import Engine
from model.runtime.engines.opening import open_engine
from model.runtime.preprocess import make_batch, resize
from service.images.answers import DetectTask, SegmentTask
from service.images.task import Prepared, Task
from service.process.trace import Trace
from service.settings import DEMO_MODEL
from tests.promised_digits import PROMISED, Difference, Digits, difference
from tests.reliability.conftest import Measured

LOW, USUAL = 0.1, 0.5  # thresholds; above the first there are many objects of which the model is unsure
TASKS: tuple[Task, ...] = (DetectTask(LOW), DetectTask(USUAL), SegmentTask(USUAL, "json"))
THRESHOLDS = (LOW, USUAL, USUAL)  # of the tasks


@dataclass(frozen=True)
class Picture:
    """A picture, and what the network takes of it."""

    orig_size: tuple[int, int]  # (height, width) in pixels
    resized: NDArray[np.uint8]  # [h, w, 3], RGB


@dataclass(frozen=True)
class Served:
    """A model on an engine, and the digits that are promised of its answers."""

    engine: Engine
    metadata: Metadata
    digits: Digits

    def answers(self, pictures: Sequence[Picture]) -> list[tuple[bytes, ...]]:
        """What each picture is answered with by each of `TASKS`, all pictures in one batch."""
        batch = make_batch([picture.resized for picture in pictures])
        outputs = self.engine.infer(batch, np.full(len(pictures), USUAL, np.float32))
        return [
            tuple(
                task.answer(
                    self.metadata, Prepared(picture.orig_size, picture.resized, None), outputs.image(index), Trace()
                ).body
                for task in TASKS
            )
            for index, picture in enumerate(pictures)
        ]

    def pictures(self, count: int) -> list[Picture]:
        """Scenes of several sizes and shapes, as the model sees them."""
        images = [
            draw_scene(sample_scene(1, FIRST_INDEX["val"] + number), 90 + 83 * number % 400).image
            for number in range(count)
        ]
        return [Picture((image.shape[0], image.shape[1]), resize(image, self.metadata.resize)) for image in images]


@cache
def stored(precision: str) -> Artifact:
    """The demo model, stored in a precision."""
    demo = read_artifact(Path(DEMO_MODEL))
    if precision == "float16":
        proto = to_float16(onnx.load_from_string(demo.data))
    elif precision == "int8":
        with TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}.png" for number in range(8)]
            for number, path in enumerate(paths):
                Image.fromarray(draw_scene(sample_scene(2, number), 128).image).save(path)
            proto, _ = int8_graph(demo, paths, QUANTIZABLE_PARTS[:1])
    else:
        return demo
    metadata = replace(demo.metadata, precision=precision)  # type: ignore[arg-type]  # one of a model's
    return replace(demo, data=proto.SerializeToString(), metadata=metadata)


# The artifacts of the others have to be made first.
QUICK = [("cpu", "float32"), ("openvino", "float32"), ("openvino", "bfloat16")]
ENGINES = [pytest.param(key, marks=[] if key in QUICK else pytest.mark.slow, id="-".join(key)) for key in PROMISED]


@pytest.fixture(scope="module", params=ENGINES)
def served(request: pytest.FixtureRequest) -> Served:
    """Each engine in each precision."""
    device, precision = request.param
    artifact = stored(precision)
    try:
        engine = open_engine(artifact, device, precision="auto" if precision == "int8" else precision, threads=1)
    except DeviceError as error:
        if precision != "bfloat16":
            raise
        pytest.skip(str(error))
    assert (engine.device, engine.precision) == request.param
    return Served(engine, artifact.metadata, PROMISED[request.param])


def groups(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Those that alone have one canvas, together."""
    found: dict[tuple[int, ...], list[Picture]] = {}
    for picture in pictures:
        found.setdefault(make_batch([picture.resized]).images.shape, []).append(picture)
    return list(found.values())


@pytest.mark.row(id="F13")
def test_on_one_canvas_an_answer_is_the_same_byte_for_byte(served: Served) -> None:
    for pictures in groups(served.pictures(8)):
        alone = [served.answers([picture])[0] for picture in pictures]
        assert served.answers(pictures) == alone
        assert served.answers(pictures[::-1]) == alone[::-1]
        assert served.answers(pictures[:1] * 3) == alone[:1] * 3


@pytest.mark.row(id="F13")
@pytest.mark.parametrize("count", [8, pytest.param(400, marks=[pytest.mark.soak, pytest.mark.timeout(1500)])])
def test_on_a_larger_canvas_the_promised_digits_hold(served: Served, measured: Measured, count: int) -> None:
    """Each picture alone, and in batches of four with pictures of other shapes."""
    pictures = served.pictures(count)
    seen: list[Difference] = []
    for start in range(0, count, 4):
        batch = pictures[start : start + 4]
        for picture, together in zip(batch, served.answers(batch), strict=True):
            alone = served.answers([picture])[0]
            seen += [
                difference(expected, found, served.digits, threshold)
                for expected, found, threshold in zip(alone, together, THRESHOLDS, strict=True)
            ]
    assert [one.fault for one in seen if one.fault] == []
    worst = {name: max(getattr(one, name) for one in seen) for name in ("score", "edge", "pixels")}
    differ = sum(one.is_any for one in seen)
    measured(
        "F13",
        f"{served.engine.device} {served.engine.precision}: of {len(seen)} answers {differ} differ from those of the "
        f"picture alone: scores by {worst['score']:.4f}, edges by {worst['edge']:.2f} px, pixels by "
        f"{100 * worst['pixels']:.3f} % at most",
        answers=len(seen),
        differ=differ,
        **worst,
    )


SIDE = 100  # pixels of the made-up picture
DIGITS = Digits(score=1e-3, edge=2e-4, pixels=1e-2)


def detection(label: str, score: float, x1: float = 10) -> dict[str, Any]:
    return {"label": label, "score": score, "box": {"x1": x1, "y1": 20, "x2": 50, "y2": 60}}


def detect(*detections: dict[str, Any], side: int = SIDE) -> bytes:
    return json.dumps({"model": "m", "image": {"width": side, "height": side}, "detections": list(detections)}).encode()


def segment(ids: NDArray[np.uint8], **scores: float) -> bytes:
    """Segments of such names, by id from 1, of which each has the pixels that `ids` [SIDE, SIDE] says."""
    buffer = io.BytesIO()
    Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], axis=-1)).save(buffer, "PNG")
    segments = [
        {"id": number, "label": name, "score": score, "area": int((ids == number).sum())}
        for number, (name, score) in enumerate(scores.items(), start=1)
    ]
    answer = {"model": "m", "image": {"width": SIDE, "height": SIDE}, "segments": segments}
    return json.dumps(answer | {"panoptic_png": base64.b64encode(buffer.getvalue()).decode()}).encode()


def halves(moved: int = 0, third: int = 0) -> NDArray[np.uint8]:
    """Two halves of the picture, but for some pixels that are of the other, and some of a third segment."""
    ids = np.ones((SIDE, SIDE), np.uint8)
    ids[SIDE // 2 :] = 2
    ids.reshape(-1)[:moved] = 2
    ids.reshape(-1)[SIDE**2 - third :] = 3
    return ids


HALVES = segment(halves(), sky=0.9, star=0.8)
TWO = detect(detection("star", 0.9), detection("ring", 0.6))
WITHIN: Mapping[str, tuple[bytes, bytes]] = {
    "digits": (TWO, detect(detection("star", 0.9008), detection("ring", 0.6, 10.02))),
    "an object at the threshold": (TWO, detect(*json.loads(TWO)["detections"], detection("star", 0.501))),
    "no object at the threshold": (detect(detection("star", 0.501)), detect()),
    "the order of equals": (
        detect(detection("star", 0.6003), detection("ring", 0.6)),
        detect(detection("ring", 0.6005), detection("star", 0.6002)),
    ),
    "pixels": (HALVES, segment(halves(100), sky=0.9, star=0.801)),
    "a segment at the threshold": (HALVES, segment(halves(0, 2000), sky=0.9, star=0.8, ring=0.5005)),
    "a segment of few pixels": (HALVES, segment(halves(0, 50), sky=0.9, star=0.8, ring=0.9)),
}  # fmt: skip
BEYOND: Mapping[str, tuple[bytes, bytes]] = {
    "a score": (TWO, detect(detection("star", 0.902), detection("ring", 0.6))),
    "an edge": (TWO, detect(detection("star", 0.9), detection("ring", 0.6, 10.04))),
    "a label": (TWO, detect(detection("heart", 0.9), detection("ring", 0.6))),
    "an object more": (TWO, detect(*json.loads(TWO)["detections"], detection("star", 0.52))),
    "an object less": (TWO, detect(detection("star", 0.9))),
    "the order": (TWO, detect(detection("ring", 0.6), detection("star", 0.9))),
    "another picture": (TWO, detect(*json.loads(TWO)["detections"], side=90)),
    "no detections": (TWO, segment(halves(), sky=0.9)),
    "pixels": (HALVES, segment(halves(101), sky=0.9, star=0.8)),
    "a segment's label": (HALVES, segment(halves(), sky=0.9, ring=0.8)),
    "a segment's score": (HALVES, segment(halves(), sky=0.9, star=0.79)),
    "a segment more": (HALVES, segment(halves(0, 2000), sky=0.9, star=0.8, ring=0.6)),
}  # fmt: skip


@pytest.mark.parametrize(("expected", "found"), WITHIN.values(), ids=WITHIN.keys())
def test_what_the_promise_allows_is_no_fault(expected: bytes, found: bytes) -> None:
    assert difference(expected, found, DIGITS, USUAL).fault is None
    assert difference(found, expected, DIGITS, USUAL).fault is None
    assert difference(expected, found, DIGITS, USUAL).is_any
    assert difference(expected, expected, DIGITS, USUAL) == Difference()


@pytest.mark.parametrize(("expected", "found"), BEYOND.values(), ids=BEYOND.keys())
def test_what_breaks_the_promise_is_noticed(expected: bytes, found: bytes) -> None:
    assert difference(expected, found, DIGITS, USUAL).fault is not None
