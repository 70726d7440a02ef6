"""How the proxy finds the service by its name, wherever that leads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.name_server import Named, NameServer
from tests.end_to_end.nginx import check_error, nginx, nginx_asking
from tests.processes import PATIENCE_S, free_port

pytestmark = pytest.mark.slow


def test_a_service_that_comes_back_at_another_address_is_found(need: Callable[..., None], tmp_path: Path) -> None:
    """As a container does that is made anew, while the proxy stays."""
    need("nginx", root=True)
    with NameServer() as names, Named("127.0.0.2") as first, Named("127.0.0.3", first.server_port) as second:
        names.addresses = (first.name,)
        with (
            nginx_asking(names, tmp_path, first.server_port, {}, valid_s=1) as port,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client,
        ):
            assert client.get("/model?a=b").text == f"{first.name} /model?a=b"
            first.stop()
            names.addresses = (second.name,)
            deadline = time.monotonic() + PATIENCE_S
            while (answer := client.get("/model")).status_code != 200:
                check_error(answer, 502, "service_unreachable")
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert answer.text == f"{second.name} /model"


def test_a_name_that_nobody_knows_is_a_502_in_the_same_shape(need: Callable[..., None], tmp_path: Path) -> None:
    """And the proxy starts all the same, so that it does not matter which container is first."""
    need("nginx", root=True)
    with NameServer() as names:
        names.addresses = ()
        with nginx_asking(names, tmp_path, free_port(), {}) as port:
            check_error(httpx.get(f"http://127.0.0.1:{port}/model", timeout=PATIENCE_S), 502, "service_unreachable")


def test_a_service_that_is_not_there_is_a_502_in_the_same_shape(need: Callable[..., None], tmp_path: Path) -> None:
    need("nginx", root=True)
    with nginx(tmp_path, free_port(), {}) as port:
        check_error(httpx.get(f"http://127.0.0.1:{port}/model"), 502, "service_unreachable")
