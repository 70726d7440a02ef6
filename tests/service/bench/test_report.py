from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bench.load import Sample
from service.bench.report import (
    ServerFigures,
    figures_of,
    load_rows,
    load_table,
    percentile,
    read_metrics,
    server_figures,
    server_rows,
)
from service.process.metrics import Metrics

SECONDS = st.floats(0, 100, allow_nan=False)


def sample(scheduled: float, latency: float, status: int = 200, error: str = "", timing: str = "") -> Sample:
    head = f"HTTP/1.1 {status} Phrase\r\nServer-Timing: {timing}".encode()
    return Sample(0, scheduled, scheduled, scheduled + latency, status, error, head, None)


SAMPLES = st.lists(
    st.builds(sample, SECONDS, SECONDS, st.sampled_from([200, 200, 503, 504])), min_size=1, max_size=60
)  # fmt: skip


@given(st.lists(SECONDS, min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    values.sort()
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    below = [value for value in values if value < found]
    assert len(below) < share * len(values) + 1e-9


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentile([], 0.5) is None


@given(SAMPLES, st.floats(1, 200_000))
def test_good_answers_are_those_with_200_within_the_deadline(samples: list[Sample], deadline_ms: float) -> None:
    figures = figures_of(samples, deadline_ms)
    answered = [each for each in samples if each.status == 200]
    assert figures.requests == len(samples) == len(answered) + sum(figures.errors.values())
    assert figures.goodput <= figures.throughput
    assert figures.seconds == max(each.ended for each in samples) - min(each.scheduled for each in samples)
    if figures.seconds > 0:
        good = sum(1000 * each.latency <= deadline_ms for each in answered)
        assert figures.throughput * figures.seconds == pytest.approx(len(answered))
        assert figures.goodput * figures.seconds == pytest.approx(good)
    assert figures_of(samples).goodput == figures.throughput


@given(SAMPLES)
def test_latencies_are_of_successes_alone(samples: list[Sample]) -> None:
    figures = figures_of(samples)
    latencies = [1000 * each.latency for each in samples if each.status == 200]
    if not latencies:
        assert (figures.p50_ms, figures.p95_ms, figures.p99_ms) == (None, None, None)
        return
    assert figures.p50_ms is not None
    assert figures.p95_ms is not None
    assert figures.p99_ms is not None
    assert min(latencies) <= figures.p50_ms <= figures.p95_ms <= figures.p99_ms <= max(latencies)


def test_a_load_in_words() -> None:
    samples = [sample(0, 0.1, timing="decode;dur=1, infer;dur=20"), sample(1, 0.3, timing="decode;dur=3")]
    samples += [sample(1, 3.0, 503), sample(2, 1.0, 0, "timeout")]
    figures = figures_of(samples, deadline_ms=200)
    assert load_rows(figures) == [
        ("requests", "4 in 4.0 s"),
        ("throughput", "0.50 images/s"),
        ("goodput", "0.25 images/s"),
        ("latency p50 / p95 / p99", "100.0 ms / 300.0 ms / 300.0 ms"),
        ("errors", "503: 1, timeout: 1"),
        ("stage decode, mean", "2.0 ms"),
        ("stage infer, mean", "20.0 ms"),
    ]
    assert load_table([("a", "b")]) == "| figure | value |\n| --- | --- |\n| a | b |"


def test_a_load_without_a_success_has_figures_too() -> None:
    figures = figures_of([sample(0, 0.0, 0, "ConnectionRefusedError")])
    assert figures.throughput == 0
    assert not any(isinstance(value, float) and math.isnan(value) for value in asdict(figures).values())
    assert dict(load_rows(figures))["latency p50 / p95 / p99"] == "- / - / -"


def test_the_server_s_means_are_of_what_happened_between_two_readings() -> None:
    metrics = Metrics()
    metrics.of_device("cuda:0").batch_succeeded(1, 0.5)
    before = metrics.text().decode()
    metrics.of_device("cuda:0").batch_succeeded(2, 0.1)
    metrics.of_device("cuda:1").batch_succeeded(4, 0.3)
    found = server_figures(before, metrics.text().decode())
    assert found.batch_size == pytest.approx(3)
    assert found.padding_ratio == pytest.approx(0.2)
    assert found.resident_bytes is not None
    assert found.resident_bytes > 1e6
    assert server_rows(found) == [("images a batch, mean", "3.00"), ("padding ratio, mean", "0.20")]


def test_a_server_that_tells_nothing_has_no_figures() -> None:
    assert server_figures("", "") == ServerFigures(None, None, None)
    assert server_rows(ServerFigures(None, None, None)) == []


def test_the_series_of_a_metric_are_added_up_and_comments_left_out() -> None:
    assert read_metrics('# HELP a of b\na{b="c d"} 1\na{b="e"} 2\nplain 2.5e+06\n') == {"a": 3, "plain": 2.5e6}
