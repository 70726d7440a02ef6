"""No disk, no log, no file descriptors, no memory (rows F16, F17 and F22)."""

from __future__ import annotations

import resource
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.processes import free_port, until
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.raw_http import connections
from tests.reliability.scripted_engine import identity_of, picture
from tests.server_process import ServerProcess
from tests.service.conftest import encode, scene

LARGE = picture(0x123456, (700, 700), "WEBP") + b"\0" * 6_000_000  # what follows the picture is nobody's business


def assert_it_answers(server: ServerProcess) -> None:
    """An ordinary request, and one that a server which spools uploads to a disk would spool."""
    for body in (picture(0x123456), LARGE):
        answer = server.lonely.post(f"{server.url}/detect", files={"image": body})
        assert answer.status_code == 200, answer.text
        assert identity_of(answer.json()) == 0x123456


@pytest.mark.row(id="F16")
def test_a_disk_that_takes_nothing_fails_no_request(start: Scripted, tmp_path: Path) -> None:
    """No file may grow, the log's included, and there is no folder for temporary files."""
    with start(env={"TMPDIR": str(tmp_path / "nowhere")}) as server:
        server.process.rlimit(resource.RLIMIT_FSIZE, (server.log.stat().st_size,) * 2)
        for _ in range(20):
            assert_it_answers(server)
        assert server.post("/detect", b"no image").status_code == 400
        assert server.samples()['detr_requests_total{endpoint="detect",status="200"}'] == 40


@pytest.mark.row(id="F16")
def test_a_log_that_takes_nothing_fails_no_request(start: Scripted) -> None:
    to_a_full_device = ("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh")
    with start(port=free_port(), prefix=to_a_full_device) as server:
        for _ in range(20):
            assert_it_answers(server)


def take_away_descriptors(server: ServerProcess) -> None:
    """Let the process open no more than 128 files, which it did not know when it started."""
    server.process.rlimit(resource.RLIMIT_NOFILE, (128, 128))


def is_ready(server: ServerProcess) -> bool:
    """Whether it is, where whoever connects may still have to make room for others."""
    try:
        return server.status("/health/ready") == 200
    except httpx.TransportError:
        return False


@pytest.mark.row(id="F17")
def test_with_few_file_descriptors_it_takes_fewer_connections_and_answers_all_the_while(start: Scripted) -> None:
    with start(*PATIENT, prefix=("sh", "-c", 'ulimit -n 128; exec "$@"', "sh")) as server:
        with connections(server.port, 300):
            assert_it_answers(server)
            assert server.status("/health/ready") == 200
            assert server.fds() < 128
        assert server.wait_for_line("only 64 connections")["level"] == "warning"


@pytest.mark.row(id="F17")
def test_without_file_descriptors_it_waits_and_recovers(start: Scripted) -> None:
    with start(*PATIENT) as server:
        take_away_descriptors(server)
        with connections(server.port, 300):
            until(lambda: server.fds() >= 120)
        until(lambda: server.fds() < 60)
        assert_it_answers(server)
        assert server.popen.poll() is None


@pytest.mark.soak
@pytest.mark.row(id="F17")
def test_without_file_descriptors_it_does_not_spin(start: Scripted, measured: Measured) -> None:
    with start(*PATIENT) as server:
        take_away_descriptors(server)
        with connections(server.port, 300):
            until(lambda: server.fds() >= 120)
            before, began = server.process.cpu_times(), time.monotonic()
            time.sleep(10)  # what is measured
            after, took = server.process.cpu_times(), time.monotonic() - began
        busy = (after.user + after.system - before.user - before.system) / took
        recovered = until(lambda: is_ready(server))
        assert_it_answers(server)
    measured("F17", f"300 connections with 128 descriptors: {100 * busy:.0f} % CPU, back after {recovered:.1f} s")
    assert busy < 0.5
    assert recovered <= 5


@pytest.mark.row(id="F22")
def test_without_memory_a_good_picture_is_told_to_come_again(start: Scripted, measured: Measured) -> None:
    forms = {"JPEG": {}, "PNG": {}, "WEBP": {"method": 0}}
    bodies = [encode(scene(1600, 1600), image_format, **options) for image_format, options in forms.items()]
    bodies.append(encode(scene(1600, 1600), "JPEG", progressive=True))
    with start(*PATIENT, "--cpu-threads", "1") as server:
        for body in bodies:
            assert server.post("/detect", body).status_code == 200
        codes: Counter[str] = Counter()
        used = server.process.memory_info().vms
        for spare in range(0, 32 * 2**20, 4 * 2**20):
            server.process.rlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
            for body in bodies:
                answer = server.post("/detect", body)
                code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
                assert (answer.status_code, code) in ((200, ""), (503, "memory_full"), (503, "device_memory_full"))
                assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
                codes[code] += 1
        server.process.rlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        for body in bodies:
            assert server.post("/detect", body).status_code == 200
        assert server.errors() == []
    measured(
        "F22", f"good pictures with 0 to 28 MB to spare: {codes['']} answered, {codes['memory_full']} told to wait"
    )
    assert codes["memory_full"] > 0
