"""The same answers without a server: the model runs in this process.

This package knows nothing of how that is done. Whoever can run models says so under the entry point `in_process` of the
group `detr_client`, a function that `load` calls; detr-serve does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Protocol, Self, TypeVar

from detr_client.answers import Answer
from detr_client.detector import Detector
from detr_client.errors import ModelLoadError
from detr_client.replies import answer_of
from detr_client.several import Gathered, progress_bar
from detr_client.sources import Source, is_many, picture_bytes

A = TypeVar("A", bound=Answer)

_GROUP, _NAME = "detr_client", "in_process"


class Runner(Protocol):
    """A model that can run in this process."""

    def answer(
        self, task: str, pictures: Iterable[Callable[[], bytes]], query: Mapping[str, str]
    ) -> Generator[tuple[int, int, bytes]]:
        """Each picture's number, status and body, as the server would answer it, as soon as it is there.

        What a picture raises when it is read has to be an OSError, and is answered in some way that nobody reads.
        """

    def describe(self) -> bytes:
        """What `GET /model` answers."""


def load(
    model: str | None = None,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> LocalModel:
    """Load a model to be run in this process, as `detr predict` does.

    Args:
        model: what `detr serve` takes: a file, a folder of transformers, or a name on the Hugging Face hub; the default
            is the demo model.
        device: such as "cpu", "cuda" or "openvino"; the default is the best one that is there.
        precision: such as "float32"; the default is that of the file.
        threads: of the CPU that the model takes; the default is one for each core.

    Settings without an argument here are read from the environment, as `detr serve` reads them.

    Raises:
        ModelLoadError: what runs models is not installed, or the model, device or precision cannot be had.
    """
    given = {"model": model, "device": device, "precision": precision, "engine_threads": threads}
    settings = {name: str(value) for name, value in given.items() if value is not None}
    try:
        (entry,) = entry_points(group=_GROUP, name=_NAME)
    except ValueError:
        raise ModelLoadError("nothing here runs models in process: pip install detr-serve") from None
    try:
        open_model: Callable[[Mapping[str, str]], Runner] = entry.load()
    except (ImportError, AttributeError) as error:
        raise ModelLoadError(_hidden(entry.module, error)) from error
    try:
        return LocalModel(open_model(settings))
    except Exception as error:
        raise ModelLoadError(str(error)) from error


def _hidden(module: str, error: Exception) -> str:
    package = sys.modules.get(module.partition(".")[0])
    place = getattr(package, "__file__", None) or next(iter(getattr(package, "__path__", ["?"])))
    return (
        f"detr-serve's own package cannot be imported ({error}); if another one is called "
        f"{module.partition('.')[0]!r} ({place}), run this from another folder, or ask a server"
    )


class LocalModel(Detector):
    """A model in this process, with the answers of a server. It may be used by several threads.

    It is a context manager, or is given up by `close`.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner: Runner | None = runner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the model up, and its memory."""
        self._runner = None

    def model(self) -> dict[str, Any]:
        """What `GET /model` answers: the model's name, classes, thresholds and device."""
        described: dict[str, Any] = json.loads(self._open().describe())
        return described

    def _open(self) -> Runner:
        if self._runner is None:
            raise ValueError("the model was closed")
        return self._runner

    def _answer(
        self,
        task: str,
        kind: type[A],
        source: Source | Iterable[Source],
        query: dict[str, str],
        bgr: bool,
        progress: bool,
    ) -> A | list[A]:
        runner = self._open()
        if is_many(source):
            return self._answer_all(runner, task, kind, source, query, bgr, progress)
        picture = picture_bytes(source, bgr=bgr)  # type: ignore[arg-type]  # it is one
        ((_, status, body),) = runner.answer(task, [lambda: picture], query)
        return answer_of(kind, status, body)

    def _answer_all(
        self,
        runner: Runner,
        task: str,
        kind: type[A],
        sources: Iterable[Source],
        query: dict[str, str],
        bgr: bool,
        progress: bool,
    ) -> list[A]:
        gathered: Gathered[A] = Gathered()
        under_way: dict[int, Source] = {}
        unread: dict[int, Exception] = {}

        def pictures() -> Iterator[Callable[[], bytes]]:
            for source in sources:
                number = gathered.begin()
                under_way[number] = source
                yield partial(_read, number, source, bgr, unread)

        total = len(sources) if isinstance(sources, Sized) else None
        with progress_bar(total, progress) as bar, closing(runner.answer(task, pictures(), query)) as answered:
            for number, status, body in answered:
                source = under_way.pop(number)
                try:
                    if number in unread:
                        raise unread[number]
                    gathered.add(number, answer_of(kind, status, body))
                except Exception as error:
                    gathered.fail(number, source, error)
                if bar is not None:
                    bar.update()
                if gathered.is_stopped:
                    break
        return gathered.answers(0 if total is None else total - gathered.count)


def _read(number: int, source: Source, bgr: bool, unread: dict[int, Exception]) -> bytes:
    try:
        return picture_bytes(source, bgr=bgr)
    except Exception as error:
        unread[number] = error
        raise OSError("it cannot be read") from error
