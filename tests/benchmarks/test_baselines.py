"""The baselines answer what the service answers; else their speed would say nothing."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint.reading import read_checkpoint
from model.checkpoint.saving import save_checkpoint
from model.export import export
from model.network.config import PRESETS
from model.network.segmentation import DETRsegm
from model.runtime.categories import Category
from model.runtime.engines.golden_recording import fixed_picture
from service.bench.load import BenchTarget, Request, Sample, closed_loop
from service.bench.server_process import ServerProcess, detr_service
from service.images.answers import TaskName
from tests.benchmarks.baselines.eager import EagerModel
from tests.benchmarks.baselines.pipelines import PipelineModel, save_folder
from tests.benchmarks.serving_sides import baseline
from tests.model.networks import SMALL, filled, sharpen_masks

pytestmark = pytest.mark.slow

THRESHOLD = 0.2


def jpeg(height: int, width: int) -> bytes:
    """A picture of a size that is neither resized nor padded, so that the published canvas is the service's."""
    buffer = io.BytesIO()
    Image.fromarray(fixed_picture(height, width)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one with masks."""
    network = filled(SMALL)
    assert isinstance(network, DETRsegm)
    sharpen_masks(network)
    path = tmp_path_factory.mktemp("baselines") / "small.safetensors"
    categories = tuple(Category(n, f"class {n}", n < 8, (n, n, n)) for n in range(SMALL.num_classes))
    save_checkpoint(path, network.state_dict(), SMALL, categories, {})
    return path


@pytest.fixture(scope="module")
def artifact(checkpoint: Path) -> Path:
    path = checkpoint.with_suffix(".onnx")
    export(read_checkpoint(checkpoint), path)
    return path


def ask(process: ServerProcess, requests: list[Request], count: int = 1) -> list[dict[str, Any]]:
    """Answers to so many requests at once."""
    target: BenchTarget = process.target
    samples: list[Sample] = asyncio.run(closed_loop(target, requests, clients=count, count=count, keep_bodies=True))
    assert [sample.status for sample in samples] == [200] * count
    return [json.loads(sample.body or b"") for sample in samples]


def things(answer: dict[str, Any], kind: TaskName) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["detections" if kind == "detect" else "segments"]
    return found


@pytest.mark.parametrize("kind", ["detect", "segment"])
def test_eager_pytorch_behind_either_server_answers_what_the_service_answers(
    kind: TaskName, checkpoint: Path, artifact: Path
) -> None:
    picture = jpeg(128, 160)
    given = {"model": str(artifact), "device": "cpu", "engine_threads": "1", "batch_timing_ms": "0"}
    with detr_service(given) as process:
        (ours,) = ask(process, [Request(f"/{kind}?threshold={THRESHOLD}", picture)])
    assert len(things(ours, kind)) > 1
    for module, together in (("plain", 1), ("lit", 3)):
        with baseline(module, checkpoint, [picture], kind, THRESHOLD) as served, served.awake():
            for theirs in ask(served.process, list(served.requests), together):
                for a, b in zip(things(ours, kind), things(theirs, kind), strict=True):
                    assert a["label"] == b["label"]
                    assert a["score"] == pytest.approx(b["score"], abs=2e-4)
                    assert a["box"] == pytest.approx(b["box"], abs=0.02 if kind == "detect" else 1)
                    if kind == "segment":
                        assert a["area"] == pytest.approx(b["area"], abs=20)


def test_the_pipeline_of_transformers_finds_what_eager_pytorch_finds(tmp_path: Path) -> None:
    checkpoint = tmp_path / "r50.pth"
    torch.save({"model": filled(PRESETS["detr-resnet-50-panoptic"]).state_dict()}, checkpoint)
    save_folder(checkpoint, "detect", tmp_path / "folder")
    picture = jpeg(800, 1066)
    ours = json.loads(EagerModel(checkpoint, "detect", 0.5).answer(picture))["detections"]
    theirs = json.loads(PipelineModel(tmp_path / "folder", "detect", 0.5).answer(picture))
    theirs.sort(key=lambda each: -each["score"])
    assert len(ours) > 1
    np.testing.assert_allclose([a["score"] for a in ours], [b["score"] for b in theirs], atol=1e-3)
    for a, b in zip(ours, theirs, strict=True):
        # The pipeline cuts boxes to whole pixels and does not clip them to the image.
        limits = {"xmin": 1066, "ymin": 800, "xmax": 1066, "ymax": 800}
        corners = [min(max(b["box"][name], 0), limit) for name, limit in limits.items()]
        np.testing.assert_allclose(list(a["box"].values()), corners, atol=1.5)
