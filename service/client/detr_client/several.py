"""Several pictures at a time: a bounded number under way, each answer at its place, one bad picture in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sized
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

from detr_client.errors import IncompleteError, concerns_one_picture
from detr_client.sources import Source, name_of_source

T = TypeVar("T")


class Gathered(Generic[T]):
    """The answers and errors so far, by the positions of their sources."""

    def __init__(self) -> None:
        self.count = 0
        self._answers: dict[int, T] = {}
        self._errors: dict[int, Exception] = {}
        self._first = ""  # message of the first error
        self._stopped_by: Exception | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether an error concerns all that is left."""
        return self._stopped_by is not None

    def begin(self) -> int:
        """The position of the next source."""
        self.count += 1
        return self.count - 1

    def add(self, number: int, answer: T) -> None:
        """Take the answer of a source."""
        self._answers[number] = answer

    def fail(self, number: int, source: Source, error: Exception) -> None:
        """Take why a source has no answer."""
        self._errors[number] = error
        self._first = self._first or f"{name_of_source(source, number)}: {error}"
        if self._stopped_by is None and not concerns_one_picture(error):
            self._stopped_by = error

    def answers(self, left: int = 0) -> list[T]:
        """All answers in order. Raises IncompleteError if one is missing; `left` sources were never begun."""
        total = self.count + left
        if len(self._answers) == total:
            return [self._answers[number] for number in range(total)]
        answers = [self._answers.get(number) for number in range(total)]
        missing = total - len(self._answers)
        ended = "; the rest was not tried" if self.is_stopped else ""
        message = f"{missing} of {total} pictures have no answer{ended}; {self._first}"
        raise IncompleteError(message, answers, self._errors) from self._stopped_by


async def answer_all(
    answer: Callable[[Source], Awaitable[T]], sources: Iterable[Source], concurrency: int, progress: bool
) -> list[T]:
    """The answers of sources, in order, `concurrency` of them under way at once.

    Sources are taken one by one when their turn comes, in a thread, so that a generator may read them from a disk.

    Raises:
        IncompleteError: there is not one for each.
    """
    remaining, taking = iter(sources), asyncio.Lock()
    gathered: Gathered[T] = Gathered()
    nothing = object()

    async def worker(bar: Any) -> None:
        while not gathered.is_stopped:
            async with taking:
                source: Any = await asyncio.to_thread(next, remaining, nothing)
                if source is nothing:
                    return
                number = gathered.begin()
            try:
                gathered.add(number, await answer(source))
            except Exception as error:
                gathered.fail(number, source, error)
            if bar is not None:
                bar.update()

    total = len(sources) if isinstance(sources, Sized) else None
    with progress_bar(total, progress) as bar:
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(concurrency):
                    workers.create_task(worker(bar))
        except BaseExceptionGroup as group:  # of a generator of sources that fails itself
            raise group.exceptions[0] from None
    return gathered.answers(0 if total is None else total - gathered.count)


def progress_bar(total: int | None, progress: bool) -> AbstractContextManager[Any]:
    """A bar of tqdm if it is wanted, else None. Raises ImportError where it is wanted and tqdm is not installed."""
    if not progress:
        return nullcontext()
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    bar: AbstractContextManager[Any] = tqdm(total=total, unit=" pictures")
    return bar
