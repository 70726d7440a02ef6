"""A decoder that does not come back (row F20): what its client gets, what others get, and how the process ends."""

from __future__ import annotations

import time
from signal import SIGTERM

import pytest

from tests.processes import until
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.raw_http import connections, read_answer, request
from tests.reliability.scripted_engine import hanging, identity_of, picture
from tests.server_process import ServerProcess

FOR_EVER = {"decode_hang_s": 6000}
TWO_DECODERS = ("--cpu-threads", "2", "--request-timeout-ms", "400")


def overdue(server: ServerProcess) -> float:
    return server.samples()["detr_decoders_overdue"]


@pytest.mark.row(id="F20")
def test_decoders_that_hang_are_told_of_and_take_nobody_with_them(start: Scripted) -> None:
    with start(*TWO_DECODERS, script={"decode_hang_s": 4}) as server:
        late = server.post("/detect", hanging(picture(1)))
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_passed")
        assert overdue(server) == 1
        assert server.status("/health/ready") == 200
        assert identity_of(server.post("/detect", picture(2)).json()) == 2
        # The second one takes the last thread: nobody else waits in vain.
        assert server.post("/detect", hanging(picture(1))).status_code == 504
        until(lambda: overdue(server) == 2)
        for answer in (server.post("/detect", picture(3)), server.get("/health/ready")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "decoders_stalled")
            assert int(answer.headers["retry-after"]) >= 1
        assert server.status("/health/live") == 200
        until(lambda: server.status("/health/ready") == 200)
        assert identity_of(server.post("/detect", picture(4)).json()) == 4
        until(lambda: overdue(server) == 0)
        assert server.errors() == []


@pytest.mark.row(id="F20")
def test_a_decoder_that_hangs_for_too_long_ends_the_process_as_an_engine_does(start: Scripted) -> None:
    with start(*TWO_DECODERS, "--engine-hang-exit-ms", "1500", script=FOR_EVER) as server:
        assert server.post("/detect", hanging(picture(1))).status_code == 504
        assert identity_of(server.post("/detect", picture(2)).json()) == 2
        assert server.exit_code() == 4
        assert "a decoder is lost: it has been at one image for 1.5 s" in server.messages()


@pytest.mark.row(id="F20")
def test_the_end_is_the_end_whatever_a_decoder_does(start: Scripted, measured: Measured) -> None:
    with start(*TWO_DECODERS, script=FOR_EVER) as server:
        assert server.post("/detect", hanging(picture(1))).status_code == 504
        began = time.monotonic()
        server.signal(SIGTERM)
        assert server.exit_code() == 0, "nobody who was accepted is without an answer"
        took = time.monotonic() - began
        assert server.messages()[-1] == "stopped, exit code 0"
    measured("F20", f"SIGTERM while a decoder hangs: gone after {took:.2f} s")
    assert took < 30, "far more than it may take, even on a loaded machine"


@pytest.mark.row(id="F20")
def test_a_drain_fails_who_waits_for_a_decoder(start: Scripted, measured: Measured) -> None:
    drain_s = 0.5
    arguments = (*PATIENT, "--cpu-threads", "1", "--drain-timeout-ms", str(1000 * drain_s))
    with start(*arguments, script=FOR_EVER) as server, connections(server.port, 3) as clients:
        for client in clients:  # one in the decoder, two behind it
            client.sendall(request(body=hanging(picture(1))))
        until(lambda: server.samples()["detr_requests_in_flight"] == 4)
        began = time.monotonic()
        server.signal(SIGTERM)
        answers = [read_answer(client) for client in clients]
        assert [answer and answer.json()["error"]["code"] for answer in answers] == ["draining"] * 3
        assert server.exit_code() == 3
        took = time.monotonic() - began
        assert server.errors() == []
    measured("F20", f"and with requests that wait for it: after {took:.2f} s, the limit being {drain_s} s")
    assert took < drain_s + 30
