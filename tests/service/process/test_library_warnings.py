"""Whatever libraries say is counted, and little of it becomes lines."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from service.process.library_warnings import LibraryFilter, log_warnings
from service.process.trace import Trace


class Heard(logging.Handler):
    """What a filter lets pass, and how much it counts."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.counted = 0
        libraries = LibraryFilter(level)
        libraries.on_warning = self.count
        self.addFilter(libraries)

    def count(self) -> None:
        self.counted += 1

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def hearing(level: int = logging.WARNING) -> Iterator[Heard]:
    heard, root = Heard(level), logging.getLogger()
    root.addHandler(heard)
    warnings.resetwarnings()  # in tests they are errors
    log_warnings()
    try:
        yield heard
    finally:
        root.removeHandler(heard)


def warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=1)


LIBRARY = logging.getLogger("some_library.part")


def test_during_a_request_warnings_are_noted_and_no_lines() -> None:
    trace = Trace()
    with hearing() as heard, trace.stage("decode"):
        for number in range(300):
            warn(f"the same place, {number}")
        LIBRARY.warning("and %s", "a logger")
    assert heard.lines == []
    assert heard.counted == trace.library_warnings == 301
    assert trace.library_warning == "UserWarning: the same place, 0"


def test_of_the_errors_during_a_request_the_first_is_a_line() -> None:
    trace = Trace()
    with hearing() as heard, trace.current():
        warn("odd")
        for number in range(3):
            LIBRARY.error("failed: %d", number)
    assert heard.lines == ["failed: 0"]
    assert heard.counted == 4


def test_a_long_text_is_noted_in_part() -> None:
    trace = Trace()
    with hearing(), trace.current():
        warn("x" * 10_000)
    assert len(trace.library_warning or "") == 200


def test_beside_requests_each_text_is_one_line_and_there_are_not_too_many() -> None:
    with hearing() as heard:
        for number in range(500):
            warn(f"odd: {number}")
            warn("odd: 0")
        assert heard.lines == [f"UserWarning: odd: {number}" for number in range(100)]
        LIBRARY.error("failed")
        LIBRARY.error("failed")
    assert heard.lines[100:] == ["failed", "failed"]
    assert heard.counted == 1002


def test_each_of_two_requests_has_its_own() -> None:
    one, other = Trace(), Trace()
    with hearing(), one.current():
        with other.stage("decode"):
            warn("of the other")
        warn("of the one")
    assert (one.library_warning, other.library_warning) == ("UserWarning: of the one", "UserWarning: of the other")


def test_below_the_level_of_the_log_nothing_is_a_line_and_all_is_counted() -> None:
    with hearing(logging.ERROR) as heard:
        warn("odd")
        LIBRARY.error("failed")
    assert heard.lines == ["failed"]
    assert heard.counted == 2


def test_the_services_own_records_are_neither_counted_nor_held_back() -> None:
    with hearing() as heard, Trace().current():
        for _ in range(3):
            logging.getLogger("service.part").warning("ours")
            logging.getLogger("model.part").warning("ours")
    assert heard.lines == ["ours"] * 6
    assert heard.counted == 0


def test_python_remembers_none_of_the_texts() -> None:
    with hearing():
        before = len(globals().get("__warningregistry__", {}))
        for number in range(50):
            warn(f"not kept: {number}")
    assert len(globals().get("__warningregistry__", {})) == before
