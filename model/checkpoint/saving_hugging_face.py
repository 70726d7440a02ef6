"""Writing a checkpoint as the folder that transformers reads: the way back of `folder`."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint.errors import CheckpointError
from model.checkpoint.folder import CONFIG_FILE, SAFETENSORS, without_counters
from model.checkpoint.hugging_face_config import TABLE_TRANSFORMER, WRITTEN_HERE
from model.checkpoint.preprocessor import PREPROCESSOR_FILE
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.strict import Checkpoint
from model.checkpoint.structure import RESNETS
from model.checkpoint.transformers_names import transformers_state
from model.network.config import ModelConfig
from model.runtime.categories import Category
from model.runtime.preprocess import Normalization
from model.runtime.resize_rule import Bounds, Edges, FixedSize, OwnSize, ResizeRule

_FILES = frozenset({CONFIG_FILE, PREPROCESSOR_FILE, SAFETENSORS})
_BILINEAR = 2  # of PIL.Image.Resampling
_LEVELS_UNDER_MASKS = 4  # of the backbone's pyramid, which transformers' mask head always takes


def save_hugging_face(checkpoint: Checkpoint[Tensor], folder: Path) -> list[str]:
    """Write config.json, preprocessor_config.json and model.safetensors into a new folder, whole or not at all.

    What was written is read back and compared before the folder appears under its name. A folder of that name is
    replaced if it is empty or has such files only. Returns notes, a line each, on what transformers does differently.
    Raises CheckpointError where transformers has no such network, where nothing says what the classes are called, or
    where the folder has other files; OSError where it cannot be written.
    """
    config = checkpoint.config
    _refuse_what_transformers_lacks(config)
    _refuse_other_files(folder)
    native = not config.dilation  # transformers' own backbone cannot dilate
    state = without_counters(checkpoint.state_dict)
    folder = folder.resolve()
    partial, before = (folder.with_name(f"{folder.name}.{os.getpid()}.{what}") for what in ("partial", "before"))
    partial.mkdir()
    try:
        _write_json(partial / CONFIG_FILE, _config(config, checkpoint.require_categories(), native))
        _write_json(partial / PREPROCESSOR_FILE, _preprocessor(config.resize, config.normalization))
        tensors = {key: tensor.clone().contiguous() for key, tensor in transformers_state(state, native).items()}
        save_file(tensors, partial / SAFETENSORS, {"format": "pt"})
        _refuse_difference(read_checkpoint(partial), checkpoint)
        if folder.is_dir():
            folder.rename(before)
        partial.rename(folder)
    finally:
        for rest in (partial, before):
            shutil.rmtree(rest, ignore_errors=True)
    return _notes(config, native)


def _refuse_what_transformers_lacks(config: ModelConfig) -> None:
    if config.backbone not in RESNETS:
        raise CheckpointError(f"backbone={config.backbone}: transformers' DETR is written for {', '.join(RESNETS)}")
    if config.pre_norm and config.masks:
        raise CheckpointError("pre_norm=True with a mask head: transformers has pre-norm only in Table Transformer")
    if config.pre_norm and config.position_embedding == "learned":
        raise CheckpointError("pre_norm=True with position_embedding='learned': transformers reads them in other names")
    if config.masks and config.stages != _LEVELS_UNDER_MASKS:
        raise CheckpointError(
            f"stages={config.stages} with a mask head: that of transformers takes {_LEVELS_UNDER_MASKS} levels of the "
            "backbone"
        )


def _refuse_other_files(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a Hugging Face model is a folder")
    others = sorted({path.name for path in folder.iterdir()} - _FILES) if folder.is_dir() else []
    if others:
        raise CheckpointError(f"{folder} has files that are not of such a model ({others[0]}): give a new folder")


def _config(config: ModelConfig, categories: tuple[Category, ...], native: bool) -> dict[str, Any]:
    """config.json, in the form that transformers 4 and 5 both read."""
    names = [category.name for category in categories]
    detector = "TableTransformer" if config.pre_norm else "Detr"
    return {
        "architectures": [f"{detector}For{'Segmentation' if config.masks else 'ObjectDetection'}"],
        "model_type": TABLE_TRANSFORMER if config.pre_norm else "detr",
        "d_model": config.hidden_dim,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.nheads,
        "decoder_attention_heads": config.nheads,
        "encoder_ffn_dim": config.dim_feedforward,
        "decoder_ffn_dim": config.dim_feedforward,
        "activation_function": "relu",
        "dropout": config.dropout,
        "num_queries": config.num_queries,
        "position_embedding_type": config.position_embedding,
        "num_channels": 3,
        "is_encoder_decoder": True,
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        # What transformers has no field for, and keeps.
        WRITTEN_HERE: {
            "categories": [asdict(category) for category in categories],
            "detect_threshold": config.detect_threshold,
            "segment_threshold": config.segment_threshold,
        },
        "use_pretrained_backbone": False,  # its weights are in the file, and nothing is to be downloaded
        **(_native_backbone(config) if native else _timm_backbone(config)),
    }


def _native_backbone(config: ModelConfig) -> dict[str, Any]:
    depths, bottleneck = RESNETS[config.backbone]
    sizes = (256, 512, 1024, 2048) if bottleneck else (64, 128, 256, 512)
    return {
        "use_timm_backbone": False,
        "backbone": None,
        "dilation": False,
        "backbone_config": {
            "model_type": "resnet",
            "embedding_size": 64,
            "hidden_sizes": sizes[: config.stages],
            "depths": depths[: config.stages],
            "layer_type": "bottleneck" if bottleneck else "basic",
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
            "num_channels": 3,
            "out_features": [f"stage{stage}" for stage in range(1, config.stages + 1)],
        },
    }


def _timm_backbone(config: ModelConfig) -> dict[str, Any]:
    return {"use_timm_backbone": True, "backbone": config.backbone, "dilation": True, "backbone_config": None}


def _preprocessor(rule: ResizeRule, normalization: Normalization) -> dict[str, Any]:
    return {
        "image_processor_type": "DetrImageProcessor",
        "format": "coco_detection",
        **_size(rule),
        "resample": _BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(normalization.mean),
        "image_std": list(normalization.std),
        "do_pad": True,
    }


def _size(rule: ResizeRule) -> dict[str, Any]:
    match rule:
        case Edges():
            return {
                "do_resize": True,
                "size": {"shortest_edge": rule.shortest_edge, "longest_edge": rule.longest_edge},
            }
        case FixedSize():
            return {"do_resize": True, "size": {"height": rule.height, "width": rule.width}}
        case Bounds():
            return {"do_resize": True, "size": {"max_height": rule.max_height, "max_width": rule.max_width}}
        case OwnSize():
            return {"do_resize": False}
    raise CheckpointError(f"the resize rule ({rule}) has no place in {PREPROCESSOR_FILE}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _refuse_difference(found: Checkpoint[Tensor], expected: Checkpoint[Tensor]) -> None:
    """CheckpointError where the folder does not come back as what was written."""
    wanted = without_counters(expected.state_dict)
    same = found.state_dict.keys() == wanted.keys()
    if not same or not all(torch.equal(tensor, wanted[key]) for key, tensor in found.state_dict.items()):
        raise CheckpointError("what was written does not come back as it was: nothing is kept of it")


def _notes(config: ModelConfig, native: bool) -> list[str]:
    notes = []
    if isinstance(config.resize, Edges | Bounds) and config.resize.rounding != "transformers":
        notes.append("resize rule: transformers rounds in its own way, so that a side may differ by a pixel")
    if not native:
        notes.append("dilation (DC5): transformers needs the package timm for this backbone")
    return notes
