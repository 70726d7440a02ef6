"""The command `detr train`: data, network, settings and Lightning's trainer, wired together."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning
import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from model.checkpoint.errors import CheckpointError
from model.checkpoint.saving import save_checkpoint
from model.data.check import NoObjectError, check_categories, check_dataset
from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.folders import NamedFiles, Split, find_splits
from model.evaluation.evaluator import Evaluator
from model.evaluation.opening import open_evaluator
from model.hub.names import HubError
from model.hub.weights import weights_on_hub
from model.network.build import detector_of
from model.network.config import PRESETS
from model.runtime.answers.detections import OutputError
from model.runtime.engines.raw_outputs import NO_MASKS
from model.training.class_weights import class_weights
from model.training.data import TrainingData
from model.training.fitting import Hardware, fit
from model.training.logs.loggers import open_loggers
from model.training.logs.notes import Notes
from model.training.memory import advice_on_memory, choose_parts
from model.training.module import TrainingModule
from model.training.moving_average import RAW
from model.training.provenance import command_line, describe_run
from model.training.resume_file import RESUME_FILE
from model.training.resuming import StoppedRun, check_it_goes_on, describe_for_resuming, read_stopped, with_its_options
from model.training.run_folder import BEST_FILE, WEIGHTS_FILE, folder_for
from model.training.samples import SamplePredictions
from model.training.settings.advice import Plan, advice
from model.training.settings.choosing import queries_for
from model.training.settings.config import TrainConfig
from model.training.settings.options import add_arguments, read_recipe, with_defaults
from model.training.settings.recipes import Recipe
from model.training.start.freezing import refuse_random
from model.training.start.initial import StartingNetwork, starting_network
from model.training.stopping import Interrupted, StopRequest, stoppable
from model.training.validation import Validation, validation_notes

__all__ = ["add_arguments", "run"]

SIGNALLED = 128  # and the signal's number, as shells report it


def run(args: argparse.Namespace) -> int:
    """Carry out `detr train`; bad data, paths or options, and a loss that diverges, end in one clear line.

    Returns the exit code: 0, or 128 and the number of the signal that asked to stop.
    """
    try:
        with stoppable() as stop:
            path = train(args, stop)
    except Interrupted as reason:
        print(f"detr train: {reason}: {how_to_go_on(args.resume or args.out)}", file=sys.stderr)
        return SIGNALLED + reason.number
    except (OSError, ValueError, CheckpointError, HubError, FloatingPointError, OutputError) as error:
        # An error in a process that loads data comes with that process's traceback; its last line is the error.
        raise SystemExit(f"detr train: {str(error).strip().splitlines()[-1]}") from error
    except (MemoryError, RuntimeError) as error:
        if (memory := advice_on_memory(error)) is None:
            raise
        raise SystemExit(f"detr train: {memory} ({how_to_go_on(args.resume or args.out)})") from error
    print_once(f"wrote {path}")
    return 0


def how_to_go_on(run: Path | None) -> str:
    """What to do where a run has stopped."""
    if run is None or (run.is_dir() and not (run / RESUME_FILE).exists()):
        return "nothing is learnt yet, start again by the same command"
    return f"go on with it by {shlex.join(['detr', 'train', '--resume', str(run)])}"


@rank_zero_only
def print_once(line: str) -> None:
    """Tell the person who started the run, once, however many processes it has."""
    print(line, flush=True)


@dataclass(frozen=True)
class DataSplits:
    """What is learnt from and, where there are annotations for it, what is validated with."""

    train: CocoDataset
    val: CocoDataset | None
    val_split: Split | None


@dataclass(frozen=True)
class Begun:
    """A run before its first step, or before the next one."""

    args: argparse.Namespace  # with all options
    recipe: str
    config: TrainConfig
    data: DataSplits
    start: StartingNetwork


def train(args: argparse.Namespace, stop: StopRequest) -> Path:
    """Train as told and return the checkpoint written, `OUT/model.safetensors`. Raises Interrupted after a signal."""
    stopped = read_stopped(args.resume) if args.resume else None
    notes = Notes(print_once)
    begun = begin_again(args, stopped, notes) if stopped else begin(args, notes)
    args, name, config, data, start = begun.args, begun.recipe, begun.config, begun.data, begun.start
    loaders = TrainingData(data.train, data.val, start.config.resize, config)
    steps = config.total_steps(loaders.batches)
    if stopped:
        check_it_goes_on(stopped, data.train, steps)
    else:
        if not hasattr(args, "skip_check"):
            check_data(loaders, notes)
        for sentence in advice(plan_of(loaders, start, steps)):
            notes.add(f"warning: {sentence}")
    evaluator = validation_evaluator(data, start)
    for note in validation_notes(evaluator):
        notes.add(note)
    module = TrainingModule(
        start.network,
        start.config.num_classes,
        config,
        steps,
        evaluator.mask_threshold if evaluator else NO_MASKS,
        start.config.normalization,
        weights_of_classes(config, data.train, notes),
    )
    hardware = Hardware(args.accelerator, args.devices, args.nodes)
    if parts := choose_parts(module, loaders, hardware):
        notes.add(parts)
    notes.write(args.out, command_line("train", args))

    @rank_zero_only
    def save(path: Path, figures: dict[str, float]) -> None:
        provenance = describe_run(args, name, module, start, figures) | {"images": len(data.train)}
        save_checkpoint(path, module.network.state_dict(), start.config, data.train.categories, provenance)

    validation = Validation(evaluator, partial(save, args.out / BEST_FILE)) if evaluator else None
    samples = [SamplePredictions(data.val, args.out, start.config, args.samples)] if data.val and args.samples else []
    average = fit(
        module,
        loaders,
        args.out,
        validation=validation,
        callbacks=samples,
        loggers=open_loggers(args.logger, args.out, goes_on=stopped is not None),
        hardware=hardware,
        resumed_step=stopped.step if stopped else None,
        stop=stop,
        about=describe_for_resuming(args, name, start, data.train),
    )
    path: Path = args.out / WEIGHTS_FILE
    save(path, validation.figures if validation else {})
    if average:
        average.use(module, RAW)
        save(args.out / "model-raw.safetensors", validation.raw_figures if validation else {})
    if module.global_step < steps:
        why = f"{config.patience} validations were no better (--patience)"
        print_once(f"ended at step {module.global_step} of {steps}: {why}")
    return path


def begin(args: argparse.Namespace, notes: Notes) -> Begun:
    """A run from its first step; its folder is there afterwards. Raises what reading its options and its data does."""
    complete = with_defaults(args)
    data = open_data(complete, read_recipe(complete)[1].config, notes)
    name, recipe = read_recipe(complete, len(data.train))
    lightning.seed_everything(recipe.config.seed, verbose=False)
    start = network_to_train(complete, recipe, data.train)
    refuse_random(recipe.config.freeze, start.fresh)
    complete.out = args.out = folder_for(args.out)
    for note in (f"recipe {name}: {recipe.summary}", *recipe.notes, *start.notes, f"writes to {complete.out}"):
        notes.add(note)
    return Begun(complete, name, recipe.config, data, start)


def begin_again(args: argparse.Namespace, stopped: StoppedRun, notes: Notes) -> Begun:
    """A run that goes on, by its own options. Raises ValueError where others would make it another run."""
    complete, config = with_its_options(args, stopped)
    complete = with_defaults(complete)
    data = open_data(complete, config, notes)
    start = stopped.starting_network()
    lightning.seed_everything(config.seed, verbose=False)
    for note in start.notes:
        notes.add(note)
    return Begun(complete, stopped.recipe, config, data, start)


def open_data(args: argparse.Namespace, config: TrainConfig, notes: Notes) -> DataSplits:
    """The pictures that are named. Raises what data sets raise, and ValueError where the splits differ in classes."""
    masks = config.stage != "detection"
    train_named = NamedFiles(args.annotations, args.images)
    train, val = find_splits(args.data, args.root, train_named, NamedFiles(args.val_annotations, args.val_images))
    train_data = train.open(masks=masks)
    if config.evaluate_every == 0:  # None is as often as suits the run
        return DataSplits(train_data, None, None)
    val_data = val.open(masks=masks)
    check_categories(train_data, val_data)
    if val.part == "held out":
        notes.add(val.describe(val_data))
    return DataSplits(train_data, val_data, val)


def network_to_train(args: argparse.Namespace, recipe: Recipe, data: CocoDataset) -> StartingNetwork:
    """The network that the options and the recipe start from, for the classes of the data."""
    preset, weights, queries = args.preset, args.backbone_weights, args.num_queries
    edges = (args.shortest_edge, args.longest_edge)
    if args.init is None:  # which says all of this otherwise
        preset, weights = preset or recipe.preset, weights or recipe.backbone_weights
        queries = queries or queries_for(
            int(data.objects.counts.max(initial=0)), recipe.num_queries or PRESETS[preset].num_queries
        )
        edges = (edges[0] or recipe.image_size[0], edges[1] or recipe.image_size[1])
    found = None if args.init is None else weights_on_hub(Path(args.init))
    if found:
        args.init = str(args.init)  # a name, which is told as it is
    return starting_network(
        categories=data.categories,
        stage=recipe.config.stage,
        preset=preset,
        init=found.folder if found else args.init,
        init_name=found.source if found else None,
        backbone_weights=None if weights == "none" else weights,
        image_size=edges,
        num_queries=queries,
    )


def weights_of_classes(config: TrainConfig, data: CocoDataset, notes: Notes) -> list[float] | None:
    """What each class weighs in the loss, said where they are not alike."""
    counts = np.bincount(data.objects.labels, minlength=len(data.categories)).tolist()
    weights = class_weights(config.class_weights, data.categories, counts)
    if weights is not None:
        named = zip(data.categories, weights, strict=True)
        notes.add("class weights: " + ", ".join(f"{category.name} {weight:.3g}" for category, weight in named))
    return weights


@rank_zero_only
def check_data(loaders: TrainingData, notes: Notes) -> None:
    """Read every picture once and say what there is. Raises ValueError or OSError naming what cannot be learnt from."""
    notes.add(str(check_dataset(loaders.train, workers=loaders.config.workers)))
    if loaders.val is not None:
        try:
            notes.add(str(check_dataset(loaders.val, workers=loaders.config.workers)))
        except NoObjectError as error:
            otherwise = "validate with other pictures (--val-annotations) or with none (--evaluate-every 0)"
            raise ValueError(f"{error}; {otherwise}") from error
    notes.add(str(loaders.padding()))


def plan_of(loaders: TrainingData, start: StartingNetwork, steps: int) -> Plan:
    """The run that is about to begin, as far as it may surprise."""
    counts, queries = loaders.train.objects.counts, start.config.num_queries
    return Plan(
        loaders.config,
        steps,
        pictures=len(loaders.train),
        most_objects=int(counts.max(initial=0)),
        crowded=int((counts > queries).sum()),
        queries=queries,
        large_from_scratch=start.sources["init"] is None and start.config.frozen_batch_norm,
    )


def validation_evaluator(data: DataSplits, start: StartingNetwork) -> Evaluator | None:
    """What judges the validation pictures, if there are any."""
    if data.val is None or data.val_split is None:
        return None
    return open_evaluator(
        data.val_split,
        data.val,
        categories=data.train.categories,
        segment_threshold=start.config.segment_threshold,
        mask_stride=detector_of(start.network).body.level_strides[0] if start.config.masks else None,
        thing_masks=False,  # where there are segments, these decide
    )
