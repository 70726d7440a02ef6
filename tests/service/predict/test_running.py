"""Pictures on the service's way without a server: which share batches, and what comes of those that cannot be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from model.runtime.artifact.metadata import Padding
from model.runtime.engines.engine import Engine
from service.batching.latency_line import UNMEASURED, LatencyLine
from service.errors import EngineRestartError
from service.images.answers import DetectTask
from service.images.prepare import ImageRules
from service.images.task import Prepared
from service.lifecycle.loading import LoadedModel
from service.predict.pictures import Answered, Failed, Outcome, RunPicture
from service.predict.running import PictureRunner
from service.process.trace import Trace
from service.settings import Settings
from tests.processes import until
from tests.service.fakes import FakeEngine
from tests.tiny_artifact import tiny_metadata

TASK = DetectTask(0.5)


@dataclass
class Red:
    """A picture that the engine knows by its red, of (height, width) pixels."""

    red: int
    size: tuple[int, int] = (64, 64)
    error: Exception | None = None

    def prepare(self, rules: ImageRules, trace: Trace, *, draws: bool) -> Prepared:
        if self.error is not None:
            raise self.error
        return Prepared(self.size, np.full((*self.size, 3), self.red, np.uint8), None)


class NoLoader:
    """Of an engine that can be opened only once."""

    def load(self) -> LoadedModel:
        raise AssertionError

    def reopen(self, digest: str, name: str) -> Engine:
        raise RuntimeError("it does not open")


def runner_of(
    engine: FakeEngine,
    line: LatencyLine = UNMEASURED,
    padding: Padding = "exact",
    max_batch_pixels: int = 12_000_000,
) -> PictureRunner:
    model = LoadedModel(replace(tiny_metadata(), padding=padding), {"fake": engine}, "digest")
    given = Settings(max_batch_size=3, cpu_threads=1, max_batch_pixels=max_batch_pixels)
    return PictureRunner(model, {"fake": line}, given, NoLoader())


def red_of(run: RunPicture[Red]) -> int:
    return round(float(run.outputs.pred_boxes[0, 0]) * 255)


def reds(outcomes: list[Outcome[Red, int]]) -> list[int]:
    """What was answered, each checked to be of its own picture."""
    answered = [outcome for outcome in outcomes if isinstance(outcome, Answered)]
    assert all(outcome.answer == outcome.picture.red for outcome in answered)
    return [outcome.answer for outcome in answered]


SQUARE, WIDE = (64, 64), (64, 96)
# Whose batches save less than it costs to lay a square on a wide canvas.
DEAR = LatencyLine(fixed=1e-3, per_pixel=1e-6)


@pytest.mark.parametrize(
    ("sizes", "line", "settings", "batches"),
    [
        ([SQUARE, WIDE, SQUARE, SQUARE, WIDE, SQUARE, SQUARE], DEAR, {}, [[1], [2, 5], [3, 4, 6], [7]]),
        ([SQUARE, WIDE, SQUARE, SQUARE], UNMEASURED, {}, [[1], [2, 3, 4]]),
        ([SQUARE] * 4, LatencyLine(0.0, 1e-6), {}, [[1], [2], [3], [4]]),
        ([SQUARE] * 5, UNMEASURED, {"max_batch_pixels": 2 * 64 * 64}, [[1], [2, 3], [4, 5]]),
        ([(64, 80), (64, 70), (64, 80), (64, 70)], UNMEASURED, {"padding": "published"}, [[1], [2, 4], [3]]),
    ],
)
def test_pictures_share_batches_as_in_the_service(
    sizes: list[tuple[int, int]], line: LatencyLine, settings: dict[str, Any], batches: list[list[int]]
) -> None:
    engine = FakeEngine()
    with closing(runner_of(engine, line, **settings)) as runner:
        engine.hold()
        pictures = [Red(red, size) for red, size in enumerate(sizes, start=1)]
        outcomes = runner.run(release_when_queued(pictures, runner, engine), TASK, red_of, in_order=True)
        assert reds(list(outcomes)) == list(range(1, len(sizes) + 1))
    assert engine.batches == batches


def release_when_queued(pictures: list[Red], runner: PictureRunner, engine: FakeEngine) -> Iterator[Red]:
    """The pictures; once the first is in the engine and all others wait for it, it goes on."""
    yield pictures[0]
    until(lambda: engine.batches == [[1]])
    yield from pictures[1:]
    registry = runner.service.metrics.registry
    until(lambda: registry.get_sample_value("detr_queue_depth") == len(pictures) - 1)
    engine.release()


def test_what_cannot_be_used_is_told_of_and_the_rest_is_answered() -> None:
    engine = FakeEngine()
    engine.poison = {4}
    pictures = [Red(1), Red(2, error=OSError(2, "it is gone")), Red(3, error=KeyError("odd")), Red(4), Red(5)]
    with closing(runner_of(engine)) as runner:
        outcomes = list(runner.run(pictures, TASK, red_of))
    assert sorted(reds(outcomes)) == [1, 5]
    failed = {outcome.picture.red: outcome.error for outcome in outcomes if isinstance(outcome, Failed)}
    assert {red: type(error).__name__ for red, error in failed.items()} == {
        2: "FileNotFoundError", 3: "KeyError", 4: "EngineError",
    }  # fmt: skip


def test_a_picture_comes_as_soon_as_it_is_done_and_while_the_next_is_waited_for() -> None:
    def slowly() -> Iterator[Red]:
        yield Red(1)
        until(lambda: bool(taken))
        yield Red(2)

    taken: list[int] = []
    with closing(runner_of(FakeEngine())) as runner:
        for outcome in runner.run(slowly(), TASK, red_of):
            taken += reds([outcome])
    assert taken == [1, 2]


def test_pictures_before_one_that_cannot_be_had_are_answered() -> None:
    def broken() -> Iterator[Red]:
        yield Red(1)
        raise ValueError("there is no more")

    taken: list[Outcome[Red, int]] = []
    with closing(runner_of(FakeEngine())) as runner, pytest.raises(ValueError, match="no more"):
        taken.extend(runner.run(broken(), TASK, red_of))
    assert reds(taken) == [1]


def test_pictures_of_several_callers_share_batches() -> None:
    engine = FakeEngine()
    with closing(runner_of(engine)) as runner:
        runs = [runner.run([Red(red), Red(red + 1)], TASK, red_of) for red in (1, 3)]
        found = [next(run) for run in runs for _ in range(2)]
    assert sorted(reds(found)) == [1, 2, 3, 4]


def test_no_more_is_begun_than_there_is_room_for_whoever_takes_the_outcomes() -> None:
    begun: list[int] = []

    def noted() -> Iterator[Red]:
        for red in range(1, 101):
            begun.append(red)
            yield Red(red)

    with closing(runner_of(FakeEngine())) as runner:
        run = runner.run(noted(), TASK, red_of)
        next(run)
        time.sleep(0.2)
        assert len(begun) <= 1 + 3 * 3 + 2, "one thread, three batches, one that is taken and one that is next"
        assert len(reds([*run])) == 99


def test_an_engine_that_is_lost_ends_the_run_and_is_no_fault_of_the_pictures_that_wait() -> None:
    engine = FakeEngine()
    engine.poison = set(range(11, 100))
    with closing(runner_of(engine)) as runner:
        outcomes: list[Outcome[Red, int]] = []
        with pytest.raises(EngineRestartError, match="the engine is lost"):
            outcomes.extend(runner.run(map(Red, range(1, 100)), TASK, red_of))
        with pytest.raises(EngineRestartError):
            next(runner.run([Red(1)], TASK, red_of))
    assert sorted(reds(outcomes)) == list(range(1, 11))
    assert len(outcomes) - 10 <= 8, "which failed one after the other until it was given up"
