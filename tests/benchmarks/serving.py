"""How fast and how large the service is beside its own engine, beside the machine, and beside what else one would use.

    python -m tests.benchmarks.serving --work runs/serving [--only demo,probe] [--turns 5] [--int8 FILE] [--json OUT]

Model files are made in the work folder at the first run. Both sides of a comparison run at once, in processes of their
own, and the one that is not measured sleeps; they are measured in turns, and each figure is the median over the turns
of the ratio (or difference) within one turn. Beside it stand the smallest and the largest of them, and the medians of
both sides. DETR R50 has the weights of the parity data and sees pictures of 640 x 480 at 800 x 1066; the demo model
sees pictures of COCO's shapes, no larger than it takes them. A baseline in LitServe or plain FastAPI runs the same
weights in eager PyTorch, with all 100 masks for /segment; for /segment the service keeps about 15 queries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from service.bench.bare_engine import BareEngine, bare_engine
from service.bench.pictures import synthetic_jpeg, synthetic_pictures
from service.images.answers import TaskName
from service.settings import DEMO_MODEL
from tests.benchmarks.serving_files import DETECTOR, Files, detector_flops, threshold_that_keeps
from tests.benchmarks.serving_sides import MatrixProduct, Served, baseline, our_service, two_engines

KEPT_QUERIES = 15
CLIENTS = 4  # that saturate the service: one image in the engine, others being decoded, encoded and sent
# The same where images are small, so that they share batches: one batch of 8 in the engine, and enough others for the
# next to be of one size.
CLIENTS_OF_BATCHES = 32
BATCH_SIZES = (1, 2, 4, 8)  # of bare loops
R50_PICTURES = [synthetic_jpeg((480, 640), seed) for seed in range(8)]
DEMO_PICTURES = synthetic_pictures(32, scale=0.3)
PADDED_PICTURES = [synthetic_jpeg(size, 1) for size in ((480, 640), (427, 640))]  # 800 x 1066 and 800 x 1199
FLOP_SIZE = (800, 1066)
PROBES_PER_S = 50.0

ENGINES: dict[str, dict[str, str]] = {
    "ONNX Runtime float32": {"device": "cpu", "precision": "float32"},
    "OpenVINO float32": {"device": "openvino", "precision": "float32"},
    "OpenVINO bfloat16": {"device": "openvino", "precision": "bfloat16"},
}
BEST = "OpenVINO bfloat16"


@dataclass(frozen=True)
class Row:
    """One figure: by turn what was compared, and both sides."""

    figure: str
    wanted: str  # "≥ 0.95"
    unit: str  # of the sides
    ours: list[float]
    theirs: list[float]
    compare: Callable[[float, float], float] = field(repr=False)

    @property
    def by_turn(self) -> list[float]:
        """What is compared, turn by turn."""
        return [self.compare(a, b) for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def holds(self) -> bool:
        """Whether the median is on the wanted side."""
        sign, bound = self.wanted.split()[:2]
        return median(self.by_turn) >= float(bound) if sign == "≥" else median(self.by_turn) <= float(bound)

    def __str__(self) -> str:
        turns = self.by_turn
        sides = " / ".join(f"{median(side):.4g}" for side in (self.ours, self.theirs))
        spread = f"{median(turns):.3g} ({min(turns):.3g} to {max(turns):.3g})"
        return f"| {self.figure} | {self.wanted} | {spread} | {'yes' if self.holds else 'no'} | {sides} {self.unit} |"

    def as_json(self) -> dict[str, object]:
        """Everything that was measured."""
        values = {key: value for key, value in asdict(self).items() if key != "compare"}
        return values | {"median": median(self.by_turn), "holds": self.holds}


def ratio(ours: float, theirs: float) -> float:
    """How many times the other side."""
    return ours / theirs


def difference(ours: float, theirs: float) -> float:
    """How much more than the other side."""
    return ours - theirs


@dataclass
class Benchmark:
    """What all rows share."""

    files: Files
    turns: int
    engines: Mapping[str, Mapping[str, str]]  # settings of the service, by name
    best: str  # the engine that baselines are compared with
    threshold: float | None = None  # of /segment, once it is needed

    def groups(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """Rows that are measured together, by the name that --only takes."""
        return {
            "engine": self.engine,
            "flops": self.flops,
            "demo": self.demo,
            "detect": self.detect,
            "segment": self.segment,
            "padding": self.padding,
            "probe": self.probe,
        }

    def engine(self) -> Iterator[Row]:
        """Service and bare engine, with each engine."""
        for name, settings in self.engines.items():
            given = {"model": str(self.files.artifact()), **settings}
            saturated, of_two, bare, alone = [], [], [], []
            with ExitStack() as stack:
                service = stack.enter_context(our_service(given, R50_PICTURES, "detect"))
                two = stack.enter_context(our_service(two_engines(given), R50_PICTURES, "detect"))
                engine = stack.enter_context(bare_engine(given, R50_PICTURES, "detect", None))
                for _ in range(self.turns):
                    saturated.append(service.throughput(CLIENTS, len(R50_PICTURES)))
                    bare.append(rate(engine, len(R50_PICTURES)))
                    of_two.append(two.throughput(CLIENTS, len(R50_PICTURES)))
                    alone.append(1000 * service.latency(len(R50_PICTURES) // 2))
            yield Row(f"R50 /detect, service ÷ bare engine, {name}", "≥ 0.95", "images/s", saturated, bare, ratio)
            yield Row(f"R50 /detect, two engines ÷ bare engine, {name}", "≥ 0.97", "images/s", of_two, bare, ratio)
            one = [1000 / each for each in bare]
            yield Row(f"R50 /detect, p50 of one client − engine, {name}", "≤ 15 ms", "ms", alone, one, difference)

    def flops(self) -> Iterator[Row]:
        """The detector's arithmetic and a large matrix product's. It has no mask head, of which a panoptic model runs
        the part that belongs to the image whether or not it is asked for masks."""
        flops = detector_flops(*FLOP_SIZE)
        for name in self.engines:
            if name not in ENGINES:
                continue  # int8 is of a panoptic model
            given = {"model": str(self.files.artifact(DETECTOR)), **ENGINES[name]}
            done, product = [], []
            with bare_engine(given, R50_PICTURES, "detect", None) as engine:
                for _ in range(self.turns):
                    done.append(rate(engine, len(R50_PICTURES)) * flops / 1e9)
                    product.append(MatrixProduct(ENGINES[name]["precision"]).flops() / 1e9)
            yield Row(f"R50 detector, FLOP/s ÷ matrix product, {name}", "≥ 0.85", "GFLOP/s", done, product, ratio)

    def demo(self) -> Iterator[Row]:
        """The demo model, whose images are small, at saturation, beside the bare loop of the best batch size."""
        for name in self.engines:
            if name not in ENGINES:
                continue  # int8 is of R50
            given = {"model": str(DEMO_MODEL), **ENGINES[name]}
            count = 4 * len(DEMO_PICTURES)  # of a turn
            saturated, of_two, best, ours_cpu, best_cpu = [], [], [], [], []
            with ExitStack() as stack:
                service = stack.enter_context(our_service(given, DEMO_PICTURES, "detect"))
                two = stack.enter_context(our_service(two_engines(given), DEMO_PICTURES, "detect"))
                loops = [
                    stack.enter_context(bare_engine(given, DEMO_PICTURES, "detect", None, size)) for size in BATCH_SIZES
                ]
                for _ in range(self.turns):
                    before = service.cpu_seconds()
                    saturated.append(service.throughput(CLIENTS_OF_BATCHES, count))
                    ours_cpu.append(1000 * (service.cpu_seconds() - before) / count)
                    of_two.append(two.throughput(CLIENTS_OF_BATCHES, count))
                    rates, spent = zip(*(rate_and_cpu(loop, count) for loop in loops), strict=True)
                    best.append(max(rates))
                    best_cpu.append(min(spent))
            yield Row(f"demo /detect, service ÷ best bare loop, {name}", "≥ 0.85", "images/s", saturated, best, ratio)
            yield Row(f"demo /detect, two engines ÷ best bare loop, {name}", "≥ 0.85", "images/s", of_two, best, ratio)
            yield Row(f"demo /detect, CPU an image, {name}", "≤ 1.18", "ms", ours_cpu, best_cpu, ratio)

    def detect(self) -> Iterator[Row]:
        """/detect beside the baselines."""
        counts = {"LitServe": 8, "plain FastAPI": 2, "transformers": 2}
        yield from self._beside("detect", "≥ 3.5", counts, None)

    def segment(self) -> Iterator[Row]:
        """/segment beside the baselines, and the memory that it takes."""
        self.threshold = threshold_that_keeps(self.files.artifact(), R50_PICTURES, KEPT_QUERIES)
        counts = {"LitServe": 4, "plain FastAPI": 1, "transformers": 1}
        yield from self._beside("segment", "≥ 12", counts, self.threshold)

    def padding(self) -> Iterator[Row]:
        """Exact and published padding, a batch of two images of unequal size."""
        for name in self.engines:
            if name not in ENGINES:
                continue
            exact: list[float] = []
            published: list[float] = []
            with ExitStack() as stack:
                engines = [
                    stack.enter_context(
                        bare_engine({"model": str(file), **ENGINES[name]}, PADDED_PICTURES, "detect", None, 2)
                    )
                    for file in (self.files.artifact(), self.files.artifact(padding="published"))
                ]
                for _ in range(self.turns):
                    for engine, seconds in zip(engines, (exact, published), strict=True):
                        seconds.append(median(engine.seconds(count=3)))
            yield Row(f"R50 padded batch, exact ÷ published, {name}", "≤ 1.05", "s", exact, published, ratio)

    def probe(self) -> Iterator[Row]:
        """GET /health/live beside a saturating load, and alone."""
        models = {"R50": (str(self.files.artifact()), R50_PICTURES), "demo": (str(DEMO_MODEL), DEMO_PICTURES)}
        for name, (model, pictures) in models.items():
            given = {"model": model, **self.engines[self.best]} if name == "R50" else {"model": model, **ENGINES[BEST]}
            busy, idle = [], []
            with our_service(given, pictures, "detect") as service:
                for _ in range(self.turns):
                    idle.append(1000 * service.probe_p99(PROBES_PER_S, 2, 0))
                    busy.append(1000 * service.probe_p99(PROBES_PER_S, 4, 2 * CLIENTS))
            yield Row(f"p99 of /health/live, saturated − idle, {name}", "≤ 50 ms", "ms", busy, idle, difference)

    def _beside(self, task: TaskName, wanted: str, counts: Mapping[str, int], threshold: float | None) -> Iterator[Row]:
        given = {"model": str(self.files.artifact()), **self.engines[self.best]}
        query = "" if threshold is None else f"?threshold={threshold}"
        checkpoint, folder = self.files.checkpoint(), self.files.transformers(task)
        baselines: dict[str, Callable[[], AbstractContextManager[Served]]] = {
            "LitServe": lambda: baseline("lit", checkpoint, R50_PICTURES, task, threshold),
            "plain FastAPI": lambda: baseline("plain", checkpoint, R50_PICTURES, task, threshold),
            "transformers": lambda: baseline("plain", folder, R50_PICTURES, task, threshold, "--kind", "pipeline"),
        }
        with our_service(given, R50_PICTURES, task, query) as service:
            for name, start in baselines.items():
                ours, theirs = [], []
                with start() as other:
                    for _ in range(self.turns):
                        ours.append(service.throughput(CLIENTS, len(R50_PICTURES)))
                        theirs.append(other.throughput(counts[name], counts[name]))
                    # Only the first is a promise; the others are shown beside it.
                    bound = wanted if name == "LitServe" else "≥ 1"
                    yield Row(f"R50 /{task}, {self.best} ÷ {name}", bound, "images/s", ours, theirs, ratio)
                    if task == "segment" and name == "plain FastAPI":
                        yield _memory_row(service, other, self.best)


def _memory_row(service: Served, other: Served, engine: str) -> Row:
    """Both have answered all that they were asked until now."""
    ours, theirs = service.peak_bytes(len(R50_PICTURES)) / 1e6, other.peak_bytes(1) / 1e6
    return Row(f"R50 /segment, peak memory, {engine} ÷ eager PyTorch", "≤ 0.35", "MB", [ours], [theirs], ratio)


def rate(engine: BareEngine, count: int) -> float:
    """Images a second of so many batches."""
    times = engine.seconds(count=count)
    return engine.batch_size * len(times) / sum(times)


def rate_and_cpu(engine: BareEngine, images: int) -> tuple[float, float]:
    """Images a second of a loop over about so many, and milliseconds of processor time for each."""
    batches = max(1, images // engine.batch_size)
    before = engine.cpu_seconds()
    found = rate(engine, batches)
    return found, 1000 * (engine.cpu_seconds() - before) / (batches * engine.batch_size)


def main() -> int:
    """Measure, print a row as soon as it is there, and return 1 if a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for model files, which are made if missing")
    parser.add_argument(
        "--only", help="groups of rows, comma-separated: engine, flops, demo, detect, segment, padding, probe"
    )
    parser.add_argument("--turns", type=int, default=5, help="of each side (default: %(default)s)")
    parser.add_argument("--engines", help=f"comma-separated parts of: {', '.join(ENGINES)}, int8")
    parser.add_argument("--int8", type=Path, metavar="FILE", help="R50 as `detr quantize` writes it, to measure too")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")
    args = parser.parse_args()
    engines: dict[str, Mapping[str, str]] = dict(ENGINES)
    if args.int8 is not None:
        engines["OpenVINO int8"] = {"device": "openvino", "model": str(args.int8)}
    if args.engines is not None:
        engines = {
            name: given for name, given in engines.items() if any(part in name for part in args.engines.split(","))
        }
    benchmark = Benchmark(Files(args.work), args.turns, engines, BEST if BEST in engines else next(iter(engines)))
    groups = benchmark.groups()
    rows: list[Row] = []
    print("| figure | wanted | found (least to most) | holds | ours / theirs |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.only.split(",") if args.only else groups:
        for row in groups[name]():
            print(row, flush=True)
            rows.append(row)
            if args.json is not None:
                args.json.write_text(json.dumps([each.as_json() for each in rows], indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
