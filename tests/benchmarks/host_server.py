"""The real service with an engine of a given latency that takes no processor time, for `tests.benchmarks.host_path`.

    python tests/benchmarks/host_server.py --port 0 --latency-ms 0 --report-fd N

It says what DETR R50 would say of a picture of 15 regions with wavy outlines, made once for each canvas. Each line over
the inherited socket is answered by a line of JSON: seconds of processor time by thread and by stage, until now. It is
run as a file, so that it serves whichever checkout it is started in.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.artifact.metadata import FORMAT_VERSION, Metadata
from model.runtime.categories import Category
from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import CANVAS_MULTIPLE, Batch
from model.runtime.resize_rule import Edges
from service.lifecycle.loading import LoadedModel
from service.process.trace import Stage, Trace
from service.server import run
from service.settings import read_settings

QUERIES, CLASSES, STRIDE = 100, 250, 4  # of DETR R50 panoptic
COLUMNS, ROWS = 5, 3  # of regions


def metadata() -> Metadata:
    """Those of R50, but for its classes' names."""
    return Metadata(
        format_version=FORMAT_VERSION,
        name="host-path",
        task="panoptic",
        categories=tuple(Category(n + 1, f"class {n + 1}", n < 91, (n, n, n)) for n in range(CLASSES)),
        num_queries=QUERIES,
        resize=Edges(800, 1333),
        canvas_multiple=CANVAS_MULTIPLE,
        mask_stride=STRIDE,
        detect_threshold=0.5,
        segment_threshold=0.5,
        padding="exact",
        provenance={},
    )


class FreeEngine:
    """Answers every picture alike, after a while in which it sleeps."""

    device = "cpu"
    precision = "float32"

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._made: dict[tuple[int, ...], RawOutputs] = {}

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """See Engine."""
        masked = tuple(int(threshold < 1) for threshold in mask_threshold)
        key = (*batch.padding_mask.shape[1:], *masked)
        if key not in self._made:
            self._made[key] = outputs(batch.padding_mask.shape[1:], masked)
        if self._latency_s:
            time.sleep(self._latency_s)
        return self._made[key]


def outputs(canvas: tuple[int, ...], masked: tuple[int, ...]) -> RawOutputs:
    """What is said of pictures on a canvas (height, width), with masks of some of them."""
    count = COLUMNS * ROWS
    logits = np.zeros((len(masked), QUERIES, CLASSES + 1), dtype=np.float32)
    logits[:, :, -1] = 12
    queries = np.arange(count) * 6
    logits[:, queries, -1] = 0
    logits[:, queries, np.arange(count) * 13] = 12  # half are things
    boxes = np.random.default_rng(0).uniform(0.2, 0.4, (QUERIES, 4)).astype(np.float32)
    images = np.flatnonzero(masked)
    masks = np.tile(wavy_masks(canvas[0] // STRIDE, canvas[1] // STRIDE), (len(images), 1, 1))
    index = [(image, query) for image in images for query in queries]
    return RawOutputs(logits, np.stack([boxes] * len(masked)), masks, np.array(index, dtype=np.int64).reshape(-1, 2))


def wavy_masks(height: int, width: int) -> NDArray[np.float32]:
    """Mask logits [15, height, width] of regions side by side, whose outlines are waves of several lengths."""
    ys, xs = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [(a * np.sin(f * ys + 1), a * np.sin(f * xs + 2)) for a, f in ((0.03, 25), (0.012, 80), (0.006, 190))]
    xs, ys = xs + sum(dx for dx, _ in waves), ys + sum(dy for _, dy in waves)
    centres = [((x + 0.5) / COLUMNS, (y + 0.5) / ROWS) for y in range(ROWS) for x in range(COLUMNS)]
    planes = [9 - 40 * ((xs - x) ** 2 * COLUMNS + (ys - y) ** 2 * ROWS) for x, y in centres]
    return np.stack(planes).astype(np.float32)


class FreeLoader:
    """A ModelLoader of the engine above."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def load(self) -> LoadedModel:
        """See ModelLoader."""
        # A checkout from before there could be several engines has just the one.
        has_several = "engines" in {field.name for field in fields(LoadedModel)}
        engines: Any = {self._engine.device: self._engine} if has_several else self._engine
        return LoadedModel(metadata(), engines, "0" * 64)

    def reopen(self, digest: str, name: str = "") -> Engine:
        """See ModelLoader."""
        return self._engine


class StageClock:
    """Processor time by stage, of the threads that do them."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def watch(self) -> None:
        """Have every stage of every trace counted here from now on."""
        stage, seconds = Trace.stage, self.seconds

        @contextmanager
        def counted(trace: Trace, name: Stage) -> Iterator[None]:
            began = time.thread_time()
            try:
                with stage(trace, name):
                    yield
            finally:
                seconds[name] += time.thread_time() - began

        Trace.stage = counted  # type: ignore[assignment, method-assign]


def thread_seconds() -> dict[str, float]:
    """Processor time by the names of this process's threads, without their numbers, and of the whole process."""
    found: defaultdict[str, float] = defaultdict(float)
    for thread in threading.enumerate():
        name = "event loop" if thread is threading.main_thread() else thread.name.split("_")[0]
        ran, _, _ = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()
        found[name] += int(ran) / 1e9
    return {**found, "process": time.process_time()}


def report(connection: socket.socket, stages: StageClock) -> None:
    """Answer each line until the other end is closed."""
    with connection.makefile("rw", encoding="utf-8") as lines:
        for _ in lines:
            lines.write(json.dumps({"threads": thread_seconds(), "stages": stages.seconds}) + "\n")
            lines.flush()


def main() -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", required=True)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--report-fd", type=int, required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the service")
    args = parser.parse_args()
    stages = StageClock()
    stages.watch()
    connection = socket.socket(fileno=args.report_fd)
    threading.Thread(target=report, args=(connection, stages), daemon=True, name="report").start()
    given = dict(each.split("=", 1) for each in args.set)
    # The model is not read; its name is needed.
    # On a machine that is busy with other work a large photo can wait longer for its answer than it may elsewhere.
    settings = read_settings(
        {"model": "host-path", "port": args.port, "batch_timing_ms": "0", "request_timeout_ms": "60000"} | given
    )
    return run(settings, FreeLoader(FreeEngine(args.latency_ms / 1000)))


if __name__ == "__main__":
    sys.exit(main())
