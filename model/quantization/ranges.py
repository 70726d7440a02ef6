"""Ranges of activations: seen on pictures, and narrowed where rare extremes would cost all others precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from model.runtime.answers.detections import best_real_class
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch

LEVELS = 256  # of an 8-bit number
_SAMPLES = 2**18  # values kept of each activation, over all pictures
_BINS = 2048
_NARROWINGS = np.linspace(1.0, 0.3, 36)  # shares of the full range that are tried


class Range(NamedTuple):
    """How an activation is quantised: q = round(x / scale) + zero_point, within 0 to 255. Zero is exact."""

    scale: float
    zero_point: int


@dataclass
class Observed:
    """What was seen of one activation."""

    low: float = 0.0
    high: float = 0.0
    samples: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, values: NDArray[np.float32], budget: int) -> None:
        """Take note of values of any shape; at most about `budget` of them are kept."""
        flat = values.reshape(-1)
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        self.samples.append(flat[:: max(1, flat.size // budget)].copy())

    def best_range(self) -> Range:
        """The range whose rounding and clipping together cost the samples least, in squared error."""
        if self.low == self.high:
            return Range(1.0, 0)
        counts, edges = np.histogram(np.concatenate(self.samples), bins=_BINS, range=(self.low, self.high))
        centers = (edges[:-1] + edges[1:]) / 2
        candidates = [_covering(self.low * share, self.high * share) for share in _NARROWINGS]
        return min(candidates, key=lambda one: float((_error(centers, one) ** 2 * counts).sum()))


def observe(
    model: onnx.ModelProto,
    names: Sequence[str],
    pictures: Iterable[NDArray[np.uint8]],
    count: int,
    *,
    mask_threshold: float | None,
    progress: Callable[[], None],
) -> dict[str, Observed]:
    """Run a float graph over resized pictures [h, w, 3], each alone on its canvas, and observe the named activations.

    Args:
        model: a float32 graph with the artifact's inputs.
        names: activations.
        pictures: RGB uint8.
        count: how many there are.
        mask_threshold: which queries get masks; where none passes it, the surest one does. None for detection.
        progress: called after every picture.
    """
    session = _session(model, ["pred_logits", *names])
    observed = {name: Observed() for name in names}
    budget = max(1, _SAMPLES // count)
    for picture in pictures:
        batch = make_batch([picture])
        feed = {"images": batch.images, "padding_mask": batch.padding_mask}
        if mask_threshold is not None:
            feed["mask_threshold"] = np.array([NO_MASKS], np.float32)
            scores, _ = best_real_class(session.run(["pred_logits"], feed)[0][0])
            surest = 0.999 * float(scores.max())  # the graph's own softmax may round otherwise
            feed["mask_threshold"] = np.array([min(mask_threshold, surest)], np.float32)
        for name, values in zip(names, session.run(list(names), feed), strict=True):
            observed[name].add(values, budget)
        progress()
    return observed


def _session(model: onnx.ModelProto, outputs: Sequence[str]) -> onnxruntime.InferenceSession:
    """The graph with other outputs."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _covering(low: float, high: float) -> Range:
    scale = (high - low) / (LEVELS - 1)
    return Range(scale, round(-low / scale))


def _error(values: NDArray[np.float64], one: Range) -> NDArray[np.float64]:
    levels = np.clip(np.round(values / one.scale) + one.zero_point, 0, LEVELS - 1)
    return (levels - one.zero_point) * one.scale - values
