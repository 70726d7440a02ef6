"""A real Label Studio connects the service as its ML backend, in an environment of its own, and has pictures labelled.

It is a gigabyte, so it is installed once for all of these tests and removed after them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from detr_client import Client
from tests.example_parts import ten_parts
from tests.processes import free_port, running
from tests.server_process import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KEY = "a-key-of-more-than-16-characters"
USER = {"username": "annotator@example.org", "password": "a-password-of-hers"}
TOKEN = "0123456789abcdef0123456789abcdef01234567"  # of the old kind
LABELS = "".join(f'<Label value="{name}"/>' for name in ("Heart", "ring", "Traffic Light"))
SHAPES = {"boxes": "RectangleLabels", "masks": "BrushLabels", "outlines": "PolygonLabels"}
# Its commands read the results back: what it exports is made by its own converter, which reads the run lengths.
CONVERT = """
import json, sys
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
config, predictions = json.load(sys.stdin)
interface = LabelInterface(config)
for prediction in predictions:
    assert not (errors := interface.validate_prediction(prediction, return_errors=True)), errors
regions = [region for prediction in predictions for region in prediction["result"]]
print(json.dumps([int((decode_rle(region["value"]["rle"]).reshape(-1, 4)[:, 3] > 0).sum()) for region in regions
                  if region["type"] == "brushlabels"]))
"""


@dataclass
class LabelStudio:
    """A running Label Studio and its API."""

    url: str
    python: Path
    api: httpx.Client

    def post(self, path: str, **options: Any) -> Any:
        answer = self.api.post(path, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def project(self, config: str, pictures: dict[str, bytes]) -> int:
        """The id of a new project with tasks of these pictures."""
        project: int = self.post("/api/projects", json={"title": config[-40:], "label_config": config})["id"]
        for name, content in pictures.items():
            self.post(f"/api/projects/{project}/import", files={name: (name, content, "image/png")})
        return project

    def predictions(self, project: int) -> list[dict[str, Any]]:
        """What it has of a project after its action "Retrieve Predictions", in the order of the tasks."""
        everything = {"selectedItems": {"all": True, "excluded": []}}
        self.post("/api/dm/actions", params={"id": "retrieve_tasks_predictions", "project": project}, json=everything)
        found: list[dict[str, Any]] = self.api.get("/api/predictions", params={"project": project}).json()
        return sorted(found, key=lambda prediction: int(prediction["task"]))

    def checked_areas(self, config: str, predictions: list[dict[str, Any]]) -> list[int]:
        """Pixels of each mask as its own converter reads it, of predictions that its own validation accepts."""
        command, given = [str(self.python), "-c", CONVERT], json.dumps([config, predictions])
        done = subprocess.run(command, input=given, capture_output=True, text=True, env=_environment())
        assert done.returncode == 0, done.stderr
        areas: list[int] = json.loads(done.stdout.splitlines()[-1])
        return areas


@dataclass
class Backend:
    """A service that labels a Label Studio's pictures."""

    url: str
    client: Client


def _environment(**more: str) -> dict[str, str]:
    ours = {"DJANGO_DB": "sqlite", "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": ""}
    # Its checks of addresses refuse backends in its own network, and the webhooks that it makes of them.
    checks = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"}
    return os.environ | ours | checks | {"FRONTEND_SENTRY_DSN": ""} | more


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    folder = tmp_path_factory.mktemp("label_studio")
    try:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        program = folder / "venv" / "bin"
        install = [str(program / "python"), "-m", "pip", "install", "--quiet", "--no-cache-dir", "label-studio>=1.23"]
        subprocess.run(install, check=True, capture_output=True)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [str(program / "label-studio"), "start", "--no-browser", "--internal-host", "127.0.0.1"]
        command += ["--port", str(port), "--skip-long-migrations", "--user-token", TOKEN, "--enable-legacy-api-token"]
        command += [word for name, value in USER.items() for word in (f"--{name}", value)]
        environment = _environment(LABEL_STUDIO_BASE_DATA_DIR=str(folder / "data"))
        with (
            running(command, f"{url}/health", folder / "log", env=environment, timeout_s=1800),
            httpx.Client(base_url=url, headers={"authorization": f"Token {TOKEN}"}, timeout=300) as api,
        ):
            yield LabelStudio(url, program / "python", api)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """Ten parts of the example, by name."""
    return {f"part{number}.png": part for number, part in enumerate(ten_parts())}


def config_of(*shapes: str) -> str:
    controls = (f'<{SHAPES[shape]} name="{shape}" toName="picture">{LABELS}</{SHAPES[shape]}>' for shape in shapes)
    return f'<View><Image name="picture" value="$image"/>{"".join(controls)}</View>'


@pytest.fixture(scope="module")
def backend(label_studio: LabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A service that labels the pictures of the Label Studio, with its new kind of token."""
    folder = tmp_path_factory.mktemp("backend")
    token = label_studio.post("/api/token/")["token"]
    (folder / "keys").write_text(KEY)
    options = ["--batch-timing-ms", "0", "--api-keys-file", str(folder / "keys")]
    options += ["--label-studio-url", label_studio.url]
    with (
        serving(None, folder, *options, env={"DETR_LABEL_STUDIO_API_KEY": token}) as process,
        Client(process.url, api_key=KEY) as client,
    ):
        yield Backend(process.url, client)


def connect(label_studio: LabelStudio, backend: Backend, project: int, key: str = KEY) -> httpx.Response:
    login = {"auth_method": "BASIC_AUTH", "basic_auth_user": "detr", "basic_auth_pass": key}
    url = f"{backend.url}/label-studio"
    return label_studio.api.post("/api/ml/", json={"url": url, "project": project, "title": "detr", **login})


def test_ten_pictures_are_labelled_with_rectangles(
    label_studio: LabelStudio, backend: Backend, pictures: dict[str, bytes]
) -> None:
    config = config_of("boxes")
    project = label_studio.project(config, pictures)
    assert connect(label_studio, backend, project, "a wrong key").status_code == 400
    connected = connect(label_studio, backend, project)
    assert connected.status_code == 201, connected.text
    predictions = label_studio.predictions(project)
    assert label_studio.checked_areas(config, predictions) == []
    assert len(predictions) == len(pictures)
    for prediction, file in zip(predictions, pictures.values(), strict=True):
        found = backend.client.detect(file, classes=["heart", "ring"])
        assert [region["value"]["rectanglelabels"] for region in prediction["result"]] == [
            [{"heart": "Heart", "ring": "ring"}[label]] for label in found.labels
        ]
        assert prediction["model_version"].startswith("detr-demo ")
        for region, each in zip(prediction["result"], found, strict=True):
            x, y, width, height = (region["value"][side] for side in ("x", "y", "width", "height"))
            box = (4.4 * x, 3.9 * y, 4.4 * (x + width), 3.9 * (y + height))
            assert box == pytest.approx(each.box_xyxy, abs=0.02)
            assert (region["original_width"], region["original_height"]) == (440, 390)
            assert region["score"] == pytest.approx(each.score, abs=1e-4)
    assert sum(len(prediction["result"]) for prediction in predictions) >= 10
    assert label_studio.predictions(project) == predictions  # of the same version none is made again


def test_masks_come_as_brush_strokes_and_outlines(
    label_studio: LabelStudio, backend: Backend, pictures: dict[str, bytes]
) -> None:
    few = dict(list(pictures.items())[:2])
    config = config_of("masks", "outlines")
    project = label_studio.project(config, few)
    assert connect(label_studio, backend, project).status_code == 201
    predictions = label_studio.predictions(project)
    areas = [
        area
        for file in few.values()
        for area in backend.client.segment(file, mode="instance", classes=["heart", "ring"]).areas
    ]
    assert label_studio.checked_areas(config, predictions) == areas
    regions = [region for prediction in predictions for region in prediction["result"]]
    assert {region["type"] for region in regions} == {"brushlabels", "polygonlabels"}
    outlines = [region["value"]["points"] for region in regions if region["type"] == "polygonlabels"]
    assert outlines
    assert all(3 <= len(points) < 100 for points in outlines)


def test_a_project_for_which_the_model_knows_no_label_is_not_connected(
    label_studio: LabelStudio, backend: Backend
) -> None:
    project = label_studio.project(config_of("boxes").replace("Heart", "Truck").replace("ring", "Tree"), {})
    refused = connect(label_studio, backend, project)
    assert refused.status_code == 400
    assert "422" in refused.text
