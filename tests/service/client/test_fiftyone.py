"""FiftyOne itself reads the answers, in an environment of its own: it brings a database and half a hundred packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client_packages import environment_of_checkout
from tests.documentation import blocks
from tests.layout import REPOSITORY
from tests.server_process import serving

CHECKED = """
answer = Client("http://localhost:8000").segment("docs/example.jpg")
for number, (detection, found) in enumerate(zip(sample["detr"].detections, answer, strict=True)):
    x, y, width, height = detection.bounding_box
    box = (640 * x, 480 * y, 640 * (x + width), 480 * (y + height))
    assert all(abs(one - other) < 0.01 for one, other in zip(box, found.box_xyxy)), (box, found)
    assert detection.label == found.label and detection.confidence == found.score
    assert detection.mask.sum() == answer.areas[number]
for detection in Client("http://localhost:8000").detect("docs/example.jpg").to_fiftyone().detections:
    assert detection.mask is None

# COCO's results, by what `add_coco_labels` makes of each entry: the rest of it needs a database.
from fiftyone.utils.coco import COCOObject
from pycocotools import mask
client = Client("http://localhost:8000")
names = {category["id"]: category["name"] for category in client.model()["categories"]}
for answer in (client.detect("docs/example.jpg"), client.segment("docs/example.jpg", mode="instance")):
    for number, (entry, found) in enumerate(zip(answer.to_coco(1), answer, strict=True)):
        if "segmentation" in entry:
            entry["bbox"] = mask.toBbox(entry["segmentation"]).tolist()
        detection = COCOObject.from_anno_dict(entry).to_detection((640, 480), names, load_segmentation=True)
        assert detection.label == found.label and detection.confidence == found.score
        x, y, width, height = detection.bounding_box
        box = (640 * x, 480 * y, 640 * (x + width), 480 * (y + height))
        assert all(abs(one - other) < 0.02 for one, other in zip(box, found.box_xyxy)), (box, found)
        assert "segmentation" not in entry or detection.mask.sum() == answer.areas[number]
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fiftyone_reads_the_answers(tmp_path: Path) -> None:
    (block,) = [block for block in blocks() if block.note.endswith("test_fiftyone.py")]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "fiftyone>=1.22", "httpx>=0.28", "pycocotools"]
    subprocess.run(install, check=True, capture_output=True)
    environment = environment_of_checkout(tmp_path) | {"HOME": str(tmp_path)}
    (tmp_path / "server").mkdir()
    with serving(None, tmp_path / "server", "--batch-timing-ms", "0") as server:
        text = re.sub(r"\blocalhost:8000\b", f"127.0.0.1:{server.port}", block.text + CHECKED)
        done = subprocess.run([python, "-c", text], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
