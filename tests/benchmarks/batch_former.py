"""How much a batch former that counts pixels gains over one that counts images, on simulated engines.

    python -m tests.benchmarks.batch_former [--json]

Both formers are the service's own (`plan_batch`), with the same arrivals, queue and number of images that a batch may
have; they differ in the latency line that they are given alone. The cost-aware one has the engine's own line; first
in, first out has the line of an engine that nobody measured, for which padding costs nothing. Time is simulated:
nothing sleeps, nothing is computed, and the numbers are the same on every machine.

Saturated, the queue is filled up to its bound after every batch. Loaded, pictures arrive at random (Poisson) at a
share of what first in, first out answers when saturated. Latency is from arrival to the end of the batch.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count

from model.runtime.resize_rule import Edges
from service.batching.former import QueuePlace, note_overtaken, plan_batch
from service.batching.latency_line import UNMEASURED, LatencyLine
from service.batching.limits import BatchLimits
from service.bench.pictures import COCO_SIZES
from service.settings import Settings

RULE = Edges(800, 1333)
# DETR R50 is published with 0.036 s for one picture on a V100 (README of facebookresearch/detr). Nothing is published
# on how that divides into fixed and per pixel, so half of it is taken, and the other shares are shown beside it.
ONE_IMAGE_S = 0.036
TYPICAL_PIXELS = 800 * 1088  # the commonest canvas of the mix
FIXED_SHARE = 0.5
FIXED_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75)
LOADS = (0.5, 0.7, 0.9)
FORMERS = ("first in, first out", "cost-aware")


@dataclass(frozen=True)
class Figures:
    """What one run came to."""

    former: str
    fixed_share: float  # of what one image costs, at any canvas
    load: float | None  # arrivals as a share of what first in, first out answers at most; None: saturated
    images_per_s: float
    batch_size: float  # mean
    padding_ratio: float  # share of all canvas pixels that no image fills
    p50_s: float
    p95_s: float
    p99_s: float


def engine_line(fixed_share: float) -> LatencyLine:
    """An engine that takes ONE_IMAGE_S for one typical image, and for all of it but the share more with each pixel."""
    return LatencyLine(ONE_IMAGE_S * fixed_share, ONE_IMAGE_S * (1 - fixed_share) / TYPICAL_PIXELS)


class Simulation:
    """One engine, one queue, and a clock that jumps from batch to batch."""

    def __init__(self, former: str, engine: LatencyLine, seed: int = 0) -> None:
        settings = Settings()
        self._random = random.Random(seed)
        self._engine = engine
        self._line = UNMEASURED if former == FORMERS[0] else engine
        self._limits = BatchLimits(settings.max_batch_size, max_batch_pixels=2**31)
        self._room = settings.max_batch_size + settings.max_queue_size  # images
        self._timeout = settings.request_timeout_ms / 1000
        self._queue: list[QueuePlace] = []
        self.now = 0.0
        self.latencies: list[float] = []  # seconds, of every image answered
        self.batch_sizes: list[int] = []
        self.padded = self.valid = 0  # pixels

    def saturate(self, images: int) -> None:
        """Answer so many images, with the queue always as long as it may be."""
        while len(self.latencies) < images:
            while len(self._queue) < self._room:
                self._arrive(self.now)
            self._run_batch()

    def load(self, images: int, rate: float) -> None:
        """Answer so many images that arrive at `rate` a second on average, whether or not there is room."""
        arrival = 0.0
        for _ in count():
            self.now = max(self.now, arrival) if not self._queue else self.now
            while arrival <= self.now:
                self._arrive(arrival)
                arrival += self._random.expovariate(rate)
            self._run_batch()
            if len(self.latencies) >= images:
                return

    def _arrive(self, at: float) -> None:
        (size,) = self._random.choices(list(COCO_SIZES), list(COCO_SIZES.values()))
        self._queue.append(QueuePlace(*RULE.size(*size), arrived=at, deadline=at + self._timeout))

    def _run_batch(self) -> None:
        plan = plan_batch(self._queue, self._line, self._limits, self.now)
        note_overtaken(self._queue, plan.members)
        gone = [self._queue[position] for position in plan.members]
        self._queue = [place for place in self._queue if place not in gone]
        self.now += self._engine.seconds(plan.pixels)
        self.latencies += [self.now - place.arrived for place in gone]
        self.batch_sizes.append(len(gone))
        self.padded += plan.pixels
        self.valid += sum(place.height * place.width for place in gone)


def simulate(former: str, fixed_share: float, load: float | None, images: int = 4000) -> Figures:
    """One former on one engine; `load` as in `Figures`."""
    engine = engine_line(fixed_share)
    simulation = Simulation(former, engine)
    if load is None:
        simulation.saturate(images)
    else:
        most = simulate(FORMERS[0], fixed_share, None, images).images_per_s
        simulation.load(images, load * most)
    latencies = sorted(simulation.latencies)
    p50, p95, p99 = (latencies[math.ceil(share * len(latencies)) - 1] for share in (0.5, 0.95, 0.99))
    throughput = len(latencies) / simulation.now
    batch_size = len(latencies) / len(simulation.batch_sizes)
    padding = 1 - simulation.valid / simulation.padded
    return Figures(former, fixed_share, load, throughput, batch_size, padding, p50, p95, p99)


def rows() -> Iterator[Figures]:
    """Every engine saturated, then the main one under rising load; the two formers in turns."""
    for fixed_share in FIXED_SHARES:
        yield from (simulate(former, fixed_share, None) for former in FORMERS)
    for load in LOADS:
        yield from (simulate(former, FIXED_SHARE, load) for former in FORMERS)


def print_table(found: list[Figures]) -> None:
    """Print the figures in Markdown, with each run's throughput over that of first in, first out."""
    print("| fixed share | load | former | images/s | ratio | images a batch | padding | p50 | p95 | p99 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for base, figures in zip([f for f in found[::2] for _ in range(2)], found, strict=True):
        load = "saturated" if figures.load is None else f"{figures.load:.1f}"
        milliseconds = " | ".join(f"{1000 * s:.0f} ms" for s in (figures.p50_s, figures.p95_s, figures.p99_s))
        print(
            f"| {figures.fixed_share:.2f} | {load} | {figures.former} | {figures.images_per_s:.1f} "
            f"| {figures.images_per_s / base.images_per_s:.2f} | {figures.batch_size:.1f} "
            f"| {figures.padding_ratio:.2f} | {milliseconds} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="compare batch formers on simulated engines")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    results = list(rows())
    if parser.parse_args().json:
        print(json.dumps([asdict(figures) for figures in results], indent=2))
    else:
        print_table(results)
