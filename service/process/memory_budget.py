"""The most memory that the service takes at its settings, and what each part of it is for.

Every part is bounded by a setting, and its size per unit is measured: the process itself once the model has loaded, the
engine on a small image, and what decoding and answering take by `python -m tests.benchmarks.memory`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from model.runtime.artifact.metadata import Metadata
from model.runtime.preprocess import CANVAS_MULTIPLE, round_up
from service.settings import Settings

logger = logging.getLogger(__name__)

# Of a photo, at the worst of what is accepted: WebP's decoder, or painting segments over the photo.
BYTES_PER_PIXEL = 18
# A body as it was received, the field in it, and the decoder's copy.
_COPIES_OF_BODY = 3
_NEXT_CANVAS = 1  # beside those of the batches in the engines
_CANVAS_BYTES_PER_PIXEL = 4  # RGB and the padding mask
_KEPT_MASK = 1  # a padding mask that is kept for the next batch
_BYTES_PER_CONNECTION = 256 * 2**10
# What the allocator keeps between what is in use, and whatever is too small for a part of its own.
_REST = 64 * 2**20


@dataclass(frozen=True)
class EngineMemory:
    """What was measured of the process when it loaded the model."""

    before: int  # bytes, resident before it was loaded
    loaded: int  # bytes, resident once it was
    bytes_per_pixel: (
        float  # that the engines together take for a padded pixel of a batch each, masks of all queries too
    )
    largest_batch: int  # padded pixels of the largest batch that can be formed
    engines: int = 1

    @property
    def engine(self) -> int:
        """Bytes that the engines take to run the largest batch in each."""
        return round(self.bytes_per_pixel * self.largest_batch)

    def after(self, earlier: EngineMemory | None) -> EngineMemory:
        """What counts of a model that replaces another.

        Measured while the other is there, the process has two of them, and one may lie in what a third has left; so no
        part is less than it was.
        """
        if earlier is None:
            return self
        growth = max(self.loaded - self.before, earlier.loaded - earlier.before)
        per_pixel = max(self.bytes_per_pixel, earlier.bytes_per_pixel)
        return replace(self, before=earlier.before, loaded=earlier.before + growth, bytes_per_pixel=per_pixel)

    @property
    def reload(self) -> int:
        """Bytes that are taken beyond the rest while two models are there."""
        return max(0, self.loaded - self.before) + self.engine


@dataclass(frozen=True)
class BudgetPart:
    """One part of the budget."""

    name: str
    bytes: int
    settings: str = ""  # that make it smaller


@dataclass(frozen=True)
class MemoryBudget:
    """All parts, largest first."""

    parts: tuple[BudgetPart, ...]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(part.bytes for part in self.parts)

    def __str__(self) -> str:
        """One line that says what the memory is for."""
        parts = ", ".join(f"{part.name} {_mib(part.bytes)}" for part in self.parts)
        return f"{_mib(self.total)}: {parts}"

    def tell(self, limit: int | None, reload: int) -> None:
        """Log the budget, and a warning that says what to lower if it exceeds a limit in bytes."""
        logger.info("memory budget %s; a reload takes up to %s more", self, _mib(reload))
        if limit is not None and self.total > limit:
            largest = next(part for part in self.parts if part.settings)
            logger.warning(
                "the memory budget of %s exceeds the container's limit of %s; lower %s, or raise the limit",
                _mib(self.total),
                _mib(limit),
                largest.settings,
            )


def memory_budget(settings: Settings, metadata: Metadata, engine: EngineMemory) -> MemoryBudget:
    """The budget of a service with these settings, that serves a model with these metadata."""
    places = settings.capacity(engine.engines)
    resized = largest_canvas(metadata, largest_image(settings, metadata))
    masks = 0 if metadata.mask_stride is None else 4 * metadata.num_queries * resized // metadata.mask_stride**2
    slot = BYTES_PER_PIXEL * settings.max_pixels + _COPIES_OF_BODY * settings.max_body_bytes
    canvases = ((engine.engines + _NEXT_CANVAS) * _CANVAS_BYTES_PER_PIXEL + _KEPT_MASK) * engine.largest_batch
    parts = [
        BudgetPart("process", engine.loaded + _REST),
        BudgetPart("engine", engine.engine, "max_batch_pixels"),
        BudgetPart("decoding and encoding", settings.cpu_threads * slot, "max_pixels or cpu_threads"),
        BudgetPart("uploads and answers", settings.max_buffered_bytes, "max_buffered_bytes"),
        BudgetPart("requests", places * (3 * resized + masks) + canvases, "max_queue_size"),
        BudgetPart("connections", settings.max_connections * _BYTES_PER_CONNECTION, "max_connections"),
    ]
    return MemoryBudget(tuple(sorted(parts, key=lambda part: -part.bytes)))


def largest_image(settings: Settings, metadata: Metadata) -> int:
    """Pixels of the largest image that is accepted: where the network sees images as large as they are, a batch's."""
    is_bounded = metadata.resize.is_bounded
    return settings.max_pixels if is_bounded else min(settings.max_pixels, settings.max_batch_pixels)


def largest_canvas(metadata: Metadata, max_pixels: int, multiple: int = CANVAS_MULTIPLE) -> int:
    """Padded pixels of the largest image that the network sees, strips aside, of images with up to `max_pixels`;
    `multiple` divides the sides.
    """
    height, width = metadata.resize.largest(max_pixels)
    return round_up(height, multiple) * round_up(width, multiple)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
