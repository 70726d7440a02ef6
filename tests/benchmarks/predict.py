"""`detr predict` over a folder beside the bare engine, in turns: python -m tests.benchmarks.predict [--pictures 1000].

Every fiftieth file is broken, and files of one name lie in ten sub-folders. Both sides run in this process; seconds of
the processor are told beside those of the clock, because other work on the machine disturbs them less.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from model.runtime.preprocess import make_batch
from service import cli
from service.bench.pictures import synthetic_pictures
from service.images.answers import TASKS
from service.images.prepare import ImageRules, prepare
from service.lifecycle.loading import ArtifactLoader, LoadedModel, load_model
from service.process.memory import resident_bytes
from service.process.trace import Trace
from service.settings import read_settings

_DIFFERENT = 64


def main() -> None:
    """Print a line for each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    model, pictures = load_model(read_settings({})), synthetic_pictures(_DIFFERENT, args.scale)
    with (
        patch.object(ArtifactLoader, "load", lambda _: model),  # loaded once, so that both sides are warm
        TemporaryDirectory() as name,
    ):
        folder = Path(name) / "pictures"
        for number in range(args.pictures):
            place = folder / str(number % 10)
            place.mkdir(parents=True, exist_ok=True)
            data = b"broken" if number % 50 == 7 else pictures[number % _DIFFERENT]
            (place / f"{number // 10}.jpg").write_bytes(data)
        for turn in range(args.turns):
            for task in TASKS:
                bare = _seconds(lambda task=task: _bare(model, pictures, task, args.pictures))  # type: ignore[misc]
                out = Path(name) / "out.json"
                words = ["predict", str(folder), "--recursive", "--task", task, "--json", str(out)]
                with redirect_stderr(io.StringIO()) as told:
                    predict = _seconds(lambda words=words: cli.main(words))  # type: ignore[misc]
                answers, lines = len(json.loads(out.read_text())), len(told.getvalue().splitlines())
                share = answers / args.pictures  # of the pictures that the bare engine ran
                print(
                    f"turn {turn} {task}: {answers} answers, {lines} lines; throughput of predict ÷ bare "
                    f"{share * bare[0] / predict[0]:.3f} by the clock, {share * bare[1] / predict[1]:.3f} by the "
                    f"processor; {(resident_bytes() or 0) / 1e6:.0f} MB",
                    flush=True,
                )


def _bare(model: LoadedModel, pictures: list[bytes], task: str, count: int) -> None:
    """The engine alone, one prepared picture after the other."""
    threshold = TASKS[task].of(model.metadata, None).mask_threshold  # type: ignore[index]
    batches = [
        make_batch([prepare(picture, "", ImageRules.of(read_settings({}), model.metadata), Trace()).resized], 32)
        for picture in pictures
    ]
    for number in range(count):
        model.engine.infer(batches[number % len(batches)], np.full(1, threshold, dtype=np.float32))


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


if __name__ == "__main__":
    main()
