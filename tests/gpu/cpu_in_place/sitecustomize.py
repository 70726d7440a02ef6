"""Puts the CPU in the GPU's place, in every Python that has this folder in its path.

An engine then says that it runs on "cuda", so that canvases, warm-up and batches are those of a GPU, and computes on
the CPU. A limit of the GPU's memory holds for the size of a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_MODULE = "model.runtime.engines.onnxruntime_engine"
# What a batch is held to take, by the bytes of its pixels: 1.2 GB for one of 800 x 1333.
_BYTES_A_BYTE = 400


class _Patching(MetaPathFinder):
    """Changes the module as soon as it is imported, and is gone then."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Find the module as anybody does, with a loader that changes it."""
        del path, target
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        assert spec is not None
        _change_when_loaded(spec)
        return spec


def _change_when_loaded(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    load = loader.exec_module

    def load_and_change(module: ModuleType) -> None:
        load(module)
        _change(module)

    loader.exec_module = load_and_change


def _change(module: Any) -> None:
    from model.runtime.engines.device_errors import DeviceMemoryError

    @dataclass(frozen=True)
    class LimitedEngine(module.OnnxRuntimeEngine):  # type: ignore[misc]
        memory_bytes: int | None = None

        def infer(self, batch: Any, mask_threshold: Any, attention: bool = False) -> Any:
            if self.memory_bytes is not None and batch.images.nbytes * _BYTES_A_BYTE > self.memory_bytes:
                raise DeviceMemoryError("device cuda: memory ran out, as it would on a GPU")
            return super().infer(batch, mask_threshold, attention)

    providers, opened = module._providers, module.open_onnxruntime

    def open_onnxruntime(artifact: Any, device: str, precision: str, threads: int, gpu: Any) -> Any:
        engine = opened(artifact, device, precision, threads, gpu)
        limit = gpu.memory_bytes if device != "cpu" else None
        return LimitedEngine(engine.device, engine.precision, engine.session, engine.has_masks, engine.attention, limit)

    module._load_gpu_libraries = lambda device: None
    module._providers = lambda device, precision, gpu: providers("cpu", precision, gpu)
    module.open_onnxruntime = open_onnxruntime


sys.meta_path.insert(0, _Patching())
