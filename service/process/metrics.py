"""What the service measures, in Prometheus's words: base units, and no label that a client can choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from model.runtime.artifact.metadata import Metadata
from service.process.trace import Stage, Trace

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Endpoints whose requests are timed: those that compute, and those that show how long the event loop keeps a request
# waiting. A histogram is seventeen series, and the others' would say nothing that these do not.
TIMED = ("detect", "segment", "infer", "live", "ready")
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
# The reasons are service/batching/former.py's DispatchReason.
_DISPATCH = (
    "Counts batches by the reason why they went with no more images: full (max_batch_size or max_batch_pixels was "
    "reached), other_size (only images of another size waited, and the model's padding leaks), cheaper_apart (one more "
    "would have cost more than it saved), deadline (one more, or waiting for one, would have made an image miss its "
    "deadline), waited (max_queue_delay_ms had passed), idle (no other image waited), drain (no other image waited, "
    "and the service was about to end)."
)
_NO_DEVICE = ""  # of a stage that is on none; to Prometheus the same as no label at all
_RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Metrics:
    """One app's metrics, in a registry of their own, so that several apps in a process do not meet."""

    def __init__(self) -> None:
        # When each counter and histogram began would be a series of its own, and Prometheus sees restarts without
        # it. The switch is for the whole process.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._add_clients()
        self._add_batches()
        self._add_operations()
        # What every request or batch is noted under is looked up once; to look it up takes longer than to note it.
        self._requests_of = cache(self.requests.labels)
        self._rejected_for = cache(self.rejected.labels)
        self._stages_on = cache(self.stage_duration.labels)
        self.batches_for = cache(self.batch_dispatch.labels)
        self.batch_sizes_on = cache(self.batch_size.labels)
        self.padding_ratios_on = cache(self.batch_padding_ratio.labels)

    def _add_clients(self) -> None:
        """Of requests and connections."""
        self.requests = Counter(
            "detr_requests",
            "Counts answered requests by endpoint and status.",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self.request_duration = Histogram(
            "detr_request_duration_seconds",
            f"Measures the seconds from a request's headers to its answer's end, for the endpoints {', '.join(TIMED)}.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._durations = {endpoint: self.request_duration.labels(endpoint=endpoint) for endpoint in TIMED}
        self.requests_in_flight = Gauge(
            "detr_requests_in_flight",
            "Shows how many requests have begun and are not answered.",
            registry=self.registry,
        )
        self.images_in_flight = Gauge(
            "detr_images_in_flight",
            "Shows how many images are accepted and not answered; services are to be scaled by it.",
            registry=self.registry,
        )
        self.connections = Gauge("detr_connections", "Shows how many connections are open.", registry=self.registry)
        self.connections_closed = Counter(
            "detr_connections_closed",
            "Counts connections that were cut off, by reason: room (for a new one, max_connections being open), "
            "slow_headers (of a request), slow_reader (of an answer), slow_rest (of an upload that was refused).",
            ["reason"],
            registry=self.registry,
        )
        _show_zeros(self.connections_closed, "room", "slow_headers", "slow_reader", "slow_rest")
        self.stage_duration = Histogram(
            "detr_stage_duration_seconds",
            "Measures the seconds of one image in one stage; infer has the device that it was on.",
            ["stage", "device"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        # Looked up once, because every request is noted under each.
        on_none = [stage for stage in get_args(Stage) if stage != "infer"]
        self._stages = {stage: self.stage_duration.labels(stage, _NO_DEVICE) for stage in on_none}
        self.rejected = Counter(
            "detr_rejected",
            "Counts requests that were not answered with a success, by error code.",
            ["reason"],
            registry=self.registry,
        )

        self.failed_images = Counter(
            "detr_failed_images",
            "Counts images of requests with several that got an error each of their own, by the status that it would "
            "have alone and by error code; the status of their requests is 200.",
            ["status", "reason"],
            registry=self.registry,
        )
        for status, reason in (("500", "engine_error"), ("500", "internal_error"), ("504", "deadline_passed")):
            self.failed_images.labels(status, reason)  # which an alert looks at, see `_show_zeros`

    def _add_batches(self) -> None:
        """Of the queue and what leaves it."""
        self.queue_depth = Gauge(
            "detr_queue_depth", "Shows how many images wait for an engine.", registry=self.registry
        )
        self.batch_size = Histogram(
            "detr_batch_size", "Measures how many images a batch has, by device.", ["device"], buckets=_BATCH_SIZES,
            registry=self.registry,
        )  # fmt: skip
        self.batch_padding_ratio = Histogram(
            "detr_batch_padding_ratio", "Measures the fraction of a batch's pixels that is padding.", ["device"],
            buckets=_RATIOS, registry=self.registry,
        )  # fmt: skip
        self.batch_dispatch = Counter(
            "detr_batch_dispatch", _DISPATCH, ["reason", "device"], registry=self.registry,
        )  # fmt: skip
        self.batch_splits = Counter(
            "detr_batch_splits",
            "Counts batches that failed and were run again in parts, by reason: memory (ran out), error (any other).",
            ["reason", "device"],
            registry=self.registry,
        )
        self.max_batch_size = Gauge(
            "detr_max_batch_size",
            "Shows how many images a batch may have: max_batch_size, or less for a while after memory ran out.",
            ["device"],
            registry=self.registry,
        )

    def _add_operations(self) -> None:
        """Of the engine, the model and the process."""
        self.engine_up = Gauge(
            "detr_engine_up",
            "Is 1 while the engine on this device takes batches, and 0 while it is stuck in one for longer than "
            "engine_stall_ms, is being opened again, or is lost.",
            ["device"],
            registry=self.registry,
        )
        self.engine_reopens = Counter(
            "detr_engine_reopens",
            "Counts how often an engine was opened again because image after image failed, by result: opened, failed.",
            ["result", "device"],
            registry=self.registry,
        )
        self.engine_stalled = Gauge(
            "detr_engine_stalled",
            "Is 1 while no engine takes batches, one being stuck, and requests are refused, and else 0.",
            registry=self.registry,
        )
        self.decoders_overdue = Gauge(
            "detr_decoders_overdue",
            "Shows how many of cpu_threads have been at one image for longer than request_timeout_ms; while all have, "
            "requests are refused.",
            registry=self.registry,
        )
        self.model_reloads = Counter(
            "detr_model_reloads",
            "Counts reloads of the model, by result: replaced, refused (the file or the device cannot be used).",
            ["result"],
            registry=self.registry,
        )
        _show_zeros(self.model_reloads, "replaced", "refused")
        self.memory_budget = Gauge(
            "detr_memory_budget_bytes",
            "Shows the most bytes that the service takes at its present settings; its log says what for.",
            registry=self.registry,
        )
        self.log_lines_dropped = Counter(
            "detr_log_lines_dropped",
            "Counts log lines that were not written, because the log's reader is too slow or it cannot be written.",
            registry=self.registry,
        )
        self.library_warnings = Counter(
            "detr_library_warnings",
            "Counts warnings of libraries, such as a decoder's of an odd image; the log has a few of them.",
            registry=self.registry,
        )
        self.model_info = Info("detr_model", "Describes the model that is served.", registry=self.registry)

    def describe_model(self, metadata: Metadata, device: str, precision: str) -> None:
        """Fill `detr_model_info` once the model has loaded."""
        self.model_info.info(
            {
                "name": metadata.name,
                "task": metadata.task,
                "padding": metadata.padding,
                "format_version": str(metadata.format_version),
                "device": device,
                "precision": precision,
            }
        )

    def of_device(self, device: str) -> DeviceMetrics:
        """What is noted of the batches on a device; its counters begin at 0, see `_show_zeros`."""
        for trouble in ("memory", "error"):
            self.batch_splits.labels(trouble, device)
        for result in ("opened", "failed"):
            self.engine_reopens.labels(result, device)
        return DeviceMetrics(self, device)

    def watch_engine(self, device: str, is_up: Callable[[], bool]) -> None:
        """Ask this, from any thread, whether the engine on a device takes batches, whenever metrics are read."""
        self.engine_up.labels(device).set_function(is_up)

    def request_ended(self, endpoint: str, status: int, seconds: float, trace: Trace) -> None:
        """Note an answered request."""
        self._requests_of(endpoint, str(status)).inc()
        if (duration := self._durations.get(endpoint)) is not None:
            duration.observe(seconds)
        for stage, stage_seconds in tuple(trace.stages.items()):
            if stage != "infer":
                self._stages[stage].observe(stage_seconds)
        for device, infer_seconds in trace.infer_seconds.items():
            self._stages_on("infer", device).observe(infer_seconds)
        if trace.error_code is not None:
            self._rejected_for(trace.error_code).inc()
        for image_status, reason in trace.image_errors:
            self.failed_images.labels(status=str(image_status), reason=reason).inc()

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True)
class DeviceMetrics:
    """What is noted of the batches on one device."""

    metrics: Metrics
    device: str

    def batch_went(self, reason: str) -> None:
        """Note a batch that goes to the engine."""
        self.metrics.batches_for(reason, self.device).inc()

    def batch_succeeded(self, size: int, padding_ratio: float) -> None:
        """Note a batch, or a part of one, that the engine has answered."""
        self.metrics.batch_sizes_on(self.device).observe(size)
        self.metrics.padding_ratios_on(self.device).observe(padding_ratio)

    def batch_split(self, trouble: str) -> None:
        """Note a batch that failed and is run again in parts."""
        self.metrics.batch_splits.labels(trouble, self.device).inc()

    def may_have(self, images: int) -> None:
        """Note how many images a batch may have from now on."""
        self.metrics.max_batch_size.labels(self.device).set(images)

    def engine_reopened(self, result: str) -> None:
        """Note that the engine was opened again, or could not be."""
        self.metrics.engine_reopens.labels(result, self.device).inc()


def _show_zeros(counter: Counter, *values: str) -> None:
    """Have a series for each value of the one label before anything is counted: Prometheus sees no increase in one that
    begins at 1, so alerts would miss the first of them.
    """
    for value in values:
        counter.labels(value)
