"""What it costs that a graph can give its attention, where nobody asks for it: on the engine alone, and as /detect.

    python -m tests.benchmarks.attention --work runs/attention [--models demo r50] [--turns 6] [--batches 30]

Both artifacts of a model, with attention and without, run beside each other and are measured in turns; of two services
the one that is not measured sleeps. A ratio is the throughput with attention by that without: of the engine alone that
of the medians, over HTTP the median of the turns' ratios, beside it the least and the largest, and the same of
requests by processor time, which other work on the machine moves less. Files are made in the work folder at the first
run: DETR R50 has the weights of the parity data, and the demo model has its attention cut off.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from model.checkpoint.reading import read_checkpoint
from model.export import export
from model.runtime.artifact.file import read_artifact
from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS
from model.runtime.artifact.writing import write_proved
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch, resize
from service.bench.pictures import synthetic_jpeg, synthetic_pictures
from service.settings import DEMO_MODEL
from tests.benchmarks.serving_files import DETECTOR, Files
from tests.benchmarks.serving_sides import Served, our_service

DEVICES = {"ONNX Runtime": "cpu", "OpenVINO": "openvino"}
CLIENTS = 2  # one image in the engine, and one that is decoded, answered or sent
DEMO_PICTURES = synthetic_pictures(16, scale=0.3)
R50_PICTURES = [synthetic_jpeg((480, 640), seed) for seed in range(4)]

Pair = tuple[Path, Path]  # with attention, and without


def main() -> None:
    """Print a line for each model and engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=["demo", "r50"], default=["demo", "r50"])
    parser.add_argument("--devices", nargs="+", choices=list(DEVICES.values()), default=list(DEVICES.values()))
    parser.add_argument("--turns", type=int, default=6, help="over HTTP")
    parser.add_argument("--batches", type=int, default=30, help="of one picture, on the engine alone")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print("model, engine | engine alone | /detect (least, largest) | the same by processor time")
    for model in options.models:
        pair = _demo(options.work) if model == "demo" else _r50(Files(options.work))
        pictures, count = (DEMO_PICTURES, 64) if model == "demo" else (R50_PICTURES, 4)
        for name in (name for name, device in DEVICES.items() if device in options.devices):
            with_attention, without = seconds_alone(pair, DEVICES[name], options.batches)
            rates, processor = over_http(pair, DEVICES[name], pictures, options.turns, count)
            print(
                f"{model}, {name} | {without / with_attention:.3f} | {spread(rates)} | {spread(processor)}", flush=True
            )


def spread(ratios: Sequence[float]) -> str:
    """The median, the least and the largest."""
    return f"{median(ratios):.3f} ({min(ratios):.3f}, {max(ratios):.3f})"


def seconds_alone(pair: Pair, device: str, batches: int) -> list[float]:
    """Median seconds of a picture of 480 x 640 pixels, for each artifact."""
    artifacts = [read_artifact(path) for path in pair]
    engines = [open_engine(artifact, device) for artifact in artifacts]
    batch = make_batch([resize(fixed_picture(480, 640), artifacts[0].metadata.resize)])
    seconds: list[list[float]] = [[] for _ in pair]
    for number in range(batches + 2):
        for engine, taken in zip(engines, seconds, strict=True):
            started = time.perf_counter()
            engine.infer(batch, np.full(1, NO_MASKS, np.float32))
            if number >= 2:  # once it is warm
                taken.append(time.perf_counter() - started)
    return [median(taken) for taken in seconds]


def over_http(
    pair: Pair, device: str, pictures: Sequence[bytes], turns: int, count: int
) -> tuple[list[float], list[float]]:
    """Ratios of throughput, and of requests by processor time, of each turn, with so many requests on each side."""
    rates, processor = [], []
    with both_services(pair, device, pictures) as services:
        for turn in range(turns):
            rate, spent = {}, {}
            for side in (0, 1) if turn % 2 else (1, 0):
                before = services[side].cpu_seconds()
                rate[side] = services[side].throughput(CLIENTS, count)
                spent[side] = services[side].cpu_seconds() - before
            rates.append(rate[0] / rate[1])
            processor.append(spent[1] / spent[0])
    return rates, processor


@contextmanager
def both_services(pair: Pair, device: str, pictures: Sequence[bytes]) -> Iterator[list[Served]]:
    """A service of each artifact, with one picture a batch, so that both run the same batches."""
    with ExitStack() as stack:
        given = {"device": device, "max_batch_size": "1", "batch_timing_ms": "0"}
        yield [stack.enter_context(our_service({"model": str(path), **given}, pictures, "detect")) for path in pair]


def _r50(files: Files) -> Pair:
    pair = files.folder / f"{DETECTOR}-attention.onnx", files.artifact(DETECTOR)
    if not pair[0].exists():
        export(read_checkpoint(files.checkpoint(DETECTOR)), pair[0], attention=True)
    return pair


def _demo(folder: Path) -> Pair:
    out = folder / "demo-without.onnx"
    if not out.exists():
        artifact = read_artifact(DEMO_MODEL)
        model = onnx.load(DEMO_MODEL)
        kept = [output for output in model.graph.output if output.name not in ATTENTION_OUTPUTS]
        del model.graph.output[:], model.metadata_props[:]
        model.graph.output.extend(kept)
        metadata = replace(artifact.metadata, attention=None)
        write_proved(
            out, model.SerializeToString(), metadata, artifact.golden,
            lambda cut: replay_golden(open_engine(cut, "cpu"), cut),
        )  # fmt: skip
    return DEMO_MODEL, out


if __name__ == "__main__":
    main()
