"""The proof that an exported graph is the network: torch and ONNX Runtime on the same batches, and a golden sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import run_torch
from model.runtime.artifact.golden import GoldenSample
from model.runtime.engines.golden_recording import Infer, fixed_picture, record_golden, threshold_of_some
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, RawAttention, RawOutputs
from model.runtime.preprocess import Batch, make_batch

# Differences are relative to the spread of the expected array. Float32 sums in another order give about 1e-6 to 1e-5.
# Float16 keeps 11 bits: over a hundred layers, roundings of 0.0002 come to about 0.001 in logits and boxes and 0.005 in
# masks. An overflow or a norm in float16 is off by far more.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2}

# (height, width) of the images of each batch: one alone, several together, wide, tall and smaller than a cell.
BATCHES = (
    ((96, 128),),
    ((97, 141), (150, 101)),
    ((64, 250), (190, 33), (20, 20), (128, 128)),
)


_OUTPUTS = ("pred_logits", "pred_boxes", "pred_masks")
_ATTENTION = tuple(field.name for field in fields(RawAttention))


class ParityError(Exception):
    """The exported graph does not answer as the network does; the message says where and by how much."""


@dataclass
class ParityReport:
    """The worst difference seen, an output each, relative to the spread of what was expected."""

    tolerance: float = TOLERANCES["float32"]
    worst: dict[str, float] = field(default_factory=dict)

    def compare(self, case: str, found: RawOutputs, expected: RawOutputs) -> None:
        """Raise ParityError if an output differs by more than `tolerance` of its spread, or in shape."""
        if not _equal(found.mask_index, expected.mask_index):
            raise ParityError(f"{case}: other queries are kept")
        arrays = {name: (getattr(found, name), getattr(expected, name)) for name in _OUTPUTS}
        if expected.attention is not None:
            for name in _ATTENTION:
                arrays[f"attention's {name}"] = (
                    getattr(found.attention, name, None),
                    getattr(expected.attention, name),
                )
        for name, (a, b) in arrays.items():
            if b is None:
                continue
            if a is None or a.shape != b.shape:
                raise ParityError(f"{case}: {name} has the wrong shape")
            if b.size == 0:
                continue
            with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, which is refused below
                difference = float(np.abs(a - b).max()) / max(float(np.ptp(b)), 1e-6)
            if not difference <= self.tolerance:  # also refuses NaN
                raise ParityError(f"{case}: {name} differs by {difference:.2g} of its spread, above {self.tolerance:g}")
            self.worst[name] = max(self.worst.get(name, 0.0), difference)


def prove(network: ServedNetwork, infer: Infer, exact: bool, precision: str = "float32") -> ParityReport:
    """Hold a graph against the network it was exported from.

    Every batch is run with masks of some queries, of all and of none; of some only in float32, because elsewhere a
    score may round past the threshold. With exact padding each image is also run alone, and must answer as it does in
    the batch. Raises ParityError.
    """
    report, in_torch = ParityReport(TOLERANCES[precision]), partial(run_torch, network)
    for sizes in BATCHES:
        batch = make_batch([fixed_picture(*size) for size in sizes])
        name = f"batch of {len(sizes)}"
        chosen = [NO_MASKS]
        if network.has_masks:
            chosen = [ALL_MASKS, threshold_of_some(in_torch, batch), NO_MASKS]
        for threshold in chosen if precision == "float32" else chosen[::2]:
            thresholds = np.full(len(sizes), threshold, np.float32)
            found = infer(batch, thresholds)
            report.compare(f"{name}, mask threshold {threshold:.3g}", found, in_torch(batch, thresholds))
        if exact and len(sizes) > 1:
            _prove_alone(report, name, infer, batch)
    return report


def golden_sample(network: ServedNetwork) -> GoldenSample:
    """A padded batch of two and what torch answers in float32, with masks of a few queries."""
    return record_golden(partial(run_torch, network), network.has_masks)


def _prove_alone(report: ParityReport, name: str, infer: Infer, batch: Batch) -> None:
    """Each image alone, on its own canvas, against the same image in the batch."""
    together = infer(batch, np.full(len(batch.sizes), ALL_MASKS, np.float32))
    for i, (h, w) in enumerate(batch.sizes):
        single = make_batch([batch.images[i, :h, :w]])
        alone = infer(single, np.full(1, ALL_MASKS, np.float32)).image(0)
        batched = together.image(i)
        masks: tuple[NDArray[np.float32], NDArray[np.float32]] | tuple[None, None] = (None, None)
        if alone.mask_logits is not None and batched.mask_logits is not None:
            stride = single.images.shape[1] // alone.mask_logits.shape[1]
            rows, cols = -(-h // stride), -(-w // stride)
            masks = (batched.mask_logits[:, :rows, :cols], alone.mask_logits[:, :rows, :cols])
        report.compare(
            f"{name}, image {i} in a batch against alone",
            RawOutputs(batched.pred_logits, batched.pred_boxes, masks[0], None),
            RawOutputs(alone.pred_logits, alone.pred_boxes, masks[1], None),
        )


def _equal(a: Sequence[int] | NDArray[np.int64] | None, b: NDArray[np.int64] | None) -> bool:
    return (a is None) == (b is None) and (a is None or np.array_equal(a, b))  # type: ignore[arg-type]
