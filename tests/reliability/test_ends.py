"""How the process ends: told to, told twice, and killed (rows F6 to F9)."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.processes import PATIENCE_S, until
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.raw_http import connections, exchange, is_closed, read_answer, request
from tests.reliability.scripted_engine import identity_of, picture
from tests.server_process import ServerProcess

IN_FLIGHT = 20


@pytest.mark.row(id="F6")
def test_a_drain_answers_what_was_accepted_in_spite_of_stalled_clients(start: Scripted, measured: Measured) -> None:
    script = {"hang_at": [1], "hang_s": 600}
    drain_s = 4.0
    arguments = (*PATIENT, "--drain-timeout-ms", str(1000 * drain_s))
    with (
        start(*arguments, script=script) as server,
        connections(server.port, IN_FLIGHT) as clients,
        connections(server.port, 5) as stalled,
        connections(server.port, 1) as [watcher],
    ):
        for identity, client in enumerate(clients):
            client.sendall(request(body=picture(identity)))
        until(lambda: server.samples()["detr_queue_depth"] + server.script()["images"] == IN_FLIGHT)
        for sent, client in zip((b"", b"GET / HT", *[request(body=picture(1))[:-9]] * 3), stalled, strict=True):
            client.sendall(sent)
        uploads = len(stalled[2:])
        until(lambda: server.samples()["detr_requests_in_flight"] == IN_FLIGHT + uploads + 1)  # the scrape itself
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        # New connections and old ones: not ready, and no new work.
        until(lambda: server.status("/health/ready") == 503, timeout_s=drain_s)
        assert server.status("/health/live") == 200
        refused = server.post("/detect", picture(1))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        watcher.sendall(request("/detect", picture(1)))
        answer = read_answer(watcher)
        assert answer is not None
        assert answer.status_code == 503
        server.script(hang_at=[])
        answers = [read_answer(client) for client in clients]
        assert [identity_of(answer.json()) for answer in answers if answer] == list(range(IN_FLIGHT))
        # What still comes would be refused at its end, so it is at once.
        assert [answer.status_code for client in stalled[2:] if (answer := read_answer(client))] == [503] * uploads
        assert server.exit_code() == 0
        took = time.monotonic() - began
        assert server.errors() == []
        assert all(is_closed(client) for client in stalled)
    measured("F6", f"exit code 0 after {took:.1f} s with 5 stalled clients; the limit is {drain_s:.0f} s")
    assert took <= drain_s + 20, "far more than the drain may take, even on a loaded machine"


@pytest.mark.row(id="F6")
def test_a_drain_that_abandons_requests_says_so_by_its_exit_code(start: Scripted) -> None:
    with start(*PATIENT, "--drain-timeout-ms", "300", script={"hang_at": [1], "hang_s": 600}) as server:
        with connections(server.port, 2) as clients:
            for client in clients:
                client.sendall(request(body=picture(1)))
            until(lambda: server.samples()["detr_queue_depth"] + server.script()["images"] == 2)
            server.signal(signal.SIGTERM)
            answers = [read_answer(client) for client in clients]
        assert [answer.status_code for answer in answers if answer] == [503, 503]
        assert server.exit_code() == 3


def leftovers(folder: Path) -> set[str]:
    """What processes may leave behind: shared memory and temporary files."""
    shared = Path("/dev/shm")  # noqa: S108
    return {path.name for place in (shared, folder) for path in place.iterdir()}


class Load:
    """Four clients that ask without pause, whatever becomes of the server, and check every answer."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answered = 0
        self.lost = 0  # requests that got no answer, because the process was gone
        self.wrong: list[str] = []
        self._going = True
        self._threads = [threading.Thread(target=self._ask, args=(number << 16,)) for number in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for thread in self._threads:
            thread.join()

    def _ask(self, identity: int) -> None:
        with httpx.Client(timeout=PATIENCE_S, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            while self._going:
                identity += 1
                try:
                    answer = client.post(f"{self.url}/detect", files={"image": picture(identity)})
                except httpx.TransportError as error:
                    self.lost += not isinstance(error, httpx.ConnectError)  # that one nobody took
                    time.sleep(0.05)  # nobody listens
                else:
                    self._check(answer, identity)

    def _check(self, answer: httpx.Response, identity: int) -> None:
        if answer.status_code == 200 and identity_of(answer.json()) == identity:
            self.answered += 1
        elif answer.status_code != 503:  # it is starting
            self.wrong.append(answer.text)


@pytest.mark.slow
@pytest.mark.row(id="F8")
@pytest.mark.row(id="F9")
@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.soak)])
def test_a_killed_process_loses_what_it_had_in_hand_and_leaves_nothing_behind(
    start: Scripted, measured: Measured, tmp_path: Path, kills: int
) -> None:
    """There is one process and no child, so that to kill the parent and to kill a worker are one thing."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    before = leftovers(folder)
    script = {"delay_ms": 5}
    environment = {"TMPDIR": str(folder)}
    slowest = 0.0
    with start(script=script, env=environment) as first:
        port = first.port
        first.popen.kill()
        first.exit_code()
    with Load(port) as load:
        for _ in range(kills):
            began = time.monotonic()
            with start(port=port, script=script, env=environment) as server:
                answered = load.answered
                until(lambda: load.answered >= answered + 10)  # noqa: B023
                slowest = max(slowest, time.monotonic() - began)
                assert server.process.children() == []
                server.signal(signal.SIGKILL)
                assert server.exit_code() == -signal.SIGKILL
    assert load.wrong == []
    # What was in hand, and what was sent in the moment before the listener was gone.
    assert load.lost <= 2 * 4 * kills
    assert leftovers(folder) == before
    measured("F8", f"{kills} kills: {load.lost} requests lost, {load.answered} right, back after {slowest:.1f} s")


@pytest.mark.row(id="F9")
def test_a_killed_server_s_port_can_be_taken_at_once(start: Scripted) -> None:
    with start() as server, connections(server.port, 3) as clients:
        for client in clients:
            client.sendall(request(body=picture(1))[:-9])
        until(lambda: server.samples()["detr_requests_in_flight"] == 4)
        server.signal(signal.SIGKILL)
        server.exit_code()
        with start(port=server.port) as again:
            answer = exchange(again.port, request(body=picture(2)))
            assert answer is not None
            assert identity_of(answer.json()) == 2


@pytest.mark.soak
@pytest.mark.row(id="F6")
def test_a_drain_ends_in_time_again_and_again(start: Scripted, measured: Measured) -> None:
    """Under load, at any moment, and every accepted request is answered."""
    worst = 0.0
    for _ in range(10):
        with start("--drain-timeout-ms", "5000", script={"delay_ms": 20}) as server:
            worst = max(worst, drain_under_load(server))
    measured("F6", f"10 drains under load: all answered, the longest took {worst:.2f} s")
    assert worst <= 7


def drain_under_load(server: ServerProcess) -> float:
    """Seconds from SIGTERM to the end, of a server that 16 clients ask; each answer is right, or a 503."""

    def ask(client: int) -> None:
        with server.client() as http:
            for turn in range(10_000):
                identity = client << 16 | turn
                try:
                    answer = http.post("/detect", files={"image": picture(identity)})
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
                    return  # it listens no more, or closed a connection that was idle when the request was sent
                if answer.status_code == 503:
                    return
                assert identity_of(answer.json()) == identity

    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(ask, client) for client in range(16)]
        until(lambda: server.script()["images"] > 100)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        took = time.monotonic() - began
        for future in asking:
            future.result()
    assert server.errors() == []
    return took
