"""A file appears when it is whole, and a failure leaves what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.runtime.whole_file import whole_file


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with whole_file(path) as first, whole_file(path) as second:
        assert first != second, "each writer has a file of its own"
        second.write_text("second")
        first.write_text("first")
        assert path.read_text() == "old"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(TypeError), whole_file(path) as unfinished, unfinished.open("w") as file:
        file.writelines(["half", None])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_the_block_s_own_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), whole_file(tmp_path / "nowhere" / "a.json") as unfinished:
        unfinished.write_text("new")
