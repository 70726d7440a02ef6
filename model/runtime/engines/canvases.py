"""The sizes a GPU sees: few, because it prepares its convolutions anew for each.

With exact padding a coarser canvas changes no answer, only the number of padded pixels that are computed.
"""

from __future__ import annotations

import math

from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.device_errors import DeviceError
from model.runtime.preprocess import round_up
from model.runtime.resize_rule import ResizeRule

# With 800 and 1333 there are 9 canvases for ordinary photos, both ways up, where 32 makes 35 of them, at 18 %
# more pixels for a photo of 4 : 3.
GPU_CANVAS_MULTIPLE = 128

CanvasSize = tuple[int, int]  # pixels, (height, width)


def canvas_multiple(asked: int | None, metadata: Metadata, on_gpu: bool) -> int:
    """What the sides of a batch divide by, in pixels.

    Args:
        asked: a multiple of the artifact's own, or None: `GPU_CANVAS_MULTIPLE` on a GPU, the artifact's elsewhere.
        metadata: of the artifact.
        on_gpu: whether the device prepares itself anew for each canvas.

    Raises:
        DeviceError: the artifact does not take such canvases.
    """
    own, is_exact = metadata.canvas_multiple, metadata.padding == "exact"
    if asked is None:
        return math.lcm(own, GPU_CANVAS_MULTIPLE) if on_gpu and is_exact else own
    if asked < 1 or asked % own:
        raise DeviceError(f"canvas_multiple {asked}: this model takes multiples of {own} pixels")
    if asked != own and not is_exact:
        raise DeviceError(
            f"canvas_multiple {asked}: this model was exported with published padding, whose answers change with the "
            f"canvas; use {own}"
        )
    return asked


def canvases_of(rule: ResizeRule, multiple: int) -> list[CanvasSize]:
    """Every canvas that an image alone can have after `rule`, largest first; none where the rule has no bound."""
    rounded = {(round_up(height, multiple), round_up(width, multiple)) for height, width in rule.sizes()}
    return sorted(rounded, key=lambda canvas: (-canvas[0] * canvas[1], canvas))
