"""Engines: what all of them keep to, and which is taken."""

from __future__ import annotations

import copy
import logging
import threading
from dataclasses import fields, replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.artifact.file import Artifact, ArtifactError
from model.runtime.engines import onnxruntime_engine, opening
from model.runtime.engines.cores import available_cores
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import Engine
from model.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, RawOutputs
from model.runtime.preprocess import make_batch
from tests.tiny_artifact import CATEGORIES, MASK_STRIDE, QUERIES

Floats = NDArray[np.float32]


# What every machine can run, and in what; "auto" of OpenVINO is bfloat16 where the processor knows it.
ENGINES = [("cpu", "auto"), ("openvino", "float32"), ("openvino", "auto")]


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
def panoptic_engine(request: pytest.FixtureRequest, panoptic_artifact: Artifact) -> Engine:
    device, precision = request.param
    return open_engine(panoptic_artifact, device, precision=precision, threads=1)


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
def detection_engine(request: pytest.FixtureRequest, detection_artifact: Artifact) -> Engine:
    device, precision = request.param
    return open_engine(detection_artifact, device, precision=precision, threads=1)


def image_of(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def thresholds(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)


def test_outputs_have_the_shapes_of_the_contract(panoptic_engine: Engine) -> None:
    batch = make_batch([image_of(40, 50), image_of(70, 30)])
    outputs = panoptic_engine.infer(batch, thresholds(ALL_MASKS, NO_MASKS))
    assert outputs.pred_logits.shape == (2, QUERIES, len(CATEGORIES) + 1)
    assert outputs.pred_boxes.shape == (2, QUERIES, 4)
    assert outputs.pred_masks is not None
    assert outputs.mask_index is not None
    assert outputs.pred_masks.shape == (QUERIES, 96 // MASK_STRIDE, 64 // MASK_STRIDE)
    assert outputs.mask_index.tolist() == [[0, query] for query in range(QUERIES)]
    assert outputs.pred_masks.dtype == outputs.pred_logits.dtype == outputs.pred_boxes.dtype == np.float32
    assert outputs.mask_index.dtype == np.int64


def test_no_masks_asked_for_gives_none(panoptic_engine: Engine) -> None:
    outputs = panoptic_engine.infer(make_batch([image_of(40, 50)]), thresholds(NO_MASKS))
    assert outputs.pred_masks is not None
    assert outputs.pred_masks.shape == (0, 64 // MASK_STRIDE, 64 // MASK_STRIDE)


def test_a_detection_model_ignores_mask_thresholds(detection_engine: Engine) -> None:
    outputs = detection_engine.infer(make_batch([image_of(40, 50)]), thresholds(ALL_MASKS))
    assert outputs.pred_masks is None
    assert outputs.mask_index is None
    assert outputs.image(0).mask_logits is None


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=2, max_size=4),
    st.floats(-1, 1),
    st.data(),
)
def test_an_image_gets_the_same_answer_alone_and_in_a_batch(
    panoptic_engine: Engine, sizes: list[tuple[int, int]], threshold: float, draw: st.DataObject
) -> None:
    images = [image_of(*size, seed=index) for index, size in enumerate(sizes)]
    index = draw.draw(st.integers(0, len(images) - 1))
    (h, w), image = sizes[index], images[index]
    alone = panoptic_engine.infer(make_batch([image]), thresholds(threshold)).image(0)
    others = np.full(len(images), ALL_MASKS, dtype=np.float32)
    others[index] = threshold
    among = panoptic_engine.infer(make_batch(images), others).image(index)
    np.testing.assert_allclose(among.pred_logits, alone.pred_logits, atol=1e-4)
    np.testing.assert_allclose(among.pred_boxes, alone.pred_boxes, atol=1e-5)
    np.testing.assert_array_equal(among.query_index, alone.query_index)
    assert among.mask_logits is not None
    assert alone.mask_logits is not None
    cells = np.s_[:, : -(-h // MASK_STRIDE), : -(-w // MASK_STRIDE)]
    np.testing.assert_allclose(among.mask_logits[cells], alone.mask_logits[cells], atol=1e-4)


def test_outputs_are_the_callers_own(panoptic_engine: Engine) -> None:
    batch = make_batch([image_of(40, 50)])
    first = panoptic_engine.infer(batch, thresholds(ALL_MASKS))
    kept = copy.deepcopy(first)
    panoptic_engine.infer(make_batch([image_of(40, 50, seed=1)]), thresholds(ALL_MASKS))
    batch.images[:] = 0
    for field in fields(RawOutputs):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(kept, field.name))


def test_inputs_are_left_as_they_are(panoptic_engine: Engine) -> None:
    batch = make_batch([image_of(40, 50)])
    images = batch.images.copy()
    panoptic_engine.infer(batch, thresholds(ALL_MASKS))
    np.testing.assert_array_equal(batch.images, images)


def test_several_threads_at_once_get_their_own_answers(panoptic_engine: Engine) -> None:
    batches = [make_batch([image_of(20 + 9 * n, 90 - 7 * n, seed=n)]) for n in range(6)]
    alone = [panoptic_engine.infer(batch, thresholds(ALL_MASKS)) for batch in batches]
    barrier = threading.Barrier(len(batches))
    wrong: list[int] = []

    def run(number: int) -> None:
        barrier.wait(timeout=30)
        for _ in range(20):
            found = panoptic_engine.infer(batches[number], thresholds(ALL_MASKS))
            assert found.pred_masks is not None
            if not np.allclose(found.pred_logits, alone[number].pred_logits, atol=1e-5):
                wrong.append(number)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(len(batches))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)
    assert wrong == []


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "missing_for_cuda", lambda: "there is no GPU")


def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "missing_for_openvino", lambda: "OpenVINO is not installed")


def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (opening, onnxruntime_engine):
        monkeypatch.setattr(module, "missing_for_cuda", lambda: None)


class CpuOnlySession:
    """What ONNX Runtime gives when the libraries of the CUDA provider do not load: a session without it."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_auto_takes_openvino_where_there_is_no_gpu_and_says_so(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_gpu(monkeypatch)
    with caplog.at_level(logging.INFO):
        opened = open_engine(panoptic_artifact)
    assert opened.device == "openvino"
    assert "device cuda is not used: there is no GPU" in caplog.text
    assert f"tiny.onnx runs on openvino in {opened.precision} (asked for auto in auto)" in caplog.text


def test_auto_takes_the_cpu_where_there_is_neither_and_says_so(
    panoptic_artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    no_gpu(monkeypatch)
    no_openvino(monkeypatch)
    with caplog.at_level(logging.INFO):
        opened = open_engine(panoptic_artifact)
    assert (opened.device, opened.precision) == ("cpu", "float32")
    assert "device openvino is not used: OpenVINO is not installed" in caplog.text
    assert "tiny.onnx runs on cpu in float32" in caplog.text
    # ONNX Runtime was not even asked for CUDA: it would have complained on stderr.
    assert capfd.readouterr() == ("", "")


def test_auto_warns_when_a_gpu_is_there_but_cuda_does_not_load(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = onnxruntime.InferenceSession

    def session(data: bytes, **options: Any) -> Any:
        wants_cuda = options["providers"][0][0] == "CUDAExecutionProvider"
        return CpuOnlySession() if wants_cuda else real(data, **options)

    a_gpu(monkeypatch)
    no_openvino(monkeypatch)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with caplog.at_level(logging.WARNING):
        assert open_engine(panoptic_artifact, "auto").device == "cpu"
    assert "device cuda is there but cannot be used, so another is taken: " in caplog.text


def test_auto_leaves_openvino_out_where_it_cannot_load_the_model(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise DeviceError("device openvino: it cannot load tiny.onnx: no such operation")

    no_gpu(monkeypatch)
    monkeypatch.setattr(opening, "open_openvino", fail)
    with caplog.at_level(logging.WARNING):
        assert open_engine(panoptic_artifact, "auto").device == "cpu"
    assert "no such operation" in caplog.text


def test_a_precision_that_no_device_has_is_refused_by_auto_too(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpu(monkeypatch)
    no_openvino(monkeypatch)
    with pytest.raises(DeviceError, match="precision bfloat16: device cpu does not compute in it here"):
        open_engine(panoptic_artifact, "auto", precision="bfloat16")


@pytest.mark.parametrize("device", ["gpu", "", "CPU", "cuda:0:1"])
def test_an_unknown_device_is_refused(device: str, panoptic_artifact: Artifact) -> None:
    with pytest.raises(DeviceError, match="use one of auto, cpu, cuda"):
        open_engine(panoptic_artifact, device)


def test_threads_are_those_asked_for_and_by_default_every_core(panoptic_artifact: Artifact) -> None:
    def threads(count: int | None) -> int:
        opened = open_engine(panoptic_artifact, "cpu", threads=count)
        assert isinstance(opened, OnnxRuntimeEngine)
        return int(opened.session.get_session_options().intra_op_num_threads)

    assert threads(3) == 3
    assert threads(None) == available_cores()
    with pytest.raises(ValueError, match="threads"):
        open_engine(panoptic_artifact, "cpu", threads=0)


def test_a_graph_with_other_numbers_than_its_metadata_is_refused(panoptic_artifact: Artifact) -> None:
    metadata = replace(panoptic_artifact.metadata, num_queries=100)
    for device in ("cpu", "openvino"):
        with pytest.raises(ArtifactError, match="its graph's output pred_logits is"):
            open_engine(replace(panoptic_artifact, metadata=metadata), device)
