"""The demo model: what it says of itself, and what it sees in the example picture."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from PIL import Image

from model.data.shapes.command import FIRST_INDEX
from model.data.shapes.scene import Drawing, draw_scene, sample_scene
from model.runtime.artifact.file import read_artifact
from tests.end_to_end.conftest import REPOSITORY

EXAMPLE = REPOSITORY / "docs" / "example.jpg"


@pytest.fixture(scope="module")
def scene() -> Drawing:
    """What the example picture shows: drawn again from its seed."""
    drawing = draw_scene(sample_scene(0, FIRST_INDEX["val"] + 6), 480)
    picture = np.asarray(Image.open(EXAMPLE).convert("RGB"), dtype=np.int16)
    assert np.abs(picture - drawing.image).mean() < 4, "the example is another picture"
    return drawing


def predicted(task: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "service.cli", "predict", str(EXAMPLE), "--task", task]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (answer,) = json.loads(done.stdout)
    return dict(answer)


def test_it_is_small_and_says_how_it_was_made_and_how_good_it_is(demo: Path) -> None:
    assert demo.stat().st_size < 25e6
    provenance = read_artifact(demo).metadata.provenance
    assert any("detr train" in command for command in provenance["commands"])
    measured = provenance["measured"]
    assert measured["scenes"] == 500
    assert measured["AP50"] >= 0.5
    assert measured["PQ"] >= 0.4


def test_it_names_nobody_s_machine(demo: Path) -> None:
    content = demo.read_bytes()
    for trace in (b"site-packages", b"/home/", b"/root/", b"Traceback", b'File "'):
        assert trace not in content


def test_the_example_s_objects_are_found_where_they_are(scene: Drawing) -> None:
    detections = predicted("detect")["detections"]
    assert Counter(d["label"] for d in detections) == Counter(scene.names)
    for position, name in enumerate(scene.names):
        rows, columns = np.nonzero(scene.segment_map == position)
        truth = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        boxes = [d["box"] for d in detections if d["label"] == name]
        found = [[b["x1"], b["y1"], b["x2"] - b["x1"], b["y2"] - b["y1"]] for b in boxes]
        overlap = pycocotools.mask.iou(np.array(found, float), np.array([truth], float), [0])
        assert overlap.max() > 0.6, name


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_example_s_segments_are_what_a_person_sees(scene: Drawing) -> None:
    segments = predicted("segment")["segments"]
    assert Counter(s["label"] for s in segments) == Counter(scene.names)
    for position, name in enumerate(scene.names):
        mask = np.asfortranarray(scene.segment_map == position, dtype=np.uint8)
        found = [s["rle"] for s in segments if s["label"] == name]
        overlap = pycocotools.mask.iou(found, [pycocotools.mask.encode(mask)], [0])
        assert overlap.max() > 0.5, name
