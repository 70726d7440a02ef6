"""What a panoptic answer costs after the network, for a 12-megapixel photo.

    python -m tests.benchmarks.panoptic [--segments 15] [--rounds 5]

Each stage is timed beside the plain way to do it: every mask upsampled (torch), the map of their argmax resized, and
one array of the photo's size for each segment, as in the published implementation; pycocotools on each mask; Pillow's
PNG. Both give the same answer, which is checked. Times are medians, in milliseconds of processor time and, in brackets,
of the clock. Memory is how far the peak of a process of its own rises above what it held with the inputs made.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.panoptic import PanopticResult, panoptic
from model.runtime.answers.segment_codec import RLE, encode_rles, id_png
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import ImageOutputs
from service.schemas import ImageSize, SegmentResponse
from tests.coco_segments import encode_rle, read_id_png

SIZE, PHOTO, STRIDE = (800, 1066), (3000, 4000), 4
CATEGORIES = tuple(Category(n, str(n), n < 20, (n, n, n)) for n in range(40))

Stage = Callable[[], Any]


@dataclass
class Scene:
    """What the network says about a photo: round regions with ragged edges."""

    logits: NDArray[np.float32]  # [k, 41]
    masks: NDArray[np.float32]  # [k, 200, 267]

    @classmethod
    def of(cls, count: int) -> Scene:
        """A scene of `count` queries, all of them sure of themselves."""
        rng = np.random.default_rng(0)
        height, width = (-(-side // STRIDE) for side in SIZE)
        ys, xs = np.mgrid[:height, :width]
        masks = []
        for y, x in rng.uniform(0, 1, (count, 2)) * (height, width):
            rough = Image.fromarray(rng.normal(0, 1.5, (50, 67)).astype(np.float32))
            ragged = np.asarray(rough.resize((width, height), Image.Resampling.BILINEAR))
            masks.append(8 - ((ys - y) ** 2 + (xs - x) ** 2) / 900 + ragged)
        logits = np.zeros((count, len(CATEGORIES) + 1), dtype=np.float32)
        logits[np.arange(count), np.arange(count) % len(CATEGORIES)] = 8
        return cls(logits, np.stack(masks).astype(np.float32))

    def segments(self) -> PanopticResult:
        """The product's way."""
        queries = np.arange(len(self.logits))
        boxes = np.zeros((len(queries), 4), dtype=np.float32)
        outputs = ImageOutputs(self.logits, boxes, self.masks, queries)
        return panoptic(outputs, SIZE, PHOTO, CATEGORIES, 0.5, STRIDE)

    def plain_segments(self) -> tuple[NDArray[np.int32], list[int], list[list[int]]]:
        """Id map of the photo, areas, and boxes (xyxy)."""
        planes = torch.nn.functional.interpolate(torch.from_numpy(self.masks)[:, None], SIZE, mode="bilinear")
        small = planes[:, 0].argmax(0).numpy().astype(np.int32) + 1
        id_map = np.asarray(Image.fromarray(small).resize(PHOTO[::-1], Image.Resampling.NEAREST))
        masks = [id_map == number for number in range(1, len(self.logits) + 1)]
        boxes = []
        for mask in masks:
            ys, xs = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            boxes.append([int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1])
        return id_map, [int(mask.sum()) for mask in masks], boxes


def plain_png(id_map: NDArray[np.int32]) -> bytes:
    """Pillow's PNG of the ids, with its defaults."""
    rgb = np.stack([id_map >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG")
    return buffer.getvalue()


def respond(png: bytes) -> bytes:
    """The answer's JSON, but for its few numbers."""
    text = base64.b64encode(png).decode("ascii")
    size = ImageSize(width=PHOTO[1], height=PHOTO[0])
    return SegmentResponse(model="model", image=size, segments=[], panoptic_png=text).model_dump_json().encode()


def ways(count: int) -> dict[str, tuple[Stage, Stage]]:
    """Each stage, the product's way and the plain way; checked to agree."""
    scene = Scene.of(count)
    found, id_map = scene.segments(), scene.plain_segments()[0]
    # But for pixels where two masks are equal to within rounding.
    assert len(found.segments) == count
    assert (found.id_map != id_map).mean() < 1e-5
    id_map = found.id_map
    numbers = range(1, count + 1)

    def plain_rles() -> list[RLE]:
        return [encode_rle(id_map == number) for number in numbers]

    assert encode_rles(found.ids, numbers) == plain_rles()
    png = id_png(found.ids)
    assert (read_id_png(png) == id_map).all()
    print(f"The PNG has {len(png):,} bytes, the plain one {len(plain_png(id_map)):,}.\n")
    return {
        "segments": (scene.segments, scene.plain_segments),
        "run lengths": (lambda: encode_rles(found.ids, numbers), plain_rles),
        "PNG": (lambda: id_png(found.ids), lambda: plain_png(id_map)),
        "JSON": (lambda: respond(png), lambda: respond(png)),
    }


def milliseconds(stage: Stage, rounds: int) -> tuple[float, float]:
    """Median processor time and clock time."""
    cpu, wall = [], []
    for _ in range(rounds):
        began = time.process_time(), time.perf_counter()
        stage()
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    return 1000 * statistics.median(cpu), 1000 * statistics.median(wall)


def answer(count: int, way: str) -> float:
    """Make a whole answer in this process, and return by how many megabytes its peak rose."""
    scene = Scene.of(count)
    ctypes.CDLL(None).malloc_trim(
        0
    )  # gives back what the scene's making left free, which would otherwise be used unseen
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, which the imports made
    before = resident("VmRSS")
    if way == "product":
        found = scene.segments()
        encode_rles(found.ids, range(1, count + 1))
        respond(id_png(found.ids))
    else:
        id_map, _, _ = scene.plain_segments()
        for number in range(1, count + 1):
            encode_rle(id_map == number)
        respond(plain_png(id_map))
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """Megabytes of this process in memory: VmRSS now, VmHWM at the most (Linux, proc_pid_status(5))."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


def megabytes(count: int, way: str) -> float:
    """The same in a process of its own, so that nothing was there before."""
    command = [sys.executable, "-m", "tests.benchmarks.panoptic", "--segments", str(count), "--peak", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print the tables, or with --peak one number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", choices=("product", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(answer(args.segments, args.peak))
        return
    rows = [(name, *(milliseconds(way, args.rounds) for way in both)) for name, both in ways(args.segments).items()]
    totals = [tuple(sum(part) for part in zip(*column, strict=True)) for column in list(zip(*rows, strict=True))[1:]]
    print("| stage | ms | plain, ms | ratio |\n| --- | --- | --- | --- |")
    for name, ours, plain in [*rows, ("all", *totals)]:
        ratio = plain[0] / ours[0]
        print(f"| {name} | {ours[0]:.1f} ({ours[1]:.0f}) | {plain[0]:.1f} ({plain[1]:.0f}) | {ratio:.1f} |")
    peaks = [megabytes(args.segments, way) for way in ("product", "plain")]
    print(f"| peak memory, MB | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] / peaks[0]:.1f} |")


if __name__ == "__main__":
    main()
