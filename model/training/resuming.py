"""A run that goes on: what its file to resume from says of it, and what may be asked for otherwise than it was."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.checkpoint.errors import CheckpointError
from model.checkpoint.files import load_file
from model.checkpoint.own import config_from_record, read_provenance
from model.data.formats.coco_dataset import CocoDataset
from model.network.build import build_model
from model.network.config import ModelConfig
from model.runtime.resize_rule import rule_to_record
from model.training.module import SETTINGS_KEY
from model.training.resume_file import RESUME_FILE, RUN_KEY
from model.training.run_folder import WEIGHTS_FILE
from model.training.settings.config import TrainConfig
from model.training.settings.options import checked
from model.training.start.initial import StartingNetwork

# What may be another when a run goes on, and stays as it was where it is not given. The rest would make it another run.
FREE_SETTINGS = {"epochs", "steps", "evaluate_every", "log_every", "save_every", "workers", "accumulate", "patience"}
FREE_FILES = {"root", "annotations", "images", "val_annotations", "val_images"}  # the data may have moved
FREE_OPTIONS = {"samples", "logger", "skip_check", "accelerator", "devices", "nodes", *FREE_FILES}
_NOT_KEPT = {"resume", "out", "run", "skip_check", "accelerator", "devices", "nodes"}
_PATH = "path of an option"  # which JSON has no type for


@dataclass(frozen=True)
class StoppedRun:
    """A run as it was when it stopped."""

    folder: Path
    step: int
    options: Mapping[str, Any]  # of the command line
    recipe: str
    settings: TrainConfig
    network: ModelConfig
    sources: dict[str, dict[str, str] | None]  # of the weights that it began with
    data: str  # in words

    @property
    def file(self) -> Path:
        """What to resume from."""
        return self.folder / RESUME_FILE

    def steps_of_last_weights(self) -> int:
        """How many steps those weights have seen that a run writes when it is finished; 0 where there are none."""
        path = self.folder / WEIGHTS_FILE
        return int(read_provenance(path).get("steps", 0)) if path.exists() else 0

    def starting_network(self) -> StartingNetwork:
        """A network for the file's weights: what the run began with need not be there any more."""
        notes = (f"goes on with {self.folder} at step {self.step}",)
        return StartingNetwork(build_model(self.network), self.network, self.sources, notes, frozenset())


def describe_for_resuming(args: argparse.Namespace, recipe: str, start: StartingNetwork, data: CocoDataset) -> str:
    """What a file to resume from says of its run besides the settings, a JSON text."""
    run = {
        "options": {name: value for name, value in vars(args).items() if name not in _NOT_KEPT and value is not None},
        "recipe": recipe,
        "network": asdict(start.config) | {"resize": rule_to_record(start.config.resize)},
        "sources": start.sources,
        "data": _in_words(data),
    }
    return json.dumps(run, default=lambda path: {_PATH: str(path.resolve())})


def read_stopped(path: Path) -> StoppedRun:
    """The run in a folder, or of a file to resume from in it.

    Raises CheckpointError where the file cannot be read, ValueError where there is none, or where it is something else.
    """
    file = path / RESUME_FILE if path.is_dir() else path
    if not file.exists():
        raise ValueError(f"there is nothing to go on with in {path}: a run that has taken a step has {RESUME_FILE}")
    try:
        content = load_file(file)[1]
    except CheckpointError as error:
        raise CheckpointError(f"{file.name}: {error}") from error
    if RUN_KEY not in content:
        raise ValueError(f"{path.name} is no run to go on with, nor its {RESUME_FILE}")
    try:
        run = json.loads(content[RUN_KEY], object_hook=_with_paths)
        settings = TrainConfig(**content[SETTINGS_KEY])
        return StoppedRun(
            file.resolve().parents[1],
            content["global_step"],
            run["options"],
            run["recipe"],
            settings,
            config_from_record(run["network"]),
            run["sources"],
            run["data"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} was written by another version of this program, which can go on with it") from error


def with_its_options(args: argparse.Namespace, stopped: StoppedRun) -> tuple[argparse.Namespace, TrainConfig]:
    """The options that a run goes on with, as if all had been given again, and their settings.

    `args` has what was given now. Raises ValueError where that would make it another run.
    """
    if args.out is not None and args.out.resolve() != stopped.folder:
        raise ValueError(f"a run goes on in its own folder, {stopped.folder}: leave --out out")
    named = {name: value for name, value in vars(args).items() if name not in ("out", "resume", "run")}
    given = {name: value for name, value in named.items() if value is not None}
    settings = asdict(stopped.settings)
    for name, value in given.items():
        before = settings.get(name, stopped.options.get(name))
        same = _comparable(value) == _comparable(before) or str(value) == before  # a name on the hub reads as a path
        if name not in FREE_SETTINGS | FREE_OPTIONS and not same:
            option, begun = f"--{name.replace('_', '-')}", "without it" if before is None else f"with {before}"
            raise ValueError(f"{option} {value} would make it another run, which began {begun}: leave {option} out")
    now = {name: value for name, value in given.items() if name in FREE_SETTINGS}
    length = {"epochs": None, "steps": None} if {"epochs", "steps"} & now.keys() else {}
    config = checked(stopped.settings, {**length, **now})
    kept = {name: value for name, value in stopped.options.items() if name not in length}
    return argparse.Namespace(**vars(args) | kept | given | {"out": stopped.folder, "resume": None}), config


def check_it_goes_on(stopped: StoppedRun, data: CocoDataset, steps: int) -> None:
    """Raise ValueError where a run has nothing left to do in so many steps, or would go on with other data."""
    if (now := _in_words(data)) != stopped.data:
        raise ValueError(f"the data have changed: {now}, where the run began with {stopped.data}")
    if stopped.step >= steps:
        raise ValueError(f"the run is at step {stopped.step} already: it must be longer than that (--steps, --epochs)")
    if stopped.steps_of_last_weights() >= steps:
        raise ValueError(f"the run is finished, all {steps} steps of it: with more --steps or --epochs it goes on")


def _in_words(data: CocoDataset) -> str:
    return f"{len(data)} pictures with {len(data.objects.labels)} objects in {len(data.categories)} classes"


def _with_paths(fields: dict[str, Any]) -> Any:
    return Path(fields[_PATH]) if _PATH in fields else fields


def _comparable(value: Any) -> Any:
    if isinstance(value, Path):
        return value.resolve()
    return tuple(value) if isinstance(value, list) else value
