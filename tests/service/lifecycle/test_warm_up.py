"""Tests of what is held of an engine's batches before any ran."""

from __future__ import annotations

import pytest

from service.batching.former import QueuePlace, plan_batch
from service.batching.limits import BatchLimits
from service.lifecycle.loading import LoadedModel
from service.lifecycle.warm_up import assumed_lines
from service.settings import Settings
from tests.service.fakes import FakeEngine
from tests.tiny_artifact import tiny_metadata


@pytest.mark.parametrize(
    ("device", "side", "share"),
    [("openvino", 128, 8), ("openvino", 1024, 1), ("cpu", 128, 8), ("cuda", 128, 8), ("cuda", 1024, 8)],
)
@pytest.mark.parametrize("threads", [1, 4])
def test_unmeasured_engines_share_batches_where_that_saves_something(
    device: str, side: int, share: int, threads: int
) -> None:
    engine = FakeEngine()
    engine.device = device
    model = LoadedModel(tiny_metadata(), {device: engine}, "digest")
    line = assumed_lines(model, Settings(model="a", engine_threads=threads))[device]
    waiting = [QueuePlace(side, side, 0.0, 100.0, 32) for _ in range(20)]
    plan = plan_batch(waiting, line, BatchLimits(8, 12_000_000, 0.0, 32), 0.0)
    assert len(plan.members) == share
