"""What an artifact will say of itself, as far as its checkpoint knows."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from model.checkpoint.strict import Checkpoint
from model.runtime.artifact.metadata import FORMAT_VERSION, Metadata
from model.runtime.preprocess import CANVAS_MULTIPLE


def artifact_metadata(
    checkpoint: Checkpoint[Any], name: str, mask_stride: int | None, exported_with: Mapping[str, str]
) -> Metadata:
    """The metadata of a checkpoint's float32 artifact.

    `mask_stride` is that of a network with masks; `exported_with` are the versions of what wrote its graph. Raises
    CheckpointError where the classes have no names, ValueError where the metadata would not be served.
    """
    config = checkpoint.config
    provenance: dict[str, Any] = {
        **checkpoint.provenance,
        "source": checkpoint.source,
        "sha256": checkpoint.sha256,
        "exported_with": {"detr-serve": version("detr-serve"), **exported_with},
    }
    return Metadata(
        format_version=FORMAT_VERSION,
        name=name,
        task="panoptic" if config.masks else "detection",
        categories=checkpoint.require_categories(),
        num_queries=config.num_queries,
        resize=config.resize,
        normalization=config.normalization,
        canvas_multiple=CANVAS_MULTIPLE,
        mask_stride=mask_stride,
        detect_threshold=config.detect_threshold,
        segment_threshold=config.segment_threshold,
        padding=config.padding,
        provenance=provenance,
    )
