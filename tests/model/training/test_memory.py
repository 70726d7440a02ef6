"""How much memory a step takes and there is, in how many parts a batch is computed, and what is said where it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.checkpoint.reading import read_checkpoint
from model.data.formats.folders import open_dataset
from model.network.build import build_model
from model.network.config import PRESETS
from model.runtime.resize_rule import Edges
from model.training import memory
from model.training.data import TrainingData
from model.training.memory import (
    FREE_SHARE,
    StepMemory,
    advice_on_memory,
    free_memory,
    parts_that_fit,
    step_memory,
)
from model.training.module import TrainingModule
from model.training.settings.config import TrainConfig
from service.cli import main
from tests.model.networks import SMALL

MIB = 2**20
CPU = torch.device("cpu")
CONFIG = TrainConfig(batch_size=16)


def module_and_data(
    root: Path, size: int, *, masks: bool = False, **settings: object
) -> tuple[TrainingModule, TrainingData]:
    config = TrainConfig(batch_size=4, workers=0, augment=(), **settings)  # type: ignore[arg-type]
    network = replace(SMALL, resize=Edges(size, 2 * size), masks=masks, num_classes=12)
    data = open_dataset("shapes", root, "train", masks=masks)
    return TrainingModule(build_model(network), 12, config, 1), TrainingData(data, None, network.resize, config)


def test_a_picture_takes_more_where_it_is_larger_or_has_masks_and_measuring_changes_nothing(tiny_shapes: Path) -> None:
    module, data = module_and_data(tiny_shapes, 64)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    numbers = torch.get_rng_state()
    small = step_memory(module, data)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert step_memory(module, data) == small, "a run that is begun again has as many parts"
    assert step_memory(*module_and_data(tiny_shapes, 128)).a_picture == pytest.approx(4 * small.a_picture, rel=0.3)
    assert step_memory(*module_and_data(tiny_shapes, 64, masks=True, stage="joint")).a_picture > small.a_picture
    averaged = step_memory(*module_and_data(tiny_shapes, 64, ema=0.9))
    weights = sum(tensor.nbytes for tensor in module.network.state_dict().values())
    assert averaged.fixed - small.fixed == pytest.approx(weights, rel=0.01)


def test_what_is_kept_is_what_the_backward_pass_needs(tiny_shapes: Path) -> None:
    """Without a factor it is less than what is learnt from a picture in float32 by hand, and not a tenth of it."""
    module, data = module_and_data(tiny_shapes, 64)
    height, width = max(memory._canvases(data))
    stem = 64 * (height // 2) * (width // 2) * 4  # bytes of the first convolution's output
    assert 2 * stem < step_memory(module, data).a_picture < 40 * stem


@given(
    fixed=st.integers(0, 10**10),
    a_picture=st.integers(1, 10**10),
    free=st.integers(0, 10**12),
    share=st.integers(1, 64),
)
def test_there_are_as_few_parts_as_fit(fixed: int, a_picture: int, free: int, share: int) -> None:
    config, need = TrainConfig(batch_size=share), StepMemory(fixed, a_picture)
    try:
        parts = parts_that_fit(config, need, free)
    except ValueError:
        assert need.of(1) > free
        return
    assert share % parts == 0
    assert need.of(share // parts) <= free
    fewer = [each for each in range(1, parts) if share % each == 0]
    assert all(need.of(share // each) > FREE_SHARE * free for each in fewer)


def test_processes_share_the_pictures_of_a_batch() -> None:
    need = StepMemory(0, 1000)
    assert parts_that_fit(CONFIG, need, 5000) == 4
    assert parts_that_fit(CONFIG, need, 5000, processes=4) == 1
    assert parts_that_fit(replace(CONFIG, accumulate=8), need, 5000) == 8


def test_what_cannot_fit_is_said_with_what_helps() -> None:
    need = StepMemory(10**9, 10**9)
    with pytest.raises(
        ValueError, match=r"^a step takes about 17\.0 GB of memory, and 12\.0 GB are free: --accumulate auto"
    ):
        parts_that_fit(replace(CONFIG, accumulate=1), need, 12 * 10**9)
    with pytest.raises(
        ValueError, match=r"^a step takes about 2\.0 GB of memory, and 1\.0 GB are free: --activation-ch"
    ):
        parts_that_fit(CONFIG, need, 10**9)


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_what_its_limit_leaves(version: int, tmp_path: Path) -> None:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder = tmp_path / ("" if version == 2 else "memory") / "mine"
    folder.mkdir(parents=True)
    for name, value in zip(names, (100 * MIB, 70 * MIB), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {20 * MIB}\n")
    (tmp_path / "membership").write_text("0::/mine\n" if version == 2 else "3:memory:/mine\n")
    assert free_memory(CPU, tmp_path, tmp_path / "membership") == 50 * MIB
    (folder / names[0]).write_text("max\n")
    assert free_memory(CPU, tmp_path, tmp_path / "membership") > 50 * MIB


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "more parts (--accumulate)"),
        (MemoryError(), "more parts (--accumulate)"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "--activation-checkpointing",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "a process that loads pictures was killed",
        ),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_7_1>"), "--workers 0"),
        (RuntimeError("DataLoader worker is killed by signal: Bus error. out of shared memory."), "--shm-size"),
    ],
)
def test_an_error_of_memory_is_explained(error: Exception, words: str) -> None:
    advice = advice_on_memory(error)
    assert advice is not None
    assert words in advice
    assert "\n" not in advice


def test_another_error_is_left_as_it_is() -> None:
    assert advice_on_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch, tiny_shapes: Path, tmp_path: Path) -> list[str]:
    monkeypatch.setitem(PRESETS, "detr-demo", replace(SMALL, resize=Edges(64, 96)))
    settings = ["--steps", "3", "--batch-size", "4", "--workers", "0", "--evaluate-every", "0", "--skip-check"]
    return ["train", "--data", "shapes", "--root", str(tiny_shapes), "--out", str(tmp_path / "out"), *settings]


def test_a_run_takes_as_many_parts_as_fit_and_keeps_them_when_it_goes_on(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "step_memory", lambda *_: StepMemory(0, 10**9))
    monkeypatch.setattr(memory, "free_memory", lambda *_: 3 * 10**9)
    main(words)
    assert "computes each batch in 2 parts" in capsys.readouterr().out
    (tmp_path / "out" / "model.safetensors").unlink()
    monkeypatch.setattr(memory, "free_memory", lambda *_: 10**12)
    main(["train", "--resume", str(tmp_path / "out")])
    provenance = read_checkpoint(tmp_path / "out" / "model.safetensors").provenance
    assert provenance["training"]["accumulate"] == 2


def test_a_run_that_cannot_fit_ends_in_one_line_before_its_first_step(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda *_: 100_000)
    with pytest.raises(
        SystemExit, match=r"^detr train: a step takes about .* GB of memory, and 0\.0 GB are free: [^\n]*$"
    ):
        main(words)


def test_memory_that_runs_out_on_the_way_ends_in_one_line_that_says_how_to_go_on(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TrainingModule.gradients

    def fail_late(self: TrainingModule, parts: object) -> object:
        if self.global_step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return real(self, parts)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingModule, "gradients", fail_late)
    with pytest.raises(SystemExit) as raised:
        main([*words, "--save-every", "1"])
    said = str(raised.value.code)
    assert said.startswith("detr train: memory has run out: more parts (--accumulate)")
    assert said.endswith(f"(go on with it by detr train --resume {tmp_path / 'out'})")
    assert "\n" not in said
