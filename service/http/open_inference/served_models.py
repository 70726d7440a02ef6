"""What is served, in the words of the Open Inference Protocol: the models `detect` and `segment`, and their tensors.

Two models, because a request that names no outputs gets all of them, and masks cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from model.runtime.artifact.metadata import Metadata
from service.errors import UnknownModelError
from service.images.answers import TaskName

DataType = Literal["BYTES", "FP32", "INT64"]

VERSION = "1"  # the only one: what a reload replaces is the model, not its contract
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository")
_BACKEND = "detr"
# What the protocol's data types are called in a Triton model's configuration.
_CONFIG_TYPES: Mapping[DataType, str] = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64"}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, the type of its elements, and its shape, in which -1 is any length."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        """As a model's metadata have it."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}

    def config(self) -> dict[str, Any]:
        """As a model's configuration has it."""
        return {"name": self.name, "data_type": _CONFIG_TYPES[self.datatype], "dims": self.shape}


IMAGE = TensorSpec("image", "BYTES", (1,))  # a picture's file
_DETECTED = (
    TensorSpec("boxes", "FP32", (-1, 4)),  # xyxy, pixels
    TensorSpec("scores", "FP32", (-1,)),
    TensorSpec("category_ids", "INT64", (-1,)),
    TensorSpec("labels", "BYTES", (-1,)),
    TensorSpec("image_size", "INT64", (2,)),  # height, width
)


@dataclass(frozen=True)
class ServedModel:
    """One of the models, and what it answers."""

    name: TaskName
    outputs: tuple[TensorSpec, ...]

    def metadata(self) -> dict[str, Any]:
        """Answer of GET /v2/models/NAME."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": _BACKEND,
            "inputs": [IMAGE.metadata()],
            "outputs": [output.metadata() for output in self.outputs],
        }

    def config(self) -> dict[str, Any]:
        """Answer of GET /v2/models/NAME/config. Clients batch nothing; the server does that by itself."""
        return {
            "name": self.name,
            "platform": "",
            "backend": _BACKEND,
            "max_batch_size": 0,
            "input": [IMAGE.config()],
            "output": [output.config() for output in self.outputs],
        }

    def index_entry(self) -> dict[str, Any]:
        """Its entry in the answer of POST /v2/repository/index."""
        return {"name": self.name, "version": VERSION, "state": "READY", "reason": ""}


_DETECT = ServedModel("detect", _DETECTED)
_SEGMENT = ServedModel(
    "segment", (*_DETECTED, TensorSpec("segment_ids", "INT64", (-1,)), TensorSpec("panoptic_png", "BYTES", (1,)))
)


def served_models(metadata: Metadata) -> tuple[ServedModel, ...]:
    """What a model's file serves as: `segment` only where it has masks."""
    return (_DETECT,) if metadata.mask_stride is None else (_DETECT, _SEGMENT)


def served_model(metadata: Metadata, name: str, version: str | None) -> ServedModel:
    """The model that a path names.

    Raises:
        UnknownModelError: there is none.
    """
    models = served_models(metadata)
    found = next((model for model in models if model.name == name), None)
    if found is None:
        raise UnknownModelError(f"there is no model of that name here; there is {' and '.join(m.name for m in models)}")
    if version not in (None, VERSION):
        raise UnknownModelError(f"the model {found.name} has the version {VERSION} only")
    return found
