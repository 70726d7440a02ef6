"""The application of Ray Serve: `serve run service.ray.app:build model=detr.onnx`, or the same in its YAML."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from ray import serve
from starlette.types import ASGIApp

from model.runtime.nearest import did_you_mean
from service.errors import ServiceError
from service.process.options import unknown_variables
from service.ray.replica import Replica
from service.settings import SECRETS, Settings, SettingsError, read_settings, variable_of

logger = logging.getLogger(__name__)

# Beyond the time that a replica has to answer what it has accepted: the last answers go out, and threads end.
_END_S = 5


class Deployment:
    """A replica as Ray knows it. Ray calls the first three, and other replicas the rest."""

    def __init__(self, settings: Settings) -> None:
        self._replica = Replica(settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What answers requests. An app itself cannot be sent, so each replica makes its own."""
        return self._replica.app

    async def check_health(self) -> None:
        """See Replica."""
        await self._replica.check_health()

    async def metric_families(self) -> list[Metric]:
        """See Replica."""
        return self._replica.metric_families()

    async def reload_here(self) -> ServiceError | None:
        """See Replica."""
        return await self._replica.reload_here()

    def __del__(self) -> None:
        self._replica.close()


def build(given: Mapping[str, Any]) -> serve.Application:
    """What Ray Serve deploys. All that can be set of `detr serve` is set here as well, but for ports and connections,
    which are Ray's.

    Settings are read once, here, from the environment and from what is given, and all replicas have them.

    Args:
        given: settings by the names of their fields, as text or as YAML has them.

    Raises:
        SettingsError: a setting cannot be used.
    """
    for unknown in unknown_variables():
        logger.warning("%s", unknown)
    settings = with_absolute_paths(read_settings({name: _text(name, value) for name, value in given.items()}))
    deployment = serve.deployment(
        name="detr",
        # Ray lets no more in than this, and has the others wait without end; who waits inside has a deadline, and who
        # finds no room there is refused at once.
        max_ongoing_requests=settings.max_requests,
        graceful_shutdown_timeout_s=settings.drain_timeout_ms / 1000 + _END_S,
    )
    application: serve.Application = deployment(serve.ingress()(Deployment)).bind(settings)
    return application


def with_absolute_paths(settings: Settings) -> Settings:
    """The same settings for processes that run in other folders."""
    paths: dict[str, Path | str] = {name: value.absolute() for name, value in settings if isinstance(value, Path)}
    if settings.model is not None and Path(settings.model).exists():  # else it is a name on the hub, or elsewhere
        paths["model"] = str(Path(settings.model).absolute())
    return settings.model_copy(update=paths)


def _text(name: str, value: Any) -> str:
    """A value as the environment would have it."""
    if name not in Settings.model_fields:
        raise SettingsError(f"there is no setting {name!r}{did_you_mean(name, Settings.model_fields)}")
    if name in SECRETS:
        raise SettingsError(f"{name}: Ray's dashboard shows what is given here; set {variable_of(name)}, or use a file")
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
