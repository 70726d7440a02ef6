import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from model.checkpoint import published
from model.checkpoint.download import DownloadError
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


def test_the_command_downloads_and_then_exports(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported: list[tuple[Path, str, Path]] = []
    args = parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror.address}/good")
    run(args, lambda checkpoint, preset, out: exported.append((checkpoint, preset, out)))
    assert exported == [(tmp_path / f"detr-r50-{DIGITS}.pth", NAME, tmp_path / f"{NAME}.onnx")]
    assert f"SHA-256 begins with {DIGITS}" in capsys.readouterr().out


def test_the_command_exports_as_the_export_command_does(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[tuple[str, str, str]] = []

    def add_export_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("checkpoint")
        parser.add_argument("--preset")
        parser.add_argument("--out")

    command = ModuleType("model.export")
    command.add_arguments = add_export_arguments  # type: ignore[attr-defined]
    command.run = lambda args: exported.append((args.checkpoint, args.preset, args.out))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "model.export", command)
    monkeypatch.setattr("model.export", command, raising=False)
    out = tmp_path / "model.onnx"
    run(parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror.address}/good", "--out", str(out)))
    assert exported == [(str(tmp_path / f"detr-r50-{DIGITS}.pth"), NAME, str(out))]


def test_the_command_only_downloads_if_asked_to(mirror: Mirror, tmp_path: Path) -> None:
    def export(checkpoint: Path, preset: str, out: Path) -> None:
        pytest.fail("nothing was to be exported")

    run(parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror.address}/good", "--no-export"), export)
    assert (tmp_path / f"detr-r50-{DIGITS}.pth").is_file()


def test_the_command_knows_only_the_published_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("detr-resnet-7")
    assert "detr-resnet-50-dc5" in capsys.readouterr().err
