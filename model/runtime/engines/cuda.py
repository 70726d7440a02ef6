"""Whether CUDA can work here, asked of the driver, before ONNX Runtime tries and fills stderr with its
complaints.
"""

from __future__ import annotations

import ctypes
import sys

import onnxruntime


def missing_for_cuda() -> str | None:
    """What CUDA lacks on this machine, in words and with what to do about it; None if nothing is known to be
    missing.

    Touches no GPU memory. That all libraries of the CUDA provider load is only seen when a session opens.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this ONNX Runtime is built without CUDA; install onnxruntime-gpu in place of onnxruntime"
    if _driver() is None:
        return (
            "there is no NVIDIA driver (libcuda.so.1 does not load); install the driver, "
            "or start the container with access to the GPU (--gpus all)"
        )
    if not gpu_count():
        return "the NVIDIA driver finds no usable GPU; see what nvidia-smi says, and CUDA_VISIBLE_DEVICES"
    return None


def gpu_count() -> int:
    """How many GPUs the driver offers this process (CUDA_VISIBLE_DEVICES counts); 0 without a driver."""
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def missing_libraries() -> list[str]:
    """The CUDA and cuDNN libraries (Linux) that ONNX Runtime was built against and that do not load here."""
    major = str(getattr(onnxruntime, "cuda_version", "")).partition(".")[0]
    names = [f"lib{name}.so.{major}" for name in ("cudart", "cublas", "cublasLt")] if major else []
    return [name for name in [*names, "libcudnn.so.9"] if not _loads(name)]


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
