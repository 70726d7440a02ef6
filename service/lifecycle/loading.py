"""Reading the artifact, opening it on a device, and proving it there before anything is answered."""

from __future__ import annotations

from dataclasses import dataclass

from model.runtime.artifact.file import ArtifactError, read_artifact
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.canvases import canvas_multiple
from model.runtime.engines.engine import GPUS, Engine
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.onnxruntime_engine import GpuOptions
from model.runtime.engines.opening import open_engine
from model.runtime.preprocess import CANVAS_MULTIPLE
from service.settings import Settings


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run."""

    metadata: Metadata
    engine: Engine
    digest: str  # of the artifact, see there
    canvas_multiple: int = CANVAS_MULTIPLE  # pixels; what the sides of its batches divide by


def load_model(settings: Settings, engine: Engine | None = None) -> LoadedModel:
    """Load the model that the settings name; takes seconds, so not on the event loop.

    The golden sample is replayed on the device itself, which also warms it up. An engine that is given
    instead of opened is taken as it is.

    Raises:
        SettingsError: no model is named.
        ArtifactError: the file is refused, or answers its golden sample differently here.
        DeviceError: the device, the precision or the canvases that were asked for cannot be had.
    """
    artifact = read_artifact(settings.artifact_path())
    if engine is None:
        engine = open_engine(
            artifact,
            settings.device,
            precision=settings.precision,
            threads=settings.engine_threads,
            gpu=GpuOptions(settings.gpu_memory_bytes, settings.tensorrt_cache),
        )
        replay_golden(engine, artifact)
    multiple = canvas_multiple(settings.canvas_multiple, artifact.metadata, engine.device in GPUS)
    return LoadedModel(artifact.metadata, engine, artifact.digest, multiple)


def reopen_engine(settings: Settings, digest: str, given: Engine | None = None) -> Engine:
    """Open and prove a model again, whose engine has been given up.

    Args:
        settings: as they were when it was loaded.
        digest: of its artifact, which has to be there still.
        given: an engine that was given instead of opened; it is taken again, and told so if it wants to know.

    Raises:
        ArtifactError: like `load_model`, or the file is another one by now.
        DeviceError: like `load_model`.
    """
    if given is not None:
        getattr(given, "reopen", lambda: None)()
        return given
    model = load_model(settings)
    if model.digest != digest:
        raise ArtifactError("the model file was replaced since it was loaded")
    return model.engine
