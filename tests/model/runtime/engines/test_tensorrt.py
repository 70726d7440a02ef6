import ctypes
import os
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from model.runtime.engines import tensorrt


@pytest.fixture(autouse=True)
def built_with_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(tensorrt, "find_spec", lambda _: None)


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    loaded: list[str] = []

    def load(name: str, mode: int) -> Any:
        if name not in names:
            raise OSError(name)
        loaded.append(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    return loaded


def test_all_libraries_are_loaded_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = install(monkeypatch, "libnvonnxparser.so.10", "libnvinfer_plugin.so.10", "libnvinfer.so.10")
    assert tensorrt.load_tensorrt() is None
    assert loaded == ["libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"]


def test_the_python_package_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Package:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(tensorrt, "find_spec", lambda _: Package())
    names = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
    loaded = install(monkeypatch, *(str(tmp_path / name) for name in names))
    assert tensorrt.load_tensorrt() is None
    assert [Path(name).name for name in loaded] == list(names)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "libnvinfer.so.10")
    assert "libnvinfer_plugin.so.10 does not load" in (tensorrt.load_tensorrt() or "")


def test_the_hint_names_the_version_that_is_linked_against(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT 11, which `pip install tensorrt` brings, has no libnvinfer.so.10."""
    install(monkeypatch)
    said = tensorrt.load_tensorrt() or ""
    assert "TensorRT 10 is not installed (libnvinfer.so.10 does not load)" in said
    assert said.endswith("install 'tensorrt<11'")


def test_a_build_without_tensorrt_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "built without TensorRT" in (tensorrt.load_tensorrt() or "")


def test_nothing_is_cached_where_no_folder_is_given_and_tf32_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    options = tensorrt.tensorrt_options("float16", None)
    assert options == {"trt_fp16_enable": "True", "trt_layer_norm_fp32_fallback": "True"}
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
