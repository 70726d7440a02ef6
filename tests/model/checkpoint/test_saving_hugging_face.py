"""A folder that is written for transformers answers there what it answers here, and comes back as it was."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageSegmentation, AutoModelForObjectDetection

from model.categories.names import named_category
from model.checkpoint.errors import CheckpointError
from model.checkpoint.hugging_face import published_key
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.saving import save_checkpoint
from model.checkpoint.saving_hugging_face import save_hugging_face
from model.checkpoint.strict import Checkpoint
from model.checkpoint.transformers_names import transformers_key
from model.network.build import build_model
from model.network.config import PRESETS, ModelConfig
from model.network.nested_tensor import pad_images
from model.runtime.categories import Category
from model.runtime.preprocess import Normalization
from model.runtime.resize_rule import Bounds, Edges, FixedSize, OwnSize, ResizeRule
from service.cli import main
from tests.model.checkpoint.test_checkpoint import State, assert_equal, state_of
from tests.model.networks import filled

SMALL = ModelConfig(
    backbone="resnet18",
    hidden_dim=128,
    dim_feedforward=96,
    encoder_layers=2,
    decoder_layers=2,
    num_queries=6,
    num_classes=3,
    resize=Edges(60, 100, "transformers"),
    detect_threshold=0.4,
    segment_threshold=0.6,
)
NAMES = (
    Category(7, "cat", True, (1, 2, 3)),
    Category(3, "sky", False, (9, 8, 7)),
    Category(4, "dog", True, (0, 0, 0)),
)
SIZES = [(64, 64), (60, 100), (100, 45), (33, 120), (97, 64)]  # height, width


def checkpoint_of(tmp_path: Path, config: ModelConfig = SMALL) -> Checkpoint[torch.Tensor]:
    save_checkpoint(tmp_path / "own.safetensors", filled(config).state_dict(), config, NAMES, {})
    return read_checkpoint(tmp_path / "own.safetensors")


def of_transformers(folder: Path, masks: bool) -> Any:
    """The model that transformers makes of the folder, every weight of which it finds there."""
    kind = AutoModelForImageSegmentation if masks else AutoModelForObjectDetection
    model, loading = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    assert not any(loading.values()), loading
    return model.eval()


def assert_answers_alike(state: State, config: ModelConfig, theirs: Any) -> None:
    """Both in float64: weights by a rule make logits of some size, in which float32 loses digits of its own."""
    ours = build_model(config).eval().double()
    ours.load_state_dict(state)
    theirs = copy.deepcopy(theirs).double()
    for height, width in SIZES:
        image = torch.randn((3, height, width), generator=torch.Generator().manual_seed(1)).double()
        with torch.no_grad():
            expected = theirs(image[None], pixel_mask=torch.ones((1, height, width), dtype=torch.long))
            found = ours(pad_images([image]))
        torch.testing.assert_close(found["pred_logits"], expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(found["pred_boxes"], expected.pred_boxes, atol=1e-5, rtol=0)
        if config.masks:
            masks = found["pred_masks"][:, : -(-height // 4), : -(-width // 4)]
            torch.testing.assert_close(masks, expected.pred_masks[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, masks=True),
        replace(SMALL, pre_norm=True, resize=Bounds(80, 80, "transformers"), detect_threshold=0.5),
        replace(SMALL, stages=3, frozen_batch_norm=False, position_embedding="learned", nheads=4),
        replace(SMALL, backbone="resnet50", dilation=True, encoder_layers=1, decoder_layers=1),
        pytest.param(replace(SMALL, backbone="resnet50", dilation=True, masks=True), marks=pytest.mark.slow),
    ],
)
def test_transformers_answers_the_same_and_gives_the_same_back(tmp_path: Path, config: ModelConfig) -> None:
    checkpoint = checkpoint_of(tmp_path, config)
    save_hugging_face(checkpoint, tmp_path / "theirs")
    theirs = of_transformers(tmp_path / "theirs", config.masks)
    assert theirs.config.id2label == {0: "cat", 1: "sky", 2: "dog"}
    assert_answers_alike(checkpoint.state_dict, config, theirs)
    theirs.save_pretrained(tmp_path / "again")
    AutoImageProcessor.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "again")
    again = read_checkpoint(tmp_path / "again")
    assert_equal(again.state_dict, {k: t for k, t in checkpoint.state_dict.items() if "num_batches" not in k})
    assert replace(again.config, frozen_batch_norm=config.frozen_batch_norm) == config
    assert again.categories == checkpoint.categories


@pytest.mark.parametrize(
    "rule",
    [Edges(60, 100, "transformers"), FixedSize(48, 80), Bounds(50, 90, "transformers"), OwnSize()],
    ids=lambda rule: type(rule),
)
def test_its_processor_sees_what_the_network_is_to_see(tmp_path: Path, rule: ResizeRule) -> None:
    normalization = Normalization((0.5, 0.4, 0.3), (0.25, 0.5, 1.0))
    config = replace(SMALL, resize=rule, normalization=normalization)
    save_hugging_face(checkpoint_of(tmp_path, config), tmp_path / "theirs")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "theirs", do_pad=False)
    for height, width in [(1, 1), (30, 500), (61, 59), (400, 300), (100, 100), (64, 129)]:
        image = np.full((height, width, 3), 51, dtype=np.uint8)
        (pixels,) = processor(image, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
        assert tuple(pixels.shape[1:]) == rule.size(height, width), (height, width)
        torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([-1.2, -0.4, -0.1]), atol=1e-5, rtol=0)
    assert read_checkpoint(tmp_path / "theirs").config.resize == rule


def test_classes_that_were_renamed_since_are_those_of_the_names(tmp_path: Path) -> None:
    save_hugging_face(checkpoint_of(tmp_path), tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["id2label"]["1"] = "sea"
    broken: list[Any] = [[], {"categories": [{}], "detect_threshold": "high"}, None]
    for written_here in (content["detr_serve"], *broken):
        path.write_text(json.dumps(content | {"detr_serve": written_here}), encoding="utf-8")
        categories = read_checkpoint(tmp_path / "theirs").categories
        assert categories == tuple(named_category(i, name) for i, name in enumerate(("cat", "sea", "dog")))


def test_every_published_key_has_a_name_there_and_back() -> None:
    for preset in ("detr-resnet-50", "detr-resnet-101-panoptic"):
        for key in state_of(replace(PRESETS[preset], backbone="resnet18", encoder_layers=1)):
            if ".in_proj_" not in key:
                for native in (True, False):
                    assert published_key(transformers_key(key, native)) == key


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pre_norm": True, "masks": True}, "pre_norm=True with a mask head"),
        ({"pre_norm": True, "position_embedding": "learned"}, "pre_norm=True with position_embedding='learned'"),
        ({"backbone": "resnext50_32x4d"}, "backbone=resnext50_32x4d: transformers' DETR is written for resnet18"),
        ({"stages": 3, "masks": True}, "stages=3 with a mask head: that of transformers takes 4 levels"),
    ],
)
def test_a_network_that_transformers_lacks_is_refused_by_the_field(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    checkpoint = checkpoint_of(tmp_path)
    with pytest.raises(CheckpointError, match=reason):
        save_hugging_face(replace(checkpoint, config=replace(SMALL, **change)), tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_a_folder_is_replaced_only_where_it_is_such_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, folder = checkpoint_of(tmp_path), tmp_path / "theirs"
    for _ in range(2):
        save_hugging_face(checkpoint, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"own.safetensors", "theirs"}
    assert {path.name for path in folder.iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    before = (folder / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match="nothing says what its 3 classes are called"):
        save_hugging_face(replace(checkpoint, categories=None), folder)
    with pytest.raises(CheckpointError, match=r"own\.safetensors is a file"):
        save_hugging_face(checkpoint, tmp_path / "own.safetensors")
    (folder / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"has files that are not of such a model \(README\.md\)"):
        save_hugging_face(checkpoint, folder)
    assert (folder / "config.json").read_bytes() == before
    with pytest.raises(FileNotFoundError):
        save_hugging_face(checkpoint, tmp_path / "none" / "theirs")


def test_what_transformers_does_differently_is_said(tmp_path: Path) -> None:
    assert save_hugging_face(checkpoint_of(tmp_path), tmp_path / "theirs") == []
    notes = save_hugging_face(checkpoint_of(tmp_path, replace(SMALL, resize=Edges(60, 100))), tmp_path / "theirs")
    assert notes == ["resize rule: transformers rounds in its own way, so that a side may differ by a pixel"]


def test_the_command_writes_such_a_folder_and_says_what_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint_of(tmp_path)
    command = ["export", str(tmp_path / "own.safetensors"), "--format", "hugging-face"]
    main([*command, "--out", str(tmp_path / "theirs"), "--resize", "32,48"])
    assert "for AutoImageProcessor and AutoModelForObjectDetection of transformers" in capsys.readouterr().out
    assert read_checkpoint(tmp_path / "theirs").config.resize == Edges(32, 48, "transformers")
    with pytest.raises(SystemExit, match="--precision is of the artifact that is served"):
        main([*command, "--out", str(tmp_path / "theirs"), "--precision", "float16"])
    (tmp_path / "theirs" / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^detr export: .*theirs has files that are not of such a model"):
        main([*command, "--out", str(tmp_path / "theirs")])
