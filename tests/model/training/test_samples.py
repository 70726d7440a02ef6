"""Sample predictions: which pictures are drawn, of which weights, and that drawing changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import nn

from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.coco_files import Target
from model.data.formats.folders import open_dataset
from model.data.formats.mask_layers import layers_of
from model.data.shapes.command import CATEGORIES
from model.network.build import build_model
from model.network.segmentation import DETRsegm
from model.runtime.resize_rule import Edges
from model.training import samples
from model.training.samples import (
    STRIP,
    TILE,
    SamplePredictions,
    annotated_boxes,
    annotated_segments,
    contact_sheet,
)
from tests.model.networks import SMALL
from tests.model.training.tiny_run import Tiny, ones, tiny_trainer

CONFIG = replace(SMALL, resize=Edges(64, 96), detect_threshold=0.0, segment_threshold=0.0)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning with the latest torch
]


@pytest.fixture(scope="module")
def scenes(tiny_shapes: Path) -> CocoDataset:
    return open_dataset("shapes", tiny_shapes, "val", masks=True)


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    return build_model(replace(SMALL, masks=False))


class WithNetwork(Tiny):
    """Trains a network's only weight."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.network.weight)

    def training_step(self, batch: torch.Tensor, batch_index: int) -> torch.Tensor:
        return 10 * self.network(batch).square().sum()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The weight that each sheet was drawn with; nothing is really drawn."""
    weights: list[float] = []

    def sheet(network: nn.Linear, *_: Any) -> NDArray[np.uint8]:
        weights.append(network.weight.item())
        return np.full((8, 16, 3), 200, np.uint8)

    monkeypatch.setattr(samples, "contact_sheet", sheet)
    return weights


def tiles(sheet: NDArray[np.uint8], pair: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The two drawings of a pair of square pictures in the first row."""
    top, left = 2 * STRIP, 2 * TILE * pair
    return sheet[top : top + TILE, left : left + TILE], sheet[top : top + TILE, left + TILE : left + 2 * TILE]


def test_every_validation_leaves_a_picture_named_by_its_step(
    scenes: CocoDataset, drawn: list[float], tmp_path: Path
) -> None:
    trainer = tiny_trainer(9, SamplePredictions(scenes, tmp_path, CONFIG))
    trainer.fit(WithNetwork(), ones(), ones())
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["step-000004.jpg", "step-000008.jpg"], "the check before training is no validation"
    assert len(drawn) == 2
    with Image.open(tmp_path / "samples" / names[0]) as image:
        assert (image.size, image.format) == ((16, 8), "JPEG")


@pytest.mark.parametrize("first", [True, False])
def test_what_is_drawn_are_the_averaged_weights_wherever_the_callback_stands(
    scenes: CocoDataset, drawn: list[float], tmp_path: Path, first: bool
) -> None:
    class Average(lightning.Callback):
        weight: float | None = None
        latest = 0.0

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.latest = pl_module.network.weight.item()
            self.weight = self.latest if self.weight is None else 0.5 * self.weight + 0.5 * self.latest

    average, sampling = Average(), SamplePredictions(scenes, tmp_path, CONFIG)
    averaging = EMAWeightAveraging(decay=0.5)
    callbacks = [sampling, averaging] if first else [averaging, sampling]
    trainer = tiny_trainer(4, average, *callbacks)
    trainer.fit(WithNetwork(), ones(), ones())
    assert drawn == pytest.approx([average.weight])
    assert drawn != pytest.approx([average.latest]), "averaged and latest weights are alike: the test shows nothing"


def test_only_process_0_draws(
    scenes: CocoDataset, drawn: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lightning.Trainer, "is_global_zero", False)
    tiny_trainer(4, SamplePredictions(scenes, tmp_path, CONFIG)).fit(WithNetwork(), ones(), ones())
    assert not drawn
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("drawn")
def test_tensorboard_has_the_picture_too(scenes: CocoDataset, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, "tensorboard", "")
    trainer = tiny_trainer(4, SamplePredictions(scenes, tmp_path, CONFIG), logger=logger)
    trainer.fit(WithNetwork(), ones(), ones())
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir).Reload()
    (image,) = events.Images("samples")
    assert (image.step, image.width, image.height) == (4, 16, 8)


@pytest.mark.parametrize("masks", [True, False])
def test_a_sheet_has_a_pair_of_drawings_for_every_picture(
    scenes: CocoDataset, small_network: DETRsegm, detector: nn.Module, masks: bool
) -> None:
    network = small_network if masks else detector
    sheet = contact_sheet(network, scenes, range(3), CONFIG, "step 5")
    assert sheet.dtype == np.uint8
    assert sheet.shape == (STRIP + 2 * (STRIP + TILE), 4 * TILE, 3)
    (annotated, found), (other, _) = tiles(sheet, 0), tiles(sheet, 1)
    assert not np.array_equal(annotated, found)
    assert not np.array_equal(annotated, other)
    assert (sheet[-TILE:, -TILE:] == 255).all(), "where there is no picture there is white"


def test_nothing_found_leaves_the_picture_bare(scenes: CocoDataset, detector: nn.Module) -> None:
    annotated, found = tiles(contact_sheet(detector, scenes, [0], replace(CONFIG, detect_threshold=1.0), ""))
    height, width = scenes.sizes[0]
    enlarged = (round(TILE * width / max(height, width)), round(TILE * height / max(height, width)))
    picture = np.asarray(Image.fromarray(scenes[0][0].permute(1, 2, 0).numpy()).resize(enlarged))
    np.testing.assert_array_equal(found[: enlarged[1], : enlarged[0]], picture)
    assert not np.array_equal(annotated, found)


def test_the_annotation_is_drawn_in_its_categories_colors(scenes: CocoDataset, detector: nn.Module) -> None:
    annotated, _ = tiles(contact_sheet(detector, scenes, [0], CONFIG, ""))
    for label in scenes.target(0)["labels"].tolist():
        assert (annotated == scenes.categories[label].color).all(axis=-1).any()


def test_drawing_leaves_modes_weights_and_statistics_as_they_were(scenes: CocoDataset, small_network: DETRsegm) -> None:
    network = build_model(SMALL)
    network.load_state_dict(small_network.state_dict())
    network.train()
    assert isinstance(network, DETRsegm)
    network.detr.eval()  # as in stage masks
    modes = [module.training for module in network.modules()]
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    contact_sheet(network, scenes, [0, 1], CONFIG, "step 5")
    assert [module.training for module in network.modules()] == modes
    assert len(set(modes)) == 2
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_a_data_set_with_fewer_pictures_than_asked_is_drawn_whole(scenes: CocoDataset, tmp_path: Path) -> None:
    assert list(SamplePredictions(scenes, tmp_path, CONFIG, 100).indices) == list(range(len(scenes)))


def target_of(masks: NDArray[np.bool_], labels: list[int]) -> Target:
    layers = layers_of(masks, (masks.shape[1], masks.shape[2]))
    return {"labels": torch.tensor(labels), **layers._asdict()}


def test_where_annotated_masks_overlap_the_smallest_is_seen() -> None:
    masks = np.zeros((3, 20, 30), dtype=np.bool_)
    masks[0, 5:10, 5:10] = True
    masks[1, :, :20] = True
    masks[2, 6:8, 6:8] = True
    found = annotated_segments(target_of(masks, [2, 0, 1]), (40, 60), CATEGORIES)
    labels = {segment.id: segment.label for segment in found.segments}
    assert found.id_map.shape == (40, 60)
    assert [labels.get(int(found.id_map[y, x])) for y, x in ((0, 0), (11, 11), (14, 14), (30, 50))] == [0, 2, 1, None]


def test_an_annotated_mask_that_is_covered_or_lost_in_the_drawing_is_no_segment() -> None:
    masks = np.zeros((3, 64, 64), dtype=np.bool_)
    masks[0, 5:20, 5:20] = masks[1, 5:20, 5:20] = True
    masks[2, 33, 33] = True
    found = annotated_segments(target_of(masks, [0, 1, 2]), (4, 4), CATEGORIES)
    assert [segment.label for segment in found.segments] == [1]
    assert annotated_segments(target_of(masks[:0], []), (4, 4), CATEGORIES).segments == ()


def test_annotated_boxes_are_those_of_the_drawing_the_smallest_on_top() -> None:
    boxes = torch.tensor([[0.0, 0.0, 100.0, 50.0], [10.0, 20.0, 30.0, 40.0]])
    target = {"labels": torch.tensor([3, 1]), "boxes": boxes, "size": torch.tensor([50, 100])}
    found = annotated_boxes(target, (240, 480))
    np.testing.assert_allclose(found.boxes_xyxy, [[48, 96, 144, 192], [0, 0, 480, 240]])
    assert found.labels.tolist() == [1, 3]
    assert found.scores.tolist() == [1.0, 1.0]
