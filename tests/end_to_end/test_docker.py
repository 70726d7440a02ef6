"""The container image is really built, and its file system really run, as its own user and with no privilege.

Neither an image registry nor a Docker engine is asked for: the base is a fresh Debian from debootstrap,
buildah builds in a chroot, and the image runs in one, locked down the way docker-compose.yml locks it down.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.utils import canonicalize_name

from tests.end_to_end.conftest import COCO
from tests.end_to_end.images import Buildah, config_of
from tests.end_to_end.test_image_requirements import pins_of
from tests.fake_hub import fake_hub
from tests.processes import free_port, running

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def config(buildah: Buildah, image: str) -> dict[str, Any]:
    return config_of(buildah, image)


@pytest.fixture(scope="module")
def root(buildah: Buildah, image: str) -> Path:
    """The image's file system."""
    return Path(buildah("mount", buildah("from", "--pull-never", image)))


# What docker-compose.yml asks of an engine: a read-only disk, a fresh /tmp, no capabilities, no way to any; the
# file of hosts that every engine brings; and one volume, where there is one.
CONTAINED = """
set -e
root=$1 user=$2 group=$3 outside=$4 inside=$5; shift 5
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
touch "$root/etc/hosts"
mount --bind /etc/hosts "$root/etc/hosts"
mount -o remount,bind,ro "$root"
[ -z "$outside" ] || mount --bind "$outside" "$root$inside"
exec chroot "$root" setpriv --reuid="$user" --regid="$group" --clear-groups \
    --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


class Container:
    """Runs commands in the image's file system, as its user, in its environment."""

    def __init__(
        self, root: Path, config: dict[str, Any], volume: tuple[str | Path, str] = ("", ""), **env: str
    ) -> None:
        """Take the user and environment from the image and add `env`; `volume` is a folder here and its place there."""
        self._root = root
        self._volume = tuple(map(str, volume))
        self._user = config["User"].split(":")
        self.env = dict(variable.split("=", 1) for variable in config["Env"]) | env

    def command(self, *arguments: str) -> list[str]:
        """The command line to run outside."""
        # `env -i` in the image resolves the program by the image's PATH, and hides this machine's variables.
        variables = [f"{name}={value}" for name, value in self.env.items()]
        inside = ["env", "-i", *variables, *arguments]
        return ["unshare", "--mount", "sh", "-c", CONTAINED, "sh", str(self._root), *self._user, *self._volume, *inside]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)


@contextmanager
def served(
    root: Path, config: dict[str, Any], folder: Path, volume: tuple[str | Path, str] = ("", ""), **env: str
) -> Iterator[tuple[Container, str]]:
    """The image's entry point, running; the container and the service's address."""
    port = free_port()
    # Engines hand their host's proxy on to containers; the health check must not send its question there.
    proxy = "http://127.0.0.1:9"
    address = {"DETR_PORT": str(port), "DETR_HOST": "127.0.0.1", "http_proxy": proxy}
    container = Container(root, config, volume, **address, **env)
    url = f"http://127.0.0.1:{port}"
    with running(container.command(*config["Entrypoint"]), f"{url}/health/ready", folder / "log"):
        yield container, url


def test_the_image_answers_detect_as_its_unprivileged_user(
    root: Path, config: dict[str, Any], tmp_path: Path, jpeg: bytes
) -> None:
    healthy = config["Healthcheck"]["Test"][1:]
    with served(root, config, tmp_path) as (container, url):
        answer = httpx.post(f"{url}/detect", files={"image": jpeg}, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["image"] == {"width": 128, "height": 96}
        check = container.run(*healthy)
        assert check.returncode == 0, check.stderr
    assert container.run(*healthy).returncode != 0, "the health check has to notice that the service is gone"


def test_an_image_that_brings_its_model_serves_it_without_a_hub(
    buildah: Buildah, coco_image: str, tmp_path: Path, jpeg: bytes
) -> None:
    root = Path(buildah("mount", buildah("from", "--pull-never", coco_image)))
    config = config_of(buildah, coco_image)
    assert "DETR_MODEL=/opt/model/model.onnx" in config["Env"]
    cache = (root / "var/cache/detr").stat()
    assert (cache.st_uid, list((root / "var/cache/detr").iterdir())) == (10001, [])
    with served(root, config, tmp_path) as (_, url):
        assert httpx.post(f"{url}/detect", files={"image": jpeg}, timeout=120).status_code == 200
        assert httpx.get(f"{url}/model").json()["provenance"]["source"] == COCO


def test_a_model_of_the_hub_is_fetched_into_a_volume_and_served_from_it_with_keys(
    root: Path, config: dict[str, Any], coco_files: dict[str, bytes], tmp_path: Path, jpeg: bytes
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.chown(cache, *map(int, config["User"].split(":")))
    volume = (cache, "/var/cache/detr")
    with fake_hub() as hub:
        hub.push(COCO, coco_files)
        fetched = Container(root, config, volume, HF_ENDPOINT=hub.url).run("detr", "fetch", COCO)
        assert fetched.returncode == 0, fetched.stderr
    key, another = "key-of-the-container", "another-key-of-nobody"
    settings = {"DETR_MODEL": COCO, "HF_HUB_OFFLINE": "1", "DETR_API_KEYS": key}
    with served(root, config, tmp_path, volume, **settings) as (_, url):
        asked = {
            given: httpx.post(f"{url}/detect", files={"image": jpeg}, headers={"X-API-Key": given}, timeout=120)
            for given in (key, another)
        }
        assert {given: answer.status_code for given, answer in asked.items()} == {key: 200, another: 401}
        assert httpx.get(f"{url}/model", headers={"X-API-Key": key}).json()["provenance"]["source"] == COCO


def test_the_image_is_told_apart_from_root(root: Path, config: dict[str, Any]) -> None:
    assert config["User"] == "10001:10001"
    container = Container(root, config)
    assert container.run("id", "-u").stdout.strip() == "10001"
    assert container.run("touch", "/opt/detr/file").returncode != 0
    found = container.run("find", "/opt", "-writable", "-not", "-type", "l")
    assert found.stdout == "", "the user owns nothing that runs"


def test_the_image_holds_no_training_and_no_build_tools(root: Path) -> None:
    (packages,) = root.glob("opt/detr/lib/python3*/site-packages")
    installed = {path.name.lower() for path in packages.iterdir()}
    assert {"model", "service", "onnxruntime", "openvino", "fastapi"} <= installed
    assert not installed & {"torch", "torchvision", "lightning", "onnx", "scipy", "pip", "setuptools"}
    assert not [name for name in installed if name.startswith(("onnxruntime_gpu", "nvidia"))]
    assert not list(root.glob("root/.cache/*"))
    assert not (root / "build").exists()


@pytest.mark.row(id="S10")
def test_the_image_holds_what_its_lock_says_and_its_bill_of_materials_lists_all_of_it(root: Path) -> None:
    (packages,) = root.glob("opt/detr/lib/python3*/site-packages")
    installed = {(canonicalize_name(entry.name), entry.version) for entry in distributions(path=[str(packages)])}
    bill = json.loads((root / "opt/detr/sbom.cdx.json").read_text())
    project = bill["metadata"]["component"]
    assert {(entry["name"], entry["version"]) for entry in [project, *bill["components"]]} == installed
    pins = {(pin.name, specifier.version) for pin in pins_of("openvino") for specifier in pin.specifier}
    assert installed - {(project["name"], project["version"])} <= pins


def test_the_image_says_how_to_run_it(config: dict[str, Any]) -> None:
    assert config["Entrypoint"] == ["detr", "serve"]
    assert "8000/tcp" in config["ExposedPorts"]
    assert {"DETR_HOST=0.0.0.0", "DETR_DEVICE=openvino", "PYTHONUNBUFFERED=1"} <= set(config["Env"])
    assert config["Healthcheck"]["Test"][0] == "CMD", "without a shell"
