"""Reading the artifact, opening it on a device, and proving it there before anything is answered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model.hub.cache import ArtifactCache, default_cache
from model.hub.finding import find_model
from model.runtime.artifact.file import ArtifactError, read_artifact
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.canvases import canvas_multiple
from model.runtime.engines.engine import GPUS, Engine
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.onnxruntime_engine import GpuOptions
from model.runtime.engines.opening import open_engine
from model.runtime.image_formats import MissingDecoderError, open_formats
from model.runtime.preprocess import CANVAS_MULTIPLE
from service.settings import Settings, SettingsError, name_of


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run."""

    metadata: Metadata
    engine: Engine
    digest: str  # of the artifact, see there
    canvas_multiple: int = CANVAS_MULTIPLE  # pixels; what the sides of its batches divide by


class ModelLoader(Protocol):
    """Where a service's models come from. Both methods take seconds, so they are not for the event loop."""

    def load(self) -> LoadedModel:
        """Load the model that is there now.

        Raises:
            SettingsError, HubError, ArtifactError, DeviceError: see `load_model`.
        """

    def reopen(self, digest: str) -> Engine:
        """Open and prove a model again, whose engine has been given up.

        Args:
            digest: of its artifact, which has to be there still.

        Raises:
            ArtifactError, DeviceError: see `load_model`; or the file is another one by now.
        """


class ArtifactLoader:
    """Loads the artifact that the settings name, wherever that name leads at the time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._paths: dict[str, Path] = {}  # of what was loaded, by its digest

    def load(self) -> LoadedModel:
        """See ModelLoader."""
        path = find_artifact(self._settings, bars=False)
        model = load_artifact(path, self._settings)
        self._paths[model.digest] = path
        return model

    def reopen(self, digest: str) -> Engine:
        """See ModelLoader."""
        model = load_artifact(self._paths[digest], self._settings)
        if model.digest != digest:
            raise ArtifactError("the model file was replaced since it was loaded")
        return model.engine


def load_model(settings: Settings) -> LoadedModel:
    """Load the model that the settings name; a download shows its progress on the terminal.

    Raises:
        SettingsError, HubError, ArtifactError, DeviceError: see `find_artifact` and `load_artifact`.
    """
    return load_artifact(find_artifact(settings), settings)


def find_artifact(settings: Settings, *, bars: bool = True) -> Path:
    """The path of the artifact that the settings name, once it is there: what is on the hub is downloaded.

    Raises:
        SettingsError: no model is named.
        HubError: a name on the hub, or a folder, is refused, or cannot be had; see `find_model`.
    """
    cache = ArtifactCache(settings.model_cache or default_cache())
    return find_model(settings.named_model(), settings.revision, cache, bars=bars)


def load_artifact(path: Path, settings: Settings) -> LoadedModel:
    """Load a model from its file. The golden sample is replayed on the device itself, which also warms it up.

    Raises:
        SettingsError: a format of images takes what is not installed.
        ArtifactError: the file is refused, or answers its golden sample differently here.
        DeviceError: the device, the precision or the canvases that were asked for cannot be had.
    """
    try:
        open_formats(settings.formats)
    except MissingDecoderError as error:
        raise SettingsError(f"{name_of('formats')}: {error}") from None
    artifact = read_artifact(path)
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
