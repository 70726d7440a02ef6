import os
from pathlib import Path

import pytest

from model.runtime.engines.cores import available_cores


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 16 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def cores(root: Path, membership: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "membership").write_text(membership)
    return available_cores(root, root / "membership")


def test_without_any_quota_the_affinity_decides(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", {}) == 16
    assert available_cores(tmp_path / "none", tmp_path / "none") == 16


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 16)],
)
def test_a_containers_quota_is_kept_and_rounded_up(limit: str, expected: int, tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": limit}) == expected


def test_the_tightest_of_nested_groups_binds(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "800000 100000", "a/b/c/cpu.max": "max 100000"}
    assert cores(tmp_path, "0::/a/b/c\n", files) == 3


def test_the_older_kind_of_groups_is_read(tmp_path: Path) -> None:
    files = {"cpu/job/cpu.cfs_quota_us": "400000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}
    assert cores(tmp_path, "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n", files) == 4
    assert cores(tmp_path, "3:cpu:/job\n", {"cpu/job/cpu.cfs_quota_us": "-1\n"}) == 16


def test_a_quota_above_the_affinity_changes_nothing(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": "6400000 100000"}) == 16


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "100000 0"])
def test_a_file_that_makes_no_sense_is_no_quota(text: str, tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\nnonsense\n", {"cpu.max": text}) == 16


def test_a_system_without_affinity_counts_its_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores(tmp_path, "", {}) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(tmp_path, "", {}) == 1


def test_this_machine_has_a_core() -> None:
    assert available_cores() >= 1
