"""Uploads that are far more work than they look, and what each costs a server and those who ask beside.

    python -m tests.reliability.costly_pictures
    python -m tests.reliability.costly_pictures --folder FILES

Prints a row for each: of those made here, which are as large as an upload or have as many parts as an image may, or of
the files of a folder. Good pictures are asked for at a constant rate meanwhile, and whether the server is ready; and
just before, with nothing beside, because a machine can be slower in one minute than in another.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from model.runtime.decode import sniff
from service.bench.load import BenchTarget, Request, Sample, closed_loop, open_loop
from tests.model.exif_blocks import chunk, segment
from tests.reliability.under_load import HEALTH, latency_ms, memory_budget, photos, tally, target_of, watching
from tests.server_process import ServerProcess, serving

UPLOAD = 16 * 2**20 - 4096  # bytes, just below the most that is taken
PARTS = 19_900  # just below the most that an image may have
MOST_CPU_SECONDS = 7.5  # above what a good picture of the size takes: all of `decode_cpu_ms`
GOOD_SCANS = 100  # that a good picture may have
WANTED_CPU_SECONDS = 2.0  # no more than these
MOST_SLOWDOWN = 3.0  # of the good pictures' p99
_GOOD_RATE, _READY_RATE = 10, 5  # a second
_AT_ONCE = (1, 8)
_IDLE_PERCENT = 10  # of a core, that a server takes which has nothing to do
_NICENESS = 10  # of the process that sends costly pictures
_LARGE, _SMALL = (7000, 7000), (60, 40)  # (width, height)


@dataclass(frozen=True)
class Cost:
    """What so many of a picture at once cost."""

    at_once: int
    costly: Sequence[Sample]
    good: Sequence[Sample]
    ready: Sequence[Sample]
    peak_rss: int  # bytes

    @property
    def good_p99_ms(self) -> float:
        """Of the good pictures that were answered; infinity if none was."""
        return latency_ms(self.good, 200, 0.99) if 200 in tally(self.good) else math.inf

    def told(self, quiet_p99_ms: float) -> str:
        """In one line."""
        slowdown = f"p99 {self.good_p99_ms:.0f} ms, {self.good_p99_ms / quiet_p99_ms:.1f} x quiet"
        return (
            f"{self.at_once} at once {_told(self.costly)}, good ones {_told(self.good)} ({slowdown}), "
            f"ready {_told(self.ready)}, {self.peak_rss / 1e6:.0f} MB"
        )


@dataclass(frozen=True)
class Row:
    """What a picture costs."""

    name: str
    cpu_seconds: float  # of the process, above what a good picture of the size takes
    quiet_p99_ms: float  # of good pictures, before
    costs: Sequence[Cost]

    def told(self) -> str:
        """In one line."""
        parts = [f"{self.name}: {self.cpu_seconds:+.2f} CPU s; quiet p99 {self.quiet_p99_ms:.0f} ms"]
        parts += [cost.told(self.quiet_p99_ms) for cost in self.costs]
        return "; ".join(parts)


def costly_uploads() -> Iterator[tuple[str, Request]]:
    """Each by what there is too much of: pictures, and what they may come in."""
    for name, file in _costly_pictures():
        yield name, upload_of(file)
    yield "form, line ends", Request("/detect", b"\r\n" * (UPLOAD // 2), "multipart/form-data; boundary=b")
    for name, text in (("line breaks", b"AAAA\\n"), ("slashes", b"\\/"), ("backslashes", b"\\\\")):
        body = b'{"image": "' + text * ((UPLOAD - 20) // len(text) // 4 * 4) + b'"}'
        yield f"JSON, {name}", Request("/detect", body, "application/json")


def upload_of(file: bytes) -> Request:
    """Of a picture's file, as it is."""
    return Request("/detect", file, f"image/{sniff(file).lower()}")


def _costly_pictures() -> Iterator[tuple[str, bytes]]:
    jpeg, png, webp = (_flat(_SMALL, image_format) for image_format in ("JPEG", "PNG", "WEBP"))
    yield "JPEG, 49 MP, 25,000 scans", with_scans(25_000)
    yield "JPEG, 49 MP, 120 scans", with_scans(120)
    yield "WebP, 49 MP", _flat(_LARGE, "WEBP", method=0)
    yield "JPEG, fill bytes", jpeg[:2] + b"\xff" * UPLOAD + jpeg[2:]
    tables = jpeg.index(b"\xff\xdb")
    yield "JPEG, bytes between segments", jpeg[:tables] + bytes(UPLOAD) + jpeg[tables:]
    yield "JPEG, scan markers behind its end", jpeg + b"\xff\xda" * ((UPLOAD - len(jpeg)) // 2)
    for name, part in (
        ("APP1", segment(b"", 0xE1)),
        ("APP13", segment(b"", 0xED)),
        ("comment", segment(b"", 0xFE)),
        ("quantisation", segment(b"", 0xDB)),
    ):
        yield f"JPEG, {name} segments", jpeg[:2] + part * (UPLOAD // len(part)) + jpeg[2:]
    for name, part in (("quantisation", segment(b"", 0xDB)), ("EXIF", segment(b"Exif\0\0", 0xE1))):
        yield f"JPEG, 19,900 {name} segments", jpeg[:2] + part * PARTS + jpeg[2:]
    for name, part in (
        ("iCCP", chunk(b"iCCP", b"a\0\0" + b"x" * 1000)),
        ("tEXt", chunk(b"tEXt", b"")),
        ("IDAT", chunk(b"IDAT", b"")),
        ("PLTE", chunk(b"PLTE", bytes(3))),
    ):
        yield f"PNG, {name} chunks", png[:33] + part * (UPLOAD // len(part)) + png[33:]
    for name, part in (("IDAT", chunk(b"IDAT", b"")), ("tRNS", chunk(b"tRNS", bytes(6)))):
        yield f"PNG, 19,900 {name} chunks", png[:33] + part * PARTS + png[33:]
    body = webp[8:] + b"EXIF\0\0\0\0" * (UPLOAD // 8)
    yield "WebP, EXIF chunks", b"RIFF" + len(body).to_bytes(4, "little") + body


def _flat(size: tuple[int, int], image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 120, 40)).save(buffer, image_format, **options)
    return buffer.getvalue()


def with_scans(count: int, size: tuple[int, int] = _LARGE) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    file = _flat(size, "JPEG", progressive=True)
    last = file.rindex(b"\xff\xda")
    return file[:last] + (count - file.count(b"\xff\xda") + 1) * file[last:-2] + b"\xff\xd9"


def measure(server: ServerProcess, name: str, request: Request, seconds: float) -> Row:
    """What an upload costs, with good pictures beside for so many seconds and until all is answered."""
    _wait_until_idle(server)
    kind, _, image_format = request.content_type.partition("/")
    size = _LARGE if "49 MP" in name else _SMALL
    good = with_scans(GOOD_SCANS) if "scans" in name else _flat(size, image_format if kind == "image" else "JPEG")
    cpu_seconds = _cpu_seconds(server, request) - _cpu_seconds(server, upload_of(good))
    quiet = cost_of(server, [], 0, 2 * seconds)
    costs = [cost_of(server, [request], at_once, seconds) for at_once in _AT_ONCE]
    return Row(name, cpu_seconds, quiet.good_p99_ms, costs)


def _wait_until_idle(server: ServerProcess) -> None:
    """A picture whose deadline has passed may be decoded on for seconds, which are not the next one's."""
    process = server.process
    while process.cpu_percent(interval=0.5) > _IDLE_PERCENT:
        pass


def _cpu_seconds(server: ServerProcess, request: Request, count: int = 3) -> float:
    with watching(server) as use:
        asyncio.run(closed_loop(target_of(server), [request], clients=1, count=count))
    return use.cpu_seconds / count


def cost_of(server: ServerProcess, requests: Sequence[Request], at_once: int, seconds: float) -> Cost:
    """What so many costly pictures cost that come at once, or none.

    A process of their own sends them, which takes what the others leave of the cores: clients have machines of their
    own, and those of the good pictures are not to wait for them. It is given them before anything is measured.
    """

    async def load(costly: asyncio.Future[list[Sample]]) -> tuple[list[Sample], list[Sample], list[Sample]]:
        target = target_of(server)
        return await asyncio.gather(
            costly,
            open_loop(target, photos(), rate=_GOOD_RATE, seconds=seconds),
            open_loop(target, HEALTH[1:], rate=_READY_RATE, seconds=seconds),
        )

    async def with_costly() -> tuple[list[Sample], list[Sample], list[Sample]]:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _take_costly, (requests,)) as process:
            await asyncio.get_running_loop().run_in_executor(process, int)  # it has begun
            return await load(asyncio.get_running_loop().run_in_executor(process, _send_costly, server.port, at_once))

    with watching(server) as use:
        costly, good, ready = asyncio.run(with_costly())
    return Cost(at_once, costly, good, ready, use.rss)


_taken: list[Request] = []  # what the process that sends costly pictures was given


def _take_costly(requests: Sequence[Request]) -> None:
    os.nice(_NICENESS)
    _taken.extend(requests)


def _send_costly(port: int, at_once: int) -> list[Sample]:
    """Send so many, of which each is answered."""
    if not at_once:
        return []
    return asyncio.run(closed_loop(BenchTarget("127.0.0.1", port), _taken, clients=at_once, count=at_once))


def _told(samples: Sequence[Sample]) -> str:
    counts: Counter[int | str] = tally(samples)
    return "{" + ", ".join(f"{status}: {count}" for status, count in sorted(counts.items(), key=str)) + "}"


def faults(row: Row, budget: int) -> list[str]:
    """What is promised of any machine, and does not hold."""
    found = []
    if row.cpu_seconds > MOST_CPU_SECONDS:
        found.append(f"{row.cpu_seconds:.1f} CPU seconds more than a good picture")
    for cost in row.costs:
        if odd := set(tally(cost.costly)) - {200, 400, 413, 503, 504}:
            found.append(f"{cost.at_once} at once were answered with {odd}")
        if odd := set(tally(cost.ready)) - {200, 503}:
            found.append(f"ready with {cost.at_once} at once: {odd}")
        if cost.peak_rss > budget:
            found.append(f"{cost.peak_rss / 1e6:.0f} MB of {budget / 1e6:.0f} MB with {cost.at_once} at once")
    return [f"{row.name}: {fault}" for fault in found]


def slowdowns(row: Row) -> list[str]:
    """What is wanted on a machine that does nothing else, and does not hold."""
    found = []
    if row.cpu_seconds > WANTED_CPU_SECONDS:
        found.append(f"{row.cpu_seconds:.1f} CPU seconds more than a good picture")
    for cost in row.costs:
        if odd := set(tally(cost.good)) - {200, 503}:
            found.append(f"good ones with {cost.at_once} at once: {odd}")
        slowdown = cost.good_p99_ms / row.quiet_p99_ms
        if slowdown > MOST_SLOWDOWN:
            found.append(f"p99 of good ones {slowdown:.1f} x quiet with {cost.at_once} at once")
    return [f"{row.name}: {fault}" for fault in found]


@dataclass(frozen=True)
class Verdict:
    """What does not hold of all that was measured."""

    faults: Sequence[str]
    slowdowns: Sequence[str]


def measure_all(
    server: ServerProcess, uploads: Iterator[tuple[str, Request]], seconds: float, tell: Callable[[str], object]
) -> Verdict:
    """Measure each, and tell of each."""
    asyncio.run(closed_loop(target_of(server), photos(), clients=4, count=64))  # which warms it up
    budget = memory_budget(server)
    tell(f"budget {budget / 1e6:.0f} MB")
    rows = []
    for name, request in uploads:
        rows.append(measure(server, name, request, seconds))
        tell(rows[-1].told())
    return Verdict(
        [fault for row in rows for fault in faults(row, budget)],
        [slowdown for row in rows for slowdown in slowdowns(row)],
    )


def main() -> int:
    """Measure, and print what does not hold; 1 if there is anything."""
    parser = argparse.ArgumentParser(description="What costly uploads cost.")
    parser.add_argument("--folder", type=Path, help="of files to upload, instead of those made here")
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    arguments = parser.parse_args()
    uploads = costly_uploads()
    if arguments.folder is not None:
        uploads = ((path.name, upload_of(path.read_bytes())) for path in sorted(arguments.folder.iterdir()))
    with tempfile.TemporaryDirectory() as folder, serving(None, Path(folder)) as server:
        verdict = measure_all(server, uploads, arguments.seconds, lambda line: print(line, flush=True))
    found = [*verdict.faults, *verdict.slowdowns]
    print(*(found or ["all holds"]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
