"""`detr bench` against real server processes, and what it says where it cannot measure."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.cli import main
from tests.server_process import serving
from tests.service.bench.scripted import answer, scripted_server

QUICK = ["--seconds", "0.3", "--warmup", "0", "--clients", "2", "--scale", "0.2"]
ON_CPU = ["--device", "cpu", "--engine-threads", "1"]


@pytest.fixture(scope="module")
def url(detection_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(detection_artifact, tmp_path_factory.mktemp("serve"), "--batch-timing-ms", "0") as server:
        yield server.url


def rows(table: str) -> dict[str, str]:
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE))


def test_a_running_service_is_measured(url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    assert main(["bench", url, *QUICK, "--json", str(out), "--deadline-ms", "600000"]) == 0
    told = rows(capsys.readouterr().out)
    found = json.loads(out.read_text())
    assert found["load"]["requests"] > 0
    assert found["load"]["errors"] == {}
    assert found["load"]["goodput"] == found["load"]["throughput"] > 0
    assert found["load"]["stages_ms"].keys() == {"decode", "preprocess", "queue", "infer", "postprocess", "encode"}
    assert found["server"]["batch_size"] >= 1
    assert 0 <= found["server"]["padding_ratio"] < 1
    assert told["errors"] == "none"
    assert told["throughput"] == f"{found['load']['throughput']:.2f} images/s"
    assert told["memory"].endswith(" MB")


def test_an_open_loop_sends_at_its_rate(url: str, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    assert main(["bench", url, *QUICK[:4], "--scale", "0.2", "--rate", "50", "--json", str(out)]) == 0
    load = json.loads(out.read_text())["load"]
    assert load["requests"] == 15
    assert load["client_late_ms"] >= 0


def test_pictures_come_from_a_folder_if_one_is_given(url: str, jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    out = tmp_path / "figures.json"
    assert main(["bench", url, *QUICK, "--images", str(tmp_path), "--json", str(out)]) == 0
    load = json.loads(out.read_text())["load"]
    assert load["errors"].keys() == {"400"}
    assert load["throughput"] > 0


def test_a_model_file_is_measured_beside_its_bare_engine(
    panoptic_artifact: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    assert main(["bench", str(panoptic_artifact), *QUICK, *ON_CPU, "--task", "segment", "--json", str(out)]) == 0
    found, told = json.loads(out.read_text()), rows(capsys.readouterr().out)
    assert found["load"]["errors"] == {}
    assert found["engine_alone"]["throughput"] > 0
    assert found["engine_alone"]["ratio"] == found["load"]["throughput"] / found["engine_alone"]["throughput"]
    assert found["peak_memory_bytes"] > 1e7
    assert told["service ÷ engine alone"] == f"{found['engine_alone']['ratio']:.3f}"


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["bench", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_no_masks_no_server_and_no_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, url, *QUICK, "--task", "segment") == (
        "detr bench: the model tiny detects objects and has no masks; use --task detect"
    )
    assert complaint(capsys, "http://127.0.0.1:1", *QUICK) == "detr bench: no server answers at http://127.0.0.1:1"
    assert complaint(capsys, "https://127.0.0.1:1", *QUICK) == (
        "detr bench: https://127.0.0.1:1: expected http://HOST:PORT"
    )
    assert complaint(capsys, url, *QUICK, "--device", "cpu") == (
        "detr bench: --device needs a model file, not a URL; a running service has its own"
    )


@contextmanager
def replying(reply: bytes) -> Iterator[str]:
    """A server in a thread of its own that answers everything alike."""
    ready, ports = threading.Event(), []

    async def script(head: bytes, body: bytes) -> bytes:
        return reply

    async def serve() -> None:
        async with scripted_server(script) as seen:
            ports.append(seen.target.port)
            stop = asyncio.Event()
            stops.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop, stop = stops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(200, b"<html>"), "is not a DETR service"),
        (answer(200, b"[]"), "is not a DETR service"),
        (answer(404, b'{"detail": "no"}'), "is not a DETR service"),
        (b"220 mail.example\r\n\r\n", "is not a DETR service"),
        (
            answer(503, b'{"error": {"message": "the model is still loading"}}'),
            "answers 503: the model is still loading",
        ),
    ],
    ids=["a page", "other JSON", "not found", "not HTTP", "starting"],
)
def test_another_server_is_told_from_ours(reply: bytes, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with replying(reply) as url:
        assert complaint(capsys, url, *QUICK) == f"detr bench: {url} {reason}"


def test_a_file_that_cannot_be_served_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert complaint(capsys, str(tmp_path / "broken.onnx"), *QUICK).startswith("detr bench: broken.onnx: ")
    assert "absent.onnx" in complaint(capsys, str(tmp_path / "absent.onnx"), *QUICK)


def test_an_output_that_cannot_be_written_and_a_folder_without_pictures_are_one_line(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", url, *QUICK, "--json", str(tmp_path / "absent" / "out.json")]) == 1
    assert capsys.readouterr().err.startswith("detr bench: cannot write ")
    assert complaint(capsys, url, *QUICK, "--images", str(tmp_path)).endswith("has no JPEG, PNG or WebP files")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate", "0"],
        ["--clients", "0"],
        ["--seconds", "-1"],
        ["--header", "no colon"],
        ["--rate", "1", "--clients", "2"],
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "http://127.0.0.1:1", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("detr bench: --")


def test_a_terminal_sees_how_far_it_is_and_a_host_needs_no_scheme(url: str) -> None:
    words = [sys.executable, "-m", "service.cli", "bench", url.removeprefix("http://"), "--seconds", "1.5"]
    terminal, shown = os.openpty()
    termios.tcsetwinsize(shown, (24, 80))
    subprocess.run([*words, "--warmup", "0"], stdout=subprocess.DEVNULL, stderr=shown, check=True, timeout=120)
    os.close(shown)
    assert "of 2 s" in os.read(terminal, 65536).decode()
    os.close(terminal)
