"""Clients that ask on and on, and what each of their requests came to."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

import httpx

from tests.processes import PATIENCE_S


class Load:
    """So many clients that post a picture to a URL, again and again, for the length of a `with` block."""

    def __init__(self, url: str, picture: bytes, clients: int, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self._picture = picture
        self._headers = {"content-type": "image/jpeg"} | (headers or {})
        self._counts: Counter[str] = Counter()
        self._ends: list[float] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._clients = [threading.Thread(target=self._ask, name=f"client {number}") for number in range(clients)]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for client in self._clients:
            client.join()

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests came to what: a status, or the kind of a failure."""
        with self._lock:
            return dict(self._counts)

    @property
    def total(self) -> int:
        """How many requests have ended."""
        return sum(self.outcomes.values())

    def ended_since(self, moment: float) -> int:
        """How many requests have ended since a moment of `time.monotonic`."""
        with self._lock:
            return sum(end > moment for end in self._ends)

    def _ask(self) -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not self._is_over.is_set():
                try:
                    outcome = str(client.post(self.url, content=self._picture, headers=self._headers).status_code)
                except httpx.TransportError as error:
                    outcome = type(error).__name__
                with self._lock:
                    self._counts[outcome] += 1
                    self._ends.append(time.monotonic())
