"""What Ray is given to deploy; `tests/end_to_end/test_ray_serve.py` deploys it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray.serve", reason="needs Ray, the extra `ray`")

from service.ray.app import build, with_absolute_paths
from service.settings import SettingsError, read_settings


def test_settings_are_taken_as_yaml_has_them_and_bound_what_ray_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETR_MAX_CONNECTIONS", "64")
    application = build({"max_batch_size": 4, "docs": False, "formats": ["gif", "bmp"], "drain_timeout_ms": 9000})
    (deployment, settings) = application._bound_deployment, application._bound_deployment.init_args[0]
    assert (settings.max_batch_size, settings.docs, settings.formats) == (4, False, ("gif", "bmp"))
    assert deployment.max_ongoing_requests == settings.max_requests == 62
    assert deployment._deployment_config.graceful_shutdown_timeout_s > 9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modle": "x.onnx"}, "there is no setting 'modle'; did you mean model"),
        ({"api_keys": "a-key-that-is-shown"}, "api_keys: Ray's dashboard shows .* DETR_API_KEYS"),
        ({"max_batch_size": 0}, "DETR_MAX_BATCH_SIZE .*greater than or equal to 1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told_before_anything_is_deployed(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        build(given)


def test_paths_lead_to_the_same_place_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.onnx").touch()
    here = with_absolute_paths(read_settings({"model": "mine.onnx", "api_keys_file": "keys"}))
    assert (here.model, here.api_keys_file) == (str(tmp_path / "mine.onnx"), tmp_path / "keys")
    named = with_absolute_paths(read_settings({"model": "facebook/detr-resnet-50"}))
    assert named.model == "facebook/detr-resnet-50"
