"""Search for uploads that take much processor time to decode: what is slow for its size is kept and changed further.

    python -m tests.reliability.fuzz_cost --seconds 1200

The cost of an input is what decoding and resizing it takes beyond a good picture of its size, in seconds of one
processor; 2 is the most that is promised. What costs more is written to a folder, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import heapq
import io
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.runtime.decode import ImageError, ImageLimits, decode_reduced, open_image
from model.runtime.preprocess import resize
from tests.reliability.fuzz_target import LIMITS, RULE, seeds

MOST = 2.0  # seconds above a good picture of the same size
LARGEST = 16 * 2**20  # bytes of an upload
KEPT = 60  # of each format
Cost = Callable[[bytes], float]


class CostSearch:
    """Changes inputs at random, and keeps those that cost most, of each format."""

    def __init__(self, cost: Cost, first: Sequence[bytes], seed: int) -> None:
        self._cost = cost
        self._random = random.Random(seed)
        self._kept: dict[bytes, list[tuple[float, int, bytes]]] = {}  # by how a file begins; heaps, cheapest first
        self.tried = 0
        self.worst = 0.0
        for data in first:
            self.try_one(data)

    def step(self) -> tuple[float, bytes]:
        """Change one of those that are kept, try it, and return its cost and itself."""
        heap = self._random.choice(list(self._kept.values()))
        ranked = sorted(heap, reverse=True)
        chosen = ranked[min(int(self._random.expovariate(1 / 8)), len(ranked) - 1)][2]
        data = chosen
        for _ in range(self._random.choice((1, 1, 2, 4))):
            other = self._random.choice(heap)[2]
            data = change(data, other, self._random)[:LARGEST]
        return self.try_one(data), data

    def try_one(self, data: bytes) -> float:
        """Try an input and keep it if it costs more than another that is kept; its cost."""
        self.tried += 1
        cost = self._cost(data)
        self.worst = max(self.worst, cost)
        heap = self._kept.setdefault(data[:3], [])
        heapq.heappush(heap, (cost, self.tried, data))
        if len(heap) > KEPT:
            heapq.heappop(heap)
        return cost


def change(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One change of those that decoders may take much time for: repetition, sizes, splices, noise."""
    at = rng.randrange(3, max(4, len(data)))
    match rng.randrange(7):
        case 0:  # repeat a part, which may be a segment, a scan or a chunk
            part = data[at : at + rng.choice((1, 2, 4, 12, 64, 300, 2000))]
            times = min(rng.choice((2, 10, 100, 2000, 100_000)), max(1, LARGEST // max(1, len(part))))
            return data[:at] + part * times + data[at:]
        case 1:  # repeat a whole part of its format
            parts = [part for part in split(data) if len(part) < 4000]
            if not parts:
                return data
            part, times = rng.choice(parts), rng.choice((2, 10, 100, 1000, 15_000))
            where = data.find(part)
            return data[:where] + part * times + data[where:]
        case 2:
            return resized(data, rng)
        case 3:  # a part of another, behind one of this
            begin = rng.randrange(len(other))
            return data[:at] + other[begin : begin + rng.choice((10, 100, 1000, 10**7))]
        case 4:
            return data[:at] + rng.randbytes(rng.choice((1, 2, 8))) + data[at + rng.choice((0, 1, 2, 8)) :]
        case 5:
            return data[:at] + data[at + rng.choice((1, 2, 4, 100)) :]
        case _:
            flipped = bytearray(data)
            for _ in range(rng.choice((1, 1, 3, 20))):
                flipped[rng.randrange(3, len(flipped))] = rng.choice((0, 0x11, 0x22, 0x41, 0xD9, 0xDA, 0xFF))
            return bytes(flipped)


def split(data: bytes) -> list[bytes]:
    """The segments of a JPEG, or chunks of a PNG or WebP, roughly."""
    if data.startswith(b"\xff\xd8"):
        return [b"\xff" + part for part in data.split(b"\xff")[2:] if part and part[0] not in (0, 0xFF)]
    found: list[bytes] = []
    start, order, extra = 8, ">I", 12
    if data.startswith(b"RIFF"):
        start, order, extra = 12, "<I", 8
    while start + 8 <= len(data) and len(found) < 1000:
        length = struct.unpack_from(order, data, start if order == ">I" else start + 4)[0]
        end = start + extra + length + (length % 2 if order == "<I" else 0)
        found.append(data[start:end])
        start = end
    return found


def resized(data: bytes, rng: random.Random) -> bytes:
    """Another size in the header, right checksum included."""
    side = rng.choice((1, 16, 500, 2000, 7000, 16_384))
    other = rng.choice((1, 16, 500, 2000, 7000))
    changed = bytearray(data)
    if data.startswith(b"\x89PNG") and len(data) > 33:
        struct.pack_into(">II", changed, 16, side, other)
        struct.pack_into(">I", changed, 29, zlib.crc32(changed[12:29]))
    elif data.startswith(b"\xff\xd8"):
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            if 0 < (at := data.find(marker)) < len(data) - 9:
                struct.pack_into(">HH", changed, at + 5, side, other)
    elif data[12:16] == b"VP8X" and len(data) > 30:
        changed[24:30] = (side - 1).to_bytes(3, "little") + (other - 1).to_bytes(3, "little")
    return bytes(changed)


class DecodingCost:
    """Seconds of one processor that an upload takes beyond a good picture of its format and size."""

    def __init__(self, limits: ImageLimits = LIMITS) -> None:
        self._limits = limits
        self._seconds_per_pixel = {kind: self._of_good(kind) for kind in ("JPEG", "PNG", "WEBP")}

    def __call__(self, data: bytes) -> float:
        began = time.process_time()
        pixels, kind = 0, "JPEG"
        try:
            with open_image(data, self._limits) as opened:
                pixels, kind = opened.stored_size[0] * opened.stored_size[1], opened.stored.format or kind
            began = time.process_time()
            resize(decode_reduced(data, self._limits, None).image, RULE)
        except ImageError:
            pass
        return time.process_time() - began - self._seconds_per_pixel[kind] * pixels

    def _of_good(self, kind: str) -> float:
        """Seconds a pixel of the costliest good picture of a format: noise, in as many scans as usual."""
        noise = np.random.default_rng(1).integers(0, 256, (1000, 1000, 4), dtype=np.uint8)
        buffer = io.BytesIO()
        options: dict[str, dict[str, Any]] = {"JPEG": {"progressive": True, "quality": 95}, "WEBP": {"lossless": True}}
        Image.fromarray(noise if kind != "JPEG" else noise[..., :3]).save(buffer, kind, **options.get(kind, {}))
        began = time.process_time()
        resize(decode_reduced(buffer.getvalue(), self._limits, None).image, RULE)
        return (time.process_time() - began) / noise[..., 0].size


def larger_seeds() -> list[bytes]:
    """Seeds of megapixels that compress to little, so that each of their parts can be much work."""
    flat = Image.new("RGB", (3000, 3000), (90, 120, 30))
    found = []
    for kind, options in (
        ("JPEG", {"progressive": True}), ("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        flat.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fuzz_cost", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60, metavar="S", help="Search for so many seconds of one processor."
    )
    parser.add_argument("--seed", type=int, default=1, help="Begin the random numbers here.")
    parser.add_argument("--findings", type=Path, default=Path("findings"), metavar="DIR", help="Write findings here.")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], metavar="FILE", help="Begin with these as well.")
    args = parser.parse_args(arguments)
    accepted = [data for name, data in seeds().items() if name.startswith(("png", "jpeg", "webp"))]
    given = [path.read_bytes() for path in args.corpus]
    search = CostSearch(DecodingCost(), [*accepted, *larger_seeds(), *given], args.seed)
    began = told = time.process_time()
    findings = 0
    while (now := time.process_time()) - began < args.seconds:
        cost, data = search.step()
        if cost > MOST:
            findings += 1
            args.findings.mkdir(exist_ok=True)
            (args.findings / f"{cost:.2f}-{search.tried}").write_bytes(data)
        if now - told > 60:
            told = now
            print(f"{now - began:.0f} s: {search.tried} inputs, worst {search.worst:.2f} s", flush=True)
    print(
        f"{args.seconds:.0f} s: {search.tried} inputs, {findings} above {MOST:g} s; the worst took {search.worst:.2f} s"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
