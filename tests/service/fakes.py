"""An engine that does what a test tells it to and remembers what it was given, and its place in a service."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model.runtime.artifact.file import read_artifact
from model.runtime.engines.canvases import canvas_multiple
from model.runtime.engines.device_errors import DeviceMemoryError
from model.runtime.engines.devices import engine_names
from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch
from service.lifecycle.loading import LoadedModel
from service.settings import Settings

QUERIES = 4
CLASSES = 5


class EngineLoader:
    """A ModelLoader that takes engines as they are, not opened from the artifact, whose metadata count."""

    def __init__(self, settings: Settings, *engines: Engine, on_reopen: Callable[[], object] = lambda: None) -> None:
        self._settings = settings
        self._engines = dict(zip(engine_names([engine.device for engine in engines]), engines, strict=True))
        self._on_reopen = on_reopen

    def load(self) -> LoadedModel:
        artifact = read_artifact(self._settings.named_model())
        multiple = canvas_multiple(self._settings.canvas_multiple, artifact.metadata, on_gpu=False)
        return LoadedModel(artifact.metadata, self._engines, artifact.digest, multiple)

    def reopen(self, digest: str, name: str) -> Engine:
        self._on_reopen()
        return self._engines[name]


class FakeEngine:
    """Tells images apart by their first pixel's red, which it gives back as the first box's centre."""

    device = "fake"
    precision = "float32"

    def __init__(self) -> None:
        self.batches: list[list[int]] = []  # the images of every batch that began, by their red
        self.thresholds: list[list[float]] = []
        self.faults: deque[BaseException | None] = deque()  # what the next batches raise; None for nothing
        self.not_finite: set[int] = set()  # reds of images that are answered with NaN
        self.poison: set[int] = set()  # reds of images with which no batch runs
        self.largest: int | None = None  # images; a larger batch is out of memory
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        """Let batches begin, and none end."""
        self._open.clear()

    def release(self) -> None:
        """Let batches end again."""
        self._open.set()

    @property
    def seen(self) -> list[int]:
        """All images that were given to the engine, in order."""
        return [red for batch in self.batches for red in batch]

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        reds = [int(image[0, 0, 0]) for image in batch.images]
        self.batches.append(reds)
        self.thresholds.append(mask_threshold.tolist())
        if not self._open.wait(timeout=30):
            raise RuntimeError("the test forgot to release the engine")
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            raise fault
        if self.poison & set(reds):
            raise RuntimeError("poison at 0x7f0c12345678")
        if self.largest is not None and len(reds) > self.largest:
            raise DeviceMemoryError("Failed to allocate memory for requested buffer of size 1")
        return self._outputs(batch, reds)

    def _outputs(self, batch: Batch, reds: list[int]) -> RawOutputs:
        size, (height, width) = len(reds), batch.images.shape[1:3]
        logits = np.zeros((size, QUERIES, CLASSES + 1), dtype=np.float32)
        logits[:, :, -1] = 9.0
        logits[:, 0, 0] = 18.0  # one object of the first class; all other queries see nothing
        boxes = np.full((size, QUERIES, 4), 0.25, dtype=np.float32)
        boxes[:, 0, 0] = np.array(reds) / 255
        for index, red in enumerate(reds):
            if red in self.not_finite:
                logits[index] = np.nan
        masks = np.ones((size, height // 4, width // 4), dtype=np.float32)
        mask_index = np.stack([np.arange(size), np.zeros(size)], axis=1).astype(np.int64)
        return RawOutputs(logits, boxes, masks, mask_index)
