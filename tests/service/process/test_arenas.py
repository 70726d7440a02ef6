"""A server that runs as users run it has one malloc arena, whatever threads it starts and whoever asks it at once."""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, scripted, serving
from tests.service.conftest import encode, scene

_HEAP = 64 * 2**20  # bytes of address space that glibc reserves for each arena but the first, aligned to as many
_LOAD = 4  # threads that decode, and clients that ask

# `detr serve` without what it tells malloc.
_UNCONFIGURED = """
import sys
from service import cli, server
server.configure_malloc = lambda: False
sys.exit(cli.main(sys.argv[4:]))
"""

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32, reason="looks for what glibc's malloc leaves on 64 bits"
)


def arenas(pid: int) -> int:
    """How many malloc arenas a process has, by its memory map: the first one, and the reserved heaps of others.

    A heap begins at a multiple of its size, what is in use of it can be read and written, and the rest, to its end, is
    mapped without any access.
    """
    regions = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, access, *_ = line.split(maxsplit=5)
        begin, end = (int(address, 16) for address in addresses.split("-"))
        regions.append((begin, end, access))
    heaps = [
        begin
        for (begin, end, access), (rest, rest_end, rest_access) in pairwise(regions)
        if begin % _HEAP == 0 and (rest, rest_end) == (end, begin + _HEAP) and (access, rest_access) == ("rw-p", "---p")
    ]
    return 1 + len(heaps)


def arenas_after_a_load(server: ServerProcess) -> int:
    """Decode, answer and encode in several threads at once, and count."""
    photo = encode(scene(800, 600), quality=95)

    def ask(_: int) -> int:
        return server.post("/segment?overlay=true", photo, "image/jpeg").status_code

    with ThreadPoolExecutor(_LOAD) as pool:
        assert set(pool.map(ask, range(4 * _LOAD))) == {200}
    return arenas(server.popen.pid)


OPTIONS = ("--cpu-threads", str(_LOAD), "--request-timeout-ms", "600000")


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_server_has_one_arena(panoptic_artifact: Path, tmp_path: Path, device: str) -> None:
    with serving(panoptic_artifact, tmp_path, *OPTIONS, "--device", device) as server:
        assert arenas_after_a_load(server) == 1


def test_so_has_the_scripted_server_whose_growth_is_measured(panoptic_artifact: Path, tmp_path: Path) -> None:
    with scripted(panoptic_artifact, tmp_path, *OPTIONS) as server:
        assert arenas_after_a_load(server) == 1


def test_without_a_word_to_malloc_there_are_more_which_is_noticed(panoptic_artifact: Path, tmp_path: Path) -> None:
    prefix = (sys.executable, "-c", _UNCONFIGURED)
    with serving(panoptic_artifact, tmp_path, *OPTIONS, prefix=prefix) as server:
        assert arenas_after_a_load(server) > 1
