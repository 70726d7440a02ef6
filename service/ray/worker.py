"""What Ray has given to the worker process that this runs in."""

from __future__ import annotations

import math

import ray

from service.settings import Settings


def settings_here(settings: Settings) -> Settings:
    """The settings as this worker takes them: threads for the CPUs that Ray has given it, unless a number was set.

    Ray counts CPUs and holds nobody to theirs; each worker would otherwise take a thread for every core.
    """
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
    own = {"cpu_threads", "engine_threads"} - settings.model_fields_set
    return settings.model_copy(update=dict.fromkeys(own, max(1, math.ceil(cpus))))
