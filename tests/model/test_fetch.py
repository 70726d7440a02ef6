import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from model.checkpoint import published
from model.checkpoint.download import DownloadError
from model.export import export_file
from model.fetch import add_arguments, fetch, run
from tests.model.mirror import Mirror, mirror_of

CONTENT = b"a published checkpoint" * 10_000
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]
NAME = "detr-resnet-50"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server that publishes CONTENT as the checkpoint NAME."""
    monkeypatch.setitem(published.FILES, NAME, f"detr-r50-{DIGITS}.pth")
    with mirror_of(CONTENT) as mirror:
        yield mirror


def test_a_model_arrives_under_its_published_name(mirror: Mirror, tmp_path: Path) -> None:
    path = fetch(NAME, tmp_path / "new" / "folder", f"{mirror.address}/good/")
    assert path == tmp_path / "new" / "folder" / f"detr-r50-{DIGITS}.pth"
    assert path.read_bytes() == CONTENT
    assert mirror.requests == [f"/good/detr-r50-{DIGITS}.pth"]


def test_a_model_with_another_digest_than_the_one_in_its_name_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="incomplete or another file"):
        fetch(NAME, tmp_path, f"{mirror.address}/other")
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_in_one_line_where_there_is_no_such_file(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        run(parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror.address}/none"))
    url = f"{mirror.address}/none/detr-r50-{DIGITS}.pth"
    assert raised.value.code == f"detr fetch: {url}: the server answered 404 Not Found"


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'detr-resnet-7'.*detr-resnet-101-panoptic"):
        fetch("detr-resnet-7", tmp_path)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("out", [None, "served.onnx"])
def test_the_command_downloads_and_then_exports(
    mirror: Mirror,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str | None,
) -> None:
    export = create_autospec(export_file)
    monkeypatch.setattr("model.export.export_file", export)
    words = [] if out is None else ["--out", str(tmp_path / out)]
    run(parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror.address}/good", *words))
    export.assert_called_once_with(tmp_path / f"detr-r50-{DIGITS}.pth", tmp_path / (out or f"{NAME}.onnx"), preset=NAME)
    assert f"SHA-256 begins with {DIGITS}" in capsys.readouterr().out


def test_what_cannot_be_exported_ends_in_the_line_of_the_export_command(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"^detr export: detr-r50-{DIGITS}\.pth: .*$"):
        run(parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror.address}/good"))


def test_the_command_only_downloads_if_asked_to(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.export.export_file", lambda *_, **__: pytest.fail("nothing was to be exported"))
    run(parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror.address}/good", "--no-export"))
    assert (tmp_path / f"detr-r50-{DIGITS}.pth").is_file()


def test_a_name_that_is_neither_published_nor_on_the_hub_is_answered_with_what_there_is() -> None:
    with pytest.raises(SystemExit, match=r"^detr fetch: detr-resnet-7 is neither OWNER/NAME.*-50-dc5") as raised:
        run(parsed("detr-resnet-7"))
    assert "\n" not in str(raised.value)
