"""Writing this project's own checkpoint."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint.fitting import check_state
from model.checkpoint.own import CHECKPOINT_FORMAT_VERSION, CHECKPOINT_METADATA_KEY
from model.checkpoint.strict import check_count
from model.network.config import ModelConfig
from model.runtime.categories import Category
from model.runtime.resize_rule import rule_to_record
from model.runtime.whole_file import whole_file


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
        "config": dataclasses.asdict(config) | {"resize": rule_to_record(config.resize)},
        "categories": categories and [dataclasses.asdict(category) for category in categories],
        "provenance": dict(provenance),
    }
    # Cloned, because safetensors refuses tensors that share memory.
    tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in model_state.items()}
    with whole_file(path) as unfinished:
        save_file(tensors, unfinished, {CHECKPOINT_METADATA_KEY: json.dumps(header)})
