"""No bytes bring decoding down (row S6)."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.reliability.conftest import Measured
from tests.reliability.corpus import mutations
from tests.reliability.fuzz_target import check, seeds, seeds_of_opened, with_all_formats
from tests.server_process import REPOSITORY


@pytest.mark.row(id="S6")
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own word for odd files
@pytest.mark.parametrize("name", seeds())
def test_a_changed_picture_is_a_picture_or_one_of_our_errors(name: str) -> None:
    seed = seeds()[name]
    check(seed)
    for length in range(0, len(seed), max(1, len(seed) // 40)):
        check(seed[:length])
    for changed in mutations([seed], 150, seed=len(name)):
        check(changed)


@pytest.mark.row(id="S15")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", seeds_of_opened())
def test_a_changed_picture_of_an_opened_format_is_a_picture_or_one_of_our_errors(name: str) -> None:
    seed, limits = seeds_of_opened()[name], with_all_formats()
    check(seed, limits)
    for length in range(0, len(seed), max(1, len(seed) // 40)):
        check(seed[:length], limits)
    for changed in mutations([seed], 100, seed=len(name)):
        check(changed, limits)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.row(id="S6")
def test_ten_minutes_of_search_find_nothing(measured: Measured) -> None:
    command = [sys.executable, "-m", "tests.reliability.fuzz_decode", "--seconds", "600"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=800)
    assert ended.returncode == 0, ended.stderr[-4000:]
    done = re.search(r"Done (\d+) runs", ended.stderr)
    assert done is not None
    measured("S6", f"{int(done[1]):,} inputs in 600 s, guided by coverage: only our own errors", inputs=int(done[1]))
