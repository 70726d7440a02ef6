"""podman and podman-compose in the place of Docker, which would need a daemon; on a network that nothing else is on."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.end_to_end.images import Buildah
from tests.server_process import environment

PROGRAMS = ("podman", "runc", "catatonit", "iptables", "ip", "wget")
# runc may not raise a limit where the machine's root lacks CAP_SYS_RESOURCE, and podman has limits of its own to set.
_RUNTIME = """#!{python}
import json, os, sys
words = sys.argv[1:]
for option, begin in (("--bundle", "process"), ("--process", None)):
    if option in words:
        path = words[words.index(option) + 1]
        path = os.path.join(path, "config.json") if begin else path
        with open(path) as file:
            spec = json.load(file)
        (spec[begin] if begin else spec).pop("rlimits", None)
        with open(path, "w") as file:
            json.dump(spec, file)
os.execvp("runc", ["runc", *words])
"""
_SETTINGS = """[network]
network_backend = "netavark"
[containers]
log_driver = "k8s-file"
"""
# `docker compose` as the documentation has it, and nothing else of docker.
_DOCKER = """#!/bin/sh
[ "$1" = compose ] && shift && exec {compose} --podman-path {podman} "$@"
echo "docker is podman here, which has no $1" >&2
exit 1
"""
_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWNET = 0x00000200, 0x00020000, 0x40000000
_NOTES = "/run/containers"


class Podman:
    """podman, which sees the images of a buildah, and a `docker` that hands `docker compose` on to podman-compose.

    A database belongs to one podman, so each has a storage of its own.
    """

    def __init__(self, folder: Path, buildah: Buildah) -> None:
        """Write all it needs into `folder`, podman-compose included."""
        venv.create(folder / "venv", with_pip=True)
        install: list[str | Path] = [
            folder / "venv/bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "podman-compose>=1.6",
        ]
        subprocess.run(install, check=True)
        (folder / "containers.conf").write_text(_SETTINGS)
        runtime = _script(folder / "runtime", _RUNTIME.format(python=sys.executable))
        options = [
            *buildah.storage_beside(folder),
            *(
                "--tmpdir",
                folder / "tmp",
                "--network-config-dir",
                folder / "networks",
                "--volumepath",
                folder / "volumes",
            ),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", runtime),
        ]
        begin = f"#!/bin/sh\nexport CONTAINERS_CONF={folder / 'containers.conf'}\n"
        podman = _script(folder / "podman", f'{begin}exec podman {" ".join(map(str, options))} "$@"\n')
        (folder / "bin").mkdir()
        _script(folder / "bin/docker", _DOCKER.format(compose=folder / "venv/bin/podman-compose", podman=podman))
        self._podman = podman
        self._path = f"{folder / 'bin'}:{os.environ['PATH']}"

    def __call__(self, *arguments: str | Path) -> str:
        """Standard output of one podman command; a failure shows what it printed."""
        return self._run([self._podman, *arguments], None, {})

    def shell(self, command: str, folder: Path, env: Mapping[str, str] = {}) -> str:
        """What a command of the documentation prints in this folder."""
        return self._run(["sh", "-c", command], folder, env)

    def _run(self, words: list[str | Path], folder: Path | None, env: Mapping[str, str]) -> str:
        inherited = environment() | {"PATH": self._path} | dict(env)
        # Files and not pipes: what a container leaves running holds a pipe open, which then has no end.
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            done = subprocess.run(
                words, cwd=folder, env=inherited, stdout=output, stderr=errors, timeout=300, check=False
            )
            output.seek(0)
            errors.seek(0)
            printed, failed = output.read(), errors.read()
        assert done.returncode == 0, f"{words}:\n{printed[-2000:]}\n{failed[-4000:]}"
        return printed.strip()


@contextmanager
def network_of_its_own() -> Iterator[None]:
    """This thread, and all that it starts in the block, see a network with a loopback and nothing else. Needs root.

    podman notes in one place of the machine which networks and name servers there are, so that is another, too.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = Path.cwd()
    with ExitStack() as stack:
        namespaces = [stack.enter_context(Path(f"/proc/thread-self/ns/{kind}").open("rb")) for kind in ("net", "mnt")]
        if libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            Path(_NOTES).mkdir(parents=True, exist_ok=True)
            for command in ("mount --make-rprivate /", f"mount -t tmpfs tmpfs {_NOTES}", "ip link set lo up"):
                subprocess.run(command.split(), check=True)
            yield
        finally:
            # Threads that were started in the block and live on share this one's folder and root, which setns forbids.
            libc.unshare(_CLONE_FS)
            for namespace in namespaces:
                if libc.setns(namespace.fileno(), 0) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            os.chdir(before)


def _script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
