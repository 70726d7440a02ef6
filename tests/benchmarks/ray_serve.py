"""What Ray Serve adds to a request: one client, one request at a time, beside `detr serve`, in turns in one run.

    python -m tests.benchmarks.ray_serve --rounds 10 --requests 20

Ray runs one replica behind HAProxy, with the same model and as many threads. Needs root and Linux: Ray's ports listen
everywhere, so all of it runs on a network of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx

from service.bench.pictures import synthetic_jpeg
from service.settings import DEMO_MODEL
from tests.end_to_end.podman import network_of_its_own
from tests.ray_cluster import ray_serve
from tests.server_process import serving

SIZE = (480, 640)


def main() -> None:
    """Print the milliseconds of both, and the median of the rounds' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=20, help="in each round, of each")
    parser.add_argument("--python-proxy", action="store_true", help="Ray's own proxy in place of HAProxy")
    options = parser.parse_args()
    spent: dict[str, list[float]] = {"detr serve": [], "Ray Serve": []}
    usual = ("--batch-timing-ms", "0", "--cpu-threads", "1")
    with (
        network_of_its_own(),
        tempfile.TemporaryDirectory() as folder,
        serving(DEMO_MODEL, Path(folder), *usual) as server,
        ray_serve(haproxy=not options.python_proxy) as ray,
        httpx.Client(timeout=60, headers={"content-type": "image/jpeg"}) as client,
    ):
        settings = {"model": DEMO_MODEL, "device": "cpu", "engine_threads": 1, "cpu_threads": 1, "batch_timing_ms": 0}
        assert ray.deploy(settings)["status"] == "RUNNING"
        places = {"detr serve": server.url, "Ray Serve": ray.url}
        for url in places.values():
            latency(client, url, options.requests)
        for number in range(options.rounds):
            for name in sorted(places, reverse=bool(number % 2)):
                spent[name].append(latency(client, places[name], options.requests))
    for name, each in spent.items():
        print(f"{name}: {1000 * median(each):.1f} ms")
    ratio = median(ray / ours for ray, ours in zip(spent["Ray Serve"], spent["detr serve"], strict=True))
    print(f"Ray Serve / detr serve: {ratio:.3f}")


def latency(client: httpx.Client, url: str, requests: int) -> float:
    """The median of so many requests, in seconds."""
    picture, spent = synthetic_jpeg(SIZE, 0), []
    for _ in range(requests):
        began = time.perf_counter()
        client.post(f"{url}/detect", content=picture).raise_for_status()
        spent.append(time.perf_counter() - began)
    return median(spent)


if __name__ == "__main__":
    main()
