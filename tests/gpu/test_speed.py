"""How fast a GPU is: its canvases, what a batch costs, the service beside the bare engine, and both beside PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import psutil
import pytest

from model.runtime.engines.canvases import canvases_of
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch
from service.batching.latency_line import LatencyLine
from service.bench.pictures import synthetic_jpeg, synthetic_pictures
from service.images.answers import TaskName
from service.lifecycle.canvas_warm_up import warm_canvases, warm_up_order
from service.lifecycle.engine_timing import measure_line
from service.lifecycle.loading import LoadedModel, load_model
from service.settings import read_settings
from tests.gpu.models import DEMO, R50, R50_PANOPTIC, Model, Stored, artifact_file
from tests.gpu.session import DEVICE, TORCH_DEVICE, either, used_device_bytes
from tests.gpu.table import Part

pytestmark = pytest.mark.gpu

BATCH = 8
TURNS = either(3, 1)
MODELS_OF_LINES = (DEMO, R50)
# What is served: a model, in a precision, for a task.
SERVED: tuple[tuple[Model, Stored, TaskName], ...] = either(
    (
        (R50, "float16", "detect"),
        (R50_PANOPTIC, "float16", "segment"),
        (R50, "float32", "detect"),
        (DEMO, "float32", "detect"),
    ),
    ((DEMO, "float32", "detect"), (R50_PANOPTIC, "float16", "segment")),
)
CLIENTS = either(32, 4)
IMAGES = either(400, 8)  # of a turn


@pytest.mark.parametrize("model", MODELS_OF_LINES)
def test_every_canvas_is_warmed_up(model: Model, folder: Path, part: Part) -> None:
    loaded = _loaded(folder, model)
    canvases = canvases_of(loaded.metadata.resize, loaded.canvas_multiple)
    order = warm_up_order(canvases, either(BATCH, 2), 12_000_000)
    began = perf_counter()
    done = warm_canvases(loaded.engine, order, 30.0)
    took = perf_counter() - began
    again = perf_counter()
    warm_canvases(loaded.engine, order[:done], 30.0)
    warm = perf_counter() - again
    text = f"{done} of {len(order)} runs, {len(canvases)} canvases: {took:.1f} s, when warm {warm:.1f} s"
    part.tell(text, canvases=len(canvases), cold_s=took, warm_s=warm)
    assert done == len(order)


@pytest.mark.parametrize("model", MODELS_OF_LINES)
def test_what_a_batch_costs_and_what_the_former_makes_of_it(model: Model, folder: Path, part: Part) -> None:
    from tests.benchmarks.batch_former import FORMERS, simulate

    loaded = _loaded(folder, model)
    rule = loaded.metadata.resize
    line = measure_line(loaded.engine, rule, either(BATCH, 2), 12_000_000, either(10.0, 1.0), loaded.canvas_multiple)
    share = _fixed_share(line, loaded)
    first, by_cost = (simulate(former, share, None, either(4000, 200)).images_per_s for former in FORMERS)
    text = f"{1e3 * line.fixed:.2f} ms and {1e9 * line.per_pixel:.2f} ms a megapixel, a share of {share:.2f} fixed"
    part.tell(text, fixed_s=line.fixed, per_pixel_s=line.per_pixel, fixed_share=share)
    part.tell(f"former by cost ÷ first in, first out: {by_cost / first:.2f}", former_ratio=by_cost / first)


@pytest.mark.parametrize(("model", "precision", "task"), SERVED)
def test_the_service_beside_the_bare_engine(
    model: Model, precision: Stored, task: TaskName, folder: Path, part: Part
) -> None:
    from service.bench.bare_engine import bare_engine
    from tests.benchmarks.serving_sides import our_service

    pictures = _pictures(model)
    given = {"model": str(artifact_file(folder, model, precision)), "device": DEVICE}
    saturated, bare, host = [], [], []
    # By default every query of these untrained networks may be kept; the service and the loop are asked alike.
    threshold = 0.5 if task == "segment" else None
    query = "" if threshold is None else f"?threshold={threshold}"
    with (
        _peak_of_device() as peak,
        our_service(given, pictures, task, query) as service,
        bare_engine(given, pictures, task, threshold, either(BATCH, 2)) as engine,
    ):
        for _ in range(TURNS):
            before = _cpu_seconds(service.process.pid)
            saturated.append(service.throughput(CLIENTS, IMAGES))
            host.append(1000 * (_cpu_seconds(service.process.pid) - before) / IMAGES)
            times = engine.seconds(seconds=either(3.0, 0.1))
            bare.append(engine.batch_size * len(times) / sum(times))
    ratio = median(ours / theirs for ours, theirs in zip(saturated, bare, strict=True))
    ours, theirs, cpu = median(saturated), median(bare), median(host)
    part.tell(
        f"{ours:.0f} images/s, bare engine {theirs:.0f}, ratio {ratio:.2f}; host {cpu:.1f} ms of CPU an image",
        images_per_s=ours, bare_images_per_s=theirs, ratio=ratio, host_cpu_ms=cpu,
    )  # fmt: skip
    part.tell(f"device memory + {peak() / 1e9:.2f} GB for both", device_bytes=peak())


@pytest.mark.parametrize("images", either((1, BATCH), (2,)))
def test_the_same_network_in_pytorch(images: int, folder: Path, part: Part) -> None:
    """Eager and compiled, in float16 (autocast), on the canvas of a picture of usual size."""
    from tests.gpu.torch_peer import compiled_seconds, eager_seconds

    model: Model = either(R50, DEMO)
    loaded = _loaded(folder, model, "float16")
    height, width = loaded.metadata.resize.size(480, 640)
    batch = make_batch([np.zeros((height, width, 3), np.uint8)] * images, loaded.canvas_multiple)
    thresholds = np.full(images, NO_MASKS, np.float32)
    ours = images / _seconds(lambda: loaded.engine.infer(batch, thresholds))
    part.tell(f"batch of {images}, ours {ours:.0f} images/s", ours=ours)
    for name, measure in (("eager", eager_seconds), ("torch.compile", compiled_seconds)):
        theirs = images / measure(model, batch, TORCH_DEVICE)
        part.tell(f"{name} {theirs:.0f}, ratio {ours / theirs:.2f}", **{name: theirs})


def _loaded(folder: Path, model: Model, precision: Stored = "float32") -> LoadedModel:
    return load_model(read_settings({"model": str(artifact_file(folder, model, precision)), "device": DEVICE}))


def _pictures(model: Model) -> list[bytes]:
    if model == DEMO:
        return synthetic_pictures(either(32, 4), scale=0.3)
    return [synthetic_jpeg((480, 640), seed) for seed in range(either(8, 2))]


def _fixed_share(line: LatencyLine, loaded: LoadedModel) -> float:
    height, width = loaded.metadata.resize.size(480, 640)
    pixels = make_batch([np.zeros((height, width, 3), np.uint8)], loaded.canvas_multiple).padding_mask.size
    return line.fixed / line.seconds(pixels)


def _seconds(run: Callable[[], object]) -> float:
    for _ in range(either(5, 1)):
        run()
    took = []
    for _ in range(either(30, 2)):
        began = perf_counter()
        run()
        took.append(perf_counter() - began)
    return median(took)


def _cpu_seconds(pid: int) -> float:
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


@contextmanager
def _peak_of_device() -> Iterator[Callable[[], float]]:
    """How much more of the device's memory was in use at most than before, by anybody, asked a few times a second."""
    before = most = used_device_bytes()
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.2):
            most = max(most, used_device_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: float(most - before)
    finally:
        ended.set()
        thread.join()
