"""Processes that load pictures: signals are for the process that computes, and they end when it does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from torch.utils.data import DataLoader, Dataset

# What a terminal, `timeout`, systemd and Slurm send to every process of a group, to have the command end.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_WATCH_SECONDS = 1.0  # between looks whether the process that computes is still there
_CAN_WAIT = hasattr(signal, "sigtimedwait")  # not on macOS


class PictureLoader(DataLoader[Any]):
    """A loader whose processes leave the signals of `STOP_SIGNALS` to the process that reads from them.

    That one may then finish what it is doing and write it down, though the signal went to all of them. They end with
    it, however it ends.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        """Load from a data set; options are those of a `DataLoader`."""
        super().__init__(dataset, worker_init_fn=_leave_signals, **options)

    def __iter__(self) -> Any:
        """Begin a pass; a signal that comes while processes are started reaches this one only, and afterwards."""
        with _blocked():
            return super().__iter__()


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
