"""Which devices are meant: from words such as `cuda:0`, `cuda:all` and `cpu*2` to a device for each engine.

A device is a kind (`cpu`, `cuda`), and of GPUs the driver's number may stand behind it (`cuda:1`); without one it is
the first. An engine is called like its device; where several share one, each has its number behind it, from 1: `cpu#2`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import DEVICES, GPUS, device_kind

MAX_ENGINES = 64  # of one model in one process; beyond, one thread for all connections is long since too little
_WORD = re.compile(r"(?P<device>(?P<kind>[^:*]*)(?::(?P<index>[^:*]*))?)(?:\*(?P<count>[^:*]*))?")


def check_device_words(words: Sequence[str]) -> None:
    """Raise ValueError, saying what is wrong, unless the words name devices of one kind; asks no driver."""
    for word in words:
        _check_word(word)
    kinds = sorted({device_kind(_device(word)) for word in words})
    if len(kinds) > 1:
        raise ValueError(f"{' and '.join(kinds)} answer in different digits; name devices of one kind")
    if sum(_count(word) for word in words) > MAX_ENGINES:
        raise ValueError(f"one process has at most {MAX_ENGINES} engines")


def check_device(device: str) -> None:
    """Raise DeviceError unless this names one device; asks no driver."""
    try:
        check_device_words([device])
        if "*" in device or device.endswith(":all"):
            raise ValueError(f"{device!r} is more than one device, and only one is used here")
    except ValueError as error:
        raise DeviceError(str(error)) from None


def devices_of(words: Sequence[str], count_gpus: Callable[[], int]) -> list[str]:
    """The device of each engine; `all` of a kind is as many as there are.

    Args:
        words: that `check_device_words` lets pass.
        count_gpus: asked where a word says `all`.

    Raises:
        DeviceError: all are asked for, and there is none.
    """
    devices = []
    for word in words:
        device = _device(word)
        here = [device]
        if device.endswith(":all"):
            here = [f"{device_kind(device)}:{index}" for index in range(count_gpus())]
            if not here:
                raise DeviceError(f"device {device}: there is no GPU that the NVIDIA driver could use")
        devices += here * _count(word)
    return devices


def engine_names(devices: Sequence[str]) -> list[str]:
    """What engines on these devices are called, each different; `device_of` leads back."""
    count, seen = Counter(devices), Counter[str]()
    names = []
    for device in devices:
        seen[device] += 1
        names.append(device if count[device] == 1 else f"{device}#{seen[device]}")
    return names


def device_of(name: str) -> str:
    """The device of an engine, by what that is called."""
    return name.partition("#")[0]


def _check_word(word: str) -> None:
    match = _WORD.fullmatch(word)
    kind, index, count = match.group("kind", "index", "count") if match else (word, None, None)
    if match is None or kind not in DEVICES:
        raise ValueError(f"there is no device {word!r}; use one of {', '.join(DEVICES)}")
    if index is not None and kind not in GPUS:
        raise ValueError(f"{word!r} has a number, which only {' and '.join(GPUS)} have; {kind}*2 is two engines on it")
    if index not in (None, "all") and not _is_number(index):
        raise ValueError(f"{word!r} should have the GPU's number or all behind the colon, as in {kind}:0")
    if count is not None and not (_is_number(count) and int(count) > 0):
        raise ValueError(f"{word!r} should have the number of engines behind the star, as in {kind}*2")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 4


def _device(word: str) -> str:
    return word.partition("*")[0]


def _count(word: str) -> int:
    return int(word.partition("*")[2] or 1)
