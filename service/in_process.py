"""A model within another program: what a server would answer, without one. `detr_client.load` finds it by the entry
point that pyproject.toml names, so that the client imports nothing of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from model.runtime.answers.detections import OutputError
from model.runtime.engines.device_errors import DeviceMemoryError
from service.errors import DeviceFullError, NoMasksError, ParameterError
from service.http.asked import detect_task, segment_task
from service.http.error_answers import error_body, row_of
from service.images.answers import Task, TaskName
from service.lifecycle.loading import LoadedModel, load_model
from service.lifecycle.pipeline import describe
from service.predict.running import UnusedPicture, run_pictures
from service.schemas import DetectParameters, SegmentParameters
from service.settings import Settings, read_settings


def open_model(given: Mapping[str, str]) -> InProcess:
    """Load a model. `given` are settings by their names; the others are read from the environment.

    Raises:
        SettingsError, HubError, ArtifactError, DeviceError: see `load_model`.
    """
    settings = read_settings(dict(given))
    return InProcess(load_model(settings), settings)


class InProcess:
    """A loaded model that answers as the service does; several threads may ask at once."""

    def __init__(self, model: LoadedModel, settings: Settings) -> None:
        self._model = model
        self._settings = settings

    def describe(self) -> bytes:
        """What GET /model answers."""
        return describe(self._model, self._settings.formats)

    def answer(
        self, task: TaskName, pictures: Iterable[Callable[[], bytes]], query: Mapping[str, str]
    ) -> Generator[tuple[int, int, bytes]]:
        """Each picture's number, status and body, as the server would answer it, as soon as it is there.

        Args:
            task: what is wanted of the pictures.
            pictures: how each is read; raises OSError where it cannot be.
            query: parameters of the request.
        """
        try:
            wanted = self._task(task, query)
        except (ParameterError, NoMasksError, RequestValidationError) as error:
            yield from ((number, *_refused(error)) for number, _ in enumerate(pictures))
            return
        for run in run_pictures(pictures, self._model, self._settings, wanted.mask_threshold):
            if isinstance(run, UnusedPicture):
                yield run.number, *_refused(run.error)
                continue
            picture = run.picture
            try:
                content = wanted.answer(self._model.metadata, picture.prepared, run.outputs, picture.trace)
            except (OutputError, MemoryError, ParameterError) as error:
                yield picture.number, *_refused(error)
            else:
                yield picture.number, HTTPStatus.OK, content.body

    def _task(self, task: TaskName, query: Mapping[str, str]) -> Task:
        try:
            if task == "detect":
                return detect_task(DetectParameters.model_validate(query), accept="")(self._model.metadata)
            return segment_task(SegmentParameters.model_validate(query), accept="")(self._model.metadata)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error


def _refused(error: Exception) -> tuple[int, bytes]:
    """Status and body of an error as it is answered over HTTP."""
    if isinstance(error, DeviceMemoryError):
        error = DeviceFullError("there is no memory for this image on the device")
    return row_of(error).status, error_body(error, request_id="").model_dump_json().encode()
