"""Threads that stay with their work: each piece is done once, and at once where a thread may be had."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from service.process import workers as workers_module
from service.process.workers import Workers


class Piece:
    """Some work, and what became of it."""

    def __init__(self, waits_for: threading.Barrier | threading.Event | None = None, seconds: float = 0) -> None:
        self._waits_for, self._seconds = waits_for, seconds
        self.done = self.dropped = 0
        self.began, self.ended = threading.Event(), threading.Event()
        self.thread = ""

    def do(self) -> None:
        self.thread = threading.current_thread().name
        self.began.set()
        if self._waits_for is not None:
            self._waits_for.wait(timeout=20)
        if self._seconds:
            time.sleep(self._seconds)
        self.done += 1
        self.ended.set()

    def drop(self) -> None:
        self.dropped += 1
        self.ended.set()


@contextmanager
def working(count: int) -> Iterator[Workers]:
    workers = Workers("test", count)
    try:
        yield workers
    finally:
        workers.close()


@pytest.mark.parametrize("staying", [0.0, 0.001, 0.05])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_piece_is_done_once_however_long_the_pauses_between_them_are(
    count: int, staying: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "_STAYING_S", staying)
    draw = Random(count)
    with working(count) as workers:
        pieces = []
        for _ in range(400):
            pieces.append(Piece(seconds=draw.choice([0, 0, 0.0005, 0.002])))
            workers.put(pieces[-1])
            if draw.random() < 0.3:
                time.sleep(draw.choice([0, 0.0005, 0.001, 0.0015, 0.003]))
        assert all(piece.ended.wait(10) for piece in pieces)
    assert [piece.done for piece in pieces] == [1] * 400
    assert len({piece.thread for piece in pieces}) <= count


@pytest.mark.parametrize("pause", [0, 0.0005, 0.001, 0.0015, 0.002, 0.01])
def test_so_many_run_at_once_whenever_they_come(pause: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the two others, so that they would never end if a thread were missing."""
    monkeypatch.setattr(workers_module, "_STAYING_S", 0.001)
    with working(3) as workers:
        for turn in range(60):
            together = threading.Barrier(3)
            pieces = [Piece(together) for _ in range(3)]
            for piece in pieces:
                workers.put(piece)
                if turn % 2:
                    time.sleep(pause / 3)
            assert all(piece.ended.wait(10) for piece in pieces)
            assert not together.broken
            time.sleep(pause)


def assert_two_run_together(workers: Workers) -> None:
    together = threading.Barrier(2)
    pieces = [Piece(together) for _ in range(2)]
    for piece in pieces:
        workers.put(piece)
    assert all(piece.ended.wait(10) for piece in pieces)


def test_what_has_not_begun_is_dropped_by_closing_and_the_rest_ends() -> None:
    end = threading.Event()
    with working(2) as workers:
        pieces = [Piece(end) for _ in range(5)]
        for piece in pieces:
            workers.put(piece)
        assert all(piece.began.wait(10) for piece in pieces[:2])
        workers.close()
        assert [piece.dropped for piece in pieces] == [0, 0, 1, 1, 1]
        end.set()
        assert all(piece.ended.wait(10) for piece in pieces)
    assert [piece.done for piece in pieces] == [1, 1, 0, 0, 0]


def test_after_a_thread_could_not_be_started_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with working(2) as workers:
        for turn in range(3):
            lost = Piece()
            with monkeypatch.context() as patched:
                patched.setattr(threading.Thread, "start", refuse)
                if turn == 0:
                    with pytest.raises(RuntimeError):
                        workers.put(lost)
            together = threading.Barrier(2)
            pieces = [Piece(together) for _ in range(2)]
            for piece in pieces:
                workers.put(piece)
            assert all(piece.ended.wait(10) for piece in pieces)
            assert (lost.done, lost.dropped) == (0, 0)


def test_a_thread_that_is_just_starting_is_not_lost_where_the_next_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, held = threading.Thread.start, list[threading.Thread]()

    def start_one_later(thread: threading.Thread) -> None:
        if held:
            raise RuntimeError("can't start new thread")
        held.append(thread)

    with working(2) as workers:
        first = Piece()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start_one_later)
            workers.put(first)
            with pytest.raises(RuntimeError):
                workers.put(Piece())
        start(held[0])
        assert first.ended.wait(10)
        assert_two_run_together(workers)


def test_after_a_piece_that_could_not_handle_what_it_met_as_many_run_as_before() -> None:
    class Broken(Piece):
        def do(self) -> None:
            self.ended.set()
            raise MemoryError

    with working(2) as workers:
        for _ in range(5):
            broken = Broken()
            workers.put(broken)
            assert broken.ended.wait(10)
        assert_two_run_together(workers)


def test_a_process_that_forgets_to_close_them_ends() -> None:
    program = """
from service.process.workers import Workers
class Piece:
    def do(self): print("done", flush=True)
    def drop(self): pass
workers = Workers("test", 2)
workers.put(Piece())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "done\n"
