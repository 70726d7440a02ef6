"""The command `detr doctor`: what works on this machine, what does not and why, and the command that would change it.

Each kind of device, and each device that is asked for, is tried by opening the demo model on it and replaying its
golden sample, in a process of its own, because a driver that is broken may end the process that tries it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

from model.hub.cache import ArtifactCache, default_cache
from model.hub.known import KNOWN
from model.hub.names import HubError, read_name
from model.runtime.artifact.file import ArtifactError, read_artifact
from model.runtime.engines.cores import available_cores
from model.runtime.engines.cuda import gpu_count
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.engines.devices import devices_of
from model.runtime.engines.engine import is_gpu
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.installing import install_command
from model.runtime.resampling import resampler
from service.process.memory import memory_limit
from service.process.options import unknown_variables
from service.settings import DEMO_MODEL, Settings, SettingsError, read_settings

# In the order in which `auto` takes them, except that the last has to be asked for; it needs all that the first needs.
_DEVICES = ("cuda", "openvino", "cpu", "tensorrt")
# The modules of each extra of the package, and what it is for.
_EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "openvino": (("openvino",), "the faster engine for CPUs"),
    "cuda": (("nvidia.cudnn",), "the libraries of CUDA and cuDNN as packages, where the system has none"),
    "train": (
        ("torch", "torchvision", "lightning", "scipy", "tensorboard", "onnx", "onnxscript", "jinja2"),
        "detr train, evaluate, export and quantize",
    ),
    "heic": (("pillow_heif",), "pictures in HEIC"),
    "video": (("av",), "videos and cameras for detr predict"),
    "otel": (("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"), "traces of requests"),
}
_PATIENCE_S = 600.0  # for a device; the first use of a GPU may compile for minutes


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    part: str  # machine, device, model, extra, settings
    name: str
    works: bool | None  # None where that is no question
    detail: str
    fix: str | None = None  # what to type where it does not work


@dataclass(frozen=True)
class Report:
    """All that was found."""

    serves_on: str | None  # the device that `detr serve` takes by itself; None if serving does not work
    findings: list[Finding]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr doctor`."""
    parser.add_argument("--json", action="store_true", help="Print the report as JSON.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look and print; 0 if serving works, else 1."""
    report = examine()
    print(json.dumps(asdict(report), indent=2) if args.json else report_table(report))
    return int(report.serves_on is None)


def examine() -> Report:
    """Try everything. Takes a few seconds for each device that is there."""
    settings, models = list(_settings()), list(_models())
    words = read_settings({}).device_words if settings[0].works else ("auto",)
    asked = [word.partition("*")[0] for word in words]
    by_device = {device: _apart(device) for device in dict.fromkeys([*_DEVICES, *asked]) if device != "auto"}
    working = {device for device, found in by_device.items() if found and not any(map(_has_failed, found))}
    serves_on = None
    if not any(finding.works is False for finding in [*settings, *models]):
        if words == ("auto",):
            serves_on = next((device for device in _DEVICES if device in working), None)
        elif working.issuperset(asked):
            serves_on = ",".join(words)
    devices = [finding for found in by_device.values() for finding in found]
    return Report(serves_on, [*_machine(), *devices, *models, *_extras(), *settings])


def _has_failed(finding: Finding) -> bool:
    """Whether a device cannot be used; one that cannot compute in a precision that it may not have can."""
    return finding.works is False and finding.name.partition(" ")[0] == finding.name


def report_table(report: Report) -> str:
    """The report as people read it."""
    words = {True: "yes", False: "no", None: "-"}
    rows = [(finding.part, finding.name, words[finding.works]) for finding in report.findings]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for finding, row in zip(report.findings, rows, strict=True):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"{cells}  {finding.detail}")
        if finding.fix is not None:
            lines.append(f"{' ' * len(cells)}  -> {finding.fix}")
    verdict = (
        "serving does not work here" if report.serves_on is None else f"detr serve runs on {report.serves_on} here"
    )
    return "\n".join([*lines, "", verdict])


def try_device(device: str) -> list[Finding]:
    """Open the demo model on a device, or on all that the word means, in each precision, and replay its golden sample
    there.
    """
    try:
        devices = devices_of([device], gpu_count)
    except DeviceError as error:
        return [Finding("device", device, False, str(error).removeprefix(f"device {device}: "))]
    return [finding for each in devices for finding in _try_one(each)]


def _try_one(device: str) -> list[Finding]:
    found = [_try_precision(device, "float32")]
    if not found[0].works:
        return [Finding("device", device, False, found[0].detail, found[0].fix)]
    if device == "openvino":  # the one that converts a float32 model
        found.append(_try_precision(device, "bfloat16"))
    if is_gpu(device):
        detail = "it takes a model of its own: detr export --precision float16"
        found.append(Finding("device", f"{device} float16", None, detail))
    return found


def _try_precision(device: str, precision: str) -> Finding:
    name = f"{device} {precision}"
    try:
        artifact = read_artifact(DEMO_MODEL)
        started = time.perf_counter()
        engine = open_engine(artifact, device, precision=precision)
        off = replay_golden(engine, artifact)
        opened = time.perf_counter()
        replay_golden(engine, artifact)
        again = 1000 * (time.perf_counter() - opened)
    except (ArtifactError, DeviceError, DeviceMemoryError) as error:
        reason = str(error).removeprefix(f"device {device}: ").removesuffix("; or use device cpu")
        return Finding("device", name, False, reason, _command_in(reason))
    detail = f"golden sample within {off:.1g}; {again:.0f} ms, after {opened - started:.1f} s to open"
    return Finding("device", name, True, detail)


def _command_in(reason: str) -> str | None:
    """The command that a message advises, if it is one of those that install an extra."""
    commands = (install_command(f"detr-serve[{extra}]") for extra in _EXTRAS)
    return next((command for command in commands if command in reason), None)


def _apart(device: str) -> list[Finding]:
    """`try_device` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(try_device, device).result(_PATIENCE_S)
        except BrokenProcessPool:
            return [Finding("device", device, False, "its driver or library ended the process that tried it")]
        except TimeoutError:
            for child in process._processes.values():  # which would be waited for without end
                child.kill()
            return [Finding("device", device, False, f"it did not answer within {_PATIENCE_S:g} s")]


def _machine() -> Iterator[Finding]:
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("machine", "system", None, system)
    cores, all_cores = available_cores(), os.cpu_count()
    yield Finding("machine", "cores", None, f"{cores} of {all_cores}, by affinity and the container's quota")
    limit = memory_limit()
    has_sizes = hasattr(os, "sysconf")  # Windows has not
    memory = limit or (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if has_sizes else None)
    where = "of the machine" if limit is None else "by the container's limit"
    yield Finding("machine", "memory", None, "unknown" if memory is None else f"{memory / 1e9:.1f} GB, {where}")
    slower = "" if resampler() != "Pillow" else ", in four times the time of cykooz-resizer, which is not installed"
    yield Finding("machine", "resizing", None, f"by {resampler()}{slower}")


def _models() -> Iterator[Finding]:
    try:
        read_artifact(DEMO_MODEL)
        yield Finding("model", "demo", True, "the bundled model, which is served where no other is named")
    except ArtifactError as error:
        yield Finding("model", "demo", False, str(error), install_command("--force-reinstall detr-serve"))
    folder = default_cache()
    cache = ArtifactCache(folder)
    try:
        cache.check_writable()
        yield Finding("model", "cache", True, f"{folder}")
    except HubError as error:
        # Which does no harm to a file or the bundled model.
        yield Finding("model", "cache", None, str(error), "export DETR_MODEL_CACHE=FOLDER")
    for known in KNOWN:
        if (name := read_name(known.name)) is not None and cache.holds(name):
            yield Finding("model", known.name, True, "in the cache")
    if (given := os.environ.get("DETR_MODEL")) is not None and given:
        yield _named(given, cache)


def _named(model: str, cache: ArtifactCache) -> Finding:
    """The model that DETR_MODEL names; nothing is downloaded."""
    path = Path(model)
    try:
        if path.is_file():
            return Finding("model", model, True, f"a whole artifact of {read_artifact(path).metadata.name}")
        if path.is_dir():
            return Finding("model", model, None, "a folder, which is imported at the start")
        name = read_name(model)
    except (ArtifactError, HubError) as error:
        return Finding("model", model, False, str(error))
    if name is None:
        return Finding("model", model, False, "DETR_MODEL names no file here and no model on the hub", "detr models")
    if cache.holds(name):
        return Finding("model", model, True, "in the cache")
    return Finding("model", model, None, "not in the cache; it is downloaded at the start", f"detr fetch {model}")


def _extras() -> Iterator[Finding]:
    for extra, (modules, purpose) in _EXTRAS.items():
        missing = [module for module in modules if not _is_installed(module)]
        detail = f"{purpose}; missing {', '.join(missing)}" if missing else purpose
        yield Finding("extra", extra, not missing, detail, install_command(f"detr-serve[{extra}]") if missing else None)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def _settings() -> Iterator[Finding]:
    given = sorted(name for name in Settings.model_fields if f"DETR_{name.upper()}" in os.environ)
    try:
        read_settings({})
        named = ", ".join(f"DETR_{name.upper()}" for name in given) or "none; all have their defaults"
        yield Finding("settings", "environment", True, named)
    except SettingsError as error:
        yield Finding("settings", "environment", False, str(error))
    for unknown in unknown_variables():
        yield Finding("settings", "environment", None, unknown)
