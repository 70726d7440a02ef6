"""What a GPU answers: the CPU's numbers and the published ones, in any batch, and the golden sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model.runtime.engines.golden_recording import fixed_picture, threshold_of_some
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, RawOutputs
from model.runtime.preprocess import Batch, make_batch
from tests.gpu.models import MODELS, PRECISIONS, R50_PANOPTIC, Model, Stored, artifact
from tests.gpu.session import DEVICE, either
from tests.gpu.table import Part

if TYPE_CHECKING:
    from model.exporting.parity_proof import ParityReport
    from model.runtime.engines.engine import Engine

pytestmark = pytest.mark.gpu

# (height, width) of the pictures of each batch.
BATCHES = either(
    (((96, 128),), ((97, 141), (150, 101)), ((64, 250), (190, 33), (20, 20), (128, 128))), (((50, 90), (70, 20)),)
)
GPU_CANVAS = 128
NUMBERS = Path(__file__).parents[1] / "parity" / "detr_resnet50_panoptic.npz"

every_model = pytest.mark.parametrize("model", MODELS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


@every_precision
@every_model
def test_answers_are_those_of_the_cpu(model: Model, precision: Stored, folder: Path, part: Part) -> None:
    """In float32 to 1e-4 of an output's spread, in float16 to the bound that export proves it by."""
    report = _report(precision)
    engine, reference = _engine(folder, model, precision), _cpu(folder, model)
    for sizes in BATCHES:
        batch = make_batch([fixed_picture(*size) for size in sizes])
        for threshold in _thresholds(reference, batch, model, precision):
            thresholds = np.full(len(sizes), threshold, np.float32)
            found, expected = engine.infer(batch, thresholds), reference.infer(batch, thresholds)
            report.compare(f"batch of {len(sizes)}", found, expected)
    _tell(part, report)


@every_precision
@every_model
def test_a_batch_changes_no_answer(model: Model, precision: Stored, folder: Path, part: Part) -> None:
    """Whatever lies beside a picture, and on whichever canvas."""
    report = _report(precision)
    engine = _engine(folder, model, precision)
    for multiple in (32, GPU_CANVAS):
        pictures = [fixed_picture(*size) for size in BATCHES[-1]]
        together = engine.infer(make_batch(pictures, multiple), np.full(len(pictures), ALL_MASKS, np.float32))
        for index, picture in enumerate(pictures):
            alone = engine.infer(make_batch([picture]), np.full(1, ALL_MASKS, np.float32))
            report.compare(f"image {index}", *_of_one(picture.shape[:2], together, index, alone))
    _tell(part, report)


@every_precision
@every_model
def test_the_golden_sample_is_answered_as_recorded(model: Model, precision: Stored, folder: Path, part: Part) -> None:
    replay_golden(_engine(folder, model, precision), artifact(folder, model, precision))
    part.tell("as recorded")


def test_answers_are_the_published_ones(folder: Path, part: Part) -> None:
    """Of R50 with the weights that the published implementation was run with, to 1e-4 of each array's spread."""
    numbers = np.load(NUMBERS)
    engine = _engine(folder, R50_PANOPTIC, "float32")
    pictures = [numbers[f"image_{i}"] for i in (0, 1)]
    outputs = engine.infer(make_batch(pictures), np.full(2, ALL_MASKS, np.float32))
    worst = 0.0
    for i, picture in enumerate(pictures):
        rows, cols = (-(-side // 4) for side in picture.shape[:2])
        of_image = outputs.image(i)
        assert of_image.mask_logits is not None
        for found, name in (
            (of_image.pred_logits, "pred_logits"),
            (of_image.pred_boxes, "pred_boxes"),
            (of_image.mask_logits[:12, :rows, :cols], "pred_masks"),
        ):
            expected = numbers[f"solo_{i}_{name}"]
            worst = max(worst, float(np.abs(found - expected).max() / np.ptp(expected)))
    part.tell(f"worst {worst:.1e} of the spread", worst=worst)
    assert worst <= 1e-4


@cache
def _engine(folder: Path, model: Model, precision: Stored) -> Engine:
    return open_engine(artifact(folder, model, precision), DEVICE)


@cache
def _cpu(folder: Path, model: Model) -> Engine:
    return open_engine(artifact(folder, model), "cpu")


def _report(precision: Stored) -> ParityReport:
    from model.exporting.parity_proof import TOLERANCES, ParityReport

    return ParityReport(TOLERANCES[precision])


def _thresholds(reference: Engine, batch: Batch, model: Model, precision: Stored) -> Sequence[float]:
    """With masks of all queries and of some, where a score cannot round past the threshold."""
    if model != R50_PANOPTIC and model != "demo":
        return (NO_MASKS,)
    return (ALL_MASKS,) if precision == "float16" else (ALL_MASKS, threshold_of_some(reference.infer, batch))


def _of_one(
    size: tuple[int, int], together: RawOutputs, index: int, alone: RawOutputs
) -> tuple[RawOutputs, RawOutputs]:
    """One image's outputs in the batch and alone, the masks without padding."""
    outputs = []
    for image in (together.image(index), alone.image(0)):
        masks = image.mask_logits
        if masks is not None:
            masks = masks[:, : -(-size[0] // 4), : -(-size[1] // 4)]
        outputs.append(RawOutputs(image.pred_logits, image.pred_boxes, masks, None))
    return outputs[0], outputs[1]


def _tell(part: Part, report: ParityReport) -> None:
    worst = max(report.worst.values())
    part.tell(f"worst {worst:.1e} of the spread, promised {report.tolerance:g}", worst=worst, promised=report.tolerance)
