"""Reads a checkpoint of any format, finds out which network it is, and checks it strictly.

Three formats are read: a published `.pth` (`{"model": state_dict}`, also as the reference's training script
writes it), a folder that transformers' `save_pretrained` wrote, and this project's own `.safetensors`.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.categories.coco import coco_categories
from model.checkpoint import published
from model.checkpoint.digests import sha256_of
from model.checkpoint.errors import CheckpointError
from model.checkpoint.files import as_weights, load_pickle, load_safetensors
from model.checkpoint.fitting import check_state
from model.checkpoint.folder import (
    CONFIG_FILE,
    PICKLED,
    SAFETENSORS,
    SHARD_INDEX,
    folder_checkpoint,
    pickled_files,
    safetensors_files,
    shards_of,
    without_counters,
)
from model.checkpoint.own import CHECKPOINT_METADATA_KEY, own_checkpoint
from model.checkpoint.strict import Checkpoint, check_count, describe_network
from model.checkpoint.structure import disagreements, infer_config
from model.network.config import PRESETS, ModelConfig
from model.runtime.categories import Category
from model.runtime.resize_rule import ResizeRule


def read_checkpoint(
    path: Path,
    preset: str | None = None,
    categories: tuple[Category, ...] | None = None,
    resize: ResizeRule | None = None,
) -> Checkpoint[Tensor]:
    """Read a checkpoint of any of the three formats and check it strictly.

    `preset` says what leaves no trace in a published file (dilation, the number of attention heads); what
    leaves one must agree with it, except for the numbers of classes and queries. `categories`, by class
    index, replace those that the checkpoint has, and `resize` the rule by which it sees an image.

    Raises CheckpointError, which begins with the file's name, if it cannot be read, holds no DETR, has a
    missing, unexpected or misshapen key, or does not fit `preset` or `categories`.
    """
    try:
        if preset is not None and preset not in PRESETS:
            raise CheckpointError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
        checkpoint = _read(path, preset, resize)
        if preset is not None and (wrong := disagreements(checkpoint.config, PRESETS[preset])):
            raise CheckpointError(f"it does not fit the preset {preset}: {'; '.join(wrong)}")
        check_state(checkpoint.state_dict, checkpoint.config)
        if categories is not None:
            check_count(categories, checkpoint.config)
            notes = (*checkpoint.notes, "categories: those of the names file")
            checkpoint = replace(checkpoint, categories=categories, notes=notes)
        return checkpoint
    except CheckpointError as error:
        raise CheckpointError(f"{path.resolve().name}: {error}") from error


def _read(path: Path, preset: str | None, resize: ResizeRule | None) -> Checkpoint[Tensor]:
    """The checkpoint of whichever format it is, not yet checked against its network."""
    files: tuple[Path, ...] = (path,)
    if path.is_dir():
        files = safetensors_files(path) or pickled_files(path)
        if not files:
            raise CheckpointError(f"it is a folder without {SAFETENSORS}, {SHARD_INDEX} or {PICKLED}")
    elif path.name.endswith(".index.json"):
        files = shards_of(path)
    first = files[0]
    if not first.is_file():
        raise CheckpointError("there is no such file")
    hugging_face = (first.parent / CONFIG_FILE).is_file()
    if first.suffix != ".safetensors":
        is_published = first.suffix != ".bin" or not hugging_face
        if is_published:
            return _resized(_published(first, preset), resize)
        pickled = {key: tensor for file in files for key, tensor in load_pickle(file).items()}
        return _hugging_face(files, pickled, resize)
    header, tensors = load_safetensors(files)
    if CHECKPOINT_METADATA_KEY in header:
        return _resized(own_checkpoint(first, header[CHECKPOINT_METADATA_KEY], as_weights(tensors)[0]), resize)
    if hugging_face:
        return _hugging_face(files, tensors, resize)
    raise CheckpointError("it has neither this project's header nor transformers' config.json beside it")


def _resized(checkpoint: Checkpoint[Tensor], rule: ResizeRule | None) -> Checkpoint[Tensor]:
    """The checkpoint with a resize rule that is asked for."""
    if rule is None:
        return checkpoint
    notes = (*checkpoint.notes, f"resize rule: {rule}, as asked")
    return replace(checkpoint, config=replace(checkpoint.config, resize=rule), notes=notes)


def _hugging_face(files: tuple[Path, ...], loaded: Mapping[str, Any], resize: ResizeRule | None) -> Checkpoint[Tensor]:
    weights, notes = as_weights(loaded)
    return folder_checkpoint(files, weights, torch.cat, notes, resize)


def _published(path: Path, preset: str | None) -> Checkpoint[Tensor]:
    content = load_pickle(path)
    state = content.get("model", content)
    if not isinstance(state, dict):
        raise CheckpointError(f"its entry 'model' is a {type(state).__name__}, not a state dict")
    weights, notes = as_weights(state)
    weights = without_counters(weights)
    sha256 = sha256_of(path)
    base, base_note = _base(sha256, preset, content.get("args"))
    config = infer_config(weights, base)
    categories = coco_categories(config.num_classes)
    who = "unknown" if categories is None else "COCO's"
    notes = [
        "a checkpoint with the published names",
        base_note,
        f"keys and shapes say: {describe_network(config)}",
        *notes,
        f"categories: {who}, by the class count {config.num_classes}",
    ]
    return Checkpoint(weights, config, categories, path.name, sha256, {}, tuple(notes))


def _base(sha256: str, preset: str | None, args: object) -> tuple[ModelConfig, str]:
    """What the network is as far as keys and shapes do not say it, and a note on who says it."""
    recognized = published.preset_of_digest(sha256)
    if recognized is not None:
        if preset not in (None, recognized):
            raise CheckpointError(f"by its SHA-256 it is the published {recognized}, not {preset}")
        return PRESETS[recognized], f"recognized by its SHA-256 as the published {recognized}"
    if preset is not None:
        return PRESETS[preset], f"dilation and attention heads as in the preset {preset}, as asked"
    if isinstance(args, argparse.Namespace):
        return _from_arguments(args), "dilation and attention heads from the training arguments in the file"
    return ModelConfig(), "assumed: no dilation (DC5) and 8 attention heads, which only a preset can say"


def _from_arguments(args: argparse.Namespace) -> ModelConfig:
    """What the arguments of the reference's training script say that leaves no trace in the weights."""
    dilation, nheads = getattr(args, "dilation", False), getattr(args, "nheads", 8)
    hidden_dim = getattr(args, "hidden_dim", 256)
    if type(dilation) is not bool or type(nheads) is not int or type(hidden_dim) is not int or nheads < 1:
        raise CheckpointError("its training arguments are not those of a DETR")
    try:
        return ModelConfig(dilation=dilation, nheads=nheads, hidden_dim=hidden_dim)
    except ValueError as error:
        raise CheckpointError(f"its training arguments cannot be followed: {error}") from error
