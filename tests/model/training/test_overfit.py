"""The whole of `detr train` can learn: on a few scenes, in a few minutes, far beyond what chance would find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.overfit import train, write_scenes


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_few_hundred_steps_on_forty_scenes_find_most_of_what_is_in_them(tmp_path: Path) -> None:
    """With half the pixels of the benchmark, and both stages at once. Untrained weights find nothing: AP 0.000."""
    write_scenes(tmp_path / "scenes")
    small = ("--shortest-edge", "64", "--longest-edge", "96", "--evaluate-every", "100", "--workers", "0")
    figures = train(tmp_path / "scenes", tmp_path / "run", 600, "--stage", "joint", "--lr-turn", "0.7", *small)
    assert figures["AP50"] > 0.4
    assert figures["AP"] > 0.2
    assert figures["PQ_st"] > 0.05, "masks take longer, those of stuff least"
