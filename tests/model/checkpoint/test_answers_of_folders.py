"""From a folder and a picture to boxes: as transformers answers with the folder's processor, at any aspect ratio."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection, DetrConfig, DetrForObjectDetection

from model.checkpoint.reading import read_checkpoint
from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import run_torch
from model.network.build import build_model
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import make_batch, resize
from tests.model.checkpoint.test_checkpoint_hugging_face import edit_json
from tests.model.transformers_models import randomize

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


def assert_answers_as_transformers(folder: Path) -> None:
    """One batch of five pictures here, one after the other there, with Pillow, which both resize with."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    theirs = AutoModelForObjectDetection.from_pretrained(folder).eval()
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
