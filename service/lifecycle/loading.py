"""Reading the artifact, opening it on a device, and proving it there before anything is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model.hub.cache import ArtifactCache, default_cache
from model.hub.finding import find_model
from model.runtime.artifact.file import Artifact, ArtifactError, read_artifact
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.canvases import canvas_multiple
from model.runtime.engines.cores import available_cores
from model.runtime.engines.cuda import gpu_count
from model.runtime.engines.devices import device_of, devices_of, engine_names
from model.runtime.engines.engine import Engine, device_kind, is_gpu
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.onnxruntime_engine import GpuOptions
from model.runtime.engines.opening import open_engine
from model.runtime.image_formats import MissingDecoderError, open_formats
from model.runtime.preprocess import CANVAS_MULTIPLE
from service.settings import Settings, SettingsError, name_of


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run, on every device that was asked for.

    `engines` has one engine for each device, by what logs and metrics call it ("cuda:0", "cpu#2"): one where one device
    is named, and never none. All are of one kind and compute in one precision, so it does not matter which of them an
    image goes to, and each may run a batch while the others run theirs. Whoever wants all of them to work gives
    `engines` to a `Batcher` (service/batching/batcher.py), which plans a batch whenever one of them is free.
    """

    metadata: Metadata
    engines: Mapping[str, Engine]
    digest: str  # of the artifact, see there
    canvas_multiple: int = CANVAS_MULTIPLE  # pixels; what the sides of its batches divide by

    @property
    def engine(self) -> Engine:
        """The first of them, for whoever runs one batch after the other."""
        return next(iter(self.engines.values()))

    @property
    def device(self) -> str:
        """The kind of device that all engines are on, such as "cuda"."""
        return device_kind(self.engine.device)

    @property
    def precision(self) -> str:
        """What all engines compute in."""
        return self.engine.precision


class ModelLoader(Protocol):
    """Where a service's models come from. Both methods take seconds, so they are not for the event loop."""

    def load(self) -> LoadedModel:
        """Load the model that is there now.

        Raises:
            SettingsError, HubError, ArtifactError, DeviceError: see `load_model`.
        """

    def reopen(self, digest: str, name: str) -> Engine:
        """Open and prove one engine of a model again, which has been given up.

        Args:
            digest: of the model's artifact, which has to be there still.
            name: of the engine, among `LoadedModel.engines`.

        Raises:
            ArtifactError, DeviceError: see `load_model`; or the file is another one by now.
        """


class ArtifactLoader:
    """Loads the artifact that the settings name, wherever that name leads at the time.

    Args:
        settings: name it, and the device.
        bars: a download shows its progress on the terminal.
    """

    def __init__(self, settings: Settings, *, bars: bool = False) -> None:
        self._settings, self._bars = settings, bars
        self._loaded: dict[str, tuple[Path, int]] = {}  # files and numbers of engines, by digest

    def load(self) -> LoadedModel:
        """See ModelLoader."""
        path = find_artifact(self._settings, bars=self._bars)
        model = load_artifact(path, self._settings)
        self._loaded[model.digest] = path, len(model.engines)
        return model

    def reopen(self, digest: str, name: str) -> Engine:
        """See ModelLoader."""
        path, engines = self._loaded[digest]
        artifact = read_artifact(path)
        if artifact.digest != digest:
            raise ArtifactError("the model file was replaced since it was loaded")
        return _open_proved(artifact, device_of(name), self._settings, engines)


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
    """Load a model from its file. The golden sample is replayed on each device itself, which also warms it up.

    Raises:
        SettingsError: a format of images takes what is not installed.
        ArtifactError: the file is refused, or answers its golden sample differently here.
        DeviceError: a device, the precision or the canvases that were asked for cannot be had.
    """
    try:
        open_formats(settings.formats)
    except MissingDecoderError as error:
        raise SettingsError(f"{name_of('formats')}: {error}") from None
    artifact = read_artifact(path)
    devices = devices_of(settings.device_words, gpu_count)
    engines = [_open_proved(artifact, device, settings, len(devices)) for device in devices]
    named = dict(zip(engine_names([engine.device for engine in engines]), engines, strict=True))
    multiple = canvas_multiple(settings.canvas_multiple, artifact.metadata, is_gpu(engines[0].device))
    return LoadedModel(artifact.metadata, named, artifact.digest, multiple)


def threads_of_engine(settings: Settings, engines: int) -> int:
    """Threads that each of so many engines has on a CPU: they share the cores unless their threads are set."""
    return settings.engine_threads or max(1, available_cores() // engines)


def _open_proved(artifact: Artifact, device: str, settings: Settings, engines: int) -> Engine:
    """Open an artifact on one device, which has to answer the golden sample there.

    `engines` is how many there are.
    """
    engine = open_engine(
        artifact,
        device,
        precision=settings.precision,
        threads=threads_of_engine(settings, engines),
        gpu=GpuOptions(settings.gpu_memory_bytes, settings.tensorrt_cache),
    )
    replay_golden(engine, artifact)
    return engine
