"""Where the network looked: the weights of its last layers' attention, as maps over one image.

An object query attends to the cells of the picture in the decoder (arXiv:2005.12872, figure 6), and a cell to all cells
in the encoder (figure 3). As in the figures and in the authors' notebook, a map is of the last layer, and the mean of
its heads; so its weights sum to 1. A row of the encoder's weights is what the asked cell attends to; the notebook shows
a column, which is how much every cell attends to the asked one.

The graph gives what attention compares, projected queries and keys, which the answers need in any case; the weights are
computed here, only of what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.detections import Detections, softmax
from model.runtime.artifact.metadata import AttentionShape
from model.runtime.engines.raw_outputs import ImageAttention
from model.runtime.resize_rule import Size


@dataclass(frozen=True)
class Explanation:
    """What was found in an image, and where the network looked for it."""

    found: Detections
    queries: NDArray[np.int64]  # [n], the object query of each
    object_maps: NDArray[np.float32]  # [n, rows, columns]
    points: tuple[tuple[float, float], ...]  # (x, y) in pixels of the image, that were asked for
    point_maps: NDArray[np.float32]  # [points, rows, columns]
    cell: tuple[float, float]  # (height, width) in pixels of the image; the last ones reach over its edge


def cross_attention(
    attention: ImageAttention, queries: Sequence[int], size: Size, shape: AttentionShape
) -> NDArray[np.float32]:
    """What object queries looked at: maps [n, ceil(h / stride), ceil(w / stride)] of the queries' indices.

    Args:
        attention: of the image.
        queries: indices of object queries.
        size: of the image as the network saw it, without padding, which gets no weight.
        shape: of the model.

    Raises:
        OutputError: what is compared is not finite.
    """
    asking = attention.cross_queries[np.asarray(queries, dtype=np.int64)]
    return _maps(asking, attention.cross_keys, size, shape)


def self_attention(
    attention: ImageAttention, cells: Sequence[tuple[int, int]], size: Size, shape: AttentionShape
) -> NDArray[np.float32]:
    """What cells looked at, by their (row, column): maps as `cross_attention` gives them, which see for the rest."""
    rows, columns = np.array(cells, dtype=np.int64).reshape(-1, 2).T
    return _maps(attention.self_queries[rows, columns], attention.self_keys, size, shape)


def cell_at(x: float, y: float, orig_size: Size, size: Size, shape: AttentionShape) -> tuple[int, int]:
    """The cell (row, column) that a point lies in, in pixels of the image of `orig_size`, which the point is inside."""
    row, column = y * size[0] / orig_size[0] / shape.stride, x * size[1] / orig_size[1] / shape.stride
    rows, columns = _cells(size, shape)
    return min(int(row), rows - 1), min(int(column), columns - 1)


def cell_size(orig_size: Size, size: Size, shape: AttentionShape) -> tuple[float, float]:
    """(height, width) of a cell in pixels of the image of `orig_size`; the last ones reach over the image's edge."""
    return shape.stride * orig_size[0] / size[0], shape.stride * orig_size[1] / size[1]


def _maps(
    asking: NDArray[np.float32], keys: NDArray[np.float32], size: Size, shape: AttentionShape
) -> NDArray[np.float32]:
    """Weights of the queries [n, C] over the image's part of the keys [H, W, C]: to [n, rows, columns]."""
    rows, columns = _cells(size, shape)
    of_head = shape.channels // shape.heads
    inside = keys[:rows, :columns].reshape(rows * columns, shape.heads, of_head)
    split = asking.reshape(len(asking), shape.heads, of_head) / math.sqrt(of_head)
    scores = np.matmul(split.transpose(1, 0, 2), inside.transpose(1, 2, 0))  # (heads, n, cells)
    weights: NDArray[np.float32] = softmax(scores).mean(axis=0)
    return weights.reshape(len(asking), rows, columns)


def _cells(size: Size, shape: AttentionShape) -> tuple[int, int]:
    return -(-size[0] // shape.stride), -(-size[1] // shape.stride)
