"""Lightning's trainer around a training module: the loop, the figures it writes, and what is saved on the way."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger

from model.training.data import TrainingData
from model.training.logs.log import RunLog
from model.training.logs.loggers import close, keep_ids
from model.training.logs.progress import RunProgress
from model.training.module import TrainingModule
from model.training.moving_average import MovingAverage
from model.training.resume_file import RESUME_FILE, ResumeFile, WholeFiles
from model.training.stopping import StopRequest
from model.training.validation import BEST, Validation


@dataclass(frozen=True)
class Hardware:
    """Where a run computes, in Lightning's terms. torchrun and SLURM are recognised by their environment."""

    accelerator: str = "auto"
    devices: str | int = "auto"  # processes a node
    nodes: int = 1

    def on_cuda(self) -> bool:
        """Whether that is a GPU of CUDA."""
        return self.accelerator in ("auto", "cuda") and torch.cuda.is_available()

    def processes(self) -> tuple[int, int]:
        """How many there are on this machine, and on all of them."""
        if str(self.devices).isdigit():
            here = int(self.devices)
        else:
            here = max(1, torch.cuda.device_count()) if self.on_cuda() else 1
        return max(1, here), max(1, here * self.nodes)


def fit(
    module: TrainingModule,
    data: TrainingData,
    out: Path,
    *,
    validation: Validation | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    hardware: Hardware | None = None,
    resumed_step: int | None = None,
    stop: StopRequest | None = None,
    about: str = "",
) -> MovingAverage | None:
    """Train for the module's steps; figures go to `out/log.jsonl` and `loggers`, the state to `out/resume`.

    With `resumed_step`, that of the state in `out/resume`, it goes on from there. `about` is written with the state.
    Without `validation` nothing is validated. With a moving average, which is returned, the module holds the averaged
    weights afterwards.

    Raises Interrupted after `stop` has heard a signal, ValueError where there is no such hardware, and
    FloatingPointError where the loss diverges.
    """
    config = module.config
    average = MovingAverage(config.ema) if config.ema else None
    stop = stop or StopRequest()
    stop.wait()  # nothing may be raised while processes are started
    log = RunLog(out / "log.jsonl", lambda: module.global_step, resumed_step=resumed_step)
    every = config.evaluation_steps(data.batches) or None if validation else None
    observers: list[Callback] = [
        *([validation] if validation else []),
        *([average] if average else []),
        *callbacks,
        *([EarlyStopping(BEST, patience=config.patience, mode="max", strict=False)] if config.patience else []),
        ResumeFile(out, config.save_every, every, stop, about),
        RunProgress(every_steps=config.log_every),
    ]
    trainer = make_trainer(module, hardware or Hardware(), [log, *loggers], observers, every)
    keep_ids(loggers, out)
    for logger in trainer.loggers:
        logger.log_hyperparams(asdict(config))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(does not have many workers|DataLoader will create)")  # --workers says
        warnings.filterwarnings("ignore", ".*smaller than the logging interval")  # which counts over epochs
        warnings.filterwarnings("ignore", ".*your dataloader is not resumable")  # the sampler starts at the run's step
        warnings.filterwarnings("ignore", ".*module\\(s\\) in eval mode")  # what is frozen
        warnings.filterwarnings("ignore", ".*sync_dist=True")  # every process has the figures of all
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning with the latest torch
        resume = None if resumed_step is None else out / RESUME_FILE
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        if validation and validation.step != module.global_step:
            trainer.validate(module, datamodule=data, verbose=False)
    close(loggers)
    return average


def make_trainer(
    module: TrainingModule,
    hardware: Hardware,
    loggers: list[Logger],
    callbacks: list[Callback],
    validate_every: int | None,
) -> lightning.Trainer:
    """Lightning's trainer for the steps of a module, validating every so many steps (None: never).

    Raises ValueError where the hardware or the precision that was asked for is not available.
    """
    precision = module.config.precision
    assert precision != "auto", "what is fast here was not chosen"
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its tips would hide what the run itself prints
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*AMP with fp16 is not supported")  # it would compute in another one
            return lightning.Trainer(
                accelerator=hardware.accelerator,
                devices=hardware.devices,
                num_nodes=hardware.nodes,
                max_steps=module.steps,
                max_epochs=-1,
                precision=precision,
                logger=loggers,
                callbacks=callbacks,
                plugins=[WholeFiles()],
                val_check_interval=validate_every,
                check_val_every_n_epoch=None,
                limit_val_batches=None if validate_every else 0,
                num_sanity_val_steps=0,
                log_every_n_steps=module.config.log_every,
                enable_checkpointing=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
    except UserWarning as warning:
        raise ValueError("--precision 16-mixed needs a GPU: use bf16-mixed or 32-true here") from warning
    except MisconfigurationException as error:
        asked = f"--accelerator {hardware.accelerator} --devices {hardware.devices} --nodes {hardware.nodes}"
        raise ValueError(f"{asked} cannot be used here: {str(error).splitlines()[0]}") from error
