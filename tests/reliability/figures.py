"""What a run measured, for the table of docs/reliability.md: told at its end, and written down if that is asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

REPORT = "DETR_SOAK_REPORT"  # names the folder that a file for each row is added to


def write_down(test: str, row: str, figure: str, numbers: dict[str, float]) -> None:
    """Add a line of JSON to the row's file, if the environment names a folder."""
    folder = os.environ.get(REPORT)
    if folder is None:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    rounded = {name: round(number, 4) for name, number in numbers.items()}
    with (Path(folder) / f"{row}.jsonl").open("a") as report:
        report.write(json.dumps({"row": row, "figure": figure, "test": test, **rounded}) + "\n")
