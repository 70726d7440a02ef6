"""What the training loop costs beside the training: `detr train`'s step against a plain loop's, in one process.

Both sides have the same network, data, losses, precision and optimizer, and are measured in turns, a few steps each:

    python -m tests.benchmarks.step_time --root datasets/shapes

prints a table of medians. The plain loop is what anyone would write; `detr train` adds Lightning, the log, TensorBoard,
the progress bar and the file to resume from.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from model.data.collate import AspectRatioBatchSampler, collate
from model.data.formats.folders import open_dataset
from model.data.transforms import train_transform
from model.loss.criterion import SetCriterion, weighted_sum
from model.loss.matcher import HungarianMatcher
from model.network.build import build_model
from model.network.config import PRESETS
from model.network.detr import DETR
from model.network.nested_tensor import normalize
from model.runtime.resize_rule import ResizeRule
from model.training.data import TrainingData, TrainingSet
from model.training.fitting import Hardware, fit
from model.training.module import TrainingModule
from model.training.settings.config import TrainConfig
from model.training.settings.recipes import RECIPES

SKIPPED = 3  # first steps of a turn, which allocate memory


class Clock(lightning.Callback):
    """The moment at which every step began."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Keep the time."""
        self.ticks.append(time.perf_counter())


def plain_steps(root: Path, config: TrainConfig, steps: int, device: str = "cpu") -> list[float]:
    """Seconds of every step of a plain loop on "cpu" or "cuda"."""
    network, data, rule = _setting(root)
    network = network.train().to(device).to(memory_format=torch.channels_last)
    criterion = SetCriterion(12, HungarianMatcher())
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    sampler = AspectRatioBatchSampler(data.sizes, config.batch_size, drop_last=True)
    batches = DataLoader(TrainingSet(data, train_transform(rule)), batch_sampler=sampler, collate_fn=collate)
    ticks = [time.perf_counter()]
    for (batch,) in _first(batches, steps):
        with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16-mixed"):
            inputs = normalize(batch.images.to(device), batch.padding_mask.to(device))
            inputs = inputs._replace(tensors=inputs.tensors.contiguous(memory_format=torch.channels_last))
            outputs = network(inputs)
        targets = [{name: value.to(device) for name, value in target.items()} for target in batch.targets]
        loss = weighted_sum(criterion(_float(outputs), targets))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
        ticks.append(time.perf_counter())
    return [after - before for before, after in pairwise(ticks)][SKIPPED:]


def our_steps(root: Path, config: TrainConfig, steps: int, device: str = "cpu") -> list[float]:
    """Seconds of every step of `detr train`'s loop on "cpu" or "cuda"."""
    network, data, rule = _setting(root)
    module = TrainingModule(network, 12, config, steps)
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        hardware = Hardware("gpu" if device == "cuda" else "cpu", 1)
        fit(module, TrainingData(data, None, rule, config), Path(out), callbacks=[clock], hardware=hardware)
    return [after - before for before, after in pairwise(clock.ticks)][SKIPPED:]


def _setting(root: Path) -> tuple[DETR, Any, ResizeRule]:
    torch.manual_seed(0)
    preset = replace(PRESETS["detr-demo"], masks=False)
    network = build_model(preset)
    assert isinstance(network, DETR)
    data = open_dataset("shapes", root, "train", masks=False)
    return network, data, preset.resize


def _float(outputs: Any) -> Any:
    return (
        [_float(layer) for layer in outputs]
        if isinstance(outputs, list)
        else (
            {name: _float(value) for name, value in outputs.items()} if isinstance(outputs, dict) else outputs.float()
        )
    )


def _first(batches: DataLoader[Any], steps: int) -> Iterator[Any]:
    for batch, _ in zip(batches, range(steps), strict=False):
        yield batch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="a folder that `detr shapes` wrote")
    parser.add_argument("--turns", type=int, default=6, help="of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=23, help="of each turn (default: %(default)s)")
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    recipe = replace(RECIPES["demo"].config, steps=args.steps, workers=0, precision=args.precision, evaluate_every=0)
    seconds: dict[str, list[float]] = {"plain loop": [], "detr train": []}
    for _ in range(args.turns):
        seconds["plain loop"].append(statistics.median(plain_steps(args.root, recipe, args.steps)))
        seconds["detr train"].append(statistics.median(our_steps(args.root, recipe, args.steps)))
    medians = {name: statistics.median(turns) for name, turns in seconds.items()}
    ratios = [ours / plain for plain, ours in zip(*seconds.values(), strict=True)]
    print("| loop | ms a step (median of turns) |\n| --- | --- |")
    for name, median in medians.items():
        print(f"| {name} | {1000 * median:.1f} |")
    ratio = statistics.median(ratios)
    print(f"\nratio, median of {len(ratios)} turns: {ratio:.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")
    if args.json:
        args.json.write_text(json.dumps({"seconds": seconds, "ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
