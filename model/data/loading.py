"""Processes that load pictures: signals are for the process that computes, and they end when it does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset, default_collate

# What a terminal, `timeout`, systemd and Slurm send to every process of a group, to have the command end.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_WATCH_SECONDS = 1.0  # between looks whether the process that computes is still there
_SMALL_BYTES = 1 << 16  # as much as a pipe holds
_CAN_WAIT = hasattr(signal, "sigtimedwait")  # not on macOS


class PictureLoader(DataLoader[Any]):
    """A loader whose processes leave the signals of `STOP_SIGNALS` to the process that reads from them.

    That one may then finish what it is doing and write it down, though the signal went to all of them. They end with
    it, however it ends.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        collate_fn: Callable[[Any], Any] = default_collate,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        """Load from a data set; options are those of a `DataLoader`."""
        super().__init__(
            dataset,
            collate_fn=_SmallByValue(collate_fn) if num_workers else collate_fn,
            num_workers=num_workers,
            worker_init_fn=_leave_signals,
            **options,
        )

    def __iter__(self) -> Any:
        """Begin a pass; a signal that comes while processes are started reaches this one only, and afterwards."""
        with _blocked():
            return super().__iter__()


@dataclass(frozen=True)
class _SmallByValue:
    """Collates a batch whose small tensors travel to another process by their values.

    Others travel as shared memory, each with a descriptor of its own, for which the process that made it is asked. For
    the boxes and labels of a batch of small pictures that took a seventh of a training step.
    """

    collate: Callable[[Any], Any]

    def __call__(self, items: Any) -> Any:
        return tree_map_only(Tensor, _to_be_sent, self.collate(items))


@dataclass(frozen=True)
class _ByValue:
    """A tensor on its way: where it arrives, it is one again."""

    tensor: Tensor

    def __reduce__(self) -> tuple[Callable[[Any], Tensor], tuple[Any]]:
        return torch.from_numpy, (self.tensor.numpy(),)


def _to_be_sent(tensor: Tensor) -> Tensor | _ByValue:
    return _ByValue(tensor) if tensor.nbytes <= _SMALL_BYTES else tensor


@contextmanager
def _blocked() -> Iterator[None]:
    """Keep the signals back, in this process until the block ends, in those that are started in it for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals(worker: int) -> None:
    """Make this process one that a loader has started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if _CAN_WAIT:
        Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    """End this process when its parent says so by SIGTERM, as multiprocessing does, or is no more."""
    while os.getppid() == parent:
        told = signal.sigtimedwait(STOP_SIGNALS, _WATCH_SECONDS)
        if told is not None and (told.si_signo, told.si_pid) == (signal.SIGTERM, parent):
            break
    os._exit(0)
