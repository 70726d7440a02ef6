"""Two replicas of the service are as good as one, and go on where one of them ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.load import Load
from tests.end_to_end.name_server import NameServer
from tests.end_to_end.nginx import nginx_asking
from tests.end_to_end.prometheus import prometheus, query, wait_until_query
from tests.processes import free_port, until
from tests.server_process import ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.root]

# Replicas have the same ports at different addresses, as containers have.
ADDRESSES = ("127.0.0.2", "127.0.0.3")
CLIENTS = 6
DETECT = 'detr_requests_total{endpoint="detect",status="200"}'
WINDOW_S, SCRAPE_S = 60, 5


@dataclass
class Replicas:
    """Two services behind one proxy, which has both addresses from a name server that names both, whatever happens."""

    servers: tuple[ServerProcess, ServerProcess]
    url: str
    metrics_port: int


@pytest.fixture
def replicas(need: Callable[..., None], demo: Path, tmp_path: Path) -> Iterator[Replicas]:
    need("nginx", root=True)
    port, metrics_port = free_port(), free_port()
    with ExitStack() as stack, NameServer() as names:
        names.addresses = ADDRESSES
        options = ("--batch-timing-ms", "0", "--cpu-threads", "1", "--metrics-port", str(metrics_port))
        first, second = (
            stack.enter_context(
                serving(demo, tmp_path, "--host", address, "--metrics-host", address, *options, port=port, wait=False)
            )
            for address in ADDRESSES
        )
        for server in (first, second):
            server.wait_for_line("ready")
        proxy_port = stack.enter_context(nginx_asking(names, tmp_path, port, {}))
        yield Replicas((first, second), f"http://127.0.0.1:{proxy_port}", metrics_port)


def answered(server: ServerProcess) -> int:
    """How many pictures a replica has answered, by its log."""
    return sum(line.get("route") == "/detect" and line.get("status") == 200 for line in server.lines())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_request_is_lost_where_a_replica_ends_under_load(
    replicas: Replicas, number: signal.Signals, jpeg: bytes
) -> None:
    first, second = replicas.servers
    with Load(f"{replicas.url}/detect", jpeg, CLIENTS) as load:
        until(lambda: min(answered(first), answered(second)) >= 20)
        first.signal(number)
        code = first.exit_code()
        # Its address is still named, and about every second request is tried there first.
        so_far = load.total
        until(lambda: load.total >= so_far + 200)
    assert load.outcomes == {"200": load.total}
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)


def test_prometheus_sees_both_replicas_and_their_sum_is_what_was_sent(
    need: Callable[..., None], replicas: Replicas, tmp_path: Path, jpeg: bytes
) -> None:
    need("prometheus", "unshare", root=True)
    (folder := tmp_path / "prometheus").mkdir()
    with prometheus(folder, replicas.metrics_port, ADDRESSES) as url:
        wait_until_query(url, 'up{job="detr"}', [1, 1])
        with Load(f"{replicas.url}/detect", jpeg, CLIENTS) as load:
            began = time.monotonic()
            # The counters begin with the first requests, so the window has to lie after a scrape that saw them.
            until(lambda: time.monotonic() > began + WINDOW_S + 2 * SCRAPE_S)
            assert len(query(url, f"rate({DETECT}[{WINDOW_S}s]) > 0")) == 2
            (rate,) = query(url, f"sum(rate({DETECT}[{WINDOW_S}s]))")
            sent = load.ended_since(time.monotonic() - WINDOW_S) / WINDOW_S
        assert load.outcomes == {"200": load.total}
        # Prometheus knows the counters at its scrapes only. What lies before the first and after the last of a window,
        # less than a scrape's interval each, it takes to be like the rest, and there may have been nothing or twice as
        # much. One replica alone would be half.
        assert rate == pytest.approx(sent, rel=2 * SCRAPE_S / WINDOW_S)
        wait_until_query(url, f"sum({DETECT})", [load.total])
        # One that is gone and still has a name is a target that is down.
        replicas.servers[0].signal(signal.SIGKILL)
        wait_until_query(url, 'sort(up{job="detr"})', [0, 1])
