"""What decoding JPEGs at a reduced scale saves, and how far it moves detections.

    python -m tests.benchmarks.reduced_decode [--scenes 12] [--rounds 5]

First, milliseconds of processor time for decode and resize of one photo at the published network's size. Then the demo
model's detections in synthetic scenes drawn at several sizes: the largest and the median change of a confident query's
class probabilities and of its box (in thousandths of the photo's longer side), and how many detections appeared or
vanished at the default threshold. For scale, the same photos saved at JPEG quality 85 in place of 90.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.shapes.scene import draw_scene, sample_scene
from model.runtime.answers.detections import scored_boxes, softmax
from model.runtime.artifact.file import read_artifact
from model.runtime.decode import ImageLimits, decode_reduced
from model.runtime.engines.engine import Engine
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from model.runtime.preprocess import make_batch
from model.runtime.resize_rule import Edges
from service.images.prepare import ImageRules, prepare
from service.process.trace import Trace
from service.settings import DEMO_MODEL

PUBLISHED = Edges(800, 1333)
LIMITS = ImageLimits(max_pixels=50_000_000, max_side=16_384)
VALIDATION = 10_000_000  # scenes from this on were not trained with
SHORT_SIDES = (400, 480, 800, 1600)  # the demo model makes it 128, or less of a wide one


def photo(index: int, short_side: int, quality: int = 90) -> bytes:
    """A synthetic scene as a JPEG."""
    image = draw_scene(sample_scene(0, VALIDATION + index), short_side).image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def seconds(data: bytes, reduced: bool, rounds: int) -> float:
    """Median processor time of decode and resize."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        prepare(data, "image/jpeg", ImageRules(LIMITS, PUBLISHED, reduced), Trace())
        times.append(time.process_time() - began)
    return statistics.median(times)


@dataclass
class Changes:
    """How far answers moved, of all confident queries so far."""

    threshold: float
    probabilities: list[float] = field(default_factory=list)
    boxes: list[float] = field(default_factory=list)  # of the photo's longer side
    flips: int = 0

    def add(self, before: ImageOutputs, after: ImageOutputs, size: tuple[int, int]) -> None:
        """Compare two answers to one photo of a size (height, width)."""
        found = [scored_boxes(outputs.pred_logits, outputs.pred_boxes, size) for outputs in (before, after)]
        confident = found[0].scores > self.threshold
        self.flips += int((confident != (found[1].scores > self.threshold)).sum())
        probability = np.abs(softmax(after.pred_logits) - softmax(before.pred_logits)).max(axis=1)
        side = np.abs(found[1].boxes_xyxy - found[0].boxes_xyxy).max(axis=1) / max(size)
        self.probabilities += probability[confident].tolist()
        self.boxes += side[confident].tolist()

    def __str__(self) -> str:
        spread = [
            f"{scale * max(values):.2g} | {scale * statistics.median(values):.1g}"
            for values, scale in ((self.probabilities, 1), (self.boxes, 1000))
        ]
        return f"{spread[0]} | {spread[1]} | {self.flips} of {len(self.boxes)}"


def infer(engine: Engine, image: NDArray[np.uint8]) -> ImageOutputs:
    """Boxes of one resized image."""
    return engine.infer(make_batch([image]), np.array([NO_MASKS], dtype=np.float32)).image(0)


def changes(scenes: int) -> Iterator[tuple[int, int, Changes, Changes]]:
    """Short side, scale of the decoder, and how far the reduced decode and a little more compression move answers."""
    artifact = read_artifact(DEMO_MODEL)
    engine, rule, threshold = open_engine(artifact, "cpu"), artifact.metadata.resize, artifact.metadata.detect_threshold
    for short_side in SHORT_SIDES:
        reduced, compressed = Changes(threshold), Changes(threshold)
        scale = 1
        for index in range(scenes):
            data = photo(index, short_side)
            scale = round(short_side / min(decode_reduced(data, LIMITS, rule).image.shape[:2]))
            whole, less = (prepare(data, "image/jpeg", ImageRules(LIMITS, rule, way), Trace()) for way in (False, True))
            other = prepare(photo(index, short_side, 85), "image/jpeg", ImageRules(LIMITS, rule), Trace())
            outputs = infer(engine, whole.resized)
            reduced.add(outputs, infer(engine, less.resized), whole.orig_size)
            compressed.add(outputs, infer(engine, other.resized), whole.orig_size)
        yield short_side, scale, reduced, compressed


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print("| photo | whole, ms | reduced, ms | ratio |\n| --- | --- | --- | --- |")
    for short_side in (1200, 1600, 2400, 3000, 4000):
        data = photo(1, short_side)
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        whole, reduced = (1000 * seconds(data, way, args.rounds) for way in (False, True))
        print(f"| {width} x {height} | {whole:.0f} | {reduced:.0f} | {whole / reduced:.1f} |", flush=True)
    print(
        "\n| short side | changed | decoder's scale | probability, largest | median | box, largest | median | flips |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for short_side, scale, reduced_changes, compressed in changes(args.scenes):
        print(f"| {short_side} | reduced decode | 1/{scale} | {reduced_changes} |")
        print(f"| {short_side} | quality 85 | 1 | {compressed} |", flush=True)


if __name__ == "__main__":
    main()
