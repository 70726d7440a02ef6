"""The wall clock jumps an hour, ahead and back, while the service works (row F18).

Debian's libfaketime lies to the process about the wall clock alone, as the system does when somebody sets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.processes import until
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.raw_http import connections, is_closed, read_answer, request
from tests.reliability.scripted_engine import identity_of, picture
from tests.server_process import ServerProcess

HOUR = 3600
LIBRARY = "faketime/libfaketimeMT.so.1"  # of several threads


class Clock:
    """The wall clock of a process that is started in this environment."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._offset = folder / "offset"
        self.jump(0)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Be so far ahead of the true time from now on."""
        written = self._offset.with_suffix(".new")
        written.write_text(f"{seconds:+d}")
        written.replace(self._offset)


@pytest.fixture
def clock(need: Callable[..., None], tmp_path: Path) -> Clock:
    need("faketime")  # which comes with the library
    (library, *_) = [*Path("/usr/lib").glob(LIBRARY), *Path("/usr/lib").glob(f"*/{LIBRARY}")]
    return Clock(library, tmp_path)


def ahead_s(line: Mapping[str, str]) -> float:
    """How far the time that a log line tells is ahead of the time now."""
    return (datetime.fromisoformat(line["time"]) - datetime.now(UTC)) / timedelta(seconds=1)


def jumps(clock: Clock, server: ServerProcess) -> Iterator[int]:
    """Let the clock be ahead, behind, and right again; gives where it is once the service's log says so."""
    for number, seconds in enumerate((HOUR, -HOUR, 0)):
        clock.jump(seconds)
        name = f"jump-{number}"
        answer = server.lonely.get(f"{server.url}/health/live", headers={"X-Request-ID": name})
        assert answer.status_code == 200
        until(lambda name=name: any(line.get("request_id") == name for line in server.lines()))  # type: ignore[misc]
        (told,) = [line for line in server.lines() if line.get("request_id") == name]
        assert abs(ahead_s(told) - seconds) < HOUR / 2
        yield seconds


@pytest.mark.slow
@pytest.mark.row(id="F18")
def test_no_deadline_comes_earlier_for_a_clock_that_jumps(clock: Clock, start: Scripted, measured: Measured) -> None:
    """Whoever waits, uploads or is idle meanwhile is answered, and the engine is not taken for stalled."""
    script = {"hang_at": [1], "hang_s": 600}
    idle_s = ("--keep-alive-timeout-s", "600", "--engine-stall-ms", "600000")
    with (
        start(*PATIENT, *idle_s, script=script, env=clock.environment) as server,
        connections(server.port, 4) as [waiting, uploading, beginning, idle],
    ):
        idle.sendall(request("/health/live", method="GET"))
        assert read_answer(idle) is not None
        waiting.sendall(request(body=picture(1)))
        until(lambda: server.script()["running"] == 1)
        whole = request(body=picture(2))
        uploading.sendall(whole[:-9])
        beginning.sendall(request("/model", method="GET")[:20])
        until(lambda: server.samples()["detr_requests_in_flight"] == 3)  # and the scrape itself
        for _ in jumps(clock, server):
            assert server.status("/health/ready") == 200
            assert server.samples()["detr_engine_stalled"] == 0
        server.script(hang_at=[])
        uploading.sendall(whole[-9:])
        beginning.sendall(request("/model", method="GET")[20:])
        idle.sendall(request(body=picture(3)))
        answers = [read_answer(connection) for connection in (waiting, uploading, idle)]
        assert [identity_of(answer.json()) for answer in answers if answer] == [1, 2, 3]
        described = read_answer(beginning)
        assert described is not None
        assert described.status_code == 200
        took = [line["duration_ms"] for line in server.lines() if "duration_ms" in line]
        assert 0 <= min(took) <= max(took) < 1000 * HOUR / 2
        assert server.errors() == []
    measured("F18", f"clock an hour ahead and back: {len(took)} requests, none cut off, none lost")


@pytest.mark.slow
@pytest.mark.row(id="F18")
def test_no_deadline_comes_later_for_a_clock_that_jumps(clock: Clock, start: Scripted) -> None:
    """Set back an hour, it would be an hour until somebody who sends nothing is sent away."""
    limits = ("--request-timeout-ms", "1000", "--header-timeout-ms", "1000", "--body-timeout-ms", "1000")
    script = {"hang_at": [1], "hang_s": 600}
    with start(*limits, "--keep-alive-timeout-s", "1", script=script, env=clock.environment) as server:
        for ahead in (HOUR, 0, -HOUR):
            clock.jump(ahead)
            with connections(server.port, 4) as [waiting, uploading, beginning, idle]:
                server.script(hang_at=[1])
                waiting.sendall(request(body=picture(1)))
                uploading.sendall(request(body=picture(2))[:-9])
                beginning.sendall(b"GET / HT")
                idle.sendall(request("/health/live", method="GET"))
                assert read_answer(idle) is not None
                clock.jump(ahead - HOUR)
                late = [answer.status_code for one in (waiting, uploading) if (answer := read_answer(one))]
                assert late == [504, 408]
                assert is_closed(beginning)
                assert is_closed(idle)
                server.script(hang_at=[])
        until(
            lambda: server.post("/detect", picture(5)).status_code == 200
        )  # a busy machine may need more than a second
        assert server.errors() == []
