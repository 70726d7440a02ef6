"""Downloads that go wrong: resumed where that is possible, and otherwise one line that says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.hub import download
from tests.fake_hub import TOKEN, FakeHub
from tests.model.hub.conftest import CONFIG, NAME, Machine

WEIGHTS = "model.safetensors"


def test_a_download_that_breaks_off_is_resumed(machine: Machine, hub: FakeHub) -> None:
    # The library writes 10 MiB at a time, and resumes behind what it has written.
    hub.push(NAME, {"config.json": CONFIG, WEIGHTS: os.urandom(11 * 2**20)})
    hub.interruptions = [(WEIGHTS, 10 * 2**20 + 1000)]
    assert machine.ask().path is not None
    assert hub.ranges == [f"bytes={10 * 2**20}-"]


@pytest.mark.slow  # the library tries six times
def test_a_download_that_never_gets_whole_is_given_up(machine: Machine, hub: FakeHub) -> None:
    hub.truncated = WEIGHTS
    assert "breaks off" in machine.ask().refusal
    assert machine.imports() == []
    hub.truncated = None
    assert machine.ask().path is not None


def test_where_there_is_no_terminal_the_log_tells_how_far_a_download_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_REPORT_SECONDS", 0)
    caplog.set_level("INFO")
    bars = download._progress_lines(NAME)
    with bars(total=2, unit="it") as files, bars(total=200_000_000, unit="B") as content:
        files.update(1)
        content.update(50_000_000)
        content.update(100_000_000)
    assert caplog.messages == [f"downloading {NAME}: {part} of 200 MB" for part in (50, 150)]


def test_weights_that_arrive_damaged_are_not_used_and_not_kept(machine: Machine, hub: FakeHub) -> None:
    hub.corrupted = WEIGHTS
    assert f"{NAME}: model.safetensors arrived damaged" in machine.ask().refusal
    assert machine.imports() == []
    hub.corrupted = None
    assert machine.ask().path is not None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not accept the token"),
        (403, "forbids access"),
        (404, "see whether HF_ENDPOINT is the address of a hub"),
        (429, "too many requests"),
        (500, "answered 500"),
    ],
)
def test_what_the_hub_refuses_is_one_line_in_our_own_words(
    machine: Machine, hub: FakeHub, status: int, words: str
) -> None:
    hub.status = status
    refusal = machine.ask().refusal
    assert words in refusal
    assert hub.url in refusal
    assert "words of the hub's own" not in refusal


def test_a_hub_that_cannot_be_reached_is_named_with_what_to_do(machine: Machine) -> None:
    refusal = machine.ask(HF_ENDPOINT="http://127.0.0.1:9").refusal
    assert "the hub (http://127.0.0.1:9) cannot be reached" in refusal
    assert f"detr fetch {NAME} --out FILE" in refusal


def test_offline_only_the_cache_counts(machine: Machine, hub: FakeHub) -> None:
    assert (
        "HF_HUB_OFFLINE is set, and facebook/detr-resnet-50 is not in the cache"
        in machine.ask(HF_HUB_OFFLINE="1").refusal
    )
    assert hub.requests == []


@pytest.mark.parametrize("kind", ["gated", "private"])
def test_a_closed_repository_takes_a_token(machine: Machine, hub: FakeHub, kind: str) -> None:
    setattr(hub.repositories[NAME], kind, True)
    for token in ({}, {"HF_TOKEN": "hf_wrong"}):
        refusal = machine.ask(**token).refusal
        assert "HF_TOKEN" in refusal
        assert "hf_wrong" not in refusal
    assert machine.ask(HF_TOKEN=TOKEN).path is not None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": CONFIG, "pytorch_model.bin": b"a pickle"}, "has no model.safetensors"),
        ({"config.json": b'{"model_type": "bert"}', WEIGHTS: b""}, "is no DETR: its config.json says 'bert'"),
        ({"config.json": b"[]", WEIGHTS: b""}, "its config.json cannot be read"),
        ({"config.json": b"<html>", WEIGHTS: b""}, "its config.json cannot be read"),
        ({WEIGHTS: b""}, "has no config.json"),
    ],
)
def test_a_repository_without_a_detr_in_it_is_refused_before_its_weights_come(
    machine: Machine, hub: FakeHub, files: dict[str, bytes], words: str
) -> None:
    hub.push(NAME, files)
    assert words in machine.ask().refusal
    assert hub.downloads(WEIGHTS) == 0
    assert machine.imports() == []


@pytest.mark.parametrize("folder", ["hf", "artifacts"])
def test_a_cache_that_cannot_be_written_is_named_with_what_moves_it(
    machine: Machine, hub: FakeHub, folder: str
) -> None:
    Path(machine.folder / folder).write_bytes(b"a file where a folder has to be")
    refusal = machine.ask().refusal
    assert str(machine.folder / folder) in refusal
    assert {"hf": "HF_HOME", "artifacts": "--model-cache"}[folder] in refusal
    assert hub.downloads(WEIGHTS) == 0
