"""TensorRT behind ONNX Runtime: its libraries, and its options.

Not tried on hardware yet. The options are ONNX Runtime's documented ones (TensorRT Execution Provider).
"""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

import onnxruntime

from model.runtime.installing import install_command

# What ONNX Runtime's provider is linked against, in the order in which they need each other.
_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")


def load_tensorrt() -> str | None:
    """Load TensorRT's libraries (Linux), from the system or from the Python package; None, or what is missing."""
    if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
        return "this ONNX Runtime is built without TensorRT; install onnxruntime-gpu in place of onnxruntime"
    package = find_spec("tensorrt_libs")
    folders = [Path(folder) for folder in package.submodule_search_locations or ()] if package else []
    for name in _LIBRARIES:
        if not any(_load(place) for place in (name, *(str(folder / name) for folder in folders))):
            return f"TensorRT 10 is not installed ({name} does not load): {install_command('tensorrt<11')}"
    return None


def tensorrt_options(precision: str, cache: Path | None) -> dict[str, str]:
    """Options of the provider.

    No shape profiles are given. They would have to name every dynamic input of every part that TensorRT takes, and a
    graph with masks falls into parts, whose inputs ONNX Runtime names; without profiles it widens the range of shapes
    by what it sees, and builds an engine anew each time. `warm_up` therefore shows it the smallest and the largest
    canvas before anything is answered.
    """
    # TensorRT may round to TF32, and no option of the provider stops it; this is NVIDIA's switch for all its libraries.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    options = {
        "trt_fp16_enable": str(precision == "float16"),
        # Norms overflow in float16.
        "trt_layer_norm_fp32_fallback": "True",
    }
    if cache is None:
        return options
    # To build an engine takes minutes. The cache knows the GPU and TensorRT's version, and is built anew with others.
    return options | {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
    }


def _load(name: str) -> bool:
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
