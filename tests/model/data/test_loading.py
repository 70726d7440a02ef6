"""The processes of a loader: signals to the group are not for them, and none outlives the process that computes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from torch.utils.data import TensorDataset

from model.data.loading import STOP_SIGNALS, PictureLoader
from tests.processes import until

REPOSITORY = Path(__file__).parents[3]
# Tells the numbers of the loader's processes, and waits to be killed.
PROGRAM = """
import sys, time, torch
from torch.utils.data import TensorDataset
from model.data.loading import PictureLoader
loader = PictureLoader(TensorDataset(torch.ones(64, 1)), num_workers=2, persistent_workers=True)
next(iter(loader))
print(*(worker.pid for worker in loader._iterator._workers), flush=True)
time.sleep(600)
"""


def loader() -> PictureLoader:
    return PictureLoader(TensorDataset(torch.arange(40.0)), batch_size=1, num_workers=2, persistent_workers=True)


def workers_of(loader: PictureLoader) -> list[Any]:
    iterator: Any = loader._iterator
    return list(iterator._workers)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_is_for_everybody_does_not_end_the_loading(number: signal.Signals) -> None:
    pictures = loader()
    batches = iter(pictures)
    first = next(batches)
    for worker in workers_of(pictures):
        # From another process, as that of a terminal is.
        subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
    assert torch.cat([first[0], *(batch[0] for batch in batches)]).tolist() == torch.arange(40.0).tolist()
    assert all(worker.is_alive() for worker in workers_of(pictures))


class Odd(NamedTuple):
    """A batch of what batches are made of."""

    large: torch.Tensor
    targets: list[dict[str, torch.Tensor]]
    name: str


def odd(items: Any) -> Odd:
    boxes = torch.rand(3, 4, generator=torch.Generator().manual_seed(7))
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    others = {"boxes": boxes.t(), "crowd": torch.tensor([True, False]), "size": torch.tensor(5)}
    return Odd(torch.arange(40_000), [empty, others], "odd")


def test_a_batch_is_the_same_whoever_loads_it_and_small_tensors_have_no_descriptors() -> None:
    pictures = TensorDataset(torch.ones(2, 1))
    expected = next(iter(PictureLoader(pictures, collate_fn=odd)))
    found = next(iter(PictureLoader(pictures, collate_fn=odd, num_workers=1)))
    assert type(found) is Odd
    assert found.name == "odd"
    torch.testing.assert_close(found[:2], expected[:2], rtol=0, atol=0)
    assert [found.large.is_shared(), *(t.is_shared() for target in found.targets for t in target.values())] == [
        True,
        *[False] * 5,
    ]


def test_who_started_a_process_may_end_it() -> None:
    pictures = loader()
    next(iter(pictures))
    worker = workers_of(pictures)[0]
    worker.terminate()
    worker.join(timeout=60)
    assert worker.exitcode == 0


def test_no_process_outlives_the_one_that_computes() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        numbers = [int(number) for number in parent.stdout.readline().split()]
        assert len(numbers) == 2
        os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(number) for number in numbers))
