"""The command `detr train`: data, network and Lightning's trainer, wired together."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from model.build import build_model, detector_of
from model.checkpoint import Checkpoint, CheckpointError, check_state, read_checkpoint, save_checkpoint
from model.checkpoint.structure import disagreements
from model.config import PRESETS, ModelConfig
from model.data.coco_dataset import CocoDataset
from model.data.collate import AspectRatioBatchSampler, collate
from model.data.folders import KINDS, open_dataset
from model.data.transforms import train_transform
from model.fitting import fit
from model.runtime.preprocess import ResizeRule
from model.training_module import TrainConfig, TrainingModule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr train`."""
    defaults = TrainConfig()
    parser.add_argument("--data", choices=KINDS, required=True, help="what --root holds")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, the log and resume files")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="detr-demo", help="network (default: %(default)s)")
    parser.add_argument(
        "--stage",
        choices=("detection", "masks"),
        default=defaults.stage,
        help="masks freezes the detector of --init",
    )
    parser.add_argument("--init", type=Path, help="checkpoint to start from")
    parser.add_argument("--resume", type=Path, help="a file of --out's resume folder: continue that run")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size, help="(default: %(default)s)")
    parser.add_argument("--lr", type=float, default=defaults.lr, help="learning rate (default: %(default)s)")
    parser.add_argument("--lr-backbone", type=float, help="the backbone's (default: that of --lr)")
    parser.add_argument("--weight-decay", type=float, default=defaults.weight_decay, help="(default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=("32-true", "bf16-mixed", "16-mixed"),
        default=defaults.precision,
        help="of the network",
    )
    parser.add_argument("--multi-scale", action="store_true", help="resize to a random scale, as published")
    parser.add_argument("--workers", type=int, default=defaults.workers, help="data processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Carry out `detr train`; bad data, paths or options, and a loss that diverges, end in one clear line."""
    try:
        path = train(args, read_config(args))
    except (OSError, ValueError, CheckpointError, FloatingPointError) as error:
        # An error in a process that loads data comes with that process's traceback; its last line is the error.
        raise SystemExit(f"detr train: {str(error).strip().splitlines()[-1]}") from error
    print(f"wrote {path}")


def read_config(args: argparse.Namespace) -> TrainConfig:
    """The settings in the options. Raises ValueError where there is nothing to train with them."""
    return TrainConfig(
        stage=args.stage,
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        lr_backbone=args.lr if args.lr_backbone is None else args.lr_backbone,
        weight_decay=args.weight_decay,
        precision=args.precision,
        workers=args.workers,
        seed=args.seed,
    )


def train(args: argparse.Namespace, config: TrainConfig) -> Path:
    """Train as told and return the checkpoint written, `OUT/model.safetensors`."""
    lightning.seed_everything(config.seed, verbose=False)
    preset = replace(PRESETS[args.preset], masks=config.stage == "masks")
    if config.stage == "masks" and not args.init:
        raise ValueError("--stage masks needs --init with the detector to freeze")
    rule = ResizeRule(preset.shortest_edge, preset.longest_edge)
    transform = train_transform(rule, multi_scale=args.multi_scale)
    data = open_dataset(args.data, args.root, "train", masks=preset.masks, transform=transform)
    model_config = replace(preset, num_classes=len(data.categories))
    network = build_model(model_config)
    initial = load_initial(network, args.init, model_config) if args.init else None
    args.out.mkdir(parents=True, exist_ok=True)
    module = TrainingModule(network, model_config.num_classes, config)
    fit(module, loader(data, config), args.out, args.resume)
    provenance = {
        "command": command_line("train", args),
        "torch": torch.__version__,
        "training": asdict(config),
        "images": len(data),
        "init": initial and {name: getattr(initial, name) for name in ("source", "sha256")},
    }
    path: Path = args.out / "model.safetensors"
    save_checkpoint(path, module.network.state_dict(), model_config, data.categories, provenance)
    return path


def command_line(command: str, args: argparse.Namespace) -> str:
    """A command with all its options, for provenance: whoever reads it may run it again.

    Of a path only the name is kept. The rest says nothing on another machine, and is nobody's business.
    """
    words = ["detr", command]
    for name, value in vars(args).items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, str | int | float | Path) and value is not False:
            words += [option, value.resolve().name if isinstance(value, Path) else str(value)]
    return shlex.join(words)


def load_initial(network: torch.nn.Module, path: Path, config: ModelConfig) -> Checkpoint:
    """Start from a checkpoint: all of the network, or the detector only where the checkpoint has no masks.

    Raises CheckpointError where it cannot be read or its weights do not fit, ValueError where it is of another
    network.
    """
    checkpoint = read_checkpoint(path)
    found = checkpoint.config
    if found.num_classes != config.num_classes:
        raise ValueError(f"{path.name} has {found.num_classes} classes, the data {config.num_classes}: they must agree")
    if found.masks and not config.masks:
        raise ValueError(f"{path.name} has a mask head: --stage detection starts from a detector without one")
    # Dilation leaves no trace in weights: those of a network without it are a fair start for one with it.
    wanted = replace(config, masks=found.masks, dilation=found.dilation)
    if wrong := disagreements(found, wanted):
        raise ValueError(f"{path.name} does not fit the preset: {'; '.join(wrong)}")
    check_state(checkpoint.state_dict, wanted)
    target = network if found.masks else detector_of(network)
    target.load_state_dict(checkpoint.state_dict)
    return checkpoint


def loader(data: CocoDataset, config: TrainConfig) -> DataLoader[Any]:
    """Shuffled batches of like aspect ratio."""
    sampler = AspectRatioBatchSampler(data.sizes, config.batch_size, seed=config.seed, drop_last=True)
    return DataLoader(
        data,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
    )
