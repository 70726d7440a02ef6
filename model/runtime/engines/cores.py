"""How many cores this process may really use, which in a container is fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from model.runtime.engines.cgroups import MEMBERSHIP, ROOT, group_folders


def available_cores(cgroup_root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """Cores of the process's affinity mask, or its CPU quota (rounded up) where that is less; at least 1.

    A container limited to two CPUs of a 64-core host still sees 64 cores; 64 threads would then fight for two
    cores' worth of time and be stopped for most of every scheduling period. Reads cgroup v2 (`cpu.max`) and
    v1 (`cpu.cfs_quota_us`); where neither can be read, the affinity decides.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity mask to ask for
        cores = os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _quotas(cgroup_root, membership)]
    return max(1, min([cores, *quotas]))


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """Quota in cores of every group around the process: the tightest one binds."""
    for folder, is_v2 in group_folders("cpu", root, membership):
        if is_v2:
            limit, _, period = _text(folder / "cpu.max").strip().partition(" ")
        else:
            limit, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        # Version 2 says "max" where there is no limit, version 1 says -1.
        if limit.isdigit() and period.isdigit() and int(period) > 0:
            yield int(limit) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
