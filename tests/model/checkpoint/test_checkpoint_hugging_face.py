"""Models that transformers saved: read under every naming, they answer what transformers answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from transformers import DetrForObjectDetection, DetrForSegmentation

from model.categories.coco import panoptic_categories
from model.categories.names import named_category
from model.checkpoint.errors import CheckpointError
from model.checkpoint.hugging_face import published_key
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.strict import Checkpoint
from model.network.build import build_model
from model.network.nested_tensor import pad_images
from model.runtime.preprocess import Normalization
from model.runtime.resize_rule import Edges, FixedSize
from tests.model.transformers_models import transformers_model

State = dict[str, Tensor]
HEIGHT, WIDTH = 70, 101


@pytest.fixture(scope="module")
def segmenter() -> Any:
    """A DetrForSegmentation with a ResNet-50 of bottlenecks and the published class count."""
    return transformers_model(DetrForSegmentation, {"depths": [3, 4, 6, 3]}, num_queries=6, num_labels=250)


@pytest.fixture(params=["their_detector", "segmenter"])
def hugging_face(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def saved_as_is(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def saved_with_module_names(model: Any, folder: Path) -> None:
    """The names that the modules of transformers 5 have in memory, as other tools write them."""
    model.config.save_pretrained(folder)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")


def timm_name(key: str) -> str:
    """The key as timm's ResNet has it, which is how torchvision's has it."""
    stem, conv_encoder, rest = key.partition(".conv_encoder.model.")
    if not conv_encoder:
        return key
    stem, parts = stem + conv_encoder, rest.split(".")
    kind = {"convolution": "conv", "normalization": "bn"}[parts[-2]]
    if parts[0] == "embedder":
        return f"{stem}{kind}1.{parts[-1]}"
    block = f"{stem}layer{int(parts[2]) + 1}.{parts[4]}"
    if parts[5] == "shortcut":
        return f"{block}.downsample.{0 if kind == 'conv' else 1}.{parts[-1]}"
    return f"{block}.{kind}{int(parts[6]) + 1}.{parts[-1]}"


def saved_with_timm_names(model: Any, folder: Path) -> None:
    """Like the files on the hub, the backbone of which is timm's."""
    model.save_pretrained(folder)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state = {timm_name(key): tensor for key, tensor in state.items()}
    assert any(".conv_encoder.model.layer1.0.conv1." in key for key in state)
    safetensors.torch.save_file(state, folder / "model.safetensors")
    edit_json(folder / "config.json", use_timm_backbone=True, backbone="resnet50", backbone_config=None)


def saved_as_pickle(model: Any, folder: Path) -> None:
    """As transformers saved before safetensors."""
    saved_with_timm_names(model, folder)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


def edit_json(path: Path, **change: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | change), encoding="utf-8")


def image_of(height: int, width: int) -> Tensor:
    return torch.randn((3, height, width), generator=torch.Generator().manual_seed(1))


def assert_answers_alike(checkpoint: Checkpoint[Tensor], theirs: Any) -> None:
    """Both networks, on one image: theirs as it is, ours on the padded canvas that it is served on."""
    ours = build_model(checkpoint.config).eval()
    ours.load_state_dict(checkpoint.state_dict, strict=True)
    image = image_of(HEIGHT, WIDTH)
    with torch.no_grad():
        # pixel_mask is 1 on the image; padding_mask is True off it.
        expected = theirs(image[None], pixel_mask=torch.ones((1, HEIGHT, WIDTH), dtype=torch.long))
        found = ours(pad_images([image]))
    assert expected.logits[0].std(0).mean() > 0.01, "all queries answer alike, so the test shows little"
    torch.testing.assert_close(found["pred_logits"], expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["pred_boxes"], expected.pred_boxes, atol=1e-4, rtol=0)
    assert checkpoint.config.masks == hasattr(expected, "pred_masks")
    if checkpoint.config.masks:
        masks = found["pred_masks"][:, : -(-HEIGHT // 4), : -(-WIDTH // 4)]
        assert expected.pred_masks[0].std(0).mean() > 1e-3, "all masks are alike, so the test shows little"
        torch.testing.assert_close(masks, expected.pred_masks[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("save", "names"),
    [
        (saved_as_is, "transformers"),
        (saved_with_module_names, "transformers"),
        (saved_with_timm_names, "timm"),
        (saved_as_pickle, "timm"),
    ],
)
def test_a_model_of_transformers_answers_the_same_here(
    tmp_path: Path, hugging_face: Any, save: Callable[[Any, Path], None], names: str
) -> None:
    save(hugging_face, tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.notes[0] == f"a Hugging Face model with {names} names for its backbone"
    assert_answers_alike(checkpoint, hugging_face)


def test_learned_positions_answer_the_same_here(tmp_path: Path) -> None:
    backbone = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    theirs = transformers_model(DetrForObjectDetection, backbone, position_embedding_type="learned")
    theirs.save_pretrained(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config.position_embedding == "learned"
    assert_answers_alike(checkpoint, theirs)


def test_config_json_says_what_shapes_do_not(tmp_path: Path, their_detector: Any) -> None:
    their_detector.save_pretrained(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    config = checkpoint.config
    assert (config.backbone, config.nheads, config.num_queries, config.dilation) == ("resnet18", 4, 9, False)
    assert checkpoint.categories is not None
    assert checkpoint.categories[3] == named_category(3, "owl")
    assert checkpoint.source == tmp_path.name


def test_the_weights_file_itself_may_be_given(tmp_path: Path, their_detector: Any) -> None:
    their_detector.save_pretrained(tmp_path)
    assert read_checkpoint(tmp_path / "model.safetensors").config.num_classes == 5


@pytest.mark.parametrize(
    ("hub", "published"),
    [
        ("model.backbone.conv_encoder.model.conv1.weight", "backbone.0.body.conv1.weight"),
        ("model.backbone.conv_encoder.model.bn1.running_var", "backbone.0.body.bn1.running_var"),
        (
            "detr.model.backbone.conv_encoder.model.layer4.0.downsample.1.bias",
            "detr.backbone.0.body.layer4.0.downsample.1.bias",
        ),
        (
            "model.encoder.layers.5.self_attn.out_proj.bias",
            "transformer.encoder.layers.5.self_attn.out_proj.bias",
        ),
        ("model.encoder.layers.0.self_attn_layer_norm.bias", "transformer.encoder.layers.0.norm1.bias"),
        ("model.encoder.layers.0.final_layer_norm.bias", "transformer.encoder.layers.0.norm2.bias"),
        (
            "model.decoder.layers.3.encoder_attn.out_proj.weight",
            "transformer.decoder.layers.3.multihead_attn.out_proj.weight",
        ),
        (
            "model.decoder.layers.3.encoder_attn_layer_norm.weight",
            "transformer.decoder.layers.3.norm2.weight",
        ),
        ("model.decoder.layers.3.final_layer_norm.weight", "transformer.decoder.layers.3.norm3.weight"),
        ("model.decoder.layers.3.fc2.weight", "transformer.decoder.layers.3.linear2.weight"),
        ("detr.model.decoder.layernorm.bias", "detr.transformer.decoder.norm.bias"),
        ("detr.model.input_projection.weight", "detr.input_proj.weight"),
        ("model.query_position_embeddings.weight", "query_embed.weight"),
        ("class_labels_classifier.bias", "class_embed.bias"),
        ("detr.bbox_predictor.layers.2.bias", "detr.bbox_embed.layers.2.bias"),
        ("model.backbone.position_embedding.column_embeddings.weight", "backbone.1.col_embed.weight"),
        ("bbox_attention.q_linear.weight", "bbox_attention.q_linear.weight"),
        ("mask_head.lay3.weight", "mask_head.lay3.weight"),
        ("mask_head.adapter1.bias", "mask_head.adapter1.bias"),
        ("mask_head.out_lay.bias", "mask_head.out_lay.bias"),
    ],
)
def test_keys_of_the_files_on_the_hub_have_their_place(hub: str, published: str) -> None:
    assert published_key(hub) == published


def test_a_key_that_is_missing_or_unknown_is_named(tmp_path: Path, their_detector: Any) -> None:
    their_detector.save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    state["model.surprise"] = state.pop("model.encoder.layers.1.self_attn.k_proj.bias")
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(tmp_path)
    message = str(raised.value)
    assert "missing keys: transformer.encoder.layers.1.self_attn.in_proj_bias;" in message
    for key in ("surprise", "layers.1.self_attn.q_proj.bias", "layers.1.self_attn.v_proj.bias"):
        assert key in message.partition("unexpected keys: ")[2]


def test_two_keys_that_mean_one_are_refused(tmp_path: Path, their_detector: Any) -> None:
    their_detector.save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    state["model.encoder.layers.0.mlp.fc1.bias"] = state["model.encoder.layers.0.fc1.bias"].clone()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"both mean transformer\.encoder\.layers\.0\.linear1\.bias"):
        read_checkpoint(tmp_path)


def test_half_precision_is_widened(tmp_path: Path, their_detector: Any) -> None:
    their_detector.save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    state = {key: tensor.bfloat16() for key, tensor in state.items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path)
    assert "weights in torch.bfloat16 were widened to float32" in checkpoint.notes
    assert {tensor.dtype for tensor in checkpoint.state_dict.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("settings", "dilation"),
    [
        ({"dilation": False}, False),
        ({"dilation": True}, True),
        ({"backbone_kwargs": {"output_stride": 16}}, True),
        ({"backbone_config": {"model_type": "timm_backbone", "output_stride": 16}}, True),
        ({"backbone_config": {"model_type": "timm_backbone"}}, False),
        ({"backbone_config": {"model_type": "timm_backbone", "output_stride": None}}, False),
        ({"backbone_config": {"model_type": "timm_backbone", "output_stride": None}, "dilation": True}, False),
        ({"backbone_kwargs": {"output_stride": 32}, "dilation": True}, False),
        ({"backbone_kwargs": {}, "dilation": True}, True),
    ],
)
def test_config_json_says_whether_a_model_is_dc5(
    tmp_path: Path, segmenter: Any, settings: dict[str, Any], dilation: bool
) -> None:
    saved_with_timm_names(segmenter, tmp_path)
    edit_json(tmp_path / "config.json", **settings)
    assert read_checkpoint(tmp_path).config.dilation is dilation


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "resnetaa50"},
        {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50d.a1_in1k"}},
        {"backbone": 50},
    ],
)
def test_another_backbone_of_timm_is_refused_though_its_weights_would_fit(
    tmp_path: Path, segmenter: Any, settings: dict[str, Any]
) -> None:
    saved_with_timm_names(segmenter, tmp_path)
    edit_json(tmp_path / "config.json", **settings)
    with pytest.raises(CheckpointError, match=r"config\.json has backbone=.*; only resnet18, resnet34, resnet50"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("backbone", ["resnet50.a1_in1k", "tv_resnet50", "gluon_resnet50_v1b"])
def test_a_backbone_of_timm_may_have_a_tag_for_its_weights(tmp_path: Path, segmenter: Any, backbone: str) -> None:
    saved_with_timm_names(segmenter, tmp_path)
    edit_json(tmp_path / "config.json", backbone=backbone)
    assert read_checkpoint(tmp_path).config.backbone == "resnet50"


def test_dilation_is_ignored_where_transformers_ignores_it(tmp_path: Path, segmenter: Any) -> None:
    segmenter.save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", dilation=True)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config.dilation is False
    assert any("dilation was ignored" in note for note in checkpoint.notes)


def test_a_preset_must_agree_with_the_folder(tmp_path: Path, segmenter: Any) -> None:
    saved_with_timm_names(segmenter, tmp_path)
    edit_json(tmp_path / "config.json", dilation=True)
    with pytest.raises(CheckpointError, match="dilation is True, not False; hidden_dim is 128, not 256"):
        read_checkpoint(tmp_path, preset="detr-resnet-50-panoptic")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "yolos"}, "a 'yolos' model, not of a 'detr' or a 'table-transformer'"),
        ({"activation_function": "gelu"}, "activation_function='gelu'; only 'relu'"),
        ({"decoder_attention_heads": 2}, "decoder_attention_heads=2; only 4"),
        ({"encoder_attention_heads": 3, "decoder_attention_heads": 3}, "a network that cannot be built"),
        ({"encoder_attention_heads": "4", "decoder_attention_heads": "4"}, "a network that cannot be built"),
        ({"encoder_attention_heads": 0, "decoder_attention_heads": 0}, "a network that cannot be built"),
        ({"backbone_config": {"downsample_in_bottleneck": True}}, "downsample_in_bottleneck=True"),
        ({"encoder_layers": 6}, "encoder_layers=6, but the weights have 2"),
        ({"num_queries": 100}, "num_queries=100, but the weights have 9"),
        ({"position_embedding_type": "learned"}, "'learned', but the weights have 'sine'"),
        ({"id2label": {"first": "cat"}}, "a broken id2label"),
    ],
)
def test_settings_that_this_network_does_not_have_are_refused(
    tmp_path: Path, their_detector: Any, settings: dict[str, Any], reason: str
) -> None:
    their_detector.save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", **settings)
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_config_json_is_refused(tmp_path: Path, their_detector: Any, text: str) -> None:
    their_detector.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json (cannot be read|holds no JSON object)"):
        read_checkpoint(tmp_path)


# How the files on the hub name the ids that COCO does not: as COCO-stuff does, or not at all.
HUB_PANOPTIC = {
    category.id: category.name if category.name != "N/A" and category.id < 184 else f"LABEL_{category.id}"
    for category in panoptic_categories()
} | {12: "street sign", 97: "bush"}


@pytest.mark.parametrize("id2label", [HUB_PANOPTIC, None])
def test_cocos_panoptic_classes_are_recognized(tmp_path: Path, segmenter: Any, id2label: dict[int, str] | None) -> None:
    segmenter.save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", id2label=id2label)
    assert read_checkpoint(tmp_path).categories == panoptic_categories()


def test_250_classes_that_are_not_cocos_keep_their_names(tmp_path: Path, segmenter: Any) -> None:
    segmenter.save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", id2label={str(index): f"part {index}" for index in range(250)})
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.categories is not None
    assert checkpoint.categories[7] == named_category(7, "part 7")
    assert any("all of them things" in note for note in checkpoint.notes)


def test_names_for_another_number_of_classes_are_not_taken(tmp_path: Path, their_detector: Any) -> None:
    their_detector.save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", id2label={"0": "cat"})
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.categories is None
    assert "categories: unknown, config.json names classes 0 of 0 to 4" in checkpoint.notes
    with pytest.raises(CheckpointError, match=r"called \(config.json names classes 0 of 0 to 4\); give a names file"):
        checkpoint.require_categories()


def test_how_an_image_is_seen_comes_from_the_preprocessor(tmp_path: Path, their_detector: Any) -> None:
    their_detector.save_pretrained(tmp_path)
    edit_json(tmp_path / "preprocessor_config.json", size=600, max_size=1000, image_mean=0.5, image_std=0.5)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config.resize == Edges(600, 1000, rounding="transformers")
    assert checkpoint.config.normalization == Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert "resize rule: 600 and 1000 pixels, as transformers rounds, from preprocessor_config.json" in checkpoint.notes
    assert read_checkpoint(tmp_path, resize=FixedSize(64, 96)).config.resize == FixedSize(64, 96)


def test_a_lightning_module_around_a_model_of_transformers_needs_no_config_json(
    tmp_path: Path, their_detector: Any
) -> None:
    state = {f"model.{key}": tensor for key, tensor in their_detector.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "callbacks": {}}, tmp_path / "last.ckpt")
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.notes[0] == "a checkpoint with transformers' names"
    assert "assumed: no dilation (DC5) and 8 attention heads, which only a preset can say" in checkpoint.notes
    assert checkpoint.config.resize == Edges(800, 1333, "transformers")
    assert checkpoint.categories is None
    # What nothing in the file says is in transformers' config.json, where that is beside it.
    their_detector.config.save_pretrained(tmp_path)
    assert_answers_alike(read_checkpoint(tmp_path / "last.ckpt"), their_detector)
