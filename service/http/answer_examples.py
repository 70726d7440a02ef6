"""An example of each form of answer, which tests hold against the schemas of the API and against real answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AnswerExample:
    """An answer in JSON, and what is asked for it."""

    value: Any
    query: str = ""
    images: int = 1  # in the request

    @property
    def summary(self) -> str:
        """What is asked for it, in a few words."""
        return f"{self.images} images in one request" if self.images > 1 else f"?{self.query}" if self.query else ""


_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAQAAAACCAIAAADwyuo0AAAAEUlEQVR4nGNiZGCAIyYGJAAAALoACVjoRk0AAAAASUVORK5CYII="
_FAILED = {"error": {"code": "not_an_image", "message": "the upload is not an image", "request_id": "a4266ba1b7d07dd0"}}
_FOUND = {"label": "cat", "category_id": 17, "isthing": True, "score": 0.9876}
_DETECTED = {
    "model": "detr-resnet-50",
    "image": {"width": 640, "height": 480},
    "detections": [{**_FOUND, "box": {"x1": 12.0, "y1": 8.0, "x2": 210.0, "y2": 180.0}}],
}
_RLE = {"size": [2, 4], "counts": "08"}
_OUTLINE = [[[[0, 0], [4, 0], [4, 2], [0, 2], [0, 0]]]]
_SEGMENT = {"id": 1, **_FOUND, "area": 8, "box": {"x1": 0.0, "y1": 0.0, "x2": 4.0, "y2": 2.0}, "rle": _RLE}
_INSTANCES = {"model": "detr-resnet-50-panoptic", "image": {"width": 4, "height": 2}, "segments": [_SEGMENT]}
_PANOPTIC = {**_INSTANCES, "panoptic_png": _PNG}

_EXPLAINED = {
    "model": "detr-resnet-50",
    "image": {"width": 640, "height": 480},
    "cell": {"width": 320.0, "height": 240.0},
    "objects": [{**_DETECTED["detections"][0], "query": 17, "attention": [[0.7, 0.1], [0.15, 0.05]]}],  # type: ignore[index]
    "points": [],
}

DETECT_EXAMPLES: Mapping[str, AnswerExample] = {
    "boxes": AnswerExample(_DETECTED),
    "coco": AnswerExample(
        [{"image_id": 139, "category_id": 17, "bbox": [12.0, 8.0, 198.0, 172.0], "score": 0.9876}],
        "format=coco&image_id=139",
    ),
    "several": AnswerExample({"results": [_DETECTED, _FAILED]}, images=2),
}
SEGMENT_EXAMPLES: Mapping[str, AnswerExample] = {
    "panoptic": AnswerExample(_PANOPTIC),
    "instances": AnswerExample(
        {**_INSTANCES, "segments": [{**_SEGMENT, "polygons": _OUTLINE}]}, "mode=instance&polygons=true"
    ),
    "coco_panoptic": AnswerExample(
        {
            "image_id": 139,
            "file_name": "000000000139.png",
            "segments_info": [
                {"id": 1, "category_id": 17, "isthing": True, "score": 0.9876, "area": 8, "bbox": [0.0, 0.0, 4.0, 2.0]}
            ],
            "panoptic_png": _PNG,
        },
        "format=coco&image_id=139",
    ),
    "coco_instances": AnswerExample(
        [{"image_id": 139, "category_id": 17, "segmentation": _RLE, "score": 0.9876}],
        "mode=instance&format=coco&image_id=139",
    ),
    "several": AnswerExample({"results": [_PANOPTIC, _FAILED]}, images=2),
}
EXPLAIN_EXAMPLES: Mapping[str, AnswerExample] = {
    "objects": AnswerExample(_EXPLAINED),
    "points": AnswerExample(
        {**_EXPLAINED, "points": [{"x": 12.0, "y": 8.5, "attention": [[0.9, 0.05], [0.03, 0.02]]}]}, "points=12,8.5"
    ),
    "several": AnswerExample({"results": [_EXPLAINED, _FAILED]}, images=2),
}
