"""Table Transformer from a folder to a server's answers, which are those of transformers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, TableTransformerConfig, TableTransformerForObjectDetection

from tests.end_to_end.test_fine_tune import detr
from tests.model.checkpoint.test_answers_of_folders import native_config, save
from tests.server_process import serving

HEIGHT, WIDTH = 150, 420


@pytest.mark.slow
def test_a_server_answers_as_transformers_does(tmp_path: Path) -> None:
    theirs = TableTransformerForObjectDetection(native_config(TableTransformerConfig))
    save(tmp_path / "tables", theirs, size=96, max_size=96)
    page = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    processor = AutoImageProcessor.from_pretrained(tmp_path / "tables", backend="pil")  # type: ignore[no-untyped-call]
    with torch.no_grad():
        outputs = theirs(**processor(page, return_tensors="pt"))
    (expected,) = processor.post_process_object_detection(outputs, threshold=0, target_sizes=[(HEIGHT, WIDTH)])
    order = expected["scores"].argsort(descending=True)
    said = detr("export", "tables", "--out", "tables.onnx", cwd=tmp_path)
    assert "resize rule: 96 and 96 pixels, as transformers rounds, from preprocessor_config.json" in said
    file = io.BytesIO()
    page.save(file, "PNG")
    with serving(tmp_path / "tables.onnx", tmp_path) as server:
        answer = server.post("/detect?threshold=0", file.getvalue(), "image/png").json()
        assert server.get("/model").json()["detect_threshold"] == 0.5
    found = answer["detections"]
    boxes = [[detection["box"][side] for side in ("x1", "y1", "x2", "y2")] for detection in found]
    np.testing.assert_allclose([d["score"] for d in found], expected["scores"][order], rtol=0, atol=1e-4)
    clipped = expected["boxes"][order].numpy().clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    np.testing.assert_allclose(boxes, clipped, rtol=0, atol=0.05)
    assert [d["label"] for d in found] == [("cat", "dog")[label] for label in expected["labels"][order]]
