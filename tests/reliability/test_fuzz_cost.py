"""No bytes take much more processor time to decode than a good picture of their size (row S6)."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from model.runtime.decode import ImageLimits
from tests.reliability.conftest import Measured
from tests.reliability.costly_pictures import with_scans
from tests.reliability.fuzz_cost import CostSearch, DecodingCost
from tests.reliability.fuzz_target import seeds
from tests.server_process import REPOSITORY


def test_the_search_finds_what_costs_more() -> None:
    """As if each scan took a second: repetition is found and kept."""
    search = CostSearch(lambda data: float(data.count(b"\xff\xda")), [seeds()["jpeg progressive"]], seed=1)
    first = search.worst
    for _ in range(60):
        search.step()
    assert search.worst > 20 * first


def test_the_cost_of_an_upload_is_what_it_takes_to_decode() -> None:
    bomb = with_scans(400, (1000, 1000))
    unbounded = ImageLimits(max_pixels=10**8, max_side=10**5, max_scans=10**6, max_cpu_seconds=100)
    assert DecodingCost()(bomb) < DecodingCost(unbounded)(bomb)


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.row(id="S6")
def test_twenty_minutes_of_search_find_nothing(measured: Measured) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.reliability.fuzz_cost", "--seconds", "1200"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=2900)
    assert ended.returncode == 0, ended.stdout[-4000:]
    done = re.search(r"(\d+) inputs, 0 above .* took ([\d.]+) s", ended.stdout)
    assert done is not None
    found = f"{int(done[1]):,} inputs in 20 min, guided by processor time: the worst {done[2]} s above a good one"
    measured("S6", found, inputs=int(done[1]))
