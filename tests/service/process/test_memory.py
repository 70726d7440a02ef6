"""What the process may have of memory, and what its settings let it take."""

from __future__ import annotations

import logging
import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.runtime.resize_rule import Edges, OwnSize
from service.batching.former import QueuePlace, plan_batch
from service.batching.latency_line import UNMEASURED, LatencyLine
from service.batching.limits import BatchLimits
from service.lifecycle import warm_up
from service.lifecycle.loading import ArtifactLoader, load_model
from service.lifecycle.warm_up import largest_batch, load_and_warm_up
from service.process.memory import memory_limit, resident_bytes
from service.process.memory_budget import EngineMemory, MemoryBudget, largest_canvas, largest_image, memory_budget
from service.settings import Settings
from tests.service.fakes import EngineLoader
from tests.tiny_artifact import tiny_metadata

MIB = 2**20
MEMORY = EngineMemory(before=100 * MIB, loaded=150 * MIB, bytes_per_pixel=100.0, largest_batch=10_000)


def limit(root: Path, membership: str, files: dict[str, str]) -> int | None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "membership").write_text(membership)
    return memory_limit(root, root / "membership")


def test_the_tightest_group_around_the_process_is_its_limit(tmp_path: Path) -> None:
    files = {"a/memory.max": "3000\n", "a/b/memory.max": "8000\n", "a/b/c/memory.max": "max\n"}
    assert limit(tmp_path, "0::/a/b/c\n", files) == 3000


def test_the_older_kind_of_groups_is_read(tmp_path: Path) -> None:
    files = {"memory/job/memory.limit_in_bytes": "5000\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert limit(tmp_path, "4:cpu:/job\n3:memory:/job\n", files) == 5000


@pytest.mark.parametrize("text", ["max", "", "nonsense", "9223372036854771712"])
def test_without_a_limit_there_is_none(text: str, tmp_path: Path) -> None:
    assert limit(tmp_path, "0::/\n", {"memory.max": text}) is None
    assert memory_limit(tmp_path / "none", tmp_path / "none") is None


def test_what_the_process_has_grows_with_what_it_takes() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, 64 * MIB) as taken:  # of the system's own, because malloc may have as much that is free
        for page in range(0, len(taken), mmap.PAGESIZE):
            taken[page] = 1
        after = resident_bytes()
    assert before is not None
    assert after is not None
    assert 50 * MIB < after - before < 100 * MIB


# Prints whether malloc could be told, and for how many pages a process asks that takes and frees 300 times what an
# image needs in blocks that are not "large".
_TAKES_AND_FREES = """
import resource
from service.process.memory import configure_malloc

told = configure_malloc()
def image():
    return [bytes(3 << 20) for _ in range(4)]
image()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(300):
    image()
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_what_one_image_frees_the_next_one_takes_without_asking_for_it_page_by_page() -> None:
    done = subprocess.run([sys.executable, "-c", _TAKES_AND_FREES], capture_output=True, text=True, check=True)
    told, pages = map(int, done.stdout.split())
    assert pages < 6144 or not told  # of 12 MiB there and then, where it was each time


# Prints for how many pages a process asks that makes a large picture again, by Pillow and in memory of ours, and how
# many blocks of Pillow's and megabytes of ours are kept, before and after memory is given back.
_MAKES_PICTURES = """
import resource, tracemalloc
from PIL import Image
from model.runtime.picture_memory import white
from service.process.memory import give_back_freed, keep_picture_memory

keep_picture_memory(1)
tracemalloc.start()
def pages(make):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    make()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def kept():
    return Image.core.get_stats()["blocks_cached"], tracemalloc.get_traced_memory()[0] // 10**6
for make in (lambda: Image.new("RGB", (4000, 3000), "red"), lambda: white((4000, 3000))):
    pages(make)
    print(pages(make))
print(*kept())
give_back_freed()
print(*kept())
"""


def test_what_one_photo_frees_the_next_one_takes_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _MAKES_PICTURES], capture_output=True, text=True, check=True)
    by_pillow, ours, *kept = map(int, done.stdout.split())
    assert by_pillow < 3000  # of the 11,720 that a picture of 48 MB has
    assert ours < 10  # of as many, or of 23 where the system makes large ones
    assert kept == [3, 48, 0, 0]


def total(**changes: object) -> int:
    return memory_budget(Settings(**{"cpu_threads": 2, **changes}), tiny_metadata(), MEMORY).total  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "smaller",
    [
        {"max_pixels": 1_000_000},
        {"cpu_threads": 1},
        {"max_body_bytes": MIB},
        {"max_buffered_bytes": 32 * MIB},
        {"max_queue_size": 1},
        {"max_connections": 16},
    ],
    ids=lambda smaller: next(iter(smaller)),
)
def test_every_setting_that_bounds_memory_makes_the_budget_smaller(smaller: dict[str, int]) -> None:
    assert total(**smaller) < total()


def test_the_engine_and_masks_count() -> None:
    settings = Settings()
    small = memory_budget(settings, tiny_metadata("detection"), MEMORY).total
    assert memory_budget(settings, tiny_metadata("panoptic"), MEMORY).total > small
    larger = EngineMemory(100 * MIB, 150 * MIB, 100.0, 20_000)
    assert memory_budget(settings, tiny_metadata("detection"), larger).total >= small + 100 * 10_000


def test_each_engine_counts() -> None:
    one, two = replace(MEMORY, engines=1), replace(MEMORY, engines=2)
    settings = Settings()
    more = memory_budget(settings, tiny_metadata(), two).total - memory_budget(settings, tiny_metadata(), one).total
    assert more > settings.max_batch_size * 3  # bytes, of which one more batch has some


def test_a_model_that_replaces_another_is_not_counted_with_it_nor_for_less() -> None:
    first = EngineMemory(before=100, loaded=150, bytes_per_pixel=10.0, largest_batch=20)
    assert first.after(None) == first
    in_what_was_freed = EngineMemory(before=200, loaded=200, bytes_per_pixel=0.0, largest_batch=30)
    assert in_what_was_freed.after(first) == EngineMemory(100, 150, 10.0, 30)
    larger = EngineMemory(before=200, loaded=290, bytes_per_pixel=20.0, largest_batch=30)
    assert larger.after(first) == EngineMemory(100, 190, 20.0, 30)


def test_it_says_what_the_memory_is_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    budget = memory_budget(Settings(cpu_threads=2), tiny_metadata(), MEMORY)
    budget.tell(budget.total, MEMORY.reload)
    (line,) = caplog.messages
    assert line.startswith(f"memory budget {budget.total / MIB:,.0f} MiB: decoding and encoding ")
    assert line.endswith("a reload takes up to 51 MiB more")
    assert all(part.name in line for part in budget.parts)


def test_a_budget_beyond_the_limit_is_warned_of_with_what_to_lower(caplog: pytest.LogCaptureFixture) -> None:
    budget = memory_budget(Settings(cpu_threads=2), tiny_metadata(), MEMORY)
    budget.tell(budget.total - 1, 0)
    (warning,) = caplog.messages
    assert "exceeds the container's limit" in warning
    assert "lower max_pixels or cpu_threads" in warning
    caplog.clear()
    MemoryBudget(budget.parts).tell(None, 0)
    assert not caplog.messages


lines = st.builds(LatencyLine, st.floats(0, 1), st.floats(1e-9, 1e-3)) | st.just(UNMEASURED)
sizes = st.lists(st.tuples(st.integers(1, 64), st.integers(1, 96)), min_size=1, max_size=8)


@given(lines, sizes, st.integers(1, 8), st.integers(1, 40_000))
def test_no_batch_is_larger_than_the_largest_that_is_counted_on(
    line: LatencyLine, sizes: list[tuple[int, int]], max_batch_size: int, max_batch_pixels: int
) -> None:
    canvas = largest_canvas(tiny_metadata(), 10**9)
    queue = [QueuePlace(height, width, arrived=0, deadline=1e9) for height, width in sizes]
    plan = plan_batch(queue, line, BatchLimits(max_batch_size, max_batch_pixels), start=0)
    settings = Settings(max_batch_size=max_batch_size, max_batch_pixels=max_batch_pixels)
    assert plan.pixels <= largest_batch(line, canvas, settings)


def test_an_engine_that_gains_nothing_by_batches_has_no_large_ones() -> None:
    settings = Settings(max_batch_size=8, max_batch_pixels=12_000_000)
    assert largest_batch(LatencyLine(0.0, 1e-6), 1_000_000, settings) == 1_000_000
    assert largest_batch(LatencyLine(1.0, 1e-6), 1_000_000, settings) == 8_000_000
    assert largest_batch(UNMEASURED, 2_000_000, settings) == 12_000_000


def test_a_model_is_measured_when_its_batches_are_timed(panoptic_artifact: Path) -> None:
    settings = Settings(model=str(panoptic_artifact), device="cpu", engine_threads=1, batch_timing_ms=1)
    warm = load_and_warm_up(settings, ArtifactLoader(settings))
    assert warm.lines["cpu"] != UNMEASURED
    assert warm.memory is not None
    assert warm.memory.loaded > 10 * MIB
    assert warm.memory.largest_batch >= largest_canvas(warm.model.metadata, 10**9)
    assert warm.memory.reload >= warm.memory.engine >= 0
    cold = load_and_warm_up(settings.model_copy(update={"batch_timing_ms": 0}), ArtifactLoader(settings))
    assert cold.lines == {}
    assert cold.memory is not None
    assert cold.memory.engine == 0


def test_a_system_that_tells_nothing_has_no_budget(panoptic_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lifecycle.warm_up.resident_bytes", lambda: None)
    settings = Settings(model=str(panoptic_artifact), device="cpu", engine_threads=1, batch_timing_ms=1)
    assert load_and_warm_up(settings, ArtifactLoader(settings)).memory is None


def test_the_largest_canvas_is_as_coarse_as_those_of_the_device() -> None:
    metadata = replace(tiny_metadata(), resize=Edges(800, 1333))
    assert largest_canvas(metadata, 10**9) == 800 * 1344
    assert largest_canvas(metadata, 10**9, 128) == 896 * 1408


def test_where_images_keep_their_size_the_largest_is_as_large_as_a_batch_may_be() -> None:
    metadata = replace(tiny_metadata(), resize=OwnSize())
    settings = Settings(max_pixels=50_000_000, max_batch_pixels=1_000_000)
    assert largest_image(settings, metadata) == 1_000_000
    assert largest_image(settings, tiny_metadata()) == 50_000_000
    assert largest_canvas(metadata, 1_000_000) == 1024 * 1024  # of 1000 x 1000 pixels, padded


@pytest.mark.parametrize(("device", "largest"), [("cpu", 1), ("openvino", 1), ("cuda", 8)])
def test_on_a_cpu_no_batch_is_timed_whose_memory_would_be_kept_for_nothing(
    panoptic_artifact: Path, monkeypatch: pytest.MonkeyPatch, device: str, largest: int
) -> None:
    timed: list[int] = []

    def measured(engine: object, rule: object, images: int, pixels: int, *_: object) -> LatencyLine:
        timed.append(min(images, pixels // (800 * 1088)))
        return UNMEASURED

    opened = load_model(Settings(model=str(panoptic_artifact), device="cpu", engine_threads=1))
    monkeypatch.setattr(warm_up, "measure_line", measured)
    settings = Settings(model=str(panoptic_artifact), max_batch_size=8, max_batch_pixels=12_000_000, warm_up_ms=0)
    engine = replace(opened.engine, device=device)  # type: ignore[type-var]
    load_and_warm_up(settings, EngineLoader(settings, engine))
    assert timed == [largest]
