"""What the parts of `make gpu` share: which device they run on, how much they do there, and how long they may take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

# Puts the CPU in the GPU's place, and does little, so that everything but the device itself is tried anywhere.
DRY_RUN = os.environ.get("DETR_GPU_DRY_RUN", "") not in ("", "0")
# After so many seconds no further part begins.
BUDGET_S = float(os.environ.get("DETR_GPU_SECONDS", "330"))
# Where the table and the JSON go.
OUT = Path(os.environ.get("DETR_GPU_OUT", "build/gpu"))

DEVICE = "cuda"  # for the engines, in a dry run as well; see cpu_in_place/sitecustomize.py
TORCH_DEVICE = "cpu" if DRY_RUN else "cuda"

_IN_PLACE = Path(__file__).parent / "cpu_in_place"


def either(real: T, dry: T) -> T:
    """The first on a GPU, the second in a dry run."""
    return dry if DRY_RUN else real


def put_cpu_in_place() -> None:
    """Make this process, and every Python that it starts, take the CPU where a GPU is asked for."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_IN_PLACE), os.environ.get("PYTHONPATH", "")]))
    sys.path.insert(0, str(_IN_PLACE))
    sys.modules.pop("sitecustomize", None)
    __import__("sitecustomize")


def device_name() -> str:
    """The GPU, its driver and its memory, as nvidia-smi tells them."""
    return "the CPU in a GPU's place" if DRY_RUN else _nvidia_smi("name,driver_version,memory.total")


def used_device_bytes() -> int:
    """Memory in use on the GPU, by whomever; of the machine in a dry run."""
    if DRY_RUN:
        return int(psutil.virtual_memory().used)
    return int(_nvidia_smi("memory.used", "nounits")) * 2**20


def _nvidia_smi(query: str, *options: str) -> str:
    shape = ",".join(("csv", "noheader", *options))
    command = ["nvidia-smi", "--id=0", f"--query-gpu={query}", f"--format={shape}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
