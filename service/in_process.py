"""A model within another program: what a server would answer, without one. `detr_client.load` finds it by the entry
point that pyproject.toml names, so that the client imports nothing of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.errors import EngineRestartError, NoAttentionError, NoMasksError, ParameterError
from service.http.asked import detect_task, explain_task, segment_task
from service.http.error_answers import error_body, row_of
from service.images.answers import TaskName
from service.images.task import Task
from service.lifecycle.loading import ArtifactLoader
from service.lifecycle.warm_up import assumed_lines
from service.predict.pictures import EncodedPicture, Failed, RunPicture
from service.predict.running import PictureRunner
from service.schemas import DetectParameters, ExplainParameters, SegmentParameters
from service.settings import Settings, read_settings

# What a client asks for, by the paths of the service.
ClientTask = TaskName | Literal["explain"]


def open_model(given: Mapping[str, str]) -> InProcess:
    """Load a model. `given` are settings by their names; the others are read from the environment.

    Raises:
        SettingsError, HubError, ArtifactError, DeviceError: see `ModelLoader.load`.
    """
    return open_with(read_settings(dict(given)))


def open_with(settings: Settings) -> InProcess:
    """Load the model that the settings name. Raises what `open_model` raises."""
    loader = ArtifactLoader(settings, bars=True)
    model = loader.load()
    return InProcess(PictureRunner(model, assumed_lines(model, settings), settings, loader))


class InProcess:
    """A loaded model that answers as the service does; several threads may ask at once."""

    def __init__(self, runner: PictureRunner) -> None:
        self._runner = runner
        self._metadata = runner.metadata

    def describe(self) -> bytes:
        """What GET /model answers."""
        return self._runner.describe()

    def answer(
        self, task: ClientTask, pictures: Iterable[Callable[[], bytes]], query: Mapping[str, str]
    ) -> Generator[tuple[int, int, bytes]]:
        """Each picture's number, status and body, as the server would answer it, as soon as it is there.

        Args:
            task: what is wanted of the pictures.
            pictures: how each is read; raises OSError where it cannot be.
            query: parameters of the request.
        """
        try:
            wanted = self._task(task, query)
            self._runner.check()
        except (ParameterError, NoAttentionError, NoMasksError, RequestValidationError, EngineRestartError) as error:
            yield from ((number, *_refused(error)) for number, _ in enumerate(pictures))
            return

        def body(run: RunPicture[_Given]) -> bytes:
            return wanted.answer(self._metadata, run.prepared, run.outputs, run.trace).body

        begun: set[int] = set()  # and not answered
        try:
            for outcome in self._runner.run(_noted(pictures, begun), wanted, body):
                begun.discard(outcome.number)
                if isinstance(outcome, Failed):
                    yield outcome.number, *_refused(outcome.error)
                else:
                    yield outcome.number, HTTPStatus.OK, outcome.answer
        except EngineRestartError as error:
            yield from ((number, *_refused(error)) for number in sorted(begun))

    def _task(self, task: ClientTask, query: Mapping[str, str]) -> Task:
        try:
            if task == "detect":
                return detect_task(DetectParameters.model_validate(query), accept="")(self._metadata)
            if task == "explain":
                return explain_task(ExplainParameters.model_validate(query), accept="")(self._metadata)
            return segment_task(SegmentParameters.model_validate(query), accept="")(self._metadata)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error


@dataclass
class _Given(EncodedPicture):
    """A picture as the caller reads it."""

    reading: Callable[[], bytes]

    def read(self) -> bytes:
        """See EncodedPicture."""
        return self.reading()


def _noted(pictures: Iterable[Callable[[], bytes]], begun: set[int]) -> Iterator[_Given]:
    for number, reading in enumerate(pictures):
        begun.add(number)
        yield _Given(reading)


def _refused(error: Exception) -> tuple[int, bytes]:
    """Status and body of an error as it is answered over HTTP."""
    return row_of(error).status, error_body(error, request_id="").model_dump_json().encode()
