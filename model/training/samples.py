"""Pictures of how far the network is: at every validation, what is annotated beside what is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.coco_files import Target
from model.data.formats.mask_layers import masks_of
from model.data.formats.picture_files import read_pixels
from model.evaluation.panoptic_quality import PanopticMap
from model.evaluation.pictures import annotated_result
from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import run_torch
from model.network.build import detector_of
from model.network.config import ModelConfig
from model.runtime.answers.detections import Detections, detections_of
from model.runtime.answers.overlay import draw_detections, draw_panoptic
from model.runtime.answers.panoptic import PanopticResult, panoptic
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch, resize
from model.training.logs.loggers import log_picture

TILE = 480  # pixels of a drawing's longer side
STRIP = 24  # pixels, the height of a line of text
PAIRS_A_ROW = 2
_JPEG_QUALITY = 85

_Picture = NDArray[np.uint8]  # RGB [height, width, 3]


class SamplePredictions(lightning.Callback):
    """Writes `OUT/samples/step-NNNNNN.jpg` at every validation, and to loggers that take pictures.

    It draws when the first validation batch begins, with a moving average of the weights where there is one: so it must
    come after the callback that takes it into the module. The module has its network as `network`.
    """

    def __init__(self, data: CocoDataset, out: Path, config: ModelConfig, count: int = 8) -> None:
        """Draw the first pictures of a data set.

        Args:
            data: annotated pictures of the network's classes. Segments are drawn where it and the network have masks,
                otherwise boxes.
            out: folder of the run.
            config: the network's, for its resize rule and thresholds.
            count: how many pictures.
        """
        self.data = data
        self.folder = out / "samples"
        self.config = config
        self.indices = range(min(count, len(data)))

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, in process 0; raises what reading the pictures does, OutputError where an answer is not finite."""
        if batch_idx or dataloader_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        step, network = trainer.global_step, pl_module.network
        assert isinstance(network, nn.Module)
        title = f"step {step}: what is annotated on the left, what is found on the right"
        sheet = contact_sheet(network, self.data, self.indices, self.config, title)
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(self.folder / f"step-{step:06}.jpg", quality=_JPEG_QUALITY)
        for logger in trainer.loggers:
            log_picture(logger, "samples", sheet, step)


def contact_sheet(
    network: nn.Module, data: CocoDataset, indices: Sequence[int], config: ModelConfig, title: str
) -> _Picture:
    """Some pictures of a data set, each with its annotation and with the network's answer, under a title.

    The network, a `DETR` or `DETRsegm` on any device, answers as it would be served; its modes stay as they were.
    """
    with _served(network, config) as served:
        pairs = [_pair(served, data, index, config) for index in indices]
    rows = [pairs[start : start + PAIRS_A_ROW] for start in range(0, len(pairs), PAIRS_A_ROW)]
    width = 2 * TILE * min(PAIRS_A_ROW, len(pairs))
    return np.concatenate([_line(title, width), *(_row(row, width) for row in rows)])


@contextmanager
def _served(network: nn.Module, config: ModelConfig) -> Iterator[ServedNetwork]:
    """The network as it is served, which puts it into eval mode, and every module's mode back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield ServedNetwork(network, config.normalization)
    finally:
        for module, training in modes:
            module.training = training


def _pair(network: ServedNetwork, data: CocoDataset, index: int, config: ModelConfig) -> _Picture:
    """A line of text over two drawings: [STRIP + h, 2 * TILE, 3]."""
    record, target = data.records[index], data.target(index)
    picture = read_pixels(data.images, record)
    with_masks = network.has_masks and data.masks
    batch = make_batch([resize(picture, config.resize)])
    threshold = config.segment_threshold if with_masks else NO_MASKS
    output = run_torch(network, batch, np.full(1, threshold, np.float32)).image(0)
    tile = _tile(picture)
    size = (tile.shape[0], tile.shape[1])
    if with_masks:
        truth = annotated_segments(target, size, data.categories)
        stride = detector_of(network.network).body.level_strides[0]
        answer = panoptic(output, batch.sizes[0], size, data.categories, config.segment_threshold, stride)
        drawings = [draw_panoptic(tile, result, data.categories) for result in (truth, answer)]
        counts = len(truth.segments), len(answer.segments)
    else:
        boxes = annotated_boxes(target, size)
        found = detections_of(output.pred_logits, output.pred_boxes, size, config.detect_threshold)
        drawings = [draw_detections(tile, detections, data.categories) for detections in (boxes, found)]
        counts = len(boxes.scores), len(found.scores)
    line = _line(f"image {record.id}: {counts[0]} annotated, {counts[1]} found", 2 * TILE)
    beside = np.concatenate([_padded(drawing, size[0], TILE) for drawing in drawings], axis=1)
    return np.concatenate([line, beside])


def annotated_boxes(target: Target, size: tuple[int, int]) -> Detections:
    """A target's boxes in a drawing of some (height, width), with a score of 1, the smallest on top."""
    height, width = (int(side) for side in target["size"])
    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    boxes_xyxy = (target["boxes"].as_subclass(torch.Tensor) * scale).numpy()
    order = np.argsort((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1), kind="stable")
    return Detections(np.ones(len(order), np.float32), target["labels"].numpy()[order], boxes_xyxy[order])


def annotated_segments(target: Target, size: tuple[int, int], categories: Sequence[Category]) -> PanopticResult:
    """A target's masks in a drawing of some (height, width), with a score of 1; where they overlap, the smallest."""
    masks = masks_of(target).numpy()
    id_map = np.zeros(masks.shape[1:], dtype=np.int32)
    for index in np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist():
        id_map[masks[index]] = index + 1
    resized = Image.fromarray(id_map).resize((size[1], size[0]), Image.Resampling.NEAREST)
    category_of = {number: categories[label].id for number, label in enumerate(target["labels"].tolist(), start=1)}
    return annotated_result(PanopticMap(np.asarray(resized), category_of), categories)


def _tile(picture: _Picture) -> _Picture:
    """The picture with a longer side of `TILE` pixels, smaller or larger than it was."""
    height, width = picture.shape[:2]
    factor = TILE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size))


def _row(pairs: Sequence[_Picture], width: int) -> _Picture:
    height = max(len(pair) for pair in pairs)
    return _padded(np.concatenate([_padded(pair, height, 2 * TILE) for pair in pairs], axis=1), height, width)


def _padded(picture: _Picture, height: int, width: int) -> _Picture:
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas


def _line(text: str, width: int) -> _Picture:
    """Text on white: [STRIP, width, 3]."""
    image = Image.new("RGB", (width, STRIP), "white")
    font = ImageFont.load_default(size=STRIP * 0.6)
    ImageDraw.Draw(image).text((STRIP // 4, STRIP // 2), text, fill="black", font=font, anchor="lm")
    return np.asarray(image)
