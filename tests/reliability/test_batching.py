"""Company never changes an answer, and nobody gets another's (row F13), and the metrics count it right (row M5)."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.end_to_end.test_batch_exactness import assert_same_detections, scene_jpeg
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.metrics_truth import assert_metrics_tell_the_truth
from tests.reliability.scripted_engine import identity_of, picture
from tests.server_process import ServerProcess, total

CLIENTS = 16


@pytest.mark.row(id="F13")
@pytest.mark.row(id="M5")
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.soak)])
def test_every_caller_gets_their_own_answer_and_is_counted(start: Scripted, measured: Measured, count: int) -> None:
    """A picture of its own for each request, of many sizes, to both endpoints, among some that are refused."""
    dice = random.Random(0)
    sizes = [(64, 64), (90, 64), (64, 107), (200, 150)]
    kinds = [dice.choices(["detect", "segment", "broken"], [8, 2, 1])[0] for _ in range(count)]

    with start(*PATIENT, script={"delay_ms": 1}) as server, server.client() as client:

        def ask(number: int) -> tuple[str, int, bool]:
            identity = (number * 0x10F2C3) & 0xFFFFFF  # odd, so that no two numbers share one
            body = picture(identity, sizes[number % 4], "WEBP" if number % 3 else "PNG")
            kind = kinds[number]
            path = "segment" if kind == "segment" else "detect"
            answer = client.post(f"/{path}", files={"image": body[:40] if kind == "broken" else body})
            right = kind != "detect" or identity_of(answer.json()) == identity
            return path, answer.status_code, right

        with ThreadPoolExecutor(CLIENTS) as pool:
            seen = list(pool.map(ask, range(count)))
        assert all(right for _, _, right in seen)
        counted = Counter((path, status) for path, status, _ in seen)
        assert {status for _, status in counted} == {200, 400}
        assert_metrics_tell_the_truth(server, counted)
        largest = server.script()["largest"]
    assert largest > 1
    measured("F13", f"{count} callers at {CLIENTS} at once, batches of up to {largest}: 0 swaps; metrics exact")


@pytest.mark.soak
@pytest.mark.row(id="F13")
def test_two_hundred_pictures_are_answered_alike_alone_and_in_a_batch(
    demo_server: ServerProcess, measured: Measured
) -> None:
    """The demo model's, with sizes from 60 to 400 pixels."""
    pictures = [scene_jpeg(index, 60 + index * 17 % 340) for index in range(200)]
    with demo_server.client() as client:

        def post(body: bytes) -> httpx.Response:
            answer = client.post("/detect", files={"image": body})
            answer.raise_for_status()
            return answer

        alone = [post(body).json()["detections"] for body in pictures]
        order = list(range(200))
        random.Random(0).shuffle(order)
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = pool.map(lambda index: post(pictures[index]).json()["detections"], order)
            crowded = dict(zip(order, answers, strict=True))
    worst = 0.0
    for index, expected in enumerate(alone):
        assert_same_detections(crowded[index], expected)
        edges = itertools.product(zip(crowded[index], expected, strict=True), ("x1", "y1", "x2", "y2"))
        worst = max(worst, *(abs(one["box"][edge] - other["box"][edge]) for (one, other), edge in edges), 0)
    assert total(demo_server.samples(), "detr_batch_size_count") < 400, "some shared a batch"
    measured("F13", f"200 pictures of the demo model, alone and mixed: worst box edge off by {worst:.2f} px")
