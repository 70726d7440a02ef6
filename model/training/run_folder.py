"""The folder of a run: where a run writes that was told none, and that none writes over another."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from model.training.resume_file import RESUME_FILE

WEIGHTS_FILE = "model.safetensors"  # those of the last step
BEST_FILE = "best.safetensors"
RUNS = Path("runs")  # the folder of numbered ones
_CHOSEN = "FOLDER_OF_DETR_TRAIN"  # in the environment of processes that the first one starts


def folder_for(out: Path | None) -> Path:
    """The folder of a run that begins, which is there afterwards; without `out` the next numbered one in `runs`.

    Raises ValueError where it holds a run already, or where several processes could not agree on a number, and OSError
    where it cannot be made.
    """
    is_first = "LOCAL_RANK" not in os.environ
    if out is None:
        out = _numbered() if is_first else Path(os.environ.get(_CHOSEN, ""))
        if not is_first and _CHOSEN not in os.environ:
            raise ValueError("several processes need --out, or each would write to a folder of its own")
    elif is_first and any((out / name).exists() for name in (RESUME_FILE, WEIGHTS_FILE, BEST_FILE)):
        raise ValueError(f"{out} holds a run: go on with it (--resume {out}), or give another folder (--out)")
    out.mkdir(parents=True, exist_ok=True)
    os.environ[_CHOSEN] = str(out)
    return out


def _numbered() -> Path:
    """The first that is not there, or has nothing in it."""
    folders = (RUNS / str(number) for number in count(1))
    return next(folder for folder in folders if not folder.is_dir() or not any(folder.iterdir()))
