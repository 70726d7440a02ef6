"""A checkpoint's network as an engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import TorchEngine, run_torch, torch_device
from model.network.segmentation import DETRsegm
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import make_batch


def test_it_answers_as_the_network_does(small_network: DETRsegm) -> None:
    served = ServedNetwork(small_network)
    engine = TorchEngine(served)
    batch = make_batch([fixed_picture(64, 96), fixed_picture(50, 40)])
    thresholds = np.full(2, 0.1, np.float32)
    found, expected = engine.infer(batch, thresholds), run_torch(served, batch, thresholds)
    assert engine.device == "cpu"
    assert np.array_equal(found.pred_logits, expected.pred_logits)
    assert found.mask_index is not None
    assert expected.mask_index is not None
    assert np.array_equal(found.mask_index, expected.mask_index)


def test_tf32_is_off_while_it_runs_and_as_it_was_before_and_after(
    small_network: DETRsegm, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    cudnn = torch.backends.cudnn
    before = (cudnn.enabled, cudnn.allow_tf32)

    def run(*arguments: Any) -> RawOutputs:
        seen.append((cudnn.enabled, cudnn.allow_tf32))
        return run_torch(*arguments)

    monkeypatch.setattr("model.exporting.torch_engine.run_torch", run)
    TorchEngine(ServedNetwork(small_network)).infer(make_batch([fixed_picture(32, 32)]), np.zeros(1, np.float32))
    assert seen == [(before[0], False)]
    assert (cudnn.enabled, cudnn.allow_tf32) == before


def test_auto_takes_cuda_if_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=available: answer)
        assert torch_device("auto") == expected
    assert torch_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device cuda: torch finds no CUDA device"):
        torch_device("cuda")
    with pytest.raises(DeviceError, match="export it to evaluate it on openvino"):
        torch_device("openvino")
