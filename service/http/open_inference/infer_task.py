"""What an inference request wants of its image, and its answer in tensors."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from model.runtime.answers.detections import detections_of
from model.runtime.answers.segment_codec import id_png
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.raw_outputs import ImageOutputs
from service.http.open_inference.infer_request import InferRequest, read_infer_request
from service.http.open_inference.served_models import VERSION, TensorSpec, served_model
from service.images.answers import TASKS, segments_of
from service.images.responses import BOX_DECIMALS, SCORE_DECIMALS
from service.images.task import Content, Prepared
from service.process.trace import Trace

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
_NUMBERS = {"FP32": "<f4", "INT64": "<i8"}  # little-endian, as numpy calls them

Values = Sequence[Any]  # of a tensor, nested as its shape is


class InferTask:
    """A Task that learns from the body itself what is wanted, when a thread has read it."""

    draws = False
    attention = False
    is_json = False  # a request has one image

    def __init__(self, metadata: Metadata, name: str, version: str | None, json_bytes: int | None) -> None:
        """The task of a model by its name and version; see `read_infer_request` for `json_bytes`.

        Raises:
            UnknownModelError: there is no such model.
        """
        self._metadata = metadata
        self._model = served_model(metadata, name, version)
        self._json_bytes = json_bytes
        self._task = TASKS[self._model.name].of(metadata, None)
        self._request: InferRequest

    @property
    def mask_threshold(self) -> float:
        """See Task."""
        return self._task.mask_threshold

    def image_in(self, body: bytes | bytearray, content_type: str) -> bytes | bytearray:
        """See Task. Raises what `read_infer_request` raises, and ParameterError for an unknown class."""
        image, self._request = read_infer_request(body, self._json_bytes, self._model)
        kind = TASKS[self._model.name]
        self._task = kind.of(self._metadata, self._request.threshold, classes=self._request.classes)
        return image

    def answer(self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace) -> Content:
        """See Task."""
        threshold, classes = self._task.threshold, self._task.classes
        if self._model.name == "detect":
            with trace.stage("postprocess"):
                found = detections_of(outputs.pred_logits, outputs.pred_boxes, prepared.orig_size, threshold, classes)
            with trace.stage("encode"):
                rows = list(zip(found.labels.tolist(), found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True))
                return self._content(_detected(metadata, prepared.orig_size, rows))
        with trace.stage("postprocess"):
            segments = segments_of(metadata, prepared, outputs, threshold, classes)
        with trace.stage("encode"):
            rows = [(each.label, each.score, each.box_xyxy) for each in segments.segments]
            values = _detected(metadata, prepared.orig_size, rows)
            values["segment_ids"] = lambda: [each.id for each in segments.segments]
            values["panoptic_png"] = lambda: [id_png(segments.ids)]
            return self._content(values)

    def _content(self, made: Mapping[str, Callable[[], Values]]) -> Content:
        """The tensors that are wanted, as JSON and as binary data behind it; no other is made."""
        request, tensors, binary = self._request, [], bytearray()
        specs = {output.name: output for output in self._model.outputs}
        for name, is_binary in request.outputs.items():
            values = made[name]()
            tensor: dict[str, Any] = {
                "name": name,
                "datatype": specs[name].datatype,
                "shape": _shape(specs[name], values),
            }
            if is_binary:
                data = _binary(specs[name], values)
                tensor["parameters"] = {"binary_data_size": len(data)}
                binary += data
            else:
                tensor["data"] = [_in_json(value) for value in _flat(specs[name], values)]
            tensors.append(tensor)
        answer = {"model_name": self._model.name, "model_version": VERSION, "outputs": tensors}
        if request.id is not None:
            answer["id"] = request.id
        text = json.dumps(answer, allow_nan=False).encode()
        if not binary:
            return Content(text, "application/json")
        return Content(text + binary, "application/octet-stream", {JSON_LENGTH_HEADER: str(len(text))})


def _detected(
    metadata: Metadata, orig_size: tuple[int, int], rows: Sequence[tuple[int, float, Sequence[float]]]
) -> dict[str, Callable[[], Values]]:
    """What makes the tensors that both models answer, in the numbers that /detect and /segment give.

    Args:
        metadata: of the model.
        orig_size: (height, width) of the picture.
        rows: class index, score and box of each find.
    """
    categories = metadata.categories
    return {
        "boxes": lambda: [[round(side, BOX_DECIMALS) for side in box] for _, _, box in rows],
        "scores": lambda: [round(score, SCORE_DECIMALS) for _, score, _ in rows],
        "category_ids": lambda: [categories[label].id for label, _, _ in rows],
        "labels": lambda: [categories[label].name for label, _, _ in rows],
        "image_size": lambda: list(orig_size),
    }


def _shape(spec: TensorSpec, values: Values) -> list[int]:
    return [len(values) if length < 0 else length for length in spec.shape]


def _flat(spec: TensorSpec, values: Values) -> Values:
    return values if len(spec.shape) == 1 else [value for row in values for value in row]


def _binary(spec: TensorSpec, values: Values) -> bytes:
    if spec.datatype == "BYTES":
        elements = [value.encode() if isinstance(value, str) else value for value in values]
        return b"".join(struct.pack("<I", len(element)) + element for element in elements)
    return np.array(values, _NUMBERS[spec.datatype]).tobytes()


def _in_json(value: Any) -> Any:
    """JSON has no bytes, so a file is written in base64."""
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
