"""Label the pictures of a CVAT task: an auto-annotation function for CVAT's command line and its SDK.

cvat-cli --server-host https://cvat.example task auto-annotate 137 --function-module detr_client.cvat \
    -p url=str:http://localhost:8000 -p shapes=str:masks --allow-unmatched-labels

Labels are matched by their names. The protocol is that of `cvat_sdk.auto_annotation`, which is needed here
(`pip install cvat-cli`): https://docs.cvat.ai/docs/api_sdk/sdk/auto-annotation/
"""

from __future__ import annotations

from typing import Any, Literal

import cvat_sdk.auto_annotation as protocol
from cvat_sdk.masks import encode_mask
from PIL import Image

from detr_client.answers import DetectAnswer, SegmentAnswer
from detr_client.client import Client
from detr_client.detector import Detector

__all__ = ["CvatFunction", "create"]

Shapes = Literal["boxes", "masks"]


class CvatFunction:
    """What CVAT asks for the shapes in each picture."""

    def __init__(self, detector: Detector, categories: list[dict[str, Any]], shapes: Shapes = "boxes") -> None:
        """Label by a server or by a model in this process.

        Args:
            detector: answers the pictures.
            categories: of its model, as `Client.model()["categories"]` has them; things are labelled, stuff is not.
            shapes: boxes become rectangles, masks become masks, or polygons where CVAT asks for them.

        Raises ValueError for shapes of another name.
        """
        if shapes not in ("boxes", "masks"):
            raise ValueError(f"shapes are boxes or masks, not {shapes!r}")
        self._detector, self._shapes = detector, shapes
        kind = "rectangle" if shapes == "boxes" else "mask"
        things = [category for category in categories if category["isthing"]]
        labels = [protocol.label_spec(category["name"], category["id"], type=kind) for category in things]
        self._ids = [category["id"] for category in things]
        self.spec = protocol.DetectionFunctionSpec(labels=labels)

    def detect(self, context: protocol.DetectionFunctionContext, image: Image.Image) -> list[Any]:
        """The shapes of one picture, each with its score. Raises what `Detector.detect` does."""
        threshold = context.conf_threshold
        if self._shapes == "boxes":
            return _rectangles(self._detector.detect(image, threshold=threshold, classes=self._ids))
        polygons = context.conv_mask_to_poly
        answer = self._detector.segment(
            image, threshold=threshold, classes=self._ids, mode="instance", polygons=polygons
        )
        return _polygons(answer) if polygons else _masks(answer)


def create(
    url: str = "http://localhost:8000", api_key: str | None = None, shapes: Shapes = "boxes", deadline_s: float = 60.0
) -> CvatFunction:
    """What CVAT calls with the parameters of its command line (`-p`). Raises what `Client.model` does."""
    client = Client(url, api_key=api_key, deadline_s=deadline_s)
    return CvatFunction(client, client.model()["categories"], shapes)


def _rectangles(answer: DetectAnswer) -> list[Any]:
    return [
        protocol.rectangle(found.category_id, [float(side) for side in found.box_xyxy], score=found.score)
        for found in answer
    ]


def _masks(answer: SegmentAnswer) -> list[Any]:
    return [
        protocol.mask(found.category_id, encode_mask(answer.mask(number)), score=found.score)
        for number, found in enumerate(answer)
        if answer.areas[number]
    ]


def _polygons(answer: SegmentAnswer) -> list[Any]:
    """The outlines without their holes, which polygons in CVAT cannot have."""
    return [
        protocol.polygon(found.category_id, polygon[0][:-1].ravel().astype(float).tolist(), score=found.score)
        for number, found in enumerate(answer)
        for polygon in answer.polygons(number)
    ]
