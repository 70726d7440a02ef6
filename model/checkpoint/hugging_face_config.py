"""What config.json of a Hugging Face folder says: of the network, and what its classes are called."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.categories.coco import UNNAMED, coco_categories
from model.categories.names import named_category
from model.checkpoint.errors import CheckpointError
from model.checkpoint.own import category_from_record
from model.checkpoint.preprocessor import read_json, read_preprocessor
from model.checkpoint.structure import RESNETS
from model.network.config import ModelConfig
from model.runtime.categories import Category
from model.runtime.resize_rule import ResizeRule

TABLE_TRANSFORMER = "table-transformer"
MODEL_TYPES = ("detr", TABLE_TRANSFORMER)
# What config.json has of what transformers does not know, in a folder that `detr export` wrote.
WRITTEN_HERE = "detr_serve"
# Of timm: the architecture, which an old prefix or a tag for the weights may surround.
_PLAIN_RESNET = re.compile(rf"((tv|ssl|swsl)_)?({'|'.join(RESNETS)})(\..*)?|gluon_resnet\d+_v1b")


def read_config(
    path: Path, native_backbone: bool, rule: ResizeRule | None = None
) -> tuple[ModelConfig, dict[str, Any], list[str]]:
    """What config.json, at `path`, and the preprocessor's file beside it say that shapes do not.

    `native_backbone` is whether the backbone has transformers' own names, for which it ignores `dilation`. A `rule`
    replaces the preprocessor's. Returns the configuration, config.json itself, and notes. CheckpointError for
    settings that cannot be followed.
    """
    config = read_json(path)
    if config.get("model_type") not in MODEL_TYPES:
        known = " or a ".join(map(repr, MODEL_TYPES))
        raise CheckpointError(f"config.json is of a {config.get('model_type')!r} model, not of a {known}")
    _refuse_unknown_settings(config)
    if not native_backbone:
        _refuse_other_backbones(config)
    dilation, notes = _dilation(config, native_backbone)
    resize, normalization, notes_on_images = read_preprocessor(path.parent, rule)
    try:
        base = ModelConfig(
            dilation=dilation,
            nheads=config.get("encoder_attention_heads", 8),
            hidden_dim=config.get("d_model", 256),
            resize=resize,
            normalization=normalization,
            detect_threshold=_threshold_written_here(config, "detect_threshold", ModelConfig.detect_threshold),
            segment_threshold=_threshold_written_here(config, "segment_threshold", ModelConfig.segment_threshold),
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"config.json describes a network that cannot be built: {error}") from error
    return base, config, notes + notes_on_images


def describes_a_detr(folder: Path) -> bool:
    """Whether its config.json is that of a DETR of transformers; trainers write files of that name, too."""
    try:
        return read_json(folder / "config.json").get("model_type") in MODEL_TYPES
    except CheckpointError:
        return False


def check_against(config_json: Mapping[str, Any], config: ModelConfig) -> None:
    """CheckpointError where config.json and the weights beside it are of different models.

    A Table Transformer is known by its weights, whatever its config.json calls it: they have the encoder's last norm.
    """
    if config_json.get("model_type") == TABLE_TRANSFORMER and not config.pre_norm:
        raise CheckpointError("config.json is of a Table Transformer, but the weights lack the encoder's last norm")
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
        named = ", ".join(map(str, sorted(labels)[:5])) + (", ..." if len(labels) > 5 else "") or "none"
        return None, f"categories: unknown, config.json names classes {named} of 0 to {num_classes - 1}"
    written_here = _categories_written_here(config)
    if [category.name for category in written_here] == [labels[index] for index in range(num_classes)]:
        return written_here, "categories: those that config.json has beside its names, as `detr export` wrote them"
    note = "categories: the names in config.json"
    if masks:
        note += ", all of them things (it does not say which are stuff)"
    return tuple(named_category(index, labels[index]) for index in range(num_classes)), note


def _categories_written_here(config: Mapping[str, Any]) -> tuple[Category, ...]:
    """The categories that `detr export` wrote into config.json, where transformers leaves them; none otherwise."""
    try:
        return tuple(category_from_record(fields) for fields in config[WRITTEN_HERE]["categories"])
    except (KeyError, TypeError, ValueError):
        return ()


def _threshold_written_here(config: Mapping[str, Any], name: str, default: float) -> float:
    """The same of a probability that serving starts from."""
    written = config.get(WRITTEN_HERE)
    value = written.get(name) if isinstance(written, Mapping) else None
    return value if isinstance(value, float) and 0 <= value <= 1 else default


def _agrees(labels: Mapping[int, str], coco: tuple[Category, ...]) -> bool:
    """Whether no label contradicts COCO's name for its id; `LABEL_5` says nothing."""
    return all(
        labels.get(index, f"LABEL_{index}") in (category.name, f"LABEL_{index}")
        for index, category in enumerate(coco)
        if category.name != UNNAMED
    )


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


def _refuse_other_backbones(config: Mapping[str, Any]) -> None:
    """CheckpointError for one of timm's backbones that has a ResNet's weights and computes something else."""
    name = (config.get("backbone_config") or config).get("backbone") or "resnet50"
    if not isinstance(name, str) or not _PLAIN_RESNET.fullmatch(name):
        raise CheckpointError(f"config.json has backbone={name!r}; only {', '.join(RESNETS)} are supported")


def _dilation(config: Mapping[str, Any], native_backbone: bool) -> tuple[bool, list[str]]:
    """Whether the network is DC5, and a note where config.json's `dilation` is not followed.

    Where there is a backbone_config, transformers follows its output_stride alone, which is null without dilation.
    """
    asked = bool(config.get("dilation", False))
    if native_backbone:
        note = "config.json's dilation was ignored, as transformers does for a backbone that is not timm's"
        return False, [note] if asked else []
    backbone = config.get("backbone_config")
    default = 16 if asked and backbone is None else 32
    stride = (backbone or config.get("backbone_kwargs") or {}).get("output_stride") or default
    if stride not in (16, 32):
        raise CheckpointError(f"config.json has output_stride={stride!r}; 16 (DC5) and 32 are supported")
    ignored = asked and stride == 32
    return stride == 16, ["config.json's dilation was ignored: its output_stride says none"] if ignored else []
