"""The bytes of a checkpoint: tensors out of a file without running any of its code."""

import argparse
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from model.checkpoint.errors import CheckpointError


def load_safetensors(files: Sequence[Path]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Headers and tensors of safetensors files, of all together; CheckpointError if one is none."""
    header: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header |= file.metadata() or {}
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            who = "it" if len(files) == 1 else path.name
            raise CheckpointError(f"{who} is no safetensors file: {error}") from error
    return header, tensors


def load_pickle(path: Path) -> dict[str, Any]:
    """What `torch.save` put into a file, tensors on the CPU; CheckpointError if it cannot be read safely.

    Nothing in the file is executed: only tensors, plain containers and `argparse.Namespace` (the reference's
    training script saves its arguments as one, and it runs no code when it is built) are accepted.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            "it holds more than tensors and plain data, which could run code when it is loaded, so it was "
            f"not loaded ({reason})"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CheckpointError(f"it is not a file that torch.save wrote: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds a {type(content).__name__}, not a state dict")
    return content


def as_weights(state: Mapping[Any, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with floating-point ones as float32, and a note if that changed any.

    CheckpointError if a value is no dense tensor.
    """
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(f"its entry {key!r} is no tensor")
    floating = {str(tensor.dtype) for tensor in state.values() if tensor.is_floating_point()}
    other = sorted(floating - {str(torch.float32)})
    weights = {str(key): t.float() if t.is_floating_point() else t for key, t in state.items()}
    return weights, [f"weights in {' and '.join(other)} were widened to float32"] if other else []
