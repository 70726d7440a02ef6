"""What each engine and precision does to the answers, and to the time.

    python -m tests.benchmarks.precision --root datasets/shapes [--model FILE] [--other FILE ...] [--pictures 96]

Every engine that runs here answers pictures of the data set alone, and again in batches of 8 of unequal sizes. Printed
are the worst difference and the 99th percentile of scores (the probability of the best class, of every query) and of
boxes (pixels of the network's input, of the queries above the threshold), against ONNX Runtime in float32 and between
alone and in a batch; AP and, of a panoptic model, PQ over the whole split; and the time of an inference as a share of
ONNX Runtime's in float32, the median of interleaved rounds. `--other` adds files of the same network, such as an int8
one. A float16 copy of the model is made on the spot.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from model.data.evaluation_set import EvaluationSet
from model.data.formats.folders import find_split, open_dataset
from model.evaluate import EvaluatedModel, evaluate
from model.exporting.float16 import to_float16
from model.runtime.answers.detections import softmax
from model.runtime.artifact.file import Artifact, read_artifact
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import Engine
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from model.runtime.preprocess import make_batch
from service.settings import DEMO_MODEL

Picture = NDArray[np.uint8]  # [h, w, 3], RGB, resized
COMPANY = 8
DEVICES = ("cpu", "openvino", "cuda", "tensorrt")


@dataclass(frozen=True)
class Difference:
    """Between two sets of answers to the same pictures."""

    scores: NDArray[np.float32]  # of every query
    pixels: NDArray[np.float32]  # of every confident query

    def __str__(self) -> str:
        """The worst, and the 99th percentile."""
        return " | ".join(
            f"{values.max():.4f}, {np.quantile(values, 0.99):.4f}" for values in (self.scores, self.pixels)
        )


def candidates(artifacts: Sequence[Artifact]) -> Iterator[tuple[Artifact, str, str]]:
    """Every artifact, device and precision that may run here; ONNX Runtime in float32 is the first."""
    first = artifacts[0]
    low = to_float16(onnx.load_from_string(first.data)).SerializeToString()
    stored = replace(first, data=low, metadata=replace(first.metadata, precision="float16"))
    for device in DEVICES:
        for precision in ("float32", "bfloat16"):
            yield first, device, precision
        for artifact in (stored, *artifacts[1:]):
            yield artifact, device, "auto"


def engines(artifacts: Sequence[Artifact]) -> Iterator[tuple[Artifact, Engine]]:
    """Those that open and replay their golden sample."""
    for artifact, device, precision in candidates(artifacts):
        try:
            engine = open_engine(artifact, device, precision=precision)
        except DeviceError as error:
            print(f"left out: {error}\n")
            continue
        replay_golden(engine, artifact)
        yield artifact, engine


def answers(engine: Engine, pictures: Sequence[Picture], company: int) -> list[ImageOutputs]:
    """To each picture, in batches of so many."""
    found = []
    for start in range(0, len(pictures), company):
        group = pictures[start : start + company]
        outputs = engine.infer(make_batch(group), np.full(len(group), NO_MASKS, np.float32))
        found += [outputs.image(index) for index in range(len(group))]
    return found


def difference(
    pictures: Sequence[Picture], a: Sequence[ImageOutputs], b: Sequence[ImageOutputs], threshold: float
) -> Difference:
    """Between answers to the same pictures."""
    scores, pixels = [], []
    for picture, one, other in zip(pictures, a, b, strict=True):
        of_one, of_other = (softmax(outputs.pred_logits)[:, :-1] for outputs in (one, other))
        scores.append(np.abs(of_one - of_other).max(-1))
        height, width = picture.shape[:2]
        sides = np.abs(one.pred_boxes - other.pred_boxes) * np.array([width, height, width, height], np.float32)
        pixels.append(sides.max(-1)[of_one.max(-1) > threshold])
    return Difference(np.concatenate(scores), np.concatenate(pixels))


def seconds(running: Sequence[Engine], pictures: Sequence[Picture], rounds: int) -> list[float]:
    """Median time of a picture alone, of each engine; interleaved, so that a busy machine is busy for all."""
    times: list[list[float]] = [[] for _ in running]
    for turn in range(rounds + 1):
        for engine, own in zip(running, times, strict=True):
            began = time.perf_counter()
            answers(engine, pictures, 1)
            if turn > 0:
                own.append((time.perf_counter() - began) / len(pictures))
    return [statistics.median(own) for own in times]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", type=Path, default=DEMO_MODEL)
    parser.add_argument("--other", type=Path, nargs="*", default=[])
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-figures", action="store_true", help="leave AP and PQ out")
    args = parser.parse_args()
    artifacts = [read_artifact(path) for path in (args.model, *args.other)]
    metadata = artifacts[0].metadata
    data = EvaluationSet(open_dataset(args.data, args.root, args.split, masks=False), metadata.resize)
    pictures = [data[index][1] for index in range(min(args.pictures, len(data)))]
    running = list(engines(artifacts))
    times = seconds([engine for _, engine in running], pictures[:COMPANY], args.rounds)
    truth = answers(running[0][1], pictures, 1)
    print("| engine | computed in | scores | boxes, px | scores, in a batch | boxes, px | figures | time |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (artifact, engine), own in zip(running, times, strict=True):
        alone = answers(engine, pictures, 1)
        off = difference(pictures, truth, alone, metadata.detect_threshold)
        moved = difference(pictures, alone, answers(engine, pictures, COMPANY), metadata.detect_threshold)
        figures = "" if args.no_figures else figures_of(EvaluatedModel(engine, artifact.metadata), args)
        print(
            f"| {engine.device} | {engine.precision} | {off} | {moved} | {figures} | {own / times[0]:.2f} |", flush=True
        )


def figures_of(loaded: EvaluatedModel, args: argparse.Namespace) -> str:
    """AP, and PQ where there are masks."""
    found = evaluate(loaded, find_split(args.data, args.root, args.split)).figures()
    return ", ".join(f"{name} {found[name]:.4f}" for name in ("AP", "PQ") if name in found)


if __name__ == "__main__":
    main()
