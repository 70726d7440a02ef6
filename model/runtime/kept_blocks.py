"""Large blocks of memory that are kept for the pixels of the next picture, instead of the system's giving them anew.

It makes each page of them when that is written to: 49 megapixels of WebP are decoded in 70 ms where the memory was
kept, and in 90 to 600 ms where it was not. What is freed can cost even more, and others too: on a virtual machine whose
host takes back what lies free (free page reporting, as of virtio-balloon), the whole machine's memory is 60 to 150
times slower for 30 to 60 ms while it does so, and a good picture beside waits for as much as 0.4 seconds (measured).
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray


class KeptBlocks:
    """Up to so many blocks, none to begin with, in each of which one array lies at a time, whatever thread it is of."""

    def __init__(self) -> None:
        self._most = 0
        # An array may end in the middle of any code, where garbage is searched for: without a lock, which that may hold
        self._free: deque[NDArray[np.uint8]] = deque()
        self._lock = threading.Lock()

    def keep(self, count: int) -> None:
        """Keep so many from now on; with as many arrays at once, they are no more than these took."""
        self._most = count

    def array(self, *shape: int, zeroed: bool = False) -> NDArray[np.uint8]:
        """Of uint8 and this shape, all zeros or holding anything. Raises MemoryError."""
        size = math.prod(shape)
        block = self._kept_of(size)
        if block is None:
            block = self._new(size)
        elif zeroed:
            block[:size].fill(0)
        # A view remembers only the array that owns its memory, unless something else lies between, as `data` does here.
        array = np.frombuffer(block.data, dtype=np.uint8, count=size)
        weakref.finalize(array, self._free_again, block).atexit = False
        return array.reshape(shape)

    def give_back(self) -> None:
        """Give the system back all blocks in which nothing lies."""
        self._free.clear()

    def _new(self, size: int) -> NDArray[np.uint8]:
        """All zeros, which costs nothing where the system makes the pages."""
        try:
            return np.zeros(size, dtype=np.uint8)
        except MemoryError:
            self.give_back()
            return np.zeros(size, dtype=np.uint8)

    def _free_again(self, block: NDArray[np.uint8]) -> None:
        if len(self._free) < self._most:
            self._free.append(block)

    def _kept_of(self, size: int) -> NDArray[np.uint8] | None:
        """The smallest that is large enough; None if there is none, and then a new one takes the smallest's place."""
        with self._lock:
            kept = sorted(self._take_all(), key=len)
            found = next((block for block in kept if len(block) >= size), None)
            rest = kept[1:] if found is None else [block for block in kept if block is not found]
            too_many = len(rest) + len(self._free) - self._most  # where one was freed meanwhile
            self._free.extend(rest[max(0, too_many) :])
        return found

    def _take_all(self) -> list[NDArray[np.uint8]]:
        taken = []
        while self._free:
            taken.append(self._free.pop())
        return taken


PICTURE_BLOCKS = KeptBlocks()  # of this process
