"""Models on the hub that are known to be DETRs, with the figures that their authors published.

AP, PQ and sizes are those of the model zoo of github.com/facebookresearch/detr (COCO 2017 val) and of
github.com/microsoft/table-transformer (PubTables-1M), GFLOP those of table 1 of the paper (arxiv.org/abs/2005.12872, a
mean over COCO pictures). What nobody published is None.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.runtime.artifact.metadata import ModelTask


@dataclass(frozen=True)
class KnownModel:
    """A model on the hub, or one of which only the authors' own file is to be had (`detr fetch`)."""

    name: str  # OWNER/NAME on the hub, or NAME
    task: ModelTask
    finds: str  # what its classes are
    quality: str | None  # AP, or PQ, in percent
    megabytes: int | None  # of its weights
    gflop: int | None  # of a picture


_THINGS, _SCENES = "COCO's 80 things", "COCO's 80 things and 53 kinds of stuff"
_TABLES, _PARTS = "tables on pages", "rows, columns and cells of tables"
KNOWN = (
    KnownModel("facebook/detr-resnet-50", "detection", _THINGS, "AP 42.0", 159, 86),
    KnownModel("facebook/detr-resnet-50-dc5", "detection", _THINGS, "AP 43.3", 159, 187),
    KnownModel("facebook/detr-resnet-101", "detection", _THINGS, "AP 43.5", 232, 152),
    KnownModel("facebook/detr-resnet-101-dc5", "detection", _THINGS, "AP 44.9", 232, 253),
    KnownModel("facebook/detr-resnet-50-panoptic", "panoptic", _SCENES, "PQ 43.4", 165, None),
    KnownModel("detr-resnet-50-dc5-panoptic", "panoptic", _SCENES, "PQ 44.6", 165, None),
    KnownModel("facebook/detr-resnet-101-panoptic", "panoptic", _SCENES, "PQ 45.1", 237, None),
    KnownModel("microsoft/table-transformer-detection", "detection", _TABLES, "AP 97.0", 110, None),
    KnownModel("microsoft/table-transformer-structure-recognition", "detection", _PARTS, "AP 90.2", 110, None),
)
