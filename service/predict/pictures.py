"""Pictures, wherever they come from, and what becomes of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from model.runtime.decode_budget import LargeWorkError
from model.runtime.engines.raw_outputs import ImageOutputs
from service.images.prepare import ImageRules, prepare
from service.images.task import Prepared
from service.process.trace import Trace


class PictureSource(Protocol):
    """A picture, wherever it comes from."""

    def prepare(self, rules: ImageRules, trace: Trace, *, draws: bool) -> Prepared:
        """Make of it what the network takes; called in a thread, and once more if it raises LargeWorkError.

        Args:
            rules: of the service and its model.
            trace: takes the times.
            draws: see `Prepared.decode_again`.

        Raises:
            Exception: why it cannot be used, such as OSError, ServiceError and ImageError.
        """


class EncodedPicture(ABC):
    """A picture as the bytes of a file, which are read once."""

    _kept: bytes | None = None  # while a large one waits for its turn

    @abstractmethod
    def read(self) -> bytes:
        """The bytes. Raises OSError if they cannot be read."""

    def prepare(self, rules: ImageRules, trace: Trace, *, draws: bool) -> Prepared:
        """See PictureSource."""
        data, self._kept = self.read() if self._kept is None else self._kept, None
        try:
            return prepare(data, "", rules, trace, draws)
        except LargeWorkError:
            self._kept = data
            raise


P = TypeVar("P", bound=PictureSource)
A = TypeVar("A")


@dataclass(frozen=True, eq=False)
class RunPicture(Generic[P]):
    """A picture with the network's outputs for it."""

    number: int  # among the pictures of its run, from 0
    picture: P
    prepared: Prepared
    outputs: ImageOutputs
    trace: Trace


@dataclass(frozen=True, eq=False)
class Answered(Generic[P, A]):
    """A picture that has its answer."""

    number: int  # among the pictures of its run, from 0
    picture: P
    answer: A
    trace: Trace


@dataclass(frozen=True, eq=False)
class Failed(Generic[P]):
    """A picture that has none."""

    number: int  # among the pictures of its run, from 0
    picture: P
    error: Exception


Outcome = Answered[P, A] | Failed[P]
