"""What a batch must not exceed: as configured, or less for a while since the device's memory ran out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.runtime.preprocess import CANVAS_MULTIPLE

# Good batches in a row after which twice as much is tried again. What ran out may have been somebody else's doing, and
# to try once in a hundred batches costs next to nothing.
GOOD_BATCHES = 100


@dataclass(frozen=True)
class BatchLimits:
    """What a batch must not exceed."""

    max_batch_size: int  # images
    max_batch_pixels: int  # padded pixels; an image that alone has more goes alone
    max_queue_delay: float = 0.0  # seconds that an incomplete batch waits for more images while the engine is free
    canvas_multiple: int = CANVAS_MULTIPLE  # pixels; what the sides of a batch divide by
    same_size: bool = False  # a batch holds images of one size only, because padding changes this model's answers

    @property
    def max_overtakes(self) -> int:
        """Younger images that may go before one, until none may any more."""
        return 4 * self.max_batch_size


class BatchCeiling:
    """Starts at the configured limits, and never falls below one image."""

    def __init__(self, configured: BatchLimits) -> None:
        self.limits = configured
        self._configured = configured
        self._good = 0  # batches since it last changed

    def lower(self, images: int, pixels: int) -> None:
        """Try no more than half of what just did not fit.

        Args:
            images: in the batch.
            pixels: of it, padding included.
        """
        self._good = 0
        self._set(min(self.limits.max_batch_size, images // 2), min(self.limits.max_batch_pixels, pixels // 2))

    def note_good(self) -> bool:
        """Note a batch that fitted; True if that raised the ceiling."""
        if self.limits == self._configured:
            return False
        self._good += 1
        if self._good < GOOD_BATCHES:
            return False
        self._good = 0
        self._set(2 * self.limits.max_batch_size, 2 * self.limits.max_batch_pixels)
        return True

    def _set(self, images: int, pixels: int) -> None:
        images = min(max(images, 1), self._configured.max_batch_size)
        pixels = min(max(pixels, 1), self._configured.max_batch_pixels)
        self.limits = replace(self.limits, max_batch_size=images, max_batch_pixels=pixels)
