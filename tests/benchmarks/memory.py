"""How much memory an image takes while it is decoded and answered: what `service/process/memory_budget.py` counts on.

    python -m tests.benchmarks.memory

Each case runs in a process of its own, and is the peak of its resident memory above what it had before, in bytes a
pixel of the photo.
"""

from __future__ import annotations

import io
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from model.runtime.artifact.metadata import FORMAT_VERSION, Metadata
from model.runtime.categories import Category
from model.runtime.decode import ImageLimits, decode
from model.runtime.engines.raw_outputs import ImageOutputs
from model.runtime.resize_rule import Edges
from service.images.answers import DetectTask, SegmentTask
from service.images.prepare import ImageRules, prepare
from service.images.task import Prepared
from service.process.memory import configure_malloc
from service.process.trace import Trace

WIDTH, HEIGHT = 8_000, 6_000  # pixels
LIMITS = ImageLimits(WIDTH * HEIGHT, WIDTH)
RULE = Edges(800, 1333)
QUERIES, STRIDE = 100, 4
EXIF_TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def photo() -> Image.Image:
    """Something that compresses like a photo: smooth, with noise."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (HEIGHT // 40, WIDTH // 40, 3), dtype=np.uint8))
    return small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def uploads() -> dict[str, Callable[[], bytes]]:
    """Bytes of one photo in many forms, by name."""

    def saved(image_format: str, mode: str = "RGB", **options: object) -> Callable[[], bytes]:
        def save() -> bytes:
            buffer = io.BytesIO()
            photo().convert(mode).save(buffer, image_format, **options)
            return buffer.getvalue()

        return save

    def gray16() -> bytes:
        buffer = io.BytesIO()
        gray = np.asarray(photo().convert("L")).astype(np.uint16) * 257
        Image.fromarray(gray).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def transparent_palette() -> bytes:
        buffer = io.BytesIO()
        photo().convert("P").save(buffer, "PNG", transparency=0, compress_level=1)
        return buffer.getvalue()

    return {
        "jpeg": saved("JPEG"),
        "jpeg progressive": saved("JPEG", progressive=True),
        "jpeg turned": saved("JPEG", exif=EXIF_TURNED),
        "jpeg cmyk": saved("JPEG", "CMYK"),
        "png": saved("PNG", compress_level=1),
        "png rgba": saved("PNG", "RGBA", compress_level=1),
        "png palette with transparency": transparent_palette,
        "png 16-bit gray": gray16,
        "webp": saved("WEBP", method=0),
        "webp rgba": saved("WEBP", "RGBA", method=0),
    }


def metadata() -> Metadata:
    categories = tuple(Category(i + 1, f"c{i}", i % 2 == 0, (i, 2 * i, 255 - i)) for i in range(100))
    return Metadata(
        FORMAT_VERSION, "memory", "panoptic", categories, QUERIES, RULE, 32, STRIDE, 0.5, 0.5, "exact", {}
    )  # fmt: skip


def outputs(size: tuple[int, int]) -> ImageOutputs:
    """Every query sees something, each in a round region of its own."""
    rng = np.random.default_rng(1)
    height, width = (-(-side // STRIDE) for side in size)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    centres = rng.random((QUERIES, 2)) * (height, width)
    masks = np.stack([50 - np.hypot(rows - y, columns - x) for y, x in centres]).astype(np.float32)
    logits = np.zeros((QUERIES, 101), dtype=np.float32)
    logits[np.arange(QUERIES), np.arange(QUERIES)] = 12
    boxes = rng.random((QUERIES, 4)).astype(np.float32)
    return ImageOutputs(logits, boxes, masks, np.arange(QUERIES))


def status(name: str) -> int:
    """A figure of this process's memory in bytes. getrusage's peak is no use, for a child takes over its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def decode_case(body: bytes) -> float:
    before = status("VmRSS")
    prepare(body, "image/x", ImageRules(LIMITS, RULE), Trace())
    return (status("VmHWM") - before) / (WIDTH * HEIGHT)


def answer_case(body: bytes, task: DetectTask | SegmentTask) -> float:
    size = RULE.size(HEIGHT, WIDTH)
    prepared = Prepared((HEIGHT, WIDTH), np.zeros((*size, 3), np.uint8), partial(decode, body, LIMITS))
    said = outputs(size)
    before = status("VmRSS")
    task.answer(metadata(), prepared if task.draws else replace(prepared, decode_again=None), said, Trace())
    return (status("VmHWM") - before) / (WIDTH * HEIGHT)


def measure(function: Callable[..., float], *arguments: object) -> float:
    """What the function returns, in a process of its own that has nothing else in it."""
    with multiprocessing.get_context("spawn").Pool(1, configure_malloc) as pool:
        return pool.apply(function, arguments)


def main() -> int:
    made = {name: make() for name, make in uploads().items()}
    for name, body in made.items():
        print(f"decode {name:30} {measure(decode_case, body):6.1f}   ({len(body) / 2**20:.1f} MiB)", flush=True)
    for name, task in {
        "detect": DetectTask(0.5),
        "detect overlay": DetectTask(0.0, "overlay"),
        "json": SegmentTask(0.0, "json"),
        "png": SegmentTask(0.0, "png"),
        "overlay": SegmentTask(0.0, "overlay"),
    }.items():
        print(f"answer {name:30} {measure(answer_case, made['jpeg'], task):6.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
