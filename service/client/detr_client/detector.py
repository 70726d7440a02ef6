"""What is asked in the same words of a server and of a model in the same process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TypeVar, overload

from detr_client.answers import Answer, DetectAnswer, SegmentAnswer
from detr_client.explanations import ExplainAnswer
from detr_client.replies import Classes, Mode, PointsXY, explain_query_of, query_of
from detr_client.sources import Source

A = TypeVar("A", bound=Answer)


class Detector(ABC):
    """Answers pictures, one or several."""

    @overload
    def detect(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self, source: Source, *, threshold: float | None = None, classes: Classes | None = None, bgr: bool = False
    ) -> DetectAnswer: ...

    @overload
    def detect(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> list[DetectAnswer]: ...

    def detect(
        self,
        source: Source | Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> DetectAnswer | list[DetectAnswer]:
        """Find the objects in a picture, or in several.

        Args:
            source: a path, the bytes of an image file, an open one, a PIL image or an array, uint8 [height, width, 3]
                in RGB; or several of these, of which a few are under way at once.
            threshold: answer what scores above this, 0 to 1; the default is the model's own.
            classes: answer these classes only, names or category ids; the default is all.
            bgr: arrays are in the order of OpenCV, BGR.
            progress: show a progress bar for several pictures, which takes tqdm.

        Returns:
            The answer; for several pictures a list of answers in their order.

        Raises:
            SourceError, OSError: the source is no picture, or its file cannot be read.
            RefusedError: the server, or the model in this process, refused or failed; see its subclasses.
            NoServerError, TooLateError, StrangeAnswerError: there is no server, no answer in time, or a strange one.
            ClientClosedError: the client was closed meanwhile.
            IncompleteError: one of several pictures has no answer.
        """
        return self._answer("detect", DetectAnswer, source, query_of(threshold, classes), bgr, progress)

    @overload
    def segment(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self,
        source: Source,
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        mode: Mode = "panoptic",
        polygons: bool = False,
        bgr: bool = False,
    ) -> SegmentAnswer: ...

    @overload
    def segment(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        mode: Mode = "panoptic",
        polygons: bool = False,
        bgr: bool = False,
        progress: bool = False,
    ) -> list[SegmentAnswer]: ...

    def segment(
        self,
        source: Source | Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        mode: Mode = "panoptic",
        polygons: bool = False,
        bgr: bool = False,
        progress: bool = False,
    ) -> SegmentAnswer | list[SegmentAnswer]:
        """Segment a picture, or several.

        Args:
            source: as in `detect`.
            threshold: as in `detect`.
            classes: as in `detect`.
            mode: "panoptic" for one segment for each pixel, "instance" for a mask for each object, which may overlap;
                that is things only, unless classes are asked for.
            polygons: have the outlines of segments as well, see `SegmentAnswer.polygons`.
            bgr: as in `detect`.
            progress: as in `detect`.

        Returns and raises what `detect` does, with answers that are a SegmentAnswer.
        """
        query = query_of(threshold, classes, mode, polygons)
        return self._answer("segment", SegmentAnswer, source, query, bgr, progress)

    @overload
    def explain(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self,
        source: Source,
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        query: int | None = None,
        points: PointsXY = (),
        bgr: bool = False,
    ) -> ExplainAnswer: ...

    @overload
    def explain(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        query: int | None = None,
        points: PointsXY = (),
        bgr: bool = False,
        progress: bool = False,
    ) -> list[ExplainAnswer]: ...

    def explain(
        self,
        source: Source | Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        query: int | None = None,
        points: PointsXY = (),
        bgr: bool = False,
        progress: bool = False,
    ) -> ExplainAnswer | list[ExplainAnswer]:
        """Find the objects in a picture, or in several, and where the network looked for each.

        Args:
            source: as in `detect`.
            threshold: as in `detect`; 1 finds no objects, and leaves the points.
            classes: as in `detect`.
            query: the only object query that is wanted, whatever its score.
            points: up to 20 points, x and y in pixels, whose maps are wanted, too.
            bgr: as in `detect`.
            progress: as in `detect`.

        Returns and raises what `detect` does, with answers that are an ExplainAnswer; a model whose file does not give
        its attention is a BadRequestError.
        """
        asked = explain_query_of(threshold, classes, query, points)
        return self._answer("explain", ExplainAnswer, source, asked, bgr, progress)

    @abstractmethod
    def _answer(
        self,
        task: str,
        kind: type[A],
        source: Source | Iterable[Source],
        query: dict[str, str],
        bgr: bool,
        progress: bool,
    ) -> A | list[A]:
        """Answer a picture, or each of several in their order."""
