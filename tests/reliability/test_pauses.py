"""A process that is stopped for a while, as by `docker pause`, goes on as if nothing had been (row F21)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from signal import SIGCONT, SIGSTOP, SIGTERM

import pytest

from tests.processes import until
from tests.reliability.conftest import Measured, Scripted
from tests.reliability.raw_http import connections, read_answer, request
from tests.reliability.scripted_engine import hanging, identity_of, picture
from tests.server_process import ServerProcess

PAUSE_S = 6.0
# All shorter than the pause, and long enough for a loaded machine to do what is asked between.
LIMITS = {
    "engine-hang-exit-ms": 4000,
    "engine-stall-ms": 3000,
    "request-timeout-ms": 4000,
    "body-timeout-ms": 4000,
    "header-timeout-ms": 4000,
}
OPTIONS = tuple(word for name, milliseconds in LIMITS.items() for word in (f"--{name}", str(milliseconds)))


def pause(server: ServerProcess) -> None:
    """Stop the process for longer than anything may take, and let it go on."""
    server.signal(SIGSTOP)
    time.sleep(PAUSE_S)
    server.signal(SIGCONT)


@pytest.mark.slow
@pytest.mark.row(id="F21")
def test_a_pause_is_nobody_s_time(start: Scripted, measured: Measured) -> None:
    """A batch in the engine, a picture in its decoder, half an upload, and half a header."""
    with (
        start(*OPTIONS, script={"hang_at": [1], "hang_s": 600, "decode_hang_s": 2}) as server,
        connections(server.port, 2) as [upload, header],
        ThreadPoolExecutor(2) as pool,
    ):
        began = time.monotonic()
        in_engine = pool.submit(server.post, "/detect", picture(1))
        until(lambda: server.script()["running"] == 1)
        in_decoder = pool.submit(server.post, "/detect", hanging(picture(2)))
        half = request(body=picture(3))
        upload.sendall(half[:-9])
        header.sendall(half[:20])
        until(lambda: server.samples()["detr_requests_in_flight"] == 4)
        pause(server)
        assert server.status("/health/ready") == 200
        upload.sendall(half[-9:])
        header.sendall(half[20:])
        server.script(hang_at=[])
        answers = [in_engine.result(), read_answer(upload), read_answer(header), in_decoder.result()]
        took = time.monotonic() - began
        assert [answer and answer.status_code for answer in answers] == [200] * 4
        assert [identity_of(answer.json()) for answer in answers if answer] == [1, 3, 3, 2]
        samples = server.samples()
        assert samples["detr_decoders_overdue"] == samples["detr_engine_stalled"] == 0
        longest = samples['detr_stage_duration_seconds_sum{device="scripted",stage="infer"}']
        assert server.errors() == []
        server.signal(SIGTERM)
        assert server.exit_code() == 0
    measured("F21", f"paused for {PAUSE_S:.0f} s, limits of 3 and 4 s: 4 of 4 answered; infer took {longest:.2f} s")
    assert longest <= took - PAUSE_S + 0.5


@pytest.mark.slow
@pytest.mark.row(id="F21")
def test_a_pause_amid_a_drain_takes_none_of_its_time(start: Scripted) -> None:
    drain = ("--drain-timeout-ms", "4000", "--request-timeout-ms", "60000")
    with start(*drain, script={"hang_at": [1], "hang_s": 600}) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.post, "/detect", picture(1))
        until(lambda: server.script()["running"] == 1)
        server.signal(SIGTERM)
        server.wait_for_line("shutting down")
        pause(server)
        server.script(hang_at=[])
        assert identity_of(waiting.result().json()) == 1
        assert server.exit_code() == 0
