"""Where the network looked, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detr_client import drawing
from detr_client.answers import Answer


class ExplainAnswer(Answer):
    """The objects in a picture, best score first, and what the network looked at for each; see `Answer`.

    A map has a weight for each cell of the picture, and they add up to 1; the last cells reach over its edge.

    Attributes:
        queries: int64 [k], indices of the objects' queries.
        attention: float64 [k, rows, columns], what the objects' queries attended to in the last decoder layer, as the
            mean of the heads.
        points: float64 [n, 2], x and y of the points that were asked for, in pixels.
        point_attention: float64 [n, rows, columns], what the cells of the points attended to in the last encoder layer.
        cell: width and height of a cell, in pixels.
    """

    _LIST = "objects"

    def _read(self, body: dict[str, Any]) -> None:
        super()._read(body)
        self.queries = self._column("query", np.int64)
        self.cell = (float(body["cell"]["width"]), float(body["cell"]["height"]))
        self.attention = _maps(body["objects"])
        points = [[point["x"], point["y"]] for point in body["points"]]
        self.points = np.array(points, dtype=np.float64).reshape(-1, 2)
        self.point_attention = _maps(body["points"])
        for array in (self.attention, self.points, self.point_attention):
            array.setflags(write=False)

    def heat(self, attention: NDArray[np.float64]) -> NDArray[np.float32]:
        """A map [rows, columns] as large as the picture, float32 [height, width], from 0 to 1 where most was looked."""
        return drawing.heat_of(attention, self.cell, (self.width, self.height))

    def _drawn(self, canvas: Image.Image) -> Image.Image:
        heats = [self.heat(weights) for weights in self.attention]
        painted = drawing.paint_heat(canvas, heats, self.category_ids)
        return drawing.draw_boxes(painted, self.boxes_xyxy, self.labels, self.scores, self.category_ids)


def _maps(entries: list[dict[str, Any]]) -> NDArray[np.float64]:
    maps = np.array([entry["attention"] for entry in entries], dtype=np.float64)
    return maps if entries else maps.reshape(0, 0, 0)
