"""The control groups around this process, in which a container's limits are written down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def group_folders(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[tuple[Path, bool]]:
    """The folder of every group around the process, innermost first, and whether it is one of cgroup v2.

    Args:
        controller: what is asked about, such as "cpu" or "memory"; version 1 has groups of its own for each.
        root: where the groups are mounted.
        membership: says which groups the process is in.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        folder = base / group.lstrip("/")
        for place in (folder, *folder.parents):
            if place == base.parent:
                break
            yield place, not controllers
