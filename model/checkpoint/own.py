"""This project's own checkpoint: a safetensors file whose header carries configuration, categories and
provenance.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors

from model.checkpoint.digests import sha256_of
from model.checkpoint.errors import CheckpointError
from model.checkpoint.hugging_face import Weight
from model.checkpoint.strict import Checkpoint, check_count, describe_network
from model.network.config import ModelConfig
from model.runtime.categories import Category
from model.runtime.preprocess import Normalization
from model.runtime.resize_rule import rule_from_record

CHECKPOINT_METADATA_KEY = "detr"
CHECKPOINT_FORMAT_VERSION = 2
_FIRST_VERSION = 1  # has the two edges of the published resize rule, and ImageNet's normalization


def own_checkpoint(path: Path, header: str, weights: dict[str, Weight]) -> Checkpoint[Weight]:
    """The checkpoint with this header, a JSON text; CheckpointError naming what is wrong with it."""
    try:
        content = json.loads(header)
        version = content["format_version"]
        if version not in (_FIRST_VERSION, CHECKPOINT_FORMAT_VERSION):
            reads = f"{_FIRST_VERSION} and {CHECKPOINT_FORMAT_VERSION}"
            raise CheckpointError(f"its format version is {version}; this program reads {reads}")
        fields = content["config"]
        config = config_from_record(_of_first_version(fields) if version == _FIRST_VERSION else fields)
        named = content["categories"]
        categories = None if named is None else tuple(category_from_record(fields) for fields in named)
        provenance = dict(content["provenance"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"its header is broken: {error}") from error
    if categories is not None:
        check_count(categories, config)
    notes = ("a checkpoint of this project", f"its header says: {describe_network(config)}")
    return Checkpoint(weights, config, categories, path.name, sha256_of(path), provenance, notes)


def _of_first_version(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a file of this version says it."""
    edges = ("shortest_edge", "longest_edge")
    resize = {"rule": "edges", "rounding": "published"} | {name: fields[name] for name in edges if name in fields}
    return {name: value for name, value in fields.items() if name not in edges} | {"resize": resize}


def config_from_record(fields: Mapping[str, Any]) -> ModelConfig:
    """The configuration with these fields; TypeError or ValueError for one that is unknown or of another type.

    A field that did not exist when the file was written takes its default.
    """
    read: dict[str, Callable[[Any], Any]] = {"resize": rule_from_record, "normalization": Normalization.from_record}
    values = {name: read[name](value) if name in read else value for name, value in fields.items()}
    for field in dataclasses.fields(ModelConfig):
        value, wanted = values.get(field.name, field.default), type(field.default)
        if field.name not in read and type(value) is not wanted and not (wanted is float and type(value) is int):
            raise TypeError(f"{field.name} is {value!r}, which is no {wanted.__name__}")
    return ModelConfig(**values)


def read_provenance(path: Path) -> dict[str, Any]:
    """Where the weights in a checkpoint come from, without reading them; CheckpointError where it cannot be read."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return dict(json.loads(file.metadata()[CHECKPOINT_METADATA_KEY])["provenance"])
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} is no checkpoint of this project, or it is damaged") from error


def category_from_record(fields: Mapping[str, Any]) -> Category:
    """The category with these fields; KeyError, TypeError or ValueError where they are none."""
    red, green, blue = (int(value) for value in fields["color"])
    return Category(int(fields["id"]), str(fields["name"]), bool(fields["isthing"]), (red, green, blue))
