"""Reads a checkpoint of any format, finds out which network it is, and checks it strictly.

What a file is its bytes say, not its name. It is this project's own `.safetensors`, what any trainer saved (the
published `.pth`, the reference's training script, Lightning, accelerate), under the published names or under those of
transformers, or a folder that transformers' `save_pretrained` wrote.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.categories.coco import coco_categories
from model.categories.names import ClassNames, NamesError
from model.categories.tables import table_categories
from model.checkpoint import published
from model.checkpoint.candidates import choose
from model.checkpoint.digests import sha256_of
from model.checkpoint.errors import CheckpointError
from model.checkpoint.files import as_weights, load_file
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
from model.checkpoint.hugging_face import has_transformers_names, published_state
from model.checkpoint.hugging_face_config import describes_a_detr
from model.checkpoint.own import CHECKPOINT_METADATA_KEY, own_checkpoint
from model.checkpoint.preprocessor import read_preprocessor
from model.checkpoint.stand_ins import settings_of
from model.checkpoint.strict import Checkpoint, describe_network
from model.checkpoint.structure import disagreements, infer_config
from model.checkpoint.table_transformer import is_table_transformer, resized_as_published, with_threshold
from model.network.config import PRESETS, ModelConfig
from model.runtime.resize_rule import ResizeRule


def read_checkpoint(
    path: Path,
    preset: str | None = None,
    names: ClassNames | None = None,
    resize: ResizeRule | None = None,
    weights: str | None = None,
) -> Checkpoint[Tensor]:
    """Read a checkpoint of any format and check it strictly.

    `preset` says what leaves no trace in a published file (dilation, the number of attention heads); what
    leaves one must agree with it, except for the numbers of classes and queries. `names` replace the categories that
    the checkpoint has, and `resize` the rule by which it sees an image. `weights` says which are taken where there are
    several, as `candidates.choose` has it.

    Raises CheckpointError, which begins with the file's name, if it cannot be read, holds no DETR, has a
    missing, unexpected or misshapen key, or does not fit `preset` or `names`.
    """
    try:
        if preset is not None and preset not in PRESETS:
            raise CheckpointError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
        checkpoint = _read(path, preset, resize, weights)
        if preset is not None and (wrong := disagreements(checkpoint.config, PRESETS[preset])):
            raise CheckpointError(f"it does not fit the preset {preset}: {'; '.join(wrong)}")
        check_state(checkpoint.state_dict, checkpoint.config)
        if names is not None:
            notes = (*checkpoint.notes, "categories: those of the names file")
            categories = names.of_classes(checkpoint.config.num_classes)
            checkpoint = replace(checkpoint, categories=categories, notes=notes)
        return checkpoint
    except (CheckpointError, NamesError) as error:
        raise CheckpointError(f"{path.resolve().name}: {error}") from error


def _read(path: Path, preset: str | None, resize: ResizeRule | None, wanted: str | None) -> Checkpoint[Tensor]:
    """The checkpoint of whichever format it is, not yet checked against its network."""
    files: tuple[Path, ...] = (path,)
    if path.is_dir():
        files = safetensors_files(path) or pickled_files(path)
        if not files:
            raise CheckpointError(f"it is a folder without {SAFETENSORS}, {SHARD_INDEX} or {PICKLED}")
    elif path.name.endswith(".index.json"):
        files = shards_of(path)
    header, content = load_file(*files)
    folder = files[0].parent
    if CHECKPOINT_METADATA_KEY in header:
        if wanted is not None:
            raise CheckpointError("a checkpoint of this project holds one network's weights: leave --weights out")
        return _resized(own_checkpoint(files[0], header[CHECKPOINT_METADATA_KEY], as_weights(content)[0]), resize)
    candidate, choice = choose(content, wanted)
    weights, notes = as_weights(candidate.state)
    of_transformers = has_transformers_names(weights) and (folder / CONFIG_FILE).is_file()
    if of_transformers or describes_a_detr(folder):
        return folder_checkpoint(files, weights, torch.cat, [*choice, *notes], resize)
    sha256 = sha256_of(*files)
    base, base_note = _base(sha256, preset, _settings(content))
    notes = [base_note, *choice, *notes]
    if not has_transformers_names(weights):
        return _resized(_by_shapes(files[0].name, sha256, weights, base, notes), resize)
    rule, normalization, notes_on_images = read_preprocessor(folder, resize)
    base = replace(base, resize=rule, normalization=normalization)
    return _by_shapes(files[0].name, sha256, weights, base, [*notes, *notes_on_images])


def _resized(checkpoint: Checkpoint[Tensor], rule: ResizeRule | None) -> Checkpoint[Tensor]:
    """The checkpoint with a resize rule that is asked for."""
    if rule is None:
        return checkpoint
    others = (note for note in checkpoint.notes if not note.startswith("resize rule:"))
    notes = (*others, f"resize rule: {rule}, as asked")
    return replace(checkpoint, config=replace(checkpoint.config, resize=rule), notes=notes)


def _by_shapes(
    source: str, sha256: str, loaded: dict[str, Tensor], base: ModelConfig, notes: list[str]
) -> Checkpoint[Tensor]:
    """A model of which there is nothing but its keys and shapes; `base` has what they do not say."""
    of_transformers = has_transformers_names(loaded)
    weights = without_counters(published_state(loaded, torch.cat))
    config = infer_config(weights, base)
    categories, who = coco_categories(config.num_classes), "COCO's"
    if is_table_transformer(config):
        config = with_threshold(config)
        categories, who = table_categories(config.num_classes), "Table Transformer's"
        if not of_transformers:
            config, note = resized_as_published(config)
            notes = [*notes, note]
    all_notes = (
        "a checkpoint with transformers' names" if of_transformers else "a checkpoint with the published names",
        f"keys and shapes say: {describe_network(config)}",
        *notes,
        f"categories: unknown, {config.num_classes} classes are not {who}"
        if categories is None
        else f"categories: {who}, by the class count {config.num_classes}",
    )
    return Checkpoint(weights, config, categories, source, sha256, {}, all_notes)


def _settings(content: Mapping[Any, Any]) -> Mapping[str, Any]:
    """What the trainer was told about the network, as the reference's script or Lightning keep it in the file."""
    for name in ("args", "hyper_parameters"):
        settings = settings_of(content.get(name))
        if not {"dilation", "nheads"}.isdisjoint(settings):
            return settings
    return {}


def _base(sha256: str, preset: str | None, settings: Mapping[str, Any]) -> tuple[ModelConfig, str]:
    """What the network is as far as keys and shapes do not say it, and a note on who says it."""
    recognized = published.preset_of_digest(sha256)
    if recognized is not None:
        if preset not in (None, recognized):
            raise CheckpointError(f"by its SHA-256 it is the published {recognized}, not {preset}")
        return PRESETS[recognized], f"recognized by its SHA-256 as the published {recognized}"
    if preset is not None:
        return PRESETS[preset], f"dilation and attention heads as in the preset {preset}, as asked"
    if settings:
        return _from_settings(settings), "dilation and attention heads from the training arguments in the file"
    return ModelConfig(), "assumed: no dilation (DC5) and 8 attention heads, which only a preset can say"


def _from_settings(settings: Mapping[str, Any]) -> ModelConfig:
    """What the arguments of the reference's training script say that leaves no trace in the weights."""
    dilation, nheads = settings.get("dilation", False), settings.get("nheads", 8)
    hidden_dim = settings.get("hidden_dim", 256)
    if type(dilation) is not bool or type(nheads) is not int or type(hidden_dim) is not int or nheads < 1:
        raise CheckpointError("its training arguments are not those of a DETR")
    try:
        return ModelConfig(dilation=dilation, nheads=nheads, hidden_dim=hidden_dim)
    except ValueError as error:
        raise CheckpointError(f"its training arguments cannot be followed: {error}") from error
