"""Which of the waiting images go to the engine together, and when. Decides, and does nothing else.

A batch costs its padded pixels, through the engine's latency line. It is built around the oldest image that waits
(the anchor), by adding, one at a time, the image that wastes least: whose joining lengthens the batch least beyond
the image's own pixels, that is, grows the canvas least. An image joins only if

- the batch then takes at least `MIN_SAVING` of what the image costs alone less than running the two apart,
- it makes nobody late who is in the batch already,
- the batch stays within its limits. Those of a model whose answers depend on padding let images of one size share a
  batch and no others: nothing is then padded for another, so each answer is that of the image alone.

The joining image's own deadline is no reason to leave it out: it would be done later still, because after this batch
it would run alone.

On an engine whose batches cost no less than their images apart, every batch is then one image.

Nobody starves. The anchor is always the oldest, so an image with n before it leaves in the next n + 1 batches; and no
image is overtaken by more than `max_overtakes + max_batch_size - 2` younger ones, because from `max_overtakes` on
none of them may go before it. As no batch takes longer than its images apart, the wait is at most what the n before
it and that many more take one by one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model.runtime.preprocess import CANVAS_MULTIPLE, round_up
from service.batching.latency_line import LatencyLine
from service.batching.limits import BatchLimits

# Why a batch goes with no more in it.
DispatchReason = Literal[
    "full",  # no other image is allowed in: max_batch_size or max_batch_pixels
    "other_size",  # others wait, and the model answers alike only in batches of one size
    "cheaper_apart",  # others wait, and to add one would cost more than it saves
    "deadline",  # to add the next, or to wait for more, would make somebody late
    "waited",  # it has waited max_queue_delay_ms for more images
    "idle",  # nobody else waits, and the engine is free
    "drain",  # nobody else waits, and the service is about to end
]

# The least saving worth a joint batch, as a share of what the joining image costs alone. Everybody in a batch waits
# for all of it, and a measured line is not more exact than this.
MIN_SAVING = 0.1
# By how much a batch may exceed its expected time before it makes anybody late.
DEADLINE_MARGIN = 1.25
# So many images of the queue are looked at, or two batches of them if that is more: a decision has to be quick.
LOOKAHEAD = 256


@dataclass(eq=False)
class QueuePlace:
    """An image's place in the queue."""

    height: int  # pixels, of the image as the network sees it
    width: int  # pixels
    arrived: float  # seconds, on the clock of all times here
    deadline: float  # seconds, by which it should be done
    multiple: int = CANVAS_MULTIPLE  # pixels, of the canvas
    overtaken: int = 0  # younger images that went before it

    def __post_init__(self) -> None:
        """Round up to the canvas of the image alone."""
        self.size = (self.height, self.width)
        self.canvas = (round_up(self.height, self.multiple), round_up(self.width, self.multiple))
        self.pixels = self.canvas[0] * self.canvas[1]  # padded, alone


@dataclass(frozen=True)
class BatchPlan:
    """A batch, and when it should go unless something changes until then."""

    members: tuple[int, ...]  # positions in the queue, rising; the first is 0
    pixels: int  # padded
    reason: DispatchReason
    go_at: float  # seconds; where nothing is waited for, when the engine is free
    is_complete: bool  # nobody who is still to come could join


def plan_batch(
    queue: Sequence[QueuePlace], line: LatencyLine, limits: BatchLimits, start: float, hurry: bool = False
) -> BatchPlan:
    """The next batch.

    Args:
        queue: who waits, oldest first; at least one.
        line: what a batch costs.
        limits: what it must not exceed.
        start: when the engine is free, in seconds.
        hurry: wait for no more images.
    """
    draft = _Draft(queue[0], line, limits, start)
    reach = min(len(queue), max(LOOKAHEAD, 2 * limits.max_batch_size))
    groups = _grouped(queue[:reach], limits)
    impatient = [position for position in range(1, reach) if queue[position].overtaken >= limits.max_overtakes]
    refused: DispatchReason | None = None
    while groups and draft.size < limits.max_batch_size:
        barrier = next((position for position in impatient if position not in draft.members), reach)
        heads = [group[0] for group in groups.values() if group[0] <= barrier]
        verdicts = [(position, *draft.judge(queue[position])) for position in heads]
        refused = min(verdicts)[2]  # the oldest's
        willing = [(waste, position) for position, waste, refusal in verdicts if refusal is None]
        if not willing:
            break
        _, position = min(willing)  # of equal waste the oldest
        draft.add(position, queue[position])
        group = groups[key := _group(queue[position], limits)]
        group.popleft()
        if not group:
            del groups[key]
    reason, go_at = draft.when(refused if groups else None, hurry)
    return BatchPlan(tuple(sorted(draft.members)), draft.pixels, reason, go_at, draft.is_complete)


def note_overtaken(queue: Sequence[QueuePlace], members: Sequence[int]) -> None:
    """Count, for each who stays in the queue, the members of a batch that are younger. Both as in `plan_batch`."""
    for position, place in enumerate(queue[: members[-1]]):
        if position not in members:
            place.overtaken += sum(member > position for member in members)


def _grouped(queue: Sequence[QueuePlace], limits: BatchLimits) -> dict[tuple[int, int], deque[int]]:
    """Positions by group, without the first. Of one group the oldest goes first, so only it has to be judged."""
    groups: dict[tuple[int, int], deque[int]] = {}
    for position in range(1, len(queue)):
        groups.setdefault(_group(queue[position], limits), deque()).append(position)
    return groups


def _group(place: QueuePlace, limits: BatchLimits) -> tuple[int, int]:
    """What images are alike in that may all share batches with the same others: (height, width) in pixels."""
    return place.size if limits.same_size else place.canvas


class _Draft:
    """A batch in the making."""

    def __init__(self, anchor: QueuePlace, line: LatencyLine, limits: BatchLimits, start: float) -> None:
        self.members = [0]
        self._anchor, self._line, self._limits, self._start = anchor, line, limits, start
        self._height, self._width = anchor.canvas
        # Who is late in any case goes all the same, for the line may be wrong, and limits nobody.
        self._is_late = start + self._duration(self.pixels) > anchor.deadline
        self._due = math.inf if self._is_late else anchor.deadline

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def pixels(self) -> int:
        return self.size * self._height * self._width

    @property
    def is_full(self) -> bool:
        one_more = (self.size + 1) * self._height * self._width
        return self.size >= self._limits.max_batch_size or one_more > self._limits.max_batch_pixels

    @property
    def is_complete(self) -> bool:
        """Whether even an image of the same canvas, the best that could still come, could not join."""
        saving = self._line.fixed
        return self.is_full or saving < MIN_SAVING * self._line.seconds(self._height * self._width)

    def judge(self, place: QueuePlace) -> tuple[float, DispatchReason | None]:
        """Seconds that would go into padding if it joined, and why it must not, or None."""
        height, width = self._canvas_with(place)
        pixels = (self.size + 1) * height * width
        waste = self._line.per_pixel * (pixels - self.pixels - place.pixels)
        if self._limits.same_size and place.size != self._anchor.size:
            return waste, "other_size"
        if pixels > self._limits.max_batch_pixels:
            return waste, "full"
        # Apart, the two would pay the fixed cost twice.
        if self._line.fixed - waste < MIN_SAVING * self._line.seconds(place.pixels):
            return waste, "cheaper_apart"
        if self._start + self._duration(pixels) > self._due:
            return waste, "deadline"
        return waste, None

    def add(self, position: int, place: QueuePlace) -> None:
        self._height, self._width = self._canvas_with(place)
        self.members.append(position)
        if self._start + self._duration(self.pixels) <= place.deadline:
            self._due = min(self._due, place.deadline)

    def when(self, refused: DispatchReason | None, hurry: bool) -> tuple[DispatchReason, float]:
        """Why and when it goes; `refused` is why the oldest that stays behind does, None if nobody does."""
        if self.is_full:
            return "full", self._start
        if refused is not None:  # there is other work for the engine, so it must not stand still
            return refused, self._start
        if hurry:
            return "drain", self._start
        if self._limits.max_queue_delay == 0 or self.is_complete:
            return "idle", self._start
        waited_at = self._anchor.arrived + self._limits.max_queue_delay
        # Twice as early as needed, because to wake up late must not make it late.
        last_call = self._start if self._is_late else self._due - 2 * self._duration(self.pixels)
        return ("deadline", last_call) if last_call < waited_at else ("waited", waited_at)

    def _canvas_with(self, place: QueuePlace) -> tuple[int, int]:
        return max(self._height, place.canvas[0]), max(self._width, place.canvas[1])

    def _duration(self, pixels: int) -> float:
        """Seconds within which a batch is done for certain enough."""
        return DEADLINE_MARGIN * self._line.seconds(pixels)
