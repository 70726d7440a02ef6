"""What it costs that a graph can give its attention, where nobody asks for it: both artifacts in turns, on each engine.

    python -m tests.benchmarks.attention WITH.onnx WITHOUT.onnx [ROUNDS]

The two are exports of one checkpoint, with `--attention` and without. The ratio of the medians is that of throughput.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import numpy as np

from model.runtime.artifact.file import read_artifact
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch, resize


def measure(paths: list[str], device: str, rounds: int) -> list[float]:
    """Median seconds of a picture of 480 x 640 pixels, for each artifact."""
    artifacts = [read_artifact(path) for path in paths]
    engines = [open_engine(artifact, device) for artifact in artifacts]
    batch = make_batch([resize(fixed_picture(480, 640), artifacts[0].metadata.resize)])
    seconds: list[list[float]] = [[] for _ in paths]
    for number in range(rounds + 2):
        for engine, taken in zip(engines, seconds, strict=True):
            started = time.perf_counter()
            engine.infer(batch, np.full(1, NO_MASKS, np.float32))
            if number >= 2:  # once it is warm
                taken.append(time.perf_counter() - started)
    return [median(taken) for taken in seconds]


if __name__ == "__main__":
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 50
    for name in ("cpu", "openvino"):
        with_attention, without = measure(sys.argv[1:3], name, count)
        ratio = without / with_attention
        print(f"{name}: {1e3 * with_attention:.2f} ms with, {1e3 * without:.2f} ms without, throughput x {ratio:.3f}")
