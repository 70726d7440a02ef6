"""What the service itself costs an image: the real server with an engine that takes no processor time.

    python -m tests.benchmarks.host_path [--against DIR] [--turns 3] [--seconds 4] [--cores 2] [--latency-ms 0]

The engine sleeps for the given latency and says what DETR R50 would (`tests/benchmarks/host_server.py`); pictures are
resized by R50's rule, 800 and 1333. For each picture: milliseconds of the server's processor time an image, by thread
and by stage, and images a second. "Images a second" counts only the time of the cores that others leave: the server's
processor time and what was idle, so that neither the clients nor what else the machine does weighs on it.

With `--against`, another checkout of the project is measured in the same run, in turns: it stands in brackets, and the
last columns are this one's figures ÷ the other's, as the median of the turns. Answers of both are compared: the JSON by
its text, and the PNG in it by its pixels.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from PIL import Image

from service.bench.load import BenchTarget, Request, closed_loop
from service.bench.pictures import synthetic_jpeg
from tests.processes import free_port, started, wait_for_200

REPOSITORY = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("host_server.py")
CLIENTS = 8
PICTURES = 4  # of each size
STAGES = ("decode", "preprocess", "postprocess", "encode")
THREADS = ("event loop", "cpu", "canvas", "engine", "log")
CASES = {
    "/detect 640 x 480": ("/detect", (480, 640)),
    "/detect 1920 x 1080": ("/detect", (1080, 1920)),
    "/detect 4000 x 3000": ("/detect", (3000, 4000)),
    "/segment 640 x 480": ("/segment", (480, 640)),
    "/segment 4000 x 3000": ("/segment", (3000, 4000)),
}


@dataclass(frozen=True)
class Turn:
    """What one turn of one server cost an image, in milliseconds of its processor time."""

    cpu: float
    threads: dict[str, float]
    stages: dict[str, float]
    per_second: float  # images, of the cores that others left
    bodies: dict[int, bytes] = field(repr=False)  # an answer to each picture


@dataclass
class Server:
    """A server of one checkout, which does nothing between its turns."""

    url: str
    connection: socket.socket
    cores: Sequence[int]

    def report(self) -> dict[str, dict[str, float]]:
        """Seconds by thread and by stage."""
        self.connection.sendall(b"\n")
        text = b""
        while not text.endswith(b"\n"):
            text += self.connection.recv(65536)
        found: dict[str, dict[str, float]] = json.loads(text)
        return found

    def turn(self, requests: Sequence[Request], seconds: float) -> Turn:
        """Load it for so many seconds."""
        before, idle = self.report(), self._idle()
        load = closed_loop(
            BenchTarget.of(self.url), requests, clients=CLIENTS, seconds=seconds, timeout=60, keep_bodies=True
        )
        samples = asyncio.run(load)
        after, idle = self.report(), self._idle() - idle
        assert {sample.status for sample in samples} == {200}, [sample.status for sample in samples]
        count = len(samples)
        spent = {
            kind: {name: after[kind][name] - before[kind].get(name, 0.0) for name in after[kind]} for kind in after
        }
        process = spent["threads"].pop("process")
        milliseconds = {kind: {name: 1000 * each / count for name, each in spent[kind].items()} for kind in spent}
        bodies = {sample.request: sample.body for sample in samples if sample.body is not None}
        rate = count * len(self.cores) / (process + idle)
        return Turn(1000 * process / count, milliseconds["threads"], milliseconds["stages"], rate, bodies)

    def _idle(self) -> float:
        """Seconds that its cores have had nothing to do."""
        times = psutil.cpu_times(percpu=True)
        return sum(times[core].idle + times[core].iowait for core in self.cores)


@contextmanager
def serving(
    checkout: Path, folder: Path, cores: Sequence[int], latency_ms: float, given: list[str]
) -> Iterator[Server]:
    """A server of a checkout on some of the machine's cores."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    ours, theirs = socket.socketpair()
    log = folder / f"log-{port}"
    words = ["--port", str(port), "--latency-ms", str(latency_ms), "--report-fd", str(theirs.fileno()), "--set", *given]
    command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, str(SERVER), *words]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DETR_")}
    with (
        ours,
        theirs,
        started(
            command, log, env=env | {"PYTHONPATH": str(checkout)}, cwd=checkout, pass_fds=(theirs.fileno(),)
        ) as process,
    ):
        wait_for_200(f"{url}/health/ready", process, log)
        yield Server(url, ours, cores)


def row(name: str, sides: Sequence[Sequence[Turn]]) -> str:
    """A line of the table: this checkout's medians, the other's in brackets, and what is between them."""

    def middles(kind: str, keys: Sequence[str]) -> str:
        each = [[median(getattr(turn, kind).get(key, 0.0) for turn in side) for key in keys] for side in sides]
        words = [" / ".join(f"{value:.2f}" for value in values) for values in each]
        return words[0] + "".join(f" ({word})" for word in words[1:])

    def middle(figure: str, decimals: int) -> str:
        words = [f"{median(getattr(turn, figure) for turn in side):.{decimals}f}" for side in sides]
        return words[0] + "".join(f" ({word})" for word in words[1:])

    cells = [name, middle("cpu", 2), middles("threads", THREADS), middles("stages", STAGES), middle("per_second", 0)]
    if len(sides) > 1:
        pairs = list(zip(*sides, strict=True))
        cells.append(f"{median(a.cpu / b.cpu for a, b in pairs):.2f}")
        cells.append(f"{median(a.per_second / b.per_second for a, b in pairs):.2f}")
        same = all(
            meaning(a.bodies[key]) == meaning(b.bodies[key])
            for a, b in pairs
            for key in a.bodies.keys() & b.bodies.keys()
        )
        cells.append("yes" if same else "no")
    return f"| {' | '.join(cells)} |"


def meaning(body: bytes) -> tuple[bytes, bytes]:
    """An answer's JSON without the PNG, and that one's pixels, which can be compressed in many ways."""
    before, found, rest = body.partition(b'"panoptic_png":"')
    if not found:
        return body, b""
    png, _, after = rest.partition(b'"')
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return before + after, image.mode.encode() + image.tobytes()


def head(is_compared: bool) -> str:
    """The table's first two lines."""
    names = ["picture", "ms an image", " / ".join(THREADS), " / ".join(STAGES), "images/s"]
    if is_compared:
        names += ["time ÷", "images/s ÷", "same answers"]
    return f"| {' | '.join(names)} |\n|{' --- |' * len(names)}"


def measure(servers: Sequence[Server], case: str, turns: int, seconds: float) -> list[list[Turn]]:
    """Turns of each server, one after the other, so that what else the machine does meets all of them."""
    path, size = CASES[case]
    requests = [Request(path, synthetic_jpeg(size, seed)) for seed in range(PICTURES)]
    sides: list[list[Turn]] = [[] for _ in servers]
    for server in servers:
        server.turn(requests, 1)
    for number in range(turns):
        order = list(zip(servers, sides, strict=True))
        for server, side in reversed(order) if number % 2 else order:
            side.append(server.turn(requests, seconds))
    return sides


def as_json(name: str, sides: Sequence[Sequence[Turn]]) -> dict[str, Any]:
    """Everything that was measured of a picture."""
    fields = ("cpu", "threads", "stages", "per_second")
    return {"case": name, "sides": [[{key: getattr(turn, key) for key in fields} for turn in side] for side in sides]}


def main() -> None:
    """Print the table, a line as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout to measure beside this one")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="that the server may use (default: %(default)s)")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of the engine, for a batch")
    parser.add_argument("--only", default="", help="measure what has this in its name")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of this checkout's server")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")
    args = parser.parse_args()
    checkouts = [(REPOSITORY, args.set)] + ([(args.against.resolve(), [])] if args.against else [])
    written = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [
            stack.enter_context(serving(checkout, folder, range(args.cores), args.latency_ms, given))
            for checkout, given in checkouts
        ]
        print(head(len(servers) > 1), flush=True)
        for case in CASES:
            if args.only in case:
                sides = measure(servers, case, args.turns, args.seconds)
                print(row(case, sides), flush=True)
                written.append(as_json(case, sides))
                if args.json is not None:
                    args.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
