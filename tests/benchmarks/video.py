"""`detr predict` on a video beside the bare engine over its frames, in turns: python -m tests.benchmarks.video.

The video is made here: thirty seconds of a window that moves over the picture of docs/. The bare engine runs batches of
its frames that are prepared before, of the size that is best. Seconds of the processor are told beside those of the
clock, because other work disturbs them less.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service import cli
from service.images.answers import TASKS
from service.images.prepare import ImageRules, prepare_decoded
from service.lifecycle.loading import ArtifactLoader, LoadedModel
from service.predict import command
from service.process.memory import resident_bytes
from service.process.trace import Trace
from service.settings import read_settings
from tests.benchmarks.bare import BATCH_SIZES, bare_cost, cost
from tests.documentation import REPOSITORY
from tests.service.predict.video.clips import write_clip

_DIFFERENT = 32  # frames that the bare engine runs, again and again


def main() -> None:
    """Print a line for each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rate", type=int, default=25)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCH_SIZES), help="Of the bare engine.")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", default="", help="The default is the demo model.")
    args = parser.parse_args()
    loader = ArtifactLoader(read_settings({"model": args.model} if args.model else {}))
    model, count = loader.load(), args.seconds * args.rate
    with (
        TemporaryDirectory() as name,
        patch.object(loader, "load", lambda: model),  # once, so that both sides are warm
        patch.object(command, "ArtifactLoader", lambda *_, **__: loader),
    ):
        clip = _clip(Path(name) / "clip.mp4", count, args.rate, args.height)
        images = _prepared(model, clip)
        for turn in range(args.turns):
            for task in args.tasks:
                for drawn in (False, True):
                    bare = bare_cost(model, images, task, count, args.batches)
                    words = ["predict", str(clip), "--task", task, "--json", f"{name}/out.jsonl"]
                    words += ["--overlay", f"{name}/drawn"] if drawn else []
                    words += ["--model", args.model] if args.model else []
                    predict = cost(lambda words=words: cli.main(words))  # type: ignore[misc]
                    assert (Path(name) / "out.jsonl").read_text().count("\n") == count
                    print(
                        f"turn {turn} {task}{' drawn' if drawn else ''}: {count / predict.clock:.1f} frames/s; "
                        f"predict ÷ bare {bare.clock / predict.clock:.3f} by the clock, "
                        f"{bare.processor / predict.processor:.3f} by the processor "
                        f"({1000 * bare.processor / count:.1f} of {1000 * predict.processor / count:.1f} ms a frame); "
                        f"{(resident_bytes() or 0) / 1e6:.0f} MB",
                        flush=True,
                    )


def _clip(path: Path, count: int, rate: int, height: int) -> Path:
    width = height * 4 // 3
    with Image.open(REPOSITORY / "docs" / "example.jpg") as picture:
        pixels = np.asarray(picture.convert("RGB").resize((width + 64, height + 48)))
    tops = [number * 48 // count for number in range(count)]
    lefts = [number * 64 // count for number in range(count)]
    frames = (
        np.ascontiguousarray(pixels[top : top + height, left : left + width])
        for top, left in zip(tops, lefts, strict=True)
    )
    return write_clip(path, frames, codec="libx264", pix_fmt="yuv420p", rate=rate)


def _prepared(model: LoadedModel, clip: Path) -> list[NDArray[np.uint8]]:
    """Frames as the network takes them, [h, w, 3]."""
    rules, images = ImageRules.of(read_settings({}), model.metadata, model.canvas_multiple), []
    with av.open(str(clip)) as video:
        for _, frame in zip(range(_DIFFERENT), video.decode(video=0), strict=False):
            picture = Image.fromarray(np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8))
            images.append(prepare_decoded(picture, rules, Trace()).resized)
    return images


if __name__ == "__main__":
    main()
