"""The process's start: it may open what it is asked to, finds all it leans on, or says in one line why not."""

from __future__ import annotations

import logging
import resource

import pytest

from service.server import OWN_FILES, fit_connections
from service.settings import Settings, SettingsError


class FileLimits:
    """A stand-in for the system's limit on open files."""

    def __init__(self, soft: int, hard: int) -> None:
        self.soft, self.hard = soft, hard

    def get(self, _: int) -> tuple[int, int]:
        return self.soft, self.hard

    def set(self, _: int, limits: tuple[int, int]) -> None:
        self.soft, self.hard = limits


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> FileLimits:
    limits = FileLimits(1024, 4096)
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    return limits


@pytest.mark.parametrize(
    ("soft", "hard"), [(1024, 4096), (4096, resource.RLIM_INFINITY), (resource.RLIM_INFINITY,) * 2]
)
def test_where_the_limit_is_high_enough_nothing_changes(limits: FileLimits, soft: int, hard: int) -> None:
    limits.soft, limits.hard = soft, hard
    settings = Settings()
    assert fit_connections(settings) is settings
    assert limits.soft == soft


def test_a_low_soft_limit_is_raised_as_far_as_needed(limits: FileLimits) -> None:
    limits.soft = 128
    settings = Settings()
    assert fit_connections(settings) is settings
    assert limits.soft == 512 + OWN_FILES


def test_a_low_hard_limit_lowers_the_default_with_a_warning(
    limits: FileLimits, caplog: pytest.LogCaptureFixture
) -> None:
    limits.soft = limits.hard = 128
    assert fit_connections(Settings()).max_connections == 128 - OWN_FILES
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(("hard", "given"), [(128, 512), (128, 65), (OWN_FILES, None), (1, None)])
def test_a_number_that_was_asked_for_is_not_lowered(limits: FileLimits, hard: int, given: int | None) -> None:
    limits.soft = limits.hard = hard
    settings = Settings() if given is None else Settings(max_connections=given)
    with pytest.raises(SettingsError, match=rf"DETR_MAX_CONNECTIONS .* may open {hard} files"):
        fit_connections(settings)
