"""What a step of mask training costs: masks of every query, of the matched ones, and those with less kept in memory.

    python -m tests.benchmarks.mask_loss [--steps N] [--device cpu|cuda] [--json FILE]

Each way runs in a process of its own, on the same two pictures of 480 pixels with ten objects each, over a frozen
DETR-R50 with random weights. What is printed is the median time of a step (detector, matching, mask head, losses,
gradients and optimizer) and the most memory that a step takes beside the network, its optimizer and the pictures.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psutil
import torch
from torch import Tensor

from model.loss.criterion import SetCriterion, weighted_sum
from model.loss.matcher import HungarianMatcher, matched_pairs
from model.network.build import build_model
from model.network.config import PRESETS
from model.network.nested_tensor import NestedTensor, normalize, pad_images
from model.network.segmentation import DETRsegm
from model.training.activation_checkpointing import checkpoint_activations

CONFIG = PRESETS["detr-resnet-50-panoptic"]
WAYS = {
    "every": "mask head for all queries",
    "matched": "for matched queries only",
    "checkpointed": "matched, activation checkpointing",
}
SIZE = 480  # pixels
BATCH = 2
OBJECTS = 10  # an image


@dataclass(frozen=True)
class Cost:
    """Of one way to learn from a batch."""

    way: str
    masks: int  # that a step computes
    peak_mib: float
    seconds: float  # median of a step


def picture(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Noise uint8 [3, SIZE, SIZE] and a target with rectangles for masks."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    boxes = torch.cat([0.3 + 0.4 * torch.rand(OBJECTS, 2, generator=generator), torch.full((OBJECTS, 2), 0.3)], dim=1)
    cells = (torch.arange(SIZE) + 0.5) / SIZE
    across, down = ((cells - boxes[:, axis, None]).abs() < boxes[:, axis + 2, None] / 2 for axis in (0, 1))
    labels = torch.randint(0, CONFIG.num_classes, (OBJECTS,), generator=generator)
    return image, {"labels": labels, "boxes": boxes, "masks": down[:, :, None] & across[:, None, :]}


def learn(
    network: DETRsegm,
    criterion: SetCriterion,
    optimizer: torch.optim.Optimizer,
    inputs: NestedTensor,
    targets: list[dict[str, Tensor]],
    every: bool,
) -> int:
    """One step of mask training; returns how many masks were computed."""
    with torch.no_grad():
        decoded = network.detr.decode(inputs)
        outputs = network.detr.predict(decoded.hs)
    match = criterion.matcher(outputs, targets)
    pairs = torch.cartesian_prod(torch.arange(BATCH), torch.arange(CONFIG.num_queries)).to(inputs.tensors.device)
    outputs["mask_index"] = pairs if every else matched_pairs(match)
    outputs["pred_masks"] = network.masks(decoded, outputs["mask_index"])
    losses = criterion.mask_losses(outputs, targets, match, inputs.padding_mask)
    optimizer.zero_grad()
    torch.autograd.backward(weighted_sum(losses))
    optimizer.step()
    return len(outputs["mask_index"])


def a_step(way: str, device: str) -> Callable[[], int]:
    """A step of training, ready to be taken."""
    torch.manual_seed(0)
    network = build_model(CONFIG).to(device)
    assert isinstance(network, DETRsegm)
    network.train()
    network.detr.eval().requires_grad_(False)
    if way == "checkpointed":
        checkpoint_activations(network)
    pictures = [picture(seed) for seed in range(BATCH)]
    images, padding_mask = pad_images([image.to(device) for image, _ in pictures])
    targets = [{name: value.to(device) for name, value in target.items()} for _, target in pictures]
    criterion = SetCriterion(CONFIG.num_classes, HungarianMatcher()).to(device)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4)
    inputs = normalize(images, padding_mask)
    return partial(learn, network, criterion, optimizer, inputs, targets, way == "every")


def measure(way: str, steps: int, device: str) -> Cost:
    """Take so many steps after a first one, which allocates what is allocated once."""
    step = a_step(way, device)
    before = torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss
    masks = step()
    seconds = []
    for _ in range(steps):
        start = perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(perf_counter() - start)
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        # Linux counts in KiB, macOS in bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(WAYS[way], masks, (peak - before) / 2**20, median(seconds))


def in_a_fresh_process(way: str, steps: int, device: str) -> Cost:
    """`measure` where nothing has run before."""
    command = [sys.executable, "-m", __spec__.name, "--way", way, "--steps", str(steps), "--device", device]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Cost(**json.loads(answer))


def as_table(costs: list[Cost]) -> str:
    """A Markdown table, with the share of the first way's memory and time beside each."""
    first = costs[0]
    lines = ["| | masks a step | peak memory | seconds a step |", "| --- | ---: | ---: | ---: |"]
    for cost in costs:
        memory = f"{cost.peak_mib:.0f} MiB ({cost.peak_mib / first.peak_mib:.0%})"
        lines.append(
            f"| {cost.way} | {cost.masks} | {memory} | {cost.seconds:.2f} ({cost.seconds / first.seconds:.0%}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Memory and time of a step of mask training.")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way is not None:
        print(json.dumps(asdict(measure(options.way, options.steps, options.device))))
        return
    costs = [in_a_fresh_process(way, options.steps, options.device) for way in WAYS]
    print(as_table(costs))
    if options.json is not None:
        report: dict[str, Any] = {
            "preset": "detr-resnet-50-panoptic",
            "pixels": SIZE,
            "batch": BATCH,
            "objects": OBJECTS,
            "steps": options.steps,
            "device": options.device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "ways": [asdict(cost) for cost in costs],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
