"""The engine raises, hangs, runs out of memory or computes nonsense (rows F10 to F12, and F14)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.processes import until
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.scripted_engine import identity_of, picture
from tests.server_process import ServerProcess


def post_all(server: ServerProcess, bodies: list[bytes], path: str = "/detect") -> list[tuple[int, bytes]]:
    """Status and body of the answers to requests that are sent at once."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: server.post(path, body), bodies))
    return [(answer.status_code, answer.content) for answer in answers]


@pytest.mark.row(id="F10")
def test_an_engine_that_raises_fails_its_batch_and_no_other(server: ServerProcess) -> None:
    server.script(raise_at=[1])
    failed, answered = server.post("/detect", picture(1)), server.post("/detect", picture(1))
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "engine_error")
    assert identity_of(answered.json()) == 1


@pytest.mark.slow
@pytest.mark.row(id="F10")
def test_an_engine_that_hangs_holds_up_nobody_beyond_the_deadline(start: Scripted, measured: Measured) -> None:
    limits = ("--request-timeout-ms", "500", "--engine-stall-ms", "700")
    with start(*limits, script={"hang_at": [1], "hang_s": 600}) as server:
        began = time.monotonic()
        answers = post_all(server, [picture(identity) for identity in range(20)])
        took = time.monotonic() - began
        assert [status for status, _ in answers] == [504] * 20
        until(lambda: server.status("/health/ready") == 503)
        assert server.status("/health/live") == 200
        # Nothing piles up: neither those who gave up, nor those who come while it hangs.
        late = post_all(server, [picture(identity) for identity in range(20)])
        assert {status for status, _ in late} <= {503, 504}
        samples = server.samples()
        assert samples["detr_queue_depth"] == 0
        assert samples["detr_requests_in_flight"] == 1  # the scrape itself
        report = server.script()
        assert report["batches"] == 1
        server.script(hang_at=[])
        until(lambda: server.status("/health/ready") == 200)
        assert identity_of(server.post("/detect", picture(3)).json()) == 3
        assert server.script()["images"] == report["images"] + 1
    measured("F10", f"engine hangs: 20 callers had their 504 after {took:.2f} s (deadline 0.5 s)")


@pytest.mark.row(id="F11")
def test_a_batch_without_memory_is_split_and_all_of_it_answered(start: Scripted, measured: Measured) -> None:
    bodies = [picture(identity) for identity in range(0x20000, 0x20000 + 16 * 0x777, 0x777)]
    with start(*PATIENT, "--max-batch-size", "16", script={"hang_at": [1], "hang_s": 600}) as server:
        with ThreadPoolExecutor(1) as pool:
            # All wait behind one, so that they go together.
            first = pool.submit(server.post, "/detect", picture(1))
            until(lambda: server.script()["running"] == 1)
            with ThreadPoolExecutor(16) as crowd:
                answers = [crowd.submit(server.post, "/detect", body) for body in bodies]
                until(lambda: server.samples()["detr_queue_depth"] == 16)
                server.script(hang_at=[], largest_batch=4)
            assert first.result().status_code == 200
        assert [identity_of(answer.result().json()) for answer in answers] == [
            identity_of(server.post("/detect", body).json()) for body in bodies
        ]
        samples, report = server.samples(), server.script()
        assert report["largest"] == 16
        # 16 and the first 8; the other 8 is halved without being tried.
        assert samples['detr_batch_splits_total{device="scripted",reason="memory"}'] == 2
        assert samples['detr_max_batch_size{device="scripted"}'] <= 4
    measured("F11", "16 -> 8 -> 4 images: 16 of 16 answered right, the ceiling is 4 afterwards")


@pytest.mark.row(id="F11")
def test_single_images_without_memory_are_told_to_come_again_and_the_engine_is_opened_anew(start: Scripted) -> None:
    with start(*PATIENT, script={"out_of_memory_at": [1, 2]}) as server:
        for _ in range(2):
            answer = server.post("/detect", picture(1))
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "device_memory_full")
            assert int(answer.headers["retry-after"]) >= 1
        until(lambda: server.script()["reopened"] == 1)
        until(lambda: server.status("/health/ready") == 200)
        assert identity_of(server.post("/detect", picture(8)).json()) == 8


@pytest.mark.row(id="F12")
@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.soak)])
def test_a_poisoned_image_harms_no_neighbour(start: Scripted, rounds: int) -> None:
    """Fifteen good ones and a bad one at once: the good ones' answers are, bit for bit, those that they get alone."""
    good = [picture(identity) for identity in range(0x10000, 0x10000 + 15 * 0x1111, 0x1111)]
    nan = 0xBAD
    poison = [
        (picture(5, (300, 200))[:-200], 400),  # cut off
        (picture(5, (20_000, 1)), 413),
        (picture(nan), 500),
        (picture(5, (1, 16_000)), 200),
    ]
    with start(*PATIENT, "--max-batch-size", "16", "--max-queue-delay-ms", "20") as server:
        alone = [(200, server.post("/detect", body).content) for body in good]
        server.script(not_finite=[nan])
        for turn in range(rounds):
            bad, status = poison[turn % len(poison)]
            answers = post_all(server, [*good, bad])
            assert answers[:-1] == alone
            assert answers[-1][0] == status
            assert b"NaN" not in answers[-1][1]
        assert server.script()["largest"] > 1
        failed = len(range(2, rounds, len(poison)))
        assert server.samples()['detr_rejected_total{reason="engine_error"}'] == failed


@pytest.mark.row(id="F24")
def test_a_stuck_device_is_left_and_named_while_the_others_serve(start: Scripted, measured: Measured) -> None:
    two = ("--devices", "cpu*2", "--engine-stall-ms", "500", "--request-timeout-ms", "60000")
    with start(*two, script={"hang_at": [1, 2], "hang_s": 600}) as server, ThreadPoolExecutor(2) as pool:
        both = [pool.submit(server.post, "/detect", picture(identity)) for identity in (1, 2)]
        until(lambda: server.script()["running"] == 2)  # at the same time
        server.script(hang_at=[])
        assert sorted(identity_of(answer.result().json()) for answer in both) == [1, 2]
        server.script(hang_at=[1])
        # Whose batch hangs is answered by the other device, once the first is held to be stuck.
        assert identity_of(server.post("/detect", picture(3)).json()) == 3
        assert identity_of(server.post("/detect", picture(4)).json()) == 4
        up = {name: value for name, value in server.samples().items() if name.startswith("detr_engine_up")}
        assert sorted(up.values()) == [0, 1]
        (stuck,) = (name for name, value in up.items() if value == 0)
        told = [message for message in server.messages() if "is stuck" in message]
        assert told == [f"the engine {stuck.split(chr(34))[1]} is stuck: it has been in one batch for 0.5 s"]
        assert server.status("/health/ready") == 200
        server.script(hang_at=[])
        until(lambda: server.samples()[stuck] == 1)
    measured("F24", "two devices, one stuck: its picture and the next are answered by the other; it is taken back")


@pytest.mark.row(id="F24")
def test_the_process_ends_when_its_last_device_is_lost_and_not_before(start: Scripted) -> None:
    limits = ("--engine-stall-ms", "300", "--engine-hang-exit-ms", "600", "--request-timeout-ms", "60000")
    with start("--devices", "cpu*2", *limits, script={"hang_at": [1], "hang_s": 600}) as server:
        assert identity_of(server.post("/detect", picture(1)).json()) == 1
        server.wait_for_line("the engine scripted#1 is lost: it has been in one batch for 0.6 s")
        assert identity_of(server.post("/detect", picture(2)).json()) == 2
        assert server.status("/health/ready") == 200
        server.script(hang_at=[1])  # which ends what hangs; to a lost engine that makes no difference
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(server.post, "/detect", picture(3))
            assert server.exit_code() == 4
            assert waiting.result().status_code == 503
