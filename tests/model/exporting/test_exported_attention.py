"""The attention of an artifact that was exported with it, against torch's own, alone and in company."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.checkpoint.reading import read_checkpoint
from model.export import export
from model.exporting.served_network import ServedNetwork
from model.network.segmentation import DETRsegm
from model.runtime.answers.attention import cross_attention, self_attention
from model.runtime.artifact.file import Artifact, read_artifact
from model.runtime.artifact.metadata import AttentionShape
from model.runtime.engines.engine import Engine
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, ImageOutputs
from model.runtime.preprocess import make_batch
from tests.model.networks import SMALL, filled
from tests.model.torch_attention import attention_in_torch

SIZES = ((97, 141), (150, 101), (20, 20))  # (height, width)
QUERIES, CELLS = [0, 3, 9], [(0, 0), (1, 1)]
Maps = NDArray[np.float32]


@pytest.fixture(scope="module")
def artifact(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("attention") / "small.onnx"
    report = export(read_checkpoint(small_checkpoint), out, attention=True)
    assert report.worst["attention's cross_keys"] < 1e-4
    return read_artifact(out)


@pytest.fixture(scope="module", params=["cpu", "openvino"])
def engine(request: pytest.FixtureRequest, artifact: Artifact) -> Engine:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return open_engine(artifact, request.param, precision="float32", threads=1)


def maps_of(outputs: ImageOutputs, size: tuple[int, int], artifact: Artifact) -> tuple[Maps, Maps]:
    shape = artifact.metadata.attention
    assert shape is not None
    assert outputs.attention is not None
    return (
        cross_attention(outputs.attention, QUERIES, size, shape),
        self_attention(outputs.attention, CELLS, size, shape),
    )


@pytest.mark.parametrize("threshold", [NO_MASKS, ALL_MASKS])
def test_maps_are_torchs_alone_and_in_company(
    engine: Engine, artifact: Artifact, small_network: DETRsegm, threshold: float
) -> None:
    images = [fixed_picture(*size) for size in SIZES]
    together = engine.infer(make_batch(images), np.full(len(images), threshold, np.float32), attention=True)
    for index, (image, size) in enumerate(zip(images, SIZES, strict=True)):
        alone = engine.infer(make_batch([image]), np.full(1, threshold, np.float32), attention=True).image(0)
        expected = attention_in_torch(small_network, image)
        for outputs in (alone, together.image(index)):
            cross, own = maps_of(outputs, size, artifact)
            rows, columns = cross.shape[1:]
            assert (rows, columns) == (-(-size[0] // 16), -(-size[1] // 16))
            np.testing.assert_allclose(cross, expected.cross[QUERIES, :rows, :columns], atol=1e-4)
            for cell, found in zip(CELLS, own, strict=True):
                np.testing.assert_allclose(found, expected.own[cell][:rows, :columns], atol=1e-4)
            np.testing.assert_allclose([*cross.sum((1, 2)), *own.sum((1, 2))], 1, atol=1e-5)


def test_attention_is_there_where_it_is_asked_for_only(engine: Engine) -> None:
    batch, thresholds = make_batch([fixed_picture(*SIZES[0])]), np.full(1, NO_MASKS, np.float32)
    assert engine.infer(batch, thresholds).attention is None
    assert engine.infer(batch, thresholds, attention=True).attention is not None


def test_the_answers_are_those_of_an_artifact_without(
    engine: Engine, small_network: DETRsegm, panoptic_artifact: Path
) -> None:
    without = open_engine(read_artifact(panoptic_artifact), engine.device, precision="float32", threads=1)
    batch, thresholds = make_batch([fixed_picture(*size) for size in SIZES]), np.full(3, ALL_MASKS, np.float32)
    found, expected = engine.infer(batch, thresholds, attention=True), without.infer(batch, thresholds, attention=True)
    assert expected.attention is None
    assert found.pred_masks is not None
    for name in ("pred_logits", "pred_boxes", "pred_masks"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)


def test_metadata_say_what_attention_is_made_of(artifact: Artifact) -> None:
    assert artifact.metadata.attention == AttentionShape(channels=SMALL.hidden_dim, heads=SMALL.nheads, stride=16)


def test_a_network_without_encoder_has_no_attention_to_export() -> None:
    with pytest.raises(ValueError, match="without encoder layers"):
        ServedNetwork(filled(replace(SMALL, encoder_layers=0)), attention=True)
