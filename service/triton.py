"""DETR as a model of Triton's Python backend: picture files in, detections out, in exact padded batches.

`detr export --triton` writes the repository whose `model.py` imports this. Pictures are decoded, resized and padded
here, by the functions of the service; the graph runs as a second model of the repository, which is asked for whole
batches.
"""

from __future__ import annotations

import importlib
import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.detections import OutputError, detections_of
from model.runtime.artifact.metadata import Metadata
from model.runtime.decode import ImageError
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch
from service.errors import ServiceError
from service.images.prepare import ImageRules, prepare
from service.images.task import Prepared
from service.process.trace import Trace
from service.settings import Settings

__all__ = ["TritonPythonModel"]


class UnansweredError(Exception):
    """A picture, or a request with it, has no answer; the message is for its client."""

    is_clients = False  # whether another picture or threshold would have had one


class UnusableError(UnansweredError):
    """A picture or a threshold that cannot be used."""

    is_clients = True


@dataclass(eq=False)
class Picture:
    """One picture of a request, on its way."""

    prepared: Prepared
    threshold: float
    answer: dict[str, NDArray[Any]] | UnansweredError = field(default_factory=dict)


class TritonPythonModel:
    """See Triton's Python backend: it makes one of these for each instance, and asks it for several requests at once.

    The environment variables of `detr serve` that bound pictures (`DETR_MAX_PIXELS`, `DETR_FORMATS`, ...) hold here.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Read what `detr export` wrote of the model, beside model.py, and in its configuration."""
        self._triton: Any = importlib.import_module("triton_python_backend_utils")  # which exists inside Triton only
        folder = Path(args["model_repository"]) / args["model_version"]
        self._metadata = Metadata.from_json((folder / "metadata.json").read_text(encoding="utf-8"))
        self._graph = json.loads(args["model_config"])["parameters"]["graph"]["string_value"]
        settings = Settings()
        self._rules = ImageRules.of(settings, self._metadata)
        self._pool = ThreadPoolExecutor(settings.cpu_threads)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, all pictures of which fit into one batch. One that is refused leaves the others alone."""
        reading = [self._begin(request) for request in requests]
        read = [_outcome(pictures) for pictures in reading]
        self._detect([picture for pictures in read if isinstance(pictures, list) for picture in pictures])
        return [self._response(pictures) for pictures in read]

    def finalize(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, request: Any) -> list[Future[Picture]]:
        """Have each picture of a request prepared."""
        files = self._triton.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)
        given = self._triton.get_input_tensor_by_name(request, "threshold")
        thresholds = np.full(len(files), self._metadata.detect_threshold) if given is None else given.as_numpy()
        pairs = zip(files, thresholds.reshape(-1), strict=True)
        return [self._pool.submit(self._prepare, bytes(file), float(threshold)) for file, threshold in pairs]

    def _prepare(self, file: bytes, threshold: float) -> Picture:
        if not 0 <= threshold <= 1:
            raise UnusableError(f"threshold is {threshold:g}, and has to be from 0 to 1")
        try:
            return Picture(prepare(file, "", self._rules, Trace()), threshold)
        except (ServiceError, ImageError) as error:
            raise UnusableError(str(error)) from error

    def _detect(self, pictures: Sequence[Picture]) -> None:
        """Give pictures their answers. Where padding leaks, as published, only pictures of one size share a batch."""
        batches: dict[tuple[int, ...], list[Picture]] = defaultdict(list)
        for picture in pictures:
            batches[picture.prepared.resized.shape if self._metadata.padding_leaks else ()].append(picture)
        for batch in batches.values():
            try:
                logits, boxes = self._ask_graph([picture.prepared.resized for picture in batch])
            except UnansweredError as error:
                for picture in batch:
                    picture.answer = error
                continue
            for index, picture in enumerate(batch):
                picture.answer = self._answer(logits[index], boxes[index], picture)

    def _ask_graph(self, resized: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The graph's `pred_logits` [B, Q, C + 1] and `pred_boxes` [B, Q, 4] of pictures [h, w, 3]."""
        canvas = make_batch(resized, self._metadata.canvas_multiple)
        inputs = {"images": canvas.images, "padding_mask": canvas.padding_mask}
        if self._metadata.task == "panoptic":
            inputs["mask_threshold"] = np.full(len(resized), NO_MASKS, np.float32)
        request = self._triton.InferenceRequest(
            model_name=self._graph,
            requested_output_names=["pred_logits", "pred_boxes"],
            inputs=[self._triton.Tensor(name, value) for name, value in inputs.items()],
            preferred_memory=self._triton.PreferredMemory(
                self._triton.TRITONSERVER_MEMORY_CPU, 0
            ),  # of what comes back
        )
        reply = request.exec()
        if reply.has_error():
            self._triton.Logger.log_error(f"{self._graph}: {reply.error().message()}")
            raise UnansweredError("the network could not run")
        logits, boxes = (
            self._triton.get_output_tensor_by_name(reply, name).as_numpy() for name in ("pred_logits", "pred_boxes")
        )
        return logits, boxes

    def _answer(
        self, logits: NDArray[np.float32], boxes: NDArray[np.float32], picture: Picture
    ) -> dict[str, NDArray[Any]] | UnansweredError:
        """The outputs for one picture, filled up to the number of queries."""
        try:
            found = detections_of(logits, boxes, picture.prepared.orig_size, picture.threshold)
        except OutputError as error:
            return UnansweredError(str(error))
        categories = [self._metadata.categories[label] for label in found.labels]
        values: dict[str, Any] = {
            "boxes": found.boxes_xyxy,
            "scores": found.scores,
            "category_ids": np.array([category.id for category in categories], np.int32),
            "labels": np.array([category.name.encode() for category in categories], object),
        }
        filled = {name: _filled(value, len(logits)) for name, value in values.items()}
        return {"num_detections": np.array([len(categories)], np.int32), **filled}

    def _response(self, pictures: list[Picture] | UnusableError) -> Any:
        errors = [pictures] if isinstance(pictures, UnusableError) else [one.answer for one in pictures]
        for error in errors:
            if isinstance(error, UnansweredError):
                code = self._triton.TritonError.INVALID_ARG if error.is_clients else self._triton.TritonError.INTERNAL
                return self._triton.InferenceResponse(error=self._triton.TritonError(str(error), code))
        answers = [answer for answer in errors if isinstance(answer, dict)]
        return self._triton.InferenceResponse(
            [self._triton.Tensor(name, np.stack([one[name] for one in answers])) for name in answers[0]]
        )


def _filled(values: NDArray[Any], length: int) -> NDArray[Any]:
    """Values [n, ...] with zeros, or empty bytes, behind them: [length, ...]."""
    blank = b"" if values.dtype == object else 0
    result = np.full((length, *values.shape[1:]), blank, values.dtype)
    result[: len(values)] = values
    return result


def _outcome(reading: Sequence[Future[Picture]]) -> list[Picture] | UnusableError:
    """The pictures of a request, or why there is one that cannot be used."""
    pictures = []
    for number, future in enumerate(reading):
        try:
            pictures.append(future.result())
        except UnusableError as error:
            return error if len(reading) == 1 else UnusableError(f"picture {number}: {error}")
    return pictures
