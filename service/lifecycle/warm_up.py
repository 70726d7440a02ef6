"""Getting a model ready to serve: loaded and proved, its batches timed, its memory measured."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from model.runtime.engines.canvases import canvases_of
from model.runtime.engines.engine import Engine, is_gpu
from model.runtime.engines.raw_outputs import ALL_MASKS
from model.runtime.preprocess import make_batch
from service.batching.former import MIN_SAVING
from service.batching.latency_line import UNMEASURED, LatencyLine
from service.lifecycle.canvas_warm_up import warm_canvases, warm_up_order
from service.lifecycle.engine_timing import measure_line
from service.lifecycle.loading import LoadedModel, ModelLoader, threads_of_engine
from service.process.memory import resident_bytes
from service.process.memory_budget import EngineMemory, largest_canvas, largest_image
from service.process.running_time import TimeSource
from service.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Padded pixels of the image whose memory is measured. With every query's mask a full-size one can take gigabytes, which
# runtimes keep; what it takes grows with its pixels.
_SAMPLE_PIXELS = 256 * 256
# Runtimes take memory in steps, which grow: R50 took 1.37 times as much for 800 x 1333 pixels as its sample foretold.
_STEPS = 1.5
# Padded pixels of the largest batch that is worth a try on a CPU: one image at 800 x 1066. A runtime keeps the memory
# of the largest batch it ever ran, 0.2 GB an image of R50, and batches of images that large save nothing there, as a
# line through one point says. Where images are small, or on a GPU, larger ones are worth it.
_CPU_BATCH_PIXELS = 2**20
# Of an engine that is not measured: only what a batch saves counts, and the first batches correct the rest. On a GPU
# the first image of a batch costs about twice as much as each of the others.
_ON_GPU = LatencyLine(0.05, 1e-7)
# On a core, DETR R50 takes 0.6 s for a megapixel in bfloat16, as the demo model does; and to go through the graph's few
# hundred operations takes milliseconds on any number of cores, however small the images are.
_ON_A_CORE = LatencyLine(0.004, 6e-7)


@dataclass(frozen=True)
class WarmModel:
    """A model, and what was learnt of it."""

    model: LoadedModel
    lines: Mapping[str, LatencyLine]  # by engine; those that nobody measured are not in it
    memory: EngineMemory | None  # None where it cannot be measured


def load_and_warm_up(settings: Settings, loader: ModelLoader, clock: TimeSource = time.perf_counter) -> WarmModel:
    """Load a model and learn what its batches cost, by this clock; takes seconds.

    Raises:
        SettingsError, HubError, ArtifactError, DeviceError: see `ModelLoader.load` and `measure_line`.
    """
    before = resident_bytes()
    model = loader.load()
    loaded = resident_bytes()
    bytes_per_pixel = 0.0
    if is_gpu(model.device) and settings.warm_up_ms > 0:
        canvases = canvases_of(model.metadata.resize, model.canvas_multiple)
        order = warm_up_order(canvases, settings.max_batch_size, settings.max_batch_pixels)
        _on_each(model, lambda engine: warm_canvases(engine, order, settings.warm_up_ms / 1000, clock))
    if settings.batch_timing_ms > 0:
        bytes_per_pixel = _bytes_per_pixel(model)
    lines = measured_lines(model, settings, clock)
    if before is None or loaded is None:
        return WarmModel(model, lines, None)
    canvas = largest_canvas(model.metadata, largest_image(settings, model.metadata), model.canvas_multiple)
    pixels = max(largest_batch(lines.get(name, UNMEASURED), canvas, settings) for name in model.engines)
    return WarmModel(model, lines, EngineMemory(before, loaded, bytes_per_pixel, pixels, len(model.engines)))


def measured_lines(
    model: LoadedModel, settings: Settings, clock: TimeSource = time.perf_counter
) -> Mapping[str, LatencyLine]:
    """What batches cost on each engine, by name and by this clock, measured in `batch_timing_ms`; nothing if that is 0.

    Raises what `measure_line` raises.
    """
    if not settings.batch_timing_ms:
        return {}
    most = settings.max_batch_pixels
    pixels = most if is_gpu(model.device) else min(most, _CPU_BATCH_PIXELS)
    limits = settings.max_batch_size, pixels, settings.batch_timing_ms / 1000
    rule, multiple = model.metadata.resize, model.canvas_multiple
    return _on_each(model, lambda engine: measure_line(engine, rule, *limits, multiple, clock))


def assumed_lines(model: LoadedModel, settings: Settings) -> Mapping[str, LatencyLine]:
    """What batches cost as a rule, by engine, for who has too little to do to measure it.

    By these, images share batches on a GPU, and on a CPU where they are small.
    """
    threads = threads_of_engine(settings, len(model.engines))
    on_cpu = LatencyLine(_ON_A_CORE.fixed, _ON_A_CORE.per_pixel / threads)
    return dict.fromkeys(model.engines, _ON_GPU if is_gpu(model.device) else on_cpu)


def largest_batch(line: LatencyLine, canvas: int, settings: Settings) -> int:
    """Padded pixels of the largest batch that can be formed, where one image has up to `canvas`.

    By the former's rule an image joins only if that saves enough, and so does not lengthen the batch by more pixels
    than `worthwhile`, its padding included.
    """
    worthwhile = (1 / MIN_SAVING - 1) * line.fixed / line.per_pixel if line.per_pixel > 0 else math.inf
    together = canvas + (settings.max_batch_size - 1) * min(canvas, worthwhile)
    return max(canvas, round(min(settings.max_batch_pixels, together)))


def _on_each(model: LoadedModel, work: Callable[[Engine], T]) -> dict[str, T]:
    """The results of some work on all engines at once, as they will work, by name. Raises what it raises."""
    with ThreadPoolExecutor(len(model.engines), thread_name_prefix="warm-up") as pool:
        return dict(zip(model.engines, pool.map(work, model.engines.values()), strict=True))


def _bytes_per_pixel(model: LoadedModel) -> float:
    """What the process grows by when each engine has run an image with all masks, by the pixels of one."""
    height, width = model.metadata.resize.largest(_SAMPLE_PIXELS)
    scale = min(1.0, math.sqrt(_SAMPLE_PIXELS / (height * width)))
    batch = make_batch([np.zeros((math.ceil(scale * height), math.ceil(scale * width), 3), dtype=np.uint8)])
    before = resident_bytes()
    try:
        for engine in model.engines.values():
            engine.infer(batch, np.array([ALL_MASKS], dtype=np.float32))
    except Exception as error:  # a device that is too small for this answers 503 where it is asked for it
        logger.warning("an image with the masks of all queries does not run: %s", type(error).__name__)
    after = resident_bytes()
    return 0.0 if before is None or after is None else _STEPS * max(0, after - before) / batch.padding_mask.size
