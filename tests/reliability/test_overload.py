"""More load than the service can take: what it can do it does, all else is refused at once (L3 to L6, M3, M5)."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.bench.load import Request, Sample, open_loop
from tests.end_to_end.test_batch_exactness import assert_same_detections, scene_jpeg
from tests.processes import until
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.metrics_truth import assert_metrics_tell_the_truth
from tests.reliability.raw_http import connect, read_answer, request
from tests.reliability.scripted_engine import identity_of, picture
from tests.reliability.under_load import (
    CAPACITY,
    PLACES,
    SCRIPT,
    STEADY,
    check_answers,
    check_only_200_or_503,
    knee,
    latency_ms,
    memory_budget,
    overload,
    photos,
    quiet_answers,
    saturate,
    scaled,
    small_pictures,
    tally,
    target_of,
    watching,
)
from tests.server_process import ServerProcess, serving


@pytest.mark.row(id="L4")
@pytest.mark.parametrize("too_many", [1, 7])
def test_of_all_at_once_exactly_those_that_find_no_place_are_refused(start: Scripted, too_many: int) -> None:
    batch, queue = 4, 8
    limits = ("--max-batch-size", str(batch), "--max-queue-size", str(queue), "--max-queue-delay-ms", "10000")
    # Each batch hangs until it is told to go on, which lets the next one begin and hang.
    hanging = {"hang_at": [1], "hang_s": 600}
    with start(*PATIENT, *limits, script=hanging) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server.port)) for _ in range(batch + queue + too_many)]
        for identity, client in enumerate(clients):
            client.sendall(request(body=picture(identity)))
        refused = 'detr_rejected_total{reason="queue_full"}'
        until(lambda: server.samples().get(refused) == too_many)
        for left in range(queue, -1, -batch):
            until(lambda left=left: server.samples()["detr_queue_depth"] == left)  # type: ignore[misc]
            assert server.script()["running"] == 1
            server.script(**(hanging if left else {"hang_at": []}))
        answers = [(identity, read_answer(client)) for identity, client in enumerate(clients)]
        assert server.samples()[refused] == too_many
        assert server.script()["images"] == batch + queue
    served = [(identity, answer) for identity, answer in answers if answer and answer.status_code == 200]
    assert [identity_of(answer.json()) for _, answer in served] == [identity for identity, _ in served]
    waits = [answer.headers["retry-after"] for _, answer in answers if answer and answer.status_code == 503]
    assert (len(served), len(waits)) == (batch + queue, too_many)
    assert all(int(wait) >= 1 for wait in waits)


@pytest.mark.slow
@pytest.mark.row(id="L3")
@pytest.mark.row(id="L6")
@pytest.mark.row(id="M3")
@pytest.mark.row(id="M5")
def test_five_times_too_much_is_answered_or_refused_and_the_books_are_right(start: Scripted) -> None:
    with start(*PATIENT, script=SCRIPT) as server:
        pictures = small_pictures()
        quiet = quiet_answers(server, pictures[:8])
        seen = overload(server, pictures[:8], rate=5 * CAPACITY, seconds=3)
        check_only_200_or_503(seen.load)
        assert set(tally(seen.load)) == {200, 503}
        assert len(seen.load) == 15 * CAPACITY
        check_answers(seen.load, quiet)
        check_health(seen.health)
        check_scrapes(seen.scrapes)
        assert_metrics_tell_the_truth(server, counted(quiet, seen.load))
        assert server.errors() == []


def counted(*groups: Sequence[Sample]) -> Counter[tuple[str, int]]:
    """How often /detect was seen to answer with each status."""
    return Counter(("detect", sample.status) for samples in groups for sample in samples)


def check_health(health: Sequence[Sample]) -> None:
    """Live and ready both say so all the time: a full queue is no reason to be taken out of service."""
    assert tally(health) == {200: len(health)}


def check_scrapes(scrapes: Sequence[Sample]) -> None:
    """Each is metrics that Prometheus can read."""
    assert tally(scrapes) == {200: len(scrapes)}
    for sample in scrapes:
        assert sample.body is not None
        families = {family.name for family in text_string_to_metric_families(sample.body.decode())}
        assert {"detr_requests", "detr_queue_depth"} <= families


@pytest.mark.soak
@pytest.mark.row(id="L3")
@pytest.mark.row(id="L6")
@pytest.mark.row(id="M3")
@pytest.mark.row(id="M5")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("factor", [2, 5, 10])
def test_overload_costs_nothing_of_what_the_service_can_do(start: Scripted, measured: Measured, factor: int) -> None:
    with start(script=SCRIPT) as server:
        quiet = quiet_answers(server, photos())
        saturated = saturate(server, photos())
        before = knee(saturated)
        with watching(server) as use:
            seen = overload(server, photos(), rate=factor * before, seconds=scaled(60))
        assert_metrics_tell_the_truth(server, counted(quiet, saturated, seen.load))
        budget = memory_budget(server)
        errors = server.errors()
    kept = seen.goodput / before
    refused_ms, served_ms = latency_ms(seen.load, 503, 0.99), latency_ms(seen.load, 200, 0.99)
    live_ms, scrape_ms = latency_ms(seen.health, 200, 0.99), latency_ms(seen.scrapes, 200, 0.99)
    cores = use.cpu_seconds / seen.seconds
    resets = sum(bool(sample.error) for sample in seen.load)
    measured(
        "L3",
        f"{factor} x {before:.1f}/s: goodput {100 * kept:.0f} %; p99 of 503s {refused_ms:.0f} ms, of 200s "
        f"{served_ms:.0f} ms; {resets} resets; peak {use.rss / 1e6:.0f} MB of {budget / 1e6:.0f} MB; {cores:.2f} cores",
        factor=factor,
        knee=before,
        goodput_share=kept,
        p99_503_ms=refused_ms,
        p99_200_ms=served_ms,
        resets=resets,
        peak_mb=use.rss / 1e6,
        budget_mb=budget / 1e6,
        cores=cores,
    )
    measured("L6", f"{factor} x: p99 of health {live_ms:.0f} ms, all 200", factor=factor, p99_ms=live_ms)
    measured("M3", f"{factor} x: p99 of metrics {scrape_ms:.0f} ms, all 200", factor=factor, p99_ms=scrape_ms)
    check_only_200_or_503(seen.load)
    check_answers(seen.load, quiet)
    check_health(seen.health)
    check_scrapes(seen.scrapes)
    assert kept >= 0.9
    assert refused_ms <= 100
    assert served_ms <= 1000 * (PLACES / before + 1)
    assert use.rss <= budget
    assert live_ms <= 250
    assert scrape_ms <= 250
    assert errors == []


def is_empty(samples: Mapping[str, float]) -> bool:
    """Nothing is in flight but this question."""
    return samples["detr_queue_depth"] == 0 and samples["detr_requests_in_flight"] == 1


@pytest.mark.soak
@pytest.mark.row(id="L5")
@pytest.mark.timeout(600)
def test_five_seconds_after_overload_nothing_is_left_of_it(start: Scripted, measured: Measured) -> None:
    def steady(server: ServerProcess, rate: float, seconds: float) -> list[Sample]:
        samples = asyncio.run(open_loop(target_of(server), photos(), rate=rate, seconds=seconds))
        assert tally(samples) == {200: len(samples)}
        return samples

    with start(script=SCRIPT) as server:
        most = knee(saturate(server, photos()))
        before = latency_ms(steady(server, STEADY * most, scaled(30)), 200, 0.99)
        overload(server, photos(), rate=5 * most, seconds=scaled(20))
        emptied = until(lambda: is_empty(server.samples()), timeout_s=5)
        after = latency_ms(steady(server, STEADY * most, scaled(30)), 200, 0.99)
    measured(
        "L5",
        f"gauges 0 after {emptied:.1f} s; then p99 {after:.0f} ms, before {before:.0f} ms",
        emptied_s=emptied,
        p99_ms=after,
        before_ms=before,
    )
    assert after <= 1.2 * before


@pytest.mark.soak
@pytest.mark.row(id="M3")
@pytest.mark.timeout(600)
def test_to_be_scraped_costs_no_throughput(start: Scripted, measured: Measured) -> None:
    with start(script=SCRIPT) as server:
        most = knee(saturate(server, photos()))
        # In turns, so that a machine that slows down meanwhile slows both alike.
        runs = [overload(server, photos(), rate=5 * most, seconds=scaled(20), scrape_rate=r) for r in (0, 10, 10, 0)]
    without, scraped = runs[0].goodput + runs[3].goodput, runs[1].goodput + runs[2].goodput
    loss = 1 - scraped / without
    measured("M3", f"throughput lost to ten scrapes a second: {100 * loss:.1f} %", loss=loss)
    assert loss <= 0.02


@pytest.mark.soak
@pytest.mark.row(id="L3")
@pytest.mark.timeout(600)
def test_the_demo_model_s_answers_are_right_at_five_times_too_much(tmp_path: Path, measured: Measured) -> None:
    requests = [Request("/detect", scene_jpeg(index, 480)) for index in range(16)]
    with serving(None, tmp_path) as server:
        quiet = quiet_answers(server, requests)
        # What it can do is asked before each overload and after the last, because the machine is a quarter faster in
        # one minute than in another.
        saturated, overloads = [saturate(server, requests)], []
        for _ in range(4):
            overloads.append(overload(server, requests, rate=5 * knee(saturated[-1]), seconds=scaled(15)))
            saturated.append(saturate(server, requests))
        every = [quiet, *saturated, *(seen.load for seen in overloads)]
        served = [sample for samples in every for sample in samples if sample.status == 200]
        assert_metrics_tell_the_truth(server, counted(*every), images=len(served))
    expected = [detections_of(sample) for sample in quiet]
    load = [sample for seen in overloads for sample in seen.load]
    check_only_200_or_503(load)
    check_health([sample for seen in overloads for sample in seen.health])
    for sample in load:
        if sample.status == 200:
            assert_same_detections(detections_of(sample), expected[sample.request])
    knees = [knee(samples) for samples in saturated]
    kept = [2 * seen.goodput / sum(both) for seen, both in zip(overloads, pairwise(knees), strict=True)]
    refused_ms = latency_ms(load, 503, 0.99)
    measured(
        "L3",
        f"demo model, 5 x {median(knees):.1f}/s: {tally(load)[200]} answers, all right; "
        f"goodput {100 * median(kept):.0f} % ({100 * min(kept):.0f} to {100 * max(kept):.0f}); "
        f"p99 of 503s {refused_ms:.0f} ms",
        knee=median(knees),
        goodput_share=median(kept),
        p99_503_ms=refused_ms,
    )


def detections_of(sample: Sample) -> list[dict[str, Any]]:
    return list(json.loads(sample.body or b"")["detections"])
