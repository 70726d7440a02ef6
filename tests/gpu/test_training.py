"""A training step on a GPU in bfloat16, and what the training loop costs beside it."""

from __future__ import annotations

import warnings
from pathlib import Path
from statistics import median

import pytest

from tests.gpu.session import TORCH_DEVICE, either
from tests.gpu.table import Part

STEPS = either(23, 5)
TURNS = either(2, 1)
BATCH = either(8, 2)


@pytest.mark.gpu
def test_a_training_step_and_its_overhead(tmp_path: Path, part: Part) -> None:
    from dataclasses import replace

    from model.data.shapes.command import write_shapes
    from model.training.settings.recipes import RECIPES
    from tests.benchmarks.step_time import our_steps, plain_steps

    warnings.simplefilter("ignore")
    write_shapes(tmp_path / "shapes", {"train": 64, "val": 1}, size=128, seed=0)
    config = replace(
        RECIPES["demo"].config, steps=STEPS, workers=0, precision="bf16-mixed", evaluate_every=0, batch_size=BATCH
    )
    plain, ours = [], []
    for _ in range(TURNS):
        plain.append(median(plain_steps(tmp_path / "shapes", config, STEPS, TORCH_DEVICE)))
        part.tell(f"plain loop {1000 * plain[-1]:.1f} ms a step", plain_s=plain[-1])
        ours.append(median(our_steps(tmp_path / "shapes", config, STEPS, TORCH_DEVICE)))
    ratio = median(a / b for a, b in zip(ours, plain, strict=True))
    part.tell(f"detr train {1000 * median(ours):.1f} ms, ratio {ratio:.3f}", ours_s=median(ours), ratio=ratio)
