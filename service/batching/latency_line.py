"""How long a batch takes: a straight line over its padded pixels, which the engine is measured for.

    seconds = fixed + per_pixel * padded pixels (canvas height x canvas width x images)

`fixed` is what a batch costs whatever is in it (launching kernels, reading weights); it is all that batching saves.
On a GPU it is about as much as one image costs, on a CPU next to nothing. What an image costs whatever its canvas
(queries, decoder) needs no term of its own: an image pays it in any batch, so it decides nothing, and images
of one model differ too little in size for the rest to be off by much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_REMEMBERED = 31  # batches whose median corrects the line
_TRUSTED = 5  # batches that the measurement counts for among them, so that a slow start does not count for all


@dataclass(frozen=True)
class LatencyLine:
    """Seconds of a batch by its padded pixels."""

    fixed: float  # seconds, not negative
    per_pixel: float  # seconds, not negative

    def seconds(self, pixels: int) -> float:
        """Expected seconds of a batch of so many padded pixels, its images taken together."""
        return self.fixed + self.per_pixel * pixels

    def times(self, factor: float) -> LatencyLine:
        """The line of an engine that takes `factor` times as long."""
        return LatencyLine(self.fixed * factor, self.per_pixel * factor)


# Of an engine that nobody measured: padding is held to cost nothing, so that batches fill, first come, first served.
# The first batches correct how long they take.
UNMEASURED = LatencyLine(0.001, 0.0)


def fit_line(points: Sequence[tuple[int, float]]) -> LatencyLine:
    """The line with the least squared relative error whose coefficients are not negative.

    Errors are relative because those of timings are: in seconds, the largest batch alone would place the line. Where
    all points have the same pixels, nothing tells `fixed` from the rest, and none is seen to be saved: it is 0.

    Args:
        points: (padded pixels, seconds) of batches, all positive.

    Raises:
        ValueError: there is no point, or one is not positive.
    """
    if not points or any(pixels <= 0 or seconds <= 0 for pixels, seconds in points):
        raise ValueError("a latency line needs points with positive pixels and seconds")
    # Relative error is fixed * a + per_pixel * b - 1. Pixels are counted in those of the largest batch, so that both
    # columns have the same magnitude.
    largest = max(pixels for pixels, _ in points)
    rows = [(1 / seconds, pixels / largest / seconds) for pixels, seconds in points]
    a, b = sum(row[0] for row in rows), sum(row[1] for row in rows)
    aa, bb = sum(row[0] ** 2 for row in rows), sum(row[1] ** 2 for row in rows)
    ab = sum(row[0] * row[1] for row in rows)
    determinant = aa * bb - ab * ab
    if determinant <= 1e-9 * aa * bb:
        return LatencyLine(0.0, b / bb / largest)
    fixed, slope = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
    if fixed < 0:
        fixed, slope = 0.0, b / bb
    elif slope < 0:
        fixed, slope = a / aa, 0.0
    return LatencyLine(fixed, slope / largest)


class CorrectedLine:
    """A measured line, kept in step with the batches that really ran.

    Only its scale follows: by the median ratio of real to expected seconds, which one slow batch does not move. That
    keeps deadlines honest where the machine is busier than it was, or masks cost extra. How much batching saves is
    left as measured, because the batches that run are those that the line chose: fitted to them, a line that once
    held batching to be useless would never see a batch again that proves otherwise.
    """

    def __init__(self, measured: LatencyLine) -> None:
        self.line = measured
        self._measured = measured
        self._ratios: deque[float] = deque([1.0] * _TRUSTED, maxlen=_REMEMBERED)

    def observe(self, pixels: int, seconds: float) -> None:
        """Learn that a batch of so many padded pixels took so long."""
        self._ratios.append(seconds / self._measured.seconds(pixels))
        self.line = self._measured.times(median(self._ratios))
