"""The two sides of each comparison: something that runs, sleeps while the other is measured, and can be measured."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import torch
from onnx import TensorProto, helper, numpy_helper

from service.bench.load import Request, Sample, closed_loop, open_loop
from service.bench.report import figures_of, percentile
from service.bench.server_process import ServerProcess, detr_service, free_port, server_process
from service.images.answers import TaskName

_TIMEOUT_S = 600.0  # of one request: eight images with all masks take a minute and more in eager PyTorch


@dataclass(frozen=True)
class Served:
    """A server that takes no processor time but while it is measured."""

    process: ServerProcess
    requests: Sequence[Request]

    def throughput(self, clients: int, count: int) -> float:
        """Images a second."""
        figures = figures_of(self._load(clients, count))
        if figures.errors:
            raise RuntimeError(f"not every request was answered: {figures.errors}")
        return figures.throughput

    def latency(self, count: int) -> float:
        """Median seconds of an answer to a client that is alone."""
        median = percentile(sorted(sample.latency for sample in self._load(1, count)), 0.5)
        assert median is not None
        return median

    def cpu_seconds(self) -> float:
        """Processor time that the server has taken so far."""
        spent = psutil.Process(self.process.pid).cpu_times()
        return spent.user + spent.system

    def peak_bytes(self, count: int) -> int:
        """The most memory it ever held, after so many more requests."""
        self._load(min(count, 4), count)
        peak = self.process.peak_memory_bytes()
        assert peak is not None
        return peak

    def probe_p99(self, rate: float, seconds: float, clients: int) -> float:
        """The 99th percentile of GET /health/live, in seconds, while so many clients saturate it."""
        probe = Request("/health/live", method="GET")

        async def both() -> list[Sample]:
            target = self.process.target
            probing = open_loop(target, [probe], rate=rate, seconds=seconds, timeout=_TIMEOUT_S)
            if not clients:
                return await probing
            # The load begins before the first probe and outlasts the last.
            loading = asyncio.create_task(
                closed_loop(target, self.requests, clients=clients, seconds=seconds + 2, timeout=_TIMEOUT_S)
            )
            await asyncio.sleep(1)
            found = await probing
            await loading
            return found

        with self.awake():
            found = asyncio.run(both())
        p99 = percentile(sorted(sample.latency for sample in found), 0.99)
        assert p99 is not None
        return p99

    def _load(self, clients: int, count: int) -> list[Sample]:
        with self.awake():
            load = closed_loop(self.process.target, self.requests, clients=clients, count=count, timeout=_TIMEOUT_S)
            return asyncio.run(load)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for the length of the block."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)


@contextmanager
def our_service(
    settings: Mapping[str, str], pictures: Sequence[bytes], task: TaskName, query: str = ""
) -> Iterator[Served]:
    """The service, warmed up."""
    patient = {**settings, "request_timeout_ms": str(1000 * _TIMEOUT_S)}  # a busy machine is no failure
    with detr_service(patient) as process, _asleep(process):
        served = Served(process, [Request(f"/{task}{query}", picture) for picture in pictures])
        served.throughput(clients=2, count=len(pictures))
        yield served


def two_engines(given: Mapping[str, str]) -> dict[str, str]:
    """The same settings, with two engines that share the cores."""
    return {name: value for name, value in given.items() if name != "device"} | {"devices": f"{given['device']}*2"}


@contextmanager
def baseline(
    module: str, model: Path, pictures: Sequence[bytes], task: TaskName, threshold: float | None, *options: str
) -> Iterator[Served]:
    """One of the servers in `tests.benchmarks.baselines`, warmed up with one picture."""
    port = free_port()
    told = [] if threshold is None else ["--threshold", str(threshold)]
    command = [
        sys.executable, "-m", f"tests.benchmarks.baselines.{module}", str(model),
        "--task", task, "--port", str(port), *told, *options,
    ]  # fmt: skip
    requests = [Request(f"/{task}", picture) for picture in pictures]
    if module == "lit":
        requests = [_as_json(request) for request in requests]
    with server_process(command, port, "/health") as process, _asleep(process):
        served = Served(process, requests)
        served.throughput(clients=1, count=1)
        yield served


@contextmanager
def _asleep(process: ServerProcess) -> Iterator[None]:
    """Wake the server after the block, so that it can end."""
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGCONT)


def _as_json(request: Request) -> Request:
    body = json.dumps({"image": base64.b64encode(request.body).decode("ascii")}).encode()
    return replace(request, body=body, content_type="application/json")


@dataclass(frozen=True)
class MatrixProduct:
    """The most that the machine's cores are good for: a product of two large matrices."""

    precision: str  # float32 or bfloat16
    side: int = 4096

    def flops(self, count: int = 3) -> float:
        """Floating-point operations a second, the best of so many products.

        In float32 the better one of torch and ONNX Runtime: torch's library is at its best on one make of processor.
        """
        products = [self._by_torch()]
        if self.precision == "float32":
            products.append(self._by_onnxruntime())
        best = float("inf")
        for product in products:
            product()
            for _ in range(count):
                started = time.perf_counter()
                product()
                best = min(best, time.perf_counter() - started)
        return 2 * self.side**3 / best

    def _by_torch(self) -> Callable[[], object]:
        a, b = (torch.rand(self.side, self.side).to(getattr(torch, self.precision)) for _ in range(2))
        return lambda: torch.matmul(a, b)

    def _by_onnxruntime(self) -> Callable[[], object]:
        a, b = (np.random.default_rng(seed).random((self.side, self.side), dtype=np.float32) for seed in range(2))
        value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT, shape=[self.side, self.side])
        node = helper.make_node("MatMul", ["a", "b"], ["c"])
        graph = helper.make_graph([node], "product", [value("a")], [value("c")], [numpy_helper.from_array(b, "b")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"a": a})
