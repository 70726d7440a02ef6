"""Who goes together and when: decisions alone, with neither threads nor time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.former import DEADLINE_MARGIN, LOOKAHEAD, BatchPlan, QueuePlace, note_overtaken, plan_batch
from service.batching.latency_line import UNMEASURED, LatencyLine
from service.batching.limits import BatchLimits
from tests.benchmarks.batch_former import FIXED_SHARES, FORMERS, Simulation, engine_line, simulate

LIMITS = BatchLimits(max_batch_size=4, max_batch_pixels=10**9)
GPU = LatencyLine(0.02, 2e-8)  # one image of a megapixel: 20 ms fixed and 20 ms for its pixels
BUSY_GPU = LatencyLine(0.01, 2e-8)  # half of that fixed
CPU = LatencyLine(0.0, 1e-6)  # one second, and nothing saved by batching
NEVER = 1e9
WIDE, TALL, SQUARE = (800, 1088), (1088, 800), (800, 800)


def place(
    size: tuple[int, int] = WIDE, arrived: float = 0.0, deadline: float = NEVER, overtaken: int = 0
) -> QueuePlace:
    return QueuePlace(*size, arrived=arrived, deadline=deadline, overtaken=overtaken)


def plan(
    *queue: QueuePlace, line: LatencyLine = GPU, limits: BatchLimits = LIMITS, start: float = 0.0, hurry: bool = False
) -> BatchPlan:
    return plan_batch(queue, line, limits, start, hurry)


def members(*sizes: tuple[int, int], **options: Any) -> tuple[int, ...]:
    return plan(*map(place, sizes), **options).members


def test_images_of_one_canvas_go_together_in_the_order_they_came() -> None:
    assert members(WIDE, WIDE, WIDE) == (0, 1, 2)
    assert members(*[WIDE] * 9) == (0, 1, 2, 3)
    assert members((800, 1060), (790, 1088)) == (0, 1), "a canvas is rounded up"


def test_wide_and_tall_share_a_canvas_only_where_that_is_cheaper() -> None:
    assert members(WIDE, TALL) == (0, 1)
    assert members(WIDE, TALL, line=BUSY_GPU) == (0,)
    assert members(WIDE, TALL, WIDE, TALL) == (0, 2)
    assert members(TALL, WIDE, WIDE, TALL) == (0, 3)


def test_the_image_that_wastes_least_joins_first() -> None:
    two = BatchLimits(2, 10**9)
    assert members(WIDE, (800, 1216), (800, 1120), limits=two) == (0, 2)
    assert members(WIDE, SQUARE, (800, 1056), limits=two) == (0, 2), "a small image on a large canvas is padding too"


def test_an_engine_with_a_high_fixed_cost_takes_them_all_together() -> None:
    assert members(WIDE, TALL, SQUARE, line=LatencyLine(1.0, 1e-9)) == (0, 1, 2)


@pytest.mark.parametrize("delay", [0.0, 10.0])
def test_where_batching_gains_nothing_images_go_one_by_one_and_wait_for_nobody(delay: float) -> None:
    limits = BatchLimits(8, 10**9, max_queue_delay=delay)
    for line in (CPU, LatencyLine(0.05, 1e-6)):
        one = plan(place(), line=line, limits=limits, start=5.0)
        assert (one.members, one.reason, one.go_at, one.is_complete) == ((0,), "idle", 5.0, True)
        assert plan(place(), place(), line=line, limits=limits).members == (0,)
        assert plan(place(), place(), line=line, limits=limits).reason == "cheaper_apart"


def test_an_engine_that_nobody_measured_fills_its_batches_first_come_first_served() -> None:
    assert members(WIDE, TALL, SQUARE, WIDE, WIDE, line=UNMEASURED) == (0, 1, 2, 3)


def test_where_padding_leaks_only_images_of_one_size_share_a_batch() -> None:
    leaking = BatchLimits(4, 10**9, same_size=True)
    assert members((800, 1060), (800, 1061), (790, 1060), (800, 1060), limits=leaking, line=UNMEASURED) == (0, 3)
    other = plan(place((800, 1060)), place((800, 1061)), limits=leaking)
    assert (other.members, other.reason) == ((0,), "other_size")


def test_a_batch_keeps_within_its_pixels() -> None:
    limits = BatchLimits(8, max_batch_pixels=3 * 800 * 1088)
    three = plan(*[place()] * 5, limits=limits)
    assert (three.members, three.reason, three.is_complete) == ((0, 1, 2), "full", True)


def test_an_image_of_more_pixels_than_a_batch_may_have_goes_alone() -> None:
    assert plan(place(), place(), limits=BatchLimits(8, 1)).members == (0,)


def test_nobody_joins_a_batch_that_would_make_somebody_late() -> None:
    alone, pair = (DEADLINE_MARGIN * GPU.seconds(n * 800 * 1088) for n in (1, 2))
    between = (alone + pair) / 2
    for queue in ([place(deadline=between), place()], [place(deadline=between), place(), place()]):
        found = plan(*queue)
        assert (found.members, found.reason) == ((0,), "deadline")
    found = plan(place(), place(deadline=pair * 1.01), place())
    assert (found.members, found.reason) == ((0, 1), "deadline")
    assert plan(place(deadline=pair * 1.01), place()).members == (0, 1)


def test_nobody_is_left_out_for_their_own_deadline_which_the_next_batch_would_keep_even_less() -> None:
    alone = DEADLINE_MARGIN * GPU.seconds(800 * 1088)
    assert plan(place(), place(deadline=alone), place(deadline=0.001), place()).members == (0, 1, 2, 3)


def test_the_oldest_goes_even_if_it_is_late_and_holds_nobody_back() -> None:
    assert plan(place(deadline=0.001), place(), place()).members == (0, 1, 2)


WAITING = BatchLimits(4, 10**9, max_queue_delay=1.0)


def test_an_incomplete_batch_waits_for_more_images_as_long_as_it_may() -> None:
    waits = plan(place(arrived=3.0), place(arrived=3.5), limits=WAITING, start=3.6)
    assert (waits.members, waits.reason, waits.go_at) == ((0, 1), "waited", 4.0)
    assert not waits.is_complete
    assert plan(*[place()] * 4, limits=WAITING, start=0.1).go_at == 0.1
    assert plan(place(), limits=LIMITS, start=0.1).go_at == 0.1


def test_nobody_waits_while_there_is_other_work_or_the_end_is_near() -> None:
    other = plan(place(), place(TALL), line=BUSY_GPU, limits=WAITING, start=0.1)
    assert (other.members, other.reason, other.go_at) == ((0,), "cheaper_apart", 0.1)
    hurried = plan(place(), limits=WAITING, start=0.1, hurry=True)
    assert (hurried.reason, hurried.go_at) == ("drain", 0.1)


def test_a_deadline_ends_the_wait_in_time_for_all_who_wait() -> None:
    queue = [place(deadline=0.9), place(deadline=0.8)]
    first = plan(*queue, limits=WAITING)
    assert (first.members, first.reason) == ((0, 1), "deadline")
    needed = DEADLINE_MARGIN * GPU.seconds(first.pixels)
    assert 0.5 < first.go_at < 0.8 - needed
    woken = plan(*queue, limits=WAITING, start=first.go_at + 0.01)
    assert (woken.members, woken.reason) == ((0, 1), "deadline")
    assert woken.go_at <= first.go_at + 0.01


def test_an_image_that_is_late_already_does_not_wait() -> None:
    late = plan(place(deadline=0.001), limits=WAITING)
    assert (late.reason, late.go_at) == ("deadline", 0.0)


def test_nobody_joins_before_one_who_was_overtaken_too_often() -> None:
    patient = place(TALL, overtaken=LIMITS.max_overtakes - 1)
    queue = [place(), patient, place(), place()]
    assert plan(*queue, line=BUSY_GPU).members == (0, 2, 3)
    patient.overtaken += 1
    held = plan(*queue, line=BUSY_GPU, limits=WAITING)
    assert (held.members, held.reason, held.go_at) == ((0,), "cheaper_apart", 0.0)
    assert plan(*queue, line=UNMEASURED).members == (0, 1, 2, 3), "whoever goes holds up nobody"


def test_who_stays_counts_the_younger_ones_that_went() -> None:
    queue = [place() for _ in range(6)]
    note_overtaken(queue, (0, 3, 4))
    assert [waiting.overtaken for waiting in queue] == [0, 2, 2, 0, 0, 0]


def test_of_a_very_long_queue_only_the_oldest_are_looked_at() -> None:
    queue = [place(WIDE)] + [place((416, 1344))] * (LOOKAHEAD - 1) + [place(WIDE)]
    assert plan(*queue, line=BUSY_GPU).members == (0,)
    assert plan(*queue[:-2], queue[-1], line=BUSY_GPU).members == (0, LOOKAHEAD - 1)


SIZES = st.sampled_from([WIDE, TALL, SQUARE, (800, 1087), (800, 1216), (1216, 800), (416, 1344), (64, 64), (33, 1000)])
LINES = st.builds(LatencyLine, st.floats(0.0, 0.1), st.floats(1e-10, 1e-6)) | st.just(UNMEASURED)
ALL_LIMITS = st.builds(
    BatchLimits,
    st.integers(1, 9),
    st.integers(1, 10**7),
    max_queue_delay=st.sampled_from([0.0, 0.5]),
    same_size=st.booleans(),
)
PLACES = st.builds(place, SIZES, st.just(0.0), st.floats(0.0, 5.0) | st.just(NEVER), st.integers(0, 40))


@given(queue=st.lists(PLACES, min_size=1, max_size=30), line=LINES, limits=ALL_LIMITS, start=st.floats(0.0, 2.0))
def test_every_batch_keeps_its_promises(
    queue: list[QueuePlace], line: LatencyLine, limits: BatchLimits, start: float
) -> None:
    found = plan_batch(queue, line, limits, start)
    batch = [queue[position] for position in found.members]
    assert found.members[0] == 0, "the oldest goes first"
    assert all(a < b for a, b in pairwise(found.members))
    assert len(batch) <= limits.max_batch_size
    assert not limits.same_size or len({one.size for one in batch}) == 1
    height, width = (max(one.canvas[axis] for one in batch) for axis in (0, 1))
    assert found.pixels == len(batch) * height * width
    assert found.pixels <= limits.max_batch_pixels or len(batch) == 1
    assert line.seconds(found.pixels) <= sum(line.seconds(one.pixels) for one in batch) * (1 + 1e-9)
    done = start + DEADLINE_MARGIN * line.seconds(found.pixels)
    one_by_one = start + DEADLINE_MARGIN * sum(line.seconds(one.pixels) for one in batch)
    assert all(done <= one.deadline * (1 + 1e-9) or one_by_one > one.deadline * (1 - 1e-9) for one in batch[1:])
    if start + DEADLINE_MARGIN * line.seconds(batch[0].pixels) <= batch[0].deadline:
        assert done <= batch[0].deadline * (1 + 1e-9)
    if limits.max_queue_delay == 0 or len(batch) < len(queue):
        assert found.go_at == start
    assert found.go_at <= max(start, queue[0].arrived + limits.max_queue_delay)


@given(
    arrivals=st.lists(st.lists(SIZES, max_size=10), min_size=1, max_size=12),
    line=LINES,
    limits=ALL_LIMITS,
)
def test_nobody_starves(arrivals: list[list[tuple[int, int]]], line: LatencyLine, limits: BatchLimits) -> None:
    """Whatever comes after it, an image leaves within as many batches as there were images before it, and one."""
    queue: list[QueuePlace] = []
    batches_left: dict[QueuePlace, int] = {}
    arrivals = arrivals.copy()
    while arrivals or queue:
        for size in arrivals.pop(0) if arrivals else ():
            queue.append(place(size))
            batches_left[queue[-1]] = len(queue)
        if not queue:
            continue
        found = plan_batch(queue, line, limits, 0.0)
        note_overtaken(queue, found.members)
        gone = [queue[position] for position in found.members]
        for waiting in queue:
            batches_left[waiting] -= 1
            assert waiting in gone or batches_left[waiting] > 0
            assert waiting.overtaken <= limits.max_overtakes + max(0, limits.max_batch_size - 2)
        queue = [waiting for waiting in queue if waiting not in gone]


@given(queue=st.lists(st.builds(place, SIZES), min_size=1, max_size=30), line=LINES, limits=ALL_LIMITS)
def test_of_those_who_may_share_the_same_batches_the_older_always_goes_first(
    queue: list[QueuePlace], line: LatencyLine, limits: BatchLimits
) -> None:
    found = plan_batch(queue, line, limits, 0.0)
    for position in found.members:
        older = [
            i
            for i in range(position)
            if queue[i].canvas == queue[position].canvas
            and (not limits.same_size or queue[i].size == queue[position].size)
        ]
        assert set(older) <= set(found.members)


def test_an_endless_stream_of_twins_cannot_keep_another_shape_waiting() -> None:
    queue = [place(WIDE), place(TALL)]
    odd = queue[1]
    for _ in range(3):
        queue += [place(WIDE) for _ in range(20)]
        gone = [queue[position] for position in plan(*queue).members]
        if odd in gone:
            break
        queue = [waiting for waiting in queue if waiting not in gone]
    assert odd in gone
    assert len(queue) == 1 + 20 - 3 + 20


@pytest.mark.parametrize("fixed_share", FIXED_SHARES)
def test_counting_pixels_beats_counting_images_by_three_tenths(fixed_share: float) -> None:
    fifo, aware = (simulate(former, fixed_share, None, images=800) for former in FORMERS)
    assert aware.images_per_s >= 1.3 * fifo.images_per_s
    assert aware.p99_s < fifo.p99_s
    assert aware.padding_ratio < fifo.padding_ratio / 4


def test_under_moderate_load_nobody_pays_for_it_in_latency() -> None:
    fifo, aware = (simulate(former, 0.5, 0.7, images=800) for former in FORMERS)
    assert aware.p50_s <= fifo.p50_s
    assert aware.p99_s < fifo.p99_s


def test_the_simulation_is_the_same_every_time() -> None:
    first, second = (Simulation(FORMERS[1], engine_line(0.5)) for _ in range(2))
    first.saturate(200)
    second.saturate(200)
    assert first.latencies == second.latencies
