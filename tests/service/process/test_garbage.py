"""Python's search for garbage leaves out what was there when the service became ready."""

from __future__ import annotations

import subprocess
import sys

# Prints how many objects the server of the command line leaves out, before it is ready and from then on.
_SERVES = """
import gc
from service import server
from service.settings import Settings

def serve(main, metrics_port, service, reload):
    before = gc.get_freeze_count()
    service.on_loaded()
    print("spared", before, gc.get_freeze_count())
    return True

server.serving.serve = serve
server.run(Settings(port=0))
"""


def test_a_server_leaves_what_it_has_loaded_out_of_the_search_for_garbage() -> None:
    words = [sys.executable, "-c", _SERVES]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    before, after = map(int, told.partition("spared ")[2].split()[:2])
    assert before < 10_000 < after
