"""A scripted server that is killed, told to end and replaced on the same port, and whose log may go unread."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.processes import PATIENCE_S, free_port, wait_for_200
from tests.server_process import ServerProcess, scripted

# Where the service may tell of a failure: that of an engine whose faults are scripted.
_MAY_FAIL = ("service.batching.engine_runner", "service.batching.batcher", "service.lifecycle.service")


@dataclass
class Window:
    """A stretch of time, in seconds of `time.monotonic()`."""

    begin: float
    end: float = math.inf
    by_force: bool = False

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether any of it lies between two moments."""
        return self.begin <= end and begin <= self.end


class LogReader:
    """Reads a server's pipe in a thread, unless told not to, and keeps the books of what was logged."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.reading = threading.Event()
        self.reading.set()
        self.ids: Counter[str] = Counter()  # of requests
        self.wrong: list[str] = []  # lines that ought not to be there
        self._descriptor = descriptor
        self._path = path
        self._thread = threading.Thread(target=self._read, daemon=True, name="log")
        self._thread.start()

    def wait_for_end(self) -> None:
        """Return once the server has closed its end, and all is read."""
        self.reading.set()
        self._thread.join(PATIENCE_S)

    def _read(self) -> None:
        with open(self._descriptor, "rb") as pipe, self._path.open("wb") as copy:  # noqa: PTH123  # not a path
            for line in pipe:
                self.reading.wait()
                copy.write(line)
                copy.flush()
                # A server that is killed ends amid a line.
                if line.endswith(b"\n"):
                    self._note(line.decode())

    def _note(self, line: str) -> None:
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:
            self.wrong.append(line)
            return
        if entry["message"] == "request":
            self.ids[entry["request_id"]] += 1
        elif (entry["level"] == "error" or "exception" in entry) and entry["logger"] not in _MAY_FAIL:
            self.wrong.append(line)


class MortalServer:
    """Whoever uses it has to know when it was dead; what takes long here blocks, so not on an event loop."""

    def __init__(self, artifact: Path, folder: Path, arguments: tuple[str, ...], script: Mapping[str, Any]) -> None:
        self.port = free_port()
        self.generation = 0
        self.deaths: list[Window] = []
        self.exit_codes: Counter[int] = Counter()
        self.log_reader: LogReader
        self.now: ServerProcess
        self.wrong_lines: list[str] = []  # of those that have ended
        self.repeated_ids: list[str] = []
        self._start = partial(scripted, artifact, folder, *arguments, script=script, port=self.port, wait=False)
        self._life = ExitStack()  # of the one that runs now

    def start(self) -> None:
        """Start another one, and return when it is ready."""
        self.generation += 1
        reading, writing = os.pipe()
        self.now = self._life.enter_context(self._start(output=writing))
        os.close(writing)
        self.log_reader = LogReader(reading, self.now.log)
        wait_for_200(f"{self.now.url}/health/ready", self.now.popen, self.now.log)

    def replace(self, number: signal.Signals | None) -> int:
        """End it by a signal, or wait for it to end by itself, start another, and return the exit code."""
        with self.dying(by_force=number == signal.SIGKILL):
            if number is not None:
                self.now.signal(number)
            code = self.now.exit_code()
            self.bury()
            self.start()
            return code

    @contextmanager
    def dying(self, *, by_force: bool = False) -> Iterator[None]:
        """For the length of the block it may be dead at any moment."""
        death = Window(time.monotonic(), by_force=by_force)
        self.deaths.append(death)
        yield
        death.end = time.monotonic()

    def bury(self) -> None:
        """Close the books of one that has ended."""
        self.exit_codes[self.now.exit_code()] += 1
        self.log_reader.wait_for_end()
        self.wrong_lines += self.log_reader.wrong
        self.repeated_ids += [name for name, count in self.log_reader.ids.items() if count > 1]
        self._life.close()

    def stop(self) -> None:
        """End it, whatever it does, if it still runs."""
        self.now.popen.kill()
        self.bury()

    def was_dead(self, begin: float, end: float) -> bool:
        """Whether it may have been dead at any moment between two (`time.monotonic()`)."""
        return any(death.overlaps(begin, end) for death in self.deaths)

    def may_lose(self, begin: float, sent: float, end: float) -> bool:
        """Whether a request may go without an answer that was begun, sent whole, and given up then: because the server
        was killed meanwhile or was dead when it was sent, but not because it was told to end."""
        return any(death.overlaps(begin, end) and (death.by_force or sent >= death.begin) for death in self.deaths)
