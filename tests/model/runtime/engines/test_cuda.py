import ctypes
from typing import Any

import onnxruntime
import pytest

from model.runtime.engines import cuda


class Driver:
    """A CUDA driver that finds some GPUs, or fails to start."""

    def __init__(self, gpus: int, error: int = 0) -> None:
        self.gpus = gpus
        self.error = error

    def cuInit(self, _: int) -> int:  # noqa: N802  (the driver's own name)
        return self.error

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.gpus
        return 0


@pytest.fixture(autouse=True)
def built_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])


def install(monkeypatch: pytest.MonkeyPatch, *libraries: str, driver: Driver | None = None) -> None:
    def load(name: str) -> Any:
        if name == "libcuda.so.1" and driver is not None:
            return driver
        if name in libraries:
            return object()
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_nothing_is_missing_where_the_driver_finds_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, driver=Driver(1))
    assert cuda.missing_for_cuda() is None


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert "no NVIDIA driver" in (cuda.missing_for_cuda() or "")


@pytest.mark.parametrize("driver", [Driver(0), Driver(1, error=999)])
def test_a_driver_without_a_usable_gpu_is_told_apart(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, driver=driver)
    assert "no usable GPU" in (cuda.missing_for_cuda() or "")


def test_a_build_without_cuda_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, driver=Driver(1))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "install onnxruntime-gpu" in (cuda.missing_for_cuda() or "")


def test_libraries_that_do_not_load_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    install(monkeypatch, "libcudart.so.13", "libcublasLt.so.13")
    assert cuda.missing_libraries() == ["libcublas.so.13", "libcudnn.so.9"]
    install(monkeypatch, "libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcudnn.so.9")
    assert cuda.missing_libraries() == []
