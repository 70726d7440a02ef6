"""Kills, stalls, faults, reloads, rotations and rude clients at random, under load: nothing is lost or wrong."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.promised_digits import PROMISED
from tests.reliability.chaos import run
from tests.reliability.chaos_subject import network_subject
from tests.reliability.chaos_verdict import Answer, Ask, Comparison, Exchange, Keys, Manner, World, fault_of
from tests.reliability.conftest import Measured
from tests.reliability.mortal_server import LogReader, MortalServer, Window
from tests.reliability.under_load import scaled


@pytest.mark.slow
@pytest.mark.row(id="F8")
@pytest.mark.parametrize("seconds", [20, pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(1500)])])
def test_nothing_is_lost_and_nothing_is_wrong_whatever_happens(
    tmp_path: Path, measured: Measured, seconds: float
) -> None:
    result = run(scaled(seconds) if seconds > 20 else seconds, 1, tmp_path)
    events, requests = sum(result.events.values()), sum(result.outcomes.values())
    before, after = result.before, result.after
    measured(
        "F8",
        f"chaos for {result.seconds:g} s, seed 1: {events} events, {requests} requests, {result.right_answers} right "
        f"answers, {len(result.violations)} violations; {(after.rss - before.rss) / 1e6:+.1f} MB",
        events=events,
        requests=requests,
        right_answers=result.right_answers,
        violations=len(result.violations),
        kept_mb=(after.rss - before.rss) / 1e6,
    )
    assert result.violations[:5] == []
    assert result.right_answers > 200


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.row(id="F8")
@pytest.mark.parametrize(
    ("device", "precision"), [("cpu", "float32"), ("openvino", "float32"), ("openvino", "bfloat16")]
)
def test_the_promised_digits_hold_whatever_happens(
    device: str, precision: str, tmp_path: Path, measured: Measured
) -> None:
    result = run(scaled(120), 1, tmp_path, network_subject(device, precision))
    measured("F8", f"{device} {precision}, {result.seconds:g} s, seed 1: {result.comparison.told()}")
    assert result.violations[:5] == []
    assert result.right_answers > 200


ASK = Ask("/detect", b"picture", "image/png", 200, b'{"right": 1}')
HEADERS = {"x-request-id": "mine", "retry-after": "1"}
SEEN = Exchange(ASK, Manner("asks"), "mine", 10, 11, 12, Answer(200, HEADERS, ASK.answer))


def answered(status: int, code: str = "any", headers: dict[str, str] = HEADERS) -> Exchange:
    body = json.dumps({"error": {"code": code}}).encode()
    return replace(SEEN, answer=Answer(status, headers, body))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(MortalServer(tmp_path, tmp_path, (), {}), Keys("key"), [ASK])


WRONG = {
    "another's answer": replace(SEEN, answer=Answer(200, HEADERS, b'{"right": 2}')),
    "another's id": replace(SEEN, request_id="yours"),
    "none": replace(SEEN, answer=None, problem="IncompleteReadError"),
    "two": replace(SEEN, problem="more than one answer"),
    "refused for ever": answered(503, headers={"x-request-id": "mine"}),
    "refused till then": answered(503, headers=HEADERS | {"retry-after": "soon"}),
    "a failure": answered(500, "engine_error"),
    "no key needed": replace(SEEN, manner=Manner("no key", has_no_key=True)),
    "a key that was valid": answered(401),
    "too slow": answered(408),
    "nonsense": answered(400),
    "not found": answered(404),
}


@pytest.mark.parametrize("exchange", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_noticed(world: World, exchange: Exchange) -> None:
    assert fault_of(SEEN, world) is None
    assert fault_of(exchange, world) is not None


def test_an_answer_within_the_promise_is_right_and_its_difference_is_told(world: World) -> None:
    def body(score: float) -> bytes:
        box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
        found = [{"label": "star", "category_id": 1, "score": score, "box": box}]
        return json.dumps({"model": "any", "image": {"width": 9, "height": 9}, "detections": found}).encode()

    ask = replace(ASK, answer=body(0.9))
    near, far = (replace(SEEN, ask=ask, answer=Answer(200, HEADERS, body(score))) for score in (0.9001, 0.91))
    assert fault_of(near, world) == "a wrong answer", "of a scripted engine every digit counts"
    world.comparison = Comparison(PROMISED["openvino", "bfloat16"])
    assert fault_of(replace(near, answer=Answer(200, HEADERS, ask.answer)), world) is None
    assert fault_of(near, world) is None
    assert "1 of 2 answers" in world.comparison.told()
    assert "0.0001 (0.0001 promised)" in world.comparison.told()
    assert fault_of(far, world) == "a wrong answer"


def test_what_can_be_explained_is_not_held_against_it(world: World) -> None:
    world.engine_faults.append(Window(11, 11.5))
    assert fault_of(WRONG["a failure"], world) is None
    assert fault_of(answered(500, "internal_error"), world) is not None
    world.keys.rotations.append(Window(5, 10))
    assert fault_of(WRONG["a key that was valid"], world) is None
    assert fault_of(answered(503), world) is None
    slow = replace(answered(408), manner=Manner("slow", pieces=2))
    assert fault_of(slow, world) is None


@pytest.mark.parametrize(
    ("death", "excused"),
    [
        (Window(11.5, 13, by_force=True), True),  # killed when all was sent
        (Window(11.5, 13), False),  # told to end when all was sent, so that it had to be answered
        (Window(10.5, 13), True),  # ending before all was sent
        (Window(5, 9, by_force=True), False),
        (Window(12.5, 13, by_force=True), False),
    ],
)
def test_only_a_death_explains_a_lost_request(world: World, death: Window, excused: bool) -> None:
    world.server.deaths.append(death)
    assert (fault_of(WRONG["none"], world) is None) == excused
    assert fault_of(WRONG["another's answer"], world) is not None
    # Whoever waits in vain was not cut off.
    assert fault_of(replace(SEEN, answer=None, problem="no answer within 120 s"), world) is not None


def test_the_log_s_books_tell_what_ought_not_to_be_there(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    reader = LogReader(reading, tmp_path / "copy")
    lines = [
        {"message": "request", "level": "info", "request_id": "a", "logger": "service.request"},
        {"message": "request", "level": "info", "request_id": "a", "logger": "service.request"},
        {"message": "a batch failed", "level": "error", "logger": "service.batching.engine_runner"},
        {"message": "a bug", "level": "error", "logger": "asyncio"},
    ]
    with os.fdopen(writing, "w") as pipe:
        pipe.write("".join(json.dumps(line) + "\n" for line in lines) + "Traceback\n{")
    reader.wait_for_end()
    assert reader.ids == {"a": 2}
    assert reader.wrong == [json.dumps(lines[3]) + "\n", "Traceback\n"]
