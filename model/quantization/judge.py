"""Whether an int8 artifact may be written: its accuracy on a data set, beside that of the float32 one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.evaluate import LoadedModel, evaluate
from model.runtime.artifact.file import Artifact
from model.runtime.engines.opening import open_engine

JUDGED = ("AP", "PQ")


class AccuracyError(Exception):
    """The int8 model is less accurate than is allowed; the message says by how much."""


@dataclass(frozen=True)
class Judge:
    """A data set in COCO's layout, and how much accuracy may be lost on it."""

    kind: str
    root: Path
    split: str
    max_drop: Mapping[str, float]  # by figure, those of `JUDGED`; 0.003 is 0.3 points
    device: str

    def figures(self, artifact: Artifact) -> dict[str, float]:
        """AP, and PQ where model and data have it. Raises what opening and evaluating raise."""
        # What is promised is a distance to float32, not to the bfloat16 that an engine may choose for such a file.
        precision = "float32" if artifact.metadata.precision == "float32" else "auto"
        loaded = LoadedModel(open_engine(artifact, self.device, precision=precision), artifact.metadata)
        figures = evaluate(loaded, self.kind, self.root, self.split, notes=sys.stderr).figures()
        return {name: figures[name] for name in JUDGED if name in figures}

    def compare(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        """Raise AccuracyError if a figure fell too far."""
        for name, value in after.items():
            drop = before[name] - value
            if not drop <= self.max_drop[name]:  # also refuses NaN
                raise AccuracyError(
                    f"{name} falls from {before[name]:.4f} to {value:.4f}, by {100 * drop:.2f} points, and "
                    f"{100 * self.max_drop[name]:.2f} are allowed (--max-{name.lower()}-drop); nothing was written. "
                    "More pictures like those of the data set, or fewer --parts may help"
                )
