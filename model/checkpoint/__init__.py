"""Weights in and out: published, Hugging Face's and this project's own, always checked strictly."""

from model.checkpoint.own import save_checkpoint
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.strict import Checkpoint, CheckpointError, check_state, describe_network

__all__ = ["Checkpoint", "CheckpointError", "check_state", "describe_network", "read_checkpoint", "save_checkpoint"]
