"""Programs that the end-to-end tests need, and a picture to send."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.hub_files import PROCESSOR, repository_files
from tests.end_to_end.images import Buildah, build_by_make, make_base_image
from tests.end_to_end.kubernetes import Kubernetes, kubernetes_tools
from tests.fake_hub import fake_hub

REPOSITORY = Path(__file__).parents[2]
COCO = "facebook/detr-resnet-50"
# Of docs/deploy.md.
MAKE_COCO_IMAGE = f"make image MODEL={COCO} TAG=coco"


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """A check that the named programs and libraries, and root where asked for, are there.

    A desk without them skips the test and says why. CI has to have them, so there it fails.
    """

    def check(*programs: str, libraries: Sequence[str] = (), root: bool = False) -> None:
        missing = [program for program in programs if shutil.which(program) is None]
        missing += [f"lib{library}" for library in libraries if find_library(library) is None]
        if root and os.geteuid() != 0:
            missing.append("root")
        if missing and os.environ.get("CI") == "true":
            pytest.fail(f"CI lacks {', '.join(missing)}; .ci/run has to install it")
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")

    return check


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A small picture with structure in it, as JPEG bytes."""
    rows, columns = np.mgrid[0:96, 0:128]
    pixels = np.stack([rows * 2, columns * 2, (rows + columns) % 256], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def demo() -> Path:
    """The bundled demo model."""
    path = REPOSITORY / "model/demo/detr-demo.onnx"
    assert path.is_file(), "the demo model belongs to the repository"
    return path


@pytest.fixture(scope="session")
def buildah(need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    need("buildah", "debootstrap", "chroot", "unshare", "make", root=True)
    run = Buildah(tmp_path_factory.mktemp("buildah"))
    yield run
    run.remove_all()


@pytest.fixture(scope="session")
def base_image(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Debian with Python, made into an image."""
    return make_base_image(buildah, tmp_path_factory.mktemp("debian") / "root")


@pytest.fixture(scope="session")
def image(buildah: Buildah, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of docker/Dockerfile, as `make image` builds it; it takes a minute or two."""
    build_by_make(buildah, tmp_path_factory.mktemp("pip"), ["image"])
    return "localhost/detr-serve:0.1.0"


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Kubernetes:
    """Programs and definitions for the manifests, installed into an environment of their own."""
    return kubernetes_tools(tmp_path_factory.mktemp("kubernetes"))


@pytest.fixture(scope="session")
def coco_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the published model on the hub, but random weights, and small pictures for a busy machine."""
    folder = repository_files(COCO, tmp_path_factory.mktemp("coco"))
    small = PROCESSOR | {"size": {"shortest_edge": 160, "longest_edge": 267}}
    (folder / "preprocessor_config.json").write_text(json.dumps(small))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def coco_image(
    buildah: Buildah, image: str, coco_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The same image, which brings that model along."""
    with fake_hub() as hub:
        hub.push(COCO, coco_files)
        words = MAKE_COCO_IMAGE.split()[1:]
        build_by_make(buildah, tmp_path_factory.mktemp("pip"), words, HF_ENDPOINT=hub.url)
    return "detr-serve:coco"
