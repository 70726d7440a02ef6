"""`detr doctor`: what works here is tried, not guessed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.runtime.artifact.file import Artifact
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import Engine
from model.runtime.engines.opening import open_engine
from model.runtime.installing import install_command
from service import doctor
from service.cli import main
from service.doctor import Finding, Report, examine, report_table, try_device

REPOSITORY = Path(__file__).parents[2]


def in_this_process(monkeypatch: pytest.MonkeyPatch, *devices: str) -> None:
    monkeypatch.setattr(doctor, "_apart", lambda device: try_device(device) if device in devices else [])


def found(report: Report, name: str) -> Finding:
    (finding,) = (finding for finding in report.findings if finding.name == name)
    return finding


def test_it_opens_the_demo_model_where_torch_does_not_exist() -> None:
    blocked = (
        "import sys; sys.modules['torch'] = None; from service.cli import main; sys.exit(main(['doctor', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked, "doctor", "--json"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    report = json.loads(done.stdout)
    works = {finding["name"]: finding["works"] for finding in report["findings"]}
    assert works["cpu float32"]
    assert works["openvino float32"]
    assert works["demo"]
    assert done.returncode == 0
    assert report["serves_on"] is not None


def test_what_is_missing_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_there(*_: object, **__: object) -> None:
        command = install_command("detr-serve[openvino]")
        raise DeviceError(f"device openvino: OpenVINO is not installed; {command}; or use device cpu")

    monkeypatch.setattr(doctor, "open_engine", none_there)
    monkeypatch.setattr(doctor, "_is_installed", lambda module: module != "torch")
    in_this_process(monkeypatch, "openvino")
    report = examine()
    assert report.serves_on is None
    assert found(report, "train").detail.endswith("; missing torch")
    assert found(report, "train").fix == install_command("detr-serve[train]")
    (openvino,) = (finding for finding in report.findings if finding.part == "device")
    assert (openvino.works, openvino.fix) == (False, install_command("detr-serve[openvino]"))
    assert openvino.detail.startswith("OpenVINO is not installed")
    assert report_table(report).endswith("serving does not work here")


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("DETR_PORT", "many", "environment"),
        ("DETR_MODEL", "no such file.onnx", "no such file.onnx"),
        ("DETR_DEVICE", "tensorrt", None),
    ],
)
def test_serving_does_not_work_where_the_environment_forbids_it(
    variable: str, value: str, name: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch, "cpu")
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("detr serve runs on cpu here\n")
    monkeypatch.setenv(variable, value)
    assert main(["doctor"]) == 1
    assert name is None or found(examine(), name).works is False


def test_all_devices_that_are_asked_for_have_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch, "cpu", "cuda:all")
    monkeypatch.setenv("DETR_DEVICES", "cpu*2")
    assert examine().serves_on == "cpu*2"
    monkeypatch.setenv("DETR_DEVICES", "cuda:all")
    monkeypatch.setattr(doctor, "gpu_count", lambda: 0)
    assert examine().serves_on is None
    monkeypatch.setattr(doctor, "gpu_count", lambda: 2)
    tried: list[str] = []

    def open_but_the_last(artifact: Artifact, device: str, **_: str) -> Engine:
        tried.append(device)
        if device == "cuda:1":
            raise DeviceError("device cuda:1: no")
        return open_engine(artifact, "cpu")

    monkeypatch.setattr(doctor, "open_engine", open_but_the_last)
    report = examine()
    assert report.serves_on is None
    assert tried[-2:] == ["cuda:0", "cuda:1"]
    assert found(report, "cuda:1").works is False
    assert found(report, "cuda:0 float32").works


def test_a_device_that_ends_its_process_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "try_device", end_process)
    (finding,) = doctor._apart("cuda")
    assert (finding.name, finding.works) == ("cuda", False)


def end_process(device: str) -> list[Finding]:
    os._exit(1)
