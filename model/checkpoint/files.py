"""The bytes of a checkpoint: tensors out of a file without running any of its code."""

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from model.checkpoint.errors import CheckpointError, printable
from model.checkpoint.file_kinds import WeightsFile, kind_of
from model.checkpoint.stand_ins import STAND_INS


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


def load_file(path: Path, *more: Path) -> tuple[dict[str, str], dict[Any, Any]]:
    """Header (of safetensors) and content of a file with weights, whatever it is called, and its further shards.

    CheckpointError where it holds no weights, which says what it is by its bytes, or where it cannot be read safely.
    """
    if kind_of(path) is WeightsFile.SAFETENSORS:
        return load_safetensors([path, *more])
    return {}, {key: value for file in (path, *more) for key, value in _load_torch(file).items()}


def _load_torch(path: Path) -> dict[Any, Any]:
    """What `torch.save` put into a file, tensors on the CPU; CheckpointError if it cannot be read safely.

    Nothing in the file is executed: only tensors and plain containers are built, and harmless objects in the place of
    what else a training state holds.
    """
    try:
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in the file; what follows from it is said in one line
            with path.open("rb") as file:  # by its bytes: torch would go by the name of a path
                content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(str(error))) from error
    except Exception as error:  # whatever a damaged or hostile file makes of a reader that runs no code
        raise CheckpointError(f"it is not a file that torch.save wrote, or it is damaged{_reason(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds a {type(content).__name__}, not a state dict")
    return content


def _refusal(message: str) -> str:
    """What to say where torch would not build what a pickle asks for, without torch's advice to let it."""
    name = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module)", message)
    if name is None and "Unsupported operand" in message:
        return "it was written with a newer pickle protocol than torch.save has by itself: write it without one"
    what = printable(name[1]) if name else "more than tensors and plain data"
    return (
        f"it holds {what}, which could run code when it is loaded, so it was not loaded; where it was written, save "
        "the weights alone: torch.save(model.state_dict(), FILE)"
    )


def _reason(error: Exception) -> str:
    """What torch says of a file, if it does not advise to load it unsafely."""
    text = str(error)
    return "" if "weights_only" in text or not text else f": {printable(text, 200)}"


def as_weights(state: Mapping[Any, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with floating-point ones as float32, and a note if that changed any.

    CheckpointError if a value is no dense tensor.
    """
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise CheckpointError(f"its entry {printable(key)!r} is no tensor of plain numbers")
    floating = {str(tensor.dtype) for tensor in state.values() if tensor.is_floating_point()}
    other = sorted(floating - {str(torch.float32)})
    weights = {str(key): t.detach().float() if t.is_floating_point() else t for key, t in state.items()}
    return weights, [f"weights in {' and '.join(other)} were widened to float32"] if other else []
