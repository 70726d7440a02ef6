import argparse
import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from model import published
from model.fetch import FetchError, add_arguments, fetch, run

CONTENT = b"a published checkpoint" * 10_000
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]
NAME = "detr-resnet-50"


class Mirror(BaseHTTPRequestHandler):
    """Serves one good file, one with another content and one that is cut short; anything else is 404."""

    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        folder = self.path.split("/")[1]
        if folder not in ("good", "other", "short"):
            self.send_error(404)
            return
        body = b"something else" if folder == "other" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if folder == "short" else body)

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server that publishes CONTENT as the checkpoint NAME."""
    monkeypatch.setitem(published.FILES, NAME, f"detr-r50-{DIGITS}.pth")
    Mirror.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_good_file_arrives_under_its_published_name(mirror: str, tmp_path: Path) -> None:
    path = fetch(NAME, tmp_path / "new" / "folder", f"{mirror}/good/")
    assert path == tmp_path / "new" / "folder" / f"detr-r50-{DIGITS}.pth"
    assert path.read_bytes() == CONTENT
    assert Mirror.requests == [f"/good/detr-r50-{DIGITS}.pth"]


def test_a_file_that_is_already_there_is_not_downloaded_again(mirror: str, tmp_path: Path) -> None:
    first = fetch(NAME, tmp_path, f"{mirror}/good")
    assert fetch(NAME, tmp_path, f"{mirror}/good") == first
    assert len(Mirror.requests) == 1


def test_a_broken_file_that_is_already_there_is_replaced(mirror: str, tmp_path: Path) -> None:
    (tmp_path / f"detr-r50-{DIGITS}.pth").write_bytes(CONTENT[:100])
    assert fetch(NAME, tmp_path, f"{mirror}/good").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("other", "incomplete or another file"), ("short", "incomplete or another file"), ("none", "404")],
)
def test_a_download_that_fails_leaves_nothing_behind(mirror: str, tmp_path: Path, folder: str, reason: str) -> None:
    with pytest.raises(FetchError, match=reason):
        fetch(NAME, tmp_path, f"{mirror}/{folder}")
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_fails_keeps_what_was_there(mirror: str, tmp_path: Path) -> None:
    old = tmp_path / f"detr-r50-{DIGITS}.pth"
    old.write_bytes(b"old")
    with pytest.raises(FetchError):
        fetch(NAME, tmp_path, f"{mirror}/short")
    assert old.read_bytes() == b"old"


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:9/detr-r50-e632da11\.pth: .*refused"):
        fetch(NAME, tmp_path, "http://127.0.0.1:9")


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"'detr-resnet-7'.*detr-resnet-101-panoptic"):
        fetch("detr-resnet-7", tmp_path)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_downloads_and_then_exports(
    mirror: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported: list[tuple[Path, str, Path]] = []
    args = parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror}/good")
    run(args, lambda checkpoint, preset, out: exported.append((checkpoint, preset, out)))
    assert exported == [(tmp_path / f"detr-r50-{DIGITS}.pth", NAME, tmp_path / f"{NAME}.onnx")]
    assert f"SHA-256 begins with {DIGITS}" in capsys.readouterr().out


def test_the_command_exports_as_the_export_command_does(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    run(parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror}/good", "--out", str(out)))
    assert exported == [(str(tmp_path / f"detr-r50-{DIGITS}.pth"), NAME, str(out))]


def test_the_command_only_downloads_if_asked_to(mirror: str, tmp_path: Path) -> None:
    def export(checkpoint: Path, preset: str, out: Path) -> None:
        pytest.fail("nothing was to be exported")

    run(parsed(NAME, "--directory", str(tmp_path), "--base-url", f"{mirror}/good", "--no-export"), export)
    assert (tmp_path / f"detr-r50-{DIGITS}.pth").is_file()


def test_the_command_knows_only_the_published_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("detr-resnet-7")
    assert "detr-resnet-50-dc5" in capsys.readouterr().err
