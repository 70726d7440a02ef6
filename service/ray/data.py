"""Pictures by the million: the answers of `detr predict` as a step of Ray Data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.images.answers import TaskName
from service.in_process import open_with
from service.ray.worker import settings_here
from service.settings import read_settings


class Predictor:
    """Answers the pictures of each batch.

    Give the class itself to `Dataset.map_batches`, so that each of Ray's actors loads the model once. A batch has the
    columns `path` and `bytes`, as `ray.data.read_binary_files(..., include_paths=True)` makes them. What comes back has
    a row a picture, in their order: `path`; `status`, 200 or the HTTP status by which the service would refuse the
    picture; `answer`, the JSON of `/detect` or `/segment`, or of the refusal. A broken picture stops nothing.

    Args:
        task: detect or segment.
        query: parameters of that route, such as threshold.
        settings: of the service, by the names of their fields; the others are read from the actor's environment.

    Raises:
        SettingsError, HubError, ArtifactError, DeviceError: the model cannot be loaded.
        ValueError: a parameter is wrong, or the model cannot do the task; so for no picture there would be an answer.
    """

    def __init__(self, task: TaskName = "detect", query: Mapping[str, str] | None = None, **settings: Any) -> None:
        given = read_settings({name: str(value) for name, value in settings.items()})
        self._model = open_with(settings_here(given))
        self._task: TaskName = task
        self._query = dict(query or {})
        # Of an empty file every other answer says that it is empty.
        ((_, status, body),) = self._model.answer(task, [bytes], self._query)
        if status == HTTPStatus.UNPROCESSABLE_ENTITY:
            raise ValueError(json.loads(body)["error"]["message"])

    def __call__(self, batch: Mapping[str, Sequence[Any] | NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answer the pictures of a batch."""
        pictures = [partial(bytes, picture) for picture in batch["bytes"]]
        statuses = np.zeros(len(pictures), dtype=np.int64)
        answers = np.empty(len(pictures), dtype=object)
        for number, status, body in self._model.answer(self._task, pictures, self._query):
            statuses[number], answers[number] = status, body.decode()
        return {"path": np.asarray(batch["path"]), "status": statuses, "answer": answers}
