"""What a load came to: from samples to figures, as a table and as JSON."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.bench.load import Sample

# Names of the server's own metrics, whose sums and counts are read before and after a load.
_BATCH_SIZE, _PADDING_RATIO = "detr_batch_size", "detr_batch_padding_ratio"
_RESIDENT = "process_resident_memory_bytes"


@dataclass(frozen=True)
class Figures:
    """One load's figures. Latencies are of answers with status 200, in milliseconds from when they were due."""

    requests: int
    seconds: float  # from the first request's due time to the last answer
    throughput: float  # answers with status 200 a second
    goodput: float  # of these, the ones within the deadline
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    client_late_ms: float | None  # the 99th percentile of how long after it was due a request was sent
    errors: dict[str, int]  # all other answers, by status or by what broke
    stages_ms: dict[str, float]  # mean time in each stage


@dataclass(frozen=True)
class ServerFigures:
    """What the server's metrics say about the same time; None where they do not."""

    batch_size: float | None  # mean images in a batch
    padding_ratio: float | None  # mean over batches
    resident_bytes: float | None  # memory, at the end


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values, in rising order, do not exceed; None without any."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def figures_of(samples: Sequence[Sample], deadline_ms: float = math.inf) -> Figures:
    """The figures of a load.

    Args:
        samples: what happened, at least one.
        deadline_ms: latency up to which an answer counts as good.
    """
    good = [sample for sample in samples if sample.status == 200]
    latencies = sorted(1000 * sample.latency for sample in good)
    seconds = max(sample.ended for sample in samples) - min(sample.scheduled for sample in samples)
    return Figures(
        requests=len(samples),
        seconds=seconds,
        throughput=len(good) / seconds if seconds else 0.0,
        goodput=sum(latency <= deadline_ms for latency in latencies) / seconds if seconds else 0.0,
        p50_ms=percentile(latencies, 0.5),
        p95_ms=percentile(latencies, 0.95),
        p99_ms=percentile(latencies, 0.99),
        client_late_ms=percentile(sorted(1000 * (s.started - s.scheduled) for s in samples), 0.99),
        errors=dict(sorted(Counter(s.error or str(s.status) for s in samples if s.status != 200).items())),
        stages_ms=_mean_stages(good),
    )


def server_figures(before: str, after: str) -> ServerFigures:
    """What happened between two texts of GET /metrics."""
    first, last = read_metrics(before), read_metrics(after)
    return ServerFigures(
        batch_size=_mean(_BATCH_SIZE, first, last),
        padding_ratio=_mean(_PADDING_RATIO, first, last),
        resident_bytes=last.get(_RESIDENT),
    )


def read_metrics(text: str) -> dict[str, float]:
    """The samples in Prometheus's text format by their names, those of one name added up whatever their labels."""
    found: defaultdict[str, float] = defaultdict(float)
    for line in text.splitlines():
        if line and line[0] != "#":
            series, _, value = line.rpartition(" ")
            found[series.partition("{")[0]] += float(value)
    return dict(found)


def load_table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values in Markdown."""
    return "\n".join(["| figure | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def load_rows(figures: Figures) -> list[tuple[str, str]]:
    """A load's figures in words."""
    rows = [
        ("requests", f"{figures.requests} in {figures.seconds:.1f} s"),
        ("throughput", f"{figures.throughput:.2f} images/s"),
        ("goodput", f"{figures.goodput:.2f} images/s"),
        (
            "latency p50 / p95 / p99",
            " / ".join(_ms(value) for value in (figures.p50_ms, figures.p95_ms, figures.p99_ms)),
        ),
        ("errors", ", ".join(f"{name}: {count}" for name, count in figures.errors.items()) or "none"),
    ]
    return rows + [(f"stage {name}, mean", _ms(value)) for name, value in figures.stages_ms.items()]


def server_rows(server: ServerFigures) -> list[tuple[str, str]]:
    """The server's figures in words."""
    rows = [("images a batch, mean", server.batch_size), ("padding ratio, mean", server.padding_ratio)]
    return [(name, f"{value:.2f}") for name, value in rows if value is not None]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _mean(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Mean of what a histogram took between two readings."""
    count, total = (after.get(key, 0.0) - before.get(key, 0.0) for key in (f"{name}_count", f"{name}_sum"))
    return total / count if count else None


def _mean_stages(samples: Iterable[Sample]) -> dict[str, float]:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        for stage, milliseconds in sample.stages().items():
            times[stage].append(milliseconds)
    return {stage: sum(each) / len(each) for stage, each in times.items()}
