"""A run that is interrupted while it writes the results of a picture writes all of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from service.predict.interruption import Terminated, exit_code_of, interrupted_by_sigterm, uninterrupted
from service.process.streams import INTERRUPTED, TERMINATED


@pytest.fixture(autouse=True)
def python_handlers() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with interrupted_by_sigterm():
        yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_a_block_is_done_whole_before_its_interruption_is_heard(number: signal.Signals, code: int) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    done = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(number)
            done.append("line")
        done.append("behind")

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert done == ["line"]
    assert exit_code_of(caught.value) == code
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_two_signals_at_once_are_one_and_the_first_counts() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done.append("line")

    with pytest.raises(Terminated):
        work()
    assert done == ["line"]


def test_a_second_signal_a_while_later_ends_a_block_that_waits() -> None:
    now = iter([0.0, 2.0])
    done = []

    def work() -> None:
        with uninterrupted(lambda: next(now)):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            done.append("line")

    with pytest.raises(Terminated):
        work()
    assert not done


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN


def test_an_error_of_the_block_is_what_is_raised() -> None:
    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        work()


def test_a_thread_that_hears_no_signals_does_its_block() -> None:
    done = []

    def work() -> None:
        with uninterrupted(), interrupted_by_sigterm():
            done.append("line")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["line"]
