"""What several engines in one process gain: images a second with one and with several, in turns in one run.

    python -m tests.benchmarks.devices
    python -m tests.benchmarks.devices --in-process

The engine takes 20 ms for an image, each in a batch of its own, and no processor time, as a GPU. So what is measured is
what is around it: the one queue, and HTTP with its one event loop unless `--in-process` leaves that out. The clients
keep their connections; they are in this process, and take processor time of the same machine. Where other work has most
of it, that is the limit, and not the engines; so turns are short and many, and their median counts.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch
from service.batching.batcher import Batcher
from service.batching.limits import BatchLimits
from service.batching.waiting import EngineInput
from service.bench.load import BenchTarget, Request, closed_loop
from service.process.metrics import Metrics
from tests.reliability.scripted_engine import picture
from tests.server_process import ServerProcess, scripted
from tests.service.fakes import FakeEngine
from tests.tiny_artifact import write_tiny_artifact

Rate = Callable[[int, float], float]  # images a second, by clients and for so many seconds


def main() -> None:
    """Print a line for each number of clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--in-process", action="store_true")
    options = parser.parse_args()
    print(f"clients | images/s with 1 engine, with {options.engines}, ratio (median of the rounds', least, largest)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        artifact = write_tiny_artifact(folder / "tiny.onnx", "panoptic")
        rates: list[Rate] = []
        for engines in (1, options.engines):
            if options.in_process:
                rates.append(partial(rate_in_process, engines, options.delay_ms / 1000))
                continue
            words = ("--devices", f"cpu*{engines}", "--max-batch-size", "1")
            server = scripted(artifact, folder, *words, script={"delay_ms": options.delay_ms})
            rates.append(partial(rate_over_http, stack.enter_context(server)))
        for clients in options.clients:
            print(row(rates[0], rates[1], clients, options.rounds, options.seconds), flush=True)


def row(one: Rate, several: Rate, clients: int, rounds: int, seconds: float) -> str:
    """Both sides, in turns."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            pairs.append((one(clients, seconds), several(clients, seconds)))
        else:
            more = several(clients, seconds)
            pairs.append((one(clients, seconds), more))
    ratios = sorted(more / less for less, more in pairs)
    less, more = (median(rates) for rates in zip(*pairs, strict=True))
    return f"{clients} | {less:.1f}, {more:.1f}, {median(ratios):.2f} ({ratios[0]:.2f}, {ratios[-1]:.2f})"


def rate_over_http(server: ServerProcess, clients: int, seconds: float) -> float:
    """Answered requests a second."""
    request = Request(body=picture(1), content_type="image/png")
    target = BenchTarget.of(server.url)
    samples = asyncio.run(closed_loop(target, [request], clients=clients, seconds=seconds))
    assert {sample.status for sample in samples} == {200}
    return len(samples) / (max(sample.ended for sample in samples) - min(sample.started for sample in samples))


class SlowEngine(FakeEngine):
    """Takes a time for each batch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """See Engine."""
        time.sleep(self._seconds)
        return super().infer(batch, mask_threshold, attention)


class NoOwner:
    """Of engines that do not fail."""

    def reopen_engine(self, name: str) -> SlowEngine:
        """See EngineOwner."""
        raise AssertionError(name)

    def engine_lost(self) -> None:
        """See EngineOwner."""


def rate_in_process(engines: int, engine_seconds: float, clients: int, seconds: float) -> float:
    """Images a second that a batcher answers, without HTTP."""
    image = EngineInput(np.zeros((64, 64, 3), np.uint8), 0.5)

    async def play() -> float:
        opened = {str(number): SlowEngine(engine_seconds) for number in range(engines)}
        batcher = Batcher(opened, Metrics(), BatchLimits(1, 10**9), {}, NoOwner())
        began = time.monotonic()

        async def client() -> int:
            answered = 0
            while time.monotonic() - began < seconds:
                await batcher.submit(image, float("inf"))
                answered += 1
            return answered

        answered = sum(await asyncio.gather(*(client() for _ in range(clients))))
        took = time.monotonic() - began
        await batcher.close(1)
        return answered / took

    return asyncio.run(play())


if __name__ == "__main__":
    main()
