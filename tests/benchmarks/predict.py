"""`detr predict` over a list of pictures beside the bare engine, in turns: python -m tests.benchmarks.predict.

Every fiftieth file is broken; each picture has its line, those without an answer, too. The bare engine runs batches of
the pictures that are prepared before, of the size that is best. Both sides run in this process; seconds of the
processor are told beside those of the clock, because other work on the machine disturbs them less.
"""

from __future__ import annotations

import argparse
import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from service import cli
from service.bench.pictures import synthetic_pictures
from service.images.answers import TASKS
from service.images.prepare import ImageRules, prepare
from service.lifecycle.loading import ArtifactLoader
from service.predict import command
from service.process.memory import resident_bytes
from service.process.trace import Trace
from service.settings import read_settings
from tests.benchmarks.bare import BATCH_SIZES, bare_cost, cost

_DIFFERENT = 64


def main() -> None:
    """Print a line for each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCH_SIZES), help="Of the bare engine.")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", default="", help="The default is the demo model.")
    args = parser.parse_args()
    settings = read_settings({"model": args.model} if args.model else {})
    loader, pictures = ArtifactLoader(settings), synthetic_pictures(_DIFFERENT, args.scale)
    model = loader.load()
    with (
        TemporaryDirectory() as name,
        patch.object(loader, "load", lambda: model),  # once, so that both sides are warm
        patch.object(command, "ArtifactLoader", lambda *_, **__: loader),
    ):
        listed, out = Path(name) / "list.txt", Path(name) / "out.jsonl"
        broken = _write(pictures, args.pictures, listed)
        rules = ImageRules.of(settings, model.metadata, model.canvas_multiple)
        images = [prepare(picture, "", rules, Trace()).resized for picture in pictures]
        for turn in range(args.turns):
            for task in args.tasks:
                bare = bare_cost(model, images, task, args.pictures - broken, args.batches)
                words = ["predict", "--list", str(listed), "--task", task, "--out", str(out)]
                words += ["--model", args.model] if args.model else []
                with redirect_stderr(io.StringIO()):
                    predict = cost(lambda words=words: cli.main(words))  # type: ignore[misc]
                lines = [json.loads(line) for line in out.read_text().splitlines()]
                assert sorted(line["file"] for line in lines) == sorted(listed.read_text().splitlines())
                errors = sum("error" in line for line in lines)
                assert errors == broken
                print(
                    f"turn {turn} {task}: {len(lines)} lines, {errors} of them errors; "
                    f"{args.pictures / predict.clock:.1f} pictures/s; throughput of predict ÷ bare "
                    f"{bare.clock / predict.clock:.3f} by the clock, {bare.processor / predict.processor:.3f} by the "
                    f"processor; {(resident_bytes() or 0) / 1e6:.0f} MB",
                    flush=True,
                )


def _write(pictures: list[bytes], count: int, listed: Path) -> int:
    """Write the pictures, and their list; how many are broken."""
    paths = [listed.parent / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(b"broken" if number % 50 == 7 else pictures[number % _DIFFERENT])
    listed.write_text("".join(f"{path}\n" for path in paths))
    return sum(number % 50 == 7 for number in range(count))


if __name__ == "__main__":
    main()
