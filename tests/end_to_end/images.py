"""Container images that are made here from Debian's packages: no registry is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.end_to_end.pip_settings import pip_settings_of_this_machine
from tests.server_process import REPOSITORY

SUITE = "bookworm"
PYTHON_PACKAGES = "python3,python3-venv,ca-certificates"
BASE_IMAGE = "localhost/debian-python"


class Buildah:
    """buildah with a storage of its own, in a folder of the test's."""

    def __init__(self, folder: Path) -> None:
        """Keep images, containers and run state below `folder`."""
        self._root, self._driver = folder / "root", _storage_driver(folder)
        run = str(folder / "run")
        self.storage = ("--storage-driver", self._driver, "--root", str(self._root), "--runroot", run)
        self.program = ("buildah", *self.storage)

    def remove_all(self) -> None:
        """Remove containers and images, and what the storage has mounted."""
        self("rm", "--all")
        self("rmi", "--all", "--force")
        if self._driver == "overlay":
            subprocess.run(["umount", "--recursive", self._root / self._driver], capture_output=True, check=False)

    def storage_beside(self, folder: Path) -> tuple[str, ...]:
        """Options of a storage below `folder`, for another program's containers, which sees these images as well."""
        options = ("--storage-driver", self._driver, "--root", str(folder / "root"), "--runroot", str(folder / "run"))
        return (*options, "--storage-opt", f"{self._driver}.imagestore={self._root}")

    def __call__(self, *arguments: str | Path) -> str:
        """Standard output of one buildah command; a failure shows what it printed."""
        return _output([*self.program, *arguments])


def _storage_driver(folder: Path) -> str:
    """overlay where the machine can mount it there; else vfs, which copies an image for each container."""
    places = {name: folder / "probe" / name for name in ("lower", "upper", "work", "merged")}
    for place in places.values():
        place.mkdir(parents=True)
    layers = f"lowerdir={places['lower']},upperdir={places['upper']},workdir={places['work']}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", layers, str(places["merged"])]
    # In a namespace of its own, so that nothing is left mounted.
    done = subprocess.run(["unshare", "--mount", *mount], capture_output=True, check=False)
    shutil.rmtree(folder / "probe")
    return "overlay" if done.returncode == 0 else "vfs"


def make_base_image(buildah: Buildah, folder: Path) -> str:
    """The name of a Debian with Python, made into an image; a folder that does not exist yet is used for it."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PYTHON_PACKAGES}", SUITE, folder],
        check=True, capture_output=True,
    )  # fmt: skip
    container = buildah("from", "scratch")
    buildah("add", container, folder, "/")
    buildah("commit", "--rm", container, BASE_IMAGE)
    subprocess.run(["rm", "-rf", folder], check=True)
    return BASE_IMAGE


def build_by_make(buildah: Buildah, folder: Path, words: Sequence[str], **arguments: str) -> None:
    """Run `make image` with these words, and with these build arguments beside, on the Debian of `make_base_image`."""
    # Not the image's business: how pip gets from this machine to a package index.
    volumes = pip_settings_of_this_machine(folder)
    options = [
        *("--isolation", "chroot", "--pull-never"),
        *(f"--volume={outside}:{inside}:ro" for outside, inside in volumes.items()),
        *(f"--build-arg={name}={value}" for name, value in {"BASE_IMAGE": BASE_IMAGE, **arguments}.items()),
    ]
    builder = f"BUILDER={' '.join(buildah.program)}"
    _output(["make", "--directory", str(REPOSITORY), *words, builder, f"BUILD_OPTIONS={' '.join(options)}"])


def image_of_programs(
    buildah: Buildah, name: str, programs: Sequence[Path], folders: Mapping[str, int] = {}, config: Sequence[str] = ()
) -> None:
    """Make an image of this machine's programs and the libraries they need, and nothing else.

    Args:
        buildah: whose storage it goes to.
        name: of the image.
        programs: absolute paths.
        folders: of the image, and whose each is.
        config: options of `buildah config`.
    """
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    for program in programs:
        libraries = [word for word in _output(["ldd", program]).split() if word.startswith("/")]
        for file in (str(program), *libraries):
            (place := root / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(Path(file).read_bytes())
            place.chmod(0o755)
    for folder, owner in {"tmp": 0, "etc": 0, **folders}.items():
        (root / folder).mkdir(exist_ok=True)
        subprocess.run(["chown", str(owner), root / folder], check=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc" / "passwd").write_text("nobody:x:65534:65534::/:/bin/false\n")
    buildah("config", *config, container)
    buildah("commit", "--rm", container, name)


def config_of(buildah: Buildah, image: str) -> dict[str, Any]:
    """What the image tells a container engine: user, environment, entry point, health check."""
    settings: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    return settings


def _output(command: Sequence[str | Path]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout.strip()
