"""From a folder and a picture to boxes: as transformers answers with the folder's processor, at any aspect ratio."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
)

from model.checkpoint.errors import CheckpointError
from model.checkpoint.reading import read_checkpoint
from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import run_torch
from model.network.build import build_model
from model.network.config import PRESETS
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import make_batch, resize
from model.runtime.resize_rule import Bounds, Edges
from tests.model.checkpoint.test_checkpoint_hugging_face import edit_json
from tests.model.networks import filled
from tests.model.transformers_models import randomize

pytestmark = pytest.mark.usefixtures("pillows_pixels")

SIZES = [(60, 60), (48, 144), (150, 50), (61, 97), (33, 200)]  # of pictures, (height, width)
EDGES = {"shortest_edge": 64, "longest_edge": 96}
SMALL: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 9,
    "id2label": {0: "cat", 1: "dog"},
}


def timm_config(kind: type[Any] = DetrConfig, backbone: str = "resnet18", **settings: Any) -> Any:
    """As transformers before 5 wrote it, which a current one fills in."""
    return kind(backbone=backbone, use_timm_backbone=True, use_pretrained_backbone=False, **SMALL, **settings)


def native_config(kind: type[Any] = DetrConfig, **settings: Any) -> Any:
    backbone = {
        "model_type": "resnet",
        "layer_type": "basic",
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    return kind(backbone_config=backbone, use_timm_backbone=False, **SMALL, **settings)


def save(folder: Path, model: Any, **preprocessor: Any) -> None:
    """A folder of a model with weights that show when they land in the wrong place."""
    with torch.no_grad():
        randomize(model.eval(), seed=3)
    model.save_pretrained(folder)
    fields: dict[str, Any] = {"image_processor_type": "DetrImageProcessor", "size": EDGES}
    edit_json(folder / "preprocessor_config.json", **fields | preprocessor)


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


def answers_of(folder: Path, images: list[Image.Image]) -> RawOutputs:
    """Of the served network to all pictures in one batch."""
    checkpoint = read_checkpoint(folder)
    network = build_model(checkpoint.config)
    network.load_state_dict(checkpoint.state_dict)
    served = ServedNetwork(network, checkpoint.config.normalization)
    batch = make_batch([resize(np.asarray(image), checkpoint.config.resize) for image in images])
    return run_torch(served, batch, np.full(len(images), 2.0, np.float32))


def assert_answers_as_transformers(folder: Path, theirs: Any = None) -> None:
    """One batch of five pictures here, one after the other there, with Pillow, which both resize with."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    theirs = theirs or AutoModelForObjectDetection.from_pretrained(folder).eval()
    images = pictures()
    found = answers_of(folder, images)
    for index, image in enumerate(images):
        with torch.no_grad():
            expected = theirs(**processor(image, return_tensors="pt"))
        assert expected.logits[0].std(0).mean() > 0.01, "all queries answer alike, so the test shows little"
        np.testing.assert_allclose(found.pred_logits[index], expected.logits[0].numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.pred_boxes[index], expected.pred_boxes[0].numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "preprocessor",
    [
        {},
        {"size": 64, "max_size": 96},
        {"size": {"height": 64, "width": 80}},
        {"size": {"max_height": 64, "max_width": 96}},
        {"do_resize": False},
        {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]},
    ],
    ids=str,
)
def test_a_folder_answers_as_transformers_however_it_sees_images(tmp_path: Path, preprocessor: dict[str, Any]) -> None:
    save(tmp_path, DetrForObjectDetection(native_config()), **preprocessor)
    assert_answers_as_transformers(tmp_path)


@pytest.mark.parametrize(("backbone", "dilation"), [("resnet18", False), ("resnet50", True)])
def test_a_folder_with_a_backbone_of_timm_answers_as_transformers(
    tmp_path: Path, backbone: str, dilation: bool
) -> None:
    config = timm_config(backbone=backbone, dilation=dilation)
    assert config.backbone_config.output_stride == (16 if dilation else None)
    save(tmp_path, DetrForObjectDetection(config))
    assert read_checkpoint(tmp_path).config.dilation is dilation
    assert_answers_as_transformers(tmp_path)


def table_transformer(make_config: Any) -> Any:
    """Alike in all but the two published sizes: 15 queries and 2 classes, or 125 and 6."""
    return TableTransformerForObjectDetection(make_config(TableTransformerConfig))


@pytest.mark.parametrize("make_config", [native_config, timm_config])
def test_a_table_transformer_answers_as_transformers(tmp_path: Path, make_config: Any) -> None:
    save(tmp_path, table_transformer(make_config), size=96, max_size=96)
    checkpoint = read_checkpoint(tmp_path)
    names = "transformers" if make_config is native_config else "timm"
    assert checkpoint.notes[0] == f"a Hugging Face Table Transformer with {names} names for its backbone"
    assert (checkpoint.config.pre_norm, checkpoint.config.backbone) == (True, "resnet18")
    assert checkpoint.config.resize == Edges(96, 96, "transformers")
    assert [category.name for category in checkpoint.categories or ()] == ["cat", "dog"]
    assert_answers_as_transformers(tmp_path)


def test_a_table_transformer_is_known_by_its_weights_whatever_its_config_calls_it(tmp_path: Path) -> None:
    model = table_transformer(native_config)
    save(tmp_path, model, size=96, max_size=96)
    edit_json(tmp_path / "config.json", model_type="detr")
    assert_answers_as_transformers(tmp_path, model)


def test_a_detector_that_is_called_a_table_transformer_is_refused(tmp_path: Path) -> None:
    save(tmp_path, DetrForObjectDetection(native_config()))
    edit_json(tmp_path / "config.json", model_type="table-transformer")
    with pytest.raises(CheckpointError, match="the weights lack the encoder's last norm"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("queries", "classes", "longest", "first_names"),
    [(15, 2, 800, ["table", "table rotated"]), (125, 6, 1000, ["table", "table column"])],
)
def test_the_authors_own_file_of_a_table_transformer_is_read(
    tmp_path: Path, queries: int, classes: int, longest: int, first_names: list[str]
) -> None:
    config = replace(PRESETS["table-transformer"], num_queries=queries, num_classes=classes)
    state = filled(replace(config, hidden_dim=64, dim_feedforward=64)).state_dict()
    path = tmp_path / "pubtables1m.pth"
    torch.save(state, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.config.resize == Bounds(longest, longest)
    assert checkpoint.config.detect_threshold == 0.5
    assert [category.name for category in checkpoint.require_categories()[:2]] == first_names
    assert any("as its authors run a Table Transformer that finds" in note for note in checkpoint.notes)
    asked = read_checkpoint(path, resize=Edges(64, 96))
    assert asked.config.resize == Edges(64, 96)
    assert [note for note in asked.notes if "resize rule" in note] == [f"resize rule: {Edges(64, 96)}, as asked"]


def test_the_authors_own_file_answers_as_the_folder_of_the_same_weights(tmp_path: Path) -> None:
    save(tmp_path, table_transformer(native_config), size=96, max_size=96)
    state = read_checkpoint(tmp_path).state_dict
    path = tmp_path / "authors" / "model.pth"
    path.parent.mkdir()
    torch.save(state, path)
    from_file = read_checkpoint(path, resize=Edges(96, 96, "transformers"))
    assert from_file.config == read_checkpoint(tmp_path).config
    assert all(torch.equal(tensor, state[key]) for key, tensor in from_file.state_dict.items())


def test_a_picture_of_a_table_transformer_is_answered_alike_alone_and_in_any_batch(tmp_path: Path) -> None:
    save(tmp_path, table_transformer(native_config), size=96, max_size=96)
    images = pictures()
    together = answers_of(tmp_path, images)
    for index, image in enumerate(images):
        alone = answers_of(tmp_path, [image])
        np.testing.assert_allclose(together.pred_logits[index], alone.pred_logits[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(together.pred_boxes[index], alone.pred_boxes[0], rtol=0, atol=1e-4)
