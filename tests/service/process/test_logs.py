"""A line of the log is short and plain, and to write it holds up and fails nobody."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.process import logs
from service.process.logs import MAX_LINE, JsonFormatter, LogWriter, TextFormatter, configure_logging


def record(message: str, *args: object, error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("some.logger", logging.INFO, __file__, 1, message, args, info)
    made.__dict__["fields"] = fields
    return made


def raised(message: str) -> BaseException:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


texts = st.text(st.characters(codec="utf-8"), max_size=3000) | st.text("\U0001f600\n\x1b", max_size=3000)


@given(texts, texts, texts)
def test_a_line_is_short_plain_and_json_whatever_is_in_it(message: str, field: str, error: str) -> None:
    line = JsonFormatter().format(record(message.replace("%", ""), error=raised(error), request_id=field))
    assert len(line) <= MAX_LINE
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["logger"] == "some.logger"


def test_of_what_is_too_long_the_start_is_kept_and_of_a_traceback_the_end() -> None:
    line = json.loads(JsonFormatter().format(record("begin" + "\U0001f600" * 1000, error=raised("é" * 900 + "end"))))
    assert line["message"].startswith("begin")
    assert line["exception"].endswith("end")


@given(texts, texts)
def test_what_a_terminal_gets_is_one_plain_line_whatever_is_in_it(message: str, field: str) -> None:
    line = TextFormatter().format(record(message.replace("%", ""), url=field))
    assert line.isascii()
    assert line.isprintable()


def test_a_request_and_an_address_read_well_at_a_terminal() -> None:
    request = record("request")
    request.__dict__["fields"] = {"method": "POST", "route": "/detect", "status": 413, "duration_ms": 12.345}
    request.__dict__["fields"] |= {"error": "too_large"}
    assert TextFormatter().format(request)[9:] == "info     POST /detect 413 in 12.3 ms too_large"
    said = TextFormatter().format(record("listening", url="http://127.0.0.1:8000/"))
    assert said[9:] == "info     listening http://127.0.0.1:8000/"
    lines = TextFormatter().format(record("failed", error=raised("a\nforged line"))).splitlines()
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-1] == "    forged line"


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize(("log_format", "is_json"), [("auto", False), ("json", True), ("text", False)])
def test_a_terminal_gets_text_unless_it_is_told_otherwise(
    log_format: str, is_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, shown = os.openpty()
    with open(shown, "w", closefd=False) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        writer, _ = configure_logging("info", log_format)
        logging.getLogger("service.anything").info("hello")
        writer.close()
    line = os.read(terminal, 4096).decode().strip()
    os.close(shown)
    os.close(terminal)
    assert line.startswith("{") == is_json
    assert "hello" in line
    assert ("\n" in line) is False


@pytest.fixture
def dropped() -> list[None]:
    return []


@pytest.fixture
def writer(dropped: list[None]) -> Iterator[Any]:
    """Makes writers that count what they drop, and closes them."""
    made: list[LogWriter] = []

    def make(descriptor: int | None) -> LogWriter:
        handler = LogWriter(descriptor)
        handler.setFormatter(JsonFormatter())
        handler.on_drop = lambda: dropped.append(None)
        made.append(handler)
        return handler

    yield make
    for handler in made:
        handler.close()


def test_lines_of_many_threads_are_written_whole_and_all(writer: Any, tmp_path: Path, dropped: list[None]) -> None:
    with (tmp_path / "log").open("wb") as log:
        handler = writer(log.fileno())
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: handler.handle(record("line %d", number)), range(500)))
        handler.close()
    lines = [json.loads(line)["message"] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(lines) == sorted(f"line {number}" for number in range(500))
    assert dropped == []


def test_lines_that_come_together_are_written_together_and_unmixed(
    writer: Any, dropped: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def write(_: int, text: bytes) -> int:
        written.append(text)
        return len(text)

    monkeypatch.setattr(os, "write", write)
    handler = writer(1)
    for number in range(400):
        handler.handle(record("line %d", number, more="x" * (1_000 if number % 100 == 7 else 10)))
    handler.close()
    lines = b"".join(written).splitlines()
    assert [json.loads(line)["message"] for line in lines] == [f"line {number}" for number in range(400)]
    assert len(written) < 100
    assert all(text.endswith(b"\n") and len(text) <= 4096 for text in written), "what a pipe takes in one piece"
    assert dropped == []


def test_a_warning_and_what_came_before_it_wait_for_no_more_lines(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_GATHERING", 3600)
    reading, writing = os.pipe()
    handler = writer(writing)
    with os.fdopen(reading) as pipe:
        for _ in range(3):
            handler.handle(record("first"))
            warning = record("second")
            warning.levelno = logging.WARNING
            handler.handle(warning)
            assert [json.loads(pipe.readline())["message"] for _ in range(2)] == ["first", "second"]
        handler.handle(record("last"))
        handler.close()
        assert json.loads(pipe.readline())["message"] == "last"
    os.close(writing)


def test_a_pipe_that_nobody_reads_holds_nobody_up(writer: Any, dropped: list[None]) -> None:
    reading, writing = os.pipe()
    handler = writer(writing)
    for number in range(5_000):
        handler.handle(record("line %d", number))
    assert 2000 < len(dropped) < 4000
    # Once somebody reads, what waited comes, in order and whole.
    with os.fdopen(reading) as pipe:
        first = [json.loads(pipe.readline())["message"] for _ in range(1000)]
        assert first == [f"line {number}" for number in range(1000)]
        handler.close()
        os.close(writing)
        assert all(json.loads(line) for line in pipe)


def test_a_full_disk_loses_lines_and_counts_them(
    writer: Any, dropped: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    handler = writer(1)
    for _ in range(3):
        handler.handle(record("lost"))
    handler.close()
    assert len(dropped) == 3


def test_a_reader_that_went_away_loses_lines_and_counts_them(writer: Any, dropped: list[None]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = writer(writing)
    handler.handle(record("lost"))
    handler.close()
    os.close(writing)
    assert len(dropped) == 1


def test_without_standard_output_nothing_is_written_anywhere(writer: Any, dropped: list[None]) -> None:
    handler = writer(None)
    handler.handle(record("lost"))
    handler.close()
    assert len(dropped) == 1


def test_a_message_that_does_not_fit_its_arguments_is_dropped(
    writer: Any, tmp_path: Path, dropped: list[None], capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "log").open("wb") as log:
        handler = writer(log.fileno())
        handler.handle(record("%d", "text"))
        handler.handle(record("good"))
        handler.close()
    assert json.loads((tmp_path / "log").read_text())["message"] == "good"
    assert len(dropped) == 1
    assert capsys.readouterr().err == ""


def test_closing_twice_is_closing_once(writer: Any) -> None:
    handler = writer(None)
    handler.close()
    handler.close()
