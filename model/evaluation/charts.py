"""The report's two charts, as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 460, 280  # of the drawing's own units
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 14, 40  # margins
CURVES = ((0, "IoU 0.50"), (5, "IoU 0.75"), (8, "IoU 0.90"))  # rows of `EvaluationResult.precision`
BINS = 20


def precision_recall(precision: NDArray[np.float64]) -> str:
    """Precision over recall, mean of the classes, at three IoUs, with a legend above.

    `precision` is float64 [10, 101], -1 where there is none.
    """
    lines, legend = [], []
    for place, (row, label) in enumerate(CURVES):
        points = [(k / 100, float(p)) for k, p in enumerate(precision[row]) if p >= 0]
        if points:
            path = " ".join(f"{_x(recall):.1f},{_y(p):.1f}" for recall, p in points)
            lines.append(f'<polyline class="line c{place}" points="{path}"/>')
            legend.append(f'<span><i class="c{place}"></i>{label}</span>')
    body = "".join(lines) or f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" class="middle">no box is annotated</text>'
    chart = _chart("Precision over recall", _grid(("0", "0.25", "0.5", "0.75", "1")), body, "recall", "precision")
    return f'<div class="legend">{"".join(legend)}</div>{chart}'


def histogram(qualities: Sequence[float]) -> str:
    """How many pictures have which quality, 0 to 1."""
    counts, edges = np.histogram(qualities, bins=BINS, range=(0, 1))
    most = max(1, int(counts.max()))
    bars = []
    for count, left, right in zip(counts.tolist(), edges.tolist(), edges.tolist()[1:], strict=False):
        x, width, y = _x(left) + 1, _x(right) - _x(left) - 2, _y(count / most)
        title = f"<title>{count} with {left:.2f} to {right:.2f}</title>"
        shape = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_y(0) - y:.1f}" rx="2"'
        bars.append(f'<rect class="bar" {shape}>{title}</rect>' if count else "")
    return _chart("Pictures by quality", _grid(("0", "", "", "", str(most))), "".join(bars), "quality", "pictures")


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _grid(labels: Sequence[str]) -> str:
    """Five lines across, labelled on the left, and the horizontal axis from 0 to 1."""
    parts = []
    for step, label in enumerate(labels):
        y = _y(step / 4)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="end">{label}</text>')
        parts.append(f'<text x="{_x(step / 4):.1f}" y="{_y(0) + 16:.1f}" class="middle">{step / 4:g}</text>')
    return "".join(parts)


def _chart(title: str, grid: str, body: str, below: str, beside: str) -> str:
    axes = (
        f'<text x="{_x(0.5):.1f}" y="{HEIGHT - 6}" class="middle">{below}</text>'
        f'<text x="11" y="{_y(0.5):.1f}" class="middle" transform="rotate(-90 11 {_y(0.5):.1f})">{beside}</text>'
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{grid}{axes}{body}</svg>'
