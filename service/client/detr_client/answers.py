"""Answers as Python has them: frozen, in arrays, whichever way they came."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detr_client import drawing, exports
from detr_client.errors import StrangeAnswerError
from detr_client.run_lengths import mask_of_counts
from detr_client.sources import Source, upright_rgb

if TYPE_CHECKING:
    import fiftyone
    import supervision


class Found(NamedTuple):
    """One object or segment of an answer."""

    label: str
    score: float
    category_id: int
    box_xyxy: tuple[float, float, float, float]  # pixels: left, top, right, bottom
    isthing: bool  # True for objects that can be counted, False for stuff such as sky


class Answer:
    """What was found in one picture; the k finds are in order, as the server gave them.

    Arrays are read-only. Everything is in pixels of the picture as displayed, which is how the EXIF orientation of a
    photo turns it, with the origin at the top left.

    Attributes:
        model: name of the model.
        width, height: of the picture, in pixels.
        labels: k names of classes.
        category_ids: int64 [k], what the model calls these classes.
        scores: float64 [k], 0 to 1.
        boxes_xyxy: float64 [k, 4]: left, top, right, bottom.
        isthing: bool [k], True for objects that can be counted, False for stuff such as sky.
    """

    _LIST: ClassVar[str]  # where the finds are in the JSON

    def __init__(self, body: dict[str, Any]) -> None:
        """Read a JSON answer, of which more is ignored. Raises StrangeAnswerError if it is not one."""
        try:
            self._read(body)
        except (KeyError, TypeError, ValueError) as error:
            raise StrangeAnswerError(f"this is no answer of a detr-serve: {error!r}") from error

    def _read(self, body: dict[str, Any]) -> None:
        self._body = body
        finds: list[dict[str, Any]] = body[self._LIST]
        self.model: str = body["model"]
        self.width, self.height = int(body["image"]["width"]), int(body["image"]["height"])
        self.labels: tuple[str, ...] = tuple(find["label"] for find in finds)
        self.category_ids = self._column("category_id", np.int64)
        self.scores = self._column("score", np.float64)
        sides = [[find["box"][side] for side in ("x1", "y1", "x2", "y2")] for find in finds]
        self.boxes_xyxy = _frozen(np.array(sides, dtype=np.float64).reshape(-1, 4))
        self.isthing = self._column("isthing", np.bool_)

    def _column(self, name: str, dtype: type[Any]) -> NDArray[Any]:
        return _frozen(np.array([find[name] for find in self._finds], dtype=dtype))

    @property
    def _finds(self) -> list[dict[str, Any]]:
        finds: list[dict[str, Any]] = self._body[self._LIST]
        return finds

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__:
            raise AttributeError(f"an answer is frozen: {name} cannot be set")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        return len(self.labels)

    def __bool__(self) -> bool:
        return True  # it is an answer, though nothing may have been found

    def __iter__(self) -> Iterator[Found]:
        columns = self.scores.tolist(), self.category_ids.tolist(), self.boxes_xyxy.tolist(), self.isthing.tolist()
        rows = zip(self.labels, *columns, strict=True)
        return (Found(label, score, number, tuple(box), isthing) for label, score, number, box, isthing in rows)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._body == other._body

    def __hash__(self) -> int:
        return hash(json.dumps(self._body, sort_keys=True))

    def __repr__(self) -> str:
        first = ", ".join(f"{label} {score:.2f}" for label, score in zip(self.labels[:5], self.scores, strict=False))
        more = f" and {len(self) - 5} more" if len(self) > 5 else ""
        return f"<{type(self).__name__} of {self.width} x {self.height} pixels: {first or 'nothing'}{more}>"

    def to_json(self) -> dict[str, Any]:
        """A copy of the whole answer as the server gave it, with all that this class does not read."""
        copy: dict[str, Any] = json.loads(json.dumps(self._body))
        return copy

    def draw(self, image: Source, *, bgr: bool = False) -> Image.Image:
        """A copy of the picture with the answer drawn on it, in RGB; what scores best lies on top.

        Args:
            image: the picture that was asked about, in any form that can be asked about.
            bgr: the channels of an array are in the order of OpenCV.

        Raises:
            SourceError: it is no picture.
            ValueError: it has another size than the picture that was answered.
            OSError: it cannot be read.
        """
        canvas = upright_rgb(image, bgr=bgr)
        if canvas.size != (self.width, self.height):
            size = f"{canvas.width} x {canvas.height}"
            raise ValueError(f"the picture is {size} and the answer is of one of {self.width} x {self.height} pixels")
        return self._drawn(canvas)

    def _drawn(self, canvas: Image.Image) -> Image.Image:
        return drawing.draw_boxes(canvas, self.boxes_xyxy, self.labels, self.scores, self.category_ids)

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO results entries of this picture, for json.dump and `pycocotools.coco.COCO.loadRes`.

        Args:
            image_id: of the picture in the annotations.
        """
        return exports.to_coco(self, image_id)

    def to_supervision(self) -> supervision.Detections:
        """As `supervision.Detections`: `class_id` is the category id, `data["class_name"]` the label.

        Raises ImportError where supervision is not installed.
        """
        return exports.to_supervision(self)

    def to_fiftyone(self) -> fiftyone.Detections:
        """As `fiftyone.Detections`, with boxes in parts of the picture's sides. Raises ImportError where FiftyOne is
        not installed.
        """
        return exports.to_fiftyone(self)


class DetectAnswer(Answer):
    """The objects in a picture, best score first; see `Answer`."""

    _LIST = "detections"


class SegmentAnswer(Answer):
    """The segments of a picture; see `Answer`. Those of `mode="instance"` may overlap.

    Attributes:
        segment_ids: int64 [k], the values of their pixels in `id_map`.
        areas: int64 [k], pixels.
    """

    _LIST = "segments"

    def _read(self, body: dict[str, Any]) -> None:
        super()._read(body)
        self.segment_ids = self._column("id", np.int64)
        self.areas = self._column("area", np.int64)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """Where the segments are, bool [k, height, width]; made when first asked for. Large pictures of many segments
        take much memory, and `mask` makes one at a time.

        Raises ValueError if the server gave no masks.
        """
        masks = np.zeros((len(self), self.height, self.width), dtype=np.bool_)
        for number in range(len(self)):
            masks[number] = self.mask(number)
        return _frozen(masks)

    def mask(self, number: int) -> NDArray[np.bool_]:
        """Where one segment is, bool [height, width]. Raises ValueError if the server gave no mask of it."""
        return mask_of_counts(self.rle(number)["counts"], self.height, self.width)

    def rle(self, number: int) -> dict[str, Any]:
        """One segment's mask in COCO's compressed run lengths, {"size": [height, width], "counts": str}."""
        return dict(self._finds[number]["rle"])

    def polygons(self, number: int) -> list[list[NDArray[np.int64]]]:
        """The outline of one segment: polygons that fill its mask pixel for pixel, as a GeoJSON MultiPolygon has them.

        Each polygon is its outer ring and then its holes; each ring is int64 [n, 2], the x and y of its corners on the
        edges of pixels, the first once more at the end.

        Raises ValueError if `segment` was not asked for them.
        """
        polygons = self._finds[number].get("polygons")
        if polygons is None:
            raise ValueError("the answer has no outlines: ask with segment(..., polygons=True)")
        return [[np.array(ring, dtype=np.int64).reshape(-1, 2) for ring in polygon] for polygon in polygons]

    @cached_property
    def id_map(self) -> NDArray[np.int32]:
        """The segment id of each pixel, int32 [height, width]; 0 is void, which no segment has. Of instances that
        overlap, the best one counts.
        """
        if self._body.get("panoptic_png"):
            with Image.open(io.BytesIO(base64.b64decode(self._body["panoptic_png"]))) as png:
                red, green, blue = np.moveaxis(np.asarray(png.convert("RGB"), dtype=np.int32), 2, 0)
            return _frozen(red + 256 * green + 65536 * blue)
        ids = np.zeros((self.height, self.width), dtype=np.int32)
        for number in reversed(range(len(self))):  # where segments overlap, the first is seen
            ids[self.mask(number)] = self.segment_ids[number]
        return _frozen(ids)

    def _drawn(self, canvas: Image.Image) -> Image.Image:
        return drawing.draw_masks(canvas, self.mask, self.labels, self.scores, self.category_ids)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array
