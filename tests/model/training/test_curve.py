"""The curve of a run, drawn from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.curve import draw, main, read_run, smooth


def write_log(path: Path, lines: list[dict[str, Any]], tail: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def losses(count: int) -> list[dict[str, Any]]:
    return [{"step": 20 * i, "epoch": 0, "seconds": 180.0 * i, "loss": 10 / i} for i in range(1, count + 1)]


def test_a_run_is_read_with_what_was_measured_and_without_what_was_not(tmp_path: Path) -> None:
    quality = [{"step": 400, "epoch": 1, "seconds": 3600.0, "AP": 0.25, "PQ": None}]
    run = read_run(write_log(tmp_path / "demo" / "log.jsonl", [{"config": {}}, *losses(20), *quality], '{"step": 4'))
    assert (run.name, run.steps, run.hours) == ("demo", 400, 1.0)
    assert run.loss.steps.tolist() == list(range(20, 401, 20))
    assert run.loss.values[:2].tolist() == [10.0, 5.0]
    assert {name: (s.steps.tolist(), s.values.tolist()) for name, s in run.quality.items()} == {"AP": ([400], [0.25])}


def test_the_picture_has_a_line_for_every_figure_of_every_run(tmp_path: Path) -> None:
    quality = [{"step": 20 * i, "seconds": 1.0, "AP": i / 10, "AP50": i / 9, "PQ": i / 8} for i in range(1, 4)]
    first = write_log(tmp_path / "detection" / "log.jsonl", losses(3))
    second = write_log(tmp_path / "masks" / "log.jsonl", losses(3) + quality)
    above, below = draw([read_run(first), read_run(second)]).axes
    legend = above.get_legend()
    assert legend is not None
    assert [text.get_text().split(":")[0] for text in legend.get_texts()] == ["detection", "masks"]
    assert [line.get_label() for line in below.lines] == ["masks: AP 0.300", "masks: AP50 0.333", "masks: PQ 0.375"]


def test_the_command_writes_a_picture(tmp_path: Path) -> None:
    log = write_log(tmp_path / "run" / "log.jsonl", losses(5))
    main([str(log), "--out", str(tmp_path / "curve.png")])
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500


def test_a_log_that_is_missing_or_has_no_loss_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"curve: .*none\.jsonl"):
        main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "curve.png")])
    empty = write_log(tmp_path / "log.jsonl", [{"config": {}}])
    with pytest.raises(SystemExit, match=r"curve: .*log\.jsonl has no loss"):
        main([str(empty), "--out", str(tmp_path / "curve.png")])


def test_smoothing_is_the_mean_of_the_neighbours_that_there_are() -> None:
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0, 6.0, 3.0]), 3), [1.5, 3.0, 11 / 3, 4.5])
