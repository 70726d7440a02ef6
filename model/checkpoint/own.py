"""This project's own checkpoint: a safetensors file whose header carries configuration, categories and
provenance.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint.errors import CheckpointError
from model.checkpoint.files import sha256_of
from model.checkpoint.strict import Checkpoint, check_count, check_state, describe_network
from model.network.config import ModelConfig
from model.runtime.categories import Category

CHECKPOINT_METADATA_KEY = "detr"
CHECKPOINT_FORMAT_VERSION = 1


def save_checkpoint(
    path: Path,
    model_state: Mapping[str, Tensor],
    config: ModelConfig,
    categories: tuple[Category, ...] | None,
    provenance: Mapping[str, Any],
) -> None:
    """Write a checkpoint whole or not at all: a run that is killed leaves the file as it was.

    `provenance` is free JSON. Raises CheckpointError if the weights or the categories do not fit `config`.
    """
    check_state(model_state, config)
    if categories is not None:
        check_count(categories, config)
    header = {
        "format_version": CHECKPOINT_FORMAT_VERSION,
        "config": dataclasses.asdict(config),
        "categories": categories and [dataclasses.asdict(category) for category in categories],
        "provenance": dict(provenance),
    }
    # Cloned, because safetensors refuses tensors that share memory.
    tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in model_state.items()}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, {CHECKPOINT_METADATA_KEY: json.dumps(header)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def own_checkpoint(path: Path, header: str, weights: dict[str, Tensor]) -> Checkpoint:
    """The checkpoint with this header, a JSON text; CheckpointError naming what is wrong with it."""
    try:
        content = json.loads(header)
        if content["format_version"] != CHECKPOINT_FORMAT_VERSION:
            version = content["format_version"]
            raise CheckpointError(f"its format version is {version}; this program reads {CHECKPOINT_FORMAT_VERSION}")
        config = _config(content["config"])
        named = content["categories"]
        categories = None if named is None else tuple(_category(fields) for fields in named)
        provenance = dict(content["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"its header is broken: {error}") from error
    if categories is not None:
        check_count(categories, config)
    notes = ("a checkpoint of this project", f"its header says: {describe_network(config)}")
    return Checkpoint(weights, config, categories, path.name, sha256_of(path), provenance, notes)


def _config(fields: Mapping[str, Any]) -> ModelConfig:
    """The configuration with these fields; TypeError or ValueError for one that is unknown or of another
    type.

    A field that did not exist when the file was written takes its default.
    """
    for field in dataclasses.fields(ModelConfig):
        value, wanted = fields.get(field.name, field.default), type(field.default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise TypeError(f"{field.name} is {value!r}, which is no {wanted.__name__}")
    return ModelConfig(**fields)


def _category(fields: Mapping[str, Any]) -> Category:
    red, green, blue = (int(value) for value in fields["color"])
    return Category(int(fields["id"]), str(fields["name"]), bool(fields["isthing"]), (red, green, blue))
