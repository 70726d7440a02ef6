"""The curve of a run as a picture: its loss, and AP and PQ on the validation pictures, over its steps.

    python -m tests.benchmarks.curve RUN/log.jsonl... --out CURVE.png

Several logs, such as those of two stages or of two settings, share the picture, each named after its folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.training.logs.log import read_log

QUALITY = {"AP": "-", "AP50": ":", "PQ": "--"}  # and the style of each line
WINDOW = 25  # lines of the log that a point of the smooth loss is the mean of


class Series(NamedTuple):
    """One figure over the run."""

    steps: NDArray[np.float64]  # [n]
    values: NDArray[np.float64]  # [n]


class Run(NamedTuple):
    """What a log says of a run."""

    name: str
    loss: Series
    quality: dict[str, Series]  # of `QUALITY`, those that were measured
    steps: int
    hours: float


def read_run(path: Path) -> Run:
    """Raises FileNotFoundError where there is no log, ValueError where it has no loss."""
    lines = [line for line in read_log(path) if "step" in line]
    loss = _series(lines, "loss")
    if not len(loss.steps):
        raise ValueError(f"{path} has no loss: is it the log.jsonl of a run?")
    quality = {name: found for name in QUALITY if len((found := _series(lines, name)).steps)}
    return Run(path.resolve().parent.name, loss, quality, lines[-1]["step"], lines[-1]["seconds"] / 3600)


def _series(lines: Sequence[dict[str, Any]], name: str) -> Series:
    pairs = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Series(steps, values)


def smooth(values: NDArray[np.float64], window: int = WINDOW) -> NDArray[np.float64]:
    """The mean around each of n values, of as many as there are near the ends: [n] to [n]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(values))
    means: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return means


def draw(runs: Sequence[Run]) -> Figure:
    """Loss above, AP and PQ below; one colour a run."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for number, run in enumerate(runs):
        _draw_run(run, above, below, f"C{number}")
    above.set_yscale("log")
    above.set_ylabel("loss")
    below.set_ylim(0, 1)
    below.set_ylabel("validation")
    below.set_xlabel("optimizer steps")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def _draw_run(run: Run, above: Axes, below: Axes, color: str) -> None:
    above.plot(*run.loss, color=color, alpha=0.25, linewidth=0.8)
    label = f"{run.name}: {run.steps} steps, {run.hours:.1f} h"
    above.plot(run.loss.steps, smooth(run.loss.values), color=color, label=label)
    for name, series in run.quality.items():
        last = f"{run.name}: {name} {series.values[-1]:.3f}"
        below.plot(*series, QUALITY[name], color=color, marker=".", label=last)


def main(words: Sequence[str] | None = None) -> None:
    """Draw the logs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+", metavar="LOG", help="log.jsonl of a run")
    parser.add_argument("--out", type=Path, required=True, help="the picture; its ending says the format")
    args = parser.parse_args(words)
    try:
        runs = [read_run(path) for path in args.logs]
    except (OSError, ValueError) as error:
        raise SystemExit(f"curve: {error}") from error
    draw(runs).savefig(args.out, dpi=120)


if __name__ == "__main__":
    main()
