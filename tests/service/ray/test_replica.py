"""A replica of Ray Serve is a process like any other server's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs Ray, the extra `ray`")

REPLICA = """
import asyncio, gc, sys, types
from ray import serve
from service.ray import replica as module
serve.get_replica_context = lambda: types.SimpleNamespace(replica_tag="one")
module.settings_here = lambda settings: settings  # they ask Ray for the processors of this replica
from service.settings import Settings

async def objects_that_are_spared():
    replica = module.Replica(Settings(model=sys.argv[1], device="cpu", batch_timing_ms=0))
    async with replica.app.router.lifespan_context(replica.app):
        await replica.check_health()
        return gc.get_freeze_count()

print("spared", asyncio.run(objects_that_are_spared()))
"""


def test_what_is_loaded_is_left_out_of_the_search_for_garbage(detection_artifact: Path) -> None:
    """Which stops all answers for 50 to 100 ms, in a server without Ray as well."""
    script = [sys.executable, "-c", REPLICA, str(detection_artifact)]
    output = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert int(output.split()[-1]) > 10_000
