"""Downloads: whole and with the digest that was promised, or not at all."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.checkpoint.download import DownloadError, download
from tests.model.mirror import Mirror, mirror_of

CONTENT = b"published weights" * 10_000
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with mirror_of(CONTENT) as mirror:
        yield mirror


def test_a_file_arrives_in_a_folder_that_was_not_there(mirror: Mirror, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "weights.pth"
    assert download(f"{mirror.address}/good/weights.pth", path, DIGITS) == path
    assert path.read_bytes() == CONTENT
    assert mirror.requests == ["/good/weights.pth"]


def test_a_file_that_is_already_there_is_not_downloaded_again(mirror: Mirror, tmp_path: Path) -> None:
    for _ in range(2):
        download(f"{mirror.address}/good/weights.pth", tmp_path / "weights.pth", DIGITS)
    assert len(mirror.requests) == 1


def test_a_broken_file_that_is_already_there_is_replaced(mirror: Mirror, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(CONTENT[:100])
    assert download(f"{mirror.address}/good/weights.pth", path, DIGITS).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("other", "incomplete or another file"), ("short", "incomplete or another file"), ("none", "404")],
)
def test_a_download_that_fails_leaves_nothing_behind(mirror: Mirror, tmp_path: Path, folder: str, reason: str) -> None:
    with pytest.raises(DownloadError, match=reason):
        download(f"{mirror.address}/{folder}/weights.pth", tmp_path / "weights.pth", DIGITS)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_fails_keeps_what_was_there(mirror: Mirror, tmp_path: Path) -> None:
    old = tmp_path / "weights.pth"
    old.write_bytes(b"old")
    with pytest.raises(DownloadError):
        download(f"{mirror.address}/short/weights.pth", old, DIGITS)
    assert old.read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_a_clear_error(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(DownloadError, match=r"/good/weights\.pth: .*folder"):
        download(f"{mirror.address}/good/weights.pth", tmp_path / "folder" / "weights.pth", DIGITS)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:9/weights\.pth: .*refused"):
        download("http://127.0.0.1:9/weights.pth", tmp_path / "weights.pth", DIGITS)
