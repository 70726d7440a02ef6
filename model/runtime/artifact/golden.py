"""The golden sample: a small input and its expected output, which an engine replays before it is trusted."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from model.runtime.artifact.metadata import Metadata

_DTYPES = {
    "images": np.uint8,
    "padding_mask": np.bool_,
    "mask_threshold": np.float32,
    "pred_logits": np.float32,
    "pred_boxes": np.float32,
    "pred_masks": np.float32,
    "mask_index": np.int64,
}
_MASK_FIELDS = ("mask_threshold", "pred_masks", "mask_index")


@dataclass(frozen=True)
class GoldenSample:
    """Inputs and outputs of the exported graph, named as there; a detection model has no mask fields."""

    images: NDArray[np.uint8]  # [B, H, W, 3]
    padding_mask: NDArray[np.bool_]  # [B, H, W]
    mask_threshold: NDArray[np.float32] | None  # [B]
    pred_logits: NDArray[np.float32]  # [B, Q, C + 1]
    pred_boxes: NDArray[np.float32]  # [B, Q, 4]
    pred_masks: NDArray[np.float32] | None  # [kept, H / stride, W / stride]
    mask_index: NDArray[np.int64] | None  # [kept, 2]

    def to_text(self) -> str:
        """The arrays as base64 of a compressed .npz, because ONNX metadata are texts."""
        buffer = io.BytesIO()
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez_compressed(buffer, **{name: array for name, array in arrays.items() if array is not None})
        return base64.b64encode(buffer.getvalue()).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> GoldenSample:
        """Read what `to_text` wrote. Raises ValueError, with one line, on anything else."""
        try:
            with np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except Exception as error:  # NumPy, zipfile and zlib raise a dozen kinds on broken bytes
            raise ValueError("the golden sample cannot be read") from error
        for name, array in arrays.items():
            if name not in _DTYPES or array.dtype != _DTYPES[name]:
                raise ValueError(f"the golden sample's {name!r} is not one of its arrays")
        missing = [name for name in _DTYPES if name not in arrays]
        if missing and missing != [name for name in _DTYPES if name in _MASK_FIELDS]:
            raise ValueError(f"the golden sample lacks {missing[0]!r}")
        return cls(**{name: arrays.get(name) for name in _DTYPES})  # type: ignore[arg-type]  # checked just above

    def check(self, metadata: Metadata) -> None:
        """Raise ValueError, naming the array, unless every shape is that of a model with these metadata."""
        if (self.mask_index is None) != (metadata.task == "detection"):
            raise ValueError(f"the golden sample is not one of a {metadata.task} model")
        if (
            self.images.ndim != 4
            or 0 in self.images.shape
            or any(side % metadata.canvas_multiple for side in self.images.shape[1:3])
        ):
            raise ValueError("the golden sample's 'images' has a wrong shape")
        batch, height, width = self.images.shape[:3]
        expected: dict[str, tuple[int, ...]] = {
            "images": (batch, height, width, 3),
            "padding_mask": (batch, height, width),
            "pred_logits": (batch, metadata.num_queries, len(metadata.categories) + 1),
            "pred_boxes": (batch, metadata.num_queries, 4),
        }
        if self.mask_index is not None and metadata.mask_stride is not None:
            kept, stride = self.mask_index.size // 2, metadata.mask_stride
            expected["mask_threshold"] = (batch,)
            expected["mask_index"] = (kept, 2)
            expected["pred_masks"] = (kept, height // stride, width // stride)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"the golden sample's {name!r} has a wrong shape")
