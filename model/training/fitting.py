"""Lightning's trainer around a training module: the loop, the figures it writes, and what is saved on the way."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from model.training.data import TrainingData
from model.training.log import RunLog
from model.training.module import TrainingModule
from model.training.progress import RunProgress
from model.training.resume_file import ResumeFile, check_resume
from model.training.validation import Validation


@dataclass(frozen=True)
class Hardware:
    """Where a run computes, in Lightning's terms. torchrun and SLURM are recognised by their environment."""

    accelerator: str = "auto"
    devices: str | int = "auto"  # processes a node
    nodes: int = 1


def fit(
    module: TrainingModule,
    data: TrainingData,
    out: Path,
    *,
    validation: Validation | None = None,
    callbacks: Sequence[Callback] = (),
    hardware: Hardware | None = None,
    resume: Path | None = None,
) -> lightning.Trainer:
    """Train for the module's steps; figures go to `out/log.jsonl` and `out/tensorboard`, the state to `out/resume`.

    Without `validation` nothing is validated. With a moving average the module holds the averaged weights afterwards.

    Raises what `check_resume` raises, Interrupted after a signal, ValueError where the hardware does not fit the
    batch, and FloatingPointError where the loss diverges.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its tips and greetings would drown ours
    resumed_step = None if resume is None else check_resume(resume, module)
    hardware = hardware or Hardware()
    loggers: list[Logger] = [
        RunLog(out / "log.jsonl", lambda: module.global_step, resumed_step=resumed_step),
        TensorBoardLogger(out, "tensorboard", ""),
    ]
    every = max(1, round(module.config.evaluate_every * data.batches)) if validation else 0
    trainer = lightning.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        max_steps=module.steps,
        max_epochs=-1,
        precision=module.config.precision,
        logger=loggers,
        callbacks=[
            *([validation] if validation else []),
            *callbacks,
            # Everything before this line sees the averaged weights at the end of a validation.
            *([EMAWeightAveraging(decay=module.config.ema)] if module.config.ema else []),
            RunProgress(every_steps=module.config.log_every),
            ResumeFile(out, module.config.save_every),
        ],
        val_check_interval=every or None,
        check_val_every_n_epoch=None,
        limit_val_batches=None if every else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=module.config.log_every,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    for logger in loggers:
        logger.log_hyperparams(asdict(module.config))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")  # --workers says how many
        warnings.filterwarnings("ignore", ".*your dataloader is not resumable")  # the sampler starts at the run's step
        warnings.filterwarnings("ignore", ".*module\\(s\\) in eval mode")  # what is frozen
        warnings.filterwarnings("ignore", ".*sync_dist=True")  # every process has the figures of all
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning with the latest torch
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        if validation and validation.step != module.steps:
            trainer.validate(module, datamodule=data, verbose=False)
    return trainer
