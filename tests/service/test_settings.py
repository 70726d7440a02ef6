"""Settings: where they come from, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import settings as module
from service.process.options import unknown_variables
from service.settings import Settings, SettingsError, read_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DETR_{name.upper()}", raising=False)


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.device) == ("127.0.0.1", 8000, "auto")
    assert (settings.max_batch_size, settings.max_queue_delay_ms, settings.max_queue_size) == (8, 0, 64)
    assert settings.request_timeout_ms == 10_000
    assert settings.drain_timeout_ms == 30_000
    assert settings.max_body_bytes == 16 * 1024 * 1024
    assert (settings.max_pixels, settings.max_side) == (50_000_000, 16_384)
    assert settings.cpu_threads >= 1


def test_every_setting_is_documented_and_says_its_unit() -> None:
    unitless = {
        "model",
        "device",
        "devices",
        "precision",
        "log_level",
        "log_format",
        "max_batch_size",
        "max_queue_size",
        "cors_origins",
    }
    unitless |= {"label_studio_url", "label_studio_origins", "label_studio_api_key"}
    unitless |= {"formats", "log_format", "canvas_multiple", "revision", "model_cache", "tensorrt_cache"}
    units = (
        "_ms",
        "_s",
        "_bytes",
        "_pixels",
        "_side",
        "_parts",
        "_scans",
        "_threads",
        "_connections",
        "host",
        "port",
        "_keys",
        "_per_request",
        "_file",
    )
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert name in unitless or field.annotation is bool or name.endswith(units), name


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETR_MAX_BATCH_SIZE", "3")
    monkeypatch.setenv("DETR_PORT", "99")
    settings = read_settings({"port": "1234", "model": "some/file.onnx"})
    assert (settings.max_batch_size, settings.port, settings.model) == (3, 1234, "some/file.onnx")


TEXTS = {
    "model",
    "revision",
    "model_cache",
    "tensorrt_cache",
    "host",
    "metrics_host",
    "api_keys",
    "api_keys_file",
    "admin_keys_file",
    "label_studio_api_key",
}


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in TEXTS])
@pytest.mark.parametrize("value", ["-1", "x", "nan", "9" * 40])
def test_a_bad_value_is_one_line_that_names_the_setting(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DETR_{name.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        read_settings({})
    assert f"DETR_{name.upper()}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_devices_are_words_with_commas_and_one_device_is_the_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings({}).device_words == ("auto",)
    assert read_settings({"device": "cuda"}).device_words == ("cuda",)
    assert read_settings({"devices": "cuda:0, cuda:1"}).device_words == ("cuda:0", "cuda:1")
    monkeypatch.setenv("DETR_DEVICES", "")  # as a compose file has it where nobody names any
    assert read_settings({}).device_words == ("auto",)
    monkeypatch.setenv("DETR_DEVICES", "cpu*2")
    assert read_settings({}).device_words == ("cpu*2",)
    assert read_settings({"device": "openvino"}).device_words == ("openvino",), (
        "what is given wins over the environment"
    )
    monkeypatch.setenv("DETR_DEVICE", "cpu")
    assert read_settings({"devices": "cuda:all"}).device_words == ("cuda:all",)
    with pytest.raises(SettingsError, match=r"give DETR_DEVICE \(--device\) or DETR_DEVICES \(--devices\), not both"):
        read_settings({})


def test_the_upload_memory_has_to_hold_one_upload() -> None:
    with pytest.raises(SettingsError, match="max_buffered_bytes has to hold one upload"):
        read_settings({"max_body_bytes": "2000", "max_buffered_bytes": "1999"})


def test_without_a_model_the_demo_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = tmp_path / "demo.onnx"
    monkeypatch.setattr(module, "DEMO_MODEL", demo)
    with pytest.raises(SettingsError, match="--model or DETR_MODEL"):
        Settings().named_model()
    demo.touch()
    assert Settings().named_model() == str(demo)
    assert Settings(model="other.onnx").named_model() == "other.onnx"
    monkeypatch.setenv("DETR_MODEL", "")  # as a compose file has it where nobody names one
    assert read_settings({}).named_model() == str(demo)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEVICE", "cdua", "there is no 'cdua'; use auto, cpu, cuda, tensorrt, openvino; did you mean cuda?"),
        ("DEVICES", "cdua:0", "there is no device 'cdua:0'; did you mean cuda?"),
        ("DEVICES", "cuda:0,cpu", "cpu and cuda answer in different digits; name devices of one kind"),
        ("LOG_LEVEL", "loud", "there is no 'loud'; use debug, info, warning, error"),
        ("PORT", "99999", "should be less than or equal to 65535"),
    ],
)
def test_a_bad_choice_in_the_environment_is_told_in_one_line_with_what_there_is(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DETR_{name}", value)
    with pytest.raises(SettingsError) as raised:
        read_settings({})
    assert str(raised.value) == f"DETR_{name} (--{name.lower().replace('_', '-')}): {said}"


def test_a_variable_that_is_nearly_a_setting_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETR_MAX_BATCHSIZE", "8")
    monkeypatch.setenv("DETR_MAX_BATCH_SIZE", "8")
    monkeypatch.setenv("DETR_QUITE_ANOTHER_MATTER", "8")
    assert unknown_variables() == [
        "DETR_MAX_BATCHSIZE is no setting and changes nothing; did you mean DETR_MAX_BATCH_SIZE?"
    ]
