"""What int8 costs in accuracy and gains in time and bytes, beside float32 and bfloat16.

    python -m tests.benchmarks.quantization --root datasets/shapes [--r50 FILE] [--pictures 300] [--rounds 9]

The demo model is quantised twice, the backbone alone (the default of `detr quantize`) and every part that can be, with
the training pictures of the data set, and measured on its validation pictures. Times are medians of rounds in which the
engines take turns: one demo picture of 128 x 160 and, where a float32 artifact of the published size is given, one
picture of 800 x 1066 without masks and with those of the 15 surest queries. Its accuracy is not measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.formats.folders import find_split
from model.evaluate import EvaluatedModel, evaluate
from model.quantization.plan import QUANTIZABLE_PARTS
from model.quantize import quantize
from model.runtime.answers.detections import best_real_class
from model.runtime.artifact.file import Artifact, read_artifact
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import Engine
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import Batch, make_batch

DEMO = Path(__file__).parents[2] / "model" / "demo" / "detr-demo.onnx"
FILES = {"float32": (), "int8 backbone": QUANTIZABLE_PARTS[:1], "int8 all parts": QUANTIZABLE_PARTS}
SURE = 15  # queries that get a mask


def files_of(source: Path, images: Path, pictures: int, folder: Path) -> dict[str, Artifact]:
    """The float32 artifact and its int8 ones, which are written to a folder."""
    artifacts = {}
    for name, parts in FILES.items():
        path = folder / f"{source.stem} {name}.onnx" if parts else source
        if parts:
            quantize(source, images, path, pictures, parts)
        artifacts[name] = read_artifact(path)
    return artifacts


def engines_of(artifacts: dict[str, Artifact]) -> dict[tuple[str, str], Engine]:
    """By engine and precision. Without OpenVINO, or bfloat16 in the processor, those rows are missing."""
    wanted = [(device, "float32", "float32") for device in ("openvino", "cpu")]
    wanted.append(("openvino", "float32", "bfloat16"))
    wanted += [(device, name, "auto") for device in ("openvino", "cpu") for name, parts in FILES.items() if parts]
    engines: dict[tuple[str, str], Engine] = {}
    for device, name, precision in wanted:
        try:
            engine = open_engine(artifacts[name], device, precision=precision)
        except DeviceError as error:
            print(f"left out: {error}")
            continue
        engines[device, precision if name == "float32" else name] = engine
    return engines


def medians(runs: dict[tuple[str, str], Callable[[], object]], rounds: int) -> dict[tuple[str, str], float]:
    """Median seconds of each, after one round that is not counted."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for turn in range(rounds + 1):
        for key, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:
                times[key].append(time.perf_counter() - began)
    return {key: statistics.median(values) for key, values in times.items()}


def print_times(artifacts: dict[str, Artifact], size: tuple[int, int], rounds: int) -> None:
    """A table for one picture, without masks and with some."""
    engines = engines_of(artifacts)
    batch = make_batch([fixed_picture(*size)])
    scores, _ = best_real_class(open_engine(artifacts["float32"], "cpu").infer(batch, _all(NO_MASKS)).pred_logits[0])
    for name, threshold in (("no masks", NO_MASKS), (f"about {SURE} masks", float(np.sort(scores)[-SURE - 1]))):
        runs = {key: _run(engine, batch, threshold) for key, engine in engines.items()}
        times = medians(runs, rounds)
        print(f"\n{size[0]} x {size[1]}, {name}\n\n| engine | precision | ms | float32 / it | bfloat16 / it |")
        print("| --- | --- | --- | --- | --- |")
        for (device, precision), seconds in times.items():
            ratios = [
                times.get(base, float("nan")) / seconds for base in ((device, "float32"), ("openvino", "bfloat16"))
            ]
            print(f"| {device} | {precision} | {1000 * seconds:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


def print_accuracy(artifacts: dict[str, Artifact], root: Path) -> None:
    """A table of AP and PQ on the validation pictures, of every engine."""
    print("\n| engine | precision | AP | PQ |\n| --- | --- | --- | --- |")
    for (device, precision), engine in engines_of(artifacts).items():
        figures = evaluate(
            EvaluatedModel(engine, artifacts["float32"].metadata), find_split("shapes", root, "val")
        ).figures()
        print(f"| {device} | {precision} | {figures['AP']:.4f} | {figures['PQ']:.4f} |", flush=True)


def _run(engine: Engine, batch: Batch, threshold: float) -> Callable[[], object]:
    return lambda: engine.infer(batch, _all(threshold))


def _all(threshold: float) -> NDArray[np.float32]:
    return np.array([threshold], np.float32)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="what `detr shapes` wrote")
    parser.add_argument("--r50", type=Path, help="a float32 artifact of the published size")
    parser.add_argument("--pictures", type=int, default=300, help="to calibrate the demo model (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    images = args.root / "train2017"
    with tempfile.TemporaryDirectory() as folder:
        demo = files_of(DEMO, images, args.pictures, Path(folder))
        print("\n| file | MB |\n| --- | --- |")
        for name, artifact in demo.items():
            print(f"| {name} | {len(artifact.data) / 1e6:.1f} |")
        print_accuracy(demo, args.root)
        print_times(demo, (128, 160), args.rounds)
        if args.r50:
            r50 = files_of(args.r50, images, 8, Path(folder))
            print(f"\n{args.r50.name}: {', '.join(f'{n} {len(a.data) / 1e6:.1f} MB' for n, a in r50.items())}")
            print_times(r50, (800, 1066), args.rounds)


if __name__ == "__main__":
    main()
