"""The weights of safetensors files as numpy arrays, for an installation without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from model.checkpoint.errors import CheckpointError

Array = NDArray[Any]

_NUMPY_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "BOOL": "?"}


def load_arrays(files: Sequence[Path]) -> tuple[dict[str, str], dict[str, Array], list[str]]:
    """Headers and weights of safetensors files, of all together, and a note if weights were widened to float32.

    Weights that are no floating-point numbers stay as they are. CheckpointError if a file is no safetensors file.
    """
    header: dict[str, str] = {}
    weights: dict[str, Array] = {}
    widened: set[str] = set()
    for path in files:
        try:
            with safetensors.safe_open(path, framework="np") as file:
                header |= file.metadata() or {}
                stored = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
                if "BF16" in stored.values():
                    arrays = _with_bfloat16(path)
                else:
                    arrays = {key: file.get_tensor(key) for key in stored}
        except (OSError, TypeError, KeyError, safetensors.SafetensorError) as error:
            who = "it" if len(files) == 1 else path.name
            raise CheckpointError(f"{who} is no safetensors file that can be read: {error}") from error
        widened |= {name for name in stored.values() if name.startswith(("F", "BF")) and name != "F32"}
        weights |= {
            key: array.astype(np.float32, copy=False) if np.issubdtype(array.dtype, np.floating) else array
            for key, array in arrays.items()
        }
    return header, weights, [f"weights in {' and '.join(sorted(widened))} were widened to float32"] if widened else []


def _with_bfloat16(path: Path) -> dict[str, Array]:
    """The weights of a file with bfloat16, which numpy does not have: the upper half of a float32's bits."""
    arrays: dict[str, Array] = {}
    for key, entry in safetensors.deserialize(path.read_bytes()):
        if entry["dtype"] == "BF16":
            halves = np.frombuffer(entry["data"], "<u2").astype("<u4")
            array = (halves << 16).view(np.float32)
        else:
            array = np.frombuffer(entry["data"], _NUMPY_TYPES[entry["dtype"]])
        arrays[key] = array.reshape(entry["shape"])
    return arrays
