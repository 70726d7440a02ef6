"""A picture that is broken and memory that runs out in a decoder or an encoder are told apart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

# Decodes and encodes one good picture in each form, in processes that may take more and more memory.
_SCRIPT = """
import ctypes, io, json, os, resource
import numpy as np
from PIL import Image
from model.runtime.allocations import turn_into_memory_errors
from model.runtime.decode import LARGEST, decode

ctypes.CDLL(None).mallopt(-3, 2**16)  # what is larger is the system's, so that no free memory lies about

def saved(picture, image_format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()

def encode(picture):
    with turn_into_memory_errors():
        saved(picture, "PNG", compress_level=1)

def outcome(work, extra):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    used = resource.getpagesize() * int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, resource.RLIM_INFINITY))
    try:
        work()
    except MemoryError as error:
        os._exit(2 if isinstance(error.__context__, OSError) else 1)
    except Exception:
        os._exit(3)
    os._exit(0)

picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8))
small = picture.resize((16, 16))
FORMS = {
    "baseline": ("JPEG", {}), "progressive": ("JPEG", {"progressive": True}), "png": ("PNG", {}),
    "webp": ("WEBP", {"method": 0}), "lossless": ("WEBP", {"lossless": True, "method": 0}),
}
work = {"encode": lambda: encode(picture)}
encode(small)  # what is loaded at first takes memory, too
for name, (image_format, options) in FORMS.items():
    decode(saved(small, image_format, **options), LARGEST)
    body = saved(picture, image_format, **options)
    work[name] = lambda body=body: decode(body, LARGEST)
    work["broken " + name] = lambda body=body: decode(body[:-2000], LARGEST)
steps = [*range(0, 5 * 2**20, 2**18), 2**30]
outcomes = {}
for name, do in work.items():
    outcomes[name] = [outcome(do, extra) for extra in (steps[::10] if name.startswith("broken") else steps)]
print(json.dumps(outcomes))
"""
DONE, MEMORY, SEEMINGLY_BROKEN, BROKEN = 0, 1, 2, 3


@cache
def outcomes() -> dict[str, list[int]]:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[int]] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's memory")
@pytest.mark.parametrize("form", ["baseline", "progressive", "png", "webp", "lossless", "encode"])
def test_a_good_picture_is_never_called_broken_because_memory_is_short(form: str) -> None:
    counts = Counter(outcomes()[form])
    assert counts.keys() <= {DONE, MEMORY, SEEMINGLY_BROKEN}
    assert counts[DONE] > 0
    assert counts[SEEMINGLY_BROKEN if form not in ("baseline", "png") else MEMORY] > 0, "or this test shows nothing"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's memory")
@pytest.mark.parametrize("form", ["baseline", "progressive", "png", "webp", "lossless"])
def test_a_broken_picture_is_called_so_as_soon_as_there_is_memory(form: str) -> None:
    found = outcomes()[f"broken {form}"]
    assert found[-1] == BROKEN
    assert set(found) <= {MEMORY, SEEMINGLY_BROKEN, BROKEN}
