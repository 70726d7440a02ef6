"""Devices by words: which are meant, what their engines are called, and what cannot be meant."""

from __future__ import annotations

import pytest

from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.devices import check_device, check_device_words, device_of, devices_of, engine_names
from model.runtime.engines.engine import device_kind, is_gpu


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["auto"], ["auto"]),
        (["cpu*2"], ["cpu#1", "cpu#2"]),
        (["cuda"], ["cuda"]),
        (["cuda:0", "cuda:1"], ["cuda:0", "cuda:1"]),
        (["cuda:1", "cuda:0"], ["cuda:1", "cuda:0"]),
        (["cuda:all"], ["cuda:0", "cuda:1", "cuda:2"]),
        (["tensorrt:all*2"], [f"tensorrt:{gpu}#{number}" for gpu in range(3) for number in (1, 2)]),
        (["cuda:1*2", "cuda:0", "cuda:1"], ["cuda:1#1", "cuda:1#2", "cuda:0", "cuda:1#3"]),
        (["openvino"] * 2, ["openvino#1", "openvino#2"]),
    ],
)
def test_words_are_a_device_for_each_engine_and_each_engine_has_a_name_of_its_own(
    words: list[str], names: list[str]
) -> None:
    check_device_words(words)
    devices = devices_of(words, lambda: 3)
    assert len(set(names)) == len(names)
    assert sorted(engine_names(devices)) == sorted(names)
    assert [device_of(name) for name in engine_names(devices)] == devices


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cdua:0"], "there is no device 'cdua:0'; use one of auto, cpu,"),
        (["cpu:0"], "'cpu:0' has a number, which only cuda and tensorrt have; cpu\\*2 is two engines on it"),
        (["cuda:"], "'cuda:' should have the GPU's number or all behind the colon, as in cuda:0"),
        (["cuda:x"], "'cuda:x' should have"),
        (["cuda:-1"], "'cuda:-1' should have"),
        (["cuda:0:1"], "there is no device 'cuda:0:1'"),
        (["cpu*"], "'cpu\\*' should have the number of engines behind the star, as in cpu\\*2"),
        (["cpu*0"], "'cpu\\*0' should have"),
        (["cpu*2*2"], "there is no device"),
        (["cpu*65"], "at most 64 engines"),
        (["cuda:0", "cpu"], "cpu and cuda answer in different digits; name devices of one kind"),
        ([""], "there is no device ''"),
    ],
)
def test_words_that_mean_no_devices_are_told_why(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_device_words(words)


def test_all_of_none_is_an_error() -> None:
    with pytest.raises(DeviceError, match="device cuda:all: there is no GPU"):
        devices_of(["cuda:all"], lambda: 0)


@pytest.mark.parametrize("device", ["cuda:all", "cpu*2"])
def test_where_one_device_is_used_several_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="is more than one device"):
        check_device(device)


def test_a_number_changes_no_kind() -> None:
    assert (device_kind("cuda:3"), device_kind("cpu")) == ("cuda", "cpu")
    assert is_gpu("tensorrt:1")
    assert not is_gpu("openvino")
