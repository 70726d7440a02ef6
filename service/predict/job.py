"""All pictures of one run of `detr predict`: each is answered, and its result goes where results go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tqdm import tqdm  # type: ignore[import-untyped]

from service.images.answers import DetectTask, SegmentTask
from service.predict.files import PictureFile, shown
from service.predict.interruption import exit_code_of, uninterrupted
from service.predict.pictures import Failed, Outcome, RunPicture
from service.predict.results import Places, Results, write_drawing
from service.predict.running import PictureRunner
from service.predict.telling import complain, reason, warning_of


class Job:
    """All pictures, one run of the command."""

    def __init__(self, task: DetectTask | SegmentTask, runner: PictureRunner, places: Places, results: Results) -> None:
        """Ask this of each picture, in a form that is no drawing."""
        self._task, self._runner, self._places, self._results = task, runner, places, results
        self._seen = 0  # pictures, those included that had their line before
        self._answered = 0

    def run(self) -> int:
        """Answer the pictures that can be used, and return the exit code."""
        places, code = self._places, 0
        done = 0 if places.old is None else len(places.old.names)
        try:
            with tqdm(total=places.count, initial=done, unit=" pictures", disable=None) as bar:  # on terminals only
                for outcome in self._runner.run(
                    self._left(),
                    self._task,
                    self._make,
                    draws=places.draws,
                    in_order=places.form != "jsonl",
                ):
                    with uninterrupted():
                        self._take(outcome)
                    bar.update()
                if bar.total is not None:
                    bar.total = bar.n  # some lines of a list may be empty, or named twice
        except KeyboardInterrupt as interrupt:
            code = exit_code_of(interrupt)
        count = self._seen if places.count is None or not code else places.count
        if code or self._answered < count > 1:
            complain(f"{self._answered} of {count} pictures are answered{', then interrupted' if code else ''}")
        return code or int(self._answered < count)

    def _left(self) -> Iterator[PictureFile]:
        """The pictures that have no line yet."""
        old = self._places.old
        for picture in self._places.pictures:
            self._seen += 1
            if old is None or picture.file not in old.names:
                yield picture
            elif picture.file not in old.failed:
                self._answered += 1

    def _make(self, run: RunPicture[PictureFile]) -> tuple[bytes, bytes | None]:
        """The answer in JSON and the drawing as PNG of a picture; in a thread, while the engine runs others."""
        task = replace(self._task, image_id=run.picture.image_id)
        given = self._runner.metadata, run.prepared, run.outputs, run.trace
        if not self._places.draws:
            return task.answer(*given).body, None
        told, drawn = task.told_and_drawn(*given)
        return told.body, drawn.body

    def _take(self, outcome: Outcome[PictureFile, tuple[bytes, bytes | None]]) -> None:
        picture = outcome.picture
        if isinstance(outcome, Failed):
            why = reason(outcome.error, self._runner.device)
            self._results.failed(picture, why)
            complain(f"{shown(picture.file)}: {why}")
            return
        body, drawing = outcome.answer
        if drawing is not None:
            write_drawing(picture, drawing)  # before its line, which says that all of it is done
        self._results.answered(picture, body)
        self._answered += 1
        if (warning := warning_of(outcome.trace)) is not None:
            complain(f"{shown(picture.file)}: {warning}")
