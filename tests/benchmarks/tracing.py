"""What it costs to send spans: requests a second and processor time a request, with and without, in turns in one run.

    python -m tests.benchmarks.tracing --rounds 6 --seconds 3

First the demo model. Then the engine is scripted: with a delay it is what bounds a service, as a network is; with none
the service bounds itself, which no network lets it do. The collector is a thread of this process, and takes processor
time of the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from service.bench.load import BenchTarget, Request, closed_loop
from tests.reliability.scripted_engine import picture
from tests.server_process import ServerProcess, scripted, serving
from tests.span_sink import span_sink
from tests.tiny_artifact import write_tiny_artifact

CLIENTS = 8


def main() -> None:
    """Print a line for each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    print("engine, ms an image | requests/s without, with, ratio | CPU ms a request without, with | spans a request")
    for delay_ms in (None, 20.0, 5.0, 0.0):
        print(row(delay_ms, options.rounds, options.seconds), flush=True)


def row(delay_ms: float | None, rounds: int, seconds: float) -> str:
    """Both sides, in turns; the ratio is the median of the rounds' ratios. Without a delay it is the demo model."""
    rates: dict[str, list[float]] = {"without": [], "with": []}
    costs: dict[str, list[float]] = {"without": [], "with": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        artifact = write_tiny_artifact(folder / "tiny.onnx", "panoptic")
        sink = stack.enter_context(span_sink())
        servers = {}
        for name, env in (("without", {}), ("with", {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url})):
            if delay_ms is None:
                server = serving(None, folder, "--batch-timing-ms", "0", env=env)
            else:
                server = scripted(artifact, folder, script={"delay_per_image_ms": delay_ms}, env=env)
            servers[name] = stack.enter_context(server)
            load(servers[name], 1)
        before, answered = len(sink.spans), 0
        for number in range(rounds):
            for name in ("without", "with") if number % 2 else ("with", "without"):
                rate, cost, count = load(servers[name], seconds)
                rates[name].append(rate)
                costs[name].append(cost)
                answered += count if name == "with" else 0
    ratio = median(have / lack for have, lack in zip(rates["with"], rates["without"], strict=True))
    told = [f"{median(rates[name]):.1f}" for name in rates] + [f"{ratio:.3f}"]
    cpu = [f"{median(costs[name]):.2f}" for name in costs]
    engine = "demo model" if delay_ms is None else f"{delay_ms:g}"
    return f"{engine} | {', '.join(told)} | {', '.join(cpu)} | {(len(sink.spans) - before) / answered:.2f}"


def load(server: ServerProcess, seconds: float) -> tuple[float, float, int]:
    """Requests a second, milliseconds of the server's processor time a request, and the number of requests."""
    target = BenchTarget.of(server.url)
    request = Request(body=picture(1), content_type="image/png")
    began = server.process.cpu_times()
    samples = asyncio.run(closed_loop(target, [request], clients=CLIENTS, seconds=seconds))
    ended = server.process.cpu_times()
    assert {sample.status for sample in samples} == {200}
    taken = max(sample.ended for sample in samples) - min(sample.started for sample in samples)
    cpu = ended.user + ended.system - began.user - began.system
    return len(samples) / taken, 1000 * cpu / len(samples), len(samples)


if __name__ == "__main__":
    main()
