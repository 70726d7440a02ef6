"""Reading the artifact, opening it on a device, and proving it there before anything is answered."""

from __future__ import annotations

from dataclasses import dataclass

from model.runtime.artifact import read_artifact
from model.runtime.engine import Engine, open_engine, replay_golden
from model.runtime.metadata import Metadata
from service.settings import Settings


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run."""

    metadata: Metadata
    engine: Engine


def load_model(settings: Settings, engine: Engine | None = None) -> LoadedModel:
    """Load the model that the settings name; takes seconds, so not on the event loop.

    The golden sample is replayed on the device itself, which also warms it up. An engine that is given
    instead of opened is taken as it is.

    Raises:
        SettingsError: no model is named.
        ArtifactError: the file is refused, or answers its golden sample differently here.
        DeviceError: the device that was asked for cannot be used.
    """
    artifact = read_artifact(settings.artifact_path())
    if engine is None:
        engine = open_engine(artifact, settings.device, threads=settings.engine_threads)
        replay_golden(engine, artifact)
    return LoadedModel(artifact.metadata, engine)
