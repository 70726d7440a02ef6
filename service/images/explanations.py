"""Where the network looked, in the words of the HTTP contract."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model.runtime.answers.attention import Explanation
from model.runtime.artifact.metadata import Metadata
from service.images.responses import detected_fields, image_size
from service.schemas import Body, Detection, ImageSize, PixelCoordinate

# Past these digits an answer would only tell of the order in which floats were added.
WEIGHT_DECIMALS = 6
CELL_DECIMALS = 4

AttentionMap = Annotated[
    list[list[float]],
    Field(description="weights of the picture's cells, row by row from the top left, which add up to 1"),
]


class CellSize(Body):
    """What a cell of a map covers, in pixels of the image as displayed; the last ones reach over its edge."""

    width: float
    height: float


class ExplainedObject(Detection):
    """One object, and what its query attended to in the last decoder layer, as the mean of the heads."""

    query: int = Field(description="index of its object query")
    attention: AttentionMap


class ExplainedPoint(Body):
    """One point, and what its cell attended to in the last encoder layer, as the mean of the heads."""

    x: PixelCoordinate
    y: PixelCoordinate
    attention: AttentionMap


class ExplainResponse(Body):
    """Answer of POST /explain: objects, best score first, and the points that were asked for."""

    model: str
    image: ImageSize
    cell: CellSize
    objects: list[ExplainedObject]
    points: list[ExplainedPoint]


def explain_response(metadata: Metadata, orig_size: tuple[int, int], explanation: Explanation) -> ExplainResponse:
    """Objects and points with their maps, as /explain answers them."""
    height, width = explanation.cell
    found = detected_fields(metadata, explanation.found)
    objects = [
        ExplainedObject(**fields, query=query, attention=_weights(weights))
        for fields, query, weights in zip(found, explanation.queries.tolist(), explanation.object_maps, strict=True)
    ]
    points = [
        ExplainedPoint(x=x, y=y, attention=_weights(weights))
        for (x, y), weights in zip(explanation.points, explanation.point_maps, strict=True)
    ]
    return ExplainResponse(
        model=metadata.name,
        image=image_size(orig_size),
        cell=CellSize(width=round(width, CELL_DECIMALS), height=round(height, CELL_DECIMALS)),
        objects=objects,
        points=points,
    )


def _weights(weights: NDArray[np.float32]) -> list[list[float]]:
    rounded: list[list[float]] = weights.astype(np.float64).round(WEIGHT_DECIMALS).tolist()
    return rounded
