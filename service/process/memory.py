"""Memory of this process: how much it has, how much it may have, and giving it back after a large image."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from model.runtime.engines.cgroups import MEMBERSHIP, ROOT, group_folders
from model.runtime.kept_blocks import PICTURE_BLOCKS

# Of 16 MiB, in which Pillow keeps an image: a photo of 12 megapixels has three, and its rows are resized into a fourth.
_BLOCKS_OF_PHOTO = 4
# Of glibc's malloc.h.
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 8 * 2**20
_M_ARENA_MAX, _ARENAS = -8, 1
# The most that lies in malloc's blocks for a photo in a thread is that of 1920 x 1080 pixels: itself, what is between
# the passes of its resize, and its canvas.
_M_TRIM_THRESHOLD, _KEPT_AT_END = -1, 24 * 2**20
_MOST_KEPT = 2**30  # it takes an int

# Short against what an operator looks at, and long against the pauses between the requests of one client.
GIVE_BACK_AFTER_SECONDS = 5.0


def configure_malloc() -> bool:
    """Let malloc give back what large images took; False where it is not glibc's. To be called before threads start.

    glibc otherwise gives every thread a pool of its own and keeps what was freed in it: one image of 50 megapixels
    leaves 225 MB behind in each thread that decodes one. And it learns from large blocks that are freed to take the
    next from these pools, which then never shrink: 200 MB stay after 32 large images of four formats, and 1 MB with a
    fixed bound, above which a block is the system's own and goes back to it (all measured). There is one pool only,
    because `give_back_freed` empties the first to its end, and of the others keeps the last free block; a second one
    answered no more requests. The threads that numpy and ONNX Runtime start when they are imported take none; those of
    OpenVINO do, so it is imported with the model only.

    A fixed bound also fixes what a pool keeps at its end, at 128 KiB: every image then gives its memory back and takes
    it again page by page, 2066 of them and 4 ms of processor time for 640 x 480 pixels seen at 800 x 1066. With 24 MiB
    there are none, and large images leave up to that behind until nobody has asked for a while.
    """
    return _tell_malloc({_M_ARENA_MAX: _ARENAS, _M_MMAP_THRESHOLD: _LARGE_BLOCK, _M_TRIM_THRESHOLD: _KEPT_AT_END})


def keep_picture_memory(threads: int) -> None:
    """Let malloc, Pillow and we ourselves keep the memory of a picture for the next one in each of so many threads,
    until `give_back_freed`.

    Otherwise the system has to make each page of it anew: for 12 megapixels 11,720 of them and 16 of 84 ms. Together
    with what is in use it is no more than pictures took at once.
    """
    PICTURE_BLOCKS.keep(threads)
    _tell_malloc({_M_TRIM_THRESHOLD: min(_KEPT_AT_END * threads, _MOST_KEPT)})
    Image.core.set_blocks_max(_BLOCKS_OF_PHOTO * threads)  # type: ignore[attr-defined]  # documented, not typed


def _tell_malloc(options: Mapping[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) for option, value in options.items())


def give_back_freed() -> bool:
    """Give the system back what we and Pillow keep and malloc has free; False where malloc is not glibc's. Takes some
    milliseconds.

    By itself malloc gives back only its pool's end, and of that only what exceeds a bound. What a model leaves lies in
    the middle.
    """
    PICTURE_BLOCKS.give_back()
    Image.core.clear_cache()  # type: ignore[attr-defined]  # likewise
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    return bool(trim(0))


def resident_bytes() -> int | None:
    """Memory that the process has at this moment; None where the system has no /proc to ask."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_limit(cgroup_root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """The most memory that the container, or any other control group around the process, may have; None without one.

    Reads cgroup v2 (`memory.max`) and v1 (`memory.limit_in_bytes`).
    """
    limits = []
    for folder, is_v2 in group_folders("memory", cgroup_root, membership):
        try:
            text = (folder / ("memory.max" if is_v2 else "memory.limit_in_bytes")).read_text().strip()
        except OSError:
            continue
        # Without a limit version 2 says "max", and version 1 a number beyond any machine.
        if text.isdigit() and int(text) < 2**60:
            limits.append(int(text))
    return min(limits, default=None)
