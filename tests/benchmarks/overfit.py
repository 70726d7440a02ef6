"""Can the network learn by heart? `detr train` on 40 scenes, detector and mask head together, judged on the same 40.

    python -m tests.benchmarks.overfit --out runs/overfit

draws the scenes, trains on the CPU, and leaves `log.jsonl` with AP and PQ on the way (`tests.benchmarks.curve` draws
it). A network, a loss or a data path with something wrong does not get to AP 0.9 and PQ 0.8 here, as this does.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from model.cli import main as detr
from model.data.shapes import write_shapes

SCENES = 40


def overfit(root: Path, out: Path, steps: int, *options: str) -> dict[str, float]:
    """Train on the scenes in `root`, written if they are not there; the figures of the last validation."""
    if not root.exists():
        write_shapes(root, {"train": SCENES}, size=128, seed=0)
        # What is validated with is what was learnt from.
        shutil.copytree(root / "train2017", root / "val2017")
        shutil.copytree(root / "annotations" / "panoptic_train2017", root / "annotations" / "panoptic_val2017")
        for kind in ("instances", "panoptic"):
            annotations = root / "annotations"
            shutil.copy(annotations / f"{kind}_train2017.json", annotations / f"{kind}_val2017.json")
    words = ["train", "--data", "shapes", "--root", str(root), "--out", str(out), "--stage", "joint"]
    # Few pictures bear a higher rate, and a shorter rise to it, than the demo's thousands.
    rates = ["--lr", "5e-4", "--lr-backbone", "5e-4", "--warmup-steps", "50", "--lr-turn", "0.7"]
    detr([*words, "--steps", str(steps), "--batch-size", "8", *rates, *options])
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    figures: dict[str, float] = [entry for entry in entries if "AP" in entry][-1]
    return figures


def main() -> None:
    """Train and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=2000, help="(default: %(default)s)")
    args = parser.parse_args()
    figures = overfit(args.out / "scenes", args.out, args.steps, "--evaluate-every", "40", "--precision", "bf16-mixed")
    print("  ".join(f"{name} {figures[name]:.3f}" for name in ("AP", "AP50", "PQ", "PQ_th", "PQ_st")))


if __name__ == "__main__":
    main()
