"""What a Hugging Face folder says beside its weights: config.json and preprocessor_config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.categories.coco import UNNAMED, coco_categories
from model.categories.names import named_category
from model.checkpoint.errors import CheckpointError
from model.network.config import ModelConfig
from model.runtime.categories import Category
from model.runtime.preprocess import IMAGENET_NORMALIZATION
from model.runtime.resize_rule import Edges


def read_config(folder: Path, native_backbone: bool) -> tuple[ModelConfig, dict[str, Any], list[str]]:
    """What config.json (and preprocessor_config.json, where there is one) say that shapes do not.

    `native_backbone` is whether the backbone has transformers' own names, for which it ignores `dilation`.
    Returns the configuration, config.json itself, and notes. CheckpointError for settings this network does
    not have.
    """
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "detr":
        raise CheckpointError(f"config.json is of a {config.get('model_type')!r} model, not of a 'detr'")
    _refuse_unknown_settings(config)
    dilation, notes = _dilation(config, native_backbone)
    edges, edge_note = _resize_rule(folder)
    try:
        base = ModelConfig(
            dilation=dilation,
            nheads=config.get("encoder_attention_heads", 8),
            hidden_dim=config.get("d_model", 256),
            resize=Edges(*edges, rounding="transformers"),
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"config.json describes a network that cannot be built: {error}") from error
    return base, config, notes + edge_note


def check_against(config_json: Mapping[str, Any], config: ModelConfig) -> None:
    """CheckpointError where config.json and the weights beside it are of different models."""
    for name, field in (
        ("d_model", "hidden_dim"),
        ("encoder_layers", "encoder_layers"),
        ("decoder_layers", "decoder_layers"),
        ("num_queries", "num_queries"),
        ("encoder_attention_heads", "nheads"),
        ("position_embedding_type", "position_embedding"),
    ):
        found = getattr(config, field)
        if config_json.get(name, found) != found:
            said = config_json[name]
            raise CheckpointError(f"config.json has {name}={said!r}, but the weights have {found!r}")


def categories_of(config: Mapping[str, Any], num_classes: int, masks: bool) -> tuple[tuple[Category, ...] | None, str]:
    """The categories that config.json's `id2label` names, by class index, and a note on them.

    None where it does not name each class. COCO's own are taken where the names agree with COCO's: the files
    on the hub name the ids that COCO leaves out in various ways, and say nothing of things and stuff.
    """
    try:
        labels = {int(index): str(label) for index, label in dict(config.get("id2label") or {}).items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config.json has a broken id2label: {error}") from error
    coco = coco_categories(num_classes)
    if coco is not None and _agrees(labels, coco):
        return coco, f"categories: COCO's, by the class count {num_classes}"
    if sorted(labels) != list(range(num_classes)):
        return None, f"categories: unknown, config.json has {len(labels)} names for {num_classes} classes"
    note = "categories: the names in config.json"
    if masks:
        note += ", all of them things (it does not say which are stuff)"
    return tuple(named_category(index, labels[index]) for index in range(num_classes)), note


def _agrees(labels: Mapping[int, str], coco: tuple[Category, ...]) -> bool:
    """Whether no label contradicts COCO's name for its id; `LABEL_5` says nothing."""
    return all(
        labels.get(index, f"LABEL_{index}") in (category.name, f"LABEL_{index}")
        for index, category in enumerate(coco)
        if category.name != UNNAMED
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds no JSON object")
    return content


def _refuse_unknown_settings(config: Mapping[str, Any]) -> None:
    """CheckpointError for a setting that leaves no trace in the keys and that this network does not have."""
    backbone = config.get("backbone_config") or {}
    expected = (
        (config, "activation_function", "relu"),
        (config, "num_channels", 3),
        (config, "decoder_attention_heads", config.get("encoder_attention_heads", 8)),
        (backbone, "hidden_act", "relu"),
        (backbone, "downsample_in_first_stage", False),
        (backbone, "downsample_in_bottleneck", False),
    )
    for section, name, value in expected:
        if section.get(name, value) != value:
            raise CheckpointError(f"config.json has {name}={section[name]!r}; only {value!r} is supported")


def _dilation(config: Mapping[str, Any], native_backbone: bool) -> tuple[bool, list[str]]:
    """Whether the network is DC5, and a note where config.json's `dilation` is not followed."""
    asked = bool(config.get("dilation", False))
    if native_backbone:
        note = "config.json's dilation was ignored, as transformers does for a backbone that is not timm's"
        return False, [note] if asked else []
    for section in ("backbone_config", "backbone_kwargs"):
        stride = (config.get(section) or {}).get("output_stride", 32)
        if stride not in (16, 32):
            raise CheckpointError(f"config.json has output_stride={stride!r}; 16 (DC5) and 32 are supported")
        asked = asked or stride == 16
    return asked, []


def _resize_rule(folder: Path) -> tuple[tuple[int, int], list[str]]:
    """(shortest edge, longest edge) in pixels from preprocessor_config.json, or the published ones."""
    published = (800, 1333)
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return published, []
    content = _read_json(path)
    for name, value in (("image_mean", IMAGENET_NORMALIZATION.mean), ("image_std", IMAGENET_NORMALIZATION.std)):
        if tuple(content.get(name, value)) != value:
            said = content[name]
            raise CheckpointError(f"{path.name} has {name}={said}; only ImageNet's {list(value)} is supported")
    size = content.get("size")
    edges = (size.get("shortest_edge"), size.get("longest_edge")) if isinstance(size, dict) else (size, None)
    if isinstance(edges[0], int):  # Files of the first years have a number here, and max_size beside it.
        longest = edges[1] or content.get("max_size") or published[1]
        return (edges[0], longest), [f"resize rule: {edges[0]} and {longest} pixels, from {path.name}"]
    return published, [f"resize rule: the published one, because {path.name} has size={size!r}"]
