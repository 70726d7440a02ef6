"""Row F11 on a GPU: its memory, not a script, is what runs out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from model.runtime.artifact.file import Artifact, read_artifact
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.engines.onnxruntime_engine import GpuOptions
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch
from service.bench.pictures import synthetic_jpeg
from service.settings import DEMO_MODEL
from tests.gpu.table import Part
from tests.server_process import ServerProcess, serving

BATCH = 16
ROUNDS = 5
PICTURES = [synthetic_jpeg((480, 640), seed) for seed in range(BATCH)]
# So that a busy machine is not taken for a fault.
PATIENT = ("--request-timeout-ms", "600000", "--header-timeout-ms", "600000", "--body-timeout-ms", "600000")
# Nothing is run before the first request, so that the memory has not been shown to be enough.
UNTIMED = ("--device", "cuda", "--batch-timing-ms", "0", "--warm-up-ms", "0", "--max-batch-size", str(BATCH))


def runs(artifact: Artifact, memory_bytes: int, images: int) -> bool:
    """Whether a batch of so many images fits into a GPU's memory that is limited so."""
    height, width = artifact.metadata.resize.size(480, 640)
    batch = make_batch([np.zeros((height, width, 3), dtype=np.uint8)] * images)
    try:
        engine = open_engine(artifact, "cuda", gpu=GpuOptions(memory_bytes))
        engine.infer(batch, np.full(images, NO_MASKS, dtype=np.float32))
    except (DeviceError, DeviceMemoryError):
        return False
    return True


def all_at_once(server: ServerProcess) -> list[object]:
    """What each picture is answered, all of them sent at the same moment."""
    ready = Barrier(BATCH)

    def ask(picture: bytes) -> object:
        ready.wait()
        answer = server.post("/detect", picture, "image/jpeg")
        assert answer.status_code == 200, answer.text
        return [(found["label"], found["category_id"]) for found in answer.json()["detections"]]

    with ThreadPoolExecutor(BATCH) as pool:
        return list(pool.map(ask, PICTURES))


@pytest.mark.gpu
@pytest.mark.row(id="F11")
def test_a_gpu_with_too_little_memory_answers_everybody_in_smaller_batches(tmp_path: Path, part: Part) -> None:
    artifact = read_artifact(DEMO_MODEL)
    limits = (round(2**24 * 1.25**step) for step in range(30))
    enough_for_two = next(limit for limit in limits if runs(artifact, limit, 2))
    assert not runs(artifact, enough_for_two, BATCH), "the limit does not limit"
    (tmp_path / "roomy").mkdir()
    with serving(None, tmp_path / "roomy", *PATIENT, *UNTIMED) as roomy:
        expected = all_at_once(roomy)
    (tmp_path / "tight").mkdir()
    limited = ("--gpu-memory-bytes", str(enough_for_two))
    with serving(None, tmp_path / "tight", *PATIENT, *UNTIMED, *limited) as tight:
        for _ in range(ROUNDS):
            assert all_at_once(tight) == expected
        samples = tight.samples()
        splits = samples['detr_batch_splits_total{device="cuda",reason="memory"}']
        ceiling = samples['detr_max_batch_size{device="cuda"}']
        assert splits >= 1
        assert ceiling < BATCH
        assert tight.errors() == []
    limit = f"limited to {enough_for_two / 1e6:.0f} MB"
    part.tell(f"{limit}: {ROUNDS} x {BATCH} images answered right, {splits:g} splits, ceiling {ceiling:g} afterwards")
