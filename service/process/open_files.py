"""Every connection is an open file to the system, and of those a process may have only so many."""

from __future__ import annotations

import logging

from service.settings import Settings, SettingsError, name_of

logger = logging.getLogger(__name__)

OWN_FILES = 64  # the model, the log, listening sockets and their connections for metrics, threads and libraries


def fit_connections(settings: Settings) -> Settings:
    """See to it that the process may open all its connections, raising its own limit where that is allowed.

    Where it is not, the default is lowered, with a warning; a number that somebody asked for is not.

    Raises:
        SettingsError: the process may not open as many files as it was told to have connections.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return settings
    needed = settings.max_connections + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= needed:
        return settings
    fitting = allowed - OWN_FILES
    if "max_connections" in settings.model_fields_set or fitting < 4:
        raise SettingsError(
            f"{name_of('max_connections')}: the process may open {allowed} files (ulimit -n), which is too few for "
            f"{settings.max_connections} connections"
        )
    logger.warning("only %d connections at once, because the process may open only %d files", fitting, allowed)
    return settings.model_copy(update={"max_connections": fitting})
