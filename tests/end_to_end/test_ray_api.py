"""The tests of the API, run against two replicas in a real Ray Serve by the seam of `tests/service/running.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest

from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.podman import network_of_its_own

pytestmark = [pytest.mark.soak, pytest.mark.root, pytest.mark.timeout(3600)]


def test_the_tests_of_the_api_pass_against_two_replicas(need: Callable[..., None]) -> None:
    need("ip", "unshare", root=True)
    if find_spec("ray") is None:
        pytest.skip("needs Ray, the extra `ray`")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "api and not protocol",
        "--timeout",
        "900",
        "-p",
        "no:cacheprovider",
    ]
    command += ["tests/service/http"]
    env = os.environ | {"DETR_TEST_SERVER": "tests.ray_cluster:Launcher"}
    with network_of_its_own():
        done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    # Most of the others look into the app or its engine.
    assert int(passed) >= 100, done.stdout[-8000:]
