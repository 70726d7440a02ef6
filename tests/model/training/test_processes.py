"""However a batch is divided, among processes or into parts, its gradients are those of the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoint.reading import read_checkpoint
from model.training.logs.log import read_log

REPOSITORY = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("gradients_of_a_step.py")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """A Python program in a process of its own, which has to succeed."""
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def gradients(root: Path, out: Path, stage: str, *, processes: int = 1, parts: int = 1) -> dict[str, Tensor]:
    """Those that the optimizer is given, by parameter name, from real processes that torchrun starts."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    run(*launcher, str(PROGRAM), str(root), str(out), stage, str(parts), str(processes))
    found: dict[str, Tensor] = torch.load(out, weights_only=True)
    return found


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 1e-5, every parameter of its own size, but for what is next to nothing beside the whole."""
    assert found.keys() == expected.keys()
    differences = {name: found[name] - gradient for name, gradient in expected.items()}
    whole = torch.nn.utils.get_total_norm(expected.values())
    assert whole > 0
    for name, gradient in expected.items():
        assert differences[name].norm() <= 1e-5 * gradient.norm() + 1e-7 * whole, name


@pytest.fixture(scope="module", params=["detection", "joint"])
def stage(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def whole(stage: str, tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return gradients(tiny_shapes, tmp_path_factory.mktemp("whole") / "gradients.pt", stage)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "parts"), [(1, 4), (2, 1), (2, 2)])
def test_processes_and_parts_have_the_gradients_of_the_joined_batch(
    processes: int, parts: int, stage: str, whole: dict[str, Tensor], tiny_shapes: Path, tmp_path: Path
) -> None:
    found = gradients(tiny_shapes, tmp_path / "gradients.pt", stage, processes=processes, parts=parts)
    assert_equal(found, whole)


@pytest.mark.slow
def test_a_run_of_two_processes_validates_saves_and_says_everything_once(tiny_shapes: Path, tmp_path: Path) -> None:
    words = ["train", "--data", "shapes", "--root", str(tiny_shapes), "--out", str(tmp_path / "out"), "--ema", "0.9"]
    words += ["--shortest-edge", "64", "--longest-edge", "96", "--steps", "2", "--batch-size", "4", "--workers", "0"]
    done = run("-m", "service.cli", *words, "--accelerator", "cpu", "--devices", "2")
    assert "recommended" not in done.stderr, "advice that does not apply"
    assert done.stdout.count("recipe demo") == done.stdout.count("wrote ") == 1
    validated = [entry for entry in read_log(tmp_path / "out" / "log.jsonl") if "AP" in entry]
    assert [entry["step"] for entry in validated] == [1, 2]
    measured = read_checkpoint(tmp_path / "out" / "model.safetensors").provenance["measured"]
    assert measured["AP"] == pytest.approx(validated[-1]["AP"], abs=1e-4)
