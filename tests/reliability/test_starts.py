"""How the process starts, or says in one line why it does not (rows F15, F18 and F19)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import httpx
import pytest

from service.settings import Settings, SettingsError, read_settings
from tests.processes import until
from tests.reliability.conftest import Measured
from tests.server_process import serving, start_in_vain

Damage = Callable[[bytes], bytes]


def flip(seed: int) -> Damage:
    """Three bytes changed, anywhere."""

    def damage(data: bytes) -> bytes:
        dice, damaged = random.Random(seed), bytearray(data)
        for position in dice.sample(range(len(data)), 3):
            damaged[position] ^= dice.randint(1, 255)
        return bytes(damaged)

    return damage


DAMAGES: dict[str, Damage] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "random": lambda data: random.Random(0).randbytes(len(data)),
    "a line too many": lambda data: data + b"\n",
    "three bytes": flip(0),
}


def assert_refused(artifact: Path) -> float:
    """It ends with 1 and one line that names the file and says more, and was never ready; the seconds it took."""
    began = time.monotonic()
    code, log, error = start_in_vain("--model", artifact)
    seconds = time.monotonic() - began
    assert code == 1
    (line,) = error.splitlines()
    assert line.startswith(f"detr serve: {artifact.name}: ")
    assert len(line) > len(f"detr serve: {artifact.name}: ")
    assert str(artifact.parent) not in line
    assert not [line for line in log if str(line["message"]).startswith("ready")]
    return seconds


@pytest.mark.row(id="F15")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_in_one_line(tiny: Path, tmp_path: Path, damage: str) -> None:
    artifact = tmp_path / "damaged.onnx"
    artifact.write_bytes(DAMAGES[damage](tiny.read_bytes()))
    assert_refused(artifact)


@pytest.mark.row(id="F15")
def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    assert_refused(tmp_path / "missing.onnx")
    (tmp_path / "folder.onnx").mkdir()
    assert_refused(tmp_path / "folder.onnx")


@pytest.mark.soak
@pytest.mark.row(id="F15")
def test_twenty_of_twenty_flips_of_the_demo_model_are_refused(demo: Path, tmp_path: Path, measured: Measured) -> None:
    slowest = 0.0
    for seed in range(20):
        artifact = tmp_path / "flipped.onnx"
        artifact.write_bytes(flip(seed)(demo.read_bytes()))
        slowest = max(slowest, assert_refused(artifact))
    measured("F15", f"20 of 20 three-byte flips refused, the slowest after {slowest:.1f} s")
    assert slowest <= 10


@pytest.mark.row(id="F18")
@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_takes_a_value_or_names_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "-1", "x", "inf", "1e400", "9" * 400, ""):
        monkeypatch.setenv(f"DETR_{name.upper()}", value)
        refusal = refusal_of_settings()
        assert refusal is None or f"DETR_{name.upper()}" in refusal
        assert refusal is None or len(refusal.splitlines()) == 1


def refusal_of_settings() -> str | None:
    """Why the settings in the environment cannot be used; None if they can."""
    try:
        read_settings({})
    except SettingsError as error:
        return str(error)
    return None


@pytest.mark.row(id="F19")
def test_it_is_live_before_it_is_ready_and_answers_only_then(tmp_path: Path, jpeg: bytes) -> None:
    """The demo model takes a moment to load and to prove itself; meanwhile all is said as it is."""
    with serving(None, tmp_path, wait=False) as server:
        assert server.status("/health/live") == 200
        before = server.post("/detect", jpeg, "image/jpeg")
        ready: list[int] = []

        def is_ready() -> bool:
            ready.append(server.status("/health/ready"))
            return ready[-1] == 200

        until(is_ready)
        assert set(ready) == {503, 200}
        assert (before.status_code, before.json()["error"]["code"]) == (503, "starting")
        assert int(before.headers["retry-after"]) >= 1
        assert server.post("/detect", jpeg, "image/jpeg").status_code == 200
        assert server.errors() == []


@pytest.mark.soak
@pytest.mark.row(id="F19")
def test_the_first_request_is_no_slower_than_later_ones(tmp_path: Path, jpeg: bytes, measured: Measured) -> None:
    firsts, steady = [], []
    for _ in range(5):
        with serving(None, tmp_path) as server, server.client() as client:
            client.get("/health/live")
            took = [seconds_of(client, jpeg) for _ in range(50)]
            firsts.append(took[0])
            steady += took[10:]
    first, usual = median(firsts), median(steady)
    figure = (
        f"first request {1000 * first:.0f} ms (worst of 5 starts {1000 * max(firsts):.0f}), later {1000 * usual:.0f} ms"
    )
    measured("F19", figure, first=first, worst=max(firsts), later=usual)
    assert first <= 2 * usual + 0.01


def seconds_of(client: httpx.Client, body: bytes) -> float:
    """How long one request takes."""
    began = time.monotonic()
    client.post("/detect", files={"image": body}).raise_for_status()
    return time.monotonic() - began
