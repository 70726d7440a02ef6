"""Ray Serve as a test sees it: started, given a configuration, asked, and ended. See `tests/ray_driver.py`."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.settings import SECRETS
from tests.processes import free_port
from tests.server_process import REPOSITORY, environment

# What runs of an application's replicas calls itself.
_REPLICA = "ray::ServeReplica:detr"
_ENDS_SOON = {
    # A replica that is to end waits so long for proxies to learn of it; half a minute by default.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "5",
}


# A loaded machine is not a failure.
_PATIENCE = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "300",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "300",
}


@dataclass
class RayServe:
    """A running Ray with Ray Serve, whose one application is ours."""

    driver: subprocess.Popen[str]
    url: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)

    def deploy(self, settings: Mapping[str, Any], **deployment: Any) -> dict[str, Any]:
        """Deploy the application with these settings, and these options of Ray's for its replicas.

        Returns:
            What has become of it: `status`, `message`, and by state the number of `replicas`.
        """
        given = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        application: dict[str, Any] = {"name": "detr", "import_path": "service.ray.app:build", "args": given}
        if deployment:
            application["deployments"] = [{"name": "detr", **deployment}]
        self.config = {"applications": [application]}
        return self._tell(self.config)

    def status(self) -> dict[str, Any]:
        """What has become of what was deployed last."""
        return self._tell(None)

    def replicas(self) -> list[psutil.Process]:
        """The processes of the replicas."""
        found = []
        for process in psutil.Process(self.driver.pid).children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith(_REPLICA):
                    found.append(process)
            except psutil.Error:  # it has just ended
                continue
        return found

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the service's log, of all replicas there were."""
        texts = [path.read_text() for path in self.folder.glob("session_latest/logs/worker-*.out")]
        return [json.loads(line) for text in texts for line in text.splitlines() if line.startswith('{"time"')]

    def _tell(self, config: Mapping[str, Any] | None) -> dict[str, Any]:
        assert self.driver.stdin is not None
        self.driver.stdin.write(json.dumps(config) + "\n")
        self.driver.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.driver.stdout is not None
        line = self.driver.stdout.readline()
        assert line, f"Ray has ended:\n{(self.folder / 'driver.log').read_text()[-4000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def ray_serve(*, cpus: int = 2, env: Mapping[str, str] = {}, haproxy: bool = True) -> Iterator[RayServe]:
    """Run Ray with Ray Serve for the length of a `with` block, in a thread that sees a network of its own.

    Args:
        cpus: that Ray gives to replicas; no process is held to its own.
        env: of Ray and of the replicas.
        haproxy: what takes requests; else it is Ray's proxy in Python.
    """
    port = free_port()
    own = {
        "RAY_DRIVER_PORT": str(port),
        "RAY_SERVE_ENABLE_HA_PROXY": str(int(haproxy)),
        **_ENDS_SOON,
        **env,
    }
    with ray_folder() as folder:
        haproxy_files = {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy/haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy/admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "haproxy"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy/server-state"),
        }
        with (folder / "driver.log").open("w") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "tests.ray_driver"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY,
                env=ray_environment(folder, cpus) | haproxy_files | own,
            )  # fmt: skip
        with driver:
            ray = RayServe(driver, f"http://127.0.0.1:{port}", folder)
            try:
                ray._answer()
                yield ray
            finally:
                end_family(driver.pid)


@contextmanager
def ray_folder() -> Iterator[Path]:
    """A folder for what Ray writes, by a path that is short enough for its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ray_environment(folder: Path, cpus: int) -> dict[str, str]:
    """The environment of a program that calls `tests.ray_driver.start`, and of all that Ray starts there."""
    return environment() | {
        "PYTHONPATH": str(REPOSITORY),
        "RAY_DRIVER_FOLDER": str(folder),
        "RAY_DRIVER_CPUS": str(cpus),
        "RAY_AUTH_MODE": "disabled",  # else a token is written to the home folder
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        **_PATIENCE,
    }


def end_family(pid: int) -> None:
    """End a process and all that it has started, whatever they are at."""
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=30)


class Launcher:
    """Two replicas for the tests of the API (`tests/service/running.py`), deployed anew where their settings change.

    Ray ends with this process.
    """

    def __init__(self) -> None:
        stack = ExitStack()
        atexit.register(stack.close)
        self._ray = stack.enter_context(ray_serve(haproxy=False))
        self._deployed: dict[str, Any] | None = None

    @asynccontextmanager
    async def serving(self, usual: Mapping[str, Any], own: Mapping[str, Any]) -> AsyncIterator[str]:
        """See `tests.service.running.Launcher`."""
        if SECRETS & own.keys():
            pytest.skip("needs a server with keys in its environment")
        settings = {name: self._lasting(value) for name, value in {**usual, **own}.items()}
        if settings != self._deployed:
            self._deployed = None
            told = self._ray.deploy(settings, num_replicas=2)
            assert told["status"] == "RUNNING", told
            self._deployed = settings
        yield self._ray.url

    def _lasting(self, value: Any) -> Any:
        """The same setting; for a file one that is the same for all tests with the same content."""
        if not isinstance(value, Path) or not value.is_file():
            return value
        copy = self._ray.folder / hashlib.sha256(value.read_bytes()).hexdigest()
        return shutil.copy(value, copy)
