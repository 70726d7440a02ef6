"""A real process through its life: its model replaced, its log blocked, its memory bounded, its engine hung."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from tests.processes import PATIENCE_S, free_port, until
from tests.server_process import scripted, serving
from tests.service.conftest import LEAK, encode, scene
from tests.tiny_artifact import write_variant

pytestmark = pytest.mark.protocol

PATIENT = ("--request-timeout-ms", "600000")
ADMIN = {"authorization": "Bearer an-admin-key-of-tests"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_variant(tmp_path / "model.onnx", "first", 0)


@pytest.fixture
def admin_keys(tmp_path: Path) -> Path:
    path = tmp_path / "admins"
    path.write_text("an-admin-key-of-tests\n")
    return path


class Load:
    """Clients that ask without a pause, each on a connection that it keeps."""

    def __init__(self, url: str, pictures: list[bytes], clients: int = 4) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()  # by picture and answer
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._clients = [self._pool.submit(self._ask, url, pictures, number) for number in range(clients)]

    def _ask(self, url: str, pictures: list[bytes], number: int) -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            while not self._stop.is_set():
                number = (number + 1) % len(pictures)
                try:
                    answer = client.post("/detect", content=pictures[number], headers={"content-type": "image/png"})
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    return
                if answer.status_code == 200:
                    self.answers[number, answer.text] += 1
                else:
                    self.failures.append(answer.text)

    def more(self, count: int) -> None:
        """Return when so many more have been answered."""
        enough = self.answers.total() + count
        until(lambda: self.answers.total() >= enough or bool(self.failures))

    def stop(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.result()
        self._pool.shutdown()


def test_twenty_swaps_under_load_lose_no_request_and_mix_no_answer(
    file: Path, admin_keys: Path, tmp_path: Path
) -> None:
    pictures = [encode(scene(64 + 16 * number, 96), "PNG") for number in range(3)]
    # One image a batch, because others in it move the last digit of a float.
    options = ("--max-batch-size", "1", "--batch-timing-ms", "0", "--admin-keys-file", str(admin_keys), *PATIENT)
    with serving(file, tmp_path, *options) as server, server.client() as client:
        expected = set()
        for name, shift in (("second", 1.0), ("first", 0.0)):
            write_variant(file, name, shift)
            reloaded = client.post("/model/reload", headers=ADMIN)
            assert (reloaded.status_code, reloaded.json()["name"]) == (200, name)
            for number, picture in enumerate(pictures):
                answer = client.post("/detect", content=picture, headers={"content-type": "image/png"})
                assert answer.json()["model"] == name
                expected.add((number, answer.text))
        assert len(expected) == 6
        load = Load(server.url, pictures)
        for swap in range(20):
            write_variant(file, *(("second", 1.0), ("first", 0.0))[swap % 2])
            if swap % 4 < 2:
                assert client.post("/model/reload", headers=ADMIN).status_code == 200
            else:
                before = server.samples()['detr_model_reloads_total{result="replaced"}']
                server.signal(signal.SIGHUP)

                def has_ended(before: float = before) -> bool:
                    replaced = server.samples()['detr_model_reloads_total{result="replaced"}'] > before
                    return replaced or bool(server.errors())  # which says at once why it is not

                until(has_ended)
                assert server.errors() == []
            load.more(6)
        # What is refused changes nothing.
        good = file.read_bytes()
        file.write_bytes(good[: len(good) // 2])
        refused = client.post("/model/reload", headers=ADMIN)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "model_refused")
        assert not LEAK.search(refused.text)
        load.more(6)
        load.stop()
        assert load.failures == []
        assert load.answers.keys() == expected
        samples = server.samples()
        assert samples['detr_requests_total{endpoint="detect",status="200"}'] == load.answers.total() + 6
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0


def test_only_an_admin_reloads(file: Path, admin_keys: Path, tmp_path: Path) -> None:
    with serving(file, tmp_path, "--admin-keys-file", str(admin_keys)) as server, server.client() as client:
        assert client.post("/model/reload").status_code == 401
        assert client.post("/model/reload", headers={"x-api-key": "somebody-else-entirely"}).status_code == 403
        assert client.get("/model/reload", headers=ADMIN).status_code == 405
        assert server.samples()['detr_model_reloads_total{result="replaced"}'] == 0


def test_a_hangup_while_it_drains_or_loads_disturbs_nothing(file: Path, tmp_path: Path) -> None:
    with serving(file, tmp_path, wait=False) as server:
        server.signal(signal.SIGHUP)
        server.wait_for_line("reloaded")
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGTERM)
        while server.popen.poll() is None:  # to the last moment
            server.signal(signal.SIGHUP)
            time.sleep(0.001)
        assert server.exit_code() == 0
        assert server.errors() == []


def test_a_term_while_it_loads_ends_it(file: Path, tmp_path: Path) -> None:
    with serving(file, tmp_path, "--batch-timing-ms", "600000", wait=False) as server:
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        assert "ready" not in "".join(server.messages())


@pytest.mark.slow
def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end(file: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        with serving(file, tmp_path, port=free_port(), output=writing) as server, server.client() as client:
            # A pipe holds 64 KB, and the queue before it some thousand lines.
            while server.samples()["detr_log_lines_dropped_total"] == 0:
                for _ in range(200):
                    assert client.get("/health/live").status_code == 200
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 0
    finally:
        os.close(reading)
        os.close(writing)


_CLOSED = [numbers for count in range(4) for numbers in combinations(range(3), count)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    "closed", [pytest.param(one, marks=() if len(one) == 3 else pytest.mark.slow, id=str(one)) for one in _CLOSED]
)
def test_without_standard_streams_it_serves_and_ends_well_and_their_numbers_go_to_nothing_else(
    closed: tuple[int, ...], file: Path, tmp_path: Path
) -> None:
    closing = " ".join(f"{number}>&-" for number in closed)
    starting = ("sh", "-c", f'exec "$@" {closing}', "sh")
    with serving(file, tmp_path, *PATIENT, port=free_port(), prefix=starting) as server:
        descriptors = Path(f"/proc/{server.popen.pid}/fd")
        for _ in range(3):
            assert server.post("/detect", encode(scene(), "PNG")).status_code == 200
            places = {number: str((descriptors / str(number)).readlink()) for number in range(3)}
            assert {places[number] for number in closed} <= {os.devnull}
            assert closed.count(1) or places[1] == str(server.log)
            assert closed.count(2) or places[2] == str(server.error_log)
        server.signal(signal.SIGTERM)
        code, lines, errors = server.end()
    assert code == 0
    assert errors == ""
    assert 1 in closed or lines[-1]["message"] == "stopped, exit code 0"


def test_an_engine_that_hangs_for_too_long_ends_the_process_with_a_code_of_its_own(file: Path, tmp_path: Path) -> None:
    options = ("--engine-stall-ms", "200", "--engine-hang-exit-ms", "600", *PATIENT)
    with scripted(file, tmp_path, *options, script={"hang_at": [1], "hang_s": 600}) as server:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(server.post, "/detect", encode(Image.new("RGB", (64, 64)), "PNG"))
            until(lambda: server.script()["running"] == 1)
            assert server.exit_code() == 4
            answer = waiting.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert "the engine scripted is lost: it has been in one batch for 0.6 s" in server.messages()


@pytest.mark.slow
def test_large_overlays_at_once_stay_within_the_memory_budget(file: Path, tmp_path: Path) -> None:
    side, requests = 1500, 40  # pixels; fewer than there are places
    options = ("--max-pixels", str(side * side), "--cpu-threads", "2", "--max-connections", "64", *PATIENT)
    body = encode(scene(side, side), "WEBP", method=0)
    small = ("--max-body-bytes", str(4 * 2**20), "--max-buffered-bytes", str(64 * 2**20))
    with serving(file, tmp_path, *options, *small) as server, server.client() as client:
        budget = server.samples()["detr_memory_budget_bytes"]
        told = server.wait_for_line("memory budget")["message"]
        assert f"memory budget {budget / 2**20:,.0f} MiB: " in told
        before = server.rss()
        watching = Watching(server.process)

        def ask(_: int) -> int:
            answer = client.post("/segment?overlay=true", content=body, headers={"content-type": "image/webp"})
            return answer.status_code

        with ThreadPoolExecutor(requests) as pool:
            assert Counter(pool.map(ask, range(requests))) == {200: requests}
        peak = watching.stop()
        assert before < peak <= budget, f"{peak / 2**20:.0f} MiB of {budget / 2**20:.0f} MiB"
        assert peak - before < requests * 3 * side * side, "what they would take if they were kept while they wait"


class Watching:
    """The most memory that a process has, looked at again and again."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._peak, self._end = process, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def stop(self) -> int:
        self._end.set()
        self._thread.join()
        return self._peak
