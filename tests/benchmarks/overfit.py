"""Can the network learn by heart? `detr train` on 40 scenes, detector first, then mask head, judged on the same.

    python -m tests.benchmarks.overfit --out runs/overfit

draws the scenes, trains on the CPU, and leaves `detection/log.jsonl` and `masks/log.jsonl` with AP and PQ on the way
(`tests.benchmarks.curve` draws them). A network, a loss or a data path with something wrong does not get to AP 0.9 and
PQ 0.8 here.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from model.data.shapes.command import write_shapes
from model.training.logs.log import read_log
from service.cli import main as detr

SCENES = 40
BATCH = 8


def write_scenes(root: Path) -> None:
    """Scenes whose validation split is what is learnt from."""
    write_shapes(root, {"train": SCENES}, size=128, seed=0)
    annotations = root / "annotations"
    shutil.copytree(root / "train2017", root / "val2017")
    shutil.copytree(annotations / "panoptic_train2017", annotations / "panoptic_val2017")
    for kind in ("instances", "panoptic"):
        shutil.copy(annotations / f"{kind}_train2017.json", annotations / f"{kind}_val2017.json")


def train(root: Path, out: Path, steps: int, *options: str) -> dict[str, float]:
    """Train on the scenes in `root`; the figures of the last validation, of which there are about ten."""
    every = steps / 10 / (SCENES // BATCH)  # epochs
    words = ["train", "--data", "shapes", "--root", str(root), "--out", str(out), "--steps", str(steps)]
    # Few pictures bear a higher rate, and a shorter rise to it, than the demo's thousands.
    words += ["--lr", "5e-4", "--lr-backbone", "5e-4", "--warmup-steps", "50", "--batch-size", str(BATCH)]
    detr([*words, "--evaluate-every", str(every), *options])
    figures: dict[str, float] = [entry for entry in read_log(out / "log.jsonl") if "AP" in entry][-1]
    return figures


def main() -> None:
    """Train and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=2400, help="of the detector (default: %(default)s)")
    parser.add_argument("--mask-steps", type=int, default=2200, help="of the mask head (default: %(default)s)")
    args = parser.parse_args()
    scenes, detector, masks = (args.out / name for name in ("scenes", "detection", "masks"))
    write_scenes(scenes)
    train(scenes, detector, args.steps)
    init = str(detector / "model.safetensors")
    figures = train(scenes, masks, args.mask_steps, "--stage", "masks", "--init", init)
    print("  ".join(f"{name} {figures[name]:.3f}" for name in ("AP", "AP50", "PQ", "PQ_th", "PQ_st")))


if __name__ == "__main__":
    main()
