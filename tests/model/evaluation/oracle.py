"""An engine that knows the truth, for pictures that `scenes.write_scenes` wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.runtime.artifact.file import FORMAT_VERSION, Metadata
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch
from model.runtime.resize_rule import Edges
from tests.model.evaluation.scenes import CATEGORIES, SCENES, Scene, box_xywh

QUERIES = 8


def metadata(categories: Sequence[Category] = CATEGORIES) -> Metadata:
    """Of a model that sees pictures of 32 pixels and more as they are, pixel for pixel."""
    return Metadata(
        format_version=FORMAT_VERSION,
        name="oracle",
        task="panoptic",
        categories=tuple(categories),
        num_queries=QUERIES,
        resize=Edges(32, 1000),
        canvas_multiple=32,
        mask_stride=1,
        detect_threshold=0.5,
        segment_threshold=0.5,
        padding="exact",
        provenance={},
    )


class Oracle:
    """Answers each picture with its truth; of those in `silent` it sees nothing."""

    device = "oracle"
    precision = "float32"

    def __init__(
        self,
        categories: Sequence[Category] = CATEGORIES,
        silent: frozenset[int] = frozenset(),
        scenes: Sequence[Scene] = SCENES,
    ) -> None:
        self.index_of = {category.id: index for index, category in enumerate(categories)}
        self.silent = silent
        self.scenes = scenes
        self.answered: list[int] = []  # places of scenes
        self.batches: list[Batch] = []

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """The truth of every picture in the batch, which its brightness tells apart."""
        self.batches.append(batch)
        count, height, width = batch.padding_mask.shape
        logits = np.full((count, QUERIES, len(self.index_of) + 1), -20, np.float32)
        logits[..., -1] = 0
        boxes = np.full((count, QUERIES, 4), 0.5, np.float32)
        boxes[..., 2:] = 0
        masks, index = [], []
        for place, (h, w) in enumerate(batch.sizes):
            number = round(float(batch.images[place, :h, :w].mean()) / 10)
            truth = self.scenes[number]
            assert truth.id_map.shape == (h, w), "the picture is of another size than the one annotated"
            self.answered.append(number)
            segments = {} if number in self.silent else truth.category_of
            for query, (segment, category) in enumerate(segments.items()):
                mask = truth.id_map == segment
                x, y, box_width, box_height = box_xywh(mask)
                boxes[place, query] = ((x + box_width / 2) / w, (y + box_height / 2) / h, box_width / w, box_height / h)
                logits[place, query, self.index_of[category]] = 20
                masks.append(np.pad(np.where(mask, 10, -10), ((0, height - h), (0, width - w))))
                index.append((place, query))
        kept = np.array(index, np.int64).reshape(-1, 2)
        return RawOutputs(logits, boxes, np.array(masks, np.float32).reshape(len(kept), height, width), kept)
