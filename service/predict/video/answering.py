"""Videos and cameras through a loaded model: an answer for each frame, in the order of the frames, and an annotated
video of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]

from model.runtime.answers.canvas import Canvas
from service.images.answers import DetectTask, SegmentTask
from service.images.pictures import draw_found
from service.images.prepare import ImageRules
from service.predict.files import shown
from service.predict.interruption import exit_code_of, uninterrupted
from service.predict.pictures import Failed, Outcome, RunPicture
from service.predict.results import Results
from service.predict.running import PictureRunner
from service.predict.telling import complain, reason
from service.predict.video.files import VideoFile
from service.predict.video.live import LiveFrames
from service.predict.video.reading import VideoError, VideoPicture, VideoReader
from service.predict.video.writing import VideoWriter
from service.settings import Settings


@dataclass(frozen=True, eq=False)
class _Made:
    """What was made of a frame."""

    where: dict[str, Any]  # it is from
    body: bytes  # the answer, in JSON
    drawing: NDArray[np.uint8] | None  # RGB and a byte that says nothing, [height, width, 4]


class VideoAnswers:
    """Answers the frames of videos.

    Args:
        task: what is asked of each frame.
        runner: of the model.
        settings: limits, and the number of threads.
        to: takes the answers.
    """

    def __init__(
        self,
        task: DetectTask | SegmentTask,
        runner: PictureRunner,
        settings: Settings,
        to: Results,
    ) -> None:
        self._task, self._runner, self._settings = task, runner, settings
        self._to = to
        self._limits = ImageRules.of(settings, runner.metadata).limits
        self._begun = self._answered = 0  # frames of all videos

    def answer_all(self, videos: Sequence[VideoFile], every: int) -> int:
        """Answer each `every`th frame of the videos, one video after the other.

        Returns:
            The exit code: 0 if every frame has its answer, that of `exit_code_of` after Ctrl-C, else 1.

        Raises:
            OSError: an answer or a video cannot be written; its `filename` says where.
        """
        whole = 0
        for video in videos:
            before = self._answered
            try:
                troubles = self._answer(video, every)
            except VideoError as error:
                troubles = [str(error)]
            except MemoryError as error:
                troubles = [reason(error, self._runner.device)]
            except KeyboardInterrupt as interrupt:
                complain(f"{shown(video.path)}: {self._answered - before} frames are answered, then interrupted")
                return exit_code_of(interrupt)
            for trouble in troubles:
                complain(f"{shown(video.path)}: {trouble}")
            whole += not troubles
        if whole < len(videos) > 1:
            complain(f"{whole} of {len(videos)} videos are answered without a fault")
        return int(whole < len(videos))

    def _answer(self, video: VideoFile, every: int) -> list[str]:
        """Answer a video; what is wrong with it or with its answers."""
        reader = VideoReader(video, self._limits)
        total = None if video.is_live or reader.count is None else -(-reader.count // every)
        failed: list[Exception] = []
        with ExitStack() as stack:
            writer = self._writer(video, reader, every, stack)
            bar = stack.enter_context(tqdm(total=total, unit=" frames", desc=shown(video.path), disable=None))
            for outcome in self._outcomes(video, reader.frames(every), writer is not None, stack):
                if isinstance(outcome, Failed):
                    failed.append(outcome.error)
                else:
                    frame, made = outcome.picture, outcome.answer
                    with uninterrupted():
                        self._to.add(made.where, made.body)
                        self._answered += 1
                        if writer is not None and made.drawing is not None:
                            writer.add(made.drawing, frame.pts, frame.duration * every, frame.time_base)
                self._begun += 1
                bar.update()
        troubles = [] if video.is_live else reader.troubles()
        if failed:
            why = reason(failed[0], self._runner.device)
            troubles.append(f"{len(failed)} frames have no answer; the first: {why}")
        return troubles

    def _writer(self, video: VideoFile, reader: VideoReader, every: int, stack: ExitStack) -> VideoWriter | None:
        if video.drawing is None:
            return None
        return stack.enter_context(VideoWriter(video.drawing, reader.rate / every, self._settings.cpu_threads))

    def _outcomes(
        self, video: VideoFile, frames: Generator[VideoPicture], draws: bool, stack: ExitStack
    ) -> Iterator[Outcome[VideoPicture, _Made]]:
        """What becomes of each frame, in their order."""
        make = self._making(str(video.path), draws)
        live = stack.enter_context(closing(LiveFrames(frames, self._settings.cpu_threads))) if video.is_live else None
        outcomes = self._runner.run(live or frames, self._task, make, draws=draws, in_order=True)
        for outcome in stack.enter_context(closing(outcomes)):
            if live is not None:
                live.answered()
            yield outcome

    def _making(self, name: str, draws: bool) -> Callable[[RunPicture[VideoPicture]], _Made]:
        """What makes the answer of a frame, in a thread, while the engine runs others."""
        metadata, begun = self._runner.metadata, self._begun

        def make(run: RunPicture[VideoPicture]) -> _Made:
            task = replace(self._task, image_id=begun + run.number + 1)
            found, tell = task.find(metadata, run.prepared, run.outputs, run.trace)
            frame, drawing = run.picture, None
            where = {"file": name, "frame": frame.number, "time": frame.seconds}
            body = tell().body
            if draws and frame.image is not None:
                canvas, frame.image = Canvas.on(frame.image.copy()), None  # the decoder may still need its own
                draw_found(canvas, found, metadata.categories)
                drawing = canvas.pixels
            return _Made(where, body, drawing)

        return make
