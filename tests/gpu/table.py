"""What `make gpu` writes: one table and one JSON, in which every part has its line, whatever became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Outcome = Literal["passed", "failed", "not run"]


@dataclass
class Part:
    """A part of the suite, and what it came to."""

    name: str
    outcome: Outcome = "not run"
    why: str = ""  # it failed or was not run, in one line
    seconds: float = 0.0
    figures: list[str] = field(default_factory=list)  # for people
    numbers: dict[str, float] = field(default_factory=dict)  # for programs

    def tell(self, figure: str, **numbers: float) -> None:
        """Note what was measured."""
        self.figures.append(figure)
        self.numbers |= numbers

    def row(self) -> str:
        """Its line in the table."""
        told = "; ".join([*self.figures, *([self.why] if self.why else [])])
        return f"| {self.name} | {self.outcome} | {_in_a_cell(told)} | {self.seconds:.0f} s |"


def write_report(folder: Path, facts: Mapping[str, object], parts: Sequence[Part]) -> Path:
    """Write `gpu.json` and `gpu.md`, and return the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {**facts, "parts": [asdict(part) for part in parts]}
    (folder / "gpu.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    head = [", ".join(f"{name}: {value}" for name, value in facts.items()), ""]
    table = ["| part | outcome | found | took |", "| --- | --- | --- | --- |", *(part.row() for part in parts)]
    path = folder / "gpu.md"
    path.write_text("\n".join([*head, *table]) + "\n", encoding="utf-8")
    return path


def _in_a_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
