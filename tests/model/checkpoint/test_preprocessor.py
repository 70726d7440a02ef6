"""Preprocessor files: sizes and pixels are those of transformers' own processor, or a field is refused by its name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

from model.checkpoint.errors import CheckpointError
from model.checkpoint.preprocessor import read_preprocessor
from model.runtime.preprocess import IMAGENET_NORMALIZATION, Normalization, resize
from model.runtime.resize_rule import Bounds, Edges, FixedSize, OwnSize, ResizeRule

pytestmark = pytest.mark.usefixtures("pillows_pixels")

EDGES = {"shortest_edge": 20, "longest_edge": 32}
# Of a transformers that is about to save it; each file below is this one with something else.
USUAL: dict[str, Any] = {
    "image_processor_type": "DetrImageProcessor",
    "do_resize": True,
    "size": EDGES,
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_pad": True,
    "do_convert_annotations": True,
    "format": "coco_detection",
}
SIZES = [(24, 24), (30, 90), (90, 30), (61, 47), (11, 300)]  # of pictures, (height, width)

FOLLOWED: list[tuple[dict[str, Any], ResizeRule]] = [
    ({}, Edges(20, 32, "transformers")),
    ({"size": {"shortest_edge": 40, "longest_edge": 32}}, Edges(32, 32, "transformers")),
    ({"size": 20, "max_size": 32}, Edges(20, 32, "transformers")),
    ({"size": 20}, Edges(20, 1333, "transformers")),
    ({"size": EDGES, "max_size": 25}, Edges(20, 32, "transformers")),
    ({"size": {"height": 20, "width": 30}}, FixedSize(20, 30)),
    ({"size": [20, 30]}, FixedSize(20, 30)),
    ({"size": {"height": 20, "width": 20}, "pad_size": {"height": 20, "width": 20}}, FixedSize(20, 20)),
    ({"size": {"max_height": 20, "max_width": 30}}, Bounds(20, 30, "transformers")),
    ({"do_resize": False}, OwnSize()),
    ({"do_resize": None}, OwnSize()),
    ({"do_pad": False, "pad_size": {"height": 320, "width": 320}}, Edges(20, 32, "transformers")),
    ({"image_processor_type": "DetrImageProcessorFast"}, Edges(20, 32, "transformers")),
    ({"image_processor_type": "DeformableDetrImageProcessor"}, Edges(20, 32, "transformers")),
]
PIXELS: list[dict[str, Any]] = [
    {"image_mean": [0.48500001430511475, 0.4560000002384186, 0.4059999883174896]},
    {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 1.0]},
    {"image_mean": 0.5, "image_std": 2},
    {"do_normalize": False},
    {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
]


def write(folder: Path, content: dict[str, Any], name: str = "preprocessor_config.json") -> Path:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def theirs(folder: Path) -> DetrImageProcessorPil:
    """transformers' processor of the folder, with Pillow; the sizes are the same with torchvision."""
    (folder / "config.json").write_text('{"model_type": "detr"}', encoding="utf-8")
    processor: DetrImageProcessorPil = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def normalized(image: Image.Image, rule: ResizeRule, normalization: Normalization) -> Any:
    pixels = resize(np.asarray(image), rule).astype(np.float32)
    mean, std = np.array(normalization.mean, np.float32), np.array(normalization.std, np.float32)
    return ((pixels / 255 - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize(("change", "rule"), FOLLOWED)
def test_sizes_are_those_of_transformers(tmp_path: Path, change: dict[str, Any], rule: ResizeRule) -> None:
    found, normalization, notes = read_preprocessor(write(tmp_path, USUAL | change), None)
    assert (found, normalization) == (rule, IMAGENET_NORMALIZATION)
    assert notes == [f"resize rule: {rule}, from preprocessor_config.json"]
    if "Deformable" in str(change):
        return  # a processor of its own, with the same code
    processor = theirs(tmp_path)
    for size in SIZES:
        seen = processor(picture(*size), return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(normalized(picture(*size), found, normalization), seen, rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", PIXELS)
def test_pixels_are_normalized_as_by_transformers(tmp_path: Path, change: dict[str, Any]) -> None:
    rule, normalization, _ = read_preprocessor(write(tmp_path, USUAL | change), None)
    seen = theirs(tmp_path)(picture(61, 47), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(normalized(picture(61, 47), rule, normalization), seen, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": {"shortest_edge": 20}}, r"size=\{'shortest_edge': 20\}, .* with --resize, such as 20,1333$"),
        ({"size": {"shortest_edge": 20}, "max_size": 30}, "such as 20,30$"),
        ({"size": {"longest_edge": 30}}, "such as max:30x30$"),
        ({"size": {"height": 20}}, "which transformers' processor of DETR does not take"),
        ({"size": EDGES | {"height": 20, "width": 30}}, "which transformers' processor of DETR does not take"),
        ({"size": {"shortest_edge": 20.5, "longest_edge": 30}}, "not in whole pixels"),
        ({"size": {"shortest_edge": 0, "longest_edge": 30}}, "not in whole pixels"),
        ({"size": "20"}, "size='20'"),
        ({"size": True}, "size=True"),
        ({"size": [20]}, r"size=\[20\]"),
        ({"size": 20, "max_size": "30"}, "size=20, which is not in whole pixels"),
        ({"resample": 3}, r"resample=3; only 2 \(bilinear\) is supported"),
        ({"resample": None}, "resample=None"),
        ({"pad_size": {"height": 320, "width": 320}}, r"pad_size=\{'height': 320, 'width': 320\}, .* --resize"),
        ({"pad_size": 320}, "pad_size=320, .* with --resize, such as 20,32$"),
        ({"size": {"max_height": 20, "max_width": 30}, "pad_size": 320}, "such as max:30x20$"),
        ({"do_resize": "no"}, "do_resize='no', which is neither true nor false"),
        ({"image_processor_type": "YolosImageProcessor"}, "image_processor_type='YolosImageProcessor'"),
        ({"image_mean": None}, "image_mean=None, which is not three numbers"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean=\[0.5, 0.5\], which is not three numbers"),
        ({"image_std": [0.5, 0.5, "0.5"]}, "image_std=.*, which is not three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, r"image_std=\[0.5, 0.0, 0.5\], where every deviation has to be above 0"),
        ({"rescale_factor": 0}, "rescale_factor=0.0, which leaves nothing of an image"),
        ({"rescale_factor": None}, "rescale_factor=None, which is no number"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_its_field(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    write(tmp_path, USUAL | change)
    with pytest.raises(CheckpointError, match=rf"^preprocessor_config\.json has .*{reason}"):
        read_preprocessor(tmp_path, None)


def test_a_rule_that_is_asked_for_replaces_one_that_cannot_be_followed(tmp_path: Path) -> None:
    write(tmp_path, USUAL | {"size": {"shortest_edge": 20}, "pad_size": 64, "image_mean": [0.5, 0.5, 0.5]})
    rule, normalization, notes = read_preprocessor(tmp_path, Edges(20, 30))
    assert rule == Edges(20, 30, "transformers")
    assert normalization.mean == (0.5, 0.5, 0.5)
    assert notes == ["resize rule: 20 and 30 pixels, as transformers rounds, as asked"]
    assert read_preprocessor(tmp_path, OwnSize())[0] == OwnSize()


def test_without_a_file_or_a_size_it_is_said_which_rule_is_taken_and_why(tmp_path: Path) -> None:
    default = Edges(800, 1333, "transformers")
    rule, normalization, notes = read_preprocessor(tmp_path, None)
    assert (rule, normalization) == (default, IMAGENET_NORMALIZATION)
    assert notes == [f"resize rule: {default}, transformers' default, because there is no preprocessor_config.json"]
    write(tmp_path, {name: value for name, value in USUAL.items() if name != "size"} | {"max_size": 500})
    assert read_preprocessor(tmp_path, None)[0] == default
    assert dict(theirs(tmp_path).size) == {"shortest_edge": 800, "longest_edge": 1333}
    assert "default, because preprocessor_config.json has no size" in read_preprocessor(tmp_path, None)[2][0]


def test_the_processor_of_transformers_5_goes_before_the_older_file(tmp_path: Path) -> None:
    write(tmp_path, USUAL | {"size": 400})
    write(tmp_path, {"image_processor": USUAL, "processor_class": "SomeProcessor"}, "processor_config.json")
    rule, _, notes = read_preprocessor(tmp_path, None)
    assert (rule, notes) == (Edges(20, 32, "transformers"), [f"resize rule: {rule}, from processor_config.json"])
    write(tmp_path, {"processor_class": "SomeProcessor"}, "processor_config.json")
    assert read_preprocessor(tmp_path, None)[0] == Edges(400, 1333, "transformers")


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"^preprocessor_config\.json (holds no JSON object|cannot be read)"):
        read_preprocessor(tmp_path, None)
